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

const (
	// accessBatchMax bounds the records of one append.
	accessBatchMax = 256
	// accessWriteMax bounds one append.
	accessWriteMax = 10 * time.Second
)

// AccessLog records in this writer's own stream that data about keys was read or exported:
// what is to be recorded at one time goes into one append. It is safe for concurrent use.
type AccessLog struct {
	now   func() time.Time
	nonce string

	mu      sync.Mutex // Guards waiting and seq.
	waiting []*accessed
	seq     uint64

	// writing has room for one: who has put something in writes for all who wait, and
	// nobody else touches own.
	writing chan struct{}
	own     ownStream
}

// accessed waits to be written. done is closed, with err set, once it was tried.
type accessed struct {
	id          domain.EventID
	who         domain.Initiator
	correlation string
	event       domain.AuditAccessed
	done        chan struct{}
	err         error
}

// NewAccessLog returns the recorder of writer. nonce must differ from process to process.
func NewAccessLog(log CommandLog, writer, nonce string, now func() time.Time) *AccessLog {
	return &AccessLog{now: now, nonce: nonce, writing: make(chan struct{}, 1), own: ownStream{log: log, name: domain.AccessStream(writer)}}
}

// RecordAccess returns when one e for each of accounts is durable. With an error none may
// be: what was to be read must not be handed out.
func (a *AccessLog) RecordAccess(ctx context.Context, who domain.Initiator, correlationID string, accounts []domain.AccountID, e domain.AuditAccessed) error {
	mine := make([]*accessed, len(accounts))
	a.mu.Lock()
	for i, account := range accounts {
		a.seq++
		e.Account = account
		mine[i] = &accessed{
			id: domain.DeriveID("access", a.own.name, a.nonce, strconv.FormatUint(a.seq, 10)), who: who, correlation: correlationID,
			event: e, done: make(chan struct{}),
		}
	}
	a.waiting = append(a.waiting, mine...)
	a.mu.Unlock()
	errs := make([]error, len(mine))
	for i, one := range mine {
		errs[i] = a.written(ctx, one)
	}
	return errors.Join(errs...)
}

// written returns when one is durable, or could not be made so.
func (a *AccessLog) written(ctx context.Context, one *accessed) error {
	for {
		select {
		case <-one.done:
			return one.err
		case a.writing <- struct{}{}:
			a.write(ctx)
			<-a.writing
		case <-ctx.Done():
			return fmt.Errorf("record access: %w", ctx.Err())
		}
	}
}

// write appends what waits, at most a batch of it. It is for all who wait, so that it does
// not end with its caller's request.
func (a *AccessLog) write(ctx context.Context) {
	a.mu.Lock()
	batch := a.waiting[:min(len(a.waiting), accessBatchMax)]
	a.waiting = a.waiting[len(batch):]
	a.mu.Unlock()
	if len(batch) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), accessWriteMax)
	defer cancel()
	err := a.own.append(ctx, func(last time.Time) ([]eventlog.Proposed, time.Time, error) {
		events := make([]eventlog.Proposed, len(batch))
		for i, one := range batch {
			last = domain.NextEffective(a.now(), last)
			p, err := eventlog.Propose(one.id, one.event, domain.Metadata{EffectiveAt: last, Initiator: one.who, CorrelationID: one.correlation})
			if err != nil {
				return nil, last, fmt.Errorf("propose audit access: %w", err)
			}
			events[i] = p
		}
		return events, last, nil
	})
	for _, one := range batch {
		one.err = err
		close(one.done)
	}
}
