package eventstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
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
	limited                                *sql.Stmt
}

func newReader(ctx context.Context, db *sql.DB, r *recent, clock func() time.Time) (*reader, error) {
	const columns = `SELECT first_pos, last_pos, events, crc32c, body FROM blocks `
	const runColumns = `SELECT first_rev, events, created, block FROM runs `
	rd := &reader{recent: r, clock: clock}
	for stmt, query := range map[**sql.Stmt]string{
		&rd.head:          headQuery,
		&rd.forwards:      columns + `WHERE first_pos >= COALESCE((SELECT max(first_pos) FROM blocks WHERE first_pos <= ?1), 0) AND last_pos <> ?1 ORDER BY first_pos LIMIT 64`,
		&rd.backwards:     columns + `WHERE first_pos <= COALESCE((SELECT min(first_pos) FROM blocks WHERE first_pos >= ?1), ?1) AND first_pos <> ?1 ORDER BY first_pos DESC LIMIT 64`,
		&rd.one:           columns + `WHERE first_pos = ?1`,
		&rd.runsForwards:  runColumns + `WHERE sid = ?1 AND first_rev >= COALESCE((SELECT max(first_rev) FROM runs WHERE sid = ?1 AND first_rev <= ?2), 0) ORDER BY first_rev LIMIT ?3`,
		&rd.runsBackwards: runColumns + `WHERE sid = ?1 AND first_rev <= ?2 ORDER BY first_rev DESC LIMIT ?3`,
		&rd.runNewest:     runColumns + `WHERE sid = ?1 AND created >= ?2 ORDER BY first_rev LIMIT 1`,
		&rd.limited: `SELECT name FROM streams WHERE max_count IS NOT NULL OR max_age_s IS NOT NULL OR trim_below IS NOT NULL
UNION SELECT name FROM streams WHERE name >= '$$' AND name < '$%'
UNION SELECT s.name FROM runs r JOIN streams s USING (sid) WHERE r.first_rev = 9223372036854775807`,
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
	for _, stmt := range []*sql.Stmt{r.head, r.forwards, r.backwards, r.one, r.runsForwards, r.runsBackwards, r.runNewest, r.limited} {
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
	return fetchBlocks(ctx, r.forwards, pos, func(b *block) bool { return b.last > pos })
}

// before returns blocks, newest first, that hold all events before pos down to
// some earlier position.
func (r *reader) before(ctx context.Context, pos uint64) ([]*block, error) {
	if blocks := r.recent.below(pos); len(blocks) > 0 {
		return blocks, nil
	}
	return fetchBlocks(ctx, r.backwards, pos, func(b *block) bool { return b.first < pos })
}

// fetchBlocks returns those of the blocks next to pos that are wanted. A block at whose end
// pos does not lie exactly is looked at before it is passed over: its events say where it
// ends, and its row may be wrong.
func fetchBlocks(ctx context.Context, stmt *sql.Stmt, pos uint64, wanted func(*block) bool) (blocks []*block, err error) {
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
		if !wanted(b) {
			continue
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
	if err := b.says(); err != nil {
		return nil, err
	}
	return &b, nil
}

func clampInt(v uint64) int64 { return int64(min(v, math.MaxInt64)) }

// runs reads runs of one stream from the tables.
func (r *reader) runs(ctx context.Context, stmt *sql.Stmt, args ...any) (runs []run, err error) {
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return nil, fmt.Errorf("read stream: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var x run
		if err := rows.Scan(&x.first, &x.events, &x.created, &x.block); err != nil {
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
	name      string
	runs      []run // Those that may not be in the tables, oldest first.
	low, high uint64
}

// stored returns a stream with all that it holds, hidden or not.
func (r *reader) stored(ctx context.Context, name string) (stream, error) {
	// First what is not in the tables, then these: see recent.
	h, runs, ok := r.recent.stream(name)
	if !ok {
		var err error
		if h, err = loadHead(ctx, r.head, name); err != nil {
			return stream{}, err
		}
	}
	s := stream{head: h, name: name, runs: runs, high: h.last, low: h.cut}
	if !h.exists {
		s.low, s.high = 1, 0
	}
	return s, nil
}

// open returns a stream with what its limits leave visible.
func (r *reader) open(ctx context.Context, name string) (stream, error) {
	s, err := r.stored(ctx, name)
	if err != nil {
		return stream{}, err
	}
	if !s.visible() {
		s.low, s.high = 1, 0
		return s, nil
	}
	limits := s.limits
	if isMetaStream(name) && !limits.maxCount.Valid {
		limits.maxCount = sql.NullInt64{Int64: 1, Valid: true}
	}
	if n := limits.maxCount; n.Valid && uint64(n.Int64) <= s.high { //nolint:gosec // Positive.
		s.low = max(s.low, s.high-uint64(n.Int64)+1) //nolint:gosec // Positive.
	}
	if tb := limits.trimBelow; tb.Valid {
		s.low = max(s.low, uint64(tb.Int64)) //nolint:gosec // Positive.
	}
	if age := limits.maxAgeS; age.Valid {
		first, err := r.since(ctx, s, ticks(r.clock())-min(age.Int64, maxAgeCeilingS)*ticksPerSecond)
		if err != nil {
			return stream{}, err
		}
		s.low = max(s.low, first)
	}
	return s, nil
}

// since returns the first revision of s that is not older than created, or the one
// after its last.
func (r *reader) since(ctx context.Context, s stream, created int64) (uint64, error) {
	first, err := r.sinceOnce(ctx, s, created)
	if err != nil { // Its block was scavenged between two looks, perhaps.
		first, err = r.sinceOnce(ctx, s, created)
	}
	return first, err
}

func (r *reader) sinceOnce(ctx context.Context, s stream, created int64) (uint64, error) {
	var x run
	err := r.runNewest.QueryRowContext(ctx, s.sid, created).Scan(&x.first, &x.events, &x.created, &x.block)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		for _, x := range s.runs {
			if x.created >= created {
				return x.first, nil
			}
		}
		return s.high + 1, nil
	case err != nil:
		return 0, fmt.Errorf("read age of stream: %w", err)
	}
	w := &walker{reader: r, stream: s}
	if err := w.find(ctx, x); err != nil {
		return 0, err
	}
	for _, f := range w.frames {
		if f.created >= created {
			return f.rev, nil
		}
	}
	return x.end(), nil
}

// walk calls yield for the visible events of s from revision from on, in the
// given direction, until it returns false. It reads no further than s.high, so
// the caller sees one state of the stream.
func (r *reader) walk(ctx context.Context, s stream, from uint64, back bool, yield func(frame) (bool, error)) error {
	w := &walker{reader: r, stream: s, back: back, yield: yield}
	if back {
		w.from = min(from, s.high)
		return w.backwards(ctx)
	}
	w.from = max(from, s.low)
	return w.forwards(ctx)
}

// walker is one walk through a stream.
type walker struct {
	reader *reader
	stream stream
	back   bool
	yield  func(frame) (bool, error)

	from   uint64 // The next revision, in the direction of the walk.
	last   *block // Read last.
	gone   uint64 // A block that was not found.
	frames []frame
	ended  bool // By yield, or at the end.
}

// memory is the first revision whose run is at hand.
func (w *walker) memory() uint64 {
	if len(w.stream.runs) == 0 {
		return math.MaxUint64
	}
	return w.stream.runs[0].first
}

func (w *walker) inside() bool {
	return !w.ended && w.from >= w.stream.low && w.from <= w.stream.high
}

func (w *walker) forwards(ctx context.Context) error {
	for w.inside() && w.from < w.memory() {
		n, err := w.tables(ctx, w.reader.runsForwards, w.from)
		if err != nil {
			return err
		}
		if n > 0 {
			continue
		}
		if err := w.missing(ctx); err != nil {
			return err
		}
		w.from = w.memory()
	}
	for _, x := range w.stream.runs {
		if !w.inside() {
			return nil
		}
		if x.end() <= w.from {
			continue
		}
		if err := w.follows(ctx, x); err != nil {
			return err
		}
		if err := w.run(x, x.in); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) backwards(ctx context.Context) error {
	for _, x := range slices.Backward(w.stream.runs) {
		if !w.inside() {
			return nil
		}
		if x.first > w.from {
			continue
		}
		if err := w.run(x, x.in); err != nil {
			return err
		}
	}
	for w.inside() {
		n, err := w.tables(ctx, w.reader.runsBackwards, w.from)
		if err != nil {
			return err
		}
		if n == 0 {
			return w.missing(ctx)
		}
	}
	return nil
}

// tables walks the next runs that are in the tables, and returns how many.
func (w *walker) tables(ctx context.Context, stmt *sql.Stmt, from uint64) (int, error) {
	runs, err := w.reader.runs(ctx, stmt, w.stream.sid, clampInt(from), chunkRuns)
	if err != nil {
		return 0, err
	}
	for _, x := range runs {
		if !w.inside() {
			break
		}
		if err := w.follows(ctx, x); err != nil {
			return 0, err
		}
		err := w.find(ctx, x)
		if err != nil && w.gone != x.block {
			w.gone, w.last = x.block, nil
			return 1, nil // Scavenged meanwhile, perhaps: look at the runs again.
		}
		if err != nil {
			return 0, err
		}
		if err := w.give(x); err != nil {
			return 0, err
		}
	}
	return len(runs), nil
}

// find gets the frames of x from its block.
func (w *walker) find(ctx context.Context, x run) error {
	if w.last == nil || w.last.first != x.block {
		var err error
		if w.last, err = scanBlock(w.reader.one.QueryRowContext(ctx, clampInt(x.block))); err != nil {
			return err
		}
	}
	var err error
	w.frames, err = w.last.of(w.stream.name, x, w.frames)
	return err
}

// follows checks that x holds the next revision of the walk, if it is not behind it,
// or that what is between was scavenged.
func (w *walker) follows(ctx context.Context, x run) error {
	switch {
	case x.first <= w.from && w.from < x.end(), w.back && w.from < x.first, !w.back && w.from >= x.end():
		return nil
	}
	return w.missing(ctx)
}

// missing returns an error unless the next revision of the walk was scavenged.
func (w *walker) missing(ctx context.Context) error {
	h, err := loadHead(ctx, w.reader.head, w.stream.name)
	if err != nil || w.from < h.cut {
		return err
	}
	return fmt.Errorf("stream %s: %w: revision %d is missing", w.stream.name, errCorrupt, w.from)
}

// run yields the events of x, which are in b.
func (w *walker) run(x run, b *block) error {
	var err error
	if w.frames, err = b.of(w.stream.name, x, w.frames); err != nil {
		return err
	}
	return w.give(x)
}

// give yields those of the frames of x that are asked for.
func (w *walker) give(x run) error {
	if w.back {
		slices.Reverse(w.frames)
	}
	for _, f := range w.frames {
		if f.rev < w.stream.low || f.rev > w.stream.high || w.back && f.rev > w.from || !w.back && f.rev < w.from {
			continue
		}
		more, err := w.yield(f)
		if err != nil {
			return err
		}
		if !more {
			w.ended = true
			return nil
		}
	}
	switch {
	case !w.back:
		w.from = max(w.from, x.end())
	case x.first == 0:
		w.ended = true
	default:
		w.from = x.first - 1
	}
	return nil
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
