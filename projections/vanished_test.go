package projections_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/projections"
)

// TestRowsLostWhileNothingHappensAreMadeAgain takes acknowledged rows away from a runner that
// goes on, while no event comes and whatever its clock says.
func TestRowsLostWhileNothingHappensAreMadeAgain(t *testing.T) {
	for _, tt := range []struct {
		name string
		jump time.Duration
	}{{"the clock is right", 0}, {"the clock was set back", -40 * 24 * time.Hour}, {"the clock jumped ahead", 40 * 24 * time.Hour}} {
		t.Run(tt.name, func(t *testing.T) {
			rewound := 0
			rapid.Check(t, func(rt *rapid.T) {
				synctest.Test(t, func(*testing.T) {
					w := newWorld(rt)
					w.lossy = true
					h := &history{log: w.log, rng: rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "history seed"), 3))}
					var jump atomic.Int64
					r := w.runner("r", true, func(c *projections.RunnerConfig) {
						c.Now = func() time.Time { return now().Add(time.Duration(jump.Load())) }
					})
					ctx, cancel := context.WithCancel(context.Background())
					done := make(chan error, 1)
					go func() { done <- r.Run(ctx) }()
					h.grow(rapid.IntRange(1, 30).Draw(rt, "events"))
					pass(time.Minute)
					jump.Store(int64(tt.jump))
					w.sink.losePower(func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "loss") })
					pass(7 * time.Minute) // Five minutes between two counts, and a minute to look at the clock.
					w.check()
					cancel()
					if err := <-done; err != nil {
						rt.Fatalf("run: %v", err)
					}
					rewound += w.rewinds
				})
			})
			if rewound == 0 {
				t.Error("no ledger was ever rewound: nothing was tried")
			}
		})
	}
}

// TestAPartThatVanishesUnderARunningRunnerIsMadeAgain drops a part of a real table, as an
// engine does that commits an empty part for a merge on a full disk. Nobody restarts anything.
func TestAPartThatVanishesUnderARunningRunnerIsMadeAgain(t *testing.T) {
	for i, table := range []string{"usage", "activity", "key_states"} {
		t.Run(table, func(t *testing.T) {
			s := newStory(newStores(t), uint64(60+i))
			var jump atomic.Int64
			stop, tracker := s.start(smallBlocks, func(c *projections.RunnerConfig) {
				c.Now = func() time.Time { return now().Add(time.Duration(jump.Load())) }
			})
			defer stop()
			wait := func(position uint64) {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := tracker.Wait(ctx, position); err != nil {
					t.Fatalf("wait for %d: %v, status %+v", position, err, tracker.Status())
				}
			}
			wait(s.tell(60))
			if err := s.store.Exec(t.Context(), fmt.Sprintf("ALTER TABLE %s DROP PART '%s'", table, s.partOf(table))); err != nil {
				t.Fatal(err)
			}
			if s.verify().OK() {
				t.Fatal("nothing was lost")
			}
			jump.Store(int64(6 * time.Minute)) // The next count is due.
			last := s.tell(1)
			waitUntil(t, "the ledger is rewound", func() bool { return len(ledgerEvents[projections.LedgerRewound](s.stores, "ledger.rewound.v1")) == 1 })
			wait(last)
			s.mustBeExact()
			wait(s.tell(20))
			s.mustBeExact()
		})
	}
}

// partOf returns the name of the smallest part of a table that holds rows of events.
func (s *stores) partOf(table string) (name string) {
	s.tb.Helper()
	err := s.store.Row(s.tb.Context(), clickhouse.Select{
		Table: "system.parts", Scope: clickhouse.ScopeAll(), Columns: []string{"name"}, OrderBy: []string{"rows", "name"}, Limit: 1,
		Where: []clickhouse.Cond{clickhouse.Raw("active AND rows > 0 AND database = ? AND table = ?", s.store.Database(), table)},
	}, &name)
	if err != nil {
		s.tb.Fatal(err)
	}
	return name
}
