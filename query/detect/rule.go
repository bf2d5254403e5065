package detect

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/goccy/go-yaml"

	"example.com/keytrail/domain"
)

// Shape is how records become evidence.
type Shape string

// The shapes.
const (
	// Each makes every matching record evidence.
	Each Shape = "each"
	// Count asks for a number of records in a window.
	Count Shape = "count"
	// Distinct asks for a number of distinct values of a field in a window.
	Distinct Shape = "distinct"
)

// Window asks for a threshold within a time; both ends count.
type Window struct {
	Threshold int
	Within    time.Duration
}

// Rule is a compiled rule. It is immutable and safe for concurrent use.
type Rule struct {
	ID         string
	Version    int
	Title      string
	Severity   domain.FindingLevel
	Techniques []string
	References []string
	Advice     string

	sources map[Source]expr
	// filters are the sources' filters in text, parameters filled in.
	filters map[Source]string
	shape   Shape
	// distinct is, by source, the field whose values are counted; empty for other shapes.
	distinct   map[Source]field
	windows    []Window
	join, span time.Duration
	reason     *template.Template
	parameters map[string]any
	tests      []ruleTest
}

func (r *Rule) technique() string { return strings.Join(r.Techniques, ", ") }

// reach is how far back a trigger looks.
func (r *Rule) reach() time.Duration {
	var out time.Duration
	for _, w := range r.windows {
		out = max(out, w.Within)
	}
	return out
}

// ruleFile is a rule as it is written; README.md beside the rules describes it field by
// field.
type ruleFile struct {
	ID         string                   `yaml:"id"`
	Version    int                      `yaml:"version"`
	Title      string                   `yaml:"title"`
	Severity   string                   `yaml:"severity"`
	Techniques []string                 `yaml:"techniques"`
	References []string                 `yaml:"references"`
	Advice     string                   `yaml:"advice"`
	Sources    map[string]string        `yaml:"sources"`
	GroupBy    string                   `yaml:"group_by"`
	Shape      string                   `yaml:"shape"`
	Distinct   string                   `yaml:"distinct"`
	Windows    []windowFile             `yaml:"windows"`
	Join       string                   `yaml:"join"`
	Span       string                   `yaml:"span"`
	Parameters map[string]parameterFile `yaml:"parameters"`
	Reason     string                   `yaml:"reason"`
	Tests      []ruleTest               `yaml:"tests"`
}

type windowFile struct {
	Threshold any    `yaml:"threshold"`
	Within    string `yaml:"within"`
}

type parameterFile struct {
	Default any    `yaml:"default"`
	About   string `yaml:"about"`
}

// ruleBytesMax bounds a rule file.
const ruleBytesMax = 1 << 20

// Bounds of the times in a rule. A span bounds what one finding can hold and so what
// one evaluation reads again.
const (
	spanDefault = 24 * time.Hour
	spanMax     = 31 * 24 * time.Hour
)

// ParseRule reads and compiles one rule file. Values in set replace the defaults of
// the parameters that they name. An unknown field, a missing one and a contradiction
// are errors; all that can be found at once are joined.
func ParseRule(data []byte, set map[string]any) (*Rule, error) {
	if len(data) > ruleBytesMax {
		return nil, fmt.Errorf("a rule has at most %d bytes", ruleBytesMax)
	}
	var f ruleFile
	if err := yaml.UnmarshalWithOptions(data, &f, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("read rule: %w", err)
	}
	r, err := f.compile(set)
	if err != nil {
		return nil, fmt.Errorf("rule %q: %w", f.ID, err)
	}
	return r, nil
}

func (f ruleFile) compile(set map[string]any) (*Rule, error) {
	params, err := f.parameters(set)
	if err != nil {
		return nil, err
	}
	r := &Rule{
		ID: f.ID, Version: f.Version, Title: f.Title, Severity: domain.FindingLevel(f.Severity),
		Techniques: f.Techniques, References: f.References, Advice: f.Advice,
		sources: map[Source]expr{}, filters: map[Source]string{}, distinct: map[Source]field{}, shape: Shape(f.Shape), parameters: params, tests: f.Tests,
	}
	errs := []error{f.check(r)}
	for name, text := range f.Sources {
		if err := r.compileFilter(Source(name), text, params); err != nil {
			errs = append(errs, fmt.Errorf("sources: %s: %w", name, err))
		}
	}
	errs = append(errs, f.shapeInto(r, params), f.timesInto(r, params))
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if err := f.reasonInto(r); err != nil {
		return nil, err
	}
	return r, nil
}

