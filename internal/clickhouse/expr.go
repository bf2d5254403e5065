package clickhouse

import (
	"fmt"
	"strings"
)

// checkExpr holds the SQL fragments of this program to a small form, so that no
// fragment can name a table past its scope, end its clause, or hide a value in
// the text: words, numbers, plain literals, operators, balanced brackets and as
// many `?` as there are arguments. It is a net under our own mistakes; foreign
// text must never come here at all.
func checkExpr(expr string, args int) error {
	lex := lexer{text: expr}
	for lex.pos < len(expr) {
		if err := lex.step(); err != nil {
			return fmt.Errorf("%w: expression %q: %w", ErrQuery, expr, err)
		}
	}
	switch {
	case strings.TrimSpace(expr) == "":
		return fmt.Errorf("%w: empty expression", ErrQuery)
	case len(lex.open) > 0:
		return fmt.Errorf("%w: expression %q: bracket not closed", ErrQuery, expr)
	case lex.marks != args:
		return fmt.Errorf("%w: expression %q has %d placeholders for %d arguments", ErrQuery, expr, lex.marks, args)
	}
	return nil
}

type lexer struct {
	text  string
	pos   int
	marks int
	open  []byte
	// afterIn says that the last word was IN, which a bare name may not follow:
	// it would be a table.
	afterIn bool
}

func (l *lexer) step() error {
	c := l.text[l.pos]
	afterIn := l.afterIn
	l.afterIn = l.afterIn && c == ' '
	switch {
	case c == '\'':
		return l.literal()
	case isWordStart(c):
		return l.word(afterIn)
	case c == '?':
		l.marks++
	case c == '(' || c == '[':
		l.open = append(l.open, c)
	case c == ')' || c == ']':
		return l.closing(c)
	case c == '-' && strings.HasPrefix(l.text[l.pos:], "--"), c == '/' && strings.HasPrefix(l.text[l.pos:], "/*"):
		return fmt.Errorf("comment at byte %d", l.pos)
	case !strings.ContainsRune(" \n\t.,+-*/%<>=!0123456789|:", rune(c)):
		return fmt.Errorf("character %q at byte %d", c, l.pos)
	}
	l.pos++
	return nil
}

// literal takes a quoted string. Anything that needs an escape is to be bound.
func (l *lexer) literal() error {
	end := strings.IndexByte(l.text[l.pos+1:], '\'')
	if end < 0 {
		return fmt.Errorf("literal at byte %d not closed", l.pos)
	}
	if body := l.text[l.pos+1 : l.pos+1+end]; strings.ContainsAny(body, "?\\{}") {
		return fmt.Errorf("literal at byte %d must be an argument", l.pos)
	}
	l.pos += end + 2
	if l.pos < len(l.text) && l.text[l.pos] == '\'' {
		return fmt.Errorf("literal before byte %d must be an argument", l.pos)
	}
	return nil
}

func (l *lexer) word(afterIn bool) error {
	start := l.pos
	for l.pos < len(l.text) && isWord(l.text[l.pos]) {
		l.pos++
	}
	word := strings.ToLower(l.text[start:l.pos])
	called := l.pos < len(l.text) && l.text[l.pos] == '('
	switch {
	case forbiddenWord(word, called):
		return fmt.Errorf("word %q is not allowed", word)
	case afterIn && !called:
		return fmt.Errorf("IN must be followed by values, not by the name %q", word)
	}
	l.afterIn = word == "in"
	return nil
}

func (l *lexer) closing(c byte) error {
	want := byte('(')
	if c == ']' {
		want = '['
	}
	if len(l.open) == 0 || l.open[len(l.open)-1] != want {
		return fmt.Errorf("bracket %q at byte %d closes nothing", c, l.pos)
	}
	l.open = l.open[:len(l.open)-1]
	l.pos++
	return nil
}

// forbiddenWord lists what would bring in another table, another clause, or
// something from outside the tables.
func forbiddenWord(word string, called bool) bool {
	switch word {
	case "select", "from", "join", "union", "intersect", "except", "with", "where", "prewhere",
		"settings", "format", "into", "outfile", "limit", "having", "insert", "globalin", "global":
		return true
	case "file", "joinget", "joingetornull", "filesystemavailable", "filesystemcapacity", "filesystemunreserved",
		"getsetting", "getserversetting", "sleep", "sleepeachrow", "hostname", "fqdn", "currentuser", "user",
		"catboostevaluate", "showcertificate", "view":
		return called
	}
	return called && (strings.HasPrefix(word, "dict") || strings.HasPrefix(word, "in") && isInFunction(word))
}

// isInFunction tells the function forms of IN, whose second argument can be a
// table, from functions that merely begin with these letters.
func isInFunction(word string) bool {
	switch word {
	case "inignoreset", "innullable", "innullableignoreset":
		return true
	}
	return false
}

func isWordStart(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func isWord(c byte) bool { return isWordStart(c) || c >= '0' && c <= '9' }
