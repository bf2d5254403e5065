package projections

import (
	"sync/atomic"
	"time"
)

// From one cut by time to the next the reader lets pass this many times what the last
// block took to write, while events keep coming: every block costs the same inserts and
// fsyncs, however few its rows, and they compete with the commands that bring more. Where
// somebody waits for the tables it lets pass less.
const (
	paceShare        = 8
	paceShareAwaited = 2
)

// pace says when a runner's blocks are cut, from what the writer and those who wait for
// the tables tell it. It is safe for concurrent use.
type pace struct {
	took    atomic.Int64  // Nanoseconds that the newest block took to write.
	waiting atomic.Int64  // How many wait for the tables.
	poke    chan struct{} // Has room for one: somebody has begun to wait.
}

func newPace() *pace { return &pace{poke: make(chan struct{}, 1)} }

// wrote says how long a block took to write.
func (p *pace) wrote(took time.Duration) { p.took.Store(int64(took)) }

// await says that somebody waits for the tables, until done is called.
func (p *pace) await() (done func()) {
	p.waiting.Add(1)
	select {
	case p.poke <- struct{}{}:
	default:
	}
	return func() { p.waiting.Add(-1) }
}

// due returns when to cut the block that got its first event at began: after delay where
// the log was quiet, later where the block before was cut at cut and more keeps coming,
// but never more than longest after began, or delay if that is longer.
func (p *pace) due(began, cut time.Time, delay, longest time.Duration) time.Time {
	share := time.Duration(paceShare)
	if p.waiting.Load() > 0 {
		share = paceShareAwaited
	}
	longest = max(longest, delay)
	rest := min(share*time.Duration(p.took.Load()), longest)
	due, latest := began.Add(delay), began.Add(longest)
	if next := cut.Add(rest); next.After(due) {
		due = next
	}
	if due.After(latest) {
		return latest // The clock has gone back.
	}
	return due
}
