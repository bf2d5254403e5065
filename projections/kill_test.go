package projections_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/internal/clickhouse/clickhousetest"
	embedded "example.com/keytrail/internal/embedded/clickhouse"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/projections"
)

// TestTablesAreTheLogAfterKillsOfTheEngine kills the engine again and again while
// blocks are inserted, by counting the ledger's plans, and reads everything back.
func TestTablesAreTheLogAfterKillsOfTheEngine(t *testing.T) {
	kills := 8
	if testing.Short() {
		kills = 2
	}
	server, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Library: clickhousetest.Library(t), Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Close(); err != nil {
			t.Errorf("close engine: %v", err)
		}
	}()
	store, err := clickhouse.Open(t.Context(), clickhouse.Config{Socket: server.Socket(), Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	}()
	if err := store.Migrate(t.Context(), projections.Schema()); err != nil {
		t.Fatal(err)
	}
	s := newStory(&stores{tb: t, log: newLog(t), store: store, next: map[string]eventlog.Expected{}}, 11)
	rng := rand.New(rand.NewPCG(rand.Uint64(), 5))
	killing := &killer{Sink: projections.NewSink(store), rng: rng, server: server, left: kills}
	stop, tracker := s.start(smallBlocks, func(c *projections.RunnerConfig) { c.Sink, c.Logger = killing, discard })
	var last uint64
	for killing.alive() {
		last = s.tell(10)
		waitFor(t, tracker, last)
	}
	stop()
	last = s.tell(1)
	s.project(last)
	r := s.mustBeExact()
	t.Logf("%d kills, %d inserts: %+v", kills, killing.inserts, r)
}

// killer kills the engine while it carries out some of what it is told.
type killer struct {
	projections.Sink
	server *embedded.Server

	mu      sync.Mutex // Guards what follows.
	rng     *rand.Rand
	left    int
	inserts int
}

func (k *killer) alive() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.left > 0
}

// maybeKill kills the engine some milliseconds from now, in one of n cases.
func (k *killer) maybeKill(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.inserts++
	status := k.server.Status()
	if k.left == 0 || !status.Ready || k.rng.IntN(n) != 0 {
		return
	}
	k.left--
	time.AfterFunc(time.Duration(k.rng.IntN(30_000))*time.Microsecond, func() {
		// It may have died of an earlier one.
		_ = syscall.Kill(status.PID, syscall.SIGKILL)
	})
}

func (k *killer) Insert(ctx context.Context, rows projections.Rows, token string) error {
	k.maybeKill(6)
	return k.Sink.Insert(ctx, rows, token)
}

func (k *killer) Delete(ctx context.Context, table string, block uint64) error {
	k.maybeKill(3)
	return k.Sink.Delete(ctx, table, block)
}

func (k *killer) Judge(ctx context.Context, j projections.Judgement) error {
	k.maybeKill(6)
	return k.Sink.Judge(ctx, j)
}

func waitFor(t *testing.T, tracker *projections.Tracker, position uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := tracker.Wait(ctx, position); err != nil {
		t.Fatalf("%v; status %+v", err, tracker.Status())
	}
}
