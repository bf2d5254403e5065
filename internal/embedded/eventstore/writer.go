package eventstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	// groupMax bounds the appends that one commit makes durable.
	groupMax = 512
	// groupBytesMax bounds their bytes.
	groupBytesMax = 8 << 20
	// blockBytes is where the writer begins a new block: big enough that the row
	// costs little, small enough that reading one event of it does.
	blockBytes = 16 << 10
	// headsMax bounds the stream heads kept in memory.
	headsMax = 1 << 16
	// positionStart is where the log begins, so that 0 can mean 'before all'.
	positionStart = 1024
)

// errNotStored says that a commit failed and nothing of it is in the log.
var errNotStored = errors.New("the commit failed, nothing was stored")

// faults is where tests let a commit fail: before it, with nothing stored, or
// after it, with everything stored and nobody told.
type faults struct {
	beforeCommit func(context.Context, *sql.Conn) error
	afterCommit  func() error
}

// writer is the one goroutine that changes the log. Appends that wait while it
// commits share the next commit.
type writer struct {
	db     *sql.DB
	recent *recent
	reader *reader
	clock  func() time.Time
	log    *slog.Logger
	faults atomic.Pointer[faults]

	requests chan *request
	stopped  chan struct{}

	// All below belongs to the goroutine.
	conn        *sql.Conn
	stmts       writeStatements
	heads       *headCache
	last        uint64 // Position of the newest event, or positionStart.
	shown       uint64 // The same, or 0 in an empty log.
	lastCreated int64
	lastSID     int64
	doubtful    bool // The state above may be behind the file: reload it.
}

type writeStatements struct{ head, stream, limits, block, run *sql.Stmt }

// newWriter loads the end of the log and starts the goroutine.
func newWriter(ctx context.Context, d *database, clock func() time.Time, log *slog.Logger) (*writer, error) {
	w := &writer{
		db: d.write, clock: clock, log: log,
		requests: make(chan *request, groupMax), stopped: make(chan struct{}),
		heads: newHeadCache(headsMax),
	}
	conn, err := d.write.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect writer: %w", err)
	}
	w.conn = conn
	if err := w.prepare(ctx); err != nil {
		return nil, errors.Join(err, w.release())
	}
	if err := w.reload(ctx); err != nil {
		return nil, errors.Join(err, w.release())
	}
	w.recent = newRecent(w.shown)
	return w, nil
}

func (w *writer) prepare(ctx context.Context) error {
	for stmt, query := range map[**sql.Stmt]string{
		&w.stmts.head:   headQuery,
		&w.stmts.stream: `INSERT INTO streams (sid, name) VALUES (?, ?)`,
		&w.stmts.limits: `UPDATE streams SET max_count = ?, max_age_s = ?, trim_below = ? WHERE sid = ?`,
		&w.stmts.block:  `INSERT INTO blocks (first_pos, last_pos, events, crc32c, body) VALUES (?, ?, ?, ?, ?)`,
		&w.stmts.run:    `INSERT INTO runs (sid, first_rev, events, created, block, at) VALUES (?, ?, ?, ?, ?, ?)`,
	} {
		var err error
		if *stmt, err = w.conn.PrepareContext(ctx, query); err != nil {
			return fmt.Errorf("prepare writes: %w", err)
		}
	}
	return nil
}

// reload reads the end of the log and forgets everything else.
func (w *writer) reload(ctx context.Context) error {
	w.heads.clear()
	w.last, w.shown, w.lastCreated = positionStart, 0, 0
	if err := w.conn.QueryRowContext(ctx, `SELECT COALESCE(max(sid), 0) FROM streams`).Scan(&w.lastSID); err != nil {
		return fmt.Errorf("read end of log: %w", err)
	}
	b, err := scanBlock(w.conn.QueryRowContext(ctx, `SELECT first_pos, last_pos, events, crc32c, body FROM blocks ORDER BY first_pos DESC LIMIT 1`))
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read end of log: %w", err)
	}
	frames, err := b.frames(nil)
	if err != nil {
		return fmt.Errorf("read end of log: %w", err)
	}
	if len(frames) == 0 {
		return fmt.Errorf("read end of log: %w: an empty block", errCorrupt)
	}
	end := frames[len(frames)-1]
	w.last, w.shown, w.lastCreated = end.pos, end.pos, end.created
	return nil
}

// run serves requests until the channel is closed. It ends with everything
// acknowledged on disk.
func (w *writer) run(ctx context.Context) {
	defer close(w.stopped)
	var first *request
	for {
		if first == nil {
			var ok bool
			if first, ok = <-w.requests; !ok {
				return
			}
		}
		first = w.serve(ctx, first)
	}
}

