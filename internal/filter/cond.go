package filter

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/keytrail/internal/clickhouse"
)

// Kind says how a field's values compare.
type Kind int

// The kinds of field.
const (
	// Text compares byte for byte, and contains letter case aside.
	Text Kind = iota + 1
	// Number compares as a number.
	Number
	// Bool is true or false.
	Bool
	// Time compares as a time; values are read by [ParseTime].
	Time
	// Address is an IPv6 column beside the text that it was read from. Values may be
	// an address, a network in CIDR form, or other text.
	Address
	// JSON is an object in text form; what follows the field's name is a path in it.
	JSON
	// Map is a map of texts; what follows the field's name is a key in it.
	Map
)

// Field is one thing that a filter can name.
type Field struct {
	Kind Kind
	// Expr is this program's own constant SQL: a column, an expression, or a literal
	// for a field that the table lacks.
	Expr string
	// TextExpr is, for an Address, the text as the source gave it.
	TextExpr string
	// Args are the values of the placeholders in Expr.
	Args []any
	// Whole is, for JSON, what a comparison with the whole object looks at, if that is
	// not Expr.
	Whole string
	// lazy makes a field that is dear to make.
	lazy func() Field
}

func (f Field) operand() operand { return operand{expr: f.Expr, args: f.Args} }

// FieldMap says what the names in a filter mean over one table.
type FieldMap struct {
	// Fields by their whole name, such as "initiator.id".
	Fields map[string]Field
	// Texts are the expressions that a bare word is looked for in.
	Texts []string
	// Now is what relative times count from; zero refuses them.
	Now time.Time
}

// Cond returns f over the table that m describes. Its errors are [*Error]s.
func (f Filter) Cond(m FieldMap) (clickhouse.Cond, error) {
	if f.root == nil {
		return clickhouse.And(), nil
	}
	return m.cond(f.root)
}

func (m FieldMap) cond(n node) (clickhouse.Cond, error) {
	switch n := n.(type) {
	case andNode:
		all, err := m.conds(n)
		return clickhouse.And(all...), err
	case orNode:
		all, err := m.conds(n)
		return clickhouse.Or(all...), err
	case notNode:
		c, err := m.cond(n.of)
		if err != nil {
			return c, err
		}
		return clickhouse.Not(c), nil
	case restriction:
		return m.restriction(n)
	}
	panic("filter: a node of no known kind") // The set is closed in this package.
}

