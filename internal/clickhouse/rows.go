package clickhouse

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// Rows is a result read row by row. Close it: an open result holds a connection
// and keeps the server working. A nil Err after Next said false means that every
// row was seen; a result that broke off has an Err.
type Rows interface {
	// Next moves to the next row and reports whether there is one.
	Next() bool
	// Scan copies the row's columns into the pointers in dest.
	Scan(dest ...any) error
	// Columns names the result's columns.
	Columns() []string
	// Err is what ended the result early, nil if nothing did.
	Err() error
	// Close ends the result, and the query if it still runs. It may be called
	// again.
	Close() error
}

// queryTextSoftMax is near the server's default for max_query_size; a longer
// text raises the limit for itself.
const queryTextSoftMax = 200 << 10

// Query runs q and streams its rows. The query stops when ctx ends or Rows is
// closed. Many accounts or values make a long text, which is sent whole.
func (s *Store) Query(ctx context.Context, q Query) (Rows, error) {
	text, args, settings, err := render(q)
	if err != nil {
		return nil, err
	}
	if n := textSize(text, args); n > queryTextSoftMax {
		settings["max_query_size"] = 2 * n
	}
	queryCtx, cancel := context.WithCancel(ctx)
	inner, err := s.conn.Query(chgo.Context(queryCtx, chgo.WithSettings(settings)), text, args...)
	if err != nil {
		cancel()
		return nil, classify(ctx, err)
	}
	return &rows{ctx: ctx, cancel: cancel, inner: inner}, nil
}

// Row runs q and scans its first row into dest; [ErrNoRows] if there is none.
func (s *Store) Row(ctx context.Context, q Query, dest ...any) error {
	rows, err := s.Query(ctx, q)
	if err != nil {
		return err
	}
	if !rows.Next() {
		err := rows.Err()
		if err == nil {
			err = ErrNoRows
		}
		return errors.Join(err, rows.Close())
	}
	return errors.Join(rows.Scan(dest...), rows.Close())
}

// rows adapts the driver's result: its errors are classified and closing it
// early stops the server instead of reading on to the end.
type rows struct {
	ctx    context.Context // Kept only to tell the caller's cancellation from other faults.
	cancel context.CancelFunc
	inner  driver.Rows
	closed bool
}

var _ Rows = (*rows)(nil)

// Next implements [Rows].
func (r *rows) Next() bool {
	return !r.closed && r.inner.Next()
}

// Scan implements [Rows].
func (r *rows) Scan(dest ...any) error {
	if err := r.inner.Scan(dest...); err != nil {
		return fmt.Errorf("clickhouse: scan: %w", err)
	}
	return nil
}

// Columns implements [Rows].
func (r *rows) Columns() []string { return r.inner.Columns() }

// Err implements [Rows].
func (r *rows) Err() error {
	if r.closed {
		return nil
	}
	return classify(r.ctx, r.inner.Err())
}

// Close implements [Rows]. What the driver reports here is only that we
// cancelled: faults of the result itself are in Err.
func (r *rows) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	r.cancel()
	if err := r.inner.Close(); err != nil && !errors.Is(err, context.Canceled) && r.inner.Err() == nil {
		return fmt.Errorf("clickhouse: close rows: %w", err)
	}
	return nil
}

// textSize is an upper guess at the bound statement's length in bytes.
func textSize(text string, args []any) int {
	n := len(text)
	for _, a := range args {
		switch a := a.(type) {
		case string:
			n += 2*len(a) + 2
		case []string:
			for _, v := range a {
				n += 2*len(v) + 4
			}
		case chgo.GroupSet:
			n += textSize("", a.Value)
		default:
			n += 40
		}
	}
	return n
}

// noRows names the driver's way of saying that a single row is missing.
func noRows(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNoRows
	}
	return err
}
