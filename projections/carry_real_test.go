package projections_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/archive"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/projections"
)

// cutCluster is a cluster of which the log lost most of its usage, archived nowhere.
type cutCluster struct {
	*cluster

	freed map[string]uint64
	seals []domain.UsageSegmentSealed
}

// newCutCluster makes the live tables while the log is whole, and then cuts it.
func newCutCluster(t *testing.T, seed uint64) *cutCluster {
	t.Helper()
	c := &cutCluster{cluster: newCluster(t, seed)}
	n, stop := c.node()
	defer stop()
	c.await(n, c.tell(120))
	c.seals, c.freed = c.sealMost(nil)
	c.await(n, c.keyFact())
	return c
}

// whole is the log as nodes and verification have it.
func (c *cutCluster) whole() *projections.ArchiveLog {
	return projections.NewArchiveLog(projections.ArchiveLogConfig{
		Log: scavenged{projections.NewLog(c.log), c.freed}, Seals: archive.NewSeals(c.log), Archives: map[string]*archive.Dir{},
	})
}

// start starts a node on the cut log.
func (c *cutCluster) start() (n *projections.Node, stop func()) {
	c.tb.Helper()
	return c.node(func(cfg *projections.NodeConfig) { cfg.Log = c.whole() })
}

// sums returns how many events and records were sealed.
func (c *cutCluster) sums() (events, records uint64) {
	for _, s := range c.seals {
		events, records = events+s.Events, records+s.Records
	}
	return events, records
}

// verify verifies the tables of a generation.
func (c *cutCluster) verify(n *projections.Node, name string) projections.Report {
	c.tb.Helper()
	t, ok := n.Named(name)
	if !ok {
		c.tb.Fatalf("no tables of generation %s", name)
	}
	store, err := t.Store()
	if err != nil {
		c.tb.Fatal(err)
	}
	r, err := projections.Verify(c.tb.Context(), c.whole(), store, projections.VerifyOptions{Generation: name})
	if err != nil {
		c.tb.Fatal(err)
	}
	return r
}

// mustHoldCarried verifies tables of which all that was cut was carried over.
func (c *cutCluster) mustHoldCarried(n *projections.Node, name string) {
	c.tb.Helper()
	r := c.verify(n, name)
	for _, d := range r.First {
		c.tb.Errorf("generation %s: %+v", name, d)
	}
	events, records := c.sums()
	if r.CarriedEvents != events || r.CarriedRecords != records || r.SealedEvents != events || r.SealedRecords != records {
		c.tb.Errorf("generation %s: %d events and %d records carried over of %d and %d; by seal %d and %d", name,
			r.CarriedEvents, r.CarriedRecords, events, records, r.SealedEvents, r.SealedRecords)
	}
}

// stuckLog stands still at an append to a stream, before or after it happens.
type stuckLog struct {
	projections.Log

	stream string
	after  bool

	mu    sync.Mutex
	left  int
	stuck chan struct{}
}

func (l *stuckLog) Append(ctx context.Context, stream string, exp eventlog.Expected, events ...eventlog.Proposed) (eventlog.Appended, error) {
	l.mu.Lock()
	if stream == l.stream {
		l.left--
	}
	now := stream == l.stream && l.left == 0
	l.mu.Unlock()
	if !now {
		return l.Log.Append(ctx, stream, exp, events...)
	}
	if l.after {
		if at, err := l.Log.Append(ctx, stream, exp, events...); err != nil {
			return at, err
		}
	}
	close(l.stuck)
	<-ctx.Done()
	return eventlog.Appended{}, fmt.Errorf("append: %w", eventlog.ErrOutcomeUnknown)
}

// TestWhatWasCutAndArchivedNowhereIsCarriedOver makes tables anew from a log that lost most
// of its usage, with nodes that die in the middle, and again from those tables.
func TestWhatWasCutAndArchivedNowhereIsCarriedOver(t *testing.T) {
	c := newCutCluster(t, 51)
	for i, kill := range []struct {
		appends int // To the new ledger: plans and completions.
		after   bool
	}{{3, true}, {4, false}, {6, false}, {9, true}} {
		log := &stuckLog{stream: projections.LedgerStream("two"), after: kill.after, left: kill.appends, stuck: make(chan struct{})}
		n, stop := c.node(func(cfg *projections.NodeConfig) {
			archives := c.whole()
			log.Log = archives.Log
			cfg.Log = projections.NewArchiveLog(projections.ArchiveLogConfig{Log: log, Seals: archive.NewSeals(c.log)})
		})
		if i == 0 {
			if err := n.Rebuild(t.Context(), "two", "ann", false); err != nil {
				t.Fatal(err)
			}
		}
		<-log.stuck
		stop()
	}
	n, stop := c.start()
	defer func() { stop() }()
	waitUntil(t, "the new tables answer", func() bool {
		if g := generationOf(n, "two"); g.State == projections.GenerationDiffers {
			t.Fatalf("the new tables differ: %+v", g.Compared)
		}
		return n.Live().Name == "two"
	})
	events, records := c.sums()
	if g := generationOf(n, "two"); g.Compared.Differences != 0 || g.Compared.CarriedEvents != events || g.Compared.CarriedRows != records {
		t.Errorf("compared: %+v, want %d events and %d rows carried over", g.Compared, events, records)
	}
	c.mustHoldCarried(n, "two")
	if err := n.Drop(t.Context(), "1", "ann"); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the old database is removed", func() bool { return slices.Equal(c.databases(), []string{"two"}) })
	stop()
	n, stop = c.start() // Where nothing holds the rows but these tables.
	c.await(n, c.tell(10))
	c.mustHoldCarried(n, "two")
	if err := n.Rebuild(t.Context(), "three", "ann", false); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "tables made from carried ones answer", func() bool { return n.Live().Name == "three" })
	c.mustHoldCarried(n, "three")
	t.Logf("%d events with %d records carried over", events, records)
}

