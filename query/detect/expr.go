package detect

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"example.com/keytrail/internal/clickhouse"
)

// expr is a compiled filter: it judges a record in memory and gives the condition that
// judges rows of the source's table alike.
type expr interface {
	match(*Record) bool
	cond() clickhouse.Cond
}

type (
	allOf  []expr
	anyOf  []expr
	noneOf struct{ of expr }
	// compare is `field op value`.
	compare struct {
		field  field
		op     string
		text   string
		parts  []string // The text between wildcards; one part: no wildcard.
		number int64
	}
)

func (e allOf) match(r *Record) bool {
	return !slices.ContainsFunc(e, func(x expr) bool { return !x.match(r) })
}

func (e allOf) cond() clickhouse.Cond { return clickhouse.And(conds(e)...) }

func (e anyOf) match(r *Record) bool {
	return slices.ContainsFunc(e, func(x expr) bool { return x.match(r) })
}

func (e anyOf) cond() clickhouse.Cond { return clickhouse.Or(conds(e)...) }

func (e noneOf) match(r *Record) bool  { return !e.of.match(r) }
func (e noneOf) cond() clickhouse.Cond { return clickhouse.Not(e.of.cond()) }

func conds(all []expr) []clickhouse.Cond {
	out := make([]clickhouse.Cond, len(all))
	for i, e := range all {
		out[i] = e.cond()
	}
	return out
}

func (e compare) match(r *Record) bool {
	got := e.field.get(r)
	if e.field.number {
		n, err := strconv.ParseInt(got, 10, 64)
		return err == nil && holds(e.op, compareInts(n, e.number))
	}
	switch {
	case e.op == ":" && e.isStar():
		return got != ""
	case e.op == ":":
		return strings.Contains(strings.ToLower(got), strings.ToLower(e.text))
	case len(e.parts) > 1:
		return like(got, e.parts) == (e.op == "=")
	}
	return holds(e.op, strings.Compare(got, e.text))
}

func (e compare) cond() clickhouse.Cond {
	raw := func(form string, value ...any) clickhouse.Cond {
		return clickhouse.Raw(strings.ReplaceAll(form, "$", e.field.expr), append(e.field.args(), value...)...)
	}
	if e.field.number {
		return raw("$ "+e.op+" ?", e.number)
	}
	switch {
	case e.op == ":" && e.isStar():
		return raw("$ != ''")
	case e.op == ":":
		return raw("positionCaseInsensitiveUTF8($, ?) > 0", e.text)
	case len(e.parts) > 1:
		c := raw("$ LIKE ?", e.pattern())
		if e.op == "!=" {
			return clickhouse.Not(c)
		}
		return c
	}
	return raw("$ "+e.op+" ?", e.text)
}

func (e compare) isStar() bool { return len(e.parts) == 2 && e.parts[0] == "" && e.parts[1] == "" }

// pattern returns the text for LIKE, LIKE's own signs escaped.
func (e compare) pattern() string {
	escape := strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)
	parts := make([]string, len(e.parts))
	for i, p := range e.parts {
		parts[i] = escape.Replace(p)
	}
	return strings.Join(parts, "%")
}

