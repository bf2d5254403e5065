package ingest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"slices"
	"sync"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/usagebatch"
)

const (
	// batchMemory is how long a batch id is remembered.
	batchMemory = 7 * 24 * time.Hour
	// batchesMin are the newest batches of a slot that are remembered however old they
	// are, so that a clock that jumps forgets none that a client may still repeat.
	// Older events are read for them up to batchesBytesMax.
	batchesMin      = 1024
	batchesBytesMax = 64 << 20
	// slotReadPage is how many events of a slot are read at once: each may have 1 MiB.
	slotReadPage = 16
	// slotTries bounds how often an append is planned anew because another node wrote
	// to the slot.
	slotTries = 8
	// chunkBytesMax bounds the columns of one event, groupBytesMax the events of one
	// append: a server takes 1 MiB.
	chunkBytesMax  = 900 << 10
	groupBytesMax  = 960 << 10
	chunkOverBytes = 4 << 10 // Header, metadata and framing of an event, generously.
	// recentUsesMax bounds the ids of a slot that the usage table does not hold yet.
	recentUsesMax = 4 << 20
)

// UsageLog is what usage intake needs of the event log; [eventlog.Log] is one.
type UsageLog interface {
	CommandLog
	ReadStreamBackwards(ctx context.Context, stream string, from *uint64, limit int) ([]eventlog.Raw, error)
}

// KnownUses says which uses the usage table holds.
type KnownUses interface {
	// Known returns those of ids that are recorded for account with a time from from to
	// to, and the position up to which the table held everything when it was asked: a
	// use at or before upTo that is not in known is not in the log.
	Known(ctx context.Context, account domain.AccountID, ids []string, from, to time.Time) (known map[string]struct{}, upTo uint64, err error)
}

// useKey names a use for ever.
type useKey struct {
	account domain.AccountID
	id      string
}

// batchKey names a batch for ever.
type batchKey struct{ caller, batch string }

// batchState is what a slot holds of a batch.
type batchState struct {
	bodyHash           string
	next               uint64 // The first line that is not stored yet.
	done               bool   // The last chunk is stored.
	accepted           uint64
	rejected, repeated uint64
	position           uint64
	at                 time.Time
}

// merge adds one stored chunk.
func (s *batchState) merge(b domain.UsageBatch, position uint64, at time.Time) {
	s.bodyHash = b.BodyHash
	s.next = max(s.next, b.First+b.Lines)
	s.done = s.done || b.Last
	s.accepted += uint64(b.Count)
	s.rejected, s.repeated = max(s.rejected, b.Rejected), max(s.repeated, b.Repeated)
	s.position = max(s.position, position)
	if at.After(s.at) {
		s.at = at
	}
}

// slots are the streams of one class of usage, each with the one writer that this
// node has for it.
type slots struct {
	log    UsageLog
	codec  *usagebatch.Codec
	known  KnownUses // nil: nothing is looked up.
	now    func() time.Time
	logger *slog.Logger

	recentMax  int // Of a slot's ids that the usage table does not hold yet.
	batchesMin int // See the constant.

	mu       sync.Mutex // Guards all below.
	writers  map[string]*slotWriter
	failed   bool // The usage table did not answer, when it was asked at failedAt.
	failedAt time.Time
}

// slotOf returns the slot (0…63) of a caller or an account: FNV-1a modulo 64. It must
// never change, or a retry would not find its batch.
func slotOf(s string) int {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s)) // Never fails.
	return int(h.Sum64() % domain.UsageSlots)
}

func (s *slots) writer(class, of string) *slotWriter {
	stream := domain.UsageSlotStream(class, slotOf(of))
	s.mu.Lock()
	defer s.mu.Unlock()
	w, ok := s.writers[stream]
	if !ok {
		w = &slotWriter{slots: s, stream: stream, turn: make(chan struct{}, 1), index: slotIndex{turn: make(chan struct{}, 1)}}
		s.writers[stream] = w
	}
	return w
}

// slotWriter follows and writes one slot. Other nodes may write to it as well: the
// expected revision of every append is the fence, so what this writer decides on is
// the slot's whole history or the append is refused.
type slotWriter struct {
	*slots
	stream string
	index  slotIndex // Has a turn of its own.

	mu      sync.Mutex // Guards waiting.
	waiting []*chunk

	// turn is held by whoever reads or changes what follows.
	turn    chan struct{}
	synced  bool // The fields below are the slot's, as far as this node has seen it.
	last    eventlog.Expected
	lastAt  time.Time // Effective time of the last event.
	batches map[batchKey]*batchState
	pruned  time.Time // When batches was last cleaned.
	recent  recentUses
}

