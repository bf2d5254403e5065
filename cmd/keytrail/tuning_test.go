package main

import "testing"

// TestTheHeapGrowsByLittleOrDoubles: by at most the spare, or by what lives if that is
// more; and never by less than Go itself would let it.
func TestTheHeapGrowsByLittleOrDoubles(t *testing.T) {
	t.Parallel()
	for _, live := range []uint64{0, 1, 4 << 20, 24 << 20, 30 << 20, 96 << 20, 97 << 20, 1 << 30, 1 << 40} {
		percent := percentFor(live)
		grows := live * uint64(percent) / 100
		if percent < 100 || percent > 400 || grows > max(heapSpareBytes, live) {
			t.Errorf("%d bytes live: may grow by %d%%, %d bytes", live, percent, grows)
		}
		if live > 24<<20 && live < heapSpareBytes && grows < heapSpareBytes*95/100 {
			t.Errorf("%d bytes live: may grow by %d bytes only", live, grows)
		}
	}
}
