package projections_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/projections"
)

// ledgerEvents returns the events of a type in the ledger.
func ledgerEvents[T any](s *stores, typ string) []T {
	s.tb.Helper()
	events, err := s.log.ReadStream(s.tb.Context(), projections.LedgerStream(generation), 0, 10_000)
	if err != nil {
		s.tb.Fatal(err)
	}
	var out []T
	for _, raw := range events {
		if raw.Type != typ {
			continue
		}
		var e T
		must(json.Unmarshal(raw.Data, &e))
		out = append(out, e)
	}
	return out
}

// TestRowsThatTheLedgerCountsAndTheTablesLostAreMadeAgain damages real tables as a loss
// of power, or an older copy of ClickHouse, does, and starts the next runner.
func TestRowsThatTheLedgerCountsAndTheTablesLostAreMadeAgain(t *testing.T) {
	tests := []struct {
		name string
		sqls []string
		// keeps says that the blocks before the damage stay.
		keeps bool
	}{
		{"the newest uses", []string{"DELETE FROM usage WHERE block > (SELECT max(block) - 3 FROM usage)"}, true},
		{"the newest key states and violations", []string{
			"DELETE FROM use_violations WHERE block >= (SELECT max(block) FROM key_states)",
			"DELETE FROM api_keys WHERE block >= (SELECT max(block) FROM key_states)",
			"DELETE FROM key_states WHERE block = (SELECT max(block) FROM key_states)",
		}, true},
		{"some rows in the middle", []string{"DELETE FROM activity WHERE block = (SELECT min(block) + 8 FROM activity WHERE block > 3) OR position = (SELECT max(position) FROM activity)"}, true},
		{"a block is doubled", []string{"INSERT INTO usage SELECT * FROM usage WHERE block = (SELECT max(block) FROM usage)"}, true},
		{"all that there was", []string{
			"TRUNCATE TABLE usage", "TRUNCATE TABLE activity", "TRUNCATE TABLE key_states", "TRUNCATE TABLE api_keys", "TRUNCATE TABLE findings",
			"TRUNCATE TABLE usage_buckets", "TRUNCATE TABLE usage_hourly", "TRUNCATE TABLE use_violations",
		}, false},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStory(newStores(t), uint64(40+i))
			s.project(s.tell(60), smallBlocks)
			s.roll(0)
			for _, sql := range tt.sqls {
				if err := s.store.Exec(t.Context(), sql); err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
			}
			if s.verify().OK() {
				t.Fatal("nothing was damaged")
			}
			s.project(s.tell(3), smallBlocks)
			s.mustBeExact()
			rewinds := ledgerEvents[projections.LedgerRewound](s.stores, "ledger.rewound.v1")
			if len(rewinds) != 1 || (rewinds[0].Kept > 0) != tt.keeps || rewinds[0].Reason == "" {
				t.Errorf("rewound %+v, want once, with blocks kept: %t", rewinds, tt.keeps)
			}
			s.roll(0)
			s.mustBeExact()
		})
	}
}