// write stores what of c is not in the log and returns the state of its batch in this
// slot. Chunks that wait at the same time share appends. When it returns nil,
// everything of c is durable; after an error the same chunk may be written again.
func (w *slotWriter) write(ctx context.Context, c *chunk) (batchState, error) {
	c.done = make(chan struct{})
	w.mu.Lock()
	w.waiting = append(w.waiting, c)
	w.mu.Unlock()
	select {
	case w.turn <- struct{}{}:
	case <-c.done:
		return c.state, c.err
	case <-ctx.Done():
		w.forget(c)
		return batchState{}, fmt.Errorf("wait for slot: %w", ctx.Err())
	}
	defer func() { <-w.turn }()
	// The append serves others too: it must not end with this caller's patience. The
	// log has its own timeouts.
	ctx = context.WithoutCancel(ctx)
	for {
		select {
		case <-c.done:
			return c.state, c.err
		default:
			w.commit(ctx, w.takeGroup())
		}
	}
}

// forget takes c out of the queue, if nobody took it to write it.
func (w *slotWriter) forget(c *chunk) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, other := range w.waiting {
		if other == c {
			w.waiting = append(w.waiting[:i], w.waiting[i+1:]...)
			return
		}
	}
}

// takeGroup takes the chunks that fit one append, in order, one of each batch.
func (w *slotWriter) takeGroup() []*chunk {
	w.mu.Lock()
	defer w.mu.Unlock()
	var group, rest []*chunk
	size := 0
	batches := make(map[batchKey]struct{})
	for _, c := range w.waiting {
		_, twice := batches[c.batch]
		fits := len(group) == 0 || size+len(c.data)+chunkOverBytes <= groupBytesMax
		if twice || !fits {
			// Later chunks of the batch must not overtake this one.
			batches[c.batch] = struct{}{}
			rest = append(rest, c)
			continue
		}
		batches[c.batch] = struct{}{}
		size += len(c.data) + chunkOverBytes
		group = append(group, c)
	}
	w.waiting = rest
	return group
}

// commit writes a group with one append and wakes those who wait for it.
func (w *slotWriter) commit(ctx context.Context, group []*chunk) {
	err := w.tryCommit(ctx, group)
	for _, c := range group {
		if err != nil && c.err == nil {
			c.err = err
		}
		close(c.done)
	}
}

func (w *slotWriter) tryCommit(ctx context.Context, group []*chunk) error {
	followed := false
	for range slotTries {
		if err := w.catchUp(ctx, group); err != nil {
			w.synced = false
			return logError("read slot", err)
		}
		p, err := w.plan(group)
		if err != nil {
			return err
		}
		if len(p.events) == 0 {
			// No append will find out whether another node has used these batch ids.
			if !followed && w.strange(p) {
				if err := w.follow(ctx); err != nil {
					w.synced = false
					return logError("follow slot", err)
				}
				followed = true
				continue
			}
			w.applied(p, eventlog.Appended{})
			return nil
		}
		at, err := w.log.Append(ctx, w.stream, w.last, p.events...)
		if _, wrong := errors.AsType[*eventlog.WrongRevision](err); wrong {
			w.logger.LogAttrs(ctx, slog.LevelDebug, "another node wrote to the slot", slog.String("stream", w.stream))
			if err := w.follow(ctx); err != nil {
				w.synced = false
				return logError("follow slot", err)
			}
			continue
		}
		if err != nil {
			// Stored or not: the next append looks first.
			w.synced = false
			return logError("append uses", err)
		}
		w.applied(p, at)
		return nil
	}
	w.synced = false
	return domain.Errorf(domain.Unavailable, "too many writers at once, try again").WithMessageCode("slot_contended")
}

// strange reports whether p is about a batch that this node has not seen in the slot.
func (w *slotWriter) strange(p plan) bool {
	return slices.ContainsFunc(p.steps, func(s step) bool { return w.batches[s.chunk.batch] == nil })
}

// applied remembers what an append stored.
func (w *slotWriter) applied(p plan, at eventlog.Appended) {
	now := w.now()
	if len(p.events) > 0 {
		w.last, w.lastAt = eventlog.Exactly(at.Revision), p.effective
	}
	for _, s := range p.steps {
		key := s.chunk.batch
		if s.header != nil {
			w.batch(key).merge(*s.header, at.Position, now)
			// The position of an earlier event of the group is not known; a later one only
			// keeps the ids longer.
			w.recent.add(at.Position, s.keys)
		}
		if state := w.batches[key]; state != nil {
			s.chunk.state = *state
		}
		s.chunk.repeats = s.repeats
		if s.header != nil {
			s.chunk.stored, s.chunk.position = uint64(s.header.Count), at.Position
		}
	}
	if w.recent.len() > 0 && p.upTo > w.recent.floor {
		w.recent.drop(p.upTo)
	}
	w.prune(now)
}

// prune forgets batches that are older than the memory, but for the newest.
func (w *slotWriter) prune(now time.Time) {
	if now.Sub(w.pruned).Abs() < time.Hour {
		return
	}
	w.pruned = now
	var old []batchKey
	for k, s := range w.batches {
		if now.Sub(s.at) > batchMemory {
			old = append(old, k)
		}
	}
	slices.SortFunc(old, func(a, b batchKey) int { return cmp.Compare(w.batches[a].position, w.batches[b].position) })
	for _, k := range old[:min(len(old), max(0, len(w.batches)-w.batchesMin))] {
		delete(w.batches, k)
	}
}
