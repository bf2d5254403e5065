package projections_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/archive"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/usagebatch"
	"example.com/keytrail/projections"
)

// memCarrier holds what tables made of events hold, and fails on purpose.
type memCarrier struct {
	fails func() bool

	mu   sync.Mutex
	uses []projections.CarriedUse
}

// add makes the rows of a usage event.
func (c *memCarrier) add(raw eventlog.Raw) {
	rec, err := eventlog.Decode(raw)
	must(err)
	e, ok := rec.Event.(domain.UsageRecorded)
	if !ok {
		return
	}
	uses, err := usagebatch.Decode(e.Batch.Columns)
	must(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, u := range uses {
		c.uses = append(c.uses, projections.CarriedUse{Position: raw.Position, Index: uint32(i), RecordedAt: raw.RecordedAt, Use: u})
	}
}

func (c *memCarrier) Carry(ctx context.Context, first, last uint64, limit int) (string, []projections.CarriedUse, error) {
	if c.fails != nil && c.fails() || ctx.Err() != nil {
		return "", nil, errSink
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []projections.CarriedUse
	for _, u := range c.uses {
		if u.Position >= first && u.Position <= last {
			out = append(out, u)
		}
	}
	slices.SortFunc(out, func(a, b projections.CarriedUse) int {
		if a.Position != b.Position {
			return int(int64(a.Position) - int64(b.Position))
		}
		return int(a.Index) - int(b.Index)
	})
	return "live", slices.Clone(out[:min(limit, len(out))]), nil
}

// noTables is a [projections.Carrier] where no other tables are.
type noTables struct{}

func (noTables) Carry(context.Context, uint64, uint64, int) (string, []projections.CarriedUse, error) {
	return "", nil, projections.ErrNotKept
}

func carryAll(l *cutLog, c *projections.ArchiveLogConfig) {
	all := &memCarrier{}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, events := range l.streams {
		for _, raw := range events {
			if domain.IsEvidence(raw.Stream) {
				all.add(raw)
			}
		}
	}
	c.Carrier = all
}

func carryNone(_ *cutLog, c *projections.ArchiveLogConfig)    { c.Carrier = &memCarrier{} }
func carryNowhere(_ *cutLog, c *projections.ArchiveLogConfig) { c.Carrier = noTables{} }

// rowsText are the rows that an event, or what stands in for it, gives.
func rowsText(raw eventlog.Raw) map[string][]string {
	out := map[string][]string{}
	tables, err := projections.RowsOf(raw, 1)
	must(err)
	for _, rows := range tables {
		for _, r := range rowsOf(rows) {
			out[rows.Table] = append(out[rows.Table], fmt.Sprint(render(r.values)...))
		}
	}
	return out
}

// TestWhatIsCarriedOverComesOnceAndInItsPlace makes random histories, seals random ranges
// with an archive or without, frees random parts of them, and reads from random places:
// what the log lacks comes as a stand-in that gives the very rows of the event.
func TestWhatIsCarriedOverComesOnceAndInItsPlace(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	run, stoodIn := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		l := newCutLog(filepath.Join(path, fmt.Sprint(run)))
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 5))
		streams := []string{domain.UsageSlotStream("c", 0), domain.UsageSlotStream("c", 1), domain.UsageWriterStream("c", "n")}
		for range rapid.IntRange(5, 60).Draw(t, "events") {
			if rng.IntN(5) == 0 {
				l.record("kt.account-x", domain.AccountCreated{Account: "x"}, l.now())
				continue
			}
			l.usage(streams[rng.IntN(len(streams))], rng.IntN(4)) // An event may hold none.
		}
		for _, stream := range streams {
			for free := len(l.stream(stream)) - 1; free > 0 && rng.IntN(5) > 0; {
				n := 1 + rng.IntN(free)
				l.seal(stream, n, rng.IntN(2) == 0)
				free -= n
			}
		}
		want := l.evidence()
		for _, stream := range streams {
			if s := l.last[stream]; s.Segment > 0 && rng.IntN(3) > 0 {
				l.scavenge(stream, uint64(rng.IntN(int(s.LastRevision)+1)))
			}
		}
		after := uint64(0)
		if rng.IntN(2) == 0 {
			after = min(want[rng.IntN(len(want)-1)].Position+uint64(rng.IntN(2)), want[len(want)-1].Position-1)
			want = slices.DeleteFunc(want, func(e eventlog.Raw) bool { return e.Position <= after })
		}
		log := l.merged(func(c *projections.ArchiveLogConfig) { carryAll(l, c) })
		got, err := readTo(context.Background(), log, after, want[len(want)-1].Position)
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			if i >= len(want) || got[i].Type != "usage.carried.v1" {
				continue
			}
			stoodIn++
			if at, of := got[i], want[i]; at.Stream != of.Stream || at.Revision != of.Revision || at.Position != of.Position {
				t.Fatalf("%s@%d at %d stands in for %s@%d at %d", at.Stream, at.Revision, at.Position, of.Stream, of.Revision, of.Position)
			}
			if d := cmp.Diff(rowsText(want[i]), rowsText(got[i])); d != "" {
				t.Fatalf("rows (-event +stand-in):\n%s", d)
			}
			got[i] = want[i]
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("after %d (-log +read):\n%s", after, d)
		}
	})
	if stoodIn == 0 {
		t.Error("nothing was ever carried over")
	}
}

