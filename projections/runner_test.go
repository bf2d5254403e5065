package projections_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/projections"
)

// rig is a runner and a tracker on stores in memory, in a bubble of time.
type rig struct {
	t    *testing.T
	log  *memLog
	sink projections.Sink
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return &rig{t: t, log: newMemLog(now), sink: newSimSink(1)}
}

func (r *rig) runner(holder string, change ...func(*projections.RunnerConfig)) *projections.Runner {
	r.t.Helper()
	cfg := projections.RunnerConfig{
		Log: r.log, Sink: r.sink, Generation: generation, Holder: holder, Now: now, Metrics: newMetrics(r.t), Logger: discard, Alone: true,
	}
	for _, c := range change {
		c(&cfg)
	}
	runner, err := projections.NewRunner(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	return runner
}

// run runs what has a Run method until the test's bubble is left.
func (r *rig) run(what interface{ Run(context.Context) error }) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	go func() { done <- what.Run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("run: %v", err)
		}
	})
}

func (r *rig) tracker(runner *projections.Runner) *projections.Tracker {
	r.t.Helper()
	tracker, err := projections.NewTracker(projections.TrackerConfig{
		Log: r.log, Generation: generation, Now: now, Runner: runner, Metrics: newMetrics(r.t), Logger: discard,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return tracker
}

func (r *rig) use() eventlog.Raw {
	return r.log.record("kt.usage-c-00", domain.UsageRecorded{Batch: batchOf([]domain.Use{{Time: now().UTC().Truncate(time.Second), Account: "a1"}})}, now())
}

func (r *rig) key() {
	r.log.record(domain.KeyStream("K"), domain.KeyUpdated{After: keyState("K")}, now())
}

func (r *rig) plans() []projections.BlockPlanned {
	r.t.Helper()
	var out []projections.BlockPlanned
	for _, raw := range r.log.stream(projections.LedgerStream(generation)) {
		if raw.Type == "block.planned.v1" {
			var p projections.BlockPlanned
			must(json.Unmarshal(raw.Data, &p))
			out = append(out, p)
		}
	}
	return out
}

func TestBlocksAreCutByTimeRowsAndMonth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.run(r.runner("h", func(c *projections.RunnerConfig) {
			c.Limits = projections.DefaultLimits()
			c.Limits.Rows = 4
		}))
		wait := func(d time.Duration, want int, why string) {
			t.Helper()
			pass(d)
			synctest.Wait()
			if got := len(r.plans()); got != want {
				t.Fatalf("%s: %d blocks, want %d", why, got, want)
			}
		}
		wait(time.Second, 0, "no events")
		r.key()
		wait(49*time.Millisecond, 0, "a key event waits")
		wait(2*time.Millisecond, 1, "50 ms after a key event")
		r.use()
		wait(249*time.Millisecond, 1, "a use waits")
		r.key()
		wait(2*time.Millisecond, 2, "250 ms after the first event")
		for range 5 {
			r.use()
		}
		wait(time.Millisecond, 3, "a full block goes at once")
		wait(250*time.Millisecond, 4, "the rest goes in its time")
		r.use()
		wait(40*24*time.Hour, 5, "a month")
		r.key()
		wait(10*time.Millisecond, 5, "waits")
	})
}

// TestABlockKeepsToOneMonth holds what makes an insert touch one partition.
func TestABlockKeepsToOneMonth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.use()
		pass(40 * 24 * time.Hour)
		r.use()
		r.run(r.runner("h"))
		pass(time.Second)
		synctest.Wait()
		if got := len(r.plans()); got != 2 {
			t.Errorf("%d blocks of events of two months, want 2", got)
		}
	})
}

func TestAnotherRunnerTakesOverAfterThreeSecondsOfStillness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		first, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.runner("first").Run(first) }()
		r.use()
		pass(time.Second)
		second := r.runner("second", func(c *projections.RunnerConfig) { c.Alone = false })
		r.run(second)
		for range 10 { // The first works on: ten seconds in which the second must wait.
			r.use()
			pass(time.Second)
		}
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		pass(time.Minute) // No work: nobody takes over.
		for _, p := range r.plans() {
			if p.Holder != "first" {
				t.Fatalf("block %d was planned by %s while the first was there", p.Block, p.Holder)
			}
		}
		if s := second.Status(); s.State != projections.RunnerWaiting {
			t.Errorf("the second is %s, want waiting", s.State)
		}
		n := len(r.plans())
		r.use()
		pass(2900 * time.Millisecond)
		synctest.Wait()
		if len(r.plans()) != n {
			t.Error("taken over before three seconds of stillness")
		}
		pass(1500 * time.Millisecond)
		synctest.Wait()
		if plans := r.plans(); len(plans) != n+1 || plans[n].Holder != "second" {
			t.Errorf("not taken over: %d blocks", len(plans))
		}
	})
}

