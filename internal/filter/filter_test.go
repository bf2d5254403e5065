package filter_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/internal/filter"
)

var now = time.Date(2026, 3, 4, 5, 6, 7, 8e6, time.UTC)

// fields is a small map with one field of each kind.
func fields() filter.FieldMap {
	return filter.FieldMap{
		Fields: map[string]filter.Field{
			"a":            {Kind: filter.Text, Expr: "a"},
			"b":            {Kind: filter.Text, Expr: "b"},
			"initiator.id": {Kind: filter.Text, Expr: "who"},
			"n":            {Kind: filter.Number, Expr: "n"},
			"flag":         {Kind: filter.Bool, Expr: "flag"},
			"time":         {Kind: filter.Time, Expr: "t"},
			"ip":           {Kind: filter.Address, Expr: "ip", TextExpr: "src"},
			"data":         {Kind: filter.JSON, Expr: "j"},
			"labels":       {Kind: filter.Map, Expr: "m"},
		},
		Texts: []string{"x", "y"},
		Now:   now,
	}
}

// where returns the text and the arguments of the condition that text becomes.
func where(t *testing.T, text string, m filter.FieldMap) (string, []any, error) {
	t.Helper()
	f, err := filter.Parse(text)
	if err != nil {
		return "", nil, err
	}
	c, err := f.Cond(m)
	if err != nil {
		return "", nil, err
	}
	sql, args, err := clickhouse.SQL(clickhouse.Select{Table: "t", Scope: clickhouse.ScopeAll(), Columns: []string{"1"}, Where: []clickhouse.Cond{c}})
	if err != nil {
		t.Fatalf("%q makes a query that the builder refuses: %v", text, err)
	}
	return strings.TrimPrefix(strings.TrimPrefix(sql, "SELECT 1 FROM t"), " WHERE "), args, nil
}

// bare drops the brackets that say nothing: around a single comparison, and doubled
// ones. How many of them the builder writes is its own affair.
func bare(s string) string {
	for i := range s {
		if s[i] != '(' || i > 0 && (s[i-1] == '_' || s[i-1] >= '0' && s[i-1] <= '9' || s[i-1]|0x20 >= 'a' && s[i-1]|0x20 <= 'z') {
			continue
		}
		inner := s[i+1 : closing(s, i)]
		flat, depth := "", 0
		for _, c := range inner {
			switch c {
			case '(':
				depth++
			case ')':
				depth--
			}
			if depth == 0 {
				flat += string(c)
			}
		}
		if !strings.Contains(flat, " AND ") && !strings.Contains(flat, " OR ") {
			return bare(s[:i] + inner + s[closing(s, i)+1:])
		}
	}
	return s
}

// closing returns where the bracket at i is closed.
func closing(s string, i int) int {
	depth := 0
	for j := i; j < len(s); j++ {
		switch s[j] {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return j
			}
		}
	}
	return len(s) - 1
}

