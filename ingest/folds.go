package ingest

import (
	"container/list"
	"sync"

	"example.com/keytrail/domain"
)

// rememberedMax bounds the streams of one kind whose folds are remembered: a key's takes some
// 600 bytes.
const rememberedMax = 16 << 10

// evolving is the fold of a stream: [domain.Account], for one.
type evolving[S any] interface {
	Evolve(rec domain.Recorded) S
}

// folded is the fold of a beginning of a stream, perhaps an empty one.
type folded[S evolving[S]] struct {
	state    S
	next     uint64 // The revision of the first event that is not in it.
	position uint64 // Of the last event that is; 0 if none is.
}

// with returns f with the event that follows.
func (f folded[S]) with(rec domain.Recorded) folded[S] {
	return folded[S]{state: f.state.Evolve(rec), next: rec.Revision + 1, position: rec.Position}
}

// folds remembers the folds of the streams used last, so that a command reads no events
// that this node has read before, and its cost does not grow with the stream. What it
// remembers was true once and is the fold of a beginning of the stream for ever, since the
// log only grows; whether there is more is for the reader to ask. It is safe for
// concurrent use.
type folds[S evolving[S]] struct {
	max   int
	zero  S   // The fold of no event.
	tries int // How often a command on such a stream is decided at most.

	mu     sync.Mutex // Guards all below.
	byName map[string]*list.Element
	once   *list.List // Not asked for since they came, newest first; values are *rememberedFold[S].
	again  *list.List // The others, most recently used first.
}

type rememberedFold[S evolving[S]] struct {
	stream string
	folded folded[S]
	in     *list.List // once or again.
}

// newFolds returns an empty memory of at most streamsMax streams.
func newFolds[S evolving[S]](streamsMax int, zero S) *folds[S] {
	return &folds[S]{max: streamsMax, zero: zero, tries: appendTries, byName: map[string]*list.Element{}, once: list.New(), again: list.New()}
}

// get returns what is remembered of stream.
func (h *folds[S]) get(stream string) folded[S] {
	h.mu.Lock()
	defer h.mu.Unlock()
	e, ok := h.byName[stream]
	if !ok {
		return folded[S]{state: h.zero}
	}
	r := e.Value.(*rememberedFold[S]) //nolint:errcheck,forcetypeassert // The lists hold nothing else.
	h.move(r, h.again)
	if h.again.Len() > h.max-h.max/onceShare {
		h.move(h.again.Back().Value.(*rememberedFold[S]), h.once) //nolint:errcheck,forcetypeassert // The lists hold nothing else.
	}
	return r.folded
}

// onceShare is which part of the room, one in so many, is for streams that were not asked
// for since they came.
const onceShare = 4

// move makes r the newest of a list.
func (h *folds[S]) move(r *rememberedFold[S], to *list.List) {
	if r.in == to {
		to.MoveToFront(h.byName[r.stream])
		return
	}
	r.in.Remove(h.byName[r.stream])
	r.in = to
	h.byName[r.stream] = to.PushFront(r)
}

// put remembers f unless the fold of a longer beginning is known.
func (h *folds[S]) put(stream string, f folded[S]) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e, ok := h.byName[stream]; ok {
		r := e.Value.(*rememberedFold[S]) //nolint:errcheck,forcetypeassert // The lists hold nothing else.
		if f.next > r.folded.next {
			r.folded = f
		}
		return
	}
	if len(h.byName) == h.max {
		from := h.once
		if from.Len() == 0 {
			from = h.again
		}
		oldest := from.Remove(from.Back()).(*rememberedFold[S]) //nolint:errcheck,forcetypeassert // The lists hold nothing else.
		delete(h.byName, oldest.stream)
	}
	h.byName[stream] = h.once.PushFront(&rememberedFold[S]{stream: stream, folded: f, in: h.once})
}
