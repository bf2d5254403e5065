package clickhouse

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"strings"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
)

// Cond is one condition of a query. Conditions are made by this package's
// constructors; the zero Cond is an error where it is used. A column is a name,
// or a name behind a table's alias and a dot.
type Cond struct {
	text string
	args []any
	err  error
}

// columnName is what constructors take for a column.
var columnName = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*\.)?[A-Za-z_][A-Za-z0-9_]*$`)

// Eq holds where column equals v.
func Eq(column string, v any) Cond { return compare(column, "=", v) }

// Ne holds where column differs from v.
func Ne(column string, v any) Cond { return compare(column, "!=", v) }

// Lt holds where column is less than v.
func Lt(column string, v any) Cond { return compare(column, "<", v) }

// Le holds where column is at most v.
func Le(column string, v any) Cond { return compare(column, "<=", v) }

// Gt holds where column is greater than v.
func Gt(column string, v any) Cond { return compare(column, ">", v) }

// Ge holds where column is at least v.
func Ge(column string, v any) Cond { return compare(column, ">=", v) }

// Range holds where from <= column < to; a nil bound is open. Two nil bounds hold
// everywhere.
func Range(column string, from, to any) Cond {
	var parts []Cond
	if from != nil {
		parts = append(parts, Ge(column, from))
	}
	if to != nil {
		parts = append(parts, Lt(column, to))
	}
	return And(parts...)
}

// In holds where column equals one of values; none of them: nowhere.
func In[T any](column string, values []T) Cond {
	if !columnName.MatchString(column) {
		return badColumn(column)
	}
	if len(values) == 0 {
		return Cond{text: "0"}
	}
	set := chgo.GroupSet{Value: make([]any, len(values))}
	for i, v := range values {
		mark, arg, err := bindable(v)
		if err != nil {
			return Cond{err: err}
		}
		if mark != "?" {
			return inList(column, values)
		}
		set.Value[i] = arg
	}
	return Cond{text: column + " IN ?", args: []any{set}}
}

// inList is In for values that need a conversion around each of them.
func inList[T any](column string, values []T) Cond {
	marks, args := make([]string, len(values)), make([]any, len(values))
	for i, v := range values {
		mark, arg, err := bindable(v)
		if err != nil {
			return Cond{err: err}
		}
		marks[i], args[i] = mark, arg
	}
	return Cond{text: column + " IN (" + strings.Join(marks, ", ") + ")", args: args}
}

// InQuery holds where column equals a value of q's only column. q carries its own
// scope.
func InQuery(column string, q Query) Cond {
	if !columnName.MatchString(column) {
		return badColumn(column)
	}
	text, args, err := toSQL(q)
	return Cond{text: column + " IN (" + text + ")", args: args, err: err}
}

// Prefix holds where column starts with s, byte for byte.
func Prefix(column, s string) Cond { return call(column, "startsWith(%s, ?)", s) }

// Contains holds where column contains s, byte for byte.
func Contains(column, s string) Cond { return call(column, "position(%s, ?) > 0", s) }

// ContainsFold holds where column contains s, letter case aside.
func ContainsFold(column, s string) Cond {
	return call(column, "positionCaseInsensitiveUTF8(%s, ?) > 0", s)
}

// Has holds where the array column has the element v.
func Has(column string, v any) Cond { return call(column, "has(%s, ?)", v) }

// MapEq holds where the map column has v under key. A missing key reads as empty.
func MapEq(column, key string, v any) Cond {
	mark, arg, err := bindable(v)
	if !columnName.MatchString(column) {
		return badColumn(column)
	}
	return Cond{text: column + "[?] = " + mark, args: []any{key, arg}, err: err}
}

// IsNull holds where column is null.
func IsNull(column string) Cond {
	if !columnName.MatchString(column) {
		return badColumn(column)
	}
	return Cond{text: "isNull(" + column + ")"}
}

// And holds where all conds hold; none: everywhere.
func And(conds ...Cond) Cond { return join(conds, " AND ", "1") }

// Or holds where one of conds holds; none: nowhere.
func Or(conds ...Cond) Cond { return join(conds, " OR ", "0") }

// Not holds where c does not.
func Not(c Cond) Cond {
	c.err = errors.Join(c.err, c.empty())
	c.text = "NOT (" + c.text + ")"
	return c
}

// Raw is a condition in this program's own constant SQL, each `?` taking one of
// args. It can name no table: use [InQuery], [Join] or [Select].From. Never build
// its text from data.
func Raw(expr string, args ...any) Cond {
	text, bound, err := bindExpr(expr, args)
	// Bracketed always: a bare OR would reach past the scope beside it.
	return Cond{text: "(" + text + ")", args: bound, err: err}
}

func (c Cond) empty() error {
	if c.text == "" && c.err == nil {
		return fmt.Errorf("%w: empty condition", ErrQuery)
	}
	return nil
}

func badColumn(column string) Cond {
	return Cond{err: fmt.Errorf("%w: column %q", ErrQuery, column)}
}

func compare(column, op string, v any) Cond {
	if !columnName.MatchString(column) {
		return badColumn(column)
	}
	mark, arg, err := bindable(v)
	return Cond{text: column + " " + op + " " + mark, args: []any{arg}, err: err}
}

func call(column, form string, v any) Cond {
	if !columnName.MatchString(column) {
		return badColumn(column)
	}
	mark, arg, err := bindable(v)
	text := strings.Replace(fmt.Sprintf(form, column), "?", mark, 1)
	return Cond{text: text, args: []any{arg}, err: err}
}

func join(conds []Cond, op, none string) Cond {
	if len(conds) == 0 {
		return Cond{text: none}
	}
	out := Cond{}
	texts := make([]string, len(conds))
	for i, c := range conds {
		texts[i] = c.text
		out.args = append(out.args, c.args...)
		out.err = errors.Join(out.err, c.err, c.empty())
	}
	out.text = texts[0]
	if len(conds) > 1 {
		out.text = "(" + strings.Join(texts, op) + ")"
	}
	return out
}

// bindExpr checks expr and gives each of its placeholders the form its argument
// needs.
func bindExpr(expr string, args []any) (string, []any, error) {
	if err := checkExpr(expr, len(args)); err != nil {
		return "", nil, err
	}
	var text strings.Builder
	bound := make([]any, len(args))
	rest := expr
	for i, a := range args {
		mark, arg, err := bindable(a)
		if err != nil {
			return "", nil, err
		}
		before, after, _ := strings.Cut(rest, "?")
		text.WriteString(before)
		text.WriteString(mark)
		bound[i], rest = arg, after
	}
	text.WriteString(rest)
	return text.String(), bound, nil
}

// bindable gives a value's placeholder and the argument for it. The driver would
// cut times to seconds and print unknown types bare, so only what is listed
// passes: strings, bytes, numbers, booleans, times, addresses, and slices of
// strings or integers (as arrays).
func bindable(v any) (mark string, arg any, err error) {
	switch v := v.(type) {
	case time.Time:
		return "fromUnixTimestamp64Milli(?, 'UTC')", v.UnixMilli(), nil
	case netip.Addr:
		if !v.IsValid() {
			return "", nil, fmt.Errorf("%w: invalid address as a value", ErrQuery)
		}
		return "toIPv6(?)", v.WithZone("").String(), nil
	case []byte:
		return "?", string(v), nil
	case fmt.Stringer: // A UUID and its like: arrays that mean their text.
		if reflect.TypeOf(v).Kind() == reflect.Array {
			return "?", v.String(), nil
		}
	}
	r := reflect.ValueOf(v)
	switch r.Kind() {
	case reflect.String:
		return "?", r.String(), nil
	case reflect.Bool:
		return "?", r.Bool(), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "?", r.Int(), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "?", r.Uint(), nil
	case reflect.Float32, reflect.Float64:
		return "?", r.Float(), nil
	case reflect.Slice:
		return bindableSlice(r)
	}
	return "", nil, fmt.Errorf("%w: a value of type %T cannot be bound", ErrQuery, v)
}

func bindableSlice(r reflect.Value) (string, any, error) {
	out := make([]any, r.Len())
	for i := range out {
		mark, arg, err := bindable(r.Index(i).Interface())
		if err != nil {
			return "", nil, err
		}
		if mark != "?" {
			return "", nil, fmt.Errorf("%w: a slice of %s cannot be bound", ErrQuery, r.Type().Elem())
		}
		out[i] = arg
	}
	return "?", chgo.ArraySet(out), nil
}
