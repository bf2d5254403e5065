package eventstore_test

import (
	"context"
	"encoding/json"
	"math"
	"slices"
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"example.com/keytrail/internal/embedded/eventstore"
)

// modelStream is a stream as it should be, kept the simplest way.
type modelStream struct {
	events     []uint64 // Ids; the revision is the index.
	maxCount   uint64   // 0: none.
	trim       uint64
	metadata   bool // It has some.
	tombstoned bool
	gone       int // Events that were scavenged.
}

func (s *modelStream) deleted() bool { return s.trim == math.MaxInt64 }

func (s *modelStream) visible() bool { return len(s.events) > 0 && !s.deleted() }

// low is the first visible revision.
func (s *modelStream) low() int {
	low := 0
	if s.maxCount > 0 && uint64(len(s.events)) > s.maxCount {
		low = len(s.events) - int(s.maxCount)
	}
	return max(low, s.gone, int(min(s.trim, uint64(len(s.events)))))
}

// stands reports whether ids are the events from rev on.
func (s *modelStream) stands(rev int, ids []uint64) bool {
	return rev >= 0 && rev+len(ids) <= len(s.events) && slices.Equal(s.events[rev:rev+len(ids)], ids)
}

// append is what EventStoreDB answers.
func (s *modelStream) append(expect int64, ids []uint64) (rev int, ok bool) {
	last := len(s.events) - 1
	switch {
	case expect >= 0 && int(expect) < last:
		return int(expect) + len(ids), s.stands(int(expect)+1, ids)
	case expect >= 0 && int(expect) != last:
		return 0, false
	case expect == noStream && last >= 0:
		if s.stands(0, ids) {
			return len(ids) - 1, true
		}
		if s.visible() || s.events[0] == ids[0] {
			return 0, false
		}
	case expect == streamExists && (s.deleted() || last < 0 && !s.metadata):
		return 0, false
	case expect == anyRevision || expect == streamExists:
		if lastIndex(s.events, ids[0]) >= 0 {
			for _, id := range ids {
				if rev = lastIndex(s.events, id); rev < 0 {
					return 0, false
				}
			}
			return rev, true
		}
	}
	if s.deleted() {
		s.trim = uint64(len(s.events))
	}
	s.events = append(s.events, ids...)
	return len(s.events) - 1, true
}

func lastIndex(ids []uint64, id uint64) int {
	for i, at := range slices.Backward(ids) {
		if at == id {
			return i
		}
	}
	return -1
}

// machine runs one history on the server and on the model.
type machine struct {
	t       *testing.T
	dir     string
	client  client
	server  *eventstore.Server
	stop    func()
	streams map[string]*modelStream
	all     []seen // What the log has to hold of our streams, in order.
	ids     uint64
}

func (m *machine) restart() {
	if m.stop != nil {
		m.stop()
	}
	cfg := eventstore.Config{Dir: m.dir}
	small(&cfg)
	m.server, m.stop = open(m.t, cfg)
	m.client = dial(m.t, m.server)
}

func (m *machine) stream(name string) *modelStream {
	s, ok := m.streams[name]
	if !ok {
		s = &modelStream{}
		m.streams[name] = s
	}
	return s
}

// append sends a new append, or one that was sent before in part or whole.
func (m *machine) append(t *rapid.T, name string) {
	s := m.stream(name)
	n := rapid.IntRange(1, 4).Draw(t, "events")
	var ids []uint64
	if len(s.events) > 0 && rapid.Bool().Draw(t, "again") {
		at := rapid.IntRange(0, len(s.events)-1).Draw(t, "from")
		ids = slices.Clone(s.events[at:min(at+n, len(s.events))])
	}
	for len(ids) < n {
		m.ids++
		ids = append(ids, number(int(m.ids)))
	}
	expect := rapid.SampledFrom([]int64{anyRevision, noStream, streamExists, int64(len(s.events)) - 1, int64(len(s.events)) - 1 - int64(n)}).Draw(t, "expect")
	if expect < 0 && expect != anyRevision && expect != streamExists {
		expect = noStream
	}
	before := len(s.events)
	got, err := m.client.append(m.t.Context(), name, expect, "t", []byte("{}"), ids...)
	if s.tombstoned {
		if status.Code(err) != codes.FailedPrecondition {
			t.Fatalf("append to the tombstoned %s: %+v, %v", name, got, err)
		}
		return
	}
	gone := expect == streamExists && s.deleted()
	if gone != (status.Code(err) == codes.FailedPrecondition) || !gone && err != nil {
		t.Fatalf("append to %s: %v, want that it is deleted: %t", name, err, gone)
	}
	rev, ok := s.append(expect, ids)
	if got.ok != ok || ok && got.rev != uint64(rev) {
		t.Fatalf("append of %d to %s (%d events) at %d: got %+v, want %t at revision %d", len(ids), name, before, expect, got, ok, rev)
	}
	for i := before; i < len(s.events); i++ {
		m.all = append(m.all, seen{Stream: name, ID: s.events[i], Rev: uint64(i)})
	}
}

func (m *machine) limit(t *rapid.T, name string) {
	s := m.stream(name)
	if s.tombstoned {
		return
	}
	maxCount := rapid.Uint64Range(0, 5).Draw(t, "max count")
	trim := rapid.Uint64Range(0, uint64(len(s.events))).Draw(t, "trim")
	data, err := json.Marshal(map[string]uint64{"$maxCount": maxCount, "$tb": trim})
	if err != nil {
		t.Fatal(err)
	}
	m.ids++
	if a, err := m.client.append(m.t.Context(), "$$"+name, anyRevision, "$metadata", data, number(int(m.ids))); err != nil || !a.ok {
		t.Fatalf("set limits: %+v, %v", a, err)
	}
	s.maxCount, s.trim, s.metadata = maxCount, trim, true
}

