package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

// headEvery is how often the tracker asks the log for its head.
const headEvery = 250 * time.Millisecond

// TrackerConfig configures a [Tracker].
type TrackerConfig struct {
	Log        Log
	Generation string
	// Now is the clock. Required.
	Now func() time.Time
	// Runner is the runner of this process, if there is one; its state is shown.
	Runner *Runner
	// Metrics, if set, show position and lag.
	Metrics *Metrics
	Logger  *slog.Logger
}

// Tracker tells how far the tables of a generation are, whoever writes them: it
// follows the ledger.
type Tracker struct {
	cfg TrackerConfig

	mu      sync.Mutex // Guards what follows.
	done    BlockCompleted
	known   bool          // The ledger was read.
	changed chan struct{} // Closed and replaced when done changes.
	head    uint64
	// behind is when a head was first seen that is still ahead of the tables; zero if
	// the tables are complete.
	behind time.Time
	// ahead is the head that behind is about.
	ahead uint64
	err   error
	// planned, attempt and holder are the ledger's last word on the block after done.
	planned, attempt uint64
	holder           string
	rate             rate
	// runner is this process's, if there is one.
	runner *Runner
}

// TrackerStatus is what a [Tracker] knows, for operators and for /v1/projections.
type TrackerStatus struct {
	Generation string
	// Block and Position are what the tables are complete up to, RecordedAt when the
	// log took the event there.
	Block      uint64
	Position   uint64
	RecordedAt time.Time
	// Head is the newest position of evidence that is known.
	Head     uint64
	Lag      time.Duration
	Events   uint64
	Rows     map[string]uint64
	Poisoned uint64
	// State is "complete", "behind" or, before the ledger was read, "unknown".
	State string
	// Runner is what this process's runner does; empty if it has none.
	Runner RunnerState
	// Error is for operators; empty if all is well.
	Error string
	// Planned is the block that is being written, 0 if none is; Attempt counts how often
	// it was begun anew. Holder is who wrote the ledger last.
	Planned, Attempt uint64
	Holder           string
	// EventsPerSecond is the rate of the last seconds.
	EventsPerSecond float64
}

// NewTracker returns a tracker that knows nothing until [Tracker.Run].
func NewTracker(cfg TrackerConfig) (*Tracker, error) {
	if cfg.Log == nil || cfg.Now == nil || cfg.Logger == nil || !domain.ValidID(cfg.Generation) {
		return nil, errors.New("tracker: a log, a clock, a logger and a generation are required")
	}
	return &Tracker{cfg: cfg, changed: make(chan struct{}), runner: cfg.Runner}, nil
}

// Run follows the ledger until ctx ends, which is no error. It waits out a log that
// does not answer.
func (t *Tracker) Run(ctx context.Context) error {
	for {
		g, run := errgroup.WithContext(ctx)
		g.Go(func() error { return t.follow(run) })
		g.Go(func() error { return t.watchHead(run) })
		err := g.Wait()
		if ctx.Err() == nil {
			t.fail(err)
			t.cfg.Logger.WarnContext(ctx, "projection tracker is interrupted, trying again", slog.Any("error", err))
		}
		if pause(ctx, backoffFirst) != nil {
			return nil //nolint:nilerr // The end of ctx is no error.
		}
	}
}

// follow takes in the ledger's newest state and then each event of it.
func (t *Tracker) follow(ctx context.Context) error {
	stream := LedgerStream(t.cfg.Generation)
	last, found, err := t.cfg.Log.Last(ctx, stream)
	if err != nil {
		return fmt.Errorf("read ledger: %w", err)
	}
	opt := eventlog.SubscribeOptions{Prefixes: []string{stream}, FromStart: true}
	if found {
		opt.After, opt.FromStart = last.Position, false
		l, err := readLedger(ctx, t.cfg.Log, stream)
		if err != nil {
			return err
		}
		t.observe(l.done)
		t.mu.Lock()
		t.holder, t.attempt, t.planned = l.holder, l.attempt, 0
		if l.plan != nil {
			t.planned = l.plan.Block
		}
		t.mu.Unlock()
	} else {
		t.observe(BlockCompleted{})
	}
	sub, err := t.cfg.Log.Subscribe(ctx, opt)
	if err != nil {
		return fmt.Errorf("follow ledger: %w", err)
	}
	defer sub.Close()
	t.fail(nil)
	for {
		d, err := sub.Next(ctx)
		if err != nil {
			return fmt.Errorf("follow ledger: %w", err)
		}
		if d.Event == nil || d.Event.Stream != stream {
			continue
		}
		if err := t.ledgerEvent(*d.Event); err != nil {
			return err
		}
	}
}