func (m FieldMap) conds(nodes []node) ([]clickhouse.Cond, error) {
	all := make([]clickhouse.Cond, 0, len(nodes))
	for _, n := range nodes {
		c, err := m.cond(n)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

func (m FieldMap) restriction(r restriction) (clickhouse.Cond, error) {
	if len(r.path) == 0 {
		return m.anywhere(r)
	}
	name := strings.Join(r.path, ".")
	if f, ok := m.Fields[name]; ok {
		return m.field(f, nil, r)
	}
	for n := len(r.path) - 1; n > 0; n-- {
		f, ok := m.Fields[strings.Join(r.path[:n], ".")]
		if ok && (f.Kind == JSON || f.Kind == Map) {
			return m.field(f, r.path[n:], r)
		}
	}
	return clickhouse.Cond{}, errorAt(r.offset, "there is no field %q", name)
}

// anywhere looks for a bare value in all text columns.
func (m FieldMap) anywhere(r restriction) (clickhouse.Cond, error) {
	all := make([]clickhouse.Cond, 0, len(m.Texts))
	for _, expr := range m.Texts {
		all = append(all, contains(operand{expr: expr}, r.value))
	}
	return clickhouse.Or(all...), nil
}

func (m FieldMap) field(f Field, path []string, r restriction) (clickhouse.Cond, error) {
	if f.lazy != nil {
		f = f.lazy()
	}
	switch f.Kind {
	case Text:
		return text(f.operand(), r), nil
	case Number:
		return number(f, r)
	case Bool:
		return boolean(f, r)
	case Time:
		return m.time(f, r)
	case Address:
		return address(f, r), nil
	case JSON:
		return jsonPath(f, path, r), nil
	case Map:
		return mapKey(f, path, r), nil
	}
	return clickhouse.Cond{}, errorAt(r.offset, "the field %q cannot be compared", strings.Join(r.path, "."))
}

// operand is an expression with the arguments for its own placeholders.
type operand struct {
	expr string
	args []any
}

// raw is the condition `form`, in which every $ stands for the operand.
func (o operand) raw(form string, args ...any) clickhouse.Cond {
	all := slices.Repeat(o.args, strings.Count(form, "$"))
	return clickhouse.Raw(strings.ReplaceAll(form, "$", o.expr), append(all, args...)...)
}

// text compares texts. All its forms keep the operand's placeholders before the
// value's.
func text(o operand, r restriction) clickhouse.Cond {
	s, plain := r.value.Literal()
	switch r.op {
	case OpHas:
		if r.value.isStar() {
			return o.raw("$ != ''")
		}
		return contains(o, r.value)
	case OpEq, OpNe:
		c := o.raw("$ = ?", s)
		switch {
		case r.value.isStar():
			c = o.raw("$ != ''")
		case !plain:
			c = o.raw("$ LIKE ?", r.value.pattern())
		}
		if r.op == OpNe {
			return clickhouse.Not(c)
		}
		return c
	case OpLt:
		return o.raw("$ < ?", s)
	case OpLe:
		return o.raw("$ <= ?", s)
	case OpGt:
		return o.raw("$ > ?", s)
	case OpGe:
		return o.raw("$ >= ?", s)
	}
	return clickhouse.Cond{} // Refused by the builder; the parser makes no other operator.
}

// contains holds where the operand has the value in it, or fits its wildcards, letter
// case aside.
func contains(o operand, v Value) clickhouse.Cond {
	if s, plain := v.Literal(); plain {
		return o.raw("positionCaseInsensitiveUTF8($, ?) > 0", s)
	}
	return o.raw("$ ILIKE ?", v.pattern())
}

// pattern returns v for LIKE, its own signs escaped.
func (v Value) pattern() string {
	escape := strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)
	parts := make([]string, len(v.parts))
	for i, p := range v.parts {
		parts[i] = escape.Replace(p)
	}
	return strings.Join(parts, "%")
}

func (op Op) form() string { return "$ " + string(op) + " ?" }

func number(f Field, r restriction) (clickhouse.Cond, error) {
	o := f.operand()
	if r.op == OpHas {
		if r.value.isStar() {
			return o.raw("$ != 0"), nil
		}
		r.op = OpEq
	}
	s, plain := r.value.Literal()
	if plain {
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return o.raw(r.op.form(), n), nil
		}
		if n, err := strconv.ParseUint(s, 10, 64); err == nil {
			return o.raw(r.op.form(), n), nil
		}
	}
	return clickhouse.Cond{}, errorAt(r.value.offset, "%s is compared with a whole number", strings.Join(r.path, "."))
}

func boolean(f Field, r restriction) (clickhouse.Cond, error) {
	s, plain := r.value.Literal()
	known := plain && (s == "true" || s == "false")
	switch r.op {
	case OpHas, OpEq, OpNe:
		if r.value.isStar() && r.op == OpHas {
			return clickhouse.And(), nil
		}
		if !known {
			return clickhouse.Cond{}, errorAt(r.value.offset, "%s is true or false", strings.Join(r.path, "."))
		}
		return f.operand().raw("$ = ?", (s == "true") == (r.op != OpNe)), nil
	case OpLt, OpLe, OpGt, OpGe:
	}
	return clickhouse.Cond{}, errorAt(r.offset, "%s has no order", strings.Join(r.path, "."))
}

