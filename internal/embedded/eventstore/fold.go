package eventstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// bounds are the sizes of the journal and of what is in it alone.
type bounds struct {
	// segmentBytes is the size of the first file; the next are twice as big, up to
	// segmentBytesMax.
	segmentBytes, segmentBytesMax int64
	// foldBytes and foldAfter say when a fold is due: so much, or so old.
	foldBytes int64
	foldAfter time.Duration
	// tailBytesMax bounds what is not folded in memory, and journalBytesMax in the
	// journal: appends wait when a fold cannot keep up.
	tailBytesMax, journalBytesMax int64
	// patience is how long they wait.
	patience time.Duration
}

func (b *bounds) setDefaults() {
	if *b == (bounds{}) {
		*b = bounds{
			segmentBytes: 1 << 20, segmentBytesMax: 16 << 20,
			foldBytes: 6 << 20, foldAfter: 500 * time.Millisecond,
			tailBytesMax: 32 << 20, journalBytesMax: 128 << 20, patience: 2 * time.Second,
		}
	}
}

const (
	retryFirst = 20 * time.Millisecond
	retryMax   = time.Second
)

// errBehind says that the tables do not keep up with the journal.
var errBehind = errors.New("the log's tables are behind its journal")

// faults is where tests let a fold fail.
type faults struct {
	beforeFold func(context.Context, *sql.Conn) error
	afterFold  func() error
}

// folder moves commits from the journal into the tables, many in one transaction.
// The transaction also holds which run of the journal counts and up to which record
// it is folded, so a crash repeats nothing and leaves nothing out.
type folder struct {
	tables  *tables
	recent  *recent
	journal *journal
	bounds  bounds
	log     *slog.Logger

	wake chan struct{} // Something is due.
	stop chan struct{} // Closed to end the goroutine.
	done chan struct{} // Closed when it has ended.

	// turn is held by whoever folds: the goroutine, the writer when the journal
	// begins anew, Close.
	turn sync.Mutex

	mu      sync.Mutex // Guards all below.
	pending []*commit  // Oldest first.
	bytes   int64      // Of all pending.
	inFiles int64
	oldest  time.Time // When the first of pending came.
	failed  error     // Of the last fold, nil once one succeeded.
	moved   chan struct{}
}

func newFolder(t *tables, r *recent, j *journal, b bounds, log *slog.Logger) *folder {
	return &folder{
		tables: t, recent: r, journal: j, bounds: b, log: log,
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}), moved: make(chan struct{}),
	}
}

// push takes a commit that is durable in the journal.
func (f *folder) push(c *commit) {
	f.mu.Lock()
	first := len(f.pending) == 0
	if first {
		f.oldest = time.Now()
	}
	f.pending = append(f.pending, c)
	f.bytes += c.bytes
	f.inFiles += c.journal
	due := f.dueLocked()
	f.mu.Unlock()
	if first || due {
		f.ask()
	}
}

func (f *folder) ask() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *folder) dueLocked() bool {
	return f.bytes >= f.bounds.foldBytes || f.inFiles >= f.bounds.journalBytesMax/4
}

func (f *folder) fullLocked() bool {
	return f.bytes >= f.bounds.tailBytesMax || f.inFiles >= f.bounds.journalBytesMax
}

// full reports whether nothing more may be pushed before the next fold.
func (f *folder) full() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fullLocked()
}