// TestWhatLiveTablesLackIsNotCarriedOver damages the live tables, the only ones that hold
// what was cut.
func TestWhatLiveTablesLackIsNotCarriedOver(t *testing.T) {
	c := newCutCluster(t, 52)
	first := c.seals[0].FirstPosition
	count := fmt.Sprintf("FROM usage WHERE position = %d", first)
	t.Run("a row is lost", func(t *testing.T) {
		c.exec("1", "CREATE TABLE good AS usage")
		c.exec("1", "INSERT INTO good SELECT * FROM usage")
		n, stop := c.start()
		defer stop()
		waitUntil(t, "the tables were counted", func() bool { return n.Live().Holding() })
		c.exec("1", "DELETE "+count+" AND idx = 0")
		err := n.Rebuild(t.Context(), "lost", "ann", true)
		if domain.CodeOf(err) != domain.Conflict || !strings.Contains(err.Error(), "the ledger says") || generationOf(n, "lost").Name != "" {
			t.Errorf("Rebuild = %v, want a refusal", err)
		}
		c.exec("1", "TRUNCATE TABLE usage")
		c.exec("1", "INSERT INTO usage SELECT * FROM good SETTINGS insert_deduplicate = 0")
	})
	t.Run("a row is at another's place", func(t *testing.T) {
		n, stop := c.start()
		defer stop()
		c.exec("1", "INSERT INTO usage SELECT * REPLACE (position + 1 AS position) FROM (SELECT * "+count+" AND idx = 0)")
		c.exec("1", "DELETE "+count+" AND idx = 0")
		if err := n.Rebuild(t.Context(), "moved", "ann", true); err != nil {
			t.Fatal(err)
		}
		says := ""
		waitUntil(t, "the runner stops", func() bool {
			tables, ok := n.Named("moved")
			if !ok {
				return false
			}
			s, _ := tables.Runner()
			if s.Err != nil {
				says = s.Err.Error()
			}
			return s.State == projections.RunnerStopped && s.Err != nil
		})
		if !strings.Contains(says, "they cannot be carried over") || n.Live().Name != "1" {
			t.Errorf("it says %q; live is %s", says, n.Live().Name)
		}
	})
}

// TestVerifyFindsAFalseClaimOfWhatWasCarriedOver tampers with what a ledger says of it.
func TestVerifyFindsAFalseClaimOfWhatWasCarriedOver(t *testing.T) {
	c := newCutCluster(t, 53)
	n, stop := c.start()
	defer stop()
	if err := n.Rebuild(t.Context(), "two", "ann", false); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the new tables answer", func() bool { return n.Live().Name == "two" })
	store, err := n.Live().Store()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, typ, old, with string }{
		{"more rows", "block.planned.v1", `"carried":[{"stream":"kt.usage-c-00","first_revision":0,"last_revision":`, `"carried":[{"stream":"kt.usage-c-00","first_revision":0,"last_revision":1`},
		{"another stream", "block.planned.v1", `"carried":[{"stream":"kt.usage-c-0`, `"carried":[{"stream":"kt.usage-c-1`},
		{"nothing", "block.planned.v1", `"carried":`, `"was_carried":`},
		{"another sum", "block.completed.v1", `"carried_rows":`, `"carried_rows":1`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			changed := -1 // Revision of the one event that is another.
			log := c.whole()
			log = projections.NewArchiveLog(projections.ArchiveLogConfig{Log: brokenLedger{log.Log, func(events []eventlog.Raw) []eventlog.Raw {
				for i := range events {
					text, at := string(events[i].Data), int(events[i].Revision)
					if events[i].Type == tt.typ && (changed < 0 || changed == at) && strings.Contains(text, tt.old) {
						events[i].Data, changed = []byte(strings.Replace(text, tt.old, tt.with, 1)), at
					}
				}
				return events
			}}, Seals: archive.NewSeals(c.log)})
			r, err := projections.Verify(t.Context(), log, store, projections.VerifyOptions{Generation: "two"})
			if err != nil || changed < 0 {
				t.Fatalf("event changed: %d; %v", changed, err)
			}
			if r.OK() {
				t.Error("not found")
			}
		})
	}
}
