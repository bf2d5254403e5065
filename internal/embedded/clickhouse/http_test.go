package clickhouse_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/keytrail/internal/clickhouse/clickhousetest"
	embedded "example.com/keytrail/internal/embedded/clickhouse"
)

// database makes a database of the test's own on the shared engine.
func database(t *testing.T, c *http.Client) string {
	t.Helper()
	name := "d_" + strings.ToLower(strings.NewReplacer("/", "_").Replace(t.Name()))
	must(t, c, "DROP DATABASE IF EXISTS "+name+" SYNC")
	must(t, c, "CREATE DATABASE "+name)
	return name
}

// eventually asks again and again until ok says yes.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(60 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

func TestErrorsCarryClickHousesCodes(t *testing.T) {
	c := client(t, clickhousetest.Server(t).Socket())
	tests := []struct {
		name, sql string
		params    []string
		want      string
	}{
		{name: "unknown table", sql: "SELECT * FROM nope", want: "60"},
		{name: "syntax", sql: "SELECT FROM WHERE", want: "62"},
		{name: "unknown column", sql: "SELECT nope", want: "47"},
		{name: "unknown setting in the statement", sql: "SELECT 1 SETTINGS nope = 1", want: "115"},
		{name: "unknown setting in the URL", sql: "SELECT 1", params: []string{"nope", "1"}, want: "115"},
		{name: "bad value of a setting", sql: "SELECT 1", params: []string{"max_threads", "many"}, want: "27"},
		{name: "unknown database", sql: "SELECT 1", params: []string{"database", "nope"}, want: "81"},
		{name: "the database that would be forgotten", sql: "SELECT 1", params: []string{"database", "default"}, want: "81"},
		{name: "limit from the URL", sql: "SELECT number FROM numbers(10)", params: []string{"max_result_rows", "5", "result_overflow_mode", "throw"}, want: "396"},
		{name: "time limit from the URL", sql: "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1", params: []string{"max_execution_time", "0.2"}, want: "159"},
		{name: "in a command", sql: "DROP TABLE nope", want: "60"},
		{name: "insert into an unknown table", sql: "1\n", params: []string{"query", "INSERT INTO nope FORMAT TSV"}, want: "60"},
		{name: "insert without a format", sql: "1\n", params: []string{"query", "INSERT INTO nope"}, want: "62"},
		{name: "two statements", sql: "SELECT 1; SELECT 2", want: "62"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := ask(t, c, tt.sql, tt.params...)
			if a.code != tt.want || a.status == http.StatusOK {
				t.Errorf("status %d, code %q, want code %s: %s", a.status, a.code, tt.want, a.body)
			}
			if got := must(t, c, "SELECT 1"); got != "1" {
				t.Errorf("after the error 1 is %q", got)
			}
		})
	}
}

// TestSettingsHoldForTheirRequestOnly runs on one session, where any rest would
// show.
func TestSettingsHoldForTheirRequestOnly(t *testing.T) {
	s := start(t, embedded.Config{Connections: 1})
	c := client(t, s.Socket())
	const read = "SELECT getSetting('max_threads'), getSetting('async_insert'), currentDatabase(), getSetting('readonly')"
	before := must(t, c, read)
	if !strings.Contains(before, "\tfalse\tmain\t0") {
		t.Fatalf("a fresh session says %q; inserts must not be queued", before)
	}
	must(t, c, "CREATE DATABASE other")
	if got := must(t, c, read, "max_threads", "7", "async_insert", "1", "database", "other"); got != "7\ttrue\tother\t0" {
		t.Errorf("with settings: %q", got)
	}
	if got := must(t, c, read); got != before {
		t.Errorf("afterwards %q, want %q", got, before)
	}
	if got := must(t, c, read, "readonly", "1"); !strings.HasSuffix(got, "\t1") {
		t.Errorf("readonly: %q", got)
	}
	if got := must(t, c, read); got != before {
		t.Errorf("after readonly %q, want %q", got, before)
	}
	if a := ask(t, c, read, "max_threads", "3", "nope", "1"); a.code != "115" {
		t.Errorf("one of two settings unknown: code %q", a.code)
	}
	if got := must(t, c, read); got != before {
		t.Errorf("after an unknown setting %q, want %q", got, before)
	}
	hostile := `'; DROP TABLE x; -- \' ` + "\x00"
	if got := must(t, c, "SELECT getSetting('insert_deduplication_token') = unhex('"+fmt.Sprintf("%x", hostile)+"')", "insert_deduplication_token", hostile); got != "1" {
		t.Errorf("a hostile value arrived changed: %q", got)
	}
}

