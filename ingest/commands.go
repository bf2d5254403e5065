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
	// remembered holds histories as they were decided on: facts of this node are in it
	// without their RecordedAt, which no rule reads.
	remembered *histories

	mu      sync.Mutex // Guards written.
	written map[domain.AccountID]uint64
}

// NewCommands returns the commands of one node.
func NewCommands(cfg CommandsConfig) *Commands {
	return &Commands{cfg: cfg, written: map[domain.AccountID]uint64{}, remembered: newHistories(historyEventsMax)}
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

// decision is what a rule says about a stream's history: new facts, and when they are
// true from.
type decision struct {
	account domain.AccountID
	events  []domain.Event
	at      time.Time
}

// transact folds stream, lets decide judge, and appends what it decides at exactly the
// revision that was read; another writer in between means: again. It returns the whole
// history, the new facts at its end, and the position of the last new fact or, where
// nothing changed, of the last old one.
func (s *Commands) transact(ctx context.Context, o Order, stream string, decide func([]domain.Recorded) (decision, error)) ([]domain.Recorded, uint64, error) {
	for try := range appendTries {
		// The first try goes by what this node remembers: if the stream has grown, the
		// append fails at its exact revision. A refusal, or that there is nothing to do, is
		// told only of the stream as it is.
		history, current := s.remembered.get(stream), false
		if try > 0 || len(history) == 0 {
			var err error
			if history, err = s.history(ctx, stream); err != nil {
				return nil, 0, err
			}
			current = true
		}
		d, err := decide(history)
		if !current && (err != nil || len(d.events) == 0) {
			if history, err = s.history(ctx, stream); err != nil {
				return nil, 0, err
			}
			d, err = decide(history)
		}
		if err != nil {
			return nil, 0, err
		}
		if len(d.events) == 0 {
			return history, lastPosition(history), nil
		}
		history, err = s.append(ctx, o, stream, history, d, try)
		if _, wrong := errors.AsType[*eventlog.WrongRevision](err); wrong {
			continue
		}
		if err != nil {
			return nil, 0, logError("append", err)
		}
		s.remembered.put(stream, history)
		s.wrote(d.account, lastPosition(history))
		return history, lastPosition(history), nil
	}
	return nil, 0, domain.Errorf(domain.Conflict, "others are changing this at the same time; try again").
		WithMessageCode("concurrent_change")
}

// append stores the facts of d after history and returns the longer history. The id of
// an event is derived from where it stands and which request put it there, so that a
// repeat after a lost answer is no second event.
func (s *Commands) append(ctx context.Context, o Order, stream string, history []domain.Recorded, d decision, try int) ([]domain.Recorded, error) {
	exp := eventlog.NoStream()
	if n := len(history); n > 0 {
		exp = eventlog.Exactly(history[n-1].Revision)
	}
	proposed := make([]eventlog.Proposed, len(d.events))
	facts := make([]domain.Recorded, len(d.events))
	for i, e := range d.events {
		revision := exp.Next() + uint64(i)
		rec := domain.Recorded{
			Stream: stream, Revision: revision, Type: e.Type(), Event: e,
			ID: domain.DeriveID("command", stream, strconv.FormatUint(revision, 10), o.RequestID, strconv.Itoa(try)),
			Meta: domain.Metadata{
				Schema: domain.MetadataSchema, EffectiveAt: d.at.Add(time.Duration(i) * time.Millisecond),
				Initiator: o.Caller.Initiator, CorrelationID: o.CorrelationID,
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
	return append(history, facts...), nil
}

// history returns the whole stream as it is now: what is remembered of it and what the log
// holds after that. An event that cannot be read closes the stream: nobody may decide on
// half a history.
func (s *Commands) history(ctx context.Context, stream string) ([]domain.Recorded, error) {
	history, err := readOn(ctx, s.cfg.Log, stream, s.remembered.get(stream))
	if err == nil && len(history) > 0 {
		s.remembered.put(stream, history)
	}
	return history, err
}

// readAll returns the whole stream.
func readAll(ctx context.Context, log CommandLog, stream string) ([]domain.Recorded, error) {
	return readOn(ctx, log, stream, nil)
}

// readOn returns out, a beginning of the stream, with everything that follows it there.
func readOn(ctx context.Context, log CommandLog, stream string, out []domain.Recorded) ([]domain.Recorded, error) {
	from := uint64(0)
	if n := len(out); n > 0 {
		from = out[n-1].Revision + 1
	}
	for {
		page, err := log.ReadStream(ctx, stream, from, readPage)
		if err != nil {
			return nil, logError("read "+stream, err)
		}
		for _, raw := range page {
			rec, err := eventlog.Decode(raw)
			if err != nil {
				closed := domain.Errorf(domain.Unavailable, "the history of this resource cannot be read").WithMessageCode("stream_closed")
				return nil, fmt.Errorf("%w: %w", closed, err)
			}
			out = append(out, rec)
			from = raw.Revision + 1
		}
		if len(page) < readPage {
			return out, nil
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
