package eventstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"
)

const (
	// chunkBytes is how much of the log one query fetches. A reader holds one chunk
	// and no transaction while it sends, so a slow one costs neither memory nor a
	// growing WAL.
	chunkBytes = 256 << 10
	// chunkRuns bounds the appends of a stream that one query fetches.
	chunkRuns = 512
)

// reader answers reads, out of memory where it can and out of the file otherwise.
// It is safe for concurrent use.
type reader struct {
	recent *recent
	clock  func() time.Time

	head, forwards, backwards, one         *sql.Stmt
	runsForwards, runsBackwards, runNewest *sql.Stmt
}

func newReader(ctx context.Context, db *sql.DB, r *recent, clock func() time.Time) (*reader, error) {
	const columns = `SELECT first_pos, last_pos, events, crc32c, body FROM blocks `
	const runColumns = `SELECT first_rev, events, created, block, at FROM runs `
	rd := &reader{recent: r, clock: clock}
	for stmt, query := range map[**sql.Stmt]string{
		&rd.head:          headQuery,
		&rd.forwards:      columns + `WHERE first_pos >= COALESCE((SELECT max(first_pos) FROM blocks WHERE first_pos <= ?1), 0) AND last_pos > ?1 ORDER BY first_pos LIMIT 64`,
		&rd.backwards:     columns + `WHERE first_pos < ?1 ORDER BY first_pos DESC LIMIT 64`,
		&rd.one:           columns + `WHERE first_pos = ?1`,
		&rd.runsForwards:  runColumns + `WHERE sid = ?1 AND first_rev >= COALESCE((SELECT max(first_rev) FROM runs WHERE sid = ?1 AND first_rev <= ?2), 0) ORDER BY first_rev LIMIT ?3`,
		&rd.runsBackwards: runColumns + `WHERE sid = ?1 AND first_rev <= ?2 ORDER BY first_rev DESC LIMIT ?3`,
		&rd.runNewest:     `SELECT first_rev FROM runs WHERE sid = ?1 AND created >= ?2 ORDER BY first_rev LIMIT 1`,
	} {
		var err error
		if *stmt, err = db.PrepareContext(ctx, query); err != nil { //nolint:sqlclosecheck // Closed with its pool.
			return nil, errors.Join(fmt.Errorf("prepare reads: %w", err), rd.close())
		}
	}
	return rd, nil
}

// close lets go of the statements, without which the file stays open.
func (r *reader) close() error {
	var errs []error
	for _, stmt := range []*sql.Stmt{r.head, r.forwards, r.backwards, r.one, r.runsForwards, r.runsBackwards, r.runNewest} {
		if stmt != nil {
			errs = append(errs, stmt.Close())
		}
	}
	return errors.Join(errs...)
}

// after returns blocks in order that hold all events after pos up to some later
// position; none if there is nothing newer. A block may begin at or before pos.
func (r *reader) after(ctx context.Context, pos uint64) ([]*block, error) {
	if blocks, ok := r.recent.after(pos); ok {
		return blocks, nil
	}
	return fetchBlocks(ctx, r.forwards, pos)
}

// before returns blocks, newest first, that hold all events before pos down to
// some earlier position.
func (r *reader) before(ctx context.Context, pos uint64) ([]*block, error) {
	return fetchBlocks(ctx, r.backwards, pos)
}

