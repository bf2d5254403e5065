package projections_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/internal/clickhouse/clickhousetest"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/projections"
)

// moving is a story that goes on: blocks are written and rollups made anew until stop.
type moving struct {
	*story

	roller  *projections.Roller
	tracker *projections.Tracker
	rolled  atomic.Int64
	rolls   chan struct{} // A roll ended, if somebody waits for that.
}

// newMoving starts a runner and a roller that takes every hour for quiet. stop ends
// both; the test fails if they broke.
func newMoving(t *testing.T, seed uint64) (m *moving, stop func()) {
	t.Helper()
	m = &moving{story: newStory(newStores(t), seed), rolls: make(chan struct{})}
	var err error
	m.roller, err = projections.NewRoller(projections.RollerConfig{
		Store: m.store, Metrics: newMetrics(t), Logger: clickhousetest.Logger(t),
		Now: func() time.Time { return now().Add(time.Duration(m.rolled.Load()) * time.Hour) },
	})
	if err != nil {
		t.Fatal(err)
	}
	end, tracker := m.start(smallBlocks, func(c *projections.RunnerConfig) { c.Roller = m.roller })
	m.tracker = tracker
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.rollOn(ctx) }()
	return m, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("roller: %v", err)
		}
		end()
	}
}

// rollOn makes rollups as fast as it can.
func (m *moving) rollOn(ctx context.Context) error {
	for ctx.Err() == nil {
		m.rolled.Add(1)
		if _, err := m.roller.Roll(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case m.rolls <- struct{}{}:
		default:
		}
	}
	return nil
}

// TestVerifyRaisesNoFalseAlarmWhileTheTablesMove verifies again and again while blocks
// come in that touch the same hours, keys and violations, and rollups are made anew.
func TestVerifyRaisesNoFalseAlarmWhileTheTablesMove(t *testing.T) {
	m, stop := newMoving(t, 31)
	defer stop()
	waitFor(t, m.tracker, m.tell(60))
	for range 2 {
		<-m.rolls
	}
	m.base = m.base.Add(24 * time.Hour) // The hours so far stay clean, the others are touched over and over.
	told := make(chan struct{})
	enough := make(chan struct{})
	go func() {
		defer close(told)
		for {
			select {
			case <-enough:
				return
			default:
			}
			m.tell(6)
		}
	}()
	compared := uint64(0)
	first, last := uint64(0), uint64(0)
	for i := range 8 {
		r, err := projections.Verify(t.Context(), projections.NewLog(m.log), m.store, projections.VerifyOptions{Generation: generation})
		if err != nil {
			t.Error(err)
			break
		}
		for _, d := range r.First {
			t.Errorf("verification %d at block %d: %+v", i, r.Block, d)
		}
		if compared += r.Hours; i == 0 {
			first = r.Block
		}
		last = r.Block
	}
	close(enough)
	<-told
	if first == last {
		t.Errorf("no block was completed between the first verification and the last: nothing moved")
	}
	if compared == 0 {
		t.Error("no hour's rollup was compared in any verification")
	}
	t.Logf("blocks %d to %d, %d hours compared", first, last, compared)
}

// TestVerifyFindsPlantedFaultsWhileTheTablesMove plants faults into what was completed
// and goes on writing elsewhere.
func TestVerifyFindsPlantedFaultsWhileTheTablesMove(t *testing.T) {
	m, stop := newMoving(t, 32)
	defer stop()
	waitFor(t, m.tracker, m.tell(60))
	faults := []struct{ name, where, plant string }{
		{"a use is deleted", "usage", "DELETE FROM usage WHERE use_id = (SELECT min(use_id) FROM usage)"},
		{"a use is doubled", "usage", "INSERT INTO usage SELECT * FROM usage ORDER BY position, idx LIMIT 1"},
		{"an activity record is changed", "activity", "ALTER TABLE activity UPDATE message = 'x' WHERE position = (SELECT min(position) FROM activity) SETTINGS mutations_sync = 2"},
		{"a key state is deleted", "key_states", "DELETE FROM key_states WHERE position = (SELECT min(position) FROM key_states)"},
		{"a violation is taken back", "use_violations", "INSERT INTO use_violations SELECT * REPLACE (1 AS retracted) FROM use_violations FINAL WHERE retracted = 0 ORDER BY position, idx LIMIT 1"},
	}
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			if err := m.store.Exec(t.Context(), f.plant); err != nil {
				t.Fatal(err)
			}
			position := m.tell(5)
			r, err := projections.Verify(t.Context(), projections.NewLog(m.log), m.store, projections.VerifyOptions{Generation: generation})
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, d := range r.First {
				found = found || d.Where == f.where
			}
			if !found {
				t.Errorf("not found among %d differences: %+v", r.Differences, r.First)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := m.tracker.Wait(ctx, position); err != nil {
				t.Fatal(errors.Join(err, errors.New("the runner stands still")))
			}
		})
	}
}

// interrupted is a log that does something right after the ledger was read first.
type interrupted struct {
	projections.Log
	once *sync.Once
	then func()
}

func (l interrupted) ReadStreamBackwards(ctx context.Context, stream string, from *uint64, limit int) ([]eventlog.Raw, error) {
	events, err := l.Log.ReadStreamBackwards(ctx, stream, from, limit)
	if stream == projections.LedgerStream(generation) {
		l.once.Do(l.then)
	}
	return events, err
}

// TestAViolationTakenBackMeanwhileIsNoDifference projects a late fact, by which a violation
// never was one, between the verification's look at the ledger and its look at the tables.
func TestAViolationTakenBackMeanwhileIsNoDifference(t *testing.T) {
	s := newStory(newStores(t), 33)
	fact := func(minute int, disabled bool) uint64 {
		state := keyState("K-9")
		state.Disabled = disabled
		return s.record(domain.ExternalKeyStream("a1", "K-9"), domain.KeyObserved{Fact: domain.ObservedDisabled, SourceEvent: fmt.Sprint(minute), After: state}, s.base.Add(time.Duration(minute)*time.Minute))
	}
	fact(0, false)
	fact(10, true)
	use := domain.Use{ID: "u", Account: "a1", KeyID: "K-9", Time: s.base.Add(30 * time.Minute), Action: "read", Source: "192.0.2.1"}
	s.project(s.record("kt.usage-c-00", domain.UsageRecorded{Batch: batchOf([]domain.Use{use})}, s.base))
	var listed uint64
	count := func() {
		t.Helper()
		err := s.store.Row(t.Context(), clickhouse.Select{
			Table: "use_violations", Final: true, Scope: clickhouse.ScopeAll(), Columns: []string{"count()"}, Where: []clickhouse.Cond{clickhouse.Raw("retracted = 0")},
		}, &listed)
		if err != nil {
			t.Fatal(err)
		}
	}
	if count(); listed != 1 {
		t.Fatalf("%d violations, want 1", listed)
	}
	log := interrupted{projections.NewLog(s.log), &sync.Once{}, func() { s.project(fact(20, false)) }}
	r, err := projections.Verify(t.Context(), log, s.store, projections.VerifyOptions{Generation: generation})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range r.First {
		t.Errorf("difference: %+v", d)
	}
	if count(); listed != 0 {
		t.Errorf("%d violations after the late fact, want none: nothing was taken back", listed)
	}
}
