package eventstore

import (
	"sort"
	"sync"
)

// recentBytesMax bounds the blocks kept in memory for those who follow the log live.
const recentBytesMax = 8 << 20

// recent is the end of the log: the newest blocks, the position of the newest
// event, and the signal that there is more.
type recent struct {
	mu     sync.RWMutex  // Guards all below.
	blocks []*block      // Consecutive, oldest first.
	bytes  int           // Of all bodies.
	before uint64        // All events after this position are in blocks.
	last   uint64        // Position of the newest event.
	more   chan struct{} // Closed at the next commit.
}

func newRecent(last uint64) *recent {
	return &recent{before: last, last: last, more: make(chan struct{})}
}

// push adds committed blocks and wakes everybody who waits for them.
func (r *recent) push(blocks []*block) {
	if len(blocks) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range blocks {
		r.bytes += len(b.body)
		r.last = b.last
	}
	// A reader may hold an older slice of the array. Appending writes behind its end;
	// what is dropped goes when the array is next grown, so at most twice the bytes
	// are held.
	r.blocks = append(r.blocks, blocks...)
	drop := 0
	for r.bytes > recentBytesMax && drop < len(r.blocks) {
		r.bytes -= len(r.blocks[drop].body)
		r.before = r.blocks[drop].last
		drop++
	}
	r.blocks = r.blocks[drop:]
	close(r.more)
	r.more = make(chan struct{})
}

// reset forgets the blocks: the newest event is at last.
func (r *recent) reset(last uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blocks, r.bytes, r.before, r.last = nil, 0, last, last
	close(r.more)
	r.more = make(chan struct{})
}

// head returns the position of the newest event and a channel that is closed when
// there is a newer one.
func (r *recent) head() (uint64, <-chan struct{}) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.last, r.more
}

// after returns the blocks that hold events after pos, or false if they are not
// all here.
func (r *recent) after(pos uint64) ([]*block, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if pos < r.before {
		return nil, false
	}
	i := sort.Search(len(r.blocks), func(i int) bool { return r.blocks[i].last > pos })
	return r.blocks[i:], true
}

// holding returns the block that begins at first, or nil if it is not here.
func (r *recent) holding(first uint64) *block {
	r.mu.RLock()
	defer r.mu.RUnlock()
	i := sort.Search(len(r.blocks), func(i int) bool { return r.blocks[i].first >= first })
	if i < len(r.blocks) && r.blocks[i].first == first {
		return r.blocks[i]
	}
	return nil
}
