package detect

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// A parameter is a whole number, a text or a list of texts; what it is, its default
// says. It stands in filters, windows and times as ${name}.

// parameters returns the values of the rule's parameters: those of set, else their
// defaults.
func (f ruleFile) parameters(set map[string]any) (map[string]any, error) {
	var errs []error
	out := make(map[string]any, len(f.Parameters))
	for name, p := range f.Parameters {
		if !ruleID.MatchString(name) {
			errs = append(errs, fmt.Errorf("parameters: %q is no name", name))
		}
		v, err := normal(p.Default)
		if err != nil {
			errs = append(errs, fmt.Errorf("parameters: %s: %w", name, err))
		}
		out[name] = v
	}
	for name, value := range set {
		old, ok := out[name]
		if !ok {
			errs = append(errs, fmt.Errorf("parameters: there is no %q to set", name))
			continue
		}
		v, err := normal(value)
		if err == nil && fmt.Sprintf("%T", v) != fmt.Sprintf("%T", old) {
			err = errors.New("it is of another kind than its default")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("parameters: %s: %w", name, err))
			continue
		}
		out[name] = v
	}
	return out, errors.Join(errs...)
}

// normal returns v as an int64, a string or a []string.
func normal(v any) (any, error) {
	switch v := v.(type) {
	case int:
		return int64(v), nil
	case int64:
		return v, nil
	case uint64:
		if v > math.MaxInt64 {
			return nil, fmt.Errorf("%d is too large", v)
		}
		return int64(v), nil
	case string:
		return v, nil
	case []any:
		out := make([]string, len(v))
		for i, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil, fmt.Errorf("a list holds texts, not %v", e)
			}
			out[i] = s
		}
		if len(out) == 0 {
			return nil, errors.New("an empty list matches nothing; switch the rule off instead")
		}
		return out, nil
	}
	return nil, fmt.Errorf("%v is no whole number, text or list of texts", v)
}

var placeholder = regexp.MustCompile(`\$\{([^{}]*)\}`)

// expand replaces each ${name} in text by what spell makes of the parameter's value.
func expand(text string, params map[string]any, spell func(any) (string, error)) (string, error) {
	var errs []error
	out := placeholder.ReplaceAllStringFunc(text, func(m string) string {
		name := placeholder.FindStringSubmatch(m)[1]
		v, ok := params[name]
		if !ok {
			errs = append(errs, fmt.Errorf("there is no parameter %q", name))
			return ""
		}
		s, err := spell(v)
		if err != nil {
			errs = append(errs, fmt.Errorf("parameter %s: %w", name, err))
		}
		return s
	})
	return out, errors.Join(errs...)
}

// plainValue spells a parameter outside a filter.
func plainValue(v any) (string, error) {
	switch v := v.(type) {
	case int64:
		return strconv.FormatInt(v, 10), nil
	case string:
		return v, nil
	}
	return "", errors.New("a list can stand in a filter only")
}

// filterValue spells a parameter as a filter's value, so that no text in it can be
// more than a value.
func filterValue(v any) (string, error) {
	switch v := v.(type) {
	case int64:
		return strconv.FormatInt(v, 10), nil
	case string:
		return quote(v), nil
	case []string:
		quoted := make([]string, len(v))
		for i, s := range v {
			quoted[i] = quote(s)
		}
		return "(" + strings.Join(quoted, " OR ") + ")", nil
	}
	return "", fmt.Errorf("a parameter of type %T", v) // Ruled out by normal.
}

func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