// offSink does not answer while off is set.
type offSink struct {
	projections.Sink
	off error
}

func (s *offSink) Insert(ctx context.Context, rows projections.Rows, token string) error {
	if s.off != nil {
		return s.off
	}
	return s.Sink.Insert(ctx, rows, token)
}

func (s *offSink) Count(ctx context.Context, table string, block uint64) (uint64, error) {
	if s.off != nil {
		return 0, s.off
	}
	return s.Sink.Count(ctx, table, block)
}

func TestAStoreThatDoesNotAnswerIsWaitedForAndSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		off := &offSink{Sink: r.sink, off: errors.New("connection refused")}
		r.sink = off
		runner := r.runner("h")
		tracker := r.tracker(runner)
		r.run(runner)
		r.run(tracker)
		last := r.use()
		pass(time.Hour)
		synctest.Wait()
		s := tracker.Status()
		if s.Runner != projections.RunnerFailing || !strings.Contains(s.Error, "connection refused") || s.State != "behind" {
			t.Errorf("status %+v does not say that the store is away", s)
		}
		if s.Lag < 59*time.Minute || s.Head != last.Position || s.Position != 0 {
			t.Errorf("status %+v, want an hour's lag behind %d", s, last.Position)
		}
		if n := len(r.log.stream(projections.LedgerStream(generation))); n != 1 {
			t.Errorf("%d ledger events while nothing could be written, want the plan alone", n)
		}
		off.off = nil
		if err := tracker.Wait(t.Context(), last.Position); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s := tracker.Status(); s.Error != "" || s.Lag != 0 || s.State != "complete" || s.Runner != projections.RunnerActive || s.Rows["usage"] != 1 {
			t.Errorf("status %+v after the store came back", s)
		}
	})
}

// hungSink never answers an insert.
type hungSink struct{ projections.Sink }

func (hungSink) Insert(ctx context.Context, _ projections.Rows, _ string) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestAnInsertIsAbandonedAfterTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.sink = hungSink{r.sink}
		runner := r.runner("h")
		r.run(runner)
		r.use()
		pass(9 * time.Minute)
		synctest.Wait()
		if s := runner.Status(); s.State != projections.RunnerActive {
			t.Errorf("%s after nine minutes: %v", s.State, s.Err)
		}
		pass(61 * time.Second)
		synctest.Wait()
		if n := len(r.log.stream(projections.LedgerStream(generation))); n != 2 {
			t.Errorf("%d ledger events, want the plan and the second attempt", n)
		}
	})
}

// TestARunnerThatMakesOtherRowsThanPlannedStops gives a planned block that this
// program cannot have planned.
func TestARunnerThatMakesOtherRowsThanPlannedStops(t *testing.T) {
	tests := []struct {
		name   string
		change func(*projections.BlockPlanned)
	}{
		{"another number of rows", func(p *projections.BlockPlanned) { p.Rows["usage"]++ }},
		{"another table", func(p *projections.BlockPlanned) { p.Rows["other"] = 1 }},
		{"poison where there is none", func(p *projections.BlockPlanned) { p.Poisoned = 1 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.use()
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- r.runner("h").Run(ctx) }()
				pass(time.Second)
				cancel()
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				plan := r.plans()[0]
				tt.change(&plan)
				data, err := json.Marshal(plan)
				must(err)
				other := newRig(t)
				other.log.streams, other.log.all = r.log.streams, r.log.all
				other.log.streams[projections.LedgerStream("g2")] = nil
				other.log.recordRaw(projections.LedgerStream("g2"), eventlog.Proposed{ID: domain.EventID{1}, Type: "block.planned.v1", Data: data})
				runner := other.runner("h2", func(c *projections.RunnerConfig) { c.Generation = "g2" })
				if err := runner.Run(t.Context()); err == nil {
					t.Error("the runner went on")
				}
				if sink, ok := other.sink.(*simSink); !ok || len(sink.tables) != 0 {
					t.Error("rows were written")
				}
			})
		})
	}
}