func TestCondFollowsThePrecedenceOfAIP160(t *testing.T) {
	tests := []struct {
		name, filter, want string
	}{
		{name: "blank matches everything", filter: " \t", want: ""},
		{name: "OR binds tighter than AND", filter: "a=1 AND a=2 OR a=3 AND a=4", want: "(a=1 AND (a=2 OR a=3) AND a=4)"},
		{name: "side by side binds tighter than AND", filter: "a=1 a=2 OR a=3 AND a=4", want: "((a=1 AND (a=2 OR a=3)) AND a=4)"},
		{name: "NOT takes one term", filter: "NOT a=1 AND a=2", want: "(NOT (a=1) AND a=2)"},
		{name: "minus is NOT", filter: "-a=1 OR a=2", want: "(NOT (a=1) OR a=2)"},
		{name: "brackets", filter: "(a=1 AND a=2) OR NOT (a=3)", want: "((a=1 AND a=2) OR NOT (a=3))"},
		{name: "NOT against a bracket", filter: "NOT(a=1)", want: "NOT (a=1)"},
		{name: "a list is OR of values", filter: "a=(1 OR 2)", want: "(a=1 OR a=2)"},
		{name: "a list knows AND and NOT", filter: "a=(1 AND NOT 2)", want: "(a=1 AND NOT (a=2))"},
		{name: "a list with != means none of them", filter: "a!=(1 OR 2)", want: "NOT ((a=1 OR a=2))"},
		{name: "white space around operators", filter: "a = 1 AND b\t!=\n2", want: "(a=1 AND NOT (b=2))"},
		{name: "keywords need not stand apart from brackets", filter: "(a=1)AND(a=2)", want: "(a=1 AND a=2)"},
		{name: "a name that begins with a keyword", filter: "a=1 AND b=ANDROID", want: "(a=1 AND b=ANDROID)"},
		{name: "a keyword in quotes is a value", filter: `a=("AND" OR "OR")`, want: "(a=AND OR a=OR)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, args, err := where(t, tt.filter, fields())
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range args {
				got = strings.Replace(got, " = ?", fmt.Sprint("=", a), 1)
			}
			if got := bare(got); got != bare(tt.want) {
				t.Errorf("%s\n got %s\nwant %s", tt.filter, got, tt.want)
			}
		})
	}
}

