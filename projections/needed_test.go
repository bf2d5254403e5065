package projections_test

import (
	"encoding/json"
	"testing"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/projections"
)

// machinery appends an event of ours as it is.
func machinery(t *testing.T, l *memLog, stream, typ string, v any) {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	l.recordRaw(stream, eventlog.Proposed{ID: domain.DeriveID("m", stream, string(data)), Type: typ, JSON: true, Data: data, Meta: []byte("{}")})
}

// TestNothingIsFreeThatTablesStillNeed steps through what a log may hold.
func TestNothingIsFreeThatTablesStillNeed(t *testing.T) {
	t.Parallel()
	l := newMemLog(now)
	want := func(what string, position uint64) {
		t.Helper()
		if got, err := projections.NeededFrom(t.Context(), l); err != nil || got != position {
			t.Errorf("%s: needed from %d, %v; want %d", what, got, err, position)
		}
	}
	completed := func(generation string, block, to uint64) {
		machinery(t, l, projections.LedgerStream(generation), "block.completed.v1", projections.BlockCompleted{Block: block, To: to})
	}
	want("no tables", 0)
	machinery(t, l, projections.GenerationsStream, "log.founded.v1", projections.LogFounded{LogID: "x", Generation: "1"})
	want("no block", 1)
	completed("1", 1, 500)
	want("one block", 501)
	machinery(t, l, projections.LedgerStream("1"), "block.planned.v1", projections.BlockPlanned{Block: 2, From: 500, To: 900})
	want("a block under way", 501)
	completed("1", 2, 900)
	want("two blocks", 901)
	machinery(t, l, projections.GenerationsStream, "generation.started.v1", projections.GenerationStarted{Generation: "n"})
	want("new tables begin", 1)
	completed("n", 1, 300)
	want("new tables are at 300", 301)
	machinery(t, l, projections.GenerationsStream, "generation.dropped.v1", projections.GenerationDropped{Generation: "n"})
	want("they are given up", 901)
	machinery(t, l, projections.PoisonStream("1"), "event.poisoned.v1", projections.EventPoisoned{Stream: "kt.apikey-k", Position: 40})
	want("a key event is set aside", 901)
	machinery(t, l, projections.PoisonStream("1"), "event.poisoned.v1", projections.EventPoisoned{Stream: "kt.usage-client-00", Position: 70})
	want("a usage event is set aside", 70)
}
