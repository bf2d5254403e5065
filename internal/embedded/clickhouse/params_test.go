package clickhouse_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	embedded "example.com/keytrail/internal/embedded/clickhouse"
)

func TestParametersAreSortedIntoProtocolAndSettings(t *testing.T) {
	tests := []struct {
		name     string
		raw      string
		want     embedded.Parsed
		wantCode int
	}{
		{
			name: "what clickhouse-go sends",
			raw:  "client_protocol_version=54483&database=k&default_format=Native&max_execution_time=15&query_id=q&wait_end_of_query=1",
			want: embedded.Parsed{Database: "k", Format: "Native", Settings: map[string]string{"max_execution_time": "15"}},
		},
		{
			name: "an insert with its settings",
			raw:  "query=INSERT+INTO+t+FORMAT+Native&insert_deduplication_token=a%26b&async_insert=0",
			want: embedded.Parsed{Query: "INSERT INTO t FORMAT Native", Format: "TabSeparated", Settings: map[string]string{"insert_deduplication_token": "a&b", "async_insert": "0"}},
		},
		{name: "compression off is fine", raw: "compress=0&decompress=0", want: embedded.Parsed{Format: "TabSeparated", Settings: map[string]string{}}},
		{name: "compression asked for is refused, not passed over", raw: "compress=1", wantCode: 48},
		{name: "sessions are refused", raw: "session_id=x", wantCode: 48},
		{name: "query parameters are refused", raw: "param_a=1", wantCode: 48},
		{name: "a setting's name cannot carry SQL", raw: "max_threads=1&a%3D1,b=2", wantCode: 36},
		{name: "a format's name cannot carry SQL", raw: "default_format=Native%20SETTINGS", wantCode: 36},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			values, err := url.ParseQuery(tt.raw)
			if err != nil {
				t.Fatal(err)
			}
			got, code, err := embedded.ParseRequest(values)
			if code != tt.wantCode {
				t.Fatalf("code %d (%v), want %d", code, err, tt.wantCode)
			}
			if diff := cmp.Diff(tt.want, got); code == 0 && diff != "" {
				t.Errorf("want -, got +:\n%s", diff)
			}
		})
	}
}

func TestStatementsAreToldApart(t *testing.T) {
	tests := []struct {
		name             string
		text             string
		streams, inserts bool
	}{
		{name: "select", text: " \n select 1", streams: true},
		{name: "with", text: "WITH 1 AS x SELECT x", streams: true},
		{name: "brackets", text: "(SELECT 1) UNION ALL (SELECT 2)", streams: true},
		{name: "behind comments", text: "-- a\n/* b */ # c\nSELECT 1", streams: true},
		{name: "insert", text: "INSERT INTO t FORMAT Native", inserts: true},
		{name: "a word that only begins alike", text: "SELECTED 1"},
		{name: "comment only", text: "-- SELECT 1"},
		{name: "unfinished comment", text: "/* SELECT 1"},
		{name: "schema", text: "CREATE TABLE t AS SELECT 1"},
		{name: "empty", text: ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := embedded.Streams(tt.text); got != tt.streams {
				t.Errorf("streams: %t, want %t", got, tt.streams)
			}
			if got := embedded.Inserts(tt.text); got != tt.inserts {
				t.Errorf("inserts: %t, want %t", got, tt.inserts)
			}
		})
	}
}

func TestExceptionCodesAreRead(t *testing.T) {
	tests := []struct {
		name, text string
		want       int
	}{
		{"usual", "Code: 60. DB::Exception: Table x does not exist. (UNKNOWN_TABLE)", 60},
		{"code in the middle is not the code", "boom Code: 60. DB::Exception", 1002},
		{"no code", "connection is shutting down", 1002},
		{"zero", "Code: 0. DB::Exception", 1002},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := embedded.ExceptionCode(tt.text); got != tt.want {
				t.Errorf("code %d, want %d", got, tt.want)
			}
		})
	}
}

// FuzzRequest holds that no parameter breaks out of the statements made of it.
func FuzzRequest(f *testing.F) {
	f.Add("query=SELECT+1&max_threads=1&x=%27%2C+readonly%3D1")
	f.Add("default_format=Native&database=%60;DROP")
	f.Fuzz(func(t *testing.T, raw string) {
		values, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		req, _, err := embedded.ParseRequest(values)
		if err != nil {
			return
		}
		if statement := embedded.SetStatement(req.Settings); strings.Count(unquoted(t, statement, '\''), "=") != len(req.Settings) {
			t.Errorf("%d settings became %q", len(req.Settings), statement)
		}
		if rest := unquoted(t, embedded.QuoteName(req.Database), '`'); rest != "" {
			t.Errorf("database %q left %q outside its quotes", req.Database, rest)
		}
		_, _, _ = embedded.SplitInsert(req.Query)
		_ = embedded.Streams(req.Query)
	})
}

// unquoted is what stands outside quotes, as the engine reads them.
func unquoted(t *testing.T, text string, mark byte) string {
	t.Helper()
	var out strings.Builder
	inside := false
	for i := 0; i < len(text); i++ {
		switch {
		case inside && text[i] == '\\':
			i++
		case text[i] == mark:
			inside = !inside
		case !inside:
			out.WriteByte(text[i])
		}
	}
	if inside {
		t.Errorf("quote not closed: %q", text)
	}
	return out.String()
}
