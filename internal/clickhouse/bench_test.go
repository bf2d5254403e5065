package clickhouse_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/internal/clickhouse/clickhousetest"
	embedded "example.com/keytrail/internal/embedded/clickhouse"
)

const benchRows = 100_000

// benchTable makes a table of 20 columns and fills a function that appends blocks
// to it.
func benchTable(b *testing.B, s *clickhouse.Store) (columns []string, fill func(n int) func(clickhouse.Batch) error) {
	b.Helper()
	ddl := "account_id LowCardinality(String), key_id String, at DateTime64(3, 'UTC'), position UInt64"
	columns = []string{"account_id", "key_id", "at", "position"}
	for i := range 8 {
		columns = append(columns, fmt.Sprint("s", i), fmt.Sprint("n", i))
		ddl += fmt.Sprintf(", s%d String, n%d UInt64", i, i)
	}
	exec(b, s, "CREATE TABLE b ("+ddl+") ENGINE = MergeTree ORDER BY (account_id, key_id, at) SETTINGS non_replicated_deduplication_window = 10000")
	return columns, func(n int) func(clickhouse.Batch) error {
		return func(batch clickhouse.Batch) error {
			accounts, keys, texts := make([]string, benchRows), make([]string, benchRows), make([]string, benchRows)
			times, numbers := make([]time.Time, benchRows), make([]uint64, benchRows)
			for i := range benchRows {
				accounts[i], keys[i] = fmt.Sprint("acc", i%100), fmt.Sprint("key", i%10_000)
				texts[i], numbers[i] = fmt.Sprint("GET /v1/things/", i%997), uint64(n*benchRows+i)
				times[i] = noon.Add(time.Duration(n*benchRows+i) * time.Millisecond)
			}
			errs := []error{batch.Column(0).Append(accounts), batch.Column(1).Append(keys), batch.Column(2).Append(times), batch.Column(3).Append(numbers)}
			for c := 4; c < len(columns); c += 2 {
				errs = append(errs, batch.Column(c).Append(texts), batch.Column(c+1).Append(numbers))
			}
			return errors.Join(errs...)
		}
	}
}

// BenchmarkInsert: go test ./internal/clickhouse -run - -bench Insert -benchtime 20x | benchstat -
func BenchmarkInsert(b *testing.B) {
	for _, fsync := range []bool{false, true} {
		b.Run(fmt.Sprintf("columns=20/rows=%d/fsync=%t", benchRows, fsync), func(b *testing.B) {
			s := clickhousetest.Store(b)
			columns, fill := benchTable(b, s)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if _, err := s.Insert(b.Context(), "b", columns, clickhouse.InsertOptions{Token: fmt.Sprint(n), Fsync: fsync}, fill(n)); err != nil {
					b.Fatal(err)
				}
				n++
			}
			b.ReportMetric(float64(n*benchRows)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// BenchmarkSelect: go test ./internal/clickhouse -run - -bench Select | benchstat -
func BenchmarkSelect(b *testing.B) {
	s := clickhousetest.Store(b)
	columns, fill := benchTable(b, s)
	for n := range 20 {
		if _, err := s.Insert(b.Context(), "b", columns, clickhouse.InsertOptions{}, fill(n)); err != nil {
			b.Fatal(err)
		}
	}
	scope := clickhouse.ScopeAccounts("acc7")
	queries := map[string]clickhouse.Select{
		"one_key":     {Table: "b", Scope: scope, Columns: []string{"count()"}, Where: []clickhouse.Cond{clickhouse.Eq("key_id", "key7")}},
		"hours":       {Table: "b", Scope: scope, Columns: []string{"toStartOfHour(at) AS h", "count()"}, GroupBy: []string{"h"}},
		"all_by_key":  {Table: "b", Scope: clickhouse.ScopeAll(), Columns: []string{"key_id", "count()", "uniq(s0)"}, GroupBy: []string{"key_id"}},
		"constant":    {Table: "system.one", Scope: clickhouse.ScopeAll(), Columns: []string{"1"}},
		"rows_100000": {Table: "b", Scope: clickhouse.ScopeAll(), Columns: []string{"key_id", "s0", "n0"}, Limit: 100_000},
	}
	for name, q := range queries {
		for _, parallel := range []int{1, 4} {
			b.Run(fmt.Sprintf("query=%s/parallel=%d", name, parallel), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					var all sync.WaitGroup
					for range parallel {
						all.Go(func() { drain(b, s, q) })
					}
					all.Wait()
				}
			})
		}
	}
}

func drain(b *testing.B, s *clickhouse.Store, q clickhouse.Query) {
	b.Helper()
	rows, err := s.Query(b.Context(), q)
	if err != nil {
		b.Error(err)
		return
	}
	for rows.Next() {
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		b.Error(err)
	}
}

// BenchmarkStart: go test ./internal/clickhouse -run - -bench Start | benchstat -
func BenchmarkStart(b *testing.B) {
	library, dir := clickhousetest.Library(b), b.TempDir()
	for b.Loop() {
		server, err := embedded.Start(b.Context(), embedded.Config{Dir: dir, Library: library, Logger: clickhousetest.Logger(b)})
		if err != nil {
			b.Fatal(err)
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", server.Status().PID))
		if err == nil {
			for line := range strings.Lines(string(status)) {
				var kB float64
				if _, err := fmt.Sscanf(line, "VmRSS: %f kB", &kB); err == nil {
					b.ReportMetric(kB/1024, "idle-MiB")
				}
			}
		}
		if err := server.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
