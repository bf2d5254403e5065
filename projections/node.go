package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/keytrail/internal/clickhouse"
)

const (
	// defaultGrace is how long a generation that was live is kept: answers that began
	// on it go on there.
	defaultGrace = time.Hour
	// openEvery is how often tables are tried that could not be opened.
	openEvery = time.Second
)

// NodeConfig configures a [Node].
type NodeConfig struct {
	Log Log
	// Open returns the store of a generation's database, which may be missing and whose
	// server may be down. The node closes what it gets.
	Open func(generation string) (*clickhouse.Store, error)
	// Worker says that this node writes tables; otherwise it only reads them.
	Worker bool
	// Holder and Alone are those of [RunnerConfig]. Holder is required of a worker.
	Holder string
	Alone  bool
	// Limits bound blocks. Default [DefaultLimits].
	Limits Limits
	// Decode is that of [RunnerConfig].
	Decode Decode
	// Grace is how long a generation is kept that another took over from. Default 1 h.
	Grace time.Duration
	// Now is the clock. Required.
	Now     func() time.Time
	Metrics *Metrics
	Logger  *slog.Logger
}

// Validate reports everything that is wrong with c, joined.
func (c NodeConfig) Validate() error {
	var errs []error
	check := func(ok bool, what string) {
		if !ok {
			errs = append(errs, fmt.Errorf("projections: %s", what))
		}
	}
	check(c.Log != nil, "a log is required")
	check(c.Open != nil, "a way to open tables is required")
	check(!c.Worker || c.Holder != "", "a worker needs a holder's name")
	check(c.Now != nil, "a clock is required")
	check(c.Metrics != nil, "metrics are required")
	check(c.Logger != nil, "a logger is required")
	check(c.Grace >= 0, "the grace must not be negative")
	return errors.Join(errs...)
}

// Node is one process's part in the projections. It follows the log's word on which
// generations of tables there are and which one answers; keeps each open; and, on a
// worker, writes the live one and those that are being made. Any number of nodes may
// share the stores. It is safe for concurrent use.
type Node struct {
	cfg  NodeConfig
	book *book

	mu     sync.Mutex // Guards what follows.
	tables map[string]*Tables
	live   *Tables
	moved  chan struct{} // Closed and replaced when live changes.
}

// NewNode returns a node that does nothing until [Node.Start].
func NewNode(cfg NodeConfig) (*Node, error) {
	if cfg.Grace == 0 {
		cfg.Grace = defaultGrace
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Node{cfg: cfg, book: newBook(cfg.Log), tables: map[string]*Tables{}, moved: make(chan struct{})}, nil
}

// Start reads which generations there are, the first of a new log being made, and opens
// the live tables, bringing their schema up to date. Tables that cannot be reached now
// are tried again by [Node.Run]; a schema that a newer program left is an error. After
// it [Node.Live] is never nil.
func (n *Node) Start(ctx context.Context) error {
	if err := n.book.found(ctx); err != nil {
		return err
	}
	state, _ := n.book.now()
	t, err := n.tablesOf(state.live)
	if err != nil {
		return err
	}
	n.setLive(t)
	if err := n.open(ctx, t); err != nil && !errors.Is(err, clickhouse.ErrUnavailable) {
		return err
	}
	return nil
}

// Run does the node's part until ctx ends, which is no error. It waits out stores that
// do not answer, for ever.
func (n *Node) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.follow(ctx) })
	g.Go(func() error { return n.promote(ctx) })
	g.Go(func() error { return n.manage(ctx) })
	return g.Wait()
}

// Close closes the tables. It must be called after Run has returned.
func (n *Node) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	errs := make([]error, 0, len(n.tables))
	for _, t := range n.tables {
		errs = append(errs, t.close())
	}
	return errors.Join(errs...)
}

// Live returns the tables that answer at this node.
func (n *Node) Live() *Tables {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.live
}

// Named returns the tables of a generation that was not dropped.
func (n *Node) Named(name string) (*Tables, bool) {
	if state, _ := n.book.now(); state.named[name] == nil || state.named[name].State == GenerationGone {
		return nil, false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	t, ok := n.tables[name]
	return t, ok
}

// Moved returns a channel that is closed when other tables answer at this node.
func (n *Node) Moved() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.moved
}