func (m FieldMap) time(f Field, r restriction) (clickhouse.Cond, error) {
	if r.op == OpHas && r.value.isStar() {
		return clickhouse.And(), nil
	}
	if r.op == OpHas {
		return clickhouse.Cond{}, errorAt(r.offset, "%s is compared by = != < <= > >=", strings.Join(r.path, "."))
	}
	s, _ := r.value.Literal()
	t, err := ParseTime(s, m.Now)
	if err != nil {
		return clickhouse.Cond{}, errorAt(r.value.offset, "%s: %v", strings.Join(r.path, "."), err)
	}
	return f.operand().raw(r.op.form(), t), nil
}

// address compares with an address or a network where the value is one, else with
// the text that the source gave. Order has a meaning between addresses only.
func address(f Field, r restriction) clickhouse.Cond {
	s, plain := r.value.Literal()
	var c clickhouse.Cond
	prefix, errPrefix := netip.ParsePrefix(s)
	addr, errAddr := netip.ParseAddr(s)
	o := f.operand()
	// A source that is no address is stored as zero.
	stored := o.raw("$ != toIPv6('::')")
	switch {
	case plain && errAddr == nil && addr.Zone() == "":
		switch r.op {
		case OpLt, OpLe, OpGt, OpGe:
			return clickhouse.And(stored, o.raw(r.op.form(), addr.Unmap()))
		case OpEq, OpNe, OpHas:
		}
		c = o.raw("$ = ?", addr.Unmap())
	case plain && errPrefix == nil && (r.op == OpEq || r.op == OpNe || r.op == OpHas):
		first, last := bounds(prefix)
		c = clickhouse.And(stored, o.raw("$ >= ?", first), o.raw("$ <= ?", last))
	default:
		return text(operand{expr: f.TextExpr}, r)
	}
	if r.op == OpNe {
		return clickhouse.Not(c)
	}
	return c
}

// bounds returns the first and the last address of p.
func bounds(p netip.Prefix) (first, last netip.Addr) {
	p = p.Masked()
	bytes := p.Addr().AsSlice()
	for i := p.Bits(); i < len(bytes)*8; i++ {
		bytes[i/8] |= 0x80 >> (i % 8)
	}
	last, _ = netip.AddrFromSlice(bytes)
	return p.Addr(), last
}

// jsonPath compares what stands at path: a string by its text, anything else by its
// JSON.
func jsonPath(f Field, path []string, r restriction) clickhouse.Cond {
	if len(path) == 0 {
		if f.Whole != "" {
			f.Expr = f.Whole
		}
		return text(f.operand(), r)
	}
	keys := strings.Repeat(", ?", len(path))
	expr := "if(JSONType(" + f.Expr + keys + ") = 'String', JSONExtractString(" + f.Expr + keys + "), JSONExtractRaw(" + f.Expr + keys + "))"
	args := make([]any, 0, 3*len(path))
	for range 3 {
		for _, key := range path {
			args = append(args, key)
		}
	}
	o := operand{expr: expr, args: args}
	s, plain := r.value.Literal()
	n, err := strconv.ParseFloat(s, 64)
	switch r.op {
	case OpLt, OpLe, OpGt, OpGe:
		if plain && err == nil && n-n == 0 {
			o = operand{expr: "toFloat64OrNull(" + expr + ")", args: args}
			return o.raw("ifNull($ "+string(r.op)+" ?, 0)", n)
		}
	case OpEq, OpNe, OpHas:
	}
	return text(o, r)
}

// mapKey compares the value under the key that the rest of the path spells. Without
// a key it looks through all values.
func mapKey(f Field, path []string, r restriction) clickhouse.Cond {
	if len(path) == 0 {
		return text(operand{expr: "arrayStringConcat(mapValues(" + f.Expr + "), ' ')"}, r)
	}
	return text(operand{expr: f.Expr + "[?]", args: []any{strings.Join(path, ".")}}, r)
}
