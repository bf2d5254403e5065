package clickhouse_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/internal/clickhouse/clickhousetest"
)

// TestInsertsTakeTurns: four at a time are filled and sent, since each holds memory; the
// others wait as long as their callers do, and reads do not wait for them.
func TestInsertsTakeTurns(t *testing.T) {
	t.Parallel()
	s := clickhousetest.Store(t)
	if err := s.Exec(t.Context(), "CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n"); err != nil {
		t.Fatal(err)
	}
	var inside, most, filled atomic.Int64
	entered, leave := make(chan struct{}, 20), make(chan struct{})
	insert := func(ctx context.Context) error {
		_, err := s.Insert(ctx, "t", []string{"n"}, clickhouse.InsertOptions{}, func(b clickhouse.Batch) error {
			if n := inside.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer inside.Add(-1)
			filled.Add(1)
			entered <- struct{}{}
			<-leave
			return b.Append(uint64(1))
		})
		return err
	}
	var wg sync.WaitGroup
	errs := make(chan error, 12)
	for range 12 {
		wg.Go(func() { errs <- insert(t.Context()) })
	}
	for range 4 {
		<-entered
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := insert(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("an insert whose caller is gone: %v", err)
	}
	if n := count(t, s, "t"); n != 0 || filled.Load() != 4 {
		t.Errorf("%d rows, %d inserts have begun, want 0 and 4", n, filled.Load())
	}
	close(leave)
	wg.Wait()
	for range 12 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := count(t, s, "t"); n != 12 || most.Load() != 4 {
		t.Errorf("%d rows, %d inserts at a time, want 12 and 4", n, most.Load())
	}
}