// TestTablesThatAreNewerThanTheLogAreRefused gives a runner tables of blocks that its
// ledger does not know.
func TestTablesThatAreNewerThanTheLogAreRefused(t *testing.T) {
	s := newStory(newStores(t), 51)
	s.project(s.tell(20), smallBlocks)
	older := &stores{tb: t, log: newLog(t), store: s.store, next: map[string]eventlog.Expected{}}
	story := newStory(older, 51)
	story.tell(3)
	runner, err := projections.NewRunner(projections.RunnerConfig{
		Log: projections.NewLog(older.log), Sink: projections.NewSink(s.store), Generation: generation, Holder: "h", Alone: true, Now: now,
		Metrics: newMetrics(t), Logger: discard,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // One that goes on does not end by itself.
	defer cancel()
	if err := runner.Run(ctx); err == nil || !strings.Contains(err.Error(), "older copy") || !strings.Contains(err.Error(), "keytrail rebuild") {
		t.Errorf("Run = %v, want a refusal that says what to do", err)
	}
	if n := len(ledgerEvents[json.RawMessage](older, "block.planned.v1")); n != 0 {
		t.Errorf("%d blocks were planned", n)
	}
	s.mustBeExact()
}

// TestADeletionLeavesWhatIsInsertedLater holds what makes a late deletion harmless.
func TestADeletionLeavesWhatIsInsertedLater(t *testing.T) {
	s := newStory(newStores(t), 52)
	s.project(s.tell(30), smallBlocks)
	sink := projections.NewSink(s.store)
	plans := ledgerEvents[projections.BlockPlanned](s.stores, "block.planned.v1")
	var block, want uint64
	for _, p := range plans {
		if p.Rows["usage"] > 0 {
			block, want = p.Block, p.Rows["usage"]
		}
	}
	count := func() uint64 {
		t.Helper()
		n, err := sink.Count(t.Context(), "usage", block)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for try := 0; count() != 0; try++ { // A merge may get in between.
		if try == 20 {
			t.Fatal("the rows cannot be deleted")
		}
		if err := sink.Delete(t.Context(), "usage", block); err != nil {
			t.Fatal(err)
		}
	}
	if got := count(); got != 0 {
		t.Fatalf("%d rows are left of %d", got, want)
	}
}

// TestLaterBlocksDoNotDisturbACount counts the rows of blocks up to one while rows of later
// ones come.
func TestLaterBlocksDoNotDisturbACount(t *testing.T) {
	s := newStores(t)
	sink := projections.NewSink(s.store)
	insert := func(ctx context.Context, block uint64) error {
		tables, err := projections.RowsOf(rawOf(t, domain.KeyCreated{After: keyState("K")}, effectiveAt), block)
		for _, rows := range tables {
			err = errors.Join(err, sink.Insert(ctx, rows, fmt.Sprint(block)))
		}
		return err
	}
	if err := insert(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	want, err := sink.Totals(t.Context(), 1)
	if err != nil || want["activity"] == 0 {
		t.Fatalf("Totals(1) = %v, %v", want, err)
	}
	done := make(chan error, 1)
	go func() {
		var err error
		for block := uint64(2); block < 30 && err == nil; block++ {
			err = insert(t.Context(), block)
		}
		done <- err
	}()
	for {
		got, err := sink.Totals(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("rows of block 1 (-alone +beside later blocks):\n%s", d)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}

// futureType is an event that a program of tomorrow writes.
const futureType = "apikey.observed.v9"

// tomorrow reads what a program of today cannot.
func tomorrow(raw eventlog.Raw) (domain.Recorded, error) {
	if raw.Type == futureType {
		raw.Type = domain.KeyObserved{}.Type()
	}
	return eventlog.Decode(raw)
}

// tellFuture appends an event of a key that only [tomorrow] can read.
func (s *story) tellFuture(n int) {
	s.tb.Helper()
	id := domain.KeyID("K-1")
	state := keyState(id)
	state.Name, state.Disabled = fmt.Sprintf("future %d", n), true
	stream := domain.ExternalKeyStream("a1", id)
	p, err := eventlog.Propose(domain.DeriveID("future", fmt.Sprint(n)), domain.KeyObserved{Fact: domain.ObservedDisabled, SourceEvent: "x", After: state},
		domain.Metadata{EffectiveAt: s.base, Initiator: domain.Initiator{IAMID: "IBMid-1"}})
	must(err)
	p.Type = futureType
	s.append(stream, p)
}

// TestPoisonIsReplayedOnceByAProgramThatCanReadIt sets events of a future version aside,
// and lets a program that knows them write their rows, while the runner dies at each step.
func TestPoisonIsReplayedOnceByAProgramThatCanReadIt(t *testing.T) {
	s := newStory(newStores(t), 53)
	s.tell(20)
	s.tellFuture(1)
	s.tell(10)
	s.tellFuture(2)
	s.project(s.tell(10), smallBlocks)
	before := s.mustBeExact()
	if before.Poisoned < 2 {
		t.Fatalf("%d events are set aside, want the two of the future and the broken ones", before.Poisoned)
	}
	verify := func() projections.Report {
		t.Helper()
		r, err := projections.Verify(t.Context(), projections.NewLog(s.log), s.store, projections.VerifyOptions{Generation: generation, Decode: tomorrow})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range r.First {
			t.Errorf("difference: %+v", d)
		}
		return r
	}
	if r := verify(); r.Poisoned != before.Poisoned {
		t.Errorf("a program that can read them counts %d set aside, want %d until they are replayed", r.Poisoned, before.Poisoned)
	}
	told := make(chan projections.ReplayDone, 8)
	dying := &dieOnce{Log: projections.NewLog(s.log), typ: "block.completed.v1"}
	s.projectReplay(dying, 1, told)
	if !dying.died {
		t.Error("the runner did not die in the middle")
	}
	done := <-told
	if done.Request != 1 || done.Left != before.Poisoned-2 {
		t.Errorf("replayed %+v, want 2 of %d", done, before.Poisoned)
	}
	after := verify()
	if after.Poisoned != before.Poisoned-2 || after.Rows["key_states"] != before.Rows["key_states"]+2 {
		t.Errorf("after the replay %+v, before %+v", after, before)
	}
	s.projectReplay(projections.NewLog(s.log), 2, told) // Again: nothing is left that can be read.
	if done := <-told; done.Left != before.Poisoned-2 {
		t.Errorf("a second replay did %+v", done)
	}
	if r := verify(); r.Rows["key_states"] != after.Rows["key_states"] {
		t.Errorf("the second replay wrote rows: %+v", r.Rows)
	}
	s.project(s.tell(5), smallBlocks, func(c *projections.RunnerConfig) { c.Decode = tomorrow })
	verify()
}

// dieOnce loses the connection right after the first plan of a replay, before anything
// else of a kind can be appended.
type dieOnce struct {
	projections.Log

	typ    string
	replay bool
	died   bool
}

func (d *dieOnce) Append(ctx context.Context, stream string, exp eventlog.Expected, events ...eventlog.Proposed) (eventlog.Appended, error) {
	if strings.Contains(string(events[0].Data), `"replayed"`) {
		d.replay = true
	}
	if d.replay && !d.died && events[0].Type == d.typ {
		d.died = true
		return eventlog.Appended{}, fmt.Errorf("cut off: %w", eventlog.ErrUnavailable)
	}
	return d.Log.Append(ctx, stream, exp, events...)
}

// projectReplay runs a runner of tomorrow that is asked to replay, until it has told.
func (s *story) projectReplay(log projections.Log, request uint64, told chan projections.ReplayDone) {
	s.tb.Helper()
	runner, err := projections.NewRunner(projections.RunnerConfig{
		Log: log, Sink: projections.NewSink(s.store), Generation: generation, Holder: fmt.Sprint("replayer", request), Alone: true, Now: now,
		Metrics: newMetrics(s.tb), Logger: discard, Decode: tomorrow,
		Replayed: func(_ context.Context, d projections.ReplayDone) error { told <- d; return nil },
	})
	if err != nil {
		s.tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.tb.Context())
	done := make(chan error, 1)
	go func() { done <- runner.Run(ctx) }()
	runner.Replay(request)
	d := <-told
	cancel()
	if err := <-done; err != nil {
		s.tb.Fatal(err)
	}
	told <- d
}
