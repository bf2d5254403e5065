package projections_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/archive"
	"example.com/keytrail/internal/clickhouse/clickhousetest"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/projections"
)

// scavenged is a log of which readers do not get what was freed.
type scavenged struct {
	projections.Log
	freed map[string]uint64 // By stream: up to this revision.
}

func (l scavenged) Subscribe(ctx context.Context, opt eventlog.SubscribeOptions) (projections.Subscription, error) {
	sub, err := l.Log.Subscribe(ctx, opt)
	return scavengedSubscription{sub, l.freed}, err
}

func (l scavenged) ReadStream(ctx context.Context, stream string, from uint64, limit int) ([]eventlog.Raw, error) {
	if last, ok := l.freed[stream]; ok {
		from = max(from, last+1)
	}
	return l.Log.ReadStream(ctx, stream, from, limit)
}

type scavengedSubscription struct {
	projections.Subscription
	freed map[string]uint64
}

func (s scavengedSubscription) Next(ctx context.Context) (eventlog.Delivery, error) {
	for {
		d, err := s.Subscription.Next(ctx)
		if err != nil || d.Event == nil {
			return d, err
		}
		if last, ok := s.freed[d.Event.Stream]; !ok || d.Event.Revision > last {
			return d, nil
		}
	}
}

// old is a story of which the beginning of every usage stream was sealed and freed.
type old struct {
	*story

	dir   *archive.Dir
	log   scavenged
	seals []domain.UsageSegmentSealed
}

// newOld seals all but the newest two events of every usage stream, in two segments each.
func newOld(t *testing.T, seed uint64, keep bool) *old {
	t.Helper()
	o := &old{story: newStory(newStores(t), seed), dir: archive.At(filepath.Join(t.TempDir(), "a"))}
	o.project(o.tell(70), smallBlocks)
	o.log.Log = projections.NewLog(o.stores.log)
	dir := o.dir
	if !keep {
		dir = nil
	}
	o.seals, o.log.freed = o.sealMost(dir)
	o.roll(time.Minute) // Projects the seals, too.
	return o
}

// sealMost seals all but the newest two events of every usage stream, in two segments each,
// and returns the seals and up to which revision each stream is sealed.
func (s *story) sealMost(dir *archive.Dir) (seals []domain.UsageSegmentSealed, to map[string]uint64) {
	s.tb.Helper()
	to = map[string]uint64{}
	for slot := range 3 {
		stream := domain.UsageSlotStream("c", slot)
		events, err := s.log.ReadStream(s.tb.Context(), stream, 0, 1000)
		if err != nil || len(events) < 6 {
			s.tb.Fatalf("%d events in %s: %v", len(events), stream, err)
		}
		half, most := len(events)/2, len(events)-2
		first := makeSeal(domain.UsageSegmentSealed{}, events[:half], dir)
		second := makeSeal(first, events[half:most], dir)
		for _, seal := range []domain.UsageSegmentSealed{first, second} {
			s.record(domain.HorizonStream, seal, s.base)
			seals = append(seals, seal)
		}
		to[stream] = second.LastRevision
	}
	return seals, to
}

func (o *old) archived() *projections.ArchiveLog {
	return projections.NewArchiveLog(projections.ArchiveLogConfig{Log: o.log, Seals: archive.NewSeals(o.stores.log), Archives: map[string]*archive.Dir{"c": o.dir}})
}

func (o *old) verifyOld(change ...func(*projections.VerifyOptions)) (projections.Report, error) {
	opt := projections.VerifyOptions{Generation: generation}
	for _, c := range change {
		c(&opt)
	}
	return projections.Verify(o.tb.Context(), o.archived(), o.store, opt)
}

func (o *old) mustBeExactWith(change ...func(*projections.VerifyOptions)) projections.Report {
	o.tb.Helper()
	r, err := o.verifyOld(change...)
	if err != nil {
		o.tb.Fatal(err)
	}
	for _, d := range r.First {
		o.tb.Errorf("difference: %+v", d)
	}
	return r
}

// TestTablesAreVerifiedAcrossTheHorizon compares the tables with archive and log, and
// makes them anew from both.
func TestTablesAreVerifiedAcrossTheHorizon(t *testing.T) {
	o := newOld(t, 41, true)
	whole := o.mustBeExact() // While everything is still in the log.
	r := o.mustBeExactWith()
	if r.SealedEvents != 0 || r.Events != whole.Events || r.Rows["usage"] != whole.Rows["usage"] {
		t.Errorf("across the horizon %+v, from the log %+v", r, whole)
	}
	anew := &stores{tb: t, log: o.stores.log, store: clickhousetest.Store(t), next: o.next}
	if err := anew.store.Migrate(t.Context(), projections.Schema()); err != nil {
		t.Fatal(err)
	}
	anew.project(r.Position, smallBlocks, func(c *projections.RunnerConfig) {
		c.Log, c.Generation = o.archived(), "anew"
	})
	again, err := projections.Verify(t.Context(), projections.NewLog(o.stores.log), anew.store, projections.VerifyOptions{Generation: "anew"})
	if err != nil || !again.OK() || again.Rows["usage"] != whole.Rows["usage"] {
		t.Errorf("made anew from archive and log: %+v, %v", again, err)
	}
	name := o.seals[1].Archive.Name
	if err := os.Remove(filepath.Join(o.dir.Path(), name)); err != nil {
		t.Fatal(err)
	}
	if _, err := o.verifyOld(); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("a missing archive: %v", err)
	}
}

