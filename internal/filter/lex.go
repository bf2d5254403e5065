package filter

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Bounds of a filter.
const (
	// TextBytesMax bounds the text of a filter.
	TextBytesMax = 8 << 10
	// TermsMax bounds the restrictions in a filter.
	TermsMax = 256
	// DepthMax bounds its nesting.
	DepthMax = 32
)

// Error says what is wrong with a filter and where.
type Error struct {
	// Offset is the place in the text, in bytes from 0.
	Offset int
	// Message may be shown to the caller.
	Message string
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("%s (at character %d)", e.Message, e.Offset+1)
}

func errorAt(offset int, format string, args ...any) error {
	return &Error{Offset: offset, Message: fmt.Sprintf(format, args...)}
}

// Value is the right side of a restriction: literal text with wildcards between.
type Value struct {
	// parts are the literal stretches; a wildcard stands between each two.
	parts  []string
	offset int
}

// Literal returns the text and whether it is free of wildcards.
func (v Value) Literal() (string, bool) {
	return strings.Join(v.parts, "*"), len(v.parts) == 1
}

// isStar reports whether v is `*` alone.
func (v Value) isStar() bool {
	return len(v.parts) > 1 && strings.Join(v.parts, "") == ""
}

// scanner walks the text. What a word is depends on the place, so the parser says
// which kind it wants.
type scanner struct {
	text string
	pos  int
}

func (s *scanner) skipSpace() {
	for s.pos < len(s.text) && strings.IndexByte(" \t\r\n", s.text[s.pos]) >= 0 {
		s.pos++
	}
}

func (s *scanner) end() bool { return s.pos >= len(s.text) }

// peek returns the byte at the scanner, 0 at the end.
func (s *scanner) peek() byte {
	if s.end() {
		return 0
	}
	return s.text[s.pos]
}

// accept moves over b if it is next.
func (s *scanner) accept(b byte) bool {
	if s.peek() != b || s.end() {
		return false
	}
	s.pos++
	return true
}

// keyword moves over word if it is next and ends there.
func (s *scanner) keyword(word string) bool {
	rest, ok := strings.CutPrefix(s.text[s.pos:], word)
	if !ok || rest != "" && strings.IndexByte(" \t\r\n()-\"'", rest[0]) < 0 {
		return false
	}
	s.pos += len(word)
	return true
}

// operator moves over a comparison, if one is next.
func (s *scanner) operator() (Op, bool) {
	for _, op := range []Op{OpLe, OpGe, OpNe, OpLt, OpGt, OpEq, OpHas} {
		if strings.HasPrefix(s.text[s.pos:], string(op)) {
			s.pos += len(op)
			return op, true
		}
	}
	return "", false
}

// nameStops end an unquoted part of a field's name, and argStops an unquoted value.
const (
	nameStops = " \t\r\n.(),<>=!:\"'"
	argStops  = " \t\r\n(),\"'"
)

// value reads a quoted or an unquoted value up to one of stops.
func (s *scanner) value(stops string) (Value, error) {
	if q := s.peek(); q == '"' || q == '\'' {
		return s.quoted()
	}
	start := s.pos
	v := Value{offset: start}
	var part strings.Builder
	for !s.end() && strings.IndexByte(stops, s.text[s.pos]) < 0 {
		c := s.text[s.pos]
		switch c {
		case '<', '>', '=':
			return v, errorAt(s.pos, "a value with %q in it must be quoted", c)
		case '\\':
			r, err := s.escape()
			if err != nil {
				return v, err
			}
			part.WriteByte(r)
			continue
		case '*':
			v.parts = append(v.parts, part.String())
			part.Reset()
		default:
			part.WriteByte(c)
		}
		s.pos++
	}
	if s.pos == start {
		return v, s.unexpected("a value")
	}
	v.parts = append(v.parts, part.String())
	return v, nil
}

func (s *scanner) quoted() (Value, error) {
	v := Value{offset: s.pos}
	quote := s.text[s.pos]
	s.pos++
	var part strings.Builder
	for !s.end() {
		c := s.text[s.pos]
		switch c {
		case quote:
			s.pos++
			v.parts = append(v.parts, part.String())
			return v, nil
		case '\\':
			r, err := s.escape()
			if err != nil {
				return v, err
			}
			part.WriteByte(r)
			continue
		case '*':
			v.parts = append(v.parts, part.String())
			part.Reset()
		default:
			part.WriteByte(c)
		}
		s.pos++
	}
	return v, errorAt(v.offset, "the string that begins here does not end")
}

// escape reads a backslash and what it stands for.
func (s *scanner) escape() (byte, error) {
	if s.pos+1 >= len(s.text) {
		return 0, errorAt(s.pos, "a backslash at the end")
	}
	c := s.text[s.pos+1]
	switch c {
	case '\\', '"', '\'', '*':
	case 'n':
		c = '\n'
	case 't':
		c = '\t'
	case 'r':
		c = '\r'
	default:
		return 0, errorAt(s.pos, `unknown escape; \\ \" \' \* \n \t \r are known`)
	}
	s.pos += 2
	return c, nil
}

func (s *scanner) unexpected(wanted string) error {
	if s.end() {
		return errorAt(s.pos, "%s is missing at the end", wanted)
	}
	r, _ := utf8.DecodeRuneInString(s.text[s.pos:])
	return errorAt(s.pos, "%s is expected, not %q", wanted, r)
}
