package projections_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/usagebatch"
	"example.com/keytrail/projections"
)

const generation = "g1"

// discard is for runners whose faults are made on purpose, and for benchmarks.
var discard = slog.New(slog.DiscardHandler)

// history appends random evidence to log.
type history struct {
	log *memLog
	rng *rand.Rand
	n   int
}

func (h *history) grow(events int) {
	for range events {
		h.n++
		switch k := h.rng.IntN(10); {
		case k < 5:
			h.log.record(domain.UsageSlotStream("c", h.rng.IntN(3)), domain.UsageRecorded{Batch: batchOf(h.uses(1 + h.rng.IntN(12)))}, h.log.now())
		case k < 9:
			key := domain.KeyID(fmt.Sprintf("ApiKey-%d", h.rng.IntN(4)))
			s := keyState(key)
			s.Disabled = h.rng.IntN(2) == 0
			h.log.record(domain.KeyStream(key), domain.KeyUpdated{After: s}, h.log.now())
		default:
			h.log.recordRaw("kt.account-broken", eventlog.Proposed{
				ID: domain.DeriveID("broken", fmt.Sprint(h.n)), Type: domain.TypeAccountCreated, JSON: true,
				Data: []byte("not json"), Meta: []byte("{}"),
			})
		}
	}
}

func (h *history) uses(n int) []domain.Use {
	uses := make([]domain.Use, n)
	for i := range uses {
		uses[i] = domain.Use{
			ID: fmt.Sprintf("u%d-%d", h.n, i), Account: "a1", KeyID: domain.KeyID(fmt.Sprintf("ApiKey-%d", h.rng.IntN(4))),
			Time: h.log.now().Add(-time.Duration(h.rng.IntN(5)) * time.Hour).UTC().Truncate(time.Millisecond), Action: "read", Source: "198.51.100.4", Status: 200,
		}
	}
	return uses
}

func keyState(id domain.KeyID) domain.KeyState {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return domain.KeyState{ID: id, Account: "a1", IAMID: "IBMid-1", Kind: domain.KindUser, Name: "key", Version: 1, CreatedAt: at, ModifiedAt: at, SecretHash: "hmac-sha256:00"}
}

func batchOf(uses []domain.Use) domain.UsageBatch {
	columns, err := usagebatch.Encode(uses)
	if err != nil {
		panic(err)
	}
	return domain.UsageBatch{Batch: "b", Caller: "c", Last: true, Count: uint32(len(uses)), Lines: uint64(len(uses)), Columns: columns}
}

// world is a log, a store, and what must hold of them.
type world struct {
	t    *rapid.T
	log  *memLog
	sink *simSink

	mu sync.Mutex
	// stopAt is the operation on the log at which the running runner is stopped.
	ops, stopAt int
	stop        context.CancelFunc
	rng         *rand.Rand
	faulty      bool
	plan        projections.BlockPlanned
	rewinds     int
	lossy       bool                            // Acknowledged rows may vanish.
	cut         []eventlog.Raw                  // Evidence that the log no longer has.
	change      func(*projections.RunnerConfig) // Of every runner; may be nil.
	broken      []string
}

func newWorld(t *rapid.T) *world {
	w := &world{t: t, sink: newSimSink(rapid.Uint64().Draw(t, "sink seed")), rng: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "log seed"), 2))}
	w.log = newMemLog(now)
	w.log.fault = w.fault
	w.log.appended = w.appended
	return w
}

// fault decides about an operation on the log, and ends the runner at stopAt: the
// operation itself happens or not, as it comes.
func (w *world) fault(string) verdict {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ops++
	v := goOn
	if w.faulty {
		switch w.rng.IntN(30) {
		case 0:
			v = failBefore
		case 1:
			v = failAfter
		}
	}
	if w.stop != nil && w.ops == w.stopAt {
		w.stop()
		v = verdict(w.rng.IntN(3))
	}
	return v
}

