package projections_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/internal/clickhouse/clickhousetest"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/projections"
)

// databases numbers the sets of generations of this test binary.
var databases atomic.Int64

// cluster is nodes on one pair of stores, with a database for each generation.
type cluster struct {
	*story

	prefix string
}

func newCluster(t *testing.T, seed uint64) *cluster {
	t.Helper()
	s := &stores{tb: t, log: newLog(t), next: map[string]eventlog.Expected{}}
	c := &cluster{story: newStory(s, seed), prefix: fmt.Sprintf("node_%d_", databases.Add(1))}
	t.Cleanup(func() { c.dropAll() })
	return c
}

func (c *cluster) open(name string) (*clickhouse.Store, error) {
	return clickhouse.New(clickhouse.Config{
		Socket: clickhousetest.Server(c.tb).Socket(), Database: c.prefix + name, Logger: clickhousetest.Logger(c.tb),
	})
}

// databases returns the databases of the cluster's generations.
func (c *cluster) databases() []string {
	c.tb.Helper()
	ctx := context.WithoutCancel(c.tb.Context())
	store, err := clickhouse.New(clickhouse.Config{Socket: clickhousetest.Server(c.tb).Socket(), Database: "system", Logger: clickhousetest.Logger(c.tb)})
	must(err)
	defer func() { must(store.Close()) }()
	rows, err := store.Query(ctx, clickhouse.Select{
		Table: "system.databases", Scope: clickhouse.ScopeAll(), Columns: []string{"name"}, OrderBy: []string{"name"},
		Where: []clickhouse.Cond{clickhouse.Raw("startsWith(name, ?)", c.prefix)},
	})
	must(err)
	var names []string
	for rows.Next() {
		var name string
		must(rows.Scan(&name))
		names = append(names, strings.TrimPrefix(name, c.prefix))
	}
	must(errors.Join(rows.Err(), rows.Close()))
	return names
}

func (c *cluster) dropAll() {
	for _, name := range c.databases() {
		c.exec(name, "DROP DATABASE `"+c.prefix+name+"` SYNC")
	}
}

func (c *cluster) exec(generation, sql string) {
	c.tb.Helper()
	store, err := c.open(generation)
	must(err)
	defer func() { must(store.Close()) }()
	if err := store.Exec(context.WithoutCancel(c.tb.Context()), sql); err != nil {
		c.tb.Fatalf("%s: %v", sql, err)
	}
}

// node starts a node; stop ends it and waits.
func (c *cluster) node(change ...func(*projections.NodeConfig)) (n *projections.Node, stop func()) {
	c.tb.Helper()
	cfg := projections.NodeConfig{
		Log: projections.NewLog(c.log), Open: c.open, Worker: true, Holder: fmt.Sprintf("h%d", now().UnixNano()), Alone: true, Now: now,
		Limits:  projections.Limits{Rows: 120, Bytes: 1 << 20, Delay: 20 * time.Millisecond, KeysDelay: 10 * time.Millisecond},
		Metrics: newMetrics(c.tb), Logger: clickhousetest.Logger(c.tb),
	}
	for _, f := range change {
		f(&cfg)
	}
	n, err := projections.NewNode(cfg)
	if err != nil {
		c.tb.Fatal(err)
	}
	if err := n.Start(c.tb.Context()); err != nil {
		c.tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.tb.Context()))
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	return n, func() {
		cancel()
		if err := errors.Join(<-done, n.Close()); err != nil {
			c.tb.Errorf("node: %v", err)
		}
	}
}

func reader(c *projections.NodeConfig) { c.Worker, c.Holder = false, "" }

// waitUntil waits until ok holds, which something must bring about.
func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited a minute for: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func generationOf(n *projections.Node, name string) projections.Generation {
	all := n.Generations()
	at := slices.IndexFunc(all, func(g projections.Generation) bool { return g.Name == name })
	if at < 0 {
		return projections.Generation{}
	}
	return all[at]
}

// mustHold verifies the tables of a generation.
func (c *cluster) mustHold(n *projections.Node, name string) {
	c.tb.Helper()
	t, ok := n.Named(name)
	if !ok {
		c.tb.Fatalf("no tables of generation %s", name)
	}
	store, err := t.Store()
	if err != nil {
		c.tb.Fatal(err)
	}
	r, err := projections.Verify(c.tb.Context(), projections.NewLog(c.log), store, projections.VerifyOptions{Generation: name})
	if err != nil {
		c.tb.Fatal(err)
	}
	for _, d := range r.First {
		c.tb.Errorf("generation %s: %+v", name, d)
	}
}

func (c *cluster) await(n *projections.Node, position uint64) {
	c.tb.Helper()
	ctx, cancel := context.WithTimeout(c.tb.Context(), time.Minute)
	defer cancel()
	if err := n.Wait(ctx, position); err != nil {
		c.tb.Fatalf("wait for %d: %v", position, err)
	}
}

