package ingest_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/ingest"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/eventlog"
)

// readCounter counts the reads of keys' streams.
type readCounter struct {
	*eventlog.Log
	reads atomic.Int64
}

func (l *readCounter) ReadStream(ctx context.Context, stream string, from uint64, limit int) ([]eventlog.Raw, error) {
	if strings.HasPrefix(stream, domain.KeyStreams) {
		l.reads.Add(1)
	}
	return l.Log.ReadStream(ctx, stream, from, limit)
}

// noChance gives the same bytes each time it is asked.
type noChance struct{}

func (noChance) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// TestANewKeyNeverTakesAnothersPlace: a key is created without a look at its stream, since
// its id is random; if there is one with that id after all, nothing is written.
func TestANewKeyNeverTakesAnothersPlace(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	log := &readCounter{Log: n.log}
	order := ingest.Order{
		Caller:    auth.NewCaller(domain.Initiator{IAMID: n.boot.Owner, Account: n.boot.Account}, n.dirs),
		RequestID: "r1", CorrelationID: "c",
	}
	node := func() *ingest.Commands {
		return ingest.NewCommands(ingest.CommandsConfig{
			Log: log, Directory: n.dirs, Store: n.store, Refusals: n.refusals, Now: time.Now, Random: noChance{},
		})
	}
	first := node()
	key, _, _, err := first.CreateKey(t.Context(), order, ingest.NewKey{IAMID: n.boot.Owner, Name: "one"})
	if err != nil {
		t.Fatal(err)
	}
	if got := log.reads.Load(); got != 0 {
		t.Errorf("a key with a random id was created after %d reads, want none", got)
	}
	order.RequestID = "r2"
	for name, commands := range map[string]*ingest.Commands{"the same node": first, "another node": node()} {
		if _, _, _, err := commands.CreateKey(t.Context(), order, ingest.NewKey{IAMID: n.boot.Owner, Name: "two"}); domain.CodeOf(err) != domain.Conflict {
			t.Errorf("%s makes a key with an id that is taken: %v, want a conflict", name, err)
		}
	}
	raws, err := n.log.ReadStream(t.Context(), domain.KeyStream(key.State().ID), 0, 10)
	if err != nil || len(raws) != 1 {
		t.Errorf("the key's stream holds %d events, want 1: %v", len(raws), err)
	}
	n.soundSlots("after creations that lost to a living key", domain.KeyLimitDefault)
}
