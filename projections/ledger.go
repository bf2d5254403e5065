package projections

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

// Stored names of the ledger's and the poison stream's events.
const (
	typeBlockPlanned   = "block.planned.v1"
	typeBlockRetaken   = "block.retaken.v1"
	typeBlockCompleted = "block.completed.v1"
	typeLedgerRewound  = "ledger.rewound.v1"
	typePoisoned       = "event.poisoned.v1"
)

// LedgerStream returns the stream that is the ledger of a generation.
func LedgerStream(generation string) string { return "ktx.blocks-" + generation }

// PoisonStream returns the stream of the events that a generation has set aside.
func PoisonStream(generation string) string { return "ktx.poison-" + generation }

// BlockPlanned is the ledger's event "block.planned.v1": the rows of block Block are
// those of the events after position From up to To. Its append at the exact
// revision is lease, fence and boundary.
type BlockPlanned struct {
	// Block counts from 1 without gaps.
	Block uint64 `json:"block"`
	// From is the To of the block before; 0 for the first.
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
	// Events is the number of events, poisoned ones included.
	Events uint64 `json:"events"`
	// Rows is the number of rows for each table that gets any.
	Rows map[string]uint64 `json:"rows"`
	// Poisoned is how many of the events were set aside, Aside their positions. They
	// stay aside whatever a later program can read, until they are replayed.
	Poisoned uint64   `json:"poisoned"`
	Aside    []uint64 `json:"aside,omitempty"`
	// Replayed are the positions of events that blocks before set aside and whose rows
	// this one holds: then From is To, and Events is their number. LastReplay is the
	// Block of the last such block before this one, 0 if there was none.
	Replayed   []uint64 `json:"replayed,omitempty"`
	LastReplay uint64   `json:"last_replay,omitempty"`
	// Carried are the events of the block that the log no longer had and no archive has:
	// their rows are those of another generation. Events and Rows count them too, and in
	// SHA256 their stand-ins, the rows among them, stand for their bytes.
	Carried []Carried `json:"carried,omitempty"`
	// LastRecordedAt is when the log took the block's last event.
	LastRecordedAt time.Time `json:"last_recorded_at"`
	// SHA256 is over all events of the block: position, revision, id, stream, type,
	// data and metadata of each.
	SHA256 string `json:"sha256"`
	// Previous is the SHA256 of the block before; empty for the first.
	Previous string `json:"previous"`
	// Holder is who planned it. It makes the event of every planner another one.
	Holder string `json:"holder"`
}

// BlockRetaken is the ledger's event "block.retaken.v1": Holder works on the planned
// block from now on, under tokens with Attempt. It is appended by who takes over an
// unfinished block, its own too, and before rows of a block are deleted.
type BlockRetaken struct {
	Block   uint64 `json:"block"`
	Attempt uint64 `json:"attempt"`
	Holder  string `json:"holder"`
}

// BlockCompleted is the ledger's event "block.completed.v1": every row of the block
// is in the tables, durably.
type BlockCompleted struct {
	Block uint64 `json:"block"`
	To    uint64 `json:"to"`
	// LastRecordedAt and SHA256 are the plan's.
	LastRecordedAt time.Time `json:"last_recorded_at"`
	SHA256         string    `json:"sha256"`
	// Attempt is the one that succeeded; 0 if nothing had to be deleted.
	Attempt uint64 `json:"attempt"`
	// Events, Rows and Poisoned are sums over all blocks up to this one: Poisoned counts
	// the events that are still set aside.
	Events   uint64            `json:"events"`
	Rows     map[string]uint64 `json:"rows"`
	Poisoned uint64            `json:"poisoned"`
	// CarriedEvents and CarriedRows are the sums of what was carried over.
	CarriedEvents uint64 `json:"carried_events,omitempty"`
	CarriedRows   uint64 `json:"carried_rows,omitempty"`
	// LastReplay is the newest block up to this one that replayed events, 0 if there is
	// none.
	LastReplay uint64 `json:"last_replay,omitempty"`
	// LastRewind is the newest [LedgerRewound] up to this block, 0 if there is none.
	LastRewind uint64 `json:"last_rewind,omitempty"`
	Holder     string `json:"holder"`
}

