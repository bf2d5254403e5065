package eventlog

import (
	"context"
	"sync"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
)

const (
	// deliveriesMax and deliveryBytesMax bound what waits between the connection and
	// Next. The server is slowed down beyond that.
	deliveriesMax    = 4096
	deliveryBytesMax = 8 << 20
	// deliveryBytes is what an event costs beside its data, roughly.
	deliveryBytes = 512
)

// deliveries are what a subscription received and nobody took yet. One goroutine
// puts, one takes.
type deliveries struct {
	ready chan struct{} // Holds one signal when there is something to take.
	room  chan struct{} // Holds one signal when there is room again.

	mu    sync.Mutex  // Guards all below.
	items []delivered // A ring.
	first int         // Where in items the oldest is.
	count int
	bytes int
}

// delivered is a delivery whose event is still in the client's words: putting it in
// ours is left to the goroutine that takes it.
type delivered struct {
	event *esdb.RecordedEvent
	Delivery
}

func (d *delivered) bytes() int {
	if d.event == nil {
		return deliveryBytes
	}
	return deliveryBytes + len(d.event.Data) + len(d.event.UserMetadata)
}

func newDeliveries() *deliveries {
	return &deliveries{ready: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// put adds a delivery once there is room for it, or returns ctx's error. A single
// delivery always finds room.
func (q *deliveries) put(ctx context.Context, d delivered) error {
	for {
		q.mu.Lock()
		if q.count == 0 || q.count < deliveriesMax && q.bytes+d.bytes() <= deliveryBytesMax {
			q.pushLocked(d)
			first := q.count == 1
			q.mu.Unlock()
			if first {
				signal(q.ready)
			}
			return nil
		}
		q.mu.Unlock()
		select {
		case <-q.room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pushLocked adds d behind the newest.
func (q *deliveries) pushLocked(d delivered) {
	if q.count == len(q.items) {
		larger := make([]delivered, max(64, 2*len(q.items)))
		n := copy(larger, q.items[q.first:])
		copy(larger[n:], q.items[:q.first])
		q.items, q.first = larger, 0
	}
	q.items[(q.first+q.count)%len(q.items)] = d
	q.count++
	q.bytes += d.bytes()
}

// take returns the next delivery, or false if there is none: then ready is signalled
// when there is one.
func (q *deliveries) take() (Delivery, bool) {
	q.mu.Lock()
	if q.count == 0 {
		q.mu.Unlock()
		return Delivery{}, false
	}
	d := q.items[q.first]
	q.items[q.first] = delivered{}
	q.first = (q.first + 1) % len(q.items)
	q.count--
	q.bytes -= d.bytes()
	// The one who puts is woken when half is free, not for each.
	free := q.count <= deliveriesMax/2 && q.bytes <= deliveryBytesMax/2
	q.mu.Unlock()
	if free {
		signal(q.room)
	}
	if d.event != nil {
		r := rawOf(d.event)
		d.Event = &r
	}
	return d.Delivery, true
}

// signal leaves a signal in c, unless one is there.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
