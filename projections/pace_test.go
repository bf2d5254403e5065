package projections_test

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"example.com/keytrail/projections"
)

// slowSink takes its time for every insert.
type slowSink struct {
	projections.Sink
	took time.Duration
}

func (s *slowSink) Insert(ctx context.Context, rows projections.Rows, token string) error {
	pass(s.took)
	return s.Sink.Insert(ctx, rows, token)
}

// flood records a key event every millisecond for d.
func (r *rig) flood(d time.Duration) {
	for range d / time.Millisecond {
		r.key()
		pass(time.Millisecond)
	}
}

func TestBlocksAreStretchedWhileEventsKeepComing(t *testing.T) {
	for _, tt := range []struct {
		name     string
		took     time.Duration
		min, max int // Blocks in ten seconds.
	}{
		{"a fast store is written to every 50 ms", 0, 190, 210},
		{"writing takes an eighth of the time", 50 * time.Millisecond, 22, 28},
		{"a slow store is written to every second", 400 * time.Millisecond, 9, 11},
		{"a store that is too slow is always written to", 1500 * time.Millisecond, 6, 7},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.sink = &slowSink{Sink: r.sink, took: tt.took}
				r.run(r.runner("h"))
				r.flood(time.Second) // It has no block to go by at first.
				before := len(r.plans())
				r.flood(10 * time.Second)
				if got := len(r.plans()) - before; got < tt.min || got > tt.max {
					t.Errorf("%d blocks, want %d to %d", got, tt.min, tt.max)
				}
				pass(10 * time.Second)
				synctest.Wait()
				before = len(r.plans())
				r.key()
				pass(51 * time.Millisecond)
				synctest.Wait()
				if got := len(r.plans()) - before; got != 1 {
					t.Errorf("%d blocks 50 ms after one event in a quiet log, want 1", got)
				}
			})
		})
	}
}

// TestNoEventIsHeldLongerThanASecond: an event is in a plan a second after it was
// recorded, or as soon as the writer has written the block before.
func TestNoEventIsHeldLongerThanASecond(t *testing.T) {
	for _, took := range []time.Duration{0, 10 * time.Millisecond, 130 * time.Millisecond, 600 * time.Millisecond, 3 * time.Second} {
		t.Run(took.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.sink = &slowSink{Sink: r.sink, took: took}
				r.run(r.runner("h"))
				r.flood(13 * time.Second)
				pass(10 * time.Second)
				synctest.Wait()
				held, evidence := time.Duration(0), r.log.evidence()
				for _, raw := range r.log.stream(projections.LedgerStream(generation)) {
					if raw.Type != "block.planned.v1" {
						continue
					}
					var plan projections.BlockPlanned
					must(json.Unmarshal(raw.Data, &plan))
					for ; len(evidence) > 0 && evidence[0].Position <= plan.To; evidence = evidence[1:] {
						held = max(held, raw.RecordedAt.Sub(evidence[0].RecordedAt))
					}
				}
				if len(evidence) > 0 {
					t.Errorf("%d events are in no block", len(evidence))
				}
				if limit := max(time.Second, 2*took) + time.Millisecond; held > limit {
					t.Errorf("an event was held for %s, at most %s is right", held, limit)
				}
			})
		})
	}
}

func TestBlocksAreStretchedLessWhileSomebodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.sink = &slowSink{Sink: r.sink, took: 100 * time.Millisecond}
		runner := r.runner("h")
		tracker := r.tracker(runner)
		r.run(runner)
		r.run(tracker)
		count := func() int {
			before := len(r.plans())
			r.flood(8 * time.Second)
			return len(r.plans()) - before
		}
		r.flood(time.Second)
		if got := count(); got < 9 || got > 11 {
			t.Errorf("nobody waits: %d blocks in 8 s, want 10", got)
		}
		waiting, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- tracker.Wait(waiting, 1<<62) }() // It will never be reached.
		if got := count(); got < 36 || got > 42 {
			t.Errorf("somebody waits: %d blocks in 8 s, want 40", got)
		}
		stop()
		if err := <-ended; err == nil {
			t.Error("a wait for what never comes ended well")
		}
		if got := count(); got < 9 || got > 12 {
			t.Errorf("nobody waits any more: %d blocks in 8 s, want 10", got)
		}
	})
}

// TestWhoWaitsForItsWriteWaitsLessThanTwoSeconds: a list waits that long at most.
func TestWhoWaitsForItsWriteWaitsLessThanTwoSeconds(t *testing.T) {
	for _, took := range []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, 400 * time.Millisecond, 900 * time.Millisecond} {
		t.Run(took.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.sink = &slowSink{Sink: r.sink, took: took}
				runner := r.runner("h")
				tracker := r.tracker(runner)
				r.run(runner)
				r.run(tracker)
				r.flood(3 * time.Second)
				for range 20 {
					r.flood(37 * time.Millisecond)
					evidence := r.log.evidence()
					began := now()
					if err := tracker.Wait(t.Context(), evidence[len(evidence)-1].Position); err != nil {
						t.Fatal(err)
					}
					// Its block begins when the one before is written, or twice as long after
					// that was cut, and is written itself.
					if waited := now().Sub(began); waited > max(50*time.Millisecond, 2*took)+took {
						t.Errorf("waited %s for the newest event", waited)
					}
				}
			})
		})
	}
}
