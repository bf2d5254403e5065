package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

// recentUses are the ids of a slot's uses that the usage table may not hold yet.
type recentUses struct {
	// floor is the position above which every use of the slot is here.
	floor  uint64
	keys   map[useKey]uint64 // To the position.
	groups []recentGroup     // Oldest first.
}

type recentGroup struct {
	position uint64
	keys     []useKey
}

func (r *recentUses) len() int { return len(r.keys) }

func (r *recentUses) has(k useKey) bool { _, ok := r.keys[k]; return ok }

func (r *recentUses) add(position uint64, keys []useKey) {
	if len(keys) == 0 {
		return
	}
	if r.keys == nil {
		r.keys = make(map[useKey]uint64, len(keys))
	}
	for _, k := range keys {
		r.keys[k] = position
	}
	r.groups = append(r.groups, recentGroup{position: position, keys: keys})
}

// drop forgets everything at or before upTo: the table holds it.
func (r *recentUses) drop(upTo uint64) {
	for len(r.groups) > 0 && r.groups[0].position <= upTo {
		for _, k := range r.groups[0].keys {
			delete(r.keys, k)
		}
		r.groups[0].keys = nil
		r.groups = r.groups[1:]
	}
	r.floor = max(r.floor, upTo)
}

// noFloor is the floor of a writer that keeps no ids.
const noFloor = ^uint64(0)

// catchUp makes what this writer and each chunk know meet: every use of the slot is
// either at or before the position up to which the usage table answered, or recent.
func (w *slotWriter) catchUp(ctx context.Context, group []*chunk) error {
	for _, c := range group {
		if c.looked && w.synced && c.upTo < w.recent.floor {
			if err := w.look(ctx, c); err != nil {
				return err
			}
		}
	}
	err := w.meet(ctx, group)
	if !errors.Is(err, errBehind) {
		return err
	}
	// The usage table is too far behind to remember all since: the slot tells more.
	for _, c := range group {
		if c.looked && !c.ordered {
			if err := w.scan(ctx, c); err != nil {
				return err
			}
		}
	}
	return w.meet(ctx, group)
}

// meet makes the recent uses reach back to the position that each chunk of group knows.
func (w *slotWriter) meet(ctx context.Context, group []*chunk) error {
	floor := noFloor
	for _, c := range group {
		if c.looked {
			floor = min(floor, c.upTo)
		}
	}
	if w.synced && floor >= w.recent.floor {
		return nil
	}
	return w.load(ctx, floor)
}

// errBehind says that the usage table is so far behind that not all since can be remembered.
var errBehind = domain.Errorf(domain.Unavailable, "the usage table is too far behind the log, try again later").WithMessageCode("projection_behind")

// load reads the slot backwards: the headers of the last 7 days and those of the newest
// batches, and the ids of all uses above floor.
func (w *slotWriter) load(ctx context.Context, floor uint64) error {
	now := w.now()
	w.synced = false // Until all of it is known.
	w.last, w.lastAt = eventlog.NoStream(), time.Time{}
	w.batches, w.pruned = make(map[batchKey]*batchState), now
	w.recent = recentUses{floor: floor}
	var from *uint64
	var groups []recentGroup
	ids, oldBytes, done := 0, 0, false
	for !done {
		page, err := w.log.ReadStreamBackwards(ctx, w.stream, from, slotReadPage)
		if err != nil {
			return fmt.Errorf("read %s backwards: %w", w.stream, err)
		}
		for _, raw := range page {
			// The newest is taken however old it is: it is where the slot ends.
			newest := w.lastAt.IsZero()
			if !newest && now.Sub(raw.RecordedAt) > batchMemory && raw.Position <= floor {
				if oldBytes += len(raw.Data); len(w.batches) >= w.batchesMin || oldBytes > batchesBytesMax {
					done = true // Nothing older matters.
					break
				}
			}
			group, err := w.take(raw, newest)
			if err != nil {
				return err
			}
			groups = append(groups, group)
			if ids += len(group.keys); ids > w.recentMax {
				return errBehind
			}
		}
		if len(page) < slotReadPage || page[len(page)-1].Revision == 0 {
			break
		}
		next := page[len(page)-1].Revision - 1
		from = &next
	}
	for _, g := range slices.Backward(groups) {
		w.recent.add(g.position, g.keys)
	}
	w.synced = true
	return nil
}

// follow reads what others wrote since.
func (w *slotWriter) follow(ctx context.Context) error {
	for {
		page, err := w.log.ReadStream(ctx, w.stream, w.last.Next(), slotReadPage)
		if err != nil {
			return fmt.Errorf("read %s: %w", w.stream, err)
		}
		for _, raw := range page {
			group, err := w.take(raw, true)
			if err != nil {
				return err
			}
			w.recent.add(group.position, group.keys)
		}
		if w.recent.len() > w.recentMax {
			return errBehind
		}
		if len(page) < slotReadPage {
			return nil
		}
	}
}

// batch returns the state of a batch, a new one where nothing of it is known.
func (w *slotWriter) batch(key batchKey) *batchState {
	state := w.batches[key]
	if state == nil {
		state = &batchState{}
		w.batches[key] = state
	}
	return state
}

// take remembers one event of the slot; newest says that it is the last one known.
func (w *slotWriter) take(raw eventlog.Raw, newest bool) (recentGroup, error) {
	rec, err := eventlog.Decode(raw)
	if err != nil {
		return recentGroup{}, fmt.Errorf("follow slot: %w", err)
	}
	if newest {
		w.last, w.lastAt = eventlog.Exactly(raw.Revision), rec.Meta.EffectiveAt
	}
	e, ok := rec.Event.(domain.UsageRecorded)
	if !ok {
		return recentGroup{}, fmt.Errorf("follow slot: a %s stands at %s@%d", raw.Type, raw.Stream, raw.Revision)
	}
	key := batchKey{caller: e.Batch.Caller, batch: e.Batch.Batch}
	if newest || w.batches[key] != nil || len(w.batches) < w.batchesMin || w.now().Sub(raw.RecordedAt) <= batchMemory {
		w.batch(key).merge(e.Batch, raw.Position, raw.RecordedAt)
	}
	group := recentGroup{position: raw.Position}
	if raw.Position <= w.recent.floor || w.known == nil {
		return group, nil
	}
	uses, err := w.codec.Decode(e.Batch.Columns)
	if err != nil {
		return recentGroup{}, fmt.Errorf("follow slot %s@%d: %w", raw.Stream, raw.Revision, err)
	}
	for i := range uses {
		group.keys = append(group.keys, useKey{
			account: domain.AccountID(strings.Clone(string(uses[i].Account))), id: strings.Clone(uses[i].ID),
		})
	}
	return group, nil
}
