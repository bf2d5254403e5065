package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/keystore"
)

const (
	// appendTries bounds how often a command is decided anew because another writer
	// was faster.
	appendTries = 5
	readPage    = 500
)

// CommandLog is what commands need of the event log; [eventlog.Log] is one.
type CommandLog interface {
	Append(ctx context.Context, stream string, exp eventlog.Expected, events ...eventlog.Proposed) (eventlog.Appended, error)
	ReadStream(ctx context.Context, stream string, from uint64, limit int) ([]eventlog.Raw, error)
	Last(ctx context.Context, stream string) (eventlog.Raw, bool, error)
}

// Order says who gives a command, within which request.
type Order struct {
	Caller auth.Caller
	// CorrelationID is one for everything that the request causes.
	CorrelationID string
	// CausationID is the id of the event that the command follows from, if one did.
	CausationID string
	// RequestID is unique to the request, and never the caller's choice: event ids are
	// derived from it.
	RequestID string
}

// CommandsConfig is what [NewCommands] needs; every field is required.
type CommandsConfig struct {
	Log       CommandLog
	Directory *auth.Directory
	Store     *keystore.Store
	Refusals  *Refusals
	Now       func() time.Time
	Random    io.Reader // Of new key values and ids; crypto/rand.Reader.
}

// Commands carries out commands about accounts, service IDs and keys. It is safe for
// concurrent use. When a method returns without an error, what it reports is durable.
type Commands struct {
	cfg CommandsConfig
	// What is remembered is what was decided on: facts of this node are in it without
	// their RecordedAt, which no rule reads.
	keys     *folds[domain.Key] // Tips.
	accounts *folds[domain.Account]
	services *folds[domain.ServiceID]
	sessions *folds[domain.Session]
	holds    *folds[domain.LegalHolds]
	slots    *folds[domain.KeySlots]
	values   *folds[domain.ReservedValue]
	slotting slotQueues
	reports  *folds[domain.Reports]

	mu      sync.Mutex // Guards written.
	written map[domain.AccountID]uint64
}

// NewCommands returns the commands of one node.
func NewCommands(cfg CommandsConfig) *Commands {
	s := &Commands{
		cfg: cfg, written: map[domain.AccountID]uint64{},
		keys:     newFolds(rememberedMax, domain.Key{}.Tip()),
		accounts: newFolds(rememberedMax, domain.Account{}), services: newFolds(rememberedMax, domain.ServiceID{}),
		holds: newFolds(1, domain.LegalHolds{}),
		slots: newFolds(rememberedMax, domain.KeySlots{}), values: newFolds(rememberedMax, domain.ReservedValue{}),
		sessions: newFolds(rememberedMax, domain.Session{}),
		reports:  newFolds(reportsRemembered, domain.Reports{}),
	}
	s.slots.tries = keySlotTries
	return s
}

// LastWritten returns the position of the last event that this node wrote for account,
// or 0.
func (s *Commands) LastWritten(account domain.AccountID) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.written[account]
}

func (s *Commands) wrote(account domain.AccountID, position uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written[account] = max(s.written[account], position)
}

// decision is what a rule says about the fold of a stream: new facts, and when they are
// true from.
type decision struct {
	account domain.AccountID
	events  []domain.Event
	at      time.Time
	// orders are those that the events follow from, one each, where they are several's.
	orders []Order
	// told says that the decision also tells somebody that he is refused, or that there is
	// nothing to do.
	told bool
}

// transact folds stream, lets decide judge, and appends what it decides at exactly the
// revision that was read; another writer in between means: again. It returns the fold with
// the new facts, whose position is that of the last new fact or, where nothing changed, of
// the last old one. fresh says that stream has a name that was made at random just now: it
// is not read first.
func transact[S evolving[S]](ctx context.Context, s *Commands, known *folds[S], o Order, stream string, fresh bool, decide func(S) (decision, error)) (folded[S], error) {
	for try := range known.tries {
		// The first try goes by what this node remembers, or knows to be new: if the stream
		// has grown, the append fails at its exact revision. A refusal, or that there is
		// nothing to do, is told only of the stream as it is.
		f, current := known.get(stream), false
		if try > 0 || f.next == 0 && !fresh {
			var err error
			if f, err = foldNow(ctx, s.cfg.Log, known, stream); err != nil {
				return f, err
			}
			current = true
		}
		d, err := decide(f.state)
		if !current && (err != nil || len(d.events) == 0 || d.told) {
			if f, err = foldNow(ctx, s.cfg.Log, known, stream); err != nil {
				return f, err
			}
			d, err = decide(f.state)
		}
		if err != nil {
			return f, err
		}
		if len(d.events) == 0 {
			return f, nil
		}
		facts, err := s.append(ctx, o, stream, f.next, d, try)
		if _, wrong := errors.AsType[*eventlog.WrongRevision](err); wrong {
			continue
		}
		if err != nil {
			return f, logError("append", err)
		}
		for i := range facts {
			f = f.with(facts[i])
		}
		known.put(stream, f)
		s.wrote(d.account, f.position)
		return f, nil
	}
	return folded[S]{}, domain.Errorf(domain.Conflict, "others are changing this at the same time; try again").
		WithMessageCode("concurrent_change")
}

