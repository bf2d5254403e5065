package eventstore

import (
	"slices"
	"sort"
	"sync"
)

// recentBytesMax bounds the folded blocks kept in memory for those who follow the
// log live. What is not folded yet is kept whatever it takes; the folder bounds it.
const recentBytesMax = 8 << 20

// recent is the end of the log: the newest blocks, what the streams look like with
// the commits that are not in the tables yet, the position of the newest event, and
// the signal that there is more.
//
// Who looks for something looks here first and in the tables after: what is not
// here any more is there, because it leaves only after it arrived.
type recent struct {
	mu      sync.RWMutex  // Guards all below.
	blocks  []*block      // Consecutive, oldest first.
	bytes   int           // Of all bodies.
	before  uint64        // All events after this position are in blocks.
	folded  uint64        // Events up to this position are in the tables.
	last    uint64        // Position of the newest event.
	more    chan struct{} // Closed at the next commit.
	streams map[string]*unfolded
}

// unfolded is a stream with commits that are not in the tables.
type unfolded struct {
	head head
	runs []run  // Not in the tables, oldest first. Only appended to and cut in front.
	seq  uint64 // Of the newest commit that changed it.
}

func newRecent(last uint64) *recent {
	return &recent{before: last, folded: last, last: last, more: make(chan struct{}), streams: make(map[string]*unfolded)}
}

// push adds a commit and wakes everybody who waits for one.
func (r *recent) push(c *commit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, h := range c.heads {
		u, ok := r.streams[name]
		if !ok {
			u = &unfolded{}
			r.streams[name] = u
		}
		u.head, u.seq = h, c.seq
	}
	for _, x := range c.runs {
		u := r.streams[x.stream]
		u.runs = append(u.runs, x)
	}
	for _, b := range c.blocks {
		r.bytes += len(b.body)
		r.last = b.last
	}
	// A reader may hold an older slice of the array. Appending writes behind its end;
	// what is dropped goes when the array is next grown.
	r.blocks = append(r.blocks, c.blocks...)
	r.trimLocked()
	close(r.more)
	r.more = make(chan struct{})
}

// fold forgets of c what the tables hold now.
func (r *recent) fold(c *commit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range c.heads {
		u, ok := r.streams[name]
		switch {
		case !ok:
		case u.seq <= c.seq:
			delete(r.streams, name)
		default:
			n := 0
			for n < len(u.runs) && u.runs[n].in.last <= c.blocks[len(c.blocks)-1].last {
				n++
			}
			u.runs = u.runs[n:]
		}
	}
	r.folded = c.blocks[len(c.blocks)-1].last
	r.trimLocked()
}

// trimLocked drops the oldest blocks that the tables hold, down to the bound.
func (r *recent) trimLocked() {
	drop := 0
	for r.bytes > recentBytesMax && drop < len(r.blocks) && r.blocks[drop].last <= r.folded {
		r.bytes -= len(r.blocks[drop].body)
		r.before = r.blocks[drop].last
		r.blocks[drop] = nil // Nobody reads it: see after.
		drop++
	}
	r.blocks = r.blocks[drop:]
}

// stream returns what is here of a stream, or false if all of it is in the tables.
func (r *recent) stream(name string) (head, []run, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	u, ok := r.streams[name]
	if !ok {
		return head{}, nil, false
	}
	return u.head, u.runs, true
}

// head returns the position of the newest event and a channel that is closed when
// there is a newer one.
func (r *recent) head() (uint64, <-chan struct{}) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.last, r.more
}

// after returns some blocks that hold the events after pos, in order, or false if
// they are not all here.
func (r *recent) after(pos uint64) ([]*block, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if pos < r.before {
		return nil, false
	}
	i := sort.Search(len(r.blocks), func(i int) bool { return r.blocks[i].last > pos })
	end, bytes := i, 0
	for end < len(r.blocks) && bytes < chunkBytes { // So much a reader may keep that was dropped here.
		bytes += len(r.blocks[end].body)
		end++
	}
	return slices.Clone(r.blocks[i:end]), true
}

// below returns some blocks that hold the events before pos, newest first, or none
// if these are in the tables.
func (r *recent) below(pos uint64) []*block {
	r.mu.RLock()
	defer r.mu.RUnlock()
	end := sort.Search(len(r.blocks), func(i int) bool { return r.blocks[i].first >= pos })
	i, bytes := end, 0
	for i > 0 && bytes < chunkBytes {
		i--
		bytes += len(r.blocks[i].body)
	}
	blocks := slices.Clone(r.blocks[i:end])
	slices.Reverse(blocks)
	return blocks
}
