package eventstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

const (
	// groupMax bounds the appends that one commit makes durable.
	groupMax = 512
	// groupBytesMax bounds their bytes.
	groupBytesMax = 8 << 20
	// scratchBytesMax bounds what the writer keeps to make the next record in.
	scratchBytesMax = 4 << 20
	// blockBytes is where a new block begins: big enough that the row costs little,
	// small enough that reading one event of it does.
	blockBytes = 16 << 10
	// headsMax bounds the stream heads kept in memory.
	headsMax = 1 << 16
	// positionStart is where the log begins, so that 0 can mean 'before all'.
	positionStart = 1024
)

// errNotStored says that a commit failed and nothing of it is in the log, now or
// after any crash.
var errNotStored = errors.New("nothing was stored")

// writer is the one goroutine that changes the log. Appends that wait while it
// commits share the next commit. A commit is durable in the journal; the folder
// moves it into the tables later.
type writer struct {
	recent  *recent
	reader  *reader
	journal *journal
	folder  *folder
	clock   func() time.Time
	log     *slog.Logger

	requests chan *request
	stopped  chan struct{}

	// All below belongs to the goroutine.
	heads       *headCache
	last        uint64 // Position of the newest event, or positionStart.
	lastCreated int64
	lastSID     int64
	doubtful    bool // The journal could not be written, and is not begun anew yet.
	scratch     []byte
	cuts        []cut
}

// load reads the end of the log from the tables.
func (w *writer) load(ctx context.Context, db *sql.DB) error {
	w.last = positionStart
	shown := uint64(0)
	if err := db.QueryRowContext(ctx, `SELECT COALESCE(max(sid), 0) FROM streams`).Scan(&w.lastSID); err != nil {
		return fmt.Errorf("read end of log: %w", err)
	}
	b, err := scanBlock(db.QueryRowContext(ctx, `SELECT first_pos, last_pos, events, crc32c, body FROM blocks ORDER BY first_pos DESC LIMIT 1`))
	switch {
	case errors.Is(err, sql.ErrNoRows):
	case err != nil:
		return fmt.Errorf("read end of log: %w", err)
	default:
		frames, err := b.frames(nil)
		if err != nil {
			return fmt.Errorf("read end of log: %w", err)
		}
		if len(frames) == 0 {
			return fmt.Errorf("read end of log: %w: an empty block", errCorrupt)
		}
		end := frames[len(frames)-1]
		w.last, w.lastCreated, shown = end.pos, end.created, end.pos
	}
	w.recent = newRecent(shown)
	return nil
}

// run serves requests until the channel is closed. It ends with everything
// acknowledged durable.
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
	if err := w.ready(ctx); err != nil {
		first.answer(result{err: err})
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
		if len(g.asked) < groupMax && g.bytes() < groupBytesMax {
			select {
			case r = <-w.requests: // nil once the channel is closed
			default:
			}
		}
	}
	w.finish(ctx, g)
	return carried
}

// ready returns nil when the journal can take a record and the folder is not too
// far behind it.
func (w *writer) ready(ctx context.Context) error {
	if w.doubtful {
		if err := w.begin(ctx); err != nil {
			return fmt.Errorf("%w: %w", errNotStored, err)
		}
	}
	if err := w.folder.room(ctx); err != nil {
		return fmt.Errorf("%w: %w", errNotStored, err)
	}
	return nil
}

// finish commits g and answers everybody in it.
func (w *writer) finish(ctx context.Context, g *group) {
	if len(g.runs) > 0 {
		if err := w.commit(ctx, g); err != nil {
			w.log.ErrorContext(ctx, "commit failed", slog.Any("error", err), slog.Int("appends", len(g.asked)))
			for i := range g.asked {
				if g.asked[i].pending {
					g.asked[i].result = result{err: err}
				}
			}
		}
	}
	w.cuts = g.cuts
	if w.scratch = g.buf; cap(w.scratch) > scratchBytesMax {
		w.scratch = nil
	}
	for _, a := range g.asked {
		a.request.answer(a.result)
	}
}

// commit makes g durable, then the writer's state, and shows it to readers. An
// error that is errNotStored means that nothing of it is stored; after any other
// the outcome is known only once the journal was begun anew or read back.
func (w *writer) commit(ctx context.Context, g *group) error {
	n, err := w.journal.write(ctx, g.buf, w.last, g.events)
	if err == nil {
		w.adopt(g, n)
		return nil
	}
	if errors.Is(err, errNotStored) {
		return err
	}
	// The record may be whole on disk or not. It is neither once the tables' file
	// says that a new run of the journal counts.
	w.doubtful = true
	if again := w.begin(ctx); again != nil {
		return errors.Join(err, again)
	}
	return fmt.Errorf("%w: %w", errNotStored, err)
}

// adopt makes g, the journal's newest record of n bytes, the writer's state and
// shows it to readers.
func (w *writer) adopt(g *group, n int64) {
	c := g.commit(w.journal.seq)
	c.journal = n
	for name, h := range g.heads {
		w.heads.put(name, h)
	}
	w.last, w.lastCreated, w.lastSID = g.last, g.created, g.lastSID
	w.recent.push(c)
	w.folder.push(c)
}

// begin begins the journal anew behind what was acknowledged.
func (w *writer) begin(ctx context.Context) error {
	if err := w.folder.begin(ctx); err != nil {
		return fmt.Errorf("begin the journal anew: %w", err)
	}
	w.doubtful = false
	return nil
}

// stop ends the goroutine once everything that was asked is answered. No request
// may be sent any more.
func (w *writer) stop() {
	close(w.requests)
	<-w.stopped
}