func (m *machine) delete(t *rapid.T, name string) {
	s := m.stream(name)
	_, err := m.client.Delete(m.t.Context(), &api.DeleteReq{Options: &api.DeleteReq_Options{
		StreamIdentifier:       &shared.StreamIdentifier{StreamName: []byte(name)},
		ExpectedStreamRevision: &api.DeleteReq_Options_StreamExists{StreamExists: &shared.Empty{}},
	}})
	if want := !s.tombstoned && (s.visible() || len(s.events) == 0 && s.metadata && !s.deleted()); (err == nil) != want {
		t.Fatalf("delete of %s: %v, want success %t", name, err, want)
	} else if want {
		s.trim, s.metadata = math.MaxInt64, true
	}
}

func (m *machine) tombstone(t *rapid.T, name string) {
	s := m.stream(name)
	_, err := m.client.Tombstone(m.t.Context(), &api.TombstoneReq{Options: &api.TombstoneReq_Options{
		StreamIdentifier:       &shared.StreamIdentifier{StreamName: []byte(name)},
		ExpectedStreamRevision: &api.TombstoneReq_Options_Any{Any: &shared.Empty{}},
	}})
	if (err == nil) == s.tombstoned {
		t.Fatalf("tombstone of %s (already: %t): %v", name, s.tombstoned, err)
	}
	s.tombstoned = true
}

// check compares everything that can be read with the model.
func (m *machine) check(t *rapid.T) {
	ctx := m.t.Context()
	for name, s := range m.streams {
		m.checkStream(ctx, t, name, s)
	}
	forwards, err := m.client.readAll(ctx, false, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	backwards, err := m.client.readAll(ctx, true, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	reversed := slices.Clone(forwards)
	slices.Reverse(reversed)
	if d := cmp.Diff(reversed, backwards); d != "" {
		t.Fatalf("the log backwards is not the log (-want +got):\n%s", d)
	}
	if !slices.IsSortedFunc(forwards, func(a, b seen) int { return int(a.Pos) - int(b.Pos) }) {
		t.Fatal("positions do not increase")
	}
	ours := slices.DeleteFunc(forwards, func(e seen) bool { return e.Stream[0] == '$' || e.Rev == math.MaxInt64 })
	for i := range ours {
		ours[i].Pos = 0
	}
	if d := cmp.Diff(m.all, ours, cmp.Transformer("none", func(s []seen) []seen { return append([]seen{}, s...) })); d != "" {
		t.Fatalf("the log (-want +got):\n%s", d)
	}
	if _, err := eventstore.Verify(ctx, m.dir); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) checkStream(ctx context.Context, t *rapid.T, name string, s *modelStream) {
	from := rapid.Uint64Range(0, uint64(len(s.events))).Draw(t, "from")
	count := rapid.Uint64Range(1, 20).Draw(t, "count")
	for _, back := range []bool{false, true} {
		events, found, err := m.client.readStream(ctx, name, back, &from, count)
		if s.tombstoned {
			if status.Code(err) != codes.FailedPrecondition {
				t.Fatalf("read of the tombstoned %s: %v", name, err)
			}
			continue
		}
		if err != nil || found != s.visible() {
			t.Fatalf("read of %s: found %t, %v, want %t", name, found, err, s.visible())
		}
		var want []seen
		if back {
			for i := min(int(from), len(s.events)-1); s.visible() && i >= s.low() && uint64(len(want)) < count; i-- {
				want = append(want, seen{Stream: name, ID: s.events[i], Rev: uint64(i)})
			}
		} else {
			for i := max(int(from), s.low()); s.visible() && i < len(s.events) && uint64(len(want)) < count; i++ {
				want = append(want, seen{Stream: name, ID: s.events[i], Rev: uint64(i)})
			}
		}
		for i := range events {
			events[i].Pos = 0
		}
		if d := cmp.Diff(want, events); d != "" {
			t.Fatalf("read of %s from %d, backwards %t, count %d (-want +got):\n%s", name, from, back, count, d)
		}
	}
}

// Random histories on the server and on a simple model give the same answers and
// the same reads, across restarts.
func TestServerBehavesAsTheModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &machine{t: t, dir: t.TempDir(), streams: map[string]*modelStream{}}
		m.restart()
		defer func() { m.stop() }()
		names := rapid.SampledFrom([]string{"kt.a", "kt.b", "kt.c"})
		rt.Repeat(map[string]func(*rapid.T){
			"append":      func(t *rapid.T) { m.append(t, names.Draw(t, "stream")) },
			"append more": func(t *rapid.T) { m.append(t, names.Draw(t, "stream")) },
			"limit":       func(t *rapid.T) { m.limit(t, names.Draw(t, "stream")) },
			"delete":      func(t *rapid.T) { m.delete(t, names.Draw(t, "stream")) },
			"tombstone": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "rarely") == 0 {
					m.tombstone(t, names.Draw(t, "stream"))
				}
			},
			"restart": func(t *rapid.T) {
				if rapid.IntRange(0, 4).Draw(t, "rarely") == 0 {
					m.restart()
				}
			},
			"fold": func(t *rapid.T) {
				if err := m.server.Fold(m.t.Context()); err != nil {
					t.Fatal(err)
				}
			},
			"": m.check,
		})
	})
}