func TestAnInsertIsWholeOrNotThere(t *testing.T) {
	server := clickhousetest.Server(t)
	c := client(t, server.Socket())
	db := database(t, c)
	must(t, c, "CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 100", "database", db)
	count := func() string { t.Helper(); return must(t, c, "SELECT count() FROM t", "database", db) }
	insert := func(data, token string) answer {
		t.Helper()
		return ask(t, c, data, "database", db, "query", "INSERT INTO t (a) FORMAT TSV", "insert_deduplication_token", token)
	}
	if a := insert("1\n2\n", "one"); a.status != http.StatusOK || count() != "2" {
		t.Fatalf("first insert: %+v, count %s", a, count())
	}
	if a := insert("1\n2\n", "one"); a.status != http.StatusOK || count() != "2" {
		t.Errorf("a repeat under its token: %+v, count %s", a, count())
	}
	if a := insert("1\n2\n", "two"); a.status != http.StatusOK || count() != "4" {
		t.Errorf("the same rows under another token: %+v, count %s", a, count())
	}
	if a := insert("5\nsix\n", "three"); a.code != "27" || count() != "4" {
		t.Errorf("bad data: %+v, count %s", a, count())
	}
	t.Run("body breaks off", func(t *testing.T) {
		values := url.Values{"database": {db}, "query": {"INSERT INTO t (a) FORMAT TSV"}}
		r, w := io.Pipe()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://engine/?"+values.Encode(), r)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = io.WriteString(w, "7\n8\n9\n")
			_ = w.CloseWithError(errors.New("the sender died"))
		}()
		if res, err := c.Do(req); err == nil {
			_ = res.Body.Close()
			t.Fatalf("a broken body was answered %d", res.StatusCode)
		}
		if got := count(); got != "4" {
			t.Errorf("a broken body left %s rows, want 4", got)
		}
	})
}

// TestAStreamThatFailsCannotBeTakenForWhole reads the body as any HTTP client
// would: its end must be an error.
func TestAStreamThatFailsCannotBeTakenForWhole(t *testing.T) {
	c := client(t, clickhousetest.Server(t).Socket())
	a := ask(t, c, "SELECT number, throwIf(number = 3000000) FROM numbers(5000000)", "max_threads", "1")
	if a.status != http.StatusOK || len(a.body) < 1<<20 {
		t.Fatalf("the error came too early to matter: status %d, %d bytes", a.status, len(a.body))
	}
	if !errors.Is(a.err, io.ErrUnexpectedEOF) {
		t.Errorf("the body ended with %v, want an unexpected end", a.err)
	}
	if !strings.Contains(a.body, "__exception__\r\n") || !strings.Contains(a.body, "Code: 395.") {
		t.Errorf("the body's end does not say why: %q", a.body[max(0, len(a.body)-300):])
	}
}