// TestABlockOfOtherEventsIsGivenUpAndMadeOfTheLog gives an unfinished plan of events that
// the log does not hold there, as one cut from deliveries out of order is.
func TestABlockOfOtherEventsIsGivenUpAndMadeOfTheLog(t *testing.T) {
	tests := []struct {
		name   string
		change func(*projections.BlockPlanned)
	}{
		{"another hash", func(p *projections.BlockPlanned) { p.SHA256 = strings.Repeat("0", 64) }},
		{"an end that is no event's", func(p *projections.BlockPlanned) { p.To-- }},
		{"fewer events", func(p *projections.BlockPlanned) { p.Events-- }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.use()
				off := &offSink{Sink: r.sink, off: errors.New("away")}
				r.sink = off
				first, stop := context.WithTimeout(t.Context(), time.Second)
				defer stop()
				if err := r.runner("first").Run(first); err != nil {
					t.Fatal(err)
				}
				plan := r.plans()[0]
				tt.change(&plan)
				data, err := json.Marshal(plan)
				must(err)
				r.log.streams[projections.LedgerStream(generation)][0].Data = data
				off.off = nil
				r.run(r.runner("second"))
				tracker := r.tracker(nil)
				r.run(tracker)
				last := r.use()
				if err := tracker.Wait(t.Context(), last.Position); err != nil {
					t.Fatal(err)
				}
				if s := tracker.Status(); s.Events != 2 || s.Rows["usage"] != 2 {
					t.Errorf("status %+v, want both uses once", s)
				}
				var rewound projections.LedgerRewound
				raw := r.log.stream(projections.LedgerStream(generation))[1]
				must(json.Unmarshal(raw.Data, &rewound))
				if raw.Type != "ledger.rewound.v1" || rewound.Kept != 0 || rewound.Block != 2 || rewound.Reason == "" {
					t.Errorf("the ledger goes on with %s %+v, want the block given up with a reason", raw.Type, rewound)
				}
			})
		})
	}
}

// TestADeletionThatComesLateTakesNothingOfTheNextRunner keeps the deletion of a runner on
// its way until another has made the block again and completed it.
func TestADeletionThatComesLateTakesNothingOfTheNextRunner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		sink := newSimSink(1)
		off := &offSink{Sink: sink, off: errors.New("away")}
		r.sink = off
		r.use()
		first, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := r.runner("planner").Run(first); err != nil {
			t.Fatal(err)
		}
		sink.addLocked("usage", []simRow{{block: 1}, {block: 1}}) // What a dead store left.
		sink.hold, off.off = 20*time.Second, nil
		r.run(r.runner("slow"))
		pass(time.Second) // Its deletion is on its way; of itself nothing more is heard.
		off.off = errors.New("dead")
		r.sink = sink
		r.run(r.runner("quick", func(c *projections.RunnerConfig) { c.Alone = false }))
		pass(10 * time.Second)
		if n := sink.firstUses(); n != 1 {
			t.Fatalf("%d rows before the late deletion, want the one of the quick runner", n)
		}
		pass(time.Minute)
		synctest.Wait()
		if n := sink.firstUses(); n != 1 {
			t.Errorf("%d rows after the late deletion, want 1", n)
		}
	})
}

// staleSink is the store as a runner meets it that had better stop: of the first token it
// remembers the use and not the rows, and an insert under the second is on its way for ever.
type staleSink struct {
	*simSink
	late func() error // Lets that one arrive.
}

func (s *staleSink) Insert(ctx context.Context, rows projections.Rows, token string) error {
	switch {
	case rows.Table != "usage":
		return s.simSink.Insert(ctx, rows, token)
	case strings.HasSuffix(token, "/0"):
		return nil
	}
	s.late = func() error { return s.simSink.Insert(context.WithoutCancel(ctx), rows, token) }
	<-ctx.Done()
	return ctx.Err()
}

// TestAnInsertUnderALaterTokenThatComesLateCountsOnce: by then another runner has made the
// block again, and the store has forgotten the first token.
func TestAnInsertUnderALaterTokenThatComesLateCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		sink := newSimSink(1)
		r.sink = &offSink{Sink: sink, off: errors.New("away")}
		r.use()
		first, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := r.runner("planner").Run(first); err != nil {
			t.Fatal(err)
		}
		stale := &staleSink{simSink: sink}
		r.sink = stale
		r.run(r.runner("slow"))
		pass(time.Second)
		synctest.Wait()
		if stale.late == nil {
			t.Fatal("nothing is on its way")
		}
		r.sink = sink
		r.run(r.runner("quick"))
		pass(10 * time.Second)
		if n := sink.firstUses(); n != 1 {
			t.Fatalf("%d rows before the late insert, want 1", n)
		}
		if err := stale.late(); err != nil {
			t.Fatal(err)
		}
		if n := sink.firstUses(); n != 1 {
			t.Errorf("%d rows after the late insert, want 1", n)
		}
	})
}