// cutting is a world whose usage streams are sealed, archived nowhere, and freed.
type cutting struct {
	*world
	cuts *cutLog
	from *memCarrier
	rng  *rand.Rand
}

// horizon seals and frees a random part of each usage stream, but never its newest event.
func (c *cutting) horizon() {
	for slot := range 3 {
		stream := domain.UsageSlotStream("c", slot)
		first := uint64(0)
		if last := c.cuts.last[stream]; last.Segment > 0 {
			first = last.LastRevision + 1
		}
		free := len(c.log.stream(stream)) - 1 - int(first)
		if free > 0 && c.rng.IntN(4) > 0 {
			c.cuts.seal(stream, 1+c.rng.IntN(free), false)
		}
		last := c.cuts.last[stream]
		if last.Segment == 0 || c.rng.IntN(4) == 0 {
			continue
		}
		to := last.LastRevision
		if c.rng.IntN(3) == 0 {
			to = uint64(c.rng.IntN(int(to) + 1)) // Scavenging has not come further.
		}
		for _, raw := range c.log.evidence() {
			if raw.Stream == stream && raw.Revision <= to {
				c.cut = append(c.cut, raw)
			}
		}
		c.cuts.scavenge(stream, to)
	}
}

// whole is the log of a runner, with what other tables hold.
func (c *cutting) whole(cfg *projections.RunnerConfig) {
	cfg.Log = projections.NewArchiveLog(projections.ArchiveLogConfig{Log: c.log, Seals: archive.NewSeals(c.log), Carrier: c.from})
}

// TestWhatIsCarriedOverIsThereOnceWhereverRunnersDie makes tables from a log of which more
// and more is cut, while runners die at every operation, the store fails in every way and
// the tables that rows are carried over from do not always answer: every event's rows are
// there once, made from it or carried over, and the ledger says which.
func TestWhatIsCarriedOverIsThereOnceWhereverRunnersDie(t *testing.T) {
	carried := uint64(0)
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(*testing.T) {
			w := newWorld(rt)
			h := &history{log: w.log, rng: rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "history seed"), 3))}
			c := &cutting{world: w, rng: rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "cut seed"), 6)), from: &memCarrier{}}
			c.cuts = &cutLog{memLog: w.log, last: map[string]domain.UsageSegmentSealed{}}
			c.from.fails = func() bool {
				w.mu.Lock()
				defer w.mu.Unlock()
				return w.faulty && w.rng.IntN(15) == 0
			}
			known := map[uint64]bool{}
			grow := func(n int) {
				h.grow(n)
				for _, raw := range w.log.evidence() {
					if _, usage := domain.UsageClassOf(raw.Stream); usage && !known[raw.Position] {
						known[raw.Position] = true
						c.from.add(raw)
					}
				}
			}
			w.faulty, w.sink.faulty = true, true
			w.change = c.whole
			for i := range rapid.IntRange(1, 8).Draw(rt, "lives") {
				grow(rapid.IntRange(0, 20).Draw(rt, "events"))
				c.horizon()
				ctx, cancel := context.WithCancel(context.Background())
				w.mu.Lock()
				w.ops, w.stopAt, w.stop = 0, rapid.IntRange(1, 60).Draw(rt, "stop at operation"), cancel
				w.mu.Unlock()
				r := w.runner(fmt.Sprintf("r%d", i), rapid.Bool().Draw(rt, "alone"))
				done := make(chan error, 1)
				go func() { done <- r.Run(ctx) }()
				pass(time.Duration(rapid.IntRange(1, 30).Draw(rt, "seconds")) * time.Second)
				cancel()
				if err := <-done; err != nil {
					rt.Fatalf("runner %d: %v", i, err)
				}
			}
			grow(1)
			w.finish()
			w.check()
			carried += c.checkLedger()
		})
	})
	if carried == 0 {
		t.Error("nothing was ever carried over")
	}
}

// checkLedger holds what plans say was carried over against what was cut, and the sums of
// the last completion against the plans.
func (c *cutting) checkLedger() uint64 {
	gone := map[string]bool{}
	for _, raw := range c.cut {
		gone[fmt.Sprint(raw.Stream, "@", raw.Revision)] = true
	}
	var events, rows uint64
	for _, p := range c.plans() {
		for _, r := range p.Carried {
			rows += r.Rows
			for at := r.FirstRevision; at <= r.LastRevision; at++ {
				events++
				if name := fmt.Sprint(r.Stream, "@", at); !gone[name] || r.From != "live" {
					c.t.Errorf("block %d carries %s over from %q: it is in the log, or carried twice", p.Block, name, r.From)
				} else {
					gone[name] = false
				}
			}
		}
	}
	done := c.lastCompleted()
	if done.CarriedEvents != events || done.CarriedRows != rows {
		c.t.Errorf("the ledger sums up %d events and %d rows carried over, its plans %d and %d", done.CarriedEvents, done.CarriedRows, events, rows)
	}
	return events
}
