package ingest_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/ingest"
	"example.com/keytrail/internal/eventlog"
)

// memoryLog is one process's log in memory: for tests with a fake clock, which cannot
// wait for a network.
type memoryLog struct {
	mu      sync.Mutex
	streams map[string][]eventlog.Raw
	appends int
	err     error // Appends fail with it.
	hold    chan struct{}
}

func (l *memoryLog) Append(_ context.Context, stream string, exp eventlog.Expected, events ...eventlog.Proposed) (eventlog.Appended, error) {
	if l.hold != nil {
		<-l.hold
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.appends++
	if l.err != nil {
		return eventlog.Appended{}, l.err
	}
	list := l.streams[stream]
	if exp.Next() != uint64(len(list)) {
		actual := eventlog.NoStream()
		if len(list) > 0 {
			actual = eventlog.Exactly(uint64(len(list) - 1))
		}
		return eventlog.Appended{}, &eventlog.WrongRevision{Stream: stream, Expected: exp, Actual: actual}
	}
	for _, e := range events {
		list = append(list, eventlog.Raw{Stream: stream, Revision: uint64(len(list)), ID: e.ID, Type: e.Type, Data: e.Data, Meta: e.Meta})
	}
	if l.streams == nil {
		l.streams = map[string][]eventlog.Raw{}
	}
	l.streams[stream] = list
	return eventlog.Appended{Revision: uint64(len(list) - 1), Position: uint64(len(list))}, nil
}

func (l *memoryLog) ReadStream(_ context.Context, stream string, from uint64, limit int) ([]eventlog.Raw, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.streams[stream]
	list = list[min(from, uint64(len(list))):]
	return list[:min(limit, len(list))], nil
}

func (l *memoryLog) Last(_ context.Context, stream string) (eventlog.Raw, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.streams[stream]
	if len(list) == 0 {
		return eventlog.Raw{}, false, nil
	}
	return list[len(list)-1], true, nil
}

// refused returns what the stream of writer w holds.
func (l *memoryLog) refused(t *testing.T) []domain.Recorded {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []domain.Recorded
	for _, raw := range l.streams[domain.RefusedStream("w")] {
		rec, err := eventlog.Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, rec)
	}
	return out
}

func (l *memoryLog) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

// runRefusals starts the writer; stop ends it and waits.
func runRefusals(t *testing.T, log *memoryLog) (r *ingest.Refusals, stop func() error) {
	t.Helper()
	r = ingest.NewRefusals(log, "w", "nonce", time.Now, testLogger(t))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return r, func() error { cancel(); return <-done }
}

func refusalOf(target string) domain.CommandRefused {
	return domain.CommandRefused{Action: "iam-identity.user-apikey.delete", Target: target, Status: 409, Code: domain.Conflict, Reason: "locked"}
}

// total adds up what the events count.
func total(events []domain.Recorded) (n uint64) {
	for _, rec := range events {
		n += rec.Event.(domain.CommandRefused).Count
	}
	return n
}

// TestAFloodOfEqualRefusalsFoldsWithoutLosingCount: five one by one, the rest as one
// event when the window ends; another target is another kind.
func TestAFloodOfEqualRefusalsFoldsWithoutLosingCount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &memoryLog{}
		r, stop := runRefusals(t, log)
		who := domain.Initiator{IAMID: "User-1"}
		for range 100 {
			if err := r.Record(t.Context(), who, "c", refusalOf("k1")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond) // Fake time: the bubble's clock.
		}
		if err := r.Record(t.Context(), who, "c", refusalOf("k2")); err != nil {
			t.Fatal(err)
		}
		if got := log.refused(t); len(got) != 6 {
			t.Errorf("%d events in the window, want five and the other one", len(got))
		}
		time.Sleep(12 * time.Second)
		got := log.refused(t)
		if len(got) != 7 || total(got) != 101 {
			t.Errorf("%d events that count %d after the window, want 7 and 101", len(got), total(got))
		}
		fold := got[6].Event.(domain.CommandRefused)
		if fold.Count != 95 || fold.Last.Sub(fold.First) != 940*time.Millisecond {
			t.Errorf("fold of %d from %s to %s", fold.Count, fold.First, fold.Last)
		}
		if err := r.Record(t.Context(), who, "c", refusalOf("k1")); err != nil { // A new window.
			t.Fatal(err)
		}
		if got := log.refused(t); len(got) != 8 {
			t.Errorf("the next window's first refusal was folded")
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		last := time.Time{}
		for _, rec := range log.refused(t) {
			if !rec.Meta.EffectiveAt.After(last) {
				t.Errorf("effective time %s after %s", rec.Meta.EffectiveAt, last)
			}
			last = rec.Meta.EffectiveAt
		}
	})
}

func TestWhatIsFoldedIsWrittenAtShutdown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &memoryLog{}
		r, stop := runRefusals(t, log)
		for range 20 {
			if err := r.Record(t.Context(), domain.Initiator{Address: "192.0.2.1"}, "c", refusalOf("k1")); err != nil {
				t.Fatal(err)
			}
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if got := total(log.refused(t)); got != 20 {
			t.Errorf("%d refusals counted, want 20", got)
		}
		if err := r.Record(t.Context(), domain.Initiator{}, "c", refusalOf("k1")); domain.CodeOf(err) != domain.Unavailable {
			t.Errorf("after the end: %v, want unavailable", err)
		}
	})
}