func fetchBlocks(ctx context.Context, stmt *sql.Stmt, pos uint64) (blocks []*block, err error) {
	rows, err := stmt.QueryContext(ctx, clampInt(pos))
	if err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for bytes := 0; bytes < chunkBytes && rows.Next(); {
		b, err := scanBlock(rows)
		if err != nil {
			return nil, err
		}
		bytes += len(b.body)
		blocks = append(blocks, b)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	return blocks, nil
}

type scanner interface{ Scan(dest ...any) error }

func scanBlock(row scanner) (*block, error) {
	var b block
	var crc uint32
	if err := row.Scan(&b.first, &b.last, &b.n, &crc, &b.body); err != nil {
		return nil, fmt.Errorf("read block: %w", err)
	}
	if b.checksum() != crc {
		return nil, fmt.Errorf("block at position %d: %w: wrong checksum", b.first, errCorrupt)
	}
	return &b, nil
}

func clampInt(v uint64) int64 { return int64(min(v, math.MaxInt64)) }

// run is one append in a stream.
type run struct {
	first   uint64
	events  int
	created int64
	block   uint64
	at      int
}

func (r *reader) runs(ctx context.Context, stmt *sql.Stmt, args ...any) (runs []run, err error) {
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return nil, fmt.Errorf("read stream: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var x run
		if err := rows.Scan(&x.first, &x.events, &x.created, &x.block, &x.at); err != nil {
			return nil, fmt.Errorf("read stream: %w", err)
		}
		runs = append(runs, x)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read stream: %w", err)
	}
	return runs, nil
}

// stream is what a stream shows now: revisions from low to high, none if low > high.
type stream struct {
	head
	low, high uint64
}

// open reads the head of a stream and what its limits leave visible.
func (r *reader) open(ctx context.Context, name string) (stream, error) {
	h, err := loadHead(ctx, r.head, name)
	if err != nil {
		return stream{}, err
	}
	s := stream{head: h, low: 1}
	if !h.visible() {
		return s, nil
	}
	s.low, s.high = 0, h.last
	if isMetaStream(name) && !h.limits.maxCount.Valid {
		h.limits.maxCount = sql.NullInt64{Int64: 1, Valid: true}
	}
	if n := h.limits.maxCount; n.Valid && uint64(n.Int64) <= s.high { //nolint:gosec // Positive.
		s.low = s.high - uint64(n.Int64) + 1 //nolint:gosec // Positive.
	}
	if tb := h.limits.trimBelow; tb.Valid {
		s.low = max(s.low, uint64(tb.Int64)) //nolint:gosec // Positive.
	}
	if age := h.limits.maxAgeS; age.Valid {
		since := ticks(r.clock()) - min(age.Int64, maxAgeCeilingS)*ticksPerSecond
		var first uint64
		switch err := r.runNewest.QueryRowContext(ctx, h.sid, since).Scan(&first); {
		case errors.Is(err, sql.ErrNoRows):
			s.low = s.high + 1
		case err != nil:
			return stream{}, fmt.Errorf("read age of stream: %w", err)
		default:
			s.low = max(s.low, first)
		}
	}
	return s, nil
}

// walk calls yield for the visible events of s from revision from on, in the
// given direction, until it returns false. It reads no further than s.high, so
// the caller sees one state of the stream.
func (r *reader) walk(ctx context.Context, s stream, from uint64, back bool, yield func(frame) (bool, error)) error {
	if back {
		from = min(from, s.high)
	} else {
		from = max(from, s.low)
	}
	var last *block
	for from >= s.low && from <= s.high {
		stmt := r.runsForwards
		if back {
			stmt = r.runsBackwards
		}
		runs, err := r.runs(ctx, stmt, s.sid, clampInt(from), chunkRuns)
		if err != nil || len(runs) == 0 {
			return err
		}
		for _, x := range runs {
			if last, err = r.blockAt(ctx, last, x.block); err != nil {
				return err
			}
			more, err := walkRun(last, x, s, from, back, yield)
			if err != nil || !more {
				return err
			}
		}
		end := runs[len(runs)-1]
		if back {
			if end.first == 0 {
				return nil
			}
			from = end.first - 1
		} else {
			from = end.first + uint64(end.events) //nolint:gosec // A count.
		}
	}
	return nil
}

func walkRun(b *block, x run, s stream, from uint64, back bool, yield func(frame) (bool, error)) (bool, error) {
	frames := make([]frame, 0, x.events)
	off := x.at
	for range x.events {
		f, next, err := frameAt(b.body, off)
		if err != nil {
			return false, fmt.Errorf("block at position %d: %w", b.first, err)
		}
		off = next
		if f.rev >= s.low && f.rev <= s.high && (back && f.rev <= from || !back && f.rev >= from) {
			frames = append(frames, f)
		}
	}
	for i := range frames {
		f := frames[i]
		if back {
			f = frames[len(frames)-1-i]
		}
		if more, err := yield(f); err != nil || !more {
			return false, err
		}
	}
	return true, nil
}

func (r *reader) blockAt(ctx context.Context, last *block, first uint64) (*block, error) {
	if last != nil && last.first == first {
		return last, nil
	}
	if b := r.recent.holding(first); b != nil {
		return b, nil
	}
	return scanBlock(r.one.QueryRowContext(ctx, clampInt(first)))
}

// event returns one visible event of a stream, or false.
func (r *reader) event(ctx context.Context, name string, rev uint64) (frame, bool, error) {
	s, err := r.open(ctx, name)
	if err != nil || s.tombstoned() {
		return frame{}, false, err
	}
	var found frame
	var ok bool
	err = r.walk(ctx, s, rev, false, func(f frame) (bool, error) {
		found, ok = f, f.rev == rev
		return false, nil
	})
	return found, ok, err
}

// maxAgeCeilingS keeps an age within the range of ticks; it is two thousand years.
const maxAgeCeilingS = 1 << 36

const ticksPerSecond = int64(time.Second / 100)

// ticks returns t in .NET ticks of 100 ns since 1970.
func ticks(t time.Time) int64 { return t.UnixNano() / 100 }

func isMetaStream(name string) bool { return len(name) > 2 && name[:2] == "$$" }