// ledgerEvent takes in one event of the ledger.
func (t *Tracker) ledgerEvent(raw eventlog.Raw) error {
	switch raw.Type {
	case typeBlockCompleted, typeLedgerRewound: // The latter holds all of the former.
		var done BlockCompleted
		if err := decodeLedger(raw, &done); err != nil {
			return err
		}
		t.observe(done)
		t.working(0, 0, done.Holder)
	case typeBlockPlanned:
		var p BlockPlanned
		if err := decodeLedger(raw, &p); err != nil {
			return err
		}
		t.working(p.Block, 0, p.Holder)
	case typeBlockRetaken:
		var r BlockRetaken
		if err := decodeLedger(raw, &r); err != nil {
			return err
		}
		t.working(r.Block, r.Attempt, r.Holder)
	}
	return nil
}

func (t *Tracker) working(block, attempt uint64, holder string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.planned, t.attempt, t.holder = block, attempt, holder
}

func (t *Tracker) watchHead(ctx context.Context) error {
	for {
		head, err := t.cfg.Log.Head(ctx, []string{domain.EvidencePrefix})
		if err != nil {
			return fmt.Errorf("read head: %w", err)
		}
		t.mu.Lock()
		t.sawHeadLocked(head)
		t.mu.Unlock()
		if t.cfg.Metrics != nil {
			t.cfg.Metrics.follow(t.Status())
		}
		if err := pause(ctx, headEvery); err != nil {
			return err
		}
	}
}

func (t *Tracker) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = err
}

func (t *Tracker) observe(done BlockCompleted) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known && done.Block <= t.done.Block {
		return
	}
	t.done, t.known = done, true
	t.rate.add(t.cfg.Now(), done.Events)
	t.sawHeadLocked(max(t.head, done.To))
	close(t.changed)
	t.changed = make(chan struct{})
}

// sawHeadLocked keeps when the tables fell behind. What was ahead and is reached
// makes way for the head of now.
func (t *Tracker) sawHeadLocked(head uint64) {
	t.head = max(t.head, head)
	switch {
	case t.head <= t.done.To:
		t.behind = time.Time{}
	case t.behind.IsZero() || t.ahead <= t.done.To:
		t.behind, t.ahead = t.cfg.Now(), t.head
	}
}

func (t *Tracker) lagLocked() time.Duration {
	if t.behind.IsZero() {
		return 0
	}
	return t.cfg.Now().Sub(t.behind)
}

// Completed returns the newest completed block, the position that the tables are
// complete up to, and when the log took the event there. All are zero before the
// first block.
func (t *Tracker) Completed() (block, position uint64, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.done.Block, t.done.To, t.done.LastRecordedAt
}

// Lag returns how long the oldest event that is not in the tables has been known
// here, 0 if the tables are complete; it is right to a quarter of a second.
func (t *Tracker) Lag() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lagLocked()
}

// Wait returns nil when the tables are complete up to position, and ctx's error if
// that ends first. The runner of this process, if there is one, is told that somebody
// waits.
func (t *Tracker) Wait(ctx context.Context, position uint64) error {
	t.mu.Lock()
	reached, runner := t.done.To, t.runner
	t.mu.Unlock()
	if reached < position && runner != nil {
		defer runner.Await()()
	}
	_, _, err := t.waitFor(ctx, func() bool { return t.known && t.done.To >= position })
	return err
}

// WaitBlock waits for a block after the given one and returns the newest completed
// block and its position. Blocks between the two are completed, too.
func (t *Tracker) WaitBlock(ctx context.Context, after uint64) (block, position uint64, err error) {
	return t.waitFor(ctx, func() bool { return t.done.Block > after })
}

func (t *Tracker) waitFor(ctx context.Context, reachedLocked func() bool) (block, position uint64, err error) {
	for {
		t.mu.Lock()
		reached, changed := reachedLocked(), t.changed
		block, position = t.done.Block, t.done.To
		t.mu.Unlock()
		if reached {
			return block, position, nil
		}
		select {
		case <-ctx.Done():
			return 0, 0, fmt.Errorf("wait for the projections: %w", ctx.Err())
		case <-changed:
		}
	}
}

// attach makes the status tell what r does, too.
func (t *Tracker) attach(r *Runner) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.runner = r
}

// Status returns everything that t knows.
func (t *Tracker) Status() TrackerStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := TrackerStatus{
		Generation: t.cfg.Generation, Block: t.done.Block, Position: t.done.To, RecordedAt: t.done.LastRecordedAt,
		Head: t.head, Lag: t.lagLocked(), Events: t.done.Events, Rows: t.done.Rows, Poisoned: t.done.Poisoned,
		Planned: t.planned, Attempt: t.attempt, Holder: t.holder, EventsPerSecond: t.rate.perSecond(t.cfg.Now()),
	}
	switch {
	case !t.known:
		s.State = "unknown"
	case t.behind.IsZero():
		s.State = "complete"
	default:
		s.State = "behind"
	}
	err := t.err
	if t.runner != nil {
		r := t.runner.Status()
		s.Runner = r.State
		err = errors.Join(err, r.Err)
	}
	if err != nil {
		s.Error = err.Error()
	}
	return s
}
