package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"example.com/keytrail/internal/eventlog"
)

// checkEvery is how often the active runner counts all rows, whether events come or not. It
// also does whenever it begins.
const checkEvery = 5 * time.Minute

// disorder says that the log delivered an event whose position was not after that of the
// one before.
type disorder struct{ position, after uint64 }

// Error implements error.
func (d *disorder) Error() string {
	return fmt.Sprintf("the log delivered the event at %d after the one at %d", d.position, d.after)
}

// errRewound ends a turn after the ledger was rewound; the next begins there.
var errRewound = errors.New("the ledger was rewound")

// notForeign returns an error if the tables hold what the ledger does not know.
func (r *Runner) notForeign(ctx context.Context) error {
	newest, err := r.cfg.Sink.Newest(ctx)
	if err != nil {
		return err
	}
	return notNewer(ctx, r.cfg.Log, newest, r.cfg.Generation)
}

// check compares the tables with what the ledger says of them, when no block is under
// way. What they do not hold is made again: the ledger goes back to the last block up to
// which they do.
func (r *Runner) check(ctx context.Context, l *ledger) error {
	have, err := r.cfg.Sink.Totals(ctx, l.done.Block)
	if err != nil {
		return err
	}
	r.checked = r.cfg.Now()
	if reason := differsFrom(l.done, have); reason != "" {
		kept, err := r.lastWhole(ctx, l)
		if err != nil {
			return err
		}
		return r.rewind(ctx, l, kept, reason)
	}
	return nil
}

// checkNowAndThen checks if the last time was long ago, or lies ahead: the clock was set back.
func (r *Runner) checkNowAndThen(ctx context.Context, l *ledger) error {
	if since := r.cfg.Now().Sub(r.checked); since >= 0 && since < checkEvery {
		return nil
	}
	return r.check(ctx, l)
}

// differsFrom says how counts are not those that a ledger has; "" if they are.
func differsFrom(done BlockCompleted, have map[string]uint64) string {
	for _, table := range countedTables() {
		if have[table] != done.Rows[table] {
			return fmt.Sprintf("%s holds %d rows of blocks up to %d, the ledger says %d", table, have[table], done.Block, done.Rows[table])
		}
	}
	return ""
}

// lastWhole returns the last block, of those that led to what is done, up to which the
// tables hold as many rows as the ledger says. A block that was given up is none of them.
func (r *Runner) lastWhole(ctx context.Context, l *ledger) (BlockCompleted, error) {
	x, err := indexOf(ctx, r.cfg.Log, r.cfg.Generation)
	if err != nil {
		return BlockCompleted{}, err
	}
	whole := func(c LedgerRewound) (bool, error) {
		have, err := r.cfg.Sink.Totals(ctx, c.Block)
		return err == nil && differsFrom(c.BlockCompleted, have) == "", err
	}
	var kept BlockCompleted
	high := l.done.Block // Is not whole.
	for rewind := l.done.LastRewind; rewind > 0; {
		rewound, err := x.completion(ctx, rewind)
		if err != nil {
			return kept, err
		}
		ok, err := whole(rewound)
		if err != nil {
			return kept, err
		}
		if ok && rewind < high {
			kept = rewound.BlockCompleted
			break
		}
		before, err := x.completion(ctx, rewound.Kept)
		if err != nil {
			return kept, err
		}
		if ok, err = whole(before); err != nil || ok {
			return before.BlockCompleted, err
		}
		high, rewind = rewound.Kept, before.LastRewind
	}
	for low := kept.Block; high-low > 1; {
		mid, err := x.completion(ctx, low+(high-low)/2)
		if err != nil {
			return kept, err
		}
		ok, err := whole(mid)
		if err != nil {
			return kept, err
		}
		if ok {
			low, kept = mid.Block, mid.BlockCompleted
		} else {
			high = mid.Block
		}
	}
	return kept, nil
}

// rewind records that the blocks after kept are to be made again, and takes away what
// they left. It is told before it is done: readers know at once how far the tables are.
// If the taking away is interrupted, the next check finds that the counts are wrong.
func (r *Runner) rewind(ctx context.Context, l *ledger, kept BlockCompleted, reason string) error {
	if err := remakeable(ctx, r.cfg.Log, kept.To); err != nil {
		return fmt.Errorf("%s: %w", reason, err)
	}
	number := l.done.Block + 1
	if l.plan != nil {
		number = l.plan.Block + 1
	}
	e := LedgerRewound{BlockCompleted: kept, Kept: kept.Block, Reason: reason}
	e.Block, e.LastRewind, e.Holder, e.Attempt = number, number, r.cfg.Holder, 0
	r.cfg.Logger.ErrorContext(ctx, "the tables do not hold what the ledger says; what is wrong is made again",
		slog.String("reason", reason), slog.Uint64("kept_block", kept.Block), slog.Uint64("kept_position", kept.To))
	if err := l.write(ctx, r.cfg.Log, LedgerStream(r.cfg.Generation), typeLedgerRewound, e); err != nil {
		return err
	}
	r.cfg.Metrics.rewinds.Inc()
	if r.cfg.Roller != nil {
		r.cfg.Roller.rescanAll()
	}
	if err := r.cfg.Sink.Rewind(ctx, Rewinding{Kept: kept.Block, KeptTo: kept.To, Mark: number}); err != nil {
		return err
	}
	return errRewound
}

