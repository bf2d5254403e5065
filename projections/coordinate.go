package projections

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

const (
	// coordinateEvery is how often a new generation is looked at, whether it may take
	// over.
	coordinateEvery = 250 * time.Millisecond
	// yieldLag is the lag of the live tables from which on a new generation waits for
	// them, yieldMax how long it waits at most before each of its blocks.
	yieldLag = time.Second
	yieldMax = 5 * time.Second
	// yieldEvery is how often it looks.
	yieldEvery = 50 * time.Millisecond
)

// coordinate brings a generation that is being made to its end: when it holds what the
// live one holds it is compared with it, and swapped in if nothing differs or if that
// was accepted. Only the worker whose runner holds the new ledger does so.
func (n *Node) coordinate(ctx context.Context, t *Tables) error {
	for pause(ctx, coordinateEvery) == nil {
		if err := n.coordinateOnce(ctx, t); err != nil && ctx.Err() == nil {
			n.cfg.Logger.WarnContext(ctx, "the new tables cannot be compared or swapped in, trying again",
				slog.String("generation", t.Name), slog.Any("error", err))
		}
	}
	return nil
}

func (n *Node) coordinateOnce(ctx context.Context, t *Tables) error {
	state, _ := n.book.now()
	gen := state.named[t.Name]
	if s, _ := t.Runner(); gen.State != GenerationBuilding || s.State != RunnerActive {
		return nil
	}
	live, err := n.tablesOf(state.live)
	if err != nil {
		return err
	}
	done, err := readLedger(ctx, n.cfg.Log, LedgerStream(t.Name))
	if err != nil {
		return err
	}
	with, err := readLedger(ctx, n.cfg.Log, LedgerStream(live.Name))
	if err != nil || done.done.To < with.done.To {
		return err // Not there yet.
	}
	if gen.Compared == nil || gen.Compared.With != live.Name || gen.Compared.Differences > 0 {
		comparison, err := n.compare(ctx, t, live, with.done)
		if err != nil {
			return err
		}
		comparison.CarriedEvents, comparison.CarriedRows = done.done.CarriedEvents, done.done.CarriedRows
		return n.compared(ctx, t.Name, comparison)
	}
	return n.swap(ctx, t.Name, live.Name)
}

// compare compares t with the live tables up to what those held when it began.
func (n *Node) compare(ctx context.Context, t, live *Tables, at BlockCompleted) (Comparison, error) {
	if refused := live.Refused(); refused != nil {
		return Comparison{ //nolint:nilerr // That the live tables cannot be read is the comparison's result.
			With: live.Name, Position: at.To, Differences: 1,
			First: []TableDifference{{What: "the live tables cannot be compared: " + refused.Error()}},
		}, nil
	}
	newer, err := t.Store()
	if err != nil {
		return Comparison{}, err
	}
	old, err := live.Store()
	if err != nil {
		return Comparison{}, err
	}
	block, err := blockAt(ctx, n.cfg.Log, t.Name, at.To)
	if err != nil {
		return Comparison{}, err
	}
	return compareTables(ctx, side{store: newer, position: at.To, block: block}, side{store: old, position: at.To, block: at.Block}, live.Name)
}

// compared records a comparison. With differences that were accepted beforehand the new
// tables take over at once.
func (n *Node) compared(ctx context.Context, name string, c Comparison) error {
	err := n.book.decide(ctx, func(g *generations) (string, any, error) {
		if gen := g.named[name]; gen.State != GenerationBuilding || g.live != c.With {
			return "", nil, nil
		}
		return typeGenerationCompared, GenerationCompared{Generation: name, Comparison: c}, nil
	})
	if err != nil {
		return err
	}
	n.cfg.Logger.InfoContext(ctx, "new tables were compared with the live ones", slog.String("generation", name),
		slog.Uint64("position", c.Position), slog.Uint64("differences", c.Differences))
	state, _ := n.book.now()
	if c.Differences > 0 && state.named[name].Accepted {
		return n.swap(ctx, name, c.With)
	}
	return nil
}

