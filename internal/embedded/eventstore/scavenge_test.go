package eventstore_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"example.com/keytrail/internal/embedded/eventstore"
)

// reads is all that can be read of streams, in both directions.
func reads(t *testing.T, c client, streams []string) map[string][]seen {
	t.Helper()
	all := map[string][]seen{}
	for _, name := range streams {
		for _, back := range []bool{false, true} {
			events, found, err := c.readStream(t.Context(), name, back, nil, 1<<40)
			key := fmt.Sprintf("%s back=%t found=%t code=%s", name, back, found, status.Code(err))
			all[key] = append([]seen{}, events...)
		}
	}
	return all
}

// appendNew appends events that were never sent before: what is scavenged is not known
// again when it is repeated.
func (m *machine) appendNew(t *rapid.T, name string) {
	s := m.stream(name)
	if s.tombstoned {
		return
	}
	ids := make([]uint64, rapid.IntRange(1, 6).Draw(t, "events"))
	for i := range ids {
		m.ids++
		ids[i] = number(int(m.ids))
	}
	if _, ok := s.append(int64(len(s.events))-1, ids); !ok {
		t.Fatalf("the model refuses an append to %s", name)
	}
	if a, err := m.client.append(m.t.Context(), name, anyRevision, "t", []byte("data"), ids...); err != nil || int(a.rev) != len(s.events)-1 {
		t.Fatalf("append to %s: %+v, %v, want revision %d", name, a, err, len(s.events)-1)
	}
}

// After a scavenge every stream reads as before, in memory and in the file, appends go
// on where they were, and what was hidden is gone.
func TestScavengeChangesNoRead(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &machine{t: t, dir: t.TempDir(), streams: map[string]*modelStream{}}
		m.restart()
		defer func() { m.stop() }()
		names := rapid.SampledFrom([]string{"kt.a", "kt.b", "kt.c"})
		streams := []string{"kt.a", "kt.b", "kt.c", "$$kt.a", "$$kt.b", "$$kt.c"}
		scavenge := func(t *rapid.T) {
			before := reads(m.t, m.client, streams)
			held := len(scan(m.t, m.dir))
			r, err := m.server.Scavenge(m.t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(before, reads(m.t, m.client, streams)); d != "" {
				t.Fatalf("reads after the scavenge (-want +got):\n%s", d)
			}
			for name, s := range m.streams {
				s.gone = max(0, min(s.low(), len(s.events)-1))
				m.checkStream(m.t.Context(), t, name, s)
			}
			if left := len(scan(m.t, m.dir)); left != held-r.Events {
				t.Fatalf("the log held %d events, %d were scavenged, %d are left", held, r.Events, left)
			}
			if r, err := m.server.Scavenge(m.t.Context()); err != nil || r.Events != 0 {
				t.Fatalf("a second scavenge removed %+v, %v", r, err)
			}
			if _, err := eventstore.Verify(m.t.Context(), m.dir); err != nil {
				t.Fatal(err)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"append":      func(t *rapid.T) { m.appendNew(t, names.Draw(t, "stream")) },
			"append more": func(t *rapid.T) { m.appendNew(t, names.Draw(t, "stream")) },
			"limit":       func(t *rapid.T) { m.limit(t, names.Draw(t, "stream")) },
			"delete":      func(t *rapid.T) { m.delete(t, names.Draw(t, "stream")) },
			"tombstone": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "rarely") == 0 {
					m.tombstone(t, names.Draw(t, "stream"))
				}
			},
			"scavenge": scavenge,
			"restart":  func(*rapid.T) { m.restart() },
		})
		scavenge(rt)
	})
}

// A stream that is cut again and again does not make the file grow for ever: what was
// freed is used again.
func TestScavengedSpaceIsUsedAgain(t *testing.T) {
	cfg := eventstore.Config{Dir: t.TempDir()}
	small(&cfg)
	s, stop := open(t, cfg)
	c := dial(t, s)
	const perRound, rounds = 60, 8
	var sizes []int64
	for round := range rounds {
		for i := range perRound {
			n := round*perRound + i
			if a, err := c.append(t.Context(), "kt.usage", int64(n)-1, "t", make([]byte, 20<<10), number(n)); err != nil || !a.ok {
				t.Fatalf("append: %+v, %v", a, err)
			}
		}
		cut := fmt.Appendf(nil, `{"$tb":%d}`, (round+1)*perRound-1)
		if a, err := c.append(t.Context(), "$$kt.usage", anyRevision, "$metadata", cut, number(1e6+round)); err != nil || !a.ok {
			t.Fatalf("cut: %+v, %v", a, err)
		}
		r, err := s.Scavenge(t.Context())
		if err != nil || r.Events < perRound-1 || r.Bytes < (perRound-1)*20<<10 {
			t.Fatalf("scavenge %d: %+v, %v", round, r, err)
		}
		info, err := os.Stat(filepath.Join(cfg.Dir, "events.db"))
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, info.Size())
	}
	if sizes[rounds-1] > sizes[2]+256<<10 {
		t.Errorf("the file grew: %v", sizes)
	}
	events, _, err := c.readStream(t.Context(), "kt.usage", false, nil, 1<<40)
	if err != nil || len(events) != 1 || events[0].Rev != perRound*rounds-1 {
		t.Errorf("the stream holds %v, %v", events, err)
	}
	stop()
	verify(t, cfg.Dir, 2)
}
