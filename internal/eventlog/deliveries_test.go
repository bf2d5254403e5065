package eventlog_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/internal/embedded/eventstore"
	"example.com/keytrail/internal/eventlog"
)

// A subscriber that takes nothing makes neither side hold more than a bound, however
// large the events are; when it begins to take, it gets everything, in order.
func TestSubscriberThatWaitsHoldsABoundedNumberOfBytes(t *testing.T) {
	s := startServer(t, eventstore.Config{})
	l := openLog(t, s)
	sub, err := l.Subscribe(t.Context(), eventlog.SubscribeOptions{Prefixes: []string{"kt."}, FromStart: true})
	if err != nil {
		t.Fatal(err)
	}
	const events, dataBytes = 120, 900 << 10
	data := make([]byte, dataBytes)
	exp := eventlog.NoStream()
	for i := range events {
		got, err := l.Append(t.Context(), "kt.big", exp, eventlog.Proposed{ID: benchID(uint64(i + 1)), Type: "big.v1", Data: data})
		if err != nil {
			t.Fatal(err)
		}
		exp = eventlog.Exactly(got.Revision)
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	// 32 MiB of the log may wait to be folded, 8 MiB are kept for live readers, and
	// 8 MiB wait on each side of the connection.
	if m.HeapAlloc > 80<<20 {
		t.Errorf("%d MiB are held while nobody takes %d MiB", m.HeapAlloc>>20, events*dataBytes>>20)
	}
	for i := 0; i < events; {
		d, err := sub.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if d.Event == nil {
			continue
		}
		if d.Event.Revision != uint64(i) || len(d.Event.Data) != dataBytes {
			t.Fatalf("event %d is revision %d with %d bytes", i, d.Event.Revision, len(d.Event.Data))
		}
		i++
	}
	t.Logf("%d MiB held", m.HeapAlloc>>20)
}

// TestASubscriptionToTypesDeliversThemFromEveryStream and nothing else, in order; it cannot
// be one to streams too.
func TestASubscriptionToTypesDeliversThemFromEveryStream(t *testing.T) {
	s := startServer(t, eventstore.Config{})
	l := openLog(t, s)
	var want []uint64
	for i, typ := range []string{"made.v1", "changed.v1", "made.v2", "unmade.v1", "made.v1"} {
		got, err := l.Append(t.Context(), fmt.Sprint("kt.a-", i), eventlog.NoStream(), eventlog.Proposed{ID: benchID(uint64(i + 1)), Type: typ})
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(typ, "made.") {
			want = append(want, got.Position)
		}
	}
	sub, err := l.Subscribe(t.Context(), eventlog.SubscribeOptions{Types: []string{"made."}, FromStart: true})
	if err != nil {
		t.Fatal(err)
	}
	var got []uint64
	for {
		d, err := sub.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if d.CaughtUp {
			break
		}
		if d.Event != nil {
			got = append(got, d.Event.Position)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("positions (-want +got):\n%s", diff)
	}
	for _, opt := range []eventlog.SubscribeOptions{{}, {Types: []string{"made."}, Prefixes: []string{"kt."}}} {
		if _, err := l.Subscribe(t.Context(), opt); err == nil {
			t.Errorf("%+v is taken", opt)
		}
	}
}
