package horizon_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/usagebatch"
)

// memLog is an event log in memory with times of the test's choice, which fails on
// purpose.
type memLog struct {
	mu      sync.Mutex // Guards what follows.
	streams map[string][]eventlog.Raw
	cut     map[string]uint64
	all     int
	at      time.Time // Of the next event.
	// fault is asked before every change; it may fail it, or let it happen and fail then.
	fault func(op string) verdict
	ops   int
}

type verdict int

const (
	goOn verdict = iota
	failBefore
	failAfter
)

func newMemLog(at time.Time) *memLog {
	return &memLog{streams: map[string][]eventlog.Raw{}, cut: map[string]uint64{}, at: at, fault: func(string) verdict { return goOn }}
}

func (l *memLog) put(stream string, p eventlog.Proposed) eventlog.Raw {
	l.all++
	raw := eventlog.Raw{
		Stream: stream, Revision: uint64(len(l.streams[stream])), Position: uint64(10 * l.all), ID: p.ID, Type: p.Type, JSON: p.JSON,
		Data: p.Data, Meta: p.Meta, RecordedAt: l.at,
	}
	l.streams[stream] = append(l.streams[stream], raw)
	return raw
}

func (l *memLog) Append(_ context.Context, stream string, exp eventlog.Expected, events ...eventlog.Proposed) (eventlog.Appended, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.fault("append " + stream)
	if v == failBefore {
		return eventlog.Appended{}, fmt.Errorf("append: %w", eventlog.ErrUnavailable)
	}
	have := l.streams[stream]
	if exp.Next() != uint64(len(have)) {
		if i := int(exp.Next()); i < len(have) && have[i].ID == events[0].ID {
			return eventlog.Appended{Revision: have[i].Revision, Position: have[i].Position}, nil
		}
		return eventlog.Appended{}, &eventlog.WrongRevision{Stream: stream, Expected: exp}
	}
	var last eventlog.Raw
	for _, e := range events {
		last = l.put(stream, e)
	}
	if v == failAfter {
		return eventlog.Appended{}, fmt.Errorf("append: %w", eventlog.ErrOutcomeUnknown)
	}
	return eventlog.Appended{Revision: last.Revision, Position: last.Position}, nil
}

func (l *memLog) ReadStream(_ context.Context, stream string, from uint64, limit int) ([]eventlog.Raw, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	have := l.streams[stream]
	have = have[min(int(max(from, l.cut[stream])), len(have)):]
	return slices.Clone(have[:min(limit, len(have))]), nil
}

func (l *memLog) SetTruncateBefore(_ context.Context, stream string, revision uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.fault("cut " + stream)
	if v == failBefore {
		return fmt.Errorf("cut: %w", eventlog.ErrUnavailable)
	}
	l.cut[stream] = max(l.cut[stream], revision)
	if v == failAfter {
		return fmt.Errorf("cut: %w", eventlog.ErrOutcomeUnknown)
	}
	return nil
}

func (l *memLog) TruncateBefore(_ context.Context, stream string) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut[stream], nil
}

// use appends a batch of n uses of account to stream.
func (l *memLog) use(stream string, account domain.AccountID, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	uses := make([]domain.Use, n)
	for i := range uses {
		uses[i] = domain.Use{ID: fmt.Sprintf("u%d-%d", l.all, i), Account: account, KeyID: "K", Time: l.at, Action: "a", Outcome: domain.OutcomeFailure, Bytes: 5}
	}
	columns, err := usagebatch.Encode(uses)
	if err != nil {
		panic(err)
	}
	l.propose(stream, domain.UsageRecorded{Batch: domain.UsageBatch{Batch: "b", Caller: "c", Count: uint32(n), Lines: uint64(n), Columns: columns}})
}

func (l *memLog) propose(stream string, e domain.Event) {
	p, err := eventlog.Propose(domain.DeriveID("test", stream, fmt.Sprint(l.all)), e, domain.Metadata{EffectiveAt: l.at})
	if err != nil {
		panic(err)
	}
	l.put(stream, p)
}

// hold appends a fact about legal holds.
func (l *memLog) hold(e domain.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.propose(domain.LegalHoldStream, e)
}

// pass moves the log's clock.
func (l *memLog) pass(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at = l.at.Add(d)
}