// TestStrangersAreFoldedByAddress: twenty a minute of each address one by one, whatever
// secrets they tried, and how many more there were at the latest ten seconds after.
func TestStrangersAreFoldedByAddress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &memoryLog{}
		r, stop := runRefusals(t, log)
		try := func(n int) {
			for i := range 2 * n {
				if err := r.Record(t.Context(), domain.Initiator{Address: "192.0.2." + strconv.Itoa(i%2)}, "c", refusalOf("")); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, step := range []struct {
			name          string
			tries         int // Of each address.
			wait          time.Duration
			events, count int
		}{
			{name: "twenty", tries: 20, events: 40, count: 40},
			{name: "two more are counted", tries: 2, events: 40, count: 40},
			{name: "and written soon", wait: 12 * time.Second, events: 42, count: 44},
			{name: "one more in the same minute", tries: 1, events: 42, count: 44},
			{name: "is written too", wait: 12 * time.Second, events: 44, count: 46},
			{name: "the minute ends", wait: 40 * time.Second, events: 44, count: 46},
			{name: "the next one is one", tries: 1, events: 46, count: 48},
		} {
			try(step.tries)
			time.Sleep(step.wait) // Fake time: the bubble's clock.
			if got := log.refused(t); len(got) != step.events || total(got) != uint64(step.count) {
				t.Errorf("%s: %d events counting %d, want %d and %d", step.name, len(got), total(got), step.events, step.count)
			}
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestARefusalThatIsNotStoredIsNotAnswered, and a fold that is not stored is kept.
func TestARefusalThatIsNotStoredIsNotAnswered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &memoryLog{}
		r, stop := runRefusals(t, log)
		for range 8 {
			if err := r.Record(t.Context(), domain.Initiator{IAMID: "u"}, "c", refusalOf("k1")); err != nil {
				t.Fatal(err)
			}
		}
		log.fail(eventlog.ErrUnavailable)
		err := r.Record(t.Context(), domain.Initiator{IAMID: "u"}, "c", refusalOf("k2"))
		if domain.CodeOf(err) != domain.Unavailable || !errors.Is(err, eventlog.ErrUnavailable) {
			t.Errorf("err = %v, want unavailable", err)
		}
		time.Sleep(15 * time.Second) // The window ends while the log is away.
		log.fail(nil)
		time.Sleep(2 * time.Second)
		if got := total(log.refused(t)); got != 8 {
			t.Errorf("%d counted after the log came back, want 8", got)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestManyRefusalsShareAnAppend: while one append is under way, the others gather.
func TestManyRefusalsShareAnAppend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &memoryLog{hold: make(chan struct{})}
		r, stop := runRefusals(t, log)
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				if err := r.Record(t.Context(), domain.Initiator{IAMID: "u"}, "c", refusalOf("k"+strconv.Itoa(i))); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(log.hold)
		wg.Wait()
		if got := log.refused(t); len(got) != 100 || log.appends > 3 {
			t.Errorf("%d events in %d appends", len(got), log.appends)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestAnotherProcessOnTheSameStream: the writer finds the new end and goes on.
func TestAnotherProcessOnTheSameStream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &memoryLog{}
		a, stopA := runRefusals(t, log)
		b := ingest.NewRefusals(log, "w", "other-nonce", time.Now, testLogger(t))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		for i := range 10 {
			for _, r := range []*ingest.Refusals{a, b} {
				if err := r.Record(t.Context(), domain.Initiator{IAMID: "u"}, "c", refusalOf("k"+strconv.Itoa(i))); err != nil {
					t.Fatal(err)
				}
			}
		}
		cancel()
		if err := errors.Join(<-done, stopA()); err != nil {
			t.Fatal(err)
		}
		ids := map[domain.EventID]bool{}
		for _, rec := range log.refused(t) {
			ids[rec.ID] = true
		}
		if len(ids) != 20 {
			t.Errorf("%d different events, want 20", len(ids))
		}
	})
}

// TestEachReadOfAuditDataIsRecordedForEachAccount, by two processes on one stream, in order of
// time; one that cannot be recorded is an error.
func TestEachReadOfAuditDataIsRecordedForEachAccount(t *testing.T) {
	t.Parallel()
	log := &memoryLog{}
	a, b := ingest.NewAccessLog(log, "w", "nonce", time.Now), ingest.NewAccessLog(log, "w", "other", time.Now)
	accounts := []domain.AccountID{"a1", "a2"}
	for range 5 {
		for _, r := range []*ingest.AccessLog{a, b} {
			if err := r.RecordAccess(t.Context(), domain.Initiator{IAMID: "u"}, "c", accounts, domain.AuditAccessed{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := a.RecordAccess(t.Context(), domain.Initiator{IAMID: "u"}, "c", nil, domain.AuditAccessed{}); err != nil {
		t.Errorf("nobody's data: %v", err)
	}
	log.fail(eventlog.ErrUnavailable)
	if err := a.RecordAccess(t.Context(), domain.Initiator{IAMID: "u"}, "c", accounts, domain.AuditAccessed{}); domain.CodeOf(err) != domain.Unavailable {
		t.Errorf("a log that is away: %v, want unavailable", err)
	}
	ids, last := map[domain.EventID]bool{}, time.Time{}
	for i, raw := range log.streams[domain.AccessStream("w")] {
		rec, err := eventlog.Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		if e, _ := rec.Event.(domain.AuditAccessed); e.Account != accounts[i%2] {
			t.Errorf("event %d is of account %q", i, e.Account)
		}
		if !rec.Meta.EffectiveAt.After(last) {
			t.Errorf("effective time %s after %s", rec.Meta.EffectiveAt, last)
		}
		ids[rec.ID], last = true, rec.Meta.EffectiveAt
	}
	if len(ids) != 20 {
		t.Errorf("%d different events, want 20", len(ids))
	}
}