// append stores the facts of d from revision next on and returns them. The id of an event
// is derived from where it stands and which request put it there, so that a repeat after a
// lost answer is no second event.
func (s *Commands) append(ctx context.Context, o Order, stream string, next uint64, d decision, try int) ([]domain.Recorded, error) {
	exp := eventlog.NoStream()
	if next > 0 {
		exp = eventlog.Exactly(next - 1)
	}
	proposed := make([]eventlog.Proposed, len(d.events))
	facts := make([]domain.Recorded, len(d.events))
	for i, e := range d.events {
		revision, by := next+uint64(i), o
		if d.orders != nil {
			by = d.orders[i]
		}
		rec := domain.Recorded{
			Stream: stream, Revision: revision, Type: e.Type(), Event: e,
			ID: domain.DeriveID("command", stream, strconv.FormatUint(revision, 10), by.RequestID, strconv.Itoa(try)),
			Meta: domain.Metadata{
				Schema: domain.MetadataSchema, EffectiveAt: d.at.Add(time.Duration(i) * time.Millisecond),
				Initiator: by.Caller.Initiator, CorrelationID: by.CorrelationID, CausationID: by.CausationID,
			},
		}
		p, err := eventlog.Propose(rec.ID, e, rec.Meta)
		if err != nil {
			return nil, fmt.Errorf("propose: %w", err)
		}
		proposed[i], facts[i] = p, rec
	}
	done, err := s.cfg.Log.Append(ctx, stream, exp, proposed...)
	if err != nil {
		return nil, fmt.Errorf("append to %s: %w", stream, err)
	}
	for i := range facts {
		facts[i].Position = done.Position
		s.cfg.Directory.Apply(facts[i])
	}
	return facts, nil
}

// foldNow returns the fold of the whole stream as it is now: what is remembered of it and
// what the log holds after that.
func foldNow[S evolving[S]](ctx context.Context, log CommandLog, known *folds[S], stream string) (folded[S], error) {
	f := known.get(stream)
	err := readOn(ctx, log, stream, f.next, func(rec domain.Recorded) { f = f.with(rec) })
	if err != nil {
		return folded[S]{}, err
	}
	if f.next > 0 {
		known.put(stream, f)
	}
	return f, nil
}

// readAll returns the whole stream.
func readAll(ctx context.Context, log CommandLog, stream string) ([]domain.Recorded, error) {
	var out []domain.Recorded
	err := readOn(ctx, log, stream, 0, func(rec domain.Recorded) { out = append(out, rec) })
	if err != nil {
		return nil, err
	}
	return out, nil
}

// readOn calls take with every event of stream from revision from on. An event that cannot
// be read closes the stream: nobody may decide on half a history.
func readOn(ctx context.Context, log CommandLog, stream string, from uint64, take func(domain.Recorded)) error {
	for {
		page, err := log.ReadStream(ctx, stream, from, readPage)
		if err != nil {
			return logError("read "+stream, err)
		}
		for _, raw := range page {
			rec, err := eventlog.Decode(raw)
			if err != nil {
				closed := domain.Errorf(domain.Unavailable, "the history of this resource cannot be read").WithMessageCode("stream_closed")
				return fmt.Errorf("%w: %w", closed, err)
			}
			take(rec)
			from = raw.Revision + 1
		}
		if len(page) < readPage {
			return nil
		}
	}
}

func lastPosition(history []domain.Recorded) uint64 {
	if len(history) == 0 {
		return 0
	}
	return history[len(history)-1].Position
}

// logError words an error of the event log for the caller: it may pass by itself, or it
// is a fault of ours.
func logError(what string, err error) error {
	if errors.Is(err, eventlog.ErrUnavailable) || errors.Is(err, eventlog.ErrClosed) {
		unavailable := domain.Errorf(domain.Unavailable, "the event log is not available; try again").WithMessageCode("log_unavailable")
		return fmt.Errorf("%w: %s: %w", unavailable, what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
