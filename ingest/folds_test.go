package ingest //nolint:testpackage // What remembers folds is not exported.

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"example.com/keytrail/domain"
)

// counted is a fold that counts, and says which events it has seen.
type counted struct{ seen string }

func (c counted) Evolve(rec domain.Recorded) counted {
	return counted{seen: c.seen + fmt.Sprint(rec.Revision) + " "}
}

func foldOf(n int) folded[counted] {
	var f folded[counted]
	for i := range n {
		f = f.with(domain.Recorded{Revision: uint64(i), Position: uint64(i+1) * 10})
	}
	return f
}

// Whatever is put and asked, what is remembered of a stream is the fold of a beginning of
// it, the longest that was put since it was last forgotten, and the streams stay within
// the bound, the newest among them.
func TestFoldsRememberABeginningWithinTheBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const streamsMax = 3
		h, longest := newFolds(streamsMax, counted{}), map[string]int{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			stream := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(t, "stream")
			n := rapid.IntRange(1, 12).Draw(t, "length")
			before := h.get(stream)
			h.put(stream, foldOf(n))
			longest[stream] = max(longest[stream], n)
			if got := h.get(stream); got != foldOf(max(n, int(before.next))) {
				t.Fatalf("%s: put the fold of %d events over %+v, got %+v", stream, n, before, got)
			}
			known := 0
			for s := range longest {
				got := h.get(s)
				if got.next > 0 {
					known++
				}
				if got != foldOf(int(got.next)) || int(got.next) > longest[s] {
					t.Fatalf("%s: %+v is not the fold of a beginning", s, got)
				}
			}
			if listed := h.once.Len() + h.again.Len(); known > streamsMax || known != listed || known != len(h.byName) {
				t.Fatalf("%d streams remembered, %d listed, %d by name, want at most %d", known, listed, len(h.byName), streamsMax)
			}
		}
	})
}

// TestNewStreamsDriveOutNoneThatIsWorkedOn: however many streams come, one that was asked
// for again is remembered.
func TestNewStreamsDriveOutNoneThatIsWorkedOn(t *testing.T) {
	t.Parallel()
	h := newFolds(8, counted{})
	h.put("old", foldOf(3))
	if got := h.get("old"); got != foldOf(3) {
		t.Fatalf("put the fold of 3 events, got %+v", got)
	}
	for i := range 100 {
		h.put(fmt.Sprint("new ", i), foldOf(1))
	}
	if got := h.get("old"); got != foldOf(3) {
		t.Fatalf("after 100 new streams: %+v", got)
	}
	if got := h.get("new 99"); got != foldOf(1) {
		t.Fatalf("of the newest stream: %+v", got)
	}
}
