package ingest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

// chunk is a run of a batch's lines on its way into one slot. Whoever calls write owns
// it until write returns.
type chunk struct {
	batch    batchKey
	bodyHash string
	// ordered says that the batch is written to this slot alone, chunk by chunk: what
	// is stored of it is its beginning. Chunks of imports are not: there each record is
	// known by its id.
	ordered bool
	first   uint64 // First line, from 0.
	lines   uint64
	last    bool
	// rejectedAt are the refused lines of this chunk, rejected how many of the batch
	// came before them.
	rejectedAt []uint64
	rejected   uint64
	// carry counts the repeats from line carryFrom on in chunks before this one that
	// left nothing to store.
	carry, carryFrom uint64
	uses             []domain.Use
	lineOf           []uint64 // Of each use.
	// explicit says of each use that its id was given, so that it may be known already.
	explicit  []bool
	data      []byte      // uses, encoded.
	to        *slotWriter // Of an import.
	by        domain.Initiator
	trace     string
	networkDB string

	// looked says that known and upTo are what the usage table answered.
	looked bool
	known  map[useKey]struct{}
	upTo   uint64

	done     chan struct{} // Closed when the fields below are set.
	state    batchState
	stored   uint64
	repeats  uint64
	position uint64 // Of the append that stored it; 0 if there was nothing to store.
	err      error
}

// split halves a chunk whose columns are too large for one event.
func (c *chunk) split() (*chunk, *chunk) {
	n := len(c.uses) / 2
	a, b := *c, *c
	a.uses, a.lineOf, a.explicit = c.uses[:n], c.lineOf[:n], c.explicit[:n]
	b.uses, b.lineOf, b.explicit = c.uses[n:], c.lineOf[n:], c.explicit[n:]
	a.last = false
	a.lines = c.lineOf[n] - c.first
	b.first, b.lines = c.lineOf[n], c.lines-a.lines
	cut, _ := slices.BinarySearch(c.rejectedAt, b.first)
	a.rejectedAt, b.rejectedAt = c.rejectedAt[:cut], c.rejectedAt[cut:]
	return &a, &b
}

// plan is one append: its events, and what becomes of each chunk.
type plan struct {
	events    []eventlog.Proposed
	steps     []step
	effective time.Time
	upTo      uint64 // The usage table holds everything up to here.
}

type step struct {
	chunk   *chunk
	header  *domain.UsageBatch // nil: nothing to store.
	keys    []useKey
	repeats uint64
}

// plan decides what of each chunk is stored, given all that the slot holds. A chunk
// that is refused gets its error; the others go on.
func (w *slotWriter) plan(group []*chunk) (plan, error) {
	p := plan{effective: w.lastAt, upTo: noFloor}
	here := make(map[useKey]struct{}) // Uses of earlier chunks of this group.
	for _, c := range group {
		c.err = nil
		if state := w.batches[c.batch]; state != nil && state.bodyHash != c.bodyHash {
			c.err = domain.Errorf(domain.Conflict, "this batch id was used for another body").
				WithField("Keytrail-Batch-Id").WithMessageCode("batch_id_reused")
			continue
		}
		if c.looked {
			p.upTo = min(p.upTo, c.upTo)
		}
		s, err := w.choose(c, here)
		if err != nil {
			return plan{}, err
		}
		p.steps = append(p.steps, s)
		if s.header == nil {
			continue
		}
		p.effective = domain.NextEffective(w.now(), p.effective)
		event, err := eventlog.Propose(c.id(s.header), domain.UsageRecorded{Batch: *s.header},
			domain.Metadata{EffectiveAt: p.effective, Initiator: c.by, CorrelationID: c.trace})
		if err != nil {
			return plan{}, fmt.Errorf("propose uses: %w", err)
		}
		p.events = append(p.events, event)
	}
	if p.upTo == noFloor {
		p.upTo = 0
	}
	return p, nil
}

// id is the event id of what h stores of the chunk. It names the content too: a server
// takes an append at a place where an event of the same id stands for a repeat and
// answers success, so two bodies under one batch id, or two nodes that know different
// uses already, must not share an id.
func (c *chunk) id(h *domain.UsageBatch) domain.EventID {
	kind := "usage-import"
	if c.ordered {
		kind = "usage"
	}
	sum := sha256.Sum256(h.Columns)
	return domain.DeriveID(kind, h.Caller, h.Batch, strconv.FormatUint(h.First, 10), strconv.FormatUint(h.Lines, 10), h.BodyHash, string(sum[:]))
}

// lookBytesMax bounds the ids of one question to the usage table: a statement there
// may have 256 KiB.
const lookBytesMax = 128 << 10

