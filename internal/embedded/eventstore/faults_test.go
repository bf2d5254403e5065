package eventstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/keytrail/internal/embedded/eventstore"
)

var errInjected = errors.New("injected")

// A commit that fails fails every append in its group, stores nothing of them and
// does not stop the server.
func TestFailedCommitStoresNothing(t *testing.T) {
	for _, test := range []struct {
		name string
		fail func(context.Context, *sql.Conn) error
	}{
		{"an error before the commit", func(context.Context, *sql.Conn) error { return errInjected }},
		{"a full disk", func(ctx context.Context, conn *sql.Conn) error {
			// The file may not grow any more, and then it has to.
			if _, err := conn.ExecContext(ctx, `PRAGMA max_page_count = 1`); err != nil {
				return err
			}
			_, err := conn.ExecContext(ctx, `INSERT INTO blocks VALUES (1, 1, 1, 1, zeroblob(10000000))`)
			_, undo := conn.ExecContext(context.WithoutCancel(ctx), `PRAGMA max_page_count = 1000000000`)
			return errors.Join(err, undo)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			s, stop := open(t, eventstore.Config{Dir: dir})
			c := dial(t, s)
			if a, err := c.append(t.Context(), "kt.a", noStream, "t", nil, number(0)); err != nil || !a.ok {
				t.Fatalf("append: %+v, %v", a, err)
			}
			s.FailBeforeCommit(test.fail)
			var wg sync.WaitGroup
			for i := range 16 {
				wg.Go(func() {
					stream, expect := "kt.a", int64(0)
					if i > 0 {
						stream, expect = fmt.Sprintf("kt.new-%d", i), noStream
					}
					_, err := c.append(t.Context(), stream, expect, "t", nil, number(1), number(2))
					if status.Code(err) != codes.Aborted {
						t.Errorf("append during the fault: got %v, want %s", err, codes.Aborted)
					}
				})
			}
			wg.Wait()
			s.FailBeforeCommit(nil)
			if events, err := c.readAll(t.Context(), false, 100); err != nil || len(events) != 1 {
				t.Errorf("the log holds %v, %v, want the first event only", events, err)
			}
			if a, err := c.append(t.Context(), "kt.a", 0, "t", nil, number(1), number(2)); err != nil || a.rev != 2 {
				t.Errorf("append after the fault: %+v, %v", a, err)
			}
			if a, err := c.append(t.Context(), "kt.new-1", noStream, "t", nil, number(1)); err != nil || a.rev != 0 {
				t.Errorf("append to a stream that was never made: %+v, %v", a, err)
			}
			stop()
			verify(t, dir, 4)
		})
	}
}

// A commit that is stored although it failed is in doubt for its writer, and a
// repeat is the same success.
func TestCommitStoredButFailedIsFoundByTheRepeat(t *testing.T) {
	dir := t.TempDir()
	s, stop := open(t, eventstore.Config{Dir: dir})
	c := dial(t, s)
	s.FailAfterCommit(func() error { return errInjected })
	if _, err := c.append(t.Context(), "kt.a", noStream, "t", nil, number(1), number(2)); status.Code(err) != codes.Unknown {
		t.Fatalf("append: got %v, want %s", err, codes.Unknown)
	}
	s.FailBeforeCommit(nil)
	if a, err := c.append(t.Context(), "kt.a", noStream, "t", nil, number(1), number(2)); err != nil || !a.ok || a.rev != 1 {
		t.Errorf("repeat: %+v, %v", a, err)
	}
	if a, err := c.append(t.Context(), "kt.a", 1, "t", nil, number(3)); err != nil || a.rev != 2 {
		t.Errorf("append: %+v, %v", a, err)
	}
	stop()
	verify(t, dir, 3)
}
