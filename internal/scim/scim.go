// Package scim reads the part of RFC 7644's filters that lists of keys and service IDs need:
// attribute, operator (eq ne co sw ew), quoted value; and, or, not, brackets; words in any
// letter case, values compared letter case aside, as the RFC has it for names. It says what a
// filter means and whether something matches it; it reads nothing itself.
package scim

import (
	"encoding/json"
	"slices"
	"strings"

	"example.com/keytrail/domain"
)

// Bounds of a filter.
const (
	bytesMax = 2048
	termsMax = 32
	depthMax = 8
)

// Expr is what a filter means. One of its fields All, Any, Not and Attribute is set; the
// zero Expr holds for everything.
type Expr struct {
	All, Any  []Expr
	Not       *Expr
	Attribute string
	Operator  string // eq, ne, co, sw or ew.
	Value     string
}

// Match reports whether what has the attributes that of returns matches.
func (e Expr) Match(of func(attribute string) string) bool {
	switch {
	case e.Any != nil:
		return slices.ContainsFunc(e.Any, func(k Expr) bool { return k.Match(of) })
	case e.Not != nil:
		return !e.Not.Match(of)
	case e.Attribute == "":
		return !slices.ContainsFunc(e.All, func(k Expr) bool { return !k.Match(of) })
	}
	text, value := strings.ToLower(of(e.Attribute)), strings.ToLower(e.Value)
	switch e.Operator {
	case "ne":
		return text != value
	case "co":
		return strings.Contains(text, value)
	case "sw":
		return strings.HasPrefix(text, value)
	case "ew":
		return strings.HasSuffix(text, value)
	}
	return text == value
}

// parser reads a filter.
type parser struct {
	text         string
	attributes   []string
	pos          int
	terms, depth int
}

// Parse returns what text means, if it names only attributes; blank text is all. What is
// wrong is a [domain.Invalid] that names the field filter.
func Parse(text string, attributes ...string) (Expr, error) {
	p := &parser{text: text, attributes: attributes}
	if len(text) > bytesMax {
		return Expr{}, p.refuse("is too long")
	}
	p.space()
	if p.pos == len(text) {
		return Expr{}, nil
	}
	e, err := p.either()
	if err == nil && p.pos < len(text) {
		err = p.refuse("'and', 'or' or the end is expected")
	}
	return e, err
}

func (p *parser) refuse(message string) error {
	return domain.Errorf(domain.Invalid, "%s (at character %d)", message, p.pos+1).WithField("filter").WithMessageCode("invalid_filter")
}

func (p *parser) space() {
	for p.pos < len(p.text) && strings.IndexByte(" \t", p.text[p.pos]) >= 0 {
		p.pos++
	}
}

// word reads letters, digits, dots and underscores, and the space behind them.
func (p *parser) word() string {
	start := p.pos
	for p.pos < len(p.text) && strings.IndexByte(" \t()\"", p.text[p.pos]) < 0 {
		p.pos++
	}
	w := strings.ToLower(p.text[start:p.pos])
	p.space()
	return w
}

// accept reads word if it is next.
func (p *parser) accept(word string) bool {
	at := p.pos
	if p.word() == word {
		return true
	}
	p.pos = at
	return false
}

func (p *parser) symbol(c byte) bool {
	if p.pos < len(p.text) && p.text[p.pos] == c {
		p.pos++
		p.space()
		return true
	}
	return false
}

func (p *parser) either() (Expr, error) {
	p.depth++
	defer func() { p.depth-- }()
	if p.depth > depthMax {
		return Expr{}, p.refuse("is nested too deep")
	}
	var all []Expr
	for {
		c, err := p.both()
		if err != nil {
			return c, err
		}
		all = append(all, c)
		if !p.accept("or") {
			return Expr{Any: all}, nil
		}
	}
}

func (p *parser) both() (Expr, error) {
	var all []Expr
	for {
		c, err := p.term()
		if err != nil {
			return c, err
		}
		all = append(all, c)
		if !p.accept("and") {
			return Expr{All: all}, nil
		}
	}
}

func (p *parser) term() (Expr, error) {
	negated := p.accept("not")
	if p.symbol('(') {
		c, err := p.either()
		if err != nil {
			return c, err
		}
		if !p.symbol(')') {
			return c, p.refuse("a closing bracket is expected")
		}
		if negated {
			inner := c
			c = Expr{Not: &inner}
		}
		return c, nil
	}
	if negated {
		return Expr{}, p.refuse("a bracket is expected after not")
	}
	return p.comparison()
}

func (p *parser) comparison() (Expr, error) {
	p.terms++
	if p.terms > termsMax {
		return Expr{}, p.refuse("has too many comparisons")
	}
	at := p.pos
	e := Expr{Attribute: p.word()}
	if !slices.Contains(p.attributes, e.Attribute) {
		p.pos = at
		last := len(p.attributes) - 1
		return Expr{}, p.refuse("an attribute is expected: " + strings.Join(p.attributes[:last], ", ") + " or " + p.attributes[last])
	}
	at = p.pos
	e.Operator = p.word()
	value, err := p.quoted()
	if err != nil {
		return Expr{}, err
	}
	e.Value = value
	if !slices.Contains([]string{"eq", "ne", "co", "sw", "ew"}, e.Operator) {
		p.pos = at
		return Expr{}, p.refuse("an operator is expected: eq, ne, co, sw or ew")
	}
	return e, nil
}

// quoted reads a JSON string.
func (p *parser) quoted() (string, error) {
	if p.pos >= len(p.text) || p.text[p.pos] != '"' {
		return "", p.refuse("a value in double quotes is expected")
	}
	end := p.pos + 1
	for end < len(p.text) && p.text[end] != '"' {
		if p.text[end] == '\\' {
			end++
		}
		end++
	}
	var value string
	if end >= len(p.text) || json.Unmarshal([]byte(p.text[p.pos:end+1]), &value) != nil || strings.ContainsRune(value, 0) {
		return "", p.refuse("the value is no string")
	}
	p.pos = end + 1
	p.space()
	return value, nil
}