// remakeable returns an error if events after a position are no longer to be had: then what
// tables hold of them must not be taken away.
func remakeable(ctx context.Context, log Log, position uint64) error {
	l, ok := log.(*ArchiveLog)
	if !ok {
		return nil
	}
	if err := l.cfg.Seals.Refresh(ctx); err != nil {
		return err
	}
	for _, seal := range l.cfg.Seals.All() {
		if seal.Archive != nil || seal.LastPosition <= position {
			continue
		}
		err := ErrNotKept
		if l.cfg.Carrier != nil {
			_, _, err = l.cfg.Carrier.Carry(ctx, seal.LastPosition, seal.LastPosition, 1)
		}
		if errors.Is(err, ErrNotKept) {
			return fmt.Errorf("%w: %w: %s to position %d, so the tables cannot be made again from %d on: restore a copy of them",
				errFatal, ErrNotKept, seal.Stream, seal.LastPosition, position)
		}
		return err // Other tables hold them, or nobody knows.
	}
	return nil
}

// readTries is how often a block is read again whose events are not those of its plan: the
// log may have delivered them out of order, to whoever planned it or to us.
const readTries = 3

// suspects are positions of events that were delivered out of order: the blocks where they
// belong may lack them. It is safe for concurrent use.
type suspects struct {
	mu sync.Mutex // Guards at.
	at []uint64   // Sorted.
}

// note adds the event that err says was delivered out of order, and reports whether it does.
func (s *suspects) note(err error) bool {
	d, late := errors.AsType[*disorder](err)
	if !late {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, known := slices.BinarySearch(s.at, d.position); !known {
		s.at = slices.Insert(s.at, i, d.position)
	}
	return true
}

// within returns those after from up to to.
func (s *suspects) within(from, to uint64) []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	low, _ := slices.BinarySearch(s.at, from+1)
	high, _ := slices.BinarySearch(s.at, to+1)
	return slices.Clone(s.at[low:high])
}

// cleared takes away those that have proved to be where they belong.
func (s *suspects) cleared(positions []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = slices.DeleteFunc(s.at, func(p uint64) bool { return slices.Contains(positions, p) })
}

// holdsAll reports whether a block was made of what the log holds there. What the log
// delivered once, in whatever order, it holds: a reading without it is none, and one with
// more than the block settles it.
func (r *Runner) holdsAll(ctx context.Context, plan *BlockPlanned) (bool, error) {
	for range readTries {
		b := &block{}
		b.start(plan.Block, plan.From)
		standIns, events, missing := uint64(0), uint64(0), r.suspects.within(plan.From, plan.To)
		err := readEvents(ctx, r.cfg.Log, plan.From, plan.To, func(raw eventlog.Raw) {
			b.hashEvent(&raw)
			events++
			if standsIn(&raw) {
				standIns++
			}
			if i, ok := slices.BinarySearch(missing, raw.Position); ok {
				missing = slices.Delete(missing, i, i+1)
			}
		})
		if r.suspects.note(err) {
			continue
		}
		if carried, _ := carriedSums(plan.Carried); errors.Is(err, ErrNotKept) || err == nil && standIns > carried {
			return true, nil // Something was cut since: there is nothing to compare with.
		}
		if err != nil {
			return false, err
		}
		if events > plan.Events {
			return false, nil
		}
		if len(missing) == 0 && b.sum() == plan.SHA256 {
			return true, nil
		}
	}
	return false, nil
}

// checkOrder looks whether the newest block, and those where events belong that were
// delivered out of order, hold what the log has there. An event that is delivered after
// its successor is met again at the latest when a runner begins.
func (r *Runner) checkOrder(ctx context.Context, l *ledger) error {
	if l.done.Block == 0 || l.done.Block == l.done.LastRewind {
		return nil
	}
	x, err := indexOf(ctx, r.cfg.Log, r.cfg.Generation)
	if err != nil {
		return err
	}
	plan, err := x.plan(ctx, l.done.Block)
	if err == nil && len(plan.Replayed) == 0 {
		err = r.checkBlock(ctx, l, x, plan)
	}
	if err != nil {
		return err
	}
	return r.checkSuspects(ctx, l)
}

// checkSuspects looks whether the blocks where events belong that were delivered out of
// order hold them. What comes after the newest block is for the next to hold.
func (r *Runner) checkSuspects(ctx context.Context, l *ledger) error {
	for at := r.suspects.within(0, l.done.To); len(at) > 0; at = r.suspects.within(0, l.done.To) {
		x, err := indexOf(ctx, r.cfg.Log, r.cfg.Generation)
		if err != nil {
			return err
		}
		plan, err := x.holding(ctx, l.done, at[0])
		if err != nil {
			return err
		}
		within := r.suspects.within(plan.From, plan.To) // More may come while the block is read.
		if len(within) == 0 {
			return fmt.Errorf("block %d, from %d to %d, does not hold position %d", plan.Block, plan.From, plan.To, at[0])
		}
		if err := r.checkBlock(ctx, l, x, plan); err != nil {
			return err
		}
		r.suspects.cleared(within) // They were delivered twice.
	}
	return nil
}

// checkBlock has everything from a block on made again if it lacks an event.
func (r *Runner) checkBlock(ctx context.Context, l *ledger, x ledgerIndex, plan *BlockPlanned) error {
	whole, err := r.holdsAll(ctx, plan)
	if err != nil || whole {
		return err
	}
	before, err := x.completion(ctx, plan.Block-1)
	if err != nil {
		return err
	}
	return r.rewind(ctx, l, before.BlockCompleted, fmt.Sprintf("block %d is not what the log holds from %d to %d", plan.Block, plan.From, plan.To))
}
