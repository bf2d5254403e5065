package eventstore

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"math"
	"slices"
)

// expectation is what an append requires of its stream.
type expectation int

const (
	expectExactly expectation = iota
	expectNoStream
	expectExists
	expectAny
)

// expected is an expectation with its revision.
type expected struct {
	kind expectation
	rev  uint64
}

// operation is what a request asks for.
type operation int

const (
	opAppend operation = iota
	opSoftDelete
	opTombstone
)

// request is one change of one stream.
type request struct {
	ctx    context.Context //nolint:containedctx // It is a message: the writer drops requests whose caller is gone.
	op     operation
	stream string
	expect expected
	events []proposed
	done   chan result
}

func (r *request) answer(res result) { r.done <- res }

// result is the answer to a request. Exactly one of ok, wrong, deleted and err is set.
type result struct {
	ok       bool
	rev, pos uint64
	wrong    bool // The stream is not where it was expected to be.
	deleted  bool // The stream is tombstoned.
	current  head
	err      error
}

// group is a set of appends decided one after the other and committed together.
type group struct {
	w       *writer
	heads   map[string]head // What this group changes, on top of the writer's.
	asked   []asked
	buf     []byte // Room for a record's header, then the frames.
	cuts    []cut  // Where blocks begin in buf.
	runs    []groupRun
	events  int
	streams []newStream
	limits  map[int64]limits
	begins  map[int64]uint64 // Where streams begin whose beginning was scavenged.
	last    uint64
	created int64
	lastSID int64
}

type asked struct {
	request *request
	result  result
	pending bool // The result holds only if the group is committed.
}

// cut is a block to be.
type cut struct {
	at          int
	n           int
	first, last uint64
}

// groupRun is a run and the block that it will be in.
type groupRun struct {
	run

	in int
}

func newGroup(w *writer) *group {
	return &group{
		w: w, heads: make(map[string]head), limits: make(map[int64]limits), begins: make(map[int64]uint64),
		buf: append(w.scratch[:0], make([]byte, recordHeaderBytes)...), cuts: w.cuts[:0],
		last: w.last, created: max(w.lastCreated, ticks(w.clock())), lastSID: w.lastSID,
	}
}

// bytes is what the frames of g take.
func (g *group) bytes() int { return len(g.buf) - recordHeaderBytes }

// commit returns g as it is once record seq is durable. It shares no memory with g.
func (g *group) commit(seq uint64) *commit {
	c := &commit{seq: seq, heads: g.heads, streams: g.streams, limits: g.limits, begins: g.begins, blocks: make([]*block, len(g.cuts)), runs: make([]run, len(g.runs))}
	body := slices.Clone(g.buf[recordHeaderBytes:])
	for i, x := range g.cuts {
		end := len(g.buf)
		if i+1 < len(g.cuts) {
			end = g.cuts[i+1].at
		}
		from, to := x.at-recordHeaderBytes, end-recordHeaderBytes
		c.blocks[i] = &block{first: x.first, last: x.last, n: x.n, body: body[from:to:to]}
	}
	for i, x := range g.runs {
		c.runs[i] = x.run
		c.runs[i].in = c.blocks[x.in]
	}
	c.bytes = c.size()
	return c
}

// decide adds r to the group. It returns false if r must wait until the group is
// committed, because the answer depends on events that are not on disk yet.
func (g *group) decide(ctx context.Context, r *request) bool {
	if err := r.ctx.Err(); err != nil {
		g.asked = append(g.asked, asked{request: r, result: result{err: fmt.Errorf("%w: %w", errNotStored, err)}})
		return true
	}
	h, err := g.head(ctx, r.stream)
	if err != nil {
		g.asked = append(g.asked, asked{request: r, result: result{err: fmt.Errorf("%w: %w", errNotStored, err)}})
		return true
	}
	if r.op == opAppend && g.maybeRepeat(r, h) {
		if _, pending := g.heads[r.stream]; pending {
			return false
		}
		res, again, err := g.w.repeated(ctx, r, h)
		if err != nil {
			res, again = result{err: fmt.Errorf("%w: %w", errNotStored, err)}, true
		}
		if again {
			g.asked = append(g.asked, asked{request: r, result: res})
			return true
		}
	}
	res := g.change(ctx, r, h)
	_, pending := g.heads[r.stream]
	g.asked = append(g.asked, asked{request: r, result: res, pending: pending || res.ok})
	return true
}

// head returns where a stream ends, with what this group adds.
func (g *group) head(ctx context.Context, stream string) (head, error) {
	if h, ok := g.heads[stream]; ok {
		return h, nil
	}
	if h, ok := g.w.heads.get(stream); ok {
		return h, nil
	}
	s, err := g.w.reader.stored(ctx, stream)
	if err != nil {
		return head{}, err
	}
	g.w.heads.put(stream, s.head)
	return s.head, nil
}

