package ingest

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

// AccessLog records in this writer's own stream that audit data was read or exported. It
// is safe for concurrent use.
type AccessLog struct {
	now   func() time.Time
	nonce string

	mu  sync.Mutex // Guards all below, during the append too: one at a time.
	own ownStream
	seq uint64
}

// NewAccessLog returns the recorder of writer. nonce must differ from process to process.
func NewAccessLog(log CommandLog, writer, nonce string, now func() time.Time) *AccessLog {
	return &AccessLog{now: now, nonce: nonce, own: ownStream{log: log, name: domain.AccessStream(writer)}}
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
		ids[i] = domain.DeriveID("access", a.own.name, a.nonce, strconv.FormatUint(a.seq, 10))
	}
	return a.own.append(ctx, func(last time.Time) ([]eventlog.Proposed, time.Time, error) {
		batch := make([]eventlog.Proposed, len(accounts))
		for i, account := range accounts {
			e.Account = account
			last = domain.NextEffective(a.now(), last)
			p, err := eventlog.Propose(ids[i], e, domain.Metadata{EffectiveAt: last, Initiator: who, CorrelationID: correlationID})
			if err != nil {
				return nil, last, fmt.Errorf("propose audit access: %w", err)
			}
			batch[i] = p
		}
		return batch, last, nil
	})
}
