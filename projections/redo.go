package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

// mendingsMax is how often one table's rows are deleted and inserted again before
// the runner stops.
const mendingsMax = 12

// redo finishes the planned block that somebody, or an earlier turn, left: it makes
// the rows again, counts what is there, and mends.
//
// The counting comes before the fence, so that a store that does not answer costs
// no ledger event. Nothing is written before the fence: of two runners that redo,
// one loses there.
func (r *Runner) redo(ctx context.Context, l *ledger) error {
	r.set(RunnerRedoing, nil)
	r.cfg.Metrics.redos.Inc()
	b, err := r.rebuild(ctx, l.plan)
	if errors.Is(err, errOtherEvents) {
		// Nobody saw the block: it is given up, on record, and cut anew.
		return r.rewind(ctx, l, l.done, err.Error())
	}
	if err != nil {
		return fmt.Errorf("make block %d again: %w", l.plan.Block, err)
	}
	r.cfg.Logger.InfoContext(ctx, "redoing a block", slog.Uint64("block", b.number), slog.String("planned_by", l.plan.Holder))
	err = r.abandonLate(ctx, func(ctx context.Context) error { return r.mend(ctx, l, b) })
	if err != nil {
		return fmt.Errorf("redo block %d: %w", b.number, err)
	}
	return r.complete(ctx, l, b)
}

// rebuild makes the rows of a planned block from the log.
func (r *Runner) rebuild(ctx context.Context, plan *BlockPlanned) (b *block, err error) {
	for range readTries {
		b, err = r.rebuildOnce(ctx, plan)
		if again := r.suspects.note(err); !again && !errors.Is(err, errOtherEvents) {
			break
		}
	}
	return b, err
}

func (r *Runner) rebuildOnce(ctx context.Context, plan *BlockPlanned) (*block, error) {
	dec, err := newDecoder(r.cfg.Decode)
	if err != nil {
		return nil, err
	}
	b := &block{}
	b.start(plan.Block, plan.From)
	add := func(raw eventlog.Raw) {
		f := dec.planned(raw, plan)
		b.append(&f)
	}
	if len(plan.Replayed) > 0 {
		b.replayed = plan.Replayed
		err = readAside(ctx, r.cfg.Log, r.cfg.Generation, plan.Replayed, add)
	} else {
		err = readEvents(ctx, r.cfg.Log, plan.From, plan.To, add)
	}
	if err != nil {
		return nil, err
	}
	return b, plan.matches(b)
}

// errSetAside is why an event has no rows in the block that set it aside, whatever this
// program can read.
var errSetAside = fmt.Errorf("%w: it was set aside", errPoison)

// planned returns raw as a fact of a planned block.
func (d *decoder) planned(raw eventlog.Raw, plan *BlockPlanned) fact {
	if _, aside := slices.BinarySearch(plan.Aside, raw.Position); aside {
		return fact{raw: raw, poison: errSetAside}
	}
	return d.fact(raw)
}

// readEvents calls f with every event of evidence after position from up to to.
func readEvents(ctx context.Context, log Log, from, to uint64, f func(eventlog.Raw)) error {
	if from >= to {
		return nil
	}
	sub, err := log.Subscribe(ctx, eventlog.SubscribeOptions{
		Prefixes: []string{domain.EvidencePrefix}, After: from, FromStart: from == 0,
	})
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	defer sub.Close()
	for last := from; ; {
		d, err := sub.Next(ctx)
		if err != nil {
			return fmt.Errorf("read the log: %w", err)
		}
		if d.Event == nil {
			if d.CaughtUp && d.Position >= to {
				return nil // The event at to is gone; the caller sees that by the counts.
			}
			continue
		}
		if d.Event.Position > to {
			return nil
		}
		if d.Event.Position <= last {
			return &disorder{position: d.Event.Position, after: last}
		}
		last = d.Event.Position
		f(*d.Event)
		if d.Event.Position == to {
			return nil
		}
	}
}

// mend makes the tables hold the rows of b, each once.
func (r *Runner) mend(ctx context.Context, l *ledger, b *block) error {
	counts := map[string]uint64{}
	tables := b.tables()
	for _, rows := range tables {
		if !counted(rows.Table) {
			continue
		}
		n, err := r.cfg.Sink.Count(ctx, rows.Table, b.number)
		if err != nil {
			return err
		}
		counts[rows.Table] = n
	}
	if err := r.retake(ctx, l); err != nil {
		return err
	}
	for _, rows := range tables {
		var err error
		if counted(rows.Table) {
			err = r.mendCounted(ctx, l, rows, counts[rows.Table])
		} else {
			// The token is new: one that was used may be remembered without its rows.
			err = r.cfg.Sink.Insert(ctx, rows, r.token(b.number, rows.Table, l.attempt))
		}
		if err != nil {
			return err
		}
	}
	return r.cfg.Sink.Judge(ctx, judgementOf(b))
}

// retake appends that this runner works on the planned block under the next attempt
// number. It is the fence before every delete and every insert of a redo.
func (r *Runner) retake(ctx context.Context, l *ledger) error {
	e := BlockRetaken{Block: l.plan.Block, Attempt: l.attempt + 1, Holder: r.cfg.Holder}
	if err := l.write(ctx, r.cfg.Log, LedgerStream(r.cfg.Generation), typeBlockRetaken, e); err != nil {
		return err
	}
	l.attempt = e.Attempt
	return nil
}

// mendCounted makes a table hold rows once. have is how many it holds.
//
// Inserts of earlier attempts may still be on their way, under any token that was used
// before. So all of those are used up before anything counts: of two inserts under one
// token one counts, and one whose rows were deleted is dropped. The token of this turn is
// new and comes last. Where only the first token was ever used, rows that are right are
// that token's.
func (r *Runner) mendCounted(ctx context.Context, l *ledger, rows Rows, have uint64) error {
	want := uint64(rows.Len()) //nolint:gosec // A length.
	for try := 0; have != want || try == 0 && l.attempt > 1; try++ {
		if try == mendingsMax {
			return fmt.Errorf("%w: %s holds %d rows of block %d, the log gives %d, after %d attempts", errFatal, rows.Table, have, l.plan.Block, want, try)
		}
		wrong := have != 0 && have != want
		if try > 0 || wrong {
			// Right before a delete, so that nobody else can have taken over meanwhile.
			if err := r.retake(ctx, l); err != nil {
				return err
			}
		}
		var err error
		if wrong {
			r.cfg.Metrics.deletions.Inc()
			if err := r.cfg.Sink.Delete(ctx, rows.Table, l.plan.Block); err != nil {
				return err
			}
			if have, err = r.cfg.Sink.Count(ctx, rows.Table, l.plan.Block); err != nil {
				return err
			}
			if have != 0 {
				continue
			}
		}
		if have, err = r.insertCounted(ctx, l, rows); err != nil {
			return err
		}
	}
	return nil
}

// insertCounted uses up every token of earlier attempts, and where the table holds nothing
// of the block after that, inserts under that of this one. It returns how many rows there are.
func (r *Runner) insertCounted(ctx context.Context, l *ledger, rows Rows) (have uint64, err error) {
	for attempt := uint64(0); attempt <= l.attempt; attempt++ {
		if attempt == l.attempt && have != 0 {
			break
		}
		if err := r.cfg.Sink.Insert(ctx, rows, r.token(l.plan.Block, rows.Table, attempt)); err != nil {
			return 0, err
		}
		if attempt+1 >= l.attempt {
			if have, err = r.cfg.Sink.Count(ctx, rows.Table, l.plan.Block); err != nil {
				return 0, err
			}
		}
	}
	return have, nil
}
