package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/keytrail/internal/clickhouse"
)

// createMax bounds the making of a database, which is not given up before.
const createMax = 5 * time.Second

// errRefused says that tables are not those of this log, or hold what it does not.
var errRefused = errors.New("the tables are refused")

// Tables are those of one generation as one node has them.
type Tables struct {
	// Name is the generation's.
	Name string
	// Tracker tells how far they are.
	Tracker *Tracker

	mu      sync.Mutex // Guards what follows.
	store   *clickhouse.Store
	refused error
	opening error // Why the store is not open.
	runner  *Runner
	roller  *Roller
}

// Store returns the open store. Its error says that it does not answer
// ([clickhouse.ErrUnavailable]), or that the tables are not to be read at all: see
// [Tables.Refused].
func (t *Tables) Store() (*clickhouse.Store, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.refused != nil {
		return nil, t.refused
	}
	if t.store == nil {
		return nil, fmt.Errorf("tables of generation %s are not open yet: %w", t.Name, clickhouse.ErrUnavailable)
	}
	return t.store, nil
}

// Refused returns why the tables must not be read: they are another log's, or hold what
// this log does not. nil if they may.
func (t *Tables) Refused() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refused
}

// Fault returns why these tables cannot be read or written here as they should: for
// operators. nil if all is well.
func (t *Tables) Fault() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.refused != nil || t.opening != nil || t.runner == nil {
		return errors.Join(t.refused, t.opening)
	}
	return t.runner.Status().Err
}

// Runner returns what this node's runner does, and false on a node without one.
func (t *Tables) Runner() (RunnerStatus, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.runner == nil {
		return RunnerStatus{}, false
	}
	return t.runner.Status(), true
}

// Holding reports whether this node's runner is the one that writes the tables.
func (t *Tables) Holding() bool {
	s, ok := t.Runner()
	return ok && s.State.writes()
}

// RollupsPending returns how many hours this node's roller has before it.
func (t *Tables) RollupsPending() int {
	t.mu.Lock()
	roller := t.roller
	t.mu.Unlock()
	if roller == nil {
		return 0
	}
	return roller.backlog()
}

func (t *Tables) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.store == nil {
		return nil
	}
	err := t.store.Close()
	t.store = nil
	return err
}

func (t *Tables) refuse(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused = err
}

// open opens the store of t, brings its schema up to date, and looks whether it belongs
// to this log.
func (n *Node) open(ctx context.Context, t *Tables) error {
	t.mu.Lock()
	opened := t.store != nil
	t.mu.Unlock()
	if opened {
		return nil
	}
	store, err := n.cfg.Open(t.Name)
	if err != nil {
		return fmt.Errorf("open tables of generation %s: %w", t.Name, err)
	}
	if err := n.admit(ctx, t, store); err != nil {
		return errors.Join(err, store.Close())
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.store, t.opening = store, nil
	return nil
}

// admit looks at a store that was just opened. Tables that are refused stay open: an
// operator may want to look, but nobody reads or writes them.
func (n *Node) admit(ctx context.Context, t *Tables, store *clickhouse.Store) error {
	// A statement that its sender gives up is carried out all the same: it must not come
	// after the removal of tables that were given up meanwhile.
	create, cancel := context.WithTimeout(context.WithoutCancel(ctx), createMax)
	defer cancel()
	if err := store.CreateDatabase(create); err != nil {
		return fmt.Errorf("open database %s: %w", store.Database(), err)
	}
	if err := store.Migrate(ctx, Schema()); err != nil {
		return fmt.Errorf("bring the tables of generation %s up to date: %w", t.Name, err)
	}
	state, _ := n.book.now()
	err := admit(ctx, n.cfg.Log, store, state.logID, t.Name)
	if errors.Is(err, errRefused) {
		n.cfg.Logger.ErrorContext(ctx, "tables are refused", slog.String("generation", t.Name), slog.Any("error", err))
		t.refuse(err)
		return nil
	}
	return err
}

// keep keeps the tables of a generation until it is dropped or ctx ends.
func (n *Node) keep(ctx context.Context, t *Tables) error {
	there := []GenerationState{GenerationBuilding, GenerationDiffers, GenerationLive, GenerationRetired}
	err := n.while(ctx, t.Name, func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return t.Tracker.Run(ctx) })
		g.Go(func() error { return n.write(ctx, t) })
		return g.Wait()
	}, there...)
	if err != nil || ctx.Err() != nil {
		return err
	}
	n.forget(t)
	n.cfg.Metrics.forget(t.Name)
	if err := t.close(); err != nil {
		n.cfg.Logger.WarnContext(ctx, "closing dropped tables", slog.String("generation", t.Name), slog.Any("error", err))
	}
	return n.remove(ctx, t.Name)
}