// ruleID is the form of a rule's id and of a parameter's name.
var ruleID = regexp.MustCompile(`^[a-z][a-z0-9]*([-_][a-z0-9]+)*$`)

// techniqueID is the form of an ATT&CK technique's id.
var techniqueID = regexp.MustCompile(`^T[0-9]{4}(\.[0-9]{3})?$`)

// check holds the plain fields to their form.
func (f ruleFile) check(r *Rule) error {
	var errs []error
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(ruleID.MatchString(f.ID) && len(f.ID) <= 64, "id: %q is not words of small letters and digits with hyphens", f.ID)
	bad(f.Version >= 1, "version: %d is less than 1", f.Version)
	bad(f.Title != "", "title: missing")
	bad(f.Reason != "", "reason: missing")
	bad(slices.Contains([]domain.FindingLevel{domain.LevelLow, domain.LevelMedium, domain.LevelHigh, domain.LevelCritical}, r.Severity),
		"severity: %q is not low, medium, high or critical", f.Severity)
	for _, t := range f.Techniques {
		bad(techniqueID.MatchString(t), "techniques: %q is no ATT&CK technique", t)
	}
	bad(len(f.Sources) > 0, "sources: missing")
	bad(f.GroupBy == "key", "group_by: %q is not key", f.GroupBy)
	bad(len(f.Tests) > 0, "tests: missing")
	return errors.Join(errs...)
}

// shapeInto compiles shape, windows and the field to count.
func (f ruleFile) shapeInto(r *Rule, params map[string]any) error {
	switch {
	case r.shape != Each && r.shape != Count && r.shape != Distinct:
		return fmt.Errorf("shape: %q is not each, count or distinct", f.Shape)
	case (r.shape == Distinct) != (f.Distinct != ""):
		return errors.New("distinct: the shape distinct has a field, no other has")
	case (r.shape == Each) != (len(f.Windows) == 0):
		return errors.New("windows: every shape but each has at least one")
	}
	if r.shape == Each {
		r.windows = []Window{{Threshold: 1}}
	}
	for i, w := range f.Windows {
		threshold, err1 := expand(fmt.Sprint(w.Threshold), params, plainValue)
		within, err2 := expand(w.Within, params, plainValue)
		n, err3 := strconv.Atoi(threshold)
		d, err4 := time.ParseDuration(within)
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			return fmt.Errorf("windows: %d: %w", i+1, err)
		}
		if n < 2 || d <= 0 {
			return fmt.Errorf("windows: %d: %d within %s is no burst: at least 2, within more than nothing", i+1, n, d)
		}
		r.windows = append(r.windows, Window{Threshold: n, Within: d})
	}
	for source := range r.sources {
		if r.shape != Distinct {
			break
		}
		field, err := fieldOf(source, f.Distinct)
		if err != nil {
			return fmt.Errorf("distinct: %w", err)
		}
		r.distinct[source] = field
	}
	return nil
}

// timesInto compiles join and span.
func (f ruleFile) timesInto(r *Rule, params map[string]any) error {
	r.span = spanDefault
	read := func(name, text string, into *time.Duration) error {
		if text == "" {
			return nil
		}
		text, err := expand(text, params, plainValue)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if *into, err = time.ParseDuration(text); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	if err := errors.Join(read("join", f.Join, &r.join), read("span", f.Span, &r.span)); err != nil {
		return err
	}
	switch {
	case r.join <= 0 || r.join < r.reach():
		return fmt.Errorf("join: %s is shorter than the widest window, or nothing", r.join)
	case r.span < r.join || r.span > spanMax:
		return fmt.Errorf("span: %s is not between the join time and %s", r.span, spanMax)
	}
	return nil
}

// compileFilter takes the filter that r has for source.
func (r *Rule) compileFilter(source Source, text string, params map[string]any) error {
	if columns(source) == nil {
		return errors.New("there is no such source")
	}
	text, err := expand(text, params, filterValue)
	if err != nil {
		return err
	}
	e, err := parseExpr(source, text)
	if err != nil {
		return err
	}
	r.sources[source], r.filters[source] = e, text
	return nil
}