// TestWhatWasNotKeptIsVerifiedByItsSeal: the counts in the seals are all there is, and
// they are compared; tables cannot be made from them.
func TestWhatWasNotKeptIsVerifiedByItsSeal(t *testing.T) {
	o := newOld(t, 42, false)
	r := o.mustBeExactWith()
	var events, records uint64
	for _, s := range o.seals {
		events, records = events+s.Events, records+s.Records
	}
	if r.SealedEvents != events || r.SealedRecords != records || r.Hours == 0 {
		t.Errorf("%d events and %d records by seal, want %d and %d: %+v", r.SealedEvents, r.SealedRecords, events, records, r)
	}
	runner, err := projections.NewRunner(projections.RunnerConfig{
		Log: o.archived(), Sink: newSimSink(1), Generation: "anew", Holder: "h", Alone: true, Now: now, Metrics: newMetrics(t), Logger: discard,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- runner.Run(ctx) }()
	for !errors.Is(runner.Status().Err, projections.ErrNotKept) {
		select {
		case <-ctx.Done():
			t.Fatalf("the tables were made from less than the log held: %+v", runner.Status())
		case <-time.After(10 * time.Millisecond):
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	sealed := func(s domain.UsageSegmentSealed) uint64 { return s.FirstPosition }
	for name, sql := range map[string]string{
		"a use is deleted":              "DELETE FROM usage WHERE position = ? AND idx = 0",
		"a use is doubled":              "INSERT INTO usage SELECT * FROM usage WHERE position = ? ORDER BY idx LIMIT 1",
		"a use is another account's":    "INSERT INTO usage SELECT * REPLACE ('a9' AS account_id) FROM usage WHERE position = ? ORDER BY idx LIMIT 1",
		"a whole event's rows are gone": "DELETE FROM usage WHERE position = ?",
	} {
		t.Run(name, func(t *testing.T) {
			exec := func(sql string, args ...any) {
				t.Helper()
				if err := o.store.Exec(t.Context(), sql, args...); err != nil {
					t.Fatal(err)
				}
			}
			exec("CREATE TABLE good AS usage")
			exec("INSERT INTO good SELECT * FROM usage")
			exec(sql, sealed(o.seals[0]))
			if strings.Contains(name, "another") { // One account's row instead of another's: the count is right.
				exec("DELETE FROM usage WHERE position = ? AND idx = 0 AND account_id != 'a9'", sealed(o.seals[0]))
			}
			r, err := o.verifyOld()
			exec("TRUNCATE TABLE usage")
			exec("INSERT INTO usage SELECT * FROM good SETTINGS insert_deduplicate = 0")
			exec("DROP TABLE good")
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(r.First, func(d projections.Difference) bool { return d.Where == "usage" }) {
				t.Errorf("not found in usage: %+v", r.First)
			}
		})
	}
	o.mustBeExactWith()
}

// TestRowsThatTheTableNoLongerKeepsAreNotMissing drops rows as a TTL does, and plants
// faults into the rollups that stay.
func TestRowsThatTheTableNoLongerKeepsAreNotMissing(t *testing.T) {
	o := newOld(t, 43, true)
	since := func(opt *projections.VerifyOptions) { opt.KeptSince = now().Add(time.Minute) }
	if r := o.mustBeExactWith(since); r.Dropped != 0 {
		t.Errorf("%d rows dropped of a table that is whole", r.Dropped)
	}
	exec := func(sql string) {
		t.Helper()
		if err := o.store.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec("DELETE FROM usage WHERE position < (SELECT quantileExact(0.5)(position) FROM usage)")
	if r := o.mustBeExactWith(since); r.Dropped == 0 {
		t.Error("no row was dropped")
	}
	if r, err := o.verifyOld(); err != nil || r.OK() {
		t.Errorf("rows are missing that the table keeps, and that was not found: %+v, %v", r, err)
	}
	exec("CREATE TABLE good AS usage_hourly")
	exec("INSERT INTO good SELECT * FROM usage_hourly")
	for name, sql := range map[string]string{
		"a rollup that is left is less than its uses": "ALTER TABLE usage_hourly UPDATE count = 0 WHERE 1 SETTINGS mutations_sync = 2",
		"the rollups are gone":                        "TRUNCATE TABLE usage_hourly",
	} {
		t.Run(name, func(t *testing.T) {
			exec(sql)
			r, err := o.verifyOld(since)
			exec("TRUNCATE TABLE usage_hourly")
			exec("INSERT INTO usage_hourly SELECT * FROM good")
			if err != nil || !slices.ContainsFunc(r.First, func(d projections.Difference) bool { return d.Where == "usage_hourly" }) {
				t.Errorf("not found: %+v, %v", r.First, err)
			}
		})
	}
}
