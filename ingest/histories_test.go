package ingest //nolint:testpackage // What remembers histories is not exported.

import (
	"testing"

	"pgregory.net/rapid"

	"example.com/keytrail/domain"
)

func history(n int) []domain.Recorded {
	out := make([]domain.Recorded, n)
	for i := range out {
		out[i].Revision = uint64(i)
	}
	return out
}

// Whatever is put and asked, what is remembered of a stream is a beginning of it, and all
// together stay within the bound but for the newest.
func TestHistoriesRememberABeginningWithinTheBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const eventsMax = 20
		h, longest := newHistories(eventsMax), map[string]int{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			stream := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(t, "stream")
			n := rapid.IntRange(0, 12).Draw(t, "length")
			h.put(stream, history(n))
			longest[stream] = max(longest[stream], n)
			if got := len(h.get(stream)); got < n || got > longest[stream] {
				t.Fatalf("%d events of %s remembered, put %d and never more than %d", got, stream, n, longest[stream])
			}
			sum := 0
			for s := range longest {
				for i, rec := range h.get(s) {
					if rec.Revision != uint64(i) {
						t.Fatalf("event %d of %s has revision %d", i, s, rec.Revision)
					}
				}
				sum += len(h.get(s))
			}
			if sum > eventsMax || sum != h.events {
				t.Fatalf("%d events remembered, counted %d, want at most %d", sum, h.events, eventsMax)
			}
		}
	})
}

func TestAppendingToARememberedHistoryChangesNobodysCopy(t *testing.T) {
	h := newHistories(100)
	h.put("s", append(make([]domain.Recorded, 0, 10), history(1)...))
	one, other := append(h.get("s"), domain.Recorded{Type: "one"}), append(h.get("s"), domain.Recorded{Type: "other"})
	if one[1].Type != "one" || other[1].Type != "other" || len(h.get("s")) != 1 {
		t.Errorf("histories share memory: %v, %v", one[1].Type, other[1].Type)
	}
}