// LedgerRewound is the ledger's event "ledger.rewound.v1": the tables did not hold what
// the ledger said, so what stands after the block Kept is made again. It takes a block
// number of its own and is, for what follows, the last completed block: To and the sums
// are those of the block Kept.
type LedgerRewound struct {
	BlockCompleted

	// Kept is the last block whose rows stay. Rows of later ones are removed.
	Kept uint64 `json:"kept"`
	// Reason is for operators.
	Reason string `json:"reason"`
}

// EventPoisoned is the event "event.poisoned.v1": the event that it names could not
// be made into rows.
type EventPoisoned struct {
	Stream   string `json:"stream"`
	Revision uint64 `json:"revision"`
	Position uint64 `json:"position"`
	EventID  string `json:"event_id"`
	Type     string `json:"type"`
	// Reason is for operators.
	Reason string `json:"reason"`
	// SetAsideAt is when the log took this event; it is not part of it.
	SetAsideAt time.Time `json:"-"`
}

// errOtherEvents says that the log does not hold the events that a plan is of.
var errOtherEvents = errors.New("the block was planned of other events")

// errLeaseLost says that another runner appended to the ledger. It is no fault.
var errLeaseLost = errors.New("another runner holds the ledger")

// ledger is what its stream says: the last completed block and, if there is one,
// the planned block after it.
type ledger struct {
	revision eventlog.Expected
	done     BlockCompleted // Block 0 before the first.
	plan     *BlockPlanned
	attempt  uint64
	holder   string // Of the newest event.
}

// ledgerPage is how many events are read at a time on the way back to the last
// completed block.
const ledgerPage = 64

// readLedger reads the newest events of the ledger back to the last completed block.
func readLedger(ctx context.Context, log Log, stream string) (ledger, error) {
	var (
		l     ledger
		from  *uint64
		first = true
	)
	for {
		events, err := log.ReadStreamBackwards(ctx, stream, from, ledgerPage)
		if err != nil {
			return ledger{}, fmt.Errorf("read ledger: %w", err)
		}
		for _, raw := range events {
			if first {
				l.revision, first = eventlog.Exactly(raw.Revision), false
				if l.holder, err = holderOf(raw); err != nil {
					return ledger{}, err
				}
			}
			done, err := l.before(raw)
			if err != nil || done {
				return l, err
			}
			if raw.Revision == 0 {
				return l, l.check()
			}
			from = new(raw.Revision - 1)
		}
		if len(events) == 0 {
			return l, l.check()
		}
	}
}

// before takes in the event that stands before all that l has seen, and reports
// whether nothing older matters.
func (l *ledger) before(raw eventlog.Raw) (bool, error) {
	switch raw.Type {
	case typeBlockCompleted, typeLedgerRewound: // The latter holds all of the former.
		if err := decodeLedger(raw, &l.done); err != nil {
			return false, err
		}
		return true, l.check()
	case typeBlockPlanned:
		if l.plan != nil {
			return false, fmt.Errorf("ledger %s@%d: two plans without a completed block between", raw.Stream, raw.Revision)
		}
		l.plan = &BlockPlanned{}
		return false, decodeLedger(raw, l.plan)
	case typeBlockRetaken:
		var e BlockRetaken
		if err := decodeLedger(raw, &e); err != nil {
			return false, err
		}
		l.attempt = max(l.attempt, e.Attempt)
		return false, nil
	}
	return false, fmt.Errorf("ledger %s@%d: unknown event %q", raw.Stream, raw.Revision, raw.Type)
}

// holderOf returns who appended an event of the ledger.
func holderOf(raw eventlog.Raw) (string, error) {
	var e struct {
		Holder string `json:"holder"`
	}
	err := decodeLedger(raw, &e)
	return e.Holder, err
}

func (l *ledger) check() error {
	if l.plan != nil && (l.plan.Block != l.done.Block+1 || l.plan.From != l.done.To) {
		return fmt.Errorf("ledger: block %d from %d does not follow block %d to %d", l.plan.Block, l.plan.From, l.done.Block, l.done.To)
	}
	return nil
}

