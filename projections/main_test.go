package projections_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/internal/clickhouse/clickhousetest"
	"example.com/keytrail/internal/embedded/eventstore"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/projections"
)

func TestMain(m *testing.M) {
	os.Exit(clickhousetest.Main(m, func() int {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}))
}

// stores are the real embedded stores of one test.
type stores struct {
	tb    testing.TB
	log   *eventlog.Log
	store *clickhouse.Store
	next  map[string]eventlog.Expected
}

// newStores starts an event store of the test's own and takes a database of the
// shared engine.
func newStores(tb testing.TB) *stores {
	tb.Helper()
	store := clickhousetest.Store(tb)
	if err := store.Migrate(tb.Context(), projections.Schema()); err != nil {
		tb.Fatalf("migrate: %v", err)
	}
	return &stores{tb: tb, log: newLog(tb), store: store, next: map[string]eventlog.Expected{}}
}

func newLog(tb testing.TB) *eventlog.Log {
	tb.Helper()
	dir, err := os.MkdirTemp("", "kt")
	if err != nil {
		tb.Fatal(err)
	}
	logger := slog.New(slog.DiscardHandler)
	server, err := eventstore.Open(eventstore.Config{Dir: tb.TempDir(), Socket: filepath.Join(dir, "s"), Logger: logger})
	if err != nil {
		tb.Fatal(err)
	}
	log, err := eventlog.Open(tb.Context(), eventlog.Config{Socket: filepath.Join(dir, "s"), Logger: logger})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx := context.WithoutCancel(tb.Context())
		for _, err := range []error{log.Close(), server.Close(ctx), os.RemoveAll(dir)} {
			if err != nil {
				tb.Error(err)
			}
		}
	})
	return log
}

// record appends e to stream and returns its position.
func (s *stores) record(stream string, e domain.Event, effective time.Time) uint64 {
	s.tb.Helper()
	exp := s.next[stream]
	id := domain.DeriveID("test", stream, exp.String())
	p, err := eventlog.Propose(id, e, domain.Metadata{EffectiveAt: effective, Initiator: domain.Initiator{IAMID: "IBMid-1", Address: "2001:db8::7", Agent: "cli"}})
	if err != nil {
		s.tb.Fatal(err)
	}
	return s.append(stream, p)
}

func (s *stores) append(stream string, p eventlog.Proposed) uint64 {
	s.tb.Helper()
	at, err := s.log.Append(s.tb.Context(), stream, s.next[stream], p)
	if err != nil {
		s.tb.Fatal(err)
	}
	s.next[stream] = eventlog.Exactly(at.Revision)
	return at.Position
}

func newMetrics(tb testing.TB) *projections.Metrics {
	tb.Helper()
	m, err := projections.NewMetrics(prometheus.NewRegistry())
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// project runs a runner and a tracker until the tables are complete up to position.
func (s *stores) project(position uint64, change ...func(*projections.RunnerConfig)) {
	s.tb.Helper()
	stop, tracker := s.start(change...)
	defer stop()
	ctx, cancel := context.WithTimeout(s.tb.Context(), 2*time.Minute)
	defer cancel()
	if err := tracker.Wait(ctx, position); err != nil {
		s.tb.Fatalf("%v; status %+v", err, tracker.Status())
	}
}

// start runs a runner and a tracker; stop ends both and waits.
func (s *stores) start(change ...func(*projections.RunnerConfig)) (stop func(), tracker *projections.Tracker) {
	s.tb.Helper()
	cfg := projections.RunnerConfig{
		Log: projections.NewLog(s.log), Sink: projections.NewSink(s.store), Generation: generation, Holder: fmt.Sprintf("h%d", now().UnixNano()),
		Alone: true, Now: now, Metrics: newMetrics(s.tb), Logger: clickhousetest.Logger(s.tb),
	}
	for _, c := range change {
		c(&cfg)
	}
	runner, err := projections.NewRunner(cfg)
	if err != nil {
		s.tb.Fatal(err)
	}
	tracker, err = projections.NewTracker(projections.TrackerConfig{
		Log: cfg.Log, Generation: cfg.Generation, Now: now, Runner: runner, Metrics: cfg.Metrics, Logger: cfg.Logger,
	})
	if err != nil {
		s.tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.tb.Context())
	done := make(chan error, 2)
	go func() { done <- runner.Run(ctx) }()
	go func() { done <- tracker.Run(ctx) }()
	return func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				s.tb.Errorf("run: %v", err)
			}
		}
	}, tracker
}
