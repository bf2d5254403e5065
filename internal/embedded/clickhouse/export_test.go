package clickhouse

import "net/url"

// Parsed is what parseRequest makes of a URL's parameters.
type Parsed struct {
	Query, Database, Format string
	Settings                map[string]string
}

// ParseRequest exports parseRequest.
func ParseRequest(values url.Values) (Parsed, int, error) {
	req, err := parseRequest(values)
	if err != nil {
		return Parsed{}, asException(err).code, err
	}
	return Parsed{req.query, req.database, req.format, req.settings}, 0, nil
}

// SetStatement exports setStatement.
func SetStatement(settings map[string]string) string { return setStatement(settings) }

// QuoteName exports quoteName.
func QuoteName(s string) string { return quoteName(s) }

// Streams reports whether a statement's output would be streamed.
func Streams(text string) bool { return kindOf(text) == kindSelect }

// Inserts reports whether a statement is an INSERT.
func Inserts(text string) bool { return kindOf(text) == kindInsert }

// SplitInsert exports splitInsert.
func SplitInsert(text string) (statement, format string, err error) { return splitInsert(text) }

// ExceptionCode gives the code that an engine's text is answered with.
func ExceptionCode(text string) int { return asException(newException(text)).code }
