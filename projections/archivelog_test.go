package projections_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/archive"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/projections"
)

// cutLog is a log of which ranges of usage were sealed, archived and scavenged.
type cutLog struct {
	*memLog

	dir  *archive.Dir
	last map[string]domain.UsageSegmentSealed
}

func newCutLog(path string) *cutLog {
	dir, err := archive.OpenDir(path)
	must(err)
	return &cutLog{memLog: newMemLog(now), dir: dir, last: map[string]domain.UsageSegmentSealed{}}
}

// usage appends a batch of n uses.
func (l *cutLog) usage(stream string, n int) eventlog.Raw {
	uses := make([]domain.Use, n)
	for i := range uses {
		uses[i] = domain.Use{ID: fmt.Sprintf("%d", i), Account: "a1", KeyID: "K", Time: l.now().UTC().Truncate(time.Millisecond), Action: "read"}
	}
	return l.record(stream, domain.UsageRecorded{Batch: batchOf(uses)}, l.now())
}

// seal seals the next n events of stream, with an archive or without.
func (l *cutLog) seal(stream string, n int, keep bool) domain.UsageSegmentSealed {
	before := l.last[stream]
	first := uint64(0)
	if before.Segment > 0 {
		first = before.LastRevision + 1
	}
	dir := l.dir
	if !keep {
		dir = nil
	}
	s := makeSeal(before, l.stream(stream)[first:first+uint64(n)], dir)
	l.last[stream] = s
	l.record(domain.HorizonStream, s, l.now())
	return s
}

// makeSeal seals events, which follow the segment before, and archives them if dir is not
// nil.
func makeSeal(before domain.UsageSegmentSealed, events []eventlog.Raw, dir *archive.Dir) domain.UsageSegmentSealed {
	first, last := events[0], events[len(events)-1]
	s := domain.UsageSegmentSealed{
		Stream: first.Stream, Segment: before.Segment + 1, FirstRevision: first.Revision, LastRevision: last.Revision, Previous: before.SHA256,
		FirstPosition: first.Position, LastPosition: last.Position, Events: uint64(len(events)), FirstRecordedAt: first.RecordedAt, LastRecordedAt: last.RecordedAt,
	}
	chain, err := archive.NewChain(s.Previous)
	must(err)
	var places []domain.Place
	sums := map[domain.AccountID]uint64{}
	for i := range events {
		chain.Add(&events[i])
		tables, err := projections.RowsOf(events[i], 1)
		must(err)
		rows := uint64(0)
		for _, t := range tables {
			if t.Table != "usage" {
				continue
			}
			rows = uint64(t.Len())
			for r := range t.Len() {
				account, _ := t.Row(r)[0].(string)
				sums[domain.AccountID(account)]++
			}
		}
		places = append(places, domain.Place{Position: events[i].Position, Records: rows})
		s.Records += rows
	}
	for account, n := range sums {
		s.Accounts = append(s.Accounts, domain.SegmentAccount{Account: account, Records: n})
	}
	s.SHA256, s.Places = chain.Sum(), domain.PackPlaces(places)
	if dir != nil {
		a, _, err := dir.Store(archive.Header{Stream: s.Stream, Segment: s.Segment, FirstRevision: s.FirstRevision, LastRevision: s.LastRevision, Previous: s.Previous}, seqOf(events))
		must(err)
		s.Archive = &a
	}
	return s
}

func seqOf(events []eventlog.Raw) iter.Seq2[eventlog.Raw, error] {
	return func(yield func(eventlog.Raw, error) bool) {
		for _, e := range events {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// scavenge frees the events of stream up to revision, as far as subscriptions see them.
func (l *cutLog) scavenge(stream string, revision uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = slices.DeleteFunc(l.all, func(e eventlog.Raw) bool { return e.Stream == stream && e.Revision <= revision })
}

func (l *cutLog) merged(change ...func(*projections.ArchiveLogConfig)) *projections.ArchiveLog {
	cfg := projections.ArchiveLogConfig{Log: l.memLog, Seals: archive.NewSeals(l.memLog), Archives: map[string]*archive.Dir{"c": l.dir}}
	for _, c := range change {
		c(&cfg)
	}
	return projections.NewArchiveLog(cfg)
}

// readTo reads evidence after a position up to another.
func readTo(ctx context.Context, log projections.Log, after, to uint64) ([]eventlog.Raw, error) {
	sub, err := log.Subscribe(ctx, eventlog.SubscribeOptions{Prefixes: []string{domain.EvidencePrefix}, After: after, FromStart: after == 0})
	if err != nil {
		return nil, err
	}
	defer sub.Close()
	var out []eventlog.Raw
	for {
		d, err := sub.Next(ctx)
		if err != nil {
			return out, err
		}
		if d.Event == nil {
			continue
		}
		if out = append(out, *d.Event); d.Event.Position >= to {
			return out, nil
		}
	}
}

// TestAnArchiveLogGivesEveryEventOnce makes random histories, seals and archives random
// ranges, scavenges random parts of those, and reads from random places.
func TestAnArchiveLogGivesEveryEventOnce(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		l := newCutLog(filepath.Join(path, fmt.Sprint(run)))
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 4))
		streams := []string{domain.UsageSlotStream("c", 0), domain.UsageSlotStream("c", 1), domain.UsageWriterStream("c", "n")}
		for range rapid.IntRange(5, 60).Draw(t, "events") {
			if rng.IntN(5) == 0 {
				l.record("kt.account-x", domain.AccountCreated{Account: "x"}, l.now())
				continue
			}
			l.usage(streams[rng.IntN(len(streams))], 1)
		}
		for _, stream := range streams {
			for free := len(l.stream(stream)) - 1; free > 0 && rng.IntN(5) > 0; {
				n := 1 + rng.IntN(free)
				l.seal(stream, n, true)
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
		got, err := readTo(context.Background(), l.merged(), after, want[len(want)-1].Position)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("after %d (-log +read):\n%s", after, d)
		}
	})
}