// maybeRepeat reports whether r could be an append that is already stored: only
// then are stored ids looked at.
func (g *group) maybeRepeat(r *request, h head) bool {
	if len(r.events) == 0 || !h.exists || h.tombstoned() {
		return false
	}
	switch r.expect.kind {
	case expectExactly:
		return h.last > r.expect.rev
	case expectNoStream, expectExists, expectAny:
		return true
	}
	return false
}

func (e expected) holds(h head) bool {
	switch e.kind {
	case expectAny:
		return true
	case expectNoStream:
		return !h.visible()
	case expectExists:
		return h.visible() // Or it has metadata: change looks.
	case expectExactly:
		return h.exists && h.last == e.rev
	}
	return false
}

// change decides r and adds what it stores.
func (g *group) change(ctx context.Context, r *request, h head) result {
	deleted, err := g.gone(ctx, r.stream, h)
	if err != nil {
		return result{err: fmt.Errorf("%w: %w", errNotStored, err)}
	}
	if deleted || r.expect.kind == expectExists && h.limits.softDeleted() {
		return result{deleted: true, current: h}
	}
	ok, err := g.holds(ctx, r, h)
	if err != nil {
		return result{err: fmt.Errorf("%w: %w", errNotStored, err)}
	}
	if !ok {
		return result{wrong: true, current: h}
	}
	switch r.op {
	case opTombstone:
		h.last = revisionMax - 1
		h.exists = true
		end := g.add(r.stream, h, []proposed{{id: newID(), typ: "$streamDeleted", json: true, data: []byte("{}")}})
		return result{ok: true, rev: end.rev, pos: end.pos}
	case opSoftDelete:
		end, err := g.trim(ctx, r.stream, math.MaxInt64)
		if err != nil {
			return result{err: fmt.Errorf("%w: %w", errNotStored, err)}
		}
		return result{ok: true, rev: end.rev, pos: end.pos}
	case opAppend:
	}
	if len(r.events) == 0 {
		return result{ok: true, rev: h.last, pos: g.last, current: h}
	}
	if h.limits.softDeleted() { // Writing brings the stream back, from here on.
		if _, err := g.trim(ctx, r.stream, h.next()); err != nil {
			return result{err: fmt.Errorf("%w: %w", errNotStored, err)}
		}
		h = g.heads[r.stream]
	}
	end := g.add(r.stream, h, r.events)
	return result{ok: true, rev: end.rev, pos: end.pos}
}

// holds reports whether the stream is where r expects it. One that has only metadata
// exists, as in EventStoreDB.
func (g *group) holds(ctx context.Context, r *request, h head) (bool, error) {
	if r.expect.kind == expectExists && !h.exists {
		meta, err := g.head(ctx, "$$"+r.stream)
		return meta.exists, err
	}
	return r.expect.holds(h), nil
}

// gone reports whether a stream, or the stream whose metadata it is, is tombstoned.
func (g *group) gone(ctx context.Context, stream string, h head) (bool, error) {
	if h.tombstoned() {
		return true, nil
	}
	if !isMetaStream(stream) {
		return false, nil
	}
	of, err := g.head(ctx, stream[2:])
	return of.tombstoned(), err
}

// trim writes the stream's metadata anew with $tb at before, all else as it was.
func (g *group) trim(ctx context.Context, stream string, before uint64) (place, error) {
	name := "$$" + stream
	h, err := g.head(ctx, name)
	if err != nil {
		return place{}, err
	}
	metadata := map[string]json.RawMessage{}
	if h.exists {
		old, err := g.newest(ctx, name, h)
		if err != nil {
			return place{}, err
		}
		if json.Unmarshal(old, &metadata) != nil || metadata == nil {
			metadata = map[string]json.RawMessage{}
		}
	}
	metadata["$tb"] = fmt.Appendf(nil, "%d", before)
	data, err := json.Marshal(metadata)
	if err != nil {
		return place{}, fmt.Errorf("encode stream metadata: %w", err)
	}
	return g.add(name, h, []proposed{{id: newID(), typ: "$metadata", json: true, data: data}}), nil
}

// newest returns the data of the last event of a metadata stream, whether it is
// on disk or in this group.
func (g *group) newest(ctx context.Context, name string, h head) ([]byte, error) {
	var found *frame
	for off := recordHeaderBytes; off < len(g.buf); {
		f, next, err := frameAt(g.buf, off)
		if err != nil {
			return nil, err
		}
		if string(f.stream) == name {
			found = &f
		}
		off = next
	}
	if found != nil {
		return found.data()
	}
	var data []byte
	err := g.w.reader.walk(ctx, g.w.stored(name, h), h.last, true, func(f frame) (bool, error) {
		var err error
		data, err = f.data()
		return false, err
	})
	return data, err
}