// serve commits one group that begins with first. It returns a request that could
// not be decided before this group is committed.
func (w *writer) serve(ctx context.Context, first *request) *request {
	if w.doubtful && !w.recover(ctx) {
		first.answer(result{err: errNotStored})
		return nil
	}
	g := newGroup(w)
	var carried *request
	for r := first; r != nil; {
		if !g.decide(ctx, r) {
			carried = r
			break
		}
		r = nil
		if len(g.asked) < groupMax && g.bytes < groupBytesMax {
			select {
			case r = <-w.requests: // nil once the channel is closed
			default:
			}
		}
	}
	w.finish(ctx, g)
	return carried
}

// finish commits g and answers everybody in it.
func (w *writer) finish(ctx context.Context, g *group) {
	if len(g.runs) > 0 || len(g.limits) > 0 {
		if err := w.commit(ctx, g); err != nil {
			w.log.ErrorContext(ctx, "commit failed", slog.Any("error", err), slog.Int("appends", len(g.asked)))
			for i := range g.asked {
				if g.asked[i].pending {
					g.asked[i].result = result{err: err}
				}
			}
			w.doubtful = true
			w.recover(ctx)
		} else {
			w.adopt(g)
		}
	}
	for _, a := range g.asked {
		a.request.answer(a.result)
	}
}

// recover takes the file's word for what is stored, after a commit that failed.
func (w *writer) recover(ctx context.Context) bool {
	if err := w.reload(ctx); err != nil {
		w.log.ErrorContext(ctx, "read end of log after a failed commit", slog.Any("error", err))
		return false
	}
	w.recent.reset(w.shown)
	w.doubtful = false
	return true
}

// adopt makes a committed group the writer's state and shows it to readers.
func (w *writer) adopt(g *group) {
	for name, h := range g.heads {
		w.heads.put(name, h)
	}
	w.last, w.lastCreated, w.lastSID = g.last, g.created, g.lastSID
	w.recent.push(g.blocks)
}

// commit writes g in one transaction. An error that is errNotStored means that
// the file is as before; after any other the outcome is not known.
func (w *writer) commit(ctx context.Context, g *group) error {
	tx, err := w.conn.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotStored, err)
	}
	if err := w.insert(ctx, tx, g); err != nil {
		if undo := tx.Rollback(); undo != nil && !errors.Is(undo, sql.ErrTxDone) {
			err = errors.Join(err, undo)
		}
		return fmt.Errorf("%w: %w", errNotStored, err)
	}
	if err := tx.Commit(); err != nil {
		err = fmt.Errorf("commit: %w", err)
		// SQLite may leave the transaction open after a failed commit; database/sql
		// does not, so close it by hand.
		if _, undo := w.conn.ExecContext(ctx, `ROLLBACK`); undo == nil {
			return fmt.Errorf("%w: %w", errNotStored, err)
		}
		return err
	}
	if f := w.faults.Load(); f != nil && f.afterCommit != nil {
		return f.afterCommit()
	}
	return nil
}

func (w *writer) insert(ctx context.Context, tx *sql.Tx, g *group) error {
	for _, s := range g.streams {
		if _, err := tx.StmtContext(ctx, w.stmts.stream).ExecContext(ctx, s.sid, s.name); err != nil {
			return fmt.Errorf("insert stream: %w", err)
		}
	}
	block := tx.StmtContext(ctx, w.stmts.block)
	for _, b := range g.blocks {
		if _, err := block.ExecContext(ctx, clampInt(b.first), clampInt(b.last), b.n, int64(b.checksum()), b.body); err != nil {
			return fmt.Errorf("insert block: %w", err)
		}
	}
	insertRun := tx.StmtContext(ctx, w.stmts.run)
	for _, x := range g.runs {
		if _, err := insertRun.ExecContext(ctx, x.sid, clampInt(x.first), x.events, x.created, clampInt(x.in.first), x.at); err != nil {
			return fmt.Errorf("insert run: %w", err)
		}
	}
	for sid, l := range g.limits {
		if _, err := tx.StmtContext(ctx, w.stmts.limits).ExecContext(ctx, l.maxCount, l.maxAgeS, l.trimBelow, sid); err != nil {
			return fmt.Errorf("update limits: %w", err)
		}
	}
	if f := w.faults.Load(); f != nil && f.beforeCommit != nil {
		return f.beforeCommit(ctx, w.conn)
	}
	return nil
}

// stop ends the goroutine once everything that was asked is answered. No request
// may be sent any more.
func (w *writer) stop() error {
	close(w.requests)
	<-w.stopped
	return w.release()
}

// release lets go of the connection.
func (w *writer) release() error {
	var errs []error
	for _, stmt := range []*sql.Stmt{w.stmts.head, w.stmts.stream, w.stmts.limits, w.stmts.block, w.stmts.run} {
		if stmt != nil {
			errs = append(errs, stmt.Close())
		}
	}
	if err := errors.Join(append(errs, w.conn.Close())...); err != nil {
		return fmt.Errorf("close writer: %w", err)
	}
	return nil
}