// swap makes the new tables the live ones, once they hold all that the old ones do: what
// an answer told once is never unknown again.
func (n *Node) swap(ctx context.Context, name, from string) error {
	for {
		// The old ledger is read first: what is in the new one then may only be more.
		old, err := readLedger(ctx, n.cfg.Log, LedgerStream(from))
		if err != nil {
			return err
		}
		newer, err := readLedger(ctx, n.cfg.Log, LedgerStream(name))
		if err != nil {
			return err
		}
		if newer.done.To >= old.done.To {
			return n.swapped(ctx, name, from, newer.done.To)
		}
		if err := pause(ctx, yieldEvery); err != nil {
			return err
		}
	}
}

func (n *Node) swapped(ctx context.Context, name, from string, position uint64) error {
	return n.book.decide(ctx, func(g *generations) (string, any, error) {
		gen := g.named[name]
		if gen.State != GenerationBuilding || g.live != from || gen.Compared == nil || gen.Compared.Differences > 0 && !gen.Accepted {
			return "", nil, nil
		}
		return typeGenerationSwapped, GenerationSwapped{
			Generation: name, From: from, Position: position, Differences: gen.Compared.Differences,
		}, nil
	})
}

// SameBlock returns the last block of generation to that ends where block of generation
// from ends, or before.
func SameBlock(ctx context.Context, log Log, from string, block uint64, to string) (uint64, error) {
	done, err := lastCompleted(ctx, log, from, func(c BlockCompleted) bool { return c.Block <= block })
	if err != nil {
		return 0, err
	}
	return blockAt(ctx, log, to, done.To)
}

// blockAt returns the last block of a generation that ends at position or before.
func blockAt(ctx context.Context, log Log, generation string, position uint64) (uint64, error) {
	done, err := lastCompleted(ctx, log, generation, func(c BlockCompleted) bool { return c.To <= position })
	return done.Block, err
}

// lastCompleted returns the last completed block of a generation for which ok holds; the
// zero value if there is none.
func lastCompleted(ctx context.Context, log Log, generation string, ok func(BlockCompleted) bool) (BlockCompleted, error) {
	stream := LedgerStream(generation)
	var from *uint64
	for {
		events, err := log.ReadStreamBackwards(ctx, stream, from, ledgerPage)
		if err != nil {
			return BlockCompleted{}, fmt.Errorf("read ledger: %w", err)
		}
		for _, raw := range events {
			if raw.Type == typeBlockCompleted || raw.Type == typeLedgerRewound {
				var done BlockCompleted
				if err := decodeLedger(raw, &done); err != nil {
					return BlockCompleted{}, err
				}
				if ok(done) {
					return done, nil
				}
			}
			if raw.Revision == 0 {
				return BlockCompleted{}, nil
			}
			from = new(raw.Revision - 1)
		}
		if len(events) == 0 {
			return BlockCompleted{}, nil
		}
	}
}

// yield keeps the making of new tables from starving the live ones: before each block it
// waits while those are behind and being written, but not for ever.
func (n *Node) yield(ctx context.Context, t *Tables) error {
	deadline := n.cfg.Now().Add(yieldMax)
	for {
		live := n.Live()
		if live == t || live.Tracker.Lag() < yieldLag || !n.cfg.Now().Before(deadline) {
			return nil
		}
		if s, ok := live.Runner(); !ok || s.State != RunnerActive {
			return nil
		}
		if err := pause(ctx, yieldEvery); err != nil {
			return err
		}
	}
}

// retire drops a generation that another took over from, once its grace is over.
func (n *Node) retire(ctx context.Context, name string) error {
	state, _ := n.book.now()
	left := state.named[name].RetiredAt.Add(n.cfg.Grace).Sub(n.cfg.Now())
	if pause(ctx, max(left, 0)) != nil {
		return nil //nolint:nilerr // The end of ctx is no error.
	}
	for {
		err := n.Drop(ctx, name, "keytrail")
		if err == nil || ctx.Err() != nil {
			return nil //nolint:nilerr // The end of ctx is no error.
		}
		n.cfg.Logger.WarnContext(ctx, "a generation that is no longer live cannot be dropped, trying again", slog.String("generation", name), slog.Any("error", err))
		if pause(ctx, openEvery) != nil {
			return nil //nolint:nilerr // The end of ctx is no error.
		}
	}
}
