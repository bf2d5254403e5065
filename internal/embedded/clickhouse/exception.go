package clickhouse

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
)

// codeUnknown is ClickHouse's UNKNOWN_EXCEPTION.
const codeUnknown = 1002

// Codes of faults that this server finds itself, as ClickHouse numbers them.
const (
	codeBadArguments    = 36
	codeUnsupported     = 48
	codeSyntax          = 62
	codeUnknownDatabase = 81
	codeTooManyQueries  = 202
	codeUnknownSetting  = 115
)

var exceptionCode = regexp.MustCompile(`^Code: ([0-9]{1,6})\. `)

// exception is a fault that the client is told, with ClickHouse's code.
type exception struct {
	code int
	text string
}

// newException reads the code that the engine puts before its texts.
func newException(text string) error {
	if m := exceptionCode.FindStringSubmatch(text); m != nil {
		if code, err := strconv.Atoi(m[1]); err == nil && code > 0 {
			return &exception{code: code, text: text}
		}
	}
	return exceptionf(codeUnknown, "UNKNOWN_EXCEPTION", "%s", text)
}

func exceptionf(code int, name, format string, args ...any) error {
	return &exception{code: code, text: fmt.Sprintf("Code: %d. DB::Exception: %s. (%s)", code, fmt.Sprintf(format, args...), name)}
}

// Error implements error.
func (e *exception) Error() string { return e.text }

// asException finds the exception in err, or makes one of it.
func asException(err error) *exception {
	var e *exception
	if !errors.As(err, &e) {
		errors.As(newException(err.Error()), &e)
	}
	return e
}