// room returns nil when there is room for another commit. It waits for it, but not
// for ever, and not at all while folds fail.
func (f *folder) room(ctx context.Context) error {
	var patience <-chan time.Time
	for {
		f.mu.Lock()
		full := f.fullLocked()
		failed, moved := f.failed, f.moved
		f.mu.Unlock()
		switch {
		case !full:
			return nil
		case failed != nil:
			return fmt.Errorf("%w: %w", errBehind, failed)
		case patience == nil:
			t := time.NewTimer(f.bounds.patience)
			defer t.Stop()
			patience = t.C
		}
		select {
		case <-moved:
		case <-patience:
			return errBehind
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// run folds until it is stopped.
func (f *folder) run(ctx context.Context) {
	defer close(f.done)
	t := time.NewTimer(0)
	defer t.Stop()
	retry := retryFirst
	for {
		select {
		case <-f.stop:
			return
		case <-f.wake:
		case <-t.C:
		}
		wait, due := f.due()
		if !due {
			t.Reset(wait)
			continue
		}
		if err := f.fold(ctx); err != nil {
			f.log.ErrorContext(ctx, "fold of the journal failed; appends go on while there is room", slog.Any("error", err))
			select {
			case <-f.stop:
				return
			case <-time.After(retry):
			}
			retry = min(2*retry, retryMax)
			f.ask()
			continue
		}
		retry = retryFirst
		f.ask()
	}
}

// due reports whether a fold is due, or when one will be.
func (f *folder) due() (time.Duration, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.pending) == 0 {
		return time.Hour, false
	}
	wait := f.bounds.foldAfter - time.Since(f.oldest)
	return wait, wait <= 0 || f.dueLocked()
}

// fold moves what is pending, up to a bound, into the tables.
func (f *folder) fold(ctx context.Context) error {
	f.turn.Lock()
	defer f.turn.Unlock()
	return f.foldLocked(ctx, nil)
}

// drain moves all that is pending now into the tables.
func (f *folder) drain(ctx context.Context) error {
	f.mu.Lock()
	newest := uint64(0)
	if n := len(f.pending); n > 0 {
		newest = f.pending[n-1].seq
	}
	f.mu.Unlock()
	for f.holds(newest) {
		if err := f.fold(ctx); err != nil {
			return err
		}
	}
	return nil
}

// holds reports whether something up to record seq is not in the tables.
func (f *folder) holds(seq uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.pending) > 0 && f.pending[0].seq <= seq
}

// foldLocked moves pending commits into the tables; with a state it takes all of
// them and makes that the state of the journal, otherwise some.
func (f *folder) foldLocked(ctx context.Context, state *journalState) error {
	f.mu.Lock()
	n, bytes := 0, int64(0)
	for n < len(f.pending) && (state != nil || bytes < 2*f.bounds.foldBytes) {
		bytes += f.pending[n].bytes
		n++
	}
	batch := slices.Clone(f.pending[:n])
	f.mu.Unlock()
	if n == 0 && state == nil {
		return nil
	}
	if state == nil {
		state = &journalState{salt: f.journal.salt, folded: batch[n-1].seq, file: f.journal.current()}
	}
	err := f.tables.fold(ctx, batch, *state)
	if err != nil {
		// Its outcome may be unknown: the tables' file has the last word.
		if stored, readErr := f.tables.readState(ctx); readErr == nil {
			f.settle(ctx, batch, stored)
		}
	} else if n > 0 {
		f.settle(ctx, batch, *state)
	}
	f.mu.Lock()
	f.failed = err
	close(f.moved)
	f.moved = make(chan struct{})
	f.mu.Unlock()
	return err
}

// settle forgets the commits of batch that the tables hold.
func (f *folder) settle(ctx context.Context, batch []*commit, stored journalState) {
	n := 0
	for n < len(batch) && batch[n].seq <= stored.folded {
		f.recent.fold(batch[n])
		n++
	}
	if n == 0 {
		return
	}
	f.mu.Lock()
	for _, c := range f.pending[:n] {
		f.bytes -= c.bytes
		f.inFiles -= c.journal
	}
	f.pending = slices.Delete(f.pending, 0, n)
	f.oldest = time.Now()
	f.mu.Unlock()
	if err := f.journal.release(ctx, stored.folded, stored.file); err != nil {
		f.log.WarnContext(ctx, "segment of the journal left behind", slog.Any("error", err))
	}
}

// begin folds all that was acknowledged and begins the journal anew behind it: what
// else the old one holds counts no more. Only the writer may call it.
func (f *folder) begin(ctx context.Context) error {
	f.turn.Lock()
	defer f.turn.Unlock()
	state := journalState{folded: f.journal.seq}
	var err error
	if state.salt, state.file, err = f.journal.begin(ctx, f.journal.seq); err != nil {
		return err
	}
	if err := f.foldLocked(ctx, &state); err != nil {
		return err
	}
	if err := f.journal.forget(ctx); err != nil {
		f.log.WarnContext(ctx, "segment of the journal left behind", slog.Any("error", err))
	}
	return nil
}

// close ends the goroutine, folds the rest and says that no journal is in use. It
// reports whether that is so; if not, the next start reads the journal.
func (f *folder) close(ctx context.Context) (bool, error) {
	close(f.stop)
	<-f.done
	f.turn.Lock()
	defer f.turn.Unlock()
	if err := f.foldLocked(ctx, &journalState{salt: runOf(f.journal.salt) << 32, folded: f.journal.seq}); err != nil {
		return false, fmt.Errorf("fold the journal: %w", err)
	}
	return true, nil
}