// appended checks, at the very moment that a block is recorded as completed, that
// its rows are in the tables once.
func (w *world) appended(raw eventlog.Raw) {
	switch raw.Type {
	case "block.planned.v1":
		w.plan = projections.BlockPlanned{}
		must(json.Unmarshal(raw.Data, &w.plan))
	case "block.completed.v1":
		if w.lossy {
			return // What was acknowledged may be gone by now: the next count finds it.
		}
		w.sink.mu.Lock()
		defer w.sink.mu.Unlock()
		for _, table := range []string{"usage", "activity", "key_states"} {
			if have := w.sink.countLocked(table, w.plan.Block); have != w.plan.Rows[table] {
				w.broken = append(w.broken, fmt.Sprintf("block %d completed with %d rows of %d in %s", w.plan.Block, have, w.plan.Rows[table], table))
			}
		}
		if w.sink.judged[w.plan.Block] == 0 {
			w.broken = append(w.broken, fmt.Sprintf("block %d completed without judging", w.plan.Block))
		}
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func (w *world) runner(holder string, alone bool, change ...func(*projections.RunnerConfig)) *projections.Runner {
	metrics, err := projections.NewMetrics(prometheus.NewRegistry())
	must(err)
	cfg := projections.RunnerConfig{
		Log: w.log, Sink: w.sink, Generation: generation, Holder: holder, Alone: alone, Now: now, Metrics: metrics,
		Limits: projections.Limits{Rows: 25, Bytes: 1 << 20, Delay: 250 * time.Millisecond, KeysDelay: 50 * time.Millisecond},
		Logger: discard,
	}
	if w.change != nil {
		w.change(&cfg)
	}
	for _, f := range change {
		f(&cfg)
	}
	r, err := projections.NewRunner(cfg)
	must(err)
	return r
}

// check compares the tables with the log.
func (w *world) check() {
	w.t.Helper()
	for _, b := range w.broken {
		w.t.Error(b)
	}
	want := map[string][]string{}
	stands := map[uint64]bool{}
	poisoned := map[string]bool{}
	plans := w.plans()
	for _, p := range plans {
		stands[p.Block] = true
	}
	for _, raw := range append(w.log.evidence(), w.cut...) {
		at := slices.IndexFunc(plans, func(p projections.BlockPlanned) bool { return raw.Position > p.From && raw.Position <= p.To })
		if at < 0 {
			w.t.Fatalf("no block holds the event at %d; the ledger is\n%s", raw.Position, w.ledgerText())
		}
		tables, err := projections.RowsOf(raw, plans[at].Block)
		if err != nil {
			poisoned[fmt.Sprint(raw.Position)] = true
			continue
		}
		for _, rows := range tables {
			for _, r := range rowsOf(rows) {
				want[rows.Table] = append(want[rows.Table], fmt.Sprint(render(r.values)...))
			}
		}
	}
	w.sink.mu.Lock()
	defer w.sink.mu.Unlock()
	for _, table := range []string{"usage", "activity", "key_states", "api_keys", "findings", "usage_buckets"} {
		var have []string
		replaced := !slices.Contains(countedTables, table)
		for _, r := range w.sink.tables[table] {
			if replaced && !stands[r.block] {
				continue // Of a block that was given up: the same rows stand under another.
			}
			have = append(have, fmt.Sprint(render(r.values)...))
		}
		slices.Sort(have)
		slices.Sort(want[table])
		if replaced {
			have, want[table] = slices.Compact(have), slices.Compact(want[table])
		}
		if d := cmp.Diff(want[table], have); d != "" {
			w.t.Errorf("table %s is not the log (-log +table):\n%s", table, d)
		}
	}
	var aside int
	for _, raw := range w.log.stream(projections.PoisonStream(generation)) {
		var e projections.EventPoisoned
		must(json.Unmarshal(raw.Data, &e))
		if !poisoned[fmt.Sprint(e.Position)] {
			w.t.Errorf("event at %d was set aside without need or twice", e.Position)
		}
		delete(poisoned, fmt.Sprint(e.Position))
		aside++
	}
	if len(poisoned) > 0 {
		w.t.Errorf("%d events were not set aside", len(poisoned))
	}
}

// ledgerText is the ledger for people.
func (w *world) ledgerText() string {
	var b strings.Builder
	for _, raw := range w.log.stream(projections.LedgerStream(generation)) {
		fmt.Fprintf(&b, "%d %s %s\n", raw.Revision, raw.Type, raw.Data)
	}
	return b.String()
}

// render makes values comparable as text: what pointers point to.
func render(values []any) []any {
	out := make([]any, 0, 2*len(values))
	for _, v := range values {
		if p, ok := v.(*int64); ok {
			if p == nil {
				v = "null"
			} else {
				v = *p
			}
		}
		out = append(out, v, "|")
	}
	return out
}

// lastCompleted returns the newest completion, or rewinding, of the ledger.
func (w *world) lastCompleted() (done projections.BlockCompleted) {
	for _, raw := range w.log.stream(projections.LedgerStream(generation)) {
		if raw.Type == "block.completed.v1" || raw.Type == "ledger.rewound.v1" {
			done = projections.BlockCompleted{}
			must(json.Unmarshal(raw.Data, &done))
		}
	}
	return done
}

// plans returns the plans in the ledger that stand, checked to be one chain.
func (w *world) plans() []projections.BlockPlanned {
	w.t.Helper()
	var (
		plans     []projections.BlockPlanned
		last      uint64 // Number of the newest block or rewinding.
		completed = true
		to        uint64
	)
	for _, raw := range w.log.stream(projections.LedgerStream(generation)) {
		switch raw.Type {
		case "block.planned.v1":
			var p projections.BlockPlanned
			must(json.Unmarshal(raw.Data, &p))
			if p.Block != last+1 || p.From != to || !completed {
				w.t.Fatalf("plan %+v does not follow block %d to %d (completed: %t)", p, last, to, completed)
			}
			plans, last, to, completed = append(plans, p), p.Block, p.To, false
		case "block.completed.v1":
			var c projections.BlockCompleted
			must(json.Unmarshal(raw.Data, &c))
			if c.Block != last || completed || c.To != to {
				w.t.Fatalf("completion %+v does not follow plan %d", c, last)
			}
			completed = true
		case "ledger.rewound.v1":
			var e projections.LedgerRewound
			must(json.Unmarshal(raw.Data, &e))
			if e.Block != last+1 || e.Kept >= e.Block {
				w.t.Fatalf("rewinding %+v does not follow block %d", e, last)
			}
			plans = slices.DeleteFunc(plans, func(p projections.BlockPlanned) bool { return p.Block > e.Kept })
			last, to, completed = e.Block, e.To, true
			w.rewinds++
		}
	}
	return plans
}

// finish runs one runner without faults until the tables are complete.
func (w *world) finish() {
	w.t.Helper()
	w.mu.Lock()
	w.faulty, w.stop = false, nil
	w.mu.Unlock()
	w.sink.mu.Lock()
	w.sink.faulty = false
	w.sink.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- w.runner("final", false).Run(ctx) }()
	pass(time.Minute) // In the bubble's time.
	head, err := w.log.Head(ctx, []string{domain.EvidencePrefix})
	must(err)
	if plans := w.plans(); len(plans) == 0 || plans[len(plans)-1].To != head {
		w.t.Errorf("after a minute without faults the tables are not complete up to %d", head)
	}
	cancel()
	if err := <-done; err != nil {
		w.t.Errorf("final run: %v", err)
	}
}

// TestTablesHoldEachEventOnceWhereverRunnersDie stops a runner at each operation on
// the log, with a store that fails in every way, and starts the next.
func TestTablesHoldEachEventOnceWhereverRunnersDie(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(*testing.T) {
			w := newWorld(rt)
			h := &history{log: w.log, rng: rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "history seed"), 3))}
			w.faulty, w.sink.faulty = true, true
			for i := range rapid.IntRange(1, 8).Draw(rt, "lives") {
				h.grow(rapid.IntRange(0, 12).Draw(rt, "events"))
				ctx, cancel := context.WithCancel(context.Background())
				w.mu.Lock()
				w.ops, w.stopAt, w.stop = 0, rapid.IntRange(1, 40).Draw(rt, "stop at operation"), cancel
				w.mu.Unlock()
				done := make(chan error, 1)
				r := w.runner(fmt.Sprintf("r%d", i), rapid.Bool().Draw(rt, "alone"))
				go func() { done <- r.Run(ctx) }()
				pass(time.Duration(rapid.IntRange(1, 30).Draw(rt, "seconds")) * time.Second)
				cancel()
				if err := <-done; err != nil {
					rt.Fatalf("runner %d: %v", i, err)
				}
			}
			h.grow(1)
			w.finish()
			w.check()
		})
	})
}

// TestTablesHoldEachEventOnceUnderRacingRunners lets two runners fight for one ledger
// while the store is slow and fails. Where one believes that it is alone it never
// waits: the ledger's revisions are all that keeps them apart.
func TestTablesHoldEachEventOnceUnderRacingRunners(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(*testing.T) {
			w := newWorld(rt)
			h := &history{log: w.log, rng: rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "history seed"), 3))}
			w.faulty, w.sink.faulty = true, true
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 2)
			alone := rapid.Bool().Draw(rt, "alone")
			w.sink.slow = true // A deletion on its way outlives a lease that nobody waits for.
			for i := range 2 {
				r := w.runner(fmt.Sprintf("r%d", i), alone)
				go func() { done <- r.Run(ctx) }()
			}
			for range rapid.IntRange(1, 15).Draw(rt, "steps") {
				h.grow(rapid.IntRange(0, 10).Draw(rt, "events"))
				pass(time.Duration(rapid.IntRange(10, 6000).Draw(rt, "milliseconds")) * time.Millisecond)
			}
			cancel()
			if err := errors.Join(<-done, <-done); err != nil {
				rt.Fatalf("run: %v", err)
			}
			h.grow(1)
			w.finish()
			w.check()
		})
	})
}
