package query

import (
	"encoding/json"
	"strings"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
)

// Bounds of a SCIM filter.
const (
	scimBytesMax = 2048
	scimTermsMax = 32
	scimDepthMax = 8
)

// scim reads the part of RFC 7644's filters that a list of keys needs: attribute,
// operator (eq ne co sw ew), quoted value; and, or, not, brackets; words in any letter
// case, values compared letter case aside, as the RFC has it for names.
type scim struct {
	text         string
	pos          int
	terms, depth int
}

// parseSCIM returns the condition that text means over api_keys; blank text is all.
func parseSCIM(text string) (clickhouse.Cond, error) {
	p := &scim{text: text}
	if len(text) > scimBytesMax {
		return clickhouse.Cond{}, p.refuse("is too long")
	}
	p.space()
	if p.pos == len(text) {
		return clickhouse.And(), nil
	}
	c, err := p.either()
	if err == nil && p.pos < len(text) {
		err = p.refuse("'and', 'or' or the end is expected")
	}
	return c, err
}

func (p *scim) refuse(message string) error {
	return domain.Errorf(domain.Invalid, "%s (at character %d)", message, p.pos+1).WithField("filter").WithMessageCode("invalid_filter")
}

func (p *scim) space() {
	for p.pos < len(p.text) && strings.IndexByte(" \t", p.text[p.pos]) >= 0 {
		p.pos++
	}
}

// word reads letters, digits, dots and underscores, and the space behind them.
func (p *scim) word() string {
	start := p.pos
	for p.pos < len(p.text) && strings.IndexByte(" \t()\"", p.text[p.pos]) < 0 {
		p.pos++
	}
	w := strings.ToLower(p.text[start:p.pos])
	p.space()
	return w
}

// accept reads word if it is next.
func (p *scim) accept(word string) bool {
	at := p.pos
	if p.word() == word {
		return true
	}
	p.pos = at
	return false
}

func (p *scim) symbol(c byte) bool {
	if p.pos < len(p.text) && p.text[p.pos] == c {
		p.pos++
		p.space()
		return true
	}
	return false
}

func (p *scim) either() (clickhouse.Cond, error) {
	p.depth++
	defer func() { p.depth-- }()
	if p.depth > scimDepthMax {
		return clickhouse.Cond{}, p.refuse("is nested too deep")
	}
	var all []clickhouse.Cond
	for {
		c, err := p.both()
		if err != nil {
			return c, err
		}
		all = append(all, c)
		if !p.accept("or") {
			return clickhouse.Or(all...), nil
		}
	}
}

func (p *scim) both() (clickhouse.Cond, error) {
	var all []clickhouse.Cond
	for {
		c, err := p.term()
		if err != nil {
			return c, err
		}
		all = append(all, c)
		if !p.accept("and") {
			return clickhouse.And(all...), nil
		}
	}
}

func (p *scim) term() (clickhouse.Cond, error) {
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
			c = clickhouse.Not(c)
		}
		return c, nil
	}
	if negated {
		return clickhouse.Cond{}, p.refuse("a bracket is expected after not")
	}
	return p.comparison()
}

func (p *scim) comparison() (clickhouse.Cond, error) {
	p.terms++
	if p.terms > scimTermsMax {
		return clickhouse.Cond{}, p.refuse("has too many comparisons")
	}
	at := p.pos
	column := p.word()
	switch column {
	case "name", "description", "iam_id", "created_by", "id":
	default:
		p.pos = at
		return clickhouse.Cond{}, p.refuse("an attribute is expected: name, description, iam_id, created_by or id")
	}
	at = p.pos
	operator := p.word()
	value, err := p.quoted()
	if err != nil {
		return clickhouse.Cond{}, err
	}
	folded := "lowerUTF8(" + column + ")"
	switch operator {
	case "eq":
		return clickhouse.Raw(folded+" = lowerUTF8(?)", value), nil
	case "ne":
		return clickhouse.Raw(folded+" != lowerUTF8(?)", value), nil
	case "co":
		return clickhouse.ContainsFold(column, value), nil
	case "sw":
		return clickhouse.Raw("startsWith("+folded+", lowerUTF8(?))", value), nil
	case "ew":
		return clickhouse.Raw("endsWith("+folded+", lowerUTF8(?))", value), nil
	}
	p.pos = at
	return clickhouse.Cond{}, p.refuse("an operator is expected: eq, ne, co, sw or ew")
}

// quoted reads a JSON string.
func (p *scim) quoted() (string, error) {
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