// TestStreamsAreComplete counts rows where the engine has pauses, empty pieces,
// sorting or aggregation between them.
func TestStreamsAreComplete(t *testing.T) {
	c := client(t, clickhousetest.Server(t).Socket())
	tests := []struct {
		name, sql string
		want      int
	}{
		{"sparse", "SELECT number FROM numbers(300000000) WHERE number % 30000000 = 29999999", 10},
		{"slow", "SELECT number, sleepEachRow(0.02) FROM numbers(100) SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0", 100},
		{"sorted", "SELECT number FROM numbers(1000000) ORDER BY sipHash64(number)", 1000000},
		{"aggregated late", "SELECT number % 300000 AS k, count() FROM numbers(3000000) GROUP BY k", 300000},
		{"union", "SELECT number FROM numbers(100000) UNION ALL SELECT number FROM numbers(200000)", 300000},
		{"limit by", "SELECT number % 10 AS k, number FROM numbers(1000000) LIMIT 3 BY k", 30},
		{"wide rows", "SELECT repeat('x', 100000) FROM numbers(500)", 500},
		{"empty", "SELECT number FROM numbers(1000000) WHERE number > 1000000", 0},
		{"in threads", "SELECT number FROM numbers_mt(10000000) WHERE number % 10 = 0", 1000000},
		{"arrays joined", "SELECT arrayJoin(range(1000)) FROM numbers(1000)", 1000000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.Count(must(t, c, tt.sql)+"\n", "\n"); got != max(tt.want, 1) {
				t.Errorf("%d rows, want %d", got, tt.want)
			}
		})
	}
}

func TestAClientThatLeavesStopsItsQuery(t *testing.T) {
	s := start(t, embedded.Config{Connections: 2})
	c := client(t, s.Socket())
	running := func() string {
		t.Helper()
		return must(t, c, "SELECT count() FROM system.processes WHERE query LIKE '%marker_of_the_query%' AND query NOT LIKE '%processes%'")
	}
	tests := []struct{ name, sql string }{
		{"before the first row", "SELECT count() AS marker_of_the_query FROM numbers(10000000000000) WHERE sipHash64(number) = 1"},
		{"in the middle of the rows", "SELECT number AS marker_of_the_query FROM numbers(10000000000000)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan struct{})
			go func() {
				defer close(done)
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://engine/", strings.NewReader(tt.sql))
				if err != nil {
					return
				}
				if res, err := c.Do(req); err == nil {
					_, _ = io.Copy(io.Discard, res.Body)
					_ = res.Body.Close()
				}
			}()
			eventually(t, "the query runs", func() bool { return running() == "1" })
			cancel()
			<-done
			eventually(t, "the query is stopped", func() bool { return running() == "0" })
		})
	}
}

func TestStatementsRunInParallel(t *testing.T) {
	c := client(t, clickhousetest.Server(t).Socket())
	db := database(t, c)
	must(t, c, "CREATE TABLE t (w UInt64, a UInt64) ENGINE = MergeTree ORDER BY (w, a)", "database", db)
	var workers sync.WaitGroup
	for w := range 12 {
		workers.Go(func() {
			for i := range 10 {
				a := ask(t, c, fmt.Sprintf("%d\t%d\n", w, i), "database", db, "query", "INSERT INTO t FORMAT TSV", "max_threads", fmt.Sprint(1+w%3))
				if a.status != http.StatusOK {
					t.Errorf("insert: %+v", a)
				}
				a = ask(t, c, fmt.Sprintf("SELECT count(), getSetting('max_threads') FROM t WHERE w = %d", w), "database", db, "max_threads", fmt.Sprint(1+w%5))
				if want := fmt.Sprintf("%d\t%d\n", i+1, 1+w%5); a.body != want {
					t.Errorf("worker %d sees %q, want %q", w, a.body, want)
				}
			}
		})
	}
	workers.Wait()
}

func TestPingAndQueryInTheURL(t *testing.T) {
	c := client(t, clickhousetest.Server(t).Socket())
	for path, want := range map[string]string{"/ping": "Ok.\n", "/?query=SELECT+42": "42\n"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://engine"+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if closeErr := res.Body.Close(); err != nil || closeErr != nil || string(body) != want {
			t.Errorf("%s: %q, %v, %v; want %q", path, body, err, closeErr, want)
		}
	}
}