// TestARebuiltGenerationIsComparedAndTakesOverOnEveryNode makes new tables beside the
// live ones while the log grows.
func TestARebuiltGenerationIsComparedAndTakesOverOnEveryNode(t *testing.T) {
	c := newCluster(t, 31)
	worker, stop := c.node()
	defer stop()
	api, stopAPI := c.node(reader)
	defer stopAPI()
	c.await(worker, c.tell(60))
	if got := worker.Live().Name; got != projections.FirstGeneration {
		t.Fatalf("generation %q answers first", got)
	}
	if err := api.Rebuild(t.Context(), "two", "ann", false); err != nil {
		t.Fatal(err)
	}
	for worker.Live().Name != "two" || api.Live().Name != "two" {
		if g := generationOf(worker, "two"); g.State == projections.GenerationDiffers {
			t.Fatalf("the new tables differ: %+v", g.Compared)
		}
		if t.Context().Err() != nil {
			t.Fatal("not swapped in")
		}
		c.await(worker, c.tell(3))
	}
	last := c.tell(5)
	c.await(worker, last)
	c.await(api, last)
	g := generationOf(api, "two")
	if g.State != projections.GenerationLive || g.From != "1" || g.Compared == nil || g.Compared.Differences != 0 || len(g.Compared.Tables) != 7 {
		t.Errorf("generation two is %+v", g)
	}
	for _, table := range g.Compared.Tables {
		if table.Table != "usage_hourly" && (table.Rows == 0 || table.RowsLive == 0) {
			t.Errorf("nothing of %s was compared: %+v", table.Table, table)
		}
	}
	c.mustHold(worker, "two")
	if old := generationOf(api, "1"); old.State != projections.GenerationRetired {
		t.Errorf("the old generation is %s", old.State)
	}
	if _, ok := api.Named("1"); !ok {
		t.Error("the old tables went before their grace was over")
	}
	if err := api.Drop(t.Context(), "1", "ann"); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the old database is removed", func() bool { return slices.Equal(c.databases(), []string{"two"}) })
	if err := worker.Rebuild(t.Context(), "1", "ann", false); domain.CodeOf(err) != domain.Conflict {
		t.Errorf("a name was used twice: %v", err)
	}
}

// TestDifferencesStandInTheWayUntilAccepted damages live tables, so that tables made anew
// differ from them.
func TestDifferencesStandInTheWayUntilAccepted(t *testing.T) {
	tests := []struct{ name, table, sql string }{
		{"a use is missing", "usage", "DELETE FROM usage WHERE position = (SELECT max(position) FROM usage)"},
		{"a value is another", "activity", "ALTER TABLE activity UPDATE message = 'x' WHERE position = (SELECT min(position) FROM activity) SETTINGS mutations_sync = 2"},
		{"values changed places", "usage", "ALTER TABLE usage UPDATE bytes = if(bytes = 1, 2, 1) WHERE 1 SETTINGS mutations_sync = 2"},
		{"a key state is gone", "key_states", "DELETE FROM key_states WHERE position = (SELECT max(position) FROM key_states)"},
		{"a key is renamed", "api_keys", "ALTER TABLE api_keys UPDATE name = 'x' WHERE version = (SELECT max(version) FROM api_keys) SETTINGS mutations_sync = 2"},
		{"a finding is missing", "findings", "DELETE FROM findings WHERE id = (SELECT min(id) FROM findings)"},
		{"a violation is missing", "use_violations", "DELETE FROM use_violations WHERE (position, idx) = (SELECT min((position, idx)) FROM use_violations FINAL WHERE retracted = 0)"},
	}
	c := newCluster(t, 32)
	worker, stop := c.node()
	defer stop()
	c.await(worker, c.tell(80))
	live := projections.FirstGeneration
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c.exec(live, tt.sql)
			name := fmt.Sprintf("g%d", i)
			if err := worker.Rebuild(t.Context(), name, "ann", false); err != nil {
				t.Fatal(err)
			}
			waitUntil(t, "the comparison", func() bool { return generationOf(worker, name).Compared != nil })
			g := generationOf(worker, name)
			if g.State != projections.GenerationDiffers || g.Compared.Differences == 0 || g.Compared.First[0].Table != tt.table {
				t.Fatalf("damage in %s is not found: %+v", tt.table, g.Compared)
			}
			if worker.Live().Name != live {
				t.Fatal("tables that differ took over")
			}
			if err := worker.Rebuild(t.Context(), name, "ann", true); err != nil {
				t.Fatal(err)
			}
			waitUntil(t, "the new tables answer", func() bool { return worker.Live().Name == name })
			live = name
			c.mustHold(worker, live)
		})
	}
}

