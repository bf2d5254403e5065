package ingest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

// accessTriesMax bounds how often an append is repeated after others wrote the stream.
const accessTriesMax = 5

// AccessLog records in this writer's own stream that audit data was read or exported. It
// is safe for concurrent use.
type AccessLog struct {
	log    CommandLog
	now    func() time.Time
	stream string
	nonce  string

	mu    sync.Mutex // Guards all below, during the append too: one at a time.
	known bool       // exp and last are.
	exp   eventlog.Expected
	last  time.Time // Newest effective time of the stream.
	seq   uint64
}

// NewAccessLog returns the recorder of writer. nonce must differ from process to process.
func NewAccessLog(log CommandLog, writer, nonce string, now func() time.Time) *AccessLog {
	return &AccessLog{log: log, now: now, stream: domain.AccessStream(writer), nonce: nonce}
}

// RecordAccess returns when one e for each of accounts is durable. With an error none may
// be: what was to be read must not be handed out.
func (a *AccessLog) RecordAccess(ctx context.Context, who domain.Initiator, correlationID string, accounts []domain.AccountID, e domain.AuditAccessed) error {
	if len(accounts) == 0 {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	ids := make([]domain.EventID, len(accounts))
	for i := range ids {
		a.seq++
		ids[i] = domain.DeriveID("access", a.stream, a.nonce, strconv.FormatUint(a.seq, 10))
	}
	for range accessTriesMax {
		if err := a.locateLocked(ctx); err != nil {
			return err
		}
		batch := make([]eventlog.Proposed, len(accounts))
		last := a.last
		for i, account := range accounts {
			e.Account = account
			last = domain.NextEffective(a.now(), last)
			p, err := eventlog.Propose(ids[i], e, domain.Metadata{EffectiveAt: last, Initiator: who, CorrelationID: correlationID})
			if err != nil {
				return fmt.Errorf("propose audit access: %w", err)
			}
			batch[i] = p
		}
		done, err := a.log.Append(ctx, a.stream, a.exp, batch...)
		if err == nil {
			a.exp, a.last = eventlog.Exactly(done.Revision), last
			return nil
		}
		a.known = false
		if _, wrong := errors.AsType[*eventlog.WrongRevision](err); !wrong {
			return logError("append to "+a.stream, err)
		}
	}
	return domain.Errorf(domain.Unavailable, "others write the same stream; try again").WithMessageCode("log_contended")
}

// locateLocked finds the end of the stream.
func (a *AccessLog) locateLocked(ctx context.Context) error {
	if a.known {
		return nil
	}
	raw, ok, err := a.log.Last(ctx, a.stream)
	if err != nil {
		return logError("read "+a.stream, err)
	}
	a.exp = eventlog.NoStream()
	if ok {
		meta, err := domain.DecodeMetadata(raw.Meta)
		if err != nil {
			return fmt.Errorf("read %s: %w", a.stream, err)
		}
		a.exp, a.last = eventlog.Exactly(raw.Revision), meta.EffectiveAt
	}
	a.known = true
	return nil
}
