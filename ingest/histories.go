package ingest

import (
	"container/list"
	"slices"
	"sync"

	"example.com/keytrail/domain"
)

// historyEventsMax bounds the events that all remembered histories hold together: some
// 1.5 KB each.
const historyEventsMax = 16 << 10

// histories remembers the histories of the streams used last, so that a command does not
// read its stream from the beginning. What it remembers was true once and is a beginning
// of the stream for ever, since the log only grows; whether there is more is for the
// reader to ask. It is safe for concurrent use.
type histories struct {
	max int

	mu     sync.Mutex // Guards all below.
	byName map[string]*list.Element
	order  *list.List // Most recently used first; values are *remembered.
	events int
}

type remembered struct {
	stream  string
	history []domain.Recorded
}

func newHistories(eventsMax int) *histories {
	return &histories{max: eventsMax, byName: map[string]*list.Element{}, order: list.New()}
}

// get returns what is remembered of stream: a beginning of it, perhaps empty. Appending to
// it copies it.
func (h *histories) get(stream string) []domain.Recorded {
	h.mu.Lock()
	defer h.mu.Unlock()
	e, ok := h.byName[stream]
	if !ok {
		return nil
	}
	h.order.MoveToFront(e)
	return e.Value.(*remembered).history //nolint:errcheck,forcetypeassert // The list holds nothing else.
}

// put remembers history unless a longer one is known. The caller must not change it any
// more.
func (h *histories) put(stream string, history []domain.Recorded) {
	history = slices.Clip(history)
	h.mu.Lock()
	defer h.mu.Unlock()
	if e, ok := h.byName[stream]; ok {
		r := e.Value.(*remembered) //nolint:errcheck,forcetypeassert // The list holds nothing else.
		if len(history) > len(r.history) {
			h.events += len(history) - len(r.history)
			r.history = history
		}
		h.order.MoveToFront(e)
	} else {
		h.byName[stream] = h.order.PushFront(&remembered{stream: stream, history: history})
		h.events += len(history)
	}
	for h.events > h.max && h.order.Len() > 1 {
		h.forgetOldestLocked()
	}
}

func (h *histories) forgetOldestLocked() {
	e := h.order.Back()
	r := h.order.Remove(e).(*remembered) //nolint:errcheck,forcetypeassert // The list holds nothing else.
	delete(h.byName, r.stream)
	h.events -= len(r.history)
}
