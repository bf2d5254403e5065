package projections

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"example.com/keytrail/internal/eventlog"
)

// Replay asks the runner to try the events that were set aside once more. Only the one
// that holds the ledger does; request numbers grow, and one that was done is not done
// again.
func (r *Runner) Replay(request uint64) {
	for {
		old := r.requested.Load()
		if request <= old {
			return
		}
		if r.requested.CompareAndSwap(old, request) {
			break
		}
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// replay writes the rows of events that blocks set aside and that this program can read:
// as blocks of their own, which go the way of every block.
func (r *Runner) replay(ctx context.Context, l *ledger) error {
	request := r.requested.Load()
	if request <= r.replayed {
		return nil
	}
	aside, err := asideNow(ctx, r.cfg.Log, r.cfg.Generation, l.done)
	if err != nil {
		return err
	}
	dec, err := newDecoder(r.cfg.Decode)
	if err != nil {
		return err
	}
	b := &block{}
	b.start(l.done.Block+1, l.done.To)
	flush := func() error {
		if b.events == 0 {
			return nil
		}
		if err := r.write(ctx, l, b); err != nil {
			return fmt.Errorf("replay in block %d: %w", b.number, err)
		}
		b.start(l.done.Block+1, l.done.To)
		return nil
	}
	for _, e := range aside {
		raw, err := eventAside(ctx, r.cfg.Log, e)
		if err != nil {
			return err
		}
		f := dec.fact(raw)
		if f.poison != nil {
			continue
		}
		if !b.fits(&f, r.cfg.Limits) || b.events >= asideMax {
			if err := flush(); err != nil {
				return err
			}
		}
		b.append(&f)
		b.replayed = append(b.replayed, raw.Position)
	}
	if err := flush(); err != nil {
		return err
	}
	done := ReplayDone{Generation: r.cfg.Generation, Request: request, Left: l.done.Poisoned}
	r.cfg.Logger.InfoContext(ctx, "events that were set aside were tried again", slog.Int("tried", len(aside)), slog.Uint64("left", done.Left))
	if r.cfg.Replayed != nil {
		if err := r.cfg.Replayed(ctx, done); err != nil {
			return err
		}
	}
	r.replayed = request
	return nil
}

// eventAside reads an event that was set aside.
func eventAside(ctx context.Context, log Log, e EventPoisoned) (eventlog.Raw, error) {
	events, err := log.ReadStream(ctx, e.Stream, e.Revision, 1)
	if err != nil {
		return eventlog.Raw{}, fmt.Errorf("read %s@%d: %w", e.Stream, e.Revision, err)
	}
	if len(events) == 0 || events[0].Position != e.Position || events[0].ID.String() != e.EventID {
		return eventlog.Raw{}, fmt.Errorf("%w: the event that was set aside is no longer at %s@%d", errFatal, e.Stream, e.Revision)
	}
	return events[0], nil
}

// readAside calls f with the events at the given positions, which were set aside.
func readAside(ctx context.Context, log Log, generation string, positions []uint64, f func(eventlog.Raw)) error {
	all, err := poisonEvents(ctx, log, generation)
	if err != nil {
		return err
	}
	for _, p := range positions {
		at := slices.IndexFunc(all, func(e EventPoisoned) bool { return e.Position == p })
		if at < 0 {
			return fmt.Errorf("%w: the event at %d is replayed, but was never set aside", errFatal, p)
		}
		raw, err := eventAside(ctx, log, all[at])
		if err != nil {
			return err
		}
		f(raw)
	}
	return nil
}

// poisonEvents returns what was ever set aside, each event once, in log order. A runner
// that lost its plan may have set aside what another could read.
func poisonEvents(ctx context.Context, log Log, generation string) ([]EventPoisoned, error) {
	var out []EventPoisoned
	for next := uint64(0); ; {
		events, err := log.ReadStream(ctx, PoisonStream(generation), next, poisonPage)
		if err != nil {
			return nil, fmt.Errorf("read poison stream: %w", err)
		}
		if len(events) == 0 {
			break
		}
		for _, raw := range events {
			var e EventPoisoned
			if err := decodeLedger(raw, &e); err != nil {
				return nil, err
			}
			e.SetAsideAt = raw.RecordedAt
			out = append(out, e)
			next = raw.Revision + 1
		}
	}
	slices.SortStableFunc(out, func(a, b EventPoisoned) int { return int(min(max(int64(a.Position)-int64(b.Position), -1), 1)) }) //nolint:gosec // Positions fit.
	return slices.CompactFunc(out, func(a, b EventPoisoned) bool { return a.Position == b.Position }), nil
}

// asideNow returns the events that the blocks up to done set aside and that no block has
// replayed since.
func asideNow(ctx context.Context, log Log, generation string, done BlockCompleted) ([]EventPoisoned, error) {
	if done.Poisoned == 0 {
		return nil, nil
	}
	all, err := poisonEvents(ctx, log, generation)
	if err != nil {
		return nil, err
	}
	x, err := indexOf(ctx, log, generation)
	if err != nil {
		return nil, err
	}
	replayed := map[uint64]bool{}
	for n := done.LastReplay; n != 0; {
		plan, err := x.plan(ctx, n)
		if err != nil {
			return nil, err
		}
		for _, p := range plan.Replayed {
			replayed[p] = true
		}
		n = plan.LastReplay
	}
	var (
		out  []EventPoisoned
		plan *BlockPlanned
	)
	for _, e := range all {
		if e.Position > done.To || replayed[e.Position] {
			continue
		}
		if plan == nil || e.Position <= plan.From || e.Position > plan.To {
			if plan, err = x.holding(ctx, done, e.Position); err != nil {
				return nil, err
			}
		}
		if _, aside := slices.BinarySearch(plan.Aside, e.Position); aside {
			out = append(out, e)
		}
	}
	return out, nil
}