// lookup is one question to the usage table.
type lookup struct {
	account  domain.AccountID
	ids      []string
	bytes    int
	from, to time.Time
}

// lookups returns the questions about those of c's uses that came with an id.
func (c *chunk) lookups() []*lookup {
	var all []*lookup
	open := make(map[domain.AccountID]*lookup)
	for i := range c.uses {
		if !c.explicit[i] {
			continue
		}
		u := &c.uses[i]
		q := open[u.Account]
		if q == nil || q.bytes > lookBytesMax {
			q = &lookup{account: u.Account, from: u.Time, to: u.Time}
			open[u.Account] = q
			all = append(all, q)
		}
		q.ids = append(q.ids, u.ID)
		q.bytes += len(u.ID) + 4
		if u.Time.Before(q.from) {
			q.from = u.Time
		}
		if u.Time.After(q.to) {
			q.to = u.Time
		}
	}
	return all
}

// ask asks the usage table which of c's uses it holds.
func (s *slots) ask(ctx context.Context, c *chunk) error {
	asked := c.lookups()
	c.known, c.upTo, c.looked = make(map[useKey]struct{}), noFloor, len(asked) > 0
	for _, q := range asked {
		known, upTo, err := s.known.Known(ctx, q.account, q.ids, q.from, q.to)
		if err != nil {
			return fmt.Errorf("look for known uses: %w: %w", domain.Errorf(domain.Unavailable,
				"the usage table does not answer; send it again").WithMessageCode("usage_unavailable"), err)
		}
		c.upTo = min(c.upTo, upTo)
		for id := range known {
			c.known[useKey{account: q.account, id: id}] = struct{}{}
		}
	}
	return nil
}

// choose returns what of c is to be stored, and adds its ids to here.
func (w *slotWriter) choose(c *chunk, here map[useKey]struct{}) (step, error) {
	s := step{chunk: c}
	var state batchState
	if known := w.batches[c.batch]; known != nil {
		state = *known
	}
	if c.ordered && (state.done || state.next >= c.first+c.lines && !c.last) {
		return s, nil
	}
	keep := make([]int, 0, len(c.uses))
	for i := range c.uses {
		if c.ordered && c.lineOf[i] < state.next {
			continue
		}
		if !c.explicit[i] || w.known == nil {
			keep = append(keep, i)
			continue
		}
		k := useKey{account: c.uses[i].Account, id: c.uses[i].ID}
		_, known := c.known[k]
		_, twice := here[k]
		if known || twice || w.recent.has(k) {
			s.repeats++
			continue
		}
		here[k] = struct{}{}
		s.keys = append(s.keys, k)
		keep = append(keep, i)
	}
	// An ordered batch of which something is stored gets its end, be it empty.
	if len(keep) == 0 && (!c.ordered || !c.last || state.next == 0) {
		return s, nil
	}
	var err error
	s.header, err = w.header(c, keep, state, s.repeats)
	return s, err
}

// header returns the event of the uses in keep. An ordered chunk also covers the
// lines before it that left nothing to store.
func (w *slotWriter) header(c *chunk, keep []int, state batchState, repeats uint64) (*domain.UsageBatch, error) {
	h := &domain.UsageBatch{
		Batch: c.batch.batch, Caller: c.batch.caller, BodyHash: c.bodyHash,
		Count:     uint32(len(keep)), //nolint:gosec // At most blockLinesMax.
		NetworkDB: c.networkDB, Columns: c.data,
	}
	if c.ordered {
		end := c.first + c.lines
		h.First, h.Lines, h.Last = state.next, end-state.next, c.last
		h.Rejected = c.rejected + uint64(len(c.rejectedAt))
		if h.Repeated = state.repeated + repeats; c.carryFrom >= state.next {
			h.Repeated += c.carry
		}
	} else {
		h.First = c.lineOf[keep[0]]
		h.Lines = c.lineOf[keep[len(keep)-1]] + 1 - h.First
		h.Repeated = repeats
	}
	for _, i := range keep {
		at := c.uses[i].Time
		if h.From.IsZero() || at.Before(h.From) {
			h.From = at
		}
		if at.After(h.To) {
			h.To = at
		}
	}
	if len(keep) == len(c.uses) {
		return h, nil
	}
	uses := make([]domain.Use, len(keep))
	for n, i := range keep {
		uses[n] = c.uses[i]
	}
	var err error
	if h.Columns, err = w.codec.Encode(uses); err != nil {
		return nil, fmt.Errorf("encode uses: %w", err)
	}
	return h, nil
}