func compareInts(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// holds reports whether op is true of a comparison's sign.
func holds(op string, sign int) bool {
	switch op {
	case "=":
		return sign == 0
	case "!=":
		return sign != 0
	case "<":
		return sign < 0
	case "<=":
		return sign <= 0
	case ">":
		return sign > 0
	case ">=":
		return sign >= 0
	}
	return false
}

// like reports whether s is parts with anything between them.
func like(s string, parts []string) bool {
	last := len(parts) - 1
	s, ok := strings.CutPrefix(s, parts[0])
	if !ok || !strings.HasSuffix(s, parts[last]) {
		return false
	}
	s = s[:len(s)-len(parts[last])]
	for _, p := range parts[1:last] {
		at := strings.Index(s, p)
		if at < 0 {
			return false
		}
		s = s[at+len(p):]
	}
	return true
}

// depthMax bounds the nesting of a filter.
const depthMax = 32

// parseExpr compiles a filter in AIP-160's grammar, as internal/filter reads it, less
// what a rule has no need of: bare words, terms side by side, relative times. As
// there, OR binds tighter than AND, `=` takes `*` as a wildcard, `:` asks for a part
// of the text whatever the case of its letters, and a bracket of values is a list.
func parseExpr(source Source, text string) (expr, error) {
	tokens, err := scan(text)
	if err != nil {
		return nil, err
	}
	p := &exprParser{source: source, tokens: tokens}
	e, err := p.all(0)
	if err != nil {
		return nil, err
	}
	if !p.end() {
		return nil, fmt.Errorf("%q is not expected at character %d", p.peek().text, p.peek().at+1)
	}
	return e, nil
}

type exprParser struct {
	source Source
	tokens []token
	pos    int
}

func (p *exprParser) end() bool { return p.pos >= len(p.tokens) }

func (p *exprParser) peek() token {
	if p.end() {
		return token{text: "the end"}
	}
	return p.tokens[p.pos]
}

// accept moves over the unquoted text if it is next.
func (p *exprParser) accept(text string) bool {
	if p.end() || p.peek().quoted || p.peek().text != text {
		return false
	}
	p.pos++
	return true
}

func (p *exprParser) all(depth int) (expr, error) {
	if depth > depthMax {
		return nil, fmt.Errorf("nested more than %d deep", depthMax)
	}
	var out allOf
	for {
		e, err := p.anyOf(depth)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
		if !p.accept("AND") {
			return out, nil
		}
	}
}

func (p *exprParser) anyOf(depth int) (expr, error) {
	var out anyOf
	for {
		e, err := p.term(depth)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
		if !p.accept("OR") {
			return out, nil
		}
	}
}

func (p *exprParser) term(depth int) (expr, error) {
	negated := p.accept("NOT")
	var e expr
	var err error
	if p.accept("(") {
		e, err = p.all(depth + 1)
		if err == nil && !p.accept(")") {
			err = fmt.Errorf("a closing bracket is expected before %q", p.peek().text)
		}
	} else {
		e, err = p.compare()
	}
	if err == nil && negated {
		e = noneOf{of: e}
	}
	return e, err
}

func (p *exprParser) compare() (expr, error) {
	name := p.peek()
	if p.end() || name.quoted || name.operator {
		return nil, fmt.Errorf("the name of a field is expected before %q", name.text)
	}
	f, err := fieldOf(p.source, name.text)
	if err != nil {
		return nil, err
	}
	p.pos++
	op := p.peek()
	if p.end() || !op.operator || op.text == "(" || op.text == ")" {
		return nil, fmt.Errorf("an operator is expected behind %s", name.text)
	}
	p.pos++
	if !p.accept("(") {
		return p.value(f, op.text)
	}
	if op.text != "=" && op.text != "!=" && op.text != ":" {
		return nil, fmt.Errorf("a list can follow =, != and : only")
	}
	e, err := p.list(f, strings.TrimPrefix(op.text, "!"))
	if op.text == "!=" {
		return noneOf{of: e}, err
	}
	return e, err
}

// list reads `value {OR value} )`.
func (p *exprParser) list(f field, op string) (expr, error) {
	var out anyOf
	for {
		e, err := p.value(f, op)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
		if p.accept(")") {
			return out, nil
		}
		if !p.accept("OR") {
			return nil, fmt.Errorf("OR or a closing bracket is expected before %q", p.peek().text)
		}
	}
}

func (p *exprParser) value(f field, op string) (expr, error) {
	v := p.peek()
	if p.end() || v.operator {
		return nil, fmt.Errorf("a value is expected before %q", v.text)
	}
	p.pos++
	e := compare{field: f, op: op, text: v.text, parts: strings.Split(v.text, "*")}
	switch {
	case f.number:
		n, err := strconv.ParseInt(v.text, 10, 64)
		if err != nil || op == ":" {
			return nil, fmt.Errorf("a number is compared with a whole number by = != < <= > >=, not %s %q", op, v.text)
		}
		e.number = n
	case len(e.parts) > 1 && op != "=" && op != "!=" && (op != ":" || !e.isStar()):
		return nil, fmt.Errorf("a wildcard in %q can follow = and != only", v.text)
	}
	return e, nil
}

// token is a bracket or an operator, a word, or a quoted text without its quotes.
type token struct {
	text             string
	at               int
	operator, quoted bool
}

var errQuote = errors.New("a quoted text is not closed")

func scan(text string) ([]token, error) {
	var out []token
	for at := 0; at < len(text); {
		c := text[at]
		switch {
		case strings.IndexByte(" \t\r\n", c) >= 0:
			at++
		case c == '"':
			t, n, err := scanQuoted(text[at:])
			if err != nil {
				return nil, fmt.Errorf("%w (at character %d)", err, at+1)
			}
			out = append(out, token{text: t, at: at, quoted: true})
			at += n
		case strings.IndexByte("()<>=!:", c) >= 0:
			n := 1
			if at+1 < len(text) && text[at+1] == '=' && strings.IndexByte("<>!", c) >= 0 {
				n = 2
			}
			if c == '!' && n == 1 {
				return nil, fmt.Errorf("! without = at character %d", at+1)
			}
			out = append(out, token{text: text[at : at+n], at: at, operator: true})
			at += n
		default:
			n := strings.IndexAny(text[at:], " \t\r\n()<>=!:\"")
			if n < 0 {
				n = len(text) - at
			}
			out = append(out, token{text: text[at : at+n], at: at})
			at += n
		}
	}
	return out, nil
}

// scanQuoted reads a text in double quotes, in which a backslash takes the next byte
// as it is, and returns it with the bytes that it took.
func scanQuoted(s string) (string, int, error) {
	var out strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return out.String(), i + 1, nil
		case '\\':
			i++
			if i == len(s) {
				return "", 0, errQuote
			}
		}
		out.WriteByte(s[i])
	}
	return "", 0, errQuote
}
