package clickhouse_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/internal/clickhouse/clickhousetest"
	embedded "example.com/keytrail/internal/embedded/clickhouse"
)

// gateway serves a fresh engine's gateway and returns its address.
func gateway(t *testing.T) *url.URL {
	t.Helper()
	s := start(t, embedded.Config{})
	srv := httptest.NewServer(embedded.NewGateway(s.Socket(), "keytrail", "pass word%", clickhousetest.Logger(t)))
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestTheGatewayLetsInOnlyWhoKnowsThePassword(t *testing.T) {
	u := gateway(t)
	tests := []struct {
		name   string
		set    func(*http.Request)
		status int
	}{
		{"nobody", func(*http.Request) {}, http.StatusUnauthorized},
		{"Basic", func(r *http.Request) { r.SetBasicAuth("keytrail", "pass word%") }, http.StatusOK},
		{"a wrong password", func(r *http.Request) { r.SetBasicAuth("keytrail", "pass word") }, http.StatusUnauthorized},
		{"another user", func(r *http.Request) { r.SetBasicAuth("default", "pass word%") }, http.StatusUnauthorized},
		{"the parts put together otherwise", func(r *http.Request) { r.SetBasicAuth("keytrailpass", " word%") }, http.StatusUnauthorized},
		{"ClickHouse's headers", func(r *http.Request) {
			r.Header.Set("X-ClickHouse-User", "keytrail")
			r.Header.Set("X-ClickHouse-Key", "pass word%")
		}, http.StatusOK},
		{"ClickHouse's headers, wrong", func(r *http.Request) { r.Header.Set("X-ClickHouse-Key", "pass word%") }, http.StatusUnauthorized},
		{"in the address", func(r *http.Request) { r.URL.RawQuery += "&user=keytrail&password=pass+word%25" }, http.StatusUnauthorized},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u.String()+"/?query=SELECT+41%2B1", nil)
			if err != nil {
				t.Fatal(err)
			}
			tt.set(req)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			if err = errors.Join(err, res.Body.Close()); err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != tt.status {
				t.Errorf("status %d, want %d: %s", res.StatusCode, tt.status, body)
			}
			if let := strings.TrimSpace(string(body)) == "42"; let != (tt.status == http.StatusOK) {
				t.Errorf("answered %q", body)
			}
		})
	}
}

// TestTheClientWorksThroughTheGateway, with a password that an address must escape.
func TestTheClientWorksThroughTheGateway(t *testing.T) {
	u := gateway(t)
	u.User = url.UserPassword("keytrail", "pass word%")
	store, err := clickhouse.Open(t.Context(), clickhouse.Config{DSN: u.String(), Database: "through", Logger: clickhousetest.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := store.Exec(t.Context(), "CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a"); err != nil {
		t.Fatal(err)
	}
	const rows = 200_000
	_, err = store.Insert(t.Context(), "t", []string{"a"}, clickhouse.InsertOptions{Token: "x"}, func(b clickhouse.Batch) error {
		for i := range uint64(rows) {
			if err := b.Append(i); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var n, sum uint64
	q := clickhouse.Select{Table: "t", Scope: clickhouse.ScopeAll(), Columns: []string{"count()", "sum(a)"}}
	if err := store.Row(t.Context(), q, &n, &sum); err != nil || n != rows || sum != rows*(rows-1)/2 {
		t.Errorf("%d rows with sum %d, %v", n, sum, err)
	}
}

// TestAnInsertThatBreaksOffBeforeTheGatewayInsertsNothing: a half must not look whole.
func TestAnInsertThatBreaksOffBeforeTheGatewayInsertsNothing(t *testing.T) {
	u := gateway(t)
	u.User = url.UserPassword("keytrail", "pass word%")
	do := func(body io.Reader, query string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, u.String()+"/?"+url.Values{"query": {query}}.Encode(), body)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err.Error()
		}
		answer, err := io.ReadAll(res.Body)
		if err = errors.Join(err, res.Body.Close()); err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(answer))
	}
	do(nil, "CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
	lines := bytes.Repeat([]byte("1\n"), 100_000)
	broken, cut := io.Pipe()
	go func() {
		_, err := cut.Write(lines)
		cut.CloseWithError(errors.Join(err, context.Canceled))
	}()
	do(broken, "INSERT INTO t FORMAT TSV")
	if got := do(nil, "SELECT count() FROM t"); got != "0" {
		t.Errorf("%s rows of an insert that broke off", got)
	}
	do(bytes.NewReader(lines), "INSERT INTO t FORMAT TSV")
	if got := do(nil, "SELECT count() FROM t"); got != "100000" {
		t.Errorf("%s rows, want the whole insert", got)
	}
}
