package projections_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/projections"
)

// memLog is an event log in memory that fails on purpose.
type memLog struct {
	mu      sync.Mutex
	streams map[string][]eventlog.Raw
	all     []eventlog.Raw
	grown   chan struct{}
	now     func() time.Time
	// fault is asked before every operation of a runner's view.
	fault func(op string) verdict
	// appended is told every event that is stored.
	appended func(eventlog.Raw)
}

// verdict is what a fault injector decides about one operation.
type verdict int

const (
	goOn       verdict = iota
	failBefore         // Nothing happens, the caller gets an error.
	failAfter          // It happens, the caller gets an error.
)

func newMemLog(now func() time.Time) *memLog {
	return &memLog{
		streams: map[string][]eventlog.Raw{}, grown: make(chan struct{}), now: now,
		fault: func(string) verdict { return goOn }, appended: func(eventlog.Raw) {},
	}
}

// record appends an event of evidence as the tests' own writer, without faults.
func (l *memLog) record(stream string, e domain.Event, effective time.Time) eventlog.Raw {
	l.mu.Lock()
	n := len(l.streams[stream])
	l.mu.Unlock()
	id := domain.DeriveID("test", stream, fmt.Sprint(n))
	p, err := eventlog.Propose(id, e, domain.Metadata{EffectiveAt: effective, Initiator: domain.Initiator{IAMID: "IBMid-1", Address: "192.0.2.7"}})
	if err != nil {
		panic(err)
	}
	return l.recordRaw(stream, p)
}

func (l *memLog) recordRaw(stream string, p eventlog.Proposed) eventlog.Raw {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.storeLocked(stream, p)
}

func (l *memLog) storeLocked(stream string, p eventlog.Proposed) eventlog.Raw {
	position := uint64(10)
	if n := len(l.all); n > 0 {
		position = l.all[n-1].Position + 1 + rand.Uint64N(90)
	}
	raw := eventlog.Raw{
		Stream: stream, Revision: uint64(len(l.streams[stream])), Position: position, ID: p.ID, Type: p.Type,
		JSON: p.JSON, Data: slices.Clone(p.Data), Meta: slices.Clone(p.Meta), RecordedAt: l.now().UTC().Truncate(time.Millisecond),
	}
	l.streams[stream] = append(l.streams[stream], raw)
	l.all = append(l.all, raw)
	l.appended(raw)
	close(l.grown)
	l.grown = make(chan struct{})
	return raw
}

func (l *memLog) Append(ctx context.Context, stream string, exp eventlog.Expected, events ...eventlog.Proposed) (eventlog.Appended, error) {
	if err := ctx.Err(); err != nil {
		return eventlog.Appended{}, fmt.Errorf("append: %w: %w", eventlog.ErrUnavailable, err)
	}
	v := l.fault("append " + stream)
	if v == failBefore {
		return eventlog.Appended{}, fmt.Errorf("append: %w", eventlog.ErrUnavailable)
	}
	at, err := l.append(stream, exp, events)
	if err == nil && v == failAfter {
		return eventlog.Appended{}, fmt.Errorf("append: %w", eventlog.ErrOutcomeUnknown)
	}
	return at, err
}

func (l *memLog) append(stream string, exp eventlog.Expected, events []eventlog.Proposed) (eventlog.Appended, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	have := l.streams[stream]
	if exp.Next() != uint64(len(have)) {
		if at := have[min(int(exp.Next()), len(have)):]; len(at) >= len(events) {
			same := true
			for i, e := range events {
				same = same && at[i].ID == e.ID
			}
			if same {
				last := at[len(events)-1]
				return eventlog.Appended{Revision: last.Revision, Position: last.Position}, nil
			}
		}
		return eventlog.Appended{}, &eventlog.WrongRevision{Stream: stream, Expected: exp}
	}
	var last eventlog.Raw
	for _, e := range events {
		last = l.storeLocked(stream, e)
	}
	return eventlog.Appended{Revision: last.Revision, Position: last.Position}, nil
}

func (l *memLog) ReadStream(ctx context.Context, stream string, from uint64, limit int) ([]eventlog.Raw, error) {
	if l.fault("read") != goOn || ctx.Err() != nil {
		return nil, fmt.Errorf("read: %w", eventlog.ErrUnavailable)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	have := l.streams[stream]
	have = have[min(int(from), len(have)):]
	return slices.Clone(have[:min(limit, len(have))]), nil
}

func (l *memLog) ReadStreamBackwards(ctx context.Context, stream string, from *uint64, limit int) ([]eventlog.Raw, error) {
	if l.fault("read") != goOn || ctx.Err() != nil {
		return nil, fmt.Errorf("read: %w", eventlog.ErrUnavailable)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	have := slices.Clone(l.streams[stream])
	if from != nil {
		have = have[:min(int(*from)+1, len(have))]
	}
	slices.Reverse(have)
	return have[:min(limit, len(have))], nil
}

func (l *memLog) Last(ctx context.Context, stream string) (eventlog.Raw, bool, error) {
	events, err := l.ReadStreamBackwards(ctx, stream, nil, 1)
	if err != nil || len(events) == 0 {
		return eventlog.Raw{}, false, err
	}
	return events[0], true, nil
}

func (l *memLog) Head(ctx context.Context, prefixes []string) (uint64, error) {
	if l.fault("read") != goOn || ctx.Err() != nil {
		return 0, fmt.Errorf("head: %w", eventlog.ErrUnavailable)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, raw := range slices.Backward(l.all) {
		if hasPrefix(raw.Stream, prefixes) {
			return raw.Position, nil
		}
	}
	return 0, nil
}

func hasPrefix(stream string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(stream, p) })
}

// evidence returns the events of evidence so far.
func (l *memLog) evidence() []eventlog.Raw {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []eventlog.Raw
	for _, raw := range l.all {
		if domain.IsEvidence(raw.Stream) {
			out = append(out, raw)
		}
	}
	return out
}

func (l *memLog) stream(name string) []eventlog.Raw {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.streams[name])
}

func (l *memLog) Subscribe(ctx context.Context, opt eventlog.SubscribeOptions) (projections.Subscription, error) {
	if l.fault("read") != goOn || ctx.Err() != nil {
		return nil, fmt.Errorf("subscribe: %w", eventlog.ErrUnavailable)
	}
	return &memSubscription{log: l, opt: opt}, nil
}

type memSubscription struct {
	log  *memLog
	opt  eventlog.SubscribeOptions
	next int
}

func (s *memSubscription) Next(ctx context.Context) (eventlog.Delivery, error) {
	for {
		s.log.mu.Lock()
		grown := s.log.grown
		for s.next < len(s.log.all) {
			raw := s.log.all[s.next]
			s.next++
			if raw.Position > s.opt.After && hasPrefix(raw.Stream, s.opt.Prefixes) {
				s.log.mu.Unlock()
				return eventlog.Delivery{Event: &raw, Position: raw.Position}, nil
			}
		}
		s.log.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
			return eventlog.Delivery{}, ctx.Err()
		}
	}
}

func (s *memSubscription) Close() {}

// now is the tests' clock. In a bubble it is the bubble's.
func now() time.Time {
	return time.Now() //nolint:forbidigo // Tests are where clocks come from.
}

// pass lets time pass. It is for bubbles, where that takes no time.
func pass(d time.Duration) { <-time.After(d) }