// TestTablesOfAnotherLogAreNeitherReadNorWritten gives a node the tables of another log,
// and has it make its own beside them.
func TestTablesOfAnotherLogAreNeitherReadNorWritten(t *testing.T) {
	c := newCluster(t, 33)
	first, stop := c.node()
	c.await(first, c.tell(20))
	stop()
	other := &cluster{story: newStory(&stores{tb: t, log: newLog(t), next: map[string]eventlog.Expected{}}, 34), prefix: c.prefix}
	last := other.tell(5)
	n, stop := other.node()
	defer stop()
	if err := n.Live().Refused(); err == nil || !strings.Contains(err.Error(), "another log") {
		t.Fatalf("the tables of another log are taken: %v", err)
	}
	if _, err := n.Live().Store(); err == nil {
		t.Error("refused tables can be read")
	}
	if err := n.Rebuild(t.Context(), "own", "ann", true); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the node's own tables answer", func() bool { return n.Live().Name == "own" })
	other.await(n, last)
	other.mustHold(n, "own")
	if g := generationOf(n, "own"); g.Compared.Differences == 0 {
		t.Errorf("tables that cannot be compared took over without being accepted: %+v", g)
	}
}

// TestAnOlderLogThanTheTablesIsRefused restores a copy of the log that lacks the newest
// blocks: what the tables hold of those is nowhere in it.
func TestAnOlderLogThanTheTablesIsRefused(t *testing.T) {
	c := newCluster(t, 35)
	first, stop := c.node()
	c.await(first, c.tell(10))
	stop()
	c.exec("1", "INSERT INTO activity SELECT * REPLACE (block + 100 AS block) FROM activity LIMIT 1")
	for _, role := range []string{"worker", "reader"} {
		t.Run(role, func(t *testing.T) {
			var change []func(*projections.NodeConfig)
			if role == "reader" {
				change = append(change, reader)
			}
			n, stop := c.node(change...)
			defer stop()
			if err := n.Live().Refused(); err == nil || !strings.Contains(err.Error(), "keytrail rebuild") {
				t.Errorf("refused: %v, want a refusal that says what to do", err)
			}
		})
	}
}

// TestADatabaseOfANewerProgramIsRefusedAtTheStart gives a node tables whose schema it
// does not know.
func TestADatabaseOfANewerProgramIsRefusedAtTheStart(t *testing.T) {
	c := newCluster(t, 36)
	_, stop := c.node()
	stop()
	c.exec("1", "INSERT INTO schema_migrations (version, name, checksum) VALUES (999, '999_tomorrow.sql', 'x')")
	n, err := projections.NewNode(projections.NodeConfig{Log: projections.NewLog(c.log), Open: c.open, Now: now, Metrics: newMetrics(t), Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Start(t.Context()); !errors.Is(err, clickhouse.ErrSchema) || !strings.Contains(err.Error(), "newer program") {
		t.Errorf("Start = %v, want a refusal", err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

// TestANodeThatStartsWithoutClickHouseTakesItUpLater has the store refuse connections.
func TestANodeThatStartsWithoutClickHouseTakesItUpLater(t *testing.T) {
	c := newCluster(t, 37)
	var up atomic.Bool
	n, stop := c.node(func(cfg *projections.NodeConfig) {
		cfg.Open = func(name string) (*clickhouse.Store, error) {
			if up.Load() {
				return c.open(name)
			}
			return clickhouse.New(clickhouse.Config{Socket: c.prefix + "nobody", Database: c.prefix + name, Logger: discard})
		}
	})
	defer stop()
	last := c.tell(5)
	if _, err := n.Live().Store(); !errors.Is(err, clickhouse.ErrUnavailable) {
		t.Errorf("Store = %v while ClickHouse is away, want ErrUnavailable", err)
	}
	waitUntil(t, "the fault is told", func() bool { return n.Live().Fault() != nil && n.Lag() > 0 })
	up.Store(true)
	c.await(n, last)
	if err := n.Live().Fault(); err != nil {
		t.Errorf("fault after ClickHouse came: %v", err)
	}
	c.mustHold(n, "1")
}

// TestAGenerationGivenUpIsRemoved drops tables while they are being made, and lets those
// that were live go when their grace is over.
func TestAGenerationGivenUpIsRemoved(t *testing.T) {
	c := newCluster(t, 38)
	n, stop := c.node(func(cfg *projections.NodeConfig) { cfg.Grace = time.Millisecond })
	defer stop()
	c.await(n, c.tell(20))
	if err := n.Rebuild(t.Context(), "up", "ann", false); err != nil {
		t.Fatal(err)
	}
	if err := n.Drop(t.Context(), "up", "ann"); err != nil && domain.CodeOf(err) != domain.Conflict {
		t.Fatal(err)
	}
	if err := n.Drop(t.Context(), n.Live().Name, "ann"); domain.CodeOf(err) != domain.Conflict {
		t.Errorf("the live tables could be dropped: %v", err)
	}
	if err := n.Rebuild(t.Context(), "Not A Name", "ann", false); domain.CodeOf(err) != domain.Invalid {
		t.Errorf("a name that is none: %v", err)
	}
	if err := n.Rebuild(t.Context(), "next", "ann", false); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "only the newest tables are left", func() bool { return n.Live().Name == "next" && slices.Equal(c.databases(), []string{"next"}) })
	c.mustHold(n, "next")
}