func TestCondCarriesEveryValueAsAnArgument(t *testing.T) {
	tests := []struct {
		name, filter, want string
		args               []any
	}{
		{name: "equal", filter: `a="x y"`, want: "a = ?", args: []any{"x y"}},
		{name: "quotes are data", filter: `a="it's"`, want: "a = ?", args: []any{"it's"}},
		{name: "escapes", filter: `a="\"\\\'\n"`, want: "a = ?", args: []any{"\"\\'\n"}},
		{name: "SQL is data", filter: `a="x') OR 1=1 --"`, want: "a = ?", args: []any{"x') OR 1=1 --"}},
		{name: "unquoted dots, dashes, colons, stars", filter: "a=iam-identity.user-apikey:*", want: "a LIKE ?", args: []any{"iam-identity.user-apikey:%"}},
		{name: "has contains", filter: `a:"user-apikey"`, want: "positionCaseInsensitiveUTF8(a, ?) > 0", args: []any{"user-apikey"}},
		{name: "has with a star at the end is a prefix", filter: `a:create*`, want: "a ILIKE ?", args: []any{"create%"}},
		{name: "has any", filter: "initiator.id:*", want: "who != ''"},
		{name: "LIKE's own signs are data", filter: `a="50%_\\*"`, want: "a LIKE ?", args: []any{`50\%\_\\%`}},
		{name: "an escaped star is a star", filter: `a="s3:\*"`, want: "a = ?", args: []any{"s3:*"}},
		{name: "order of texts", filter: "a>=m", want: "a >= ?", args: []any{"m"}},
		{name: "number", filter: "n=403", want: "n = ?", args: []any{int64(403)}},
		{name: "negative number", filter: "n>-1", want: "n > ?", args: []any{int64(-1)}},
		{name: "large number", filter: "n<18446744073709551615", want: "n < ?", args: []any{uint64(1<<64 - 1)}},
		{name: "number has any", filter: "n:*", want: "n != 0"},
		{name: "numbers in a list", filter: "n=(401 OR 403)", want: "(n = ? OR n = ?)", args: []any{int64(401), int64(403)}},
		{name: "true", filter: "flag=true", want: "flag = ?", args: []any{true}},
		{name: "not true", filter: "flag!=true", want: "flag = ?", args: []any{false}},
		{name: "absolute time", filter: "time>=2026-01-02T03:04:05.678Z", want: "t >= fromUnixTimestamp64Milli(?, 'UTC')", args: []any{time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC).UnixMilli()}},
		{name: "relative time", filter: `time<"-7d"`, want: "t < fromUnixTimestamp64Milli(?, 'UTC')", args: []any{now.AddDate(0, 0, -7).UnixMilli()}},
		{name: "address", filter: "ip=::ffff:10.0.0.1", want: "ip = toIPv6(?)", args: []any{"10.0.0.1"}},
		{name: "network", filter: "ip:10.1.2.3/8", want: "(ip != toIPv6('::') AND ip >= toIPv6(?) AND ip <= toIPv6(?))", args: []any{"10.0.0.0", "10.255.255.255"}},
		{name: "network of version 6", filter: "ip=2001:db8::/47", want: "(ip != toIPv6('::') AND ip >= toIPv6(?) AND ip <= toIPv6(?))", args: []any{"2001:db8::", "2001:db8:1:ffff:ffff:ffff:ffff:ffff"}},
		{name: "not in a network", filter: "ip!=10.0.0.0/31", want: "NOT ((ip != toIPv6('::') AND ip >= toIPv6(?) AND ip <= toIPv6(?)))", args: []any{"10.0.0.0", "10.0.0.1"}},
		{name: "a source that is no address", filter: `ip="AWS Internal"`, want: "src = ?", args: []any{"AWS Internal"}},
		{name: "part of an address", filter: "ip:10.0.", want: "positionCaseInsensitiveUTF8(src, ?) > 0", args: []any{"10.0."}},
		{name: "key of a map with dots", filter: `labels.k8s.io="x"`, want: "m[?] = ?", args: []any{"k8s.io", "x"}},
		{name: "path in JSON", filter: "data.p.q!=v", want: "NOT (if(JSONType(j, ?, ?) = 'String', JSONExtractString(j, ?, ?), JSONExtractRaw(j, ?, ?)) = ?)", args: []any{"p", "q", "p", "q", "p", "q", "v"}},
		{name: "number in JSON", filter: "data.p>5", want: "ifNull(toFloat64OrNull(if(JSONType(j, ?) = 'String', JSONExtractString(j, ?), JSONExtractRaw(j, ?))) > ?, 0)", args: []any{"p", "p", "p", 5.0}},
		{name: "bare word", filter: "curl/8.1", want: "(positionCaseInsensitiveUTF8(x, ?) > 0 OR positionCaseInsensitiveUTF8(y, ?) > 0)", args: []any{"curl/8.1", "curl/8.1"}},
		{name: "bare words with a dot", filter: `"a".b`, want: "(positionCaseInsensitiveUTF8(x, ?) > 0 OR positionCaseInsensitiveUTF8(y, ?) > 0)", args: []any{"a.b", "a.b"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, args, err := where(t, tt.filter, fields())
			if err != nil {
				t.Fatal(err)
			}
			if got := bare(got); got != bare(tt.want) {
				t.Errorf("%s\n got %s\nwant %s", tt.filter, got, bare(tt.want))
			}
			if diff := cmp.Diff(tt.args, args); diff != "" {
				t.Errorf("%s: arguments (-want +got):\n%s", tt.filter, diff)
			}
		})
	}
}

