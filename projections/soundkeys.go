package projections

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"

	"example.com/keytrail/domain"
)

// soundKeysMax bounds the keys that are remembered; beyond it all are forgotten.
const soundKeysMax = 1 << 16

// soundKeys remembers keys that were never disabled, deleted or given an end, up to the
// block that was judged last: while a block changes nothing about that, no use of them can
// be a violation or cease to be one, and the tables need not be asked. It holds only from
// one block to the next: after a gap, in which another runner may have written, nothing is
// remembered. It is safe for concurrent use.
type soundKeys struct {
	mu    sync.Mutex // Guards all below.
	block uint64     // The block judged last.
	keys  map[KeyRef]struct{}
}

// doubtful returns, in order, the changed keys of j that may have been invalid at some time.
func (s *soundKeys) doubtful(j Judgement) []KeyRef {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j.Block != s.block+1 {
		s.keys = nil
	}
	var out []KeyRef
	for k, c := range j.Changed {
		if _, sound := s.keys[k]; c.Ends || !sound && !c.Made {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, compareKeys) // So that a statement made again is the same text.
	return out
}

// judged remembers that block j.Block is judged, and which of its keys were found suspect;
// its other changed keys are sound.
func (s *soundKeys) judged(j Judgement, suspects []KeyRef) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.block = j.Block
	if len(s.keys)+len(j.Changed) > soundKeysMax {
		s.keys = nil
	}
	if s.keys == nil {
		s.keys = make(map[KeyRef]struct{}, len(j.Changed))
	}
	for k := range maps.Keys(j.Changed) {
		if _, known := s.keys[k]; !known { // The block's memory is used again; what is kept is a copy.
			s.keys[KeyRef{Account: domain.AccountID(strings.Clone(string(k.Account))), Key: domain.KeyID(strings.Clone(string(k.Key)))}] = struct{}{}
		}
	}
	for _, k := range suspects {
		delete(s.keys, k)
	}
}

func compareKeys(a, b KeyRef) int {
	return cmp.Or(strings.Compare(string(a.Account), string(b.Account)), strings.Compare(string(a.Key), string(b.Key)))
}