// write opens the tables and, on a worker, writes them for as long as they are to grow.
func (n *Node) write(ctx context.Context, t *Tables) error {
	for {
		err := n.open(ctx, t)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // The end of ctx is no error.
		}
		t.mu.Lock()
		level := slog.LevelWarn
		if t.opening != nil { // It was told.
			level = slog.LevelDebug
		}
		t.opening = err
		t.mu.Unlock()
		n.cfg.Logger.LogAttrs(ctx, level, "tables cannot be opened, trying again", slog.String("generation", t.Name), slog.Any("error", err))
		if pause(ctx, openEvery) != nil {
			return nil //nolint:nilerr // The end of ctx is no error.
		}
	}
	if refused := t.Refused(); !n.cfg.Worker || refused != nil {
		return nil //nolint:nilerr // It was told; nobody writes such tables.
	}
	if err := n.buildRunner(t); err != nil {
		return err
	}
	err := n.while(ctx, t.Name, func(ctx context.Context) error { return n.runAll(ctx, t) }, GenerationBuilding, GenerationDiffers, GenerationLive)
	if err != nil || ctx.Err() != nil {
		return err
	}
	return n.while(ctx, t.Name, func(ctx context.Context) error { return n.retire(ctx, t.Name) }, GenerationRetired)
}

// buildRunner makes what writes the tables.
func (n *Node) buildRunner(t *Tables) error {
	log := n.cfg.Logger.With(slog.String("generation", t.Name))
	t.mu.Lock()
	defer t.mu.Unlock()
	var err error
	t.roller, err = NewRoller(RollerConfig{Generation: t.Name, Store: t.store, Now: n.cfg.Now, Metrics: n.cfg.Metrics, Logger: log.With(slog.String("component", "roller"))})
	if err != nil {
		return err
	}
	t.runner, err = NewRunner(RunnerConfig{
		Log: n.logFor(t), Sink: NewSink(t.store), Generation: t.Name, Holder: n.cfg.Holder, Alone: n.cfg.Alone, Now: n.cfg.Now,
		Limits: n.cfg.Limits, Decode: n.cfg.Decode, Replayed: n.replayed, Yield: func(ctx context.Context) error { return n.yield(ctx, t) }, Roller: t.roller, Metrics: n.cfg.Metrics, Logger: log.With(slog.String("component", "runner")),
	})
	if err != nil {
		return err
	}
	t.Tracker.attach(t.runner)
	return nil
}

// runAll runs the runner and the roller. A runner that must not go on stands still: the
// tables stay as right as they are, and an operator looks.
func (n *Node) runAll(ctx context.Context, t *Tables) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := t.runner.Run(ctx)
		if err == nil {
			return nil
		}
		n.cfg.Logger.ErrorContext(ctx, "the tables are written no more", slog.String("generation", t.Name), slog.Any("error", err))
		if errors.Is(err, errRefused) {
			t.refuse(err)
		}
		<-ctx.Done()
		return nil
	})
	g.Go(func() error { return t.roller.Run(ctx) })
	g.Go(func() error { return n.passOnReplays(ctx, t) })
	g.Go(func() error {
		return n.while(ctx, t.Name, func(ctx context.Context) error { return n.coordinate(ctx, t) }, GenerationBuilding, GenerationDiffers)
	})
	return g.Wait()
}
