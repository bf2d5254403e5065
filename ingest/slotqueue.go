package ingest

import (
	"context"
	"fmt"
	"sync"

	"example.com/keytrail/domain"
)

// slotAsksMax bounds the commands that go into one append.
const slotAsksMax = 128

// slotAsk is a command about slots that waits for its turn.
type slotAsk struct {
	order   Order
	command func(domain.KeySlots) domain.KeySlotCommand
	err     error // The answer; read it after done.

	lead chan struct{} // Closed when the ask is to lead the next batch.
	done chan struct{} // Closed when the ask is answered.
}

// slotQueues let one batch of commands at a time onto a stream. What comes while one is on
// its way makes the next: many creations for one identity cost few appends, and this node
// never takes a revision away from itself. The zero slotQueues is ready.
type slotQueues struct {
	mu    sync.Mutex            // Guards all below.
	queue map[string][]*slotAsk // By stream, where somebody leads; those who wait.
}

// do returns the answer to ask. One of those who wait leads: it calls batch with all of
// them, itself among them, which answers them. An ask whose ctx ends while it waits is taken
// back, or its outcome is not known.
func (q *slotQueues) do(ctx context.Context, stream string, ask *slotAsk, batch func([]*slotAsk)) error {
	ask.lead, ask.done = make(chan struct{}), make(chan struct{})
	q.mu.Lock()
	waiting, led := q.queue[stream]
	if q.queue == nil {
		q.queue = make(map[string][]*slotAsk)
	}
	q.queue[stream] = append(waiting, ask)
	q.mu.Unlock()
	if led {
		select {
		case <-ask.done:
			return ask.err
		case <-ask.lead:
		case <-ctx.Done():
			if q.leave(stream, ask) {
				return fmt.Errorf("wait for others of the same identity: %w", ctx.Err())
			}
			select {
			case <-ask.done:
				return ask.err
			case <-ask.lead:
			}
		}
	}
	asks := q.take(stream)
	batch(asks)
	q.pass(stream)
	for _, one := range asks {
		close(one.done)
	}
	return ask.err
}

// take returns the next batch. It stays led.
func (q *slotQueues) take(stream string) []*slotAsk {
	q.mu.Lock()
	defer q.mu.Unlock()
	waiting := q.queue[stream]
	n := min(len(waiting), slotAsksMax)
	q.queue[stream] = waiting[n:]
	return waiting[:n:n]
}

// pass makes the first of those who wait the leader, if somebody waits.
func (q *slotQueues) pass(stream string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if waiting := q.queue[stream]; len(waiting) > 0 {
		close(waiting[0].lead)
		return
	}
	delete(q.queue, stream)
}

// leave takes an ask back that nobody has begun with and that is not to lead, and reports
// whether it did.
func (q *slotQueues) leave(stream string, ask *slotAsk) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case <-ask.lead:
		return false
	default:
	}
	waiting := q.queue[stream]
	for i, one := range waiting {
		if one == ask {
			rest := append([]*slotAsk{}, waiting[:i]...)
			q.queue[stream] = append(rest, waiting[i+1:]...)
			return true
		}
	}
	return false
}