func TestAWrongFilterIsRefusedWithItsPlace(t *testing.T) {
	deep := strings.Repeat("(", filter.DepthMax+1) + "a=1"
	wide := strings.Repeat("a=1 ", filter.TermsMax+1)
	tests := []struct {
		name, filter string
		offset       int
		message      string
	}{
		{name: "unknown field", filter: "a=1 AND nope.x=2", offset: 8, message: `there is no field "nope.x"`},
		{name: "unknown field deep in a list of terms", filter: "(a=1 OR (b=2 AND NOT zz:*))", offset: 21, message: "zz"},
		{name: "path below a plain field", filter: "a.b=1", offset: 0, message: `"a.b"`},
		{name: "function", filter: "a=1 AND sleep(3)", offset: 8, message: "no function"},
		{name: "no value", filter: "a=", offset: 2, message: "value"},
		{name: "no restriction after AND", filter: "a=1 AND ", offset: 8, message: "missing"},
		{name: "AND first", filter: "AND a=1", offset: 0, message: "expected"},
		{name: "OR OR", filter: "a=1 OR OR b=2", offset: 7, message: "expected"},
		{name: "bracket not closed", filter: "(a=1", offset: 4, message: "bracket"},
		{name: "bracket not opened", filter: "a=1)", offset: 3, message: "AND, OR or the end"},
		{name: "empty bracket", filter: "()", offset: 1, message: "expected"},
		{name: "string not closed", filter: `a="x`, offset: 2, message: "does not end"},
		{name: "backslash at the end", filter: `a=x\`, offset: 3, message: "backslash"},
		{name: "unknown escape", filter: `a="\u1"`, offset: 3, message: "escape"},
		{name: "second operator", filter: "a=b=c", offset: 3, message: "quoted"},
		{name: "double equals", filter: "a==b", offset: 2, message: "quoted"},
		{name: "small and", filter: "a=1 and b=2", offset: 4, message: "capitals"},
		{name: "wildcard in a name", filter: "a.*=1", offset: 2, message: "wildcard"},
		{name: "number from text", filter: "n=x", offset: 2, message: "whole number"},
		{name: "number from a fraction", filter: "n=1.5", offset: 2, message: "whole number"},
		{name: "wildcard in a number", filter: "n=4*", offset: 2, message: "whole number"},
		{name: "neither true nor false", filter: "flag=yes", offset: 5, message: "true or false"},
		{name: "order of true and false", filter: "flag>true", offset: 0, message: "order"},
		{name: "no time", filter: "time>soon", offset: 5, message: "RFC 3339"},
		{name: "a time contains nothing", filter: "time:2026", offset: 0, message: "compared by"},
		{name: "order of a list", filter: "n>(1 OR 2)", offset: 0, message: "list"},
		{name: "comma", filter: "a=(1,2)", offset: 4, message: "space"},
		{name: "strings side by side", filter: `a='it''s'`, offset: 6, message: "space"},
		{name: "empty bare string", filter: `""`, offset: 0, message: "everything"},
		{name: "too deep", filter: deep, offset: filter.DepthMax, message: "nested"},
		{name: "too many", filter: wide, offset: 4 * filter.TermsMax, message: "more than"},
		{name: "too long", filter: strings.Repeat(" ", filter.TextBytesMax+1), offset: filter.TextBytesMax, message: "bytes"},
		{name: "not UTF-8", filter: "a=\xff", offset: 0, message: "UTF-8"},
		{name: "zero byte", filter: "a=\x00", offset: 0, message: "UTF-8"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := where(t, tt.filter, fields())
			var e *filter.Error
			if !errors.As(err, &e) {
				t.Fatalf("error = %v, want a *filter.Error", err)
			}
			if e.Offset != tt.offset || !strings.Contains(e.Message, tt.message) {
				t.Errorf("refusal %q at %d, want %q at %d", e.Message, e.Offset, tt.message, tt.offset)
			}
		})
	}
}

func TestActivityAndUsageKnowTheSameNames(t *testing.T) {
	activity, usage := filter.Activity(now).Fields, filter.Usage(now).Fields
	for name := range activity {
		if _, ok := usage[name]; !ok && !strings.HasPrefix(name, "requestData.") {
			t.Errorf("usage does not know %q", name)
		}
	}
	for name := range usage {
		if _, ok := activity[name]; !ok && !strings.HasPrefix(name, "requestData.") {
			t.Errorf("activity does not know %q", name)
		}
	}
}

func TestEveryFieldMakesAQueryThatTheBuilderTakes(t *testing.T) {
	for _, m := range []filter.FieldMap{filter.Activity(now), filter.Usage(now)} {
		for name, f := range m.Fields {
			value := `"x*"`
			switch f.Kind {
			case filter.Number:
				value = "1"
			case filter.Bool:
				value = "true"
			case filter.Time:
				value = "-1d"
			case filter.Text, filter.Address, filter.JSON, filter.Map:
			}
			for _, text := range []string{name + "=" + value, name + ":*", "NOT " + name + "!=" + value} {
				if _, _, err := where(t, text, m); err != nil {
					t.Errorf("%s: %v", text, err)
				}
			}
		}
		if _, _, err := where(t, "word", m); err != nil {
			t.Errorf("bare word: %v", err)
		}
	}
}

func TestParseTimeReadsThreeForms(t *testing.T) {
	tests := []struct {
		name, text string
		want       time.Time
	}{
		{name: "now", text: "now", want: now},
		{name: "days back", text: "-7d", want: now.AddDate(0, 0, -7)},
		{name: "hours back", text: "-24h", want: now.AddDate(0, 0, -1)},
		{name: "minutes ahead", text: "+5m", want: now.Add(5 * time.Minute)},
		{name: "weeks, seconds", text: "-1w", want: now.AddDate(0, 0, -7)},
		{name: "a date is its first moment", text: "2026-02-03", want: time.Date(2026, 2, 3, 0, 0, 0, 0, time.UTC)},
		{name: "zone", text: "2026-02-03T04:05:06+02:00", want: time.Date(2026, 2, 3, 2, 5, 6, 0, time.UTC)},
		{name: "CADF's zone", text: "2026-02-03T04:05:06.78+0000", want: time.Date(2026, 2, 3, 4, 5, 6, 78e7, time.UTC)},
		{name: "no seconds", text: "2026-02-03T04:05Z", want: time.Date(2026, 2, 3, 4, 5, 0, 0, time.UTC)},
		{name: "no zone is UTC", text: "2026-02-03T04:05:06", want: time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)},
		{name: "cut to the millisecond", text: "2026-02-03T04:05:06.7899Z", want: time.Date(2026, 2, 3, 4, 5, 6, 789e6, time.UTC)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := filter.ParseTime(tt.text, now)
			if err != nil || !got.Equal(tt.want) || got.Location() != time.UTC {
				t.Errorf("ParseTime(%q) = %v, %v, want %v", tt.text, got, err, tt.want)
			}
		})
	}
	for _, text := range []string{"", "-", "-d", "--1d", "-1y", "-99999999999d", "-4294967295w", "+4294967295w", "soon", "2026-13-01", "1969-12-31", "9999-01-01", "-1dd", "1d", "-1.5h"} {
		t.Run("refuses "+text, func(t *testing.T) {
			if got, err := filter.ParseTime(text, now); err == nil {
				t.Errorf("ParseTime(%q) = %v, want an error", text, got)
			}
		})
	}
	if _, err := filter.ParseTime("-1d", time.Time{}); err == nil {
		t.Error("a relative time without now is no error")
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`action:"iam-identity.user-apikey" AND NOT action:"login"`, `outcome="failure"`, "reason.reasonCode=403", `severity="critical"`,
		"initiator.id:*", `a=("x" OR 'y')`, "-(a b) OR c.d>=-7d", `address:10.0.0.0/8`, `labels.x!="\"*"`, "((((", `requestData.a.b:"*"`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := filter.Parse(text)
		if err != nil {
			var e *filter.Error
			if !errors.As(err, &e) || e.Offset < 0 || e.Offset > len(text) {
				t.Fatalf("error %v has no place in %d bytes", err, len(text))
			}
			return
		}
		for _, m := range []filter.FieldMap{filter.Activity(now), filter.Usage(now), fields()} {
			c, err := parsed.Cond(m)
			if err != nil {
				var e *filter.Error
				if !errors.As(err, &e) || e.Offset < 0 || e.Offset > len(text) {
					t.Fatalf("error %v has no place in %d bytes", err, len(text))
				}
				continue
			}
			sql, args, err := clickhouse.SQL(clickhouse.Select{Table: "t", Scope: clickhouse.ScopeAll(), Columns: []string{"1"}, Where: []clickhouse.Cond{c}})
			if err != nil {
				t.Fatalf("%q makes a query that the builder refuses: %v", text, err)
			}
			if marks := strings.Count(sql, "?"); marks != len(args) {
				t.Fatalf("%q: %d placeholders, %d arguments", text, marks, len(args))
			}
		}
	})
}