// Generations returns every generation that the log knows of, in the order of their
// beginning.
func (n *Node) Generations() []Generation {
	state, _ := n.book.now()
	return state.all()
}

// Completed returns what [Tracker.Completed] does for the live tables.
func (n *Node) Completed() (block, position uint64, at time.Time) {
	return n.Live().Tracker.Completed()
}

// Lag returns what [Tracker.Lag] does for the live tables.
func (n *Node) Lag() time.Duration { return n.Live().Tracker.Lag() }

// Wait returns nil when the live tables are complete up to position, whichever those
// are by then, and ctx's error if that ends first.
func (n *Node) Wait(ctx context.Context, position uint64) error {
	for {
		moved, live := n.Moved(), n.Live()
		limited, cancel := context.WithCancel(ctx)
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			select {
			case <-moved:
				cancel()
			case <-limited.Done():
			}
		}()
		err := live.Tracker.Wait(limited, position)
		cancel()
		<-stop
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}

// tablesOf returns the tables of a generation, which it begins to know.
func (n *Node) tablesOf(name string) (*Tables, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if t, ok := n.tables[name]; ok {
		return t, nil
	}
	tracker, err := NewTracker(TrackerConfig{
		Log: n.cfg.Log, Generation: name, Now: n.cfg.Now, Metrics: n.cfg.Metrics,
		Logger: n.cfg.Logger.With(slog.String("component", "tracker"), slog.String("generation", name)),
	})
	if err != nil {
		return nil, err
	}
	t := &Tables{Name: name, Tracker: tracker}
	n.tables[name] = t
	return t, nil
}

func (n *Node) setLive(t *Tables) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.live == t {
		return
	}
	n.live = t
	close(n.moved)
	n.moved = make(chan struct{})
}

// forget lets go of the tables of a generation that was dropped.
func (n *Node) forget(t *Tables) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.tables, t.Name)
}

// follow keeps the book up to date.
func (n *Node) follow(ctx context.Context) error {
	for {
		err := n.book.follow(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // The end of ctx is no error.
		}
		n.cfg.Logger.WarnContext(ctx, "following the generations is interrupted, trying again", slog.Any("error", err))
		if pause(ctx, openEvery) != nil {
			return nil //nolint:nilerr // The end of ctx is no error.
		}
	}
}

// promote moves this node to the live generation, once its tables hold all that the
// answers of this node were made of before.
func (n *Node) promote(ctx context.Context) error {
	for {
		state, changed := n.book.now()
		t, err := n.tablesOf(state.live)
		if err != nil {
			return err
		}
		if old := n.Live(); old != t {
			_, position, _ := old.Tracker.Completed()
			if n.until(ctx, changed, func(ctx context.Context) error { return t.Tracker.Wait(ctx, position) }) == nil {
				n.cfg.Logger.InfoContext(ctx, "other tables answer from now on", slog.String("generation", t.Name), slog.String("before", old.Name))
				n.setLive(t)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// until runs f and cancels its context when changed is closed.
func (n *Node) until(ctx context.Context, changed <-chan struct{}, f func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	defer func() { <-done }()
	defer cancel()
	go func() {
		defer close(done)
		select {
		case <-changed:
			cancel()
		case <-ctx.Done():
		}
	}()
	return f(ctx)
}

// manage runs each generation that is not dropped, and waits for all of them.
func (n *Node) manage(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		begun := map[string]bool{}
		for {
			state, changed := n.book.now()
			for _, gen := range state.all() {
				if begun[gen.Name] {
					continue
				}
				begun[gen.Name] = true
				if gen.State == GenerationGone {
					g.Go(func() error { return n.remove(ctx, gen.Name) })
					continue
				}
				t, err := n.tablesOf(gen.Name)
				if err != nil {
					return err
				}
				g.Go(func() error { return n.keep(ctx, t) })
			}
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			}
		}
	})
	return g.Wait()
}

// while runs f for as long as a generation is in one of the given states. That it left
// them is no error.
func (n *Node) while(ctx context.Context, name string, f func(context.Context) error, in ...GenerationState) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	defer func() { <-done }()
	defer cancel()
	go func() {
		defer close(done)
		for {
			state, changed := n.book.now()
			if !slices.Contains(in, state.named[name].State) {
				cancel()
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	if err := f(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}