// add places events at the end of a stream.
func (g *group) add(name string, h head, events []proposed) place {
	if h.sid == 0 {
		h.sid = g.number(name)
	}
	b := g.block()
	x := groupRun{run: run{sid: h.sid, stream: name, first: h.next(), events: len(events), created: g.created}, in: b}
	at := place{stream: name, created: g.created}
	for i := range events {
		at.rev = h.next()
		at.pos = g.last + uint64(frameHeaderBytes+events[i].sizeBytes()+len(name)) //nolint:gosec // A size: positions have gaps, as byte offsets do.
		g.buf = appendFrame(g.buf, &events[i], at)
		g.extend(b, at.pos)
		h.last, h.exists = at.rev, true
	}
	g.runs = append(g.runs, x)
	g.heads[name] = h
	if isMetaStream(name) {
		g.limit(name[2:], parseLimits(events[len(events)-1].data))
	}
	return at
}

// block returns the block that takes the next append.
func (g *group) block() int {
	if n := len(g.cuts); n > 0 && len(g.buf)-g.cuts[n-1].at < blockBytes {
		return n - 1
	}
	g.cuts = append(g.cuts, cut{at: len(g.buf)})
	return len(g.cuts) - 1
}

// extend counts the event at pos as the next one of block b.
func (g *group) extend(b int, pos uint64) {
	if g.cuts[b].n == 0 {
		g.cuts[b].first = pos
	}
	g.cuts[b].n++
	g.cuts[b].last, g.last = pos, pos
	g.events++
}

func (g *group) number(name string) int64 {
	g.lastSID++
	g.streams = append(g.streams, newStream{sid: g.lastSID, name: name})
	return g.lastSID
}

// limit sets what the metadata of a stream hides.
func (g *group) limit(of string, l limits) {
	h, ok := g.heads[of]
	if !ok {
		h, ok = g.w.heads.get(of)
	}
	if !ok {
		panic("eventstore: metadata of a stream whose head was not loaded") // gone and decide load it.
	}
	if h.sid == 0 {
		h.sid = g.number(of)
	}
	h.limits = l
	g.heads[of] = h
	g.limits[h.sid] = l
}

// repeated looks whether the events of r already stand where r would have put
// them: then it is the same success again. If only the first of them do, r is a
// conflict, whatever it expects.
func (w *writer) repeated(ctx context.Context, r *request, h head) (result, bool, error) {
	s := w.stored(r.stream, h)
	var start uint64
	switch r.expect.kind {
	case expectExactly:
		start = r.expect.rev + 1
	case expectNoStream:
		start = 0
	case expectAny, expectExists:
		if r.expect.kind == expectExists && !h.visible() {
			return result{}, false, nil
		}
		return w.find(ctx, s, r.events)
	}
	return w.standsAt(ctx, s, start, r.events)
}

// stored returns a stream with all that it holds, hidden or not.
func (w *writer) stored(name string, h head) stream {
	_, runs, _ := w.recent.stream(name)
	return stream{head: h, name: name, runs: runs, high: h.last}
}

// standsAt reports whether the events of s from revision first on are these, or begin
// like these.
func (w *writer) standsAt(ctx context.Context, s stream, first uint64, events []proposed) (result, bool, error) {
	if first > s.last {
		return result{}, false, nil
	}
	i, same := 0, true
	var end frame
	err := w.reader.walk(ctx, s, first, false, func(f frame) (bool, error) {
		if f.rev != first+uint64(i) { //nolint:gosec // A count.
			same = false // What stood here was scavenged.
			return false, nil
		}
		same = f.id == events[i].id
		end = f
		i++
		return same && i < len(events), nil
	})
	switch {
	case err != nil || i == 0 || i == 1 && !same:
		return result{}, false, err
	case same && i == len(events):
		return result{ok: true, rev: end.rev, pos: end.pos}, true, nil
	}
	return result{wrong: true, current: s.head}, true, nil
}

// findMax bounds how far back, beyond its own length, an append that expects anything
// looks for itself: such an append is only best effort, as in EventStoreDB.
const findMax = 64

// find looks for the events among the newest of s, in whatever order.
func (w *writer) find(ctx context.Context, s stream, events []proposed) (result, bool, error) {
	missing := make(map[[16]byte]bool, len(events))
	for i := range events {
		missing[events[i].id] = true
	}
	known := make(map[[16]byte]frame, len(events))
	looked := 0
	err := w.reader.walk(ctx, s, s.last, true, func(f frame) (bool, error) {
		looked++
		if missing[f.id] {
			delete(missing, f.id)
			known[f.id] = f
		}
		return len(missing) > 0 && looked < findMax+len(events), nil
	})
	if err != nil {
		return result{}, false, err
	}
	if _, ok := known[events[0].id]; !ok {
		return result{}, false, nil
	}
	var end frame
	for i := range events {
		f, ok := known[events[i].id]
		if !ok {
			return result{wrong: true, current: s.head}, true, nil
		}
		end = f
	}
	return result{ok: true, rev: end.rev, pos: end.pos}, true, nil
}

// newID returns a random version 4 UUID: clients look at the version.
func newID() (id [16]byte) {
	_, _ = rand.Read(id[:]) // It never fails.
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}