func TestWhatIsNeitherInTheLogNorKeptIsAnError(t *testing.T) {
	t.Parallel()
	const stream = "kt.usage-c-00"
	tests := []struct {
		name    string
		prepare func(t *testing.T, l *cutLog, seal domain.UsageSegmentSealed)
		keep    bool
		change  func(*cutLog, *projections.ArchiveLogConfig)
		is      error
		says    string
		gives   int // Events, where nothing is wrong.
	}{
		{name: "all is there", keep: true, gives: 7},
		{name: "no archive, all in the log", gives: 7},
		{name: "no archive, cut", is: projections.ErrNotKept, says: "revision 0 to 2", prepare: func(_ *testing.T, l *cutLog, _ domain.UsageSegmentSealed) { l.scavenge(stream, 2) }},
		{name: "no archive, cut, and other tables hold the rows", gives: 7, change: carryAll, prepare: func(_ *testing.T, l *cutLog, _ domain.UsageSegmentSealed) { l.scavenge(stream, 2) }},
		{name: "cut beyond the seal, though other tables hold the rows", says: "revision 3 to 3", change: carryAll, prepare: func(_ *testing.T, l *cutLog, _ domain.UsageSegmentSealed) { l.scavenge(stream, 3) }},
		{name: "no archive, cut, and other tables hold less", change: carryNone, says: "hold 0 rows of kt.usage-c-00@0", prepare: func(_ *testing.T, l *cutLog, _ domain.UsageSegmentSealed) { l.scavenge(stream, 2) }},
		{name: "no archive, cut, and there are no other tables", change: carryNowhere, is: projections.ErrNotKept, says: "sealed as segment 1", prepare: func(_ *testing.T, l *cutLog, _ domain.UsageSegmentSealed) { l.scavenge(stream, 2) }},
		{name: "the file is gone", keep: true, says: "FILE", prepare: func(t *testing.T, l *cutLog, s domain.UsageSegmentSealed) {
			t.Helper()
			if err := os.Remove(filepath.Join(l.dir.Path(), s.Archive.Name)); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "the file is damaged", keep: true, is: archive.ErrDamaged, says: "FILE", prepare: func(t *testing.T, l *cutLog, s domain.UsageSegmentSealed) {
			t.Helper()
			l.scavenge(stream, 2)
			if err := os.Truncate(filepath.Join(l.dir.Path(), s.Archive.Name), int64(s.Archive.Bytes)-1); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "no folder is named", keep: true, says: "FILE", change: func(_ *cutLog, c *projections.ArchiveLogConfig) { c.Archives = nil }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newCutLog(t.TempDir())
			for range 5 {
				l.usage(stream, 2)
			}
			l.record("kt.account-x", domain.AccountCreated{Account: "x"}, l.now())
			last := l.usage(stream, 2)
			seal := l.seal(stream, 3, tt.keep)
			if tt.prepare != nil {
				tt.prepare(t, l, seal)
			}
			got, err := readTo(t.Context(), l.merged(func(c *projections.ArchiveLogConfig) {
				if tt.change != nil {
					tt.change(l, c)
				}
			}), 0, last.Position)
			if tt.gives > 0 {
				if err != nil || len(got) != tt.gives {
					t.Fatalf("%d events: %v", len(got), err)
				}
				return
			}
			says := tt.says
			if says == "FILE" {
				says = seal.Archive.Name
			}
			if err == nil || !strings.Contains(err.Error(), says) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("error %v, want %v that says %q", err, tt.is, says)
			}
		})
	}
}

// TestARangeCutWhileItIsReadIsSeen seals and scavenges behind a reader's back.
func TestARangeCutWhileItIsReadIsSeen(t *testing.T) {
	t.Parallel()
	const stream = "kt.usage-c-00"
	l := newCutLog(t.TempDir())
	for range 6 {
		l.usage(stream, 1)
	}
	sub, err := l.merged().Subscribe(t.Context(), eventlog.SubscribeOptions{Prefixes: []string{domain.EvidencePrefix}, FromStart: true})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if _, err := sub.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.seal(stream, 4, true)
	l.scavenge(stream, 3)
	if d, err := sub.Next(t.Context()); err == nil {
		t.Errorf("got %+v after a hole", d.Event)
	}
}