func decodeLedger(raw eventlog.Raw, into any) error {
	if err := json.Unmarshal(raw.Data, into); err != nil {
		return fmt.Errorf("decode %s at %s@%d: %w", raw.Type, raw.Stream, raw.Revision, err)
	}
	return nil
}

// propose makes a machinery event whose id is that of its bytes, so that only the
// very same event counts as its repeat.
func propose(typ, stream string, exp eventlog.Expected, v any) (eventlog.Proposed, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return eventlog.Proposed{}, fmt.Errorf("encode %s: %w", typ, err)
	}
	id := domain.DeriveID(typ, stream, strconv.FormatUint(exp.Next(), 10), string(data))
	return eventlog.Proposed{ID: id, Type: typ, JSON: true, Data: data, Meta: []byte("{}")}, nil
}

// write appends v at the exact revision. errLeaseLost says that another event
// stands there.
func (l *ledger) write(ctx context.Context, log Log, stream, typ string, v any) error {
	e, err := propose(typ, stream, l.revision, v)
	if err != nil {
		return err
	}
	at, err := log.Append(ctx, stream, l.revision, e)
	if _, lost := errors.AsType[*eventlog.WrongRevision](err); lost {
		return fmt.Errorf("append %s: %w: %w", typ, errLeaseLost, err)
	}
	if err != nil {
		return fmt.Errorf("append %s: %w", typ, err)
	}
	l.revision = eventlog.Exactly(at.Revision)
	return nil
}

// planOf returns the plan of b.
func (l *ledger) planOf(b *block, holder string) BlockPlanned {
	return BlockPlanned{
		Block: b.number, From: b.from, To: b.to, Events: b.events, Rows: b.rowsPerTable(),
		Poisoned: uint64(len(b.poison)), Aside: b.aside(), Replayed: b.replayed, LastReplay: l.done.LastReplay, Carried: b.carried, LastRecordedAt: b.lastTime, SHA256: b.sum(), Previous: l.done.SHA256, Holder: holder,
	}
}

// completionOf returns the completion of the planned block.
func (l *ledger) completionOf(holder string) BlockCompleted {
	p := l.plan
	rows := maps.Clone(l.done.Rows)
	if rows == nil {
		rows = map[string]uint64{}
	}
	for table, n := range p.Rows {
		rows[table] += n
	}
	carriedEvents, carriedRows := carriedSums(p.Carried)
	done := BlockCompleted{
		CarriedEvents: l.done.CarriedEvents + carriedEvents, CarriedRows: l.done.CarriedRows + carriedRows, Block: p.Block, To: p.To, LastRecordedAt: p.LastRecordedAt, SHA256: p.SHA256, Attempt: l.attempt,
		Events: l.done.Events + p.Events, Rows: rows, Poisoned: l.done.Poisoned + p.Poisoned, LastReplay: l.done.LastReplay,
		LastRewind: l.done.LastRewind, Holder: holder,
	}
	if len(p.Replayed) > 0 {
		done.Events, done.Poisoned, done.LastReplay = l.done.Events, l.done.Poisoned-p.Events, p.Block
		done.LastRecordedAt = l.done.LastRecordedAt
	}
	return done
}

// matches reports how b, made again from the log, differs from its plan.
func (p *BlockPlanned) matches(b *block) error {
	if b.number != p.Block || b.from != p.From || b.to != p.To || b.events != p.Events || b.sum() != p.SHA256 {
		return fmt.Errorf("%w: the log has %d events to %d for block %d, the plan %d to %d",
			errOtherEvents, b.events, b.to, p.Block, p.Events, p.To)
	}
	if rows := b.rowsPerTable(); !maps.Equal(rows, p.Rows) || uint64(len(b.poison)) != p.Poisoned || !slices.Equal(b.aside(), p.Aside) {
		return fmt.Errorf("%w: this program makes other rows of block %d than were planned (%v and %d poisoned, plan %v and %d): rebuild under a new generation",
			errFatal, p.Block, rows, len(b.poison), p.Rows, p.Poisoned)
	}
	return nil
}
