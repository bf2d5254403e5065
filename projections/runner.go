package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/keytrail/domain"
)

// errAsked ends a turn because somebody wants something between two blocks.
var errAsked = errors.New("asked for something else")

// errFatal says that going on would make the tables wrong. It ends the runner.
var errFatal = errors.New("projection stopped")

const (
	defaultTakeoverAfter = 3 * time.Second
	defaultInsertTimeout = 10 * time.Minute
	backoffFirst         = 100 * time.Millisecond
	backoffMax           = 5 * time.Second
)

// RunnerConfig configures a [Runner].
type RunnerConfig struct {
	Log  Log
	Sink Sink
	// Generation names the tables' generation: its ledger and its tokens. Required.
	Generation string
	// Holder names this runner in the ledger; it must be another for each start of
	// each process. Required.
	Holder string
	// Alone says that no other runner of this generation can exist, as when the stores
	// are this process's own: an unfinished block is taken over at once.
	Alone bool
	// TakeoverAfter is how long the ledger must stand still, while there is work,
	// until another runner's lease is taken over. Default 3 s.
	TakeoverAfter time.Duration
	// InsertTimeout is when a block's inserts are abandoned. Default 10 minutes.
	InsertTimeout time.Duration
	// Limits bound blocks. Default [DefaultLimits].
	Limits Limits
	// Decode reads events. Default [eventlog.Decode].
	Decode Decode
	// Replayed, if set, is told what came of a request to replay. An error has it told
	// again.
	Replayed func(ctx context.Context, done ReplayDone) error
	// Yield, if set, is called before each block is planned and may hold it back.
	Yield func(ctx context.Context) error
	// Now is the clock. Required.
	Now func() time.Time
	// Roller, if set, is told which hours each block touched.
	Roller *Roller
	// Metrics counts what happens. Required.
	Metrics *Metrics
	Logger  *slog.Logger
}

// Validate reports everything that is wrong with c, joined.
func (c RunnerConfig) Validate() error {
	var errs []error
	check := func(ok bool, what string) {
		if !ok {
			errs = append(errs, fmt.Errorf("projection runner: %s", what))
		}
	}
	check(c.Log != nil, "a log is required")
	check(c.Sink != nil, "a sink is required")
	check(domain.ValidID(c.Generation), "a generation is required, letters, digits and -_.:@")
	check(c.Holder != "", "a holder is required")
	check(c.Now != nil, "a clock is required")
	check(c.Metrics != nil, "metrics are required")
	check(c.Logger != nil, "a logger is required")
	check(c.TakeoverAfter >= 0 && c.InsertTimeout >= 0, "times must not be negative")
	check(c.Limits.Rows >= 0 && c.Limits.Bytes >= 0 && c.Limits.Delay >= 0 && c.Limits.KeysDelay >= 0 && c.Limits.DelayMax >= 0, "limits must not be negative")
	return errors.Join(errs...)
}

func (c *RunnerConfig) setDefaults() {
	if c.TakeoverAfter == 0 {
		c.TakeoverAfter = defaultTakeoverAfter
	}
	if c.InsertTimeout == 0 {
		c.InsertTimeout = defaultInsertTimeout
	}
	if c.Limits == (Limits{}) {
		c.Limits = DefaultLimits()
	}
}

// RunnerState is what a runner is doing.
type RunnerState string

// The states of a runner.
const (
	RunnerStopped RunnerState = "stopped"
	RunnerWaiting RunnerState = "waiting" // Another runner holds the ledger, or there is no work.
	RunnerRedoing RunnerState = "redoing" // It mends a block that was not completed.
	RunnerActive  RunnerState = "active"
	RunnerFailing RunnerState = "failing" // It keeps trying; see the error.
)

// writes reports whether a runner in this state holds the ledger, for all that it knows.
func (s RunnerState) writes() bool {
	return s == RunnerActive || s == RunnerRedoing || s == RunnerFailing
}

// RunnerStatus is a [RunnerState] with the fault that explains it.
type RunnerStatus struct {
	State RunnerState
	// Err is for operators; nil while all is well.
	Err error
}

