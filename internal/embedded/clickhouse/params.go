package clickhouse

import (
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// request is what a request's URL says.
type request struct {
	query    string
	database string
	format   string
	settings map[string]string
}

var (
	settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
	formatName  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]{0,63}$`)
)

// ignored are parameters of ClickHouse's HTTP interface that are no settings and
// ask for nothing that this server does not do anyway.
func ignored(name string) bool {
	switch name {
	case "client_protocol_version", "query_id", "quota_key", "wait_end_of_query", "buffer_size",
		"user", "stacktrace", "close_session", "session_timeout", "session_check",
		"http_native_compression_disable_checksumming_on_decompress",
		"network_compression_method", "network_zstd_compression_level":
		return true
	}
	return false
}

// unsupported reports parameters that would change the answer and that this
// server cannot honour, which must be said rather than passed over.
func unsupported(name, value string) bool {
	switch name {
	case "compress", "decompress", "enable_http_compression":
		return value != "" && value != "0" && value != "false"
	case "session_id", "password", "role":
		return value != ""
	}
	return strings.HasPrefix(name, "param_")
}

// parseRequest sorts a URL's parameters: the protocol's own, and settings, which
// all others are.
func parseRequest(values url.Values) (request, error) {
	req := request{format: "TabSeparated", settings: map[string]string{}}
	for name, list := range values {
		value := list[len(list)-1]
		switch {
		case name == "query":
			req.query = value
		case name == "database":
			req.database = value
		case name == "default_format":
			if !formatName.MatchString(value) {
				return request{}, exceptionf(codeBadArguments, "BAD_ARGUMENTS", "bad format name")
			}
			req.format = value
		case unsupported(name, value):
			return request{}, exceptionf(codeUnsupported, "NOT_IMPLEMENTED", "the embedded engine does not do the parameter %s", cut(name))
		case ignored(name), name == "compress", name == "decompress", name == "enable_http_compression",
			name == "session_id", name == "password", name == "role":
		case !settingName.MatchString(name):
			return request{}, exceptionf(codeBadArguments, "BAD_ARGUMENTS", "bad parameter name")
		default:
			req.settings[name] = value
		}
	}
	return req, nil
}

func cut(s string) string {
	if len(s) > 64 {
		s = s[:64]
	}
	return strings.ToValidUTF8(s, "")
}

// setStatement applies settings to a session; empty for none.
func setStatement(settings map[string]string) string {
	if len(settings) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("SET ")
	for i, name := range slices.Sorted(maps.Keys(settings)) {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(name)
		b.WriteString(" = ")
		b.WriteString(quote(settings[name]))
	}
	return b.String()
}

// resetStatement undoes setStatement.
func resetStatement(settings map[string]string) string {
	if len(settings) == 0 {
		return ""
	}
	names := slices.Sorted(maps.Keys(settings))
	return "SET " + strings.Join(names, " = DEFAULT, ") + " = DEFAULT"
}

// quote makes a string literal.
func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\x00", `\0`).Replace(s) + "'"
}

// quoteName makes a quoted identifier.
func quoteName(s string) string {
	return "`" + strings.NewReplacer(`\`, `\\`, "`", "\\`", "\x00", `\0`).Replace(s) + "`"
}

// statementKind is how the engine must be given a statement.
type statementKind int

const (
	kindOther  statementKind = iota // Output made whole: schema, mutations, SHOW and so on.
	kindSelect                      // Output streamed.
	kindInsert
)

// kindOf looks at a statement's first word.
func kindOf(text string) statementKind {
	text = skipComments(text)
	if strings.HasPrefix(text, "(") {
		return kindSelect
	}
	end := 0
	for end < len(text) && (text[end]|0x20 >= 'a' && text[end]|0x20 <= 'z') {
		end++
	}
	switch strings.ToUpper(text[:end]) {
	case "SELECT", "WITH":
		return kindSelect
	case "INSERT":
		return kindInsert
	}
	return kindOther
}

func skipComments(text string) string {
	for {
		text = strings.TrimLeft(text, " \t\r\n\f\v")
		switch {
		case strings.HasPrefix(text, "--"), strings.HasPrefix(text, "#"):
			_, rest, _ := strings.Cut(text, "\n")
			text = rest
		case strings.HasPrefix(text, "/*"):
			_, rest, _ := strings.Cut(text[2:], "*/")
			text = rest
		default:
			return text
		}
	}
}

var insertFormat = regexp.MustCompile(`(?is)^(.*\S)\s+FORMAT\s+([A-Za-z][A-Za-z0-9]{0,63})\s*;?\s*$`)

// splitInsert parts an INSERT whose data follows in the body from its format.
func splitInsert(text string) (statement, format string, err error) {
	m := insertFormat.FindStringSubmatch(text)
	if m == nil {
		return "", "", exceptionf(codeSyntax, "SYNTAX_ERROR", "an INSERT with data in the body must end with FORMAT and its name")
	}
	return m[1], m[2], nil
}
