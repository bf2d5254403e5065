package filter

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Op is a comparison.
type Op string

// The comparisons.
const (
	OpEq  Op = "="
	OpNe  Op = "!="
	OpLt  Op = "<"
	OpLe  Op = "<="
	OpGt  Op = ">"
	OpGe  Op = ">="
	OpHas Op = ":"
)

// Filter is a parsed filter. The zero Filter matches everything.
type Filter struct {
	text string
	root node
}

// String returns the text that was parsed.
func (f Filter) String() string { return f.text }

// IsEmpty reports whether f matches everything for want of any restriction.
func (f Filter) IsEmpty() bool { return f.root == nil }

// node is one node of the tree: an and, an or, a not or a restriction.
type node interface{ isNode() }

type (
	andNode []node
	orNode  []node
	notNode struct{ of node }
	// restriction is `path op value`; an empty path is a bare value.
	restriction struct {
		path   []string
		offset int
		op     Op
		value  Value
	}
)

func (andNode) isNode()     {}
func (orNode) isNode()      {}
func (notNode) isNode()     {}
func (restriction) isNode() {}

// Parse reads a filter. Blank text is the filter that matches everything. Every
// error is an [*Error].
func Parse(text string) (Filter, error) {
	if len(text) > TextBytesMax {
		return Filter{}, errorAt(TextBytesMax, "the filter has more than %d bytes", TextBytesMax)
	}
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return Filter{}, errorAt(0, "the filter is not text in UTF-8")
	}
	p := &parser{scanner: scanner{text: text}}
	p.skipSpace()
	if p.end() {
		return Filter{text: text}, nil
	}
	root, err := p.expression(nil)
	if err != nil {
		return Filter{}, err
	}
	if !p.end() {
		return Filter{}, p.unexpected("AND, OR or the end")
	}
	return Filter{text: text, root: root}, nil
}

// parser is a recursive descent over AIP-160's rules. Each rule leaves the scanner
// behind any white space that follows it.
type parser struct {
	scanner
	depth, terms int
}

// expression reads `sequence {AND sequence}`. head is nil outside a list; inside it
// is the restriction whose values the list holds.
func (p *parser) expression(head *restriction) (node, error) {
	p.depth++
	defer func() { p.depth-- }()
	if p.depth > DepthMax {
		return nil, errorAt(p.pos, "the filter is nested more than %d deep", DepthMax)
	}
	var all andNode
	for {
		n, err := p.sequence(head)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
		if !p.keyword("AND") {
			return single(all), nil
		}
		p.skipSpace()
	}
}

// sequence reads `factor {factor}`, which means all of them.
func (p *parser) sequence(head *restriction) (node, error) {
	var all andNode
	for {
		n, err := p.factor(head)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
		if p.end() || p.peek() == ')' || p.peekKeyword("AND") {
			return single(all), nil
		}
		if strings.IndexByte(" \t\r\n)(", p.text[p.pos-1]) < 0 && p.peek() != '(' {
			return nil, p.unexpected("a space")
		}
	}
}

// factor reads `term {OR term}`.
func (p *parser) factor(head *restriction) (node, error) {
	var all orNode
	for {
		n, err := p.term(head)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
		if !p.keyword("OR") {
			break
		}
		p.skipSpace()
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return all, nil
}

// term reads `[NOT | -] simple`.
func (p *parser) term(head *restriction) (node, error) {
	negated := p.keyword("NOT") || head == nil && p.accept('-')
	if negated {
		p.skipSpace()
	}
	n, err := p.simple(head)
	if err != nil {
		return nil, err
	}
	if negated {
		n = notNode{of: n}
	}
	return n, nil
}

// simple reads a bracket, a value of a list, or a restriction.
func (p *parser) simple(head *restriction) (node, error) {
	if p.accept('(') {
		p.skipSpace()
		return p.bracket(head)
	}
	if p.peekKeyword("AND") || p.peekKeyword("OR") || p.peekKeyword("NOT") {
		return nil, p.unexpected("a restriction")
	}
	p.terms++
	if p.terms > TermsMax {
		return nil, errorAt(p.pos, "the filter has more than %d restrictions", TermsMax)
	}
	if head != nil {
		v, err := p.value(argStops)
		if err != nil {
			return nil, err
		}
		p.skipSpace()
		r := *head
		r.value = v
		return r, nil
	}
	return p.restriction()
}

// bracket reads the rest of `( expression )`.
func (p *parser) bracket(head *restriction) (node, error) {
	n, err := p.expression(head)
	if err != nil {
		return nil, err
	}
	if !p.accept(')') {
		return nil, p.unexpected("a closing bracket")
	}
	p.skipSpace()
	return n, nil
}

// restriction reads `member [operator argument]`.
func (p *parser) restriction() (node, error) {
	r := restriction{offset: p.pos}
	name, err := p.member()
	if err != nil {
		return nil, err
	}
	if p.peek() == '(' {
		return nil, errorAt(r.offset, "there is no function %q", p.text[r.offset:p.pos])
	}
	p.skipSpace()
	op, ok := p.operator()
	if !ok {
		return p.bare(r, name)
	}
	for _, part := range name {
		s, plain := part.Literal()
		if !plain {
			return nil, errorAt(part.offset, "a field's name has no wildcard")
		}
		r.path = append(r.path, s)
	}
	r.op = op
	p.skipSpace()
	if p.accept('(') {
		p.skipSpace()
		return p.list(r)
	}
	r.value, err = p.value(argStops)
	p.skipSpace()
	return r, err
}

// list reads the values in a bracket behind an operator.
func (p *parser) list(r restriction) (node, error) {
	switch r.op {
	case OpEq, OpHas:
		return p.bracket(&r)
	case OpNe:
		r.op = OpEq
		n, err := p.bracket(&r)
		return notNode{of: n}, err
	case OpLt, OpLe, OpGt, OpGe:
	}
	return nil, errorAt(r.offset, "a list can follow =, != and : only")
}

// bare makes the restriction of a value without field and operator.
func (p *parser) bare(r restriction, name []Value) (node, error) {
	r.op = OpHas
	r.value = name[0]
	for _, part := range name[1:] {
		last := len(r.value.parts) - 1
		r.value.parts = slices.Concat(r.value.parts, part.parts[1:])
		r.value.parts[last] += "." + part.parts[0]
	}
	if s, plain := r.value.Literal(); plain && p.text[r.offset] != '"' && p.text[r.offset] != '\'' {
		switch upper := strings.ToUpper(s); upper {
		case "AND", "OR", "NOT":
			return nil, errorAt(r.offset, "%s is written in capitals; quote it to search for the word", upper)
		}
	}
	if s, _ := r.value.Literal(); s == "" {
		return nil, errorAt(r.offset, "an empty string matches everything; leave it out")
	}
	return r, nil
}

// member reads `value {. value}`.
func (p *parser) member() ([]Value, error) {
	var parts []Value
	for {
		v, err := p.value(nameStops)
		if err != nil {
			return nil, err
		}
		parts = append(parts, v)
		if !p.accept('.') {
			return parts, nil
		}
	}
}

// peekKeyword reports whether word is next, without moving.
func (p *parser) peekKeyword(word string) bool {
	at := p.pos
	ok := p.keyword(word)
	p.pos = at
	return ok
}

func single(all andNode) node {
	if len(all) == 1 {
		return all[0]
	}
	return all
}