// Runner writes one generation's tables. Any number may run anywhere: one at a time
// is active.
type Runner struct {
	cfg  RunnerConfig
	pace *pace

	// checked is when all rows were counted last; it belongs to Run.
	checked  time.Time
	suspects suspects
	// requested is the newest request to replay, wake has room for the news of it;
	// replayed, which belongs to Run, is the newest that was done.
	requested atomic.Uint64
	wake      chan struct{}
	replayed  uint64

	mu     sync.Mutex // Guards status.
	status RunnerStatus
}

// NewRunner returns a runner that does nothing until [Runner.Run].
func NewRunner(cfg RunnerConfig) (*Runner, error) {
	cfg.setDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Runner{cfg: cfg, pace: newPace(), wake: make(chan struct{}, 1), status: RunnerStatus{State: RunnerStopped}}, nil
}

// Status returns what the runner is doing.
func (r *Runner) Status() RunnerStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// Await says that somebody waits for the tables, until done is called: meanwhile blocks
// are stretched less. It never waits itself.
func (r *Runner) Await() (done func()) { return r.pace.await() }

func (r *Runner) set(state RunnerState, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = RunnerStatus{State: state, Err: err}
}

// Run writes blocks until ctx ends, which is no error. It waits out stores that do
// not answer, and other runners, for ever; its error means that going on would make
// the tables wrong, and an operator must look.
func (r *Runner) Run(ctx context.Context) error {
	defer func() { r.set(RunnerStopped, r.Status().Err) }()
	backoff := backoffFirst
	for {
		before := r.cfg.Metrics.completed()
		err := r.turn(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errFatal):
			r.set(RunnerFailing, err)
			return err
		case errors.Is(err, errLeaseLost):
			r.cfg.Logger.InfoContext(ctx, "projection lease lost", slog.Any("error", err))
			r.set(RunnerWaiting, nil)
			continue
		case errors.Is(err, errRewound), errors.Is(err, errAsked):
			backoff = backoffFirst
			continue
		}
		if r.cfg.Metrics.completed() != before {
			backoff = backoffFirst
		}
		r.cfg.Logger.WarnContext(ctx, "projection is interrupted, trying again", slog.Any("error", err), slog.Duration("after", backoff))
		r.set(RunnerFailing, err)
		if pause(ctx, backoff) != nil {
			return nil
		}
		backoff = min(2*backoff, backoffMax)
	}
}

// turn waits until this runner may act and then acts until it fails or loses the
// lease. Whatever broke, the next turn begins with what the ledger says.
func (r *Runner) turn(ctx context.Context) error {
	l, err := r.wait(ctx)
	if err != nil {
		return err
	}
	if err := r.notForeign(ctx); err != nil {
		return err
	}
	if l.plan != nil {
		if err := r.redo(ctx, &l); err != nil {
			return err
		}
	}
	if err := r.check(ctx, &l); err != nil {
		return err
	}
	if err := r.checkOrder(ctx, &l); err != nil {
		return err
	}
	r.set(RunnerActive, nil)
	if err := r.replay(ctx, &l); err != nil {
		return err
	}
	if r.cfg.Roller != nil {
		r.cfg.Roller.touch(l.done.Block, nil)
	}
	return r.follow(ctx, &l)
}

// wait returns the ledger once this runner may act on it: it is the holder, it is
// alone, or the holder let work lie for too long.
func (r *Runner) wait(ctx context.Context) (ledger, error) {
	var seen ledger
	since := r.cfg.Now()
	for {
		l, err := readLedger(ctx, r.cfg.Log, LedgerStream(r.cfg.Generation))
		if err != nil {
			return ledger{}, err
		}
		if r.cfg.Alone || l.holder == r.cfg.Holder {
			return l, nil
		}
		head, err := r.cfg.Log.Head(ctx, []string{domain.EvidencePrefix})
		if err != nil {
			return ledger{}, fmt.Errorf("read head: %w", err)
		}
		now := r.cfg.Now()
		if work := l.plan != nil || head > l.done.To; !work || l.revision != seen.revision {
			since = now
		} else if now.Sub(since) >= r.cfg.TakeoverAfter {
			return l, nil
		}
		seen = l
		r.set(RunnerWaiting, nil)
		if err := pause(ctx, r.cfg.TakeoverAfter/8); err != nil {
			return ledger{}, err
		}
	}
}

