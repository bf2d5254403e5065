// Package eventlogtest is the conformance suite of the event log: what keytrail
// relies on, tried through the unmodified client on any server.
//
// It runs on the embedded store in every test run, and on a real EventStoreDB
// when one is named, so that the two cannot drift apart. It leaves its streams
// behind; their names are random.
package eventlogtest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

// patience bounds every wait of the suite: long enough for a busy machine.
// KEYTRAIL_TEST_PATIENCE is another, for those who expect it to fail.
func patience() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("KEYTRAIL_TEST_PATIENCE")); err == nil {
		return d
	}
	return 30 * time.Second
}

// Target is a server under test.
type Target struct {
	// Open connects through our own log. The suite does not close it.
	Open func(tb testing.TB) *eventlog.Log
	// Client connects with the unmodified client. The suite does not close it.
	Client func(tb testing.TB) *esdb.Client
	// MaxAppendBytes is the server's limit on one append.
	MaxAppendBytes int
	// Restart stops and starts the server under the same address, with its data.
	// nil: the suite cannot restart it and leaves that test out.
	Restart func(tb testing.TB)
}

// suite is one run.
type suite struct {
	target Target
	log    *eventlog.Log
	client *esdb.Client
}

// Run runs the whole suite on target.
func Run(t *testing.T, target Target) {
	t.Helper()
	s := &suite{target: target, log: target.Open(t), client: target.Client(t)}
	for _, test := range []struct {
		name string
		run  func(*suite, *testing.T)
	}{
		{"an append at an exact revision is stored in order", (*suite).appendInOrder},
		{"a wrong revision stores nothing and tells the actual one", (*suite).wrongRevision},
		{"a repeated append is the same success and changes nothing", (*suite).repeat},
		{"other events at the same place are a conflict", (*suite).noRepeat},
		{"an append with any or exists behaves as EventStoreDB's", (*suite).anyAndExists},
		{"a repeat is judged by EventStoreDB's rules", (*suite).repeatRules},
		{"a late repeat does not bring a deleted stream back", (*suite).repeatAfterDelete},
		{"a stream with metadata alone exists without events", (*suite).metadataOnly},
		{"an append without events checks its revision", (*suite).emptyAppend},
		{"ids are kept as they were given", (*suite).idsKept},
		{"positions increase with gaps and times do not go back", (*suite).positions},
		{"streams are read both ways, inclusively", (*suite).readStream},
		{"a stream that is missing is not one that is empty", (*suite).readEdges},
		{"the log is read forwards inclusively and backwards exclusively", (*suite).readAll},
		{"the head is the newest event of the prefixes", (*suite).head},
		{"an append over the limit is refused whole", (*suite).tooLarge},
		{"a limit by count hides the older events", (*suite).maxCount},
		{"a truncation hides the events before it", (*suite).truncateBefore},
		{"a cut hides what is before it, keeps other metadata and never moves back", (*suite).cut},
		{"a limit by age hides the older events", (*suite).maxAge},
		{"limits hold together, whichever way a stream is read", (*suite).limitsTogether},
		{"metadata is kept, whoever changes it", (*suite).metadataKept},
		{"metadata that says nothing hides nothing", (*suite).oddMetadata},
		{"what is done to streams is in the log", (*suite).systemEvents},
		{"a metadata stream keeps its newest event", (*suite).metadataStream},
		{"a soft delete hides and the numbering goes on", (*suite).softDelete},
		{"a delete checks the expected revision", (*suite).deleteExpected},
		{"a tombstone is final", (*suite).tombstone},
		{"a tombstone ends those who follow the stream", (*suite).tombstoneEndsFollowers},
		{"a link is resolved", (*suite).links},
		{"links are resolved in every way of reading, or stay alone", (*suite).linksEverywhere},
		{"a subscription resumes after the position", (*suite).resume},
		{"a subscription delivers its prefixes only", (*suite).prefixes},
		{"a subscription catches up once and then is live", (*suite).caughtUp},
		{"filters by type and by expression hold", (*suite).filters},
		{"a filtered subscription gets checkpoints", (*suite).checkpoints},
		{"a stream subscription begins after the revision and is live", (*suite).followStream},
		{"a restart of the server is neither skipped over nor delivered twice", (*suite).restart},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(s, t) })
	}
}

// name returns a new stream name.
func name(t *testing.T) string {
	t.Helper()
	var b [8]byte
	_, _ = rand.Read(b[:]) // It never fails.
	return "kt.test-" + hex.EncodeToString(b[:])
}

// event returns an event with a new id.
func event(text string) eventlog.Proposed {
	return eventlog.Proposed{ID: domain.EventID(uuid.New()), Type: "test.v1", JSON: true, Data: fmt.Appendf(nil, "{\"text\":%q}", text), Meta: []byte(`{"m":1}`)}
}

func events(n int) []eventlog.Proposed {
	out := make([]eventlog.Proposed, n)
	for i := range out {
		out[i] = event(fmt.Sprint(i))
	}
	return out
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience())
	t.Cleanup(cancel)
	return ctx
}

// mustAppend appends and returns where the last event stands.
func (s *suite) mustAppend(t *testing.T, stream string, exp eventlog.Expected, events ...eventlog.Proposed) eventlog.Appended {
	t.Helper()
	at, err := s.log.Append(within(t), stream, exp, events...)
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	return at
}

// mustRead reads a whole stream.
func (s *suite) mustRead(t *testing.T, stream string) []eventlog.Raw {
	t.Helper()
	got, err := s.log.ReadStream(within(t), stream, 0, 10_000)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	return got
}

// wantStream compares a stream with what was appended, from revision from on.
func (s *suite) wantStream(t *testing.T, stream string, from uint64, want ...eventlog.Proposed) {
	t.Helper()
	got := s.mustRead(t, stream)
	if len(got) != len(want) {
		t.Fatalf("stream has %d events, want %d", len(got), len(want))
	}
	for i, e := range want {
		g := got[i]
		wantRaw := eventlog.Raw{
			Stream: stream, Revision: from + uint64(i), Position: g.Position, ID: e.ID, Type: e.Type,
			JSON: e.JSON, Data: e.Data, Meta: e.Meta, RecordedAt: g.RecordedAt,
		}
		if d := cmp.Diff(wantRaw, g, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("event %d (-want +got):\n%s", i, d)
		}
	}
}

func ids(raws []eventlog.Raw) []domain.EventID {
	out := make([]domain.EventID, len(raws))
	for i, r := range raws {
		out[i] = r.ID
	}
	return out
}

func idsOf(events []eventlog.Proposed) []domain.EventID {
	out := make([]domain.EventID, len(events))
	for i, e := range events {
		out[i] = e.ID
	}
	return out
}

func wantIDs(t *testing.T, what string, got, want []domain.EventID) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("%s (-want +got):\n%s", what, d)
	}
}