// miscounting is a store whose rows can never be counted right.
type miscounting struct{ projections.Sink }

func (m miscounting) Count(ctx context.Context, table string, block uint64) (uint64, error) {
	n, err := m.Sink.Count(ctx, table, block)
	return n + 2, err
}

func TestACountThatStaysWrongStopsTheRunner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		off := &offSink{Sink: r.sink, off: errors.New("away")}
		r.sink = off
		r.use()
		first, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := r.runner("first").Run(first); err != nil {
			t.Fatal(err)
		}
		off.off = nil
		r.sink = miscounting{r.sink}
		if err := r.runner("second").Run(t.Context()); err == nil || !strings.Contains(err.Error(), "rows of block 1") {
			t.Errorf("Run = %v, want an error that names the block", err)
		}
	})
}

func TestTrackerWaitsAndTellsBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		tracker := r.tracker(nil)
		if s := tracker.Status(); s.State != "unknown" {
			t.Errorf("state %q before the ledger was read", s.State)
		}
		r.run(tracker)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := tracker.Wait(ctx, 0); err != nil {
			t.Errorf("wait for position 0: %v", err)
		}
		if _, _, err := tracker.WaitBlock(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("WaitBlock without blocks = %v, want the deadline", err)
		}
		r.run(r.runner("h"))
		var last eventlog.Raw
		for i := range 3 {
			last = r.use()
			block, position, err := tracker.WaitBlock(t.Context(), uint64(i))
			if err != nil || block != uint64(i+1) || position != last.Position {
				t.Errorf("WaitBlock(%d) = %d, %d, %v; want %d, %d", i, block, position, err, i+1, last.Position)
			}
		}
		late := r.tracker(nil) // One that begins with a ledger that is there.
		r.run(late)
		if err := late.Wait(t.Context(), last.Position); err != nil {
			t.Fatal(err)
		}
		block, position, at := late.Completed()
		if block != 3 || position != last.Position || !at.Equal(last.RecordedAt) {
			t.Errorf("Completed = %d, %d, %s; want 3, %d, %s", block, position, at, last.Position, last.RecordedAt)
		}
	})
}

// TestTrackerCountsOnlyItsOwnGeneration holds generations apart whose names begin
// alike.
func TestTrackerCountsOnlyItsOwnGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		tracker := r.tracker(nil)
		r.run(tracker)
		r.use()
		r.run(r.runner("h", func(c *projections.RunnerConfig) { c.Generation = generation + "1" }))
		pass(time.Minute)
		if block, _, _ := tracker.Completed(); block != 0 {
			t.Errorf("block %d of another generation", block)
		}
	})
}

func TestRunnerConfigIsRefusedWithAllItsFaults(t *testing.T) {
	_, err := projections.NewRunner(projections.RunnerConfig{TakeoverAfter: -1})
	for _, want := range []string{"log", "sink", "generation", "holder", "clock", "metrics", "logger", "negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("NewRunner = %v, want it to name %q", err, want)
		}
	}
}

func TestALedgerThatIsNoneStopsNothingButItself(t *testing.T) {
	tests := []struct{ name, typ, data string }{
		{"an unknown event", "block.unheard.v9", `{}`},
		{"no JSON", "block.planned.v1", `{`},
		{"a plan that does not follow", "block.planned.v1", `{"block":7,"from":5,"to":9}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.use()
				r.log.recordRaw(projections.LedgerStream(generation), eventlog.Proposed{ID: domain.EventID{1}, Type: tt.typ, Data: []byte(tt.data)})
				runner := r.runner("h")
				r.run(runner)
				pass(time.Minute)
				synctest.Wait()
				if s := runner.Status(); s.State != projections.RunnerFailing || s.Err == nil {
					t.Errorf("status %+v, want a fault", s)
				}
				if n := len(r.log.stream(projections.LedgerStream(generation))); n != 1 {
					t.Errorf("%s: the ledger was written on, %d events", fmt.Sprint(tt.name), n)
				}
			})
		})
	}
}
