package projections_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/internal/clickhouse/clickhousetest"
	"example.com/keytrail/projections"
)

// TestRollupsFollowLateRecords rolls up hours, adds records to them, and looks at
// which hours are clean and whether every rollup is the sum of its uses.
func TestRollupsFollowLateRecords(t *testing.T) {
	s := newStory(newStores(t), 21)
	began := now()
	var later atomic.Int64 // By how much the roller's clock is ahead.
	roller, err := projections.NewRoller(projections.RollerConfig{
		Store: s.store, Now: func() time.Time { return began.Add(time.Duration(later.Load())) }, Metrics: newMetrics(t), Logger: clickhousetest.Logger(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	stop, tracker := s.start(smallBlocks, func(c *projections.RunnerConfig) { c.Roller = roller })
	defer stop()
	roll := func(want bool) {
		t.Helper()
		n, err := roller.Roll(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if (n > 0) != want {
			t.Errorf("%d hours rolled up, want some: %t", n, want)
		}
	}
	roll(false)
	waitFor(t, tracker, s.tell(30))
	roll(false) // The hours were touched just now.
	if r := s.mustBeExact(); r.Hours != 0 || r.HoursDirty == 0 {
		t.Errorf("%d clean and %d dirty hours before any rollup", r.Hours, r.HoursDirty)
	}
	later.Add(int64(3 * time.Second))
	roll(true)
	roll(false) // Nothing is left.
	clean := s.mustBeExact()
	if clean.Hours == 0 || clean.HoursDirty != 0 {
		t.Errorf("%d clean and %d dirty hours after the rollup", clean.Hours, clean.HoursDirty)
	}
	late := domain.Use{ID: "late", Account: "a1", KeyID: "K-1", Time: s.base.Add(time.Minute), Action: "late", Outcome: domain.OutcomeFailure, Bytes: 5, Source: "203.0.113.3"}
	waitFor(t, tracker, s.record("kt.usage-c-01", domain.UsageRecorded{Batch: batchOf([]domain.Use{late})}, s.base))
	if r := s.mustBeExact(); r.HoursDirty != 1 {
		t.Errorf("%d hours are dirty after one late record, want 1", r.HoursDirty)
	}
	later.Add(int64(3 * time.Second))
	roll(true)
	if r := s.mustBeExact(); r.HoursDirty != 0 || r.Hours != clean.Hours {
		t.Errorf("%d clean and %d dirty hours after the second rollup", r.Hours, r.HoursDirty)
	}
	var count, addresses uint64
	err = s.store.Row(t.Context(), clickhouse.Select{
		Table: "usage_hourly", Final: true, Scope: clickhouse.ScopeAccounts("a1"), Columns: []string{"sum(count)", "uniqExactMerge(addresses)"},
		Where: []clickhouse.Cond{clickhouse.Eq("action", "late")},
	}, &count, &addresses)
	if err != nil || count != 1 || addresses != 1 {
		t.Errorf("the late record is counted %d times from %d addresses: %v", count, addresses, err)
	}
}

// TestARestartedRollerFindsTheDirtyHours gives a roller that saw none of the blocks.
func TestARestartedRollerFindsTheDirtyHours(t *testing.T) {
	s := newStory(newStores(t), 22)
	s.project(s.tell(20))
	roller, err := projections.NewRoller(projections.RollerConfig{
		Store: s.store, Now: now, Metrics: newMetrics(t), Logger: clickhousetest.Logger(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	stop, tracker := s.start(func(c *projections.RunnerConfig) { c.Roller = roller })
	defer stop()
	waitFor(t, tracker, s.keyFact()) // Touches no hour, but the runner is up.
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- roller.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("roller: %v", err)
		}
	}()
	deadline := time.After(time.Minute)
	for {
		var dirty uint64
		err := s.store.Row(t.Context(), clickhouse.Select{
			From: clickhouse.Select{
				Table: "usage_buckets", Scope: clickhouse.ScopeAll(), Columns: []string{"account_id", "hour"},
				GroupBy: []string{"account_id", "hour"}, Having: []clickhouse.Cond{clickhouse.Raw("max(dirty) > max(clean)")},
			}, Columns: []string{"count()"},
		}, &dirty)
		if err != nil {
			t.Fatal(err)
		}
		if dirty == 0 {
			break
		}
		select {
		case <-deadline:
			t.Fatalf("%d hours are still dirty", dirty)
		case <-time.After(50 * time.Millisecond):
		}
	}
	if r := s.mustBeExact(); r.Hours == 0 {
		t.Error("no hour was compared")
	}
}