// follow plans and writes one block after another, while the next is being read.
func (r *Runner) follow(ctx context.Context, l *ledger) error {
	dec, err := newDecoder(r.cfg.Decode)
	if err != nil {
		return err
	}
	blocks, free := make(chan *block), make(chan *block, 2)
	free <- &block{}
	free <- &block{}
	g, ctx := errgroup.WithContext(ctx)
	rd := &reader{log: r.cfg.Log, limits: r.cfg.Limits, pace: r.pace, now: r.cfg.Now, decoder: dec, suspects: &r.suspects, free: free, out: blocks}
	number, from := l.done.Block+1, l.done.To
	idle := time.NewTicker(checkEvery / 5) // Rows may be lost while no event comes.
	defer idle.Stop()
	g.Go(func() error { return rd.run(ctx, number, from) })
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-r.wake:
				return errAsked
			case <-idle.C:
			case b := <-blocks:
				began := r.cfg.Now()
				if err := r.write(ctx, l, b); err != nil {
					return fmt.Errorf("block %d: %w", b.number, err)
				}
				r.pace.wrote(r.cfg.Now().Sub(began))
				free <- b
			}
			if err := r.checkSuspects(ctx, l); err != nil {
				return err
			}
			if err := r.checkNowAndThen(ctx, l); err != nil {
				return err
			}
		}
	})
	return g.Wait()
}

// write plans b and carries the plan out.
func (r *Runner) write(ctx context.Context, l *ledger, b *block) error {
	if r.cfg.Yield != nil {
		if err := r.cfg.Yield(ctx); err != nil {
			return err
		}
	}
	if err := setAside(ctx, r.cfg.Log, r.cfg.Generation, b.poison); err != nil {
		return err
	}
	plan := l.planOf(b, r.cfg.Holder)
	if err := l.write(ctx, r.cfg.Log, LedgerStream(r.cfg.Generation), typeBlockPlanned, plan); err != nil {
		return err
	}
	l.plan, l.attempt = &plan, 0
	began := r.cfg.Now()
	err := r.abandonLate(ctx, func(ctx context.Context) error {
		if err := r.insertAll(ctx, b.tables(), func(rows Rows) string { return r.token(b.number, rows.Table, 0) }); err != nil {
			return err
		}
		return r.cfg.Sink.Judge(ctx, judgementOf(b))
	})
	if err != nil {
		return err
	}
	r.cfg.Metrics.inserted(r.cfg.Now().Sub(began))
	return r.complete(ctx, l, b)
}

// complete records that the planned block is in the tables, and lets go of it.
func (r *Runner) complete(ctx context.Context, l *ledger, b *block) error {
	done := l.completionOf(r.cfg.Holder)
	if err := l.write(ctx, r.cfg.Log, LedgerStream(r.cfg.Generation), typeBlockCompleted, done); err != nil {
		return err
	}
	l.done, l.plan, l.attempt = done, nil, 0
	r.cfg.Metrics.block(b)
	if r.cfg.Roller != nil {
		r.cfg.Roller.touch(done.Block, b.buckets.seen)
	}
	return nil
}

// abandonLate runs f and gives it up after the insert timeout: a lease may be
// anybody's by then.
func (r *Runner) abandonLate(ctx context.Context, f func(context.Context) error) error {
	late := fmt.Errorf("block abandoned after %s", r.cfg.InsertTimeout)
	limited, cancel := context.WithTimeoutCause(ctx, r.cfg.InsertTimeout, late)
	defer cancel()
	if err := f(limited); err != nil {
		if limited.Err() != nil && ctx.Err() == nil {
			return errors.Join(late, err)
		}
		return err
	}
	return nil
}

// insertAll inserts all tables side by side: nobody reads a block before it is
// completed, so their order does not matter.
func (r *Runner) insertAll(ctx context.Context, tables []Rows, token func(Rows) string) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, rows := range tables {
		g.Go(func() error { return r.cfg.Sink.Insert(ctx, rows, token(rows)) })
	}
	return g.Wait()
}

// token is the deduplication token of one insert.
func (r *Runner) token(block uint64, table string, attempt uint64) string {
	return fmt.Sprintf("%s/%d/%s/%d", r.cfg.Generation, block, table, attempt)
}

func judgementOf(b *block) Judgement {
	return Judgement{
		Block: b.number, Uses: len(b.usage.time) > 0, NewestUse: b.maxUseTime(), Changed: b.changedKeys(),
	}
}

// pause waits for d or until ctx ends, which is its error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
