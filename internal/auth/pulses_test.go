package auth_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/eventlog"
)

// beat is a log of pulses whose appends and deliveries take as long as a test says.
type beat struct {
	feed     *feed
	gone     chan struct{}
	mu       sync.Mutex // Guards all below.
	stored   []eventlog.Proposed
	bounded  uint64
	append   time.Duration
	deliver  time.Duration
	cut      bool // Nothing is answered, nothing is delivered.
	foreign  int  // So many events of another process come in between.
	position uint64
}

func (b *beat) locked(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

func (b *beat) SetMaxCount(_ context.Context, _ string, n uint64) error {
	b.locked(func() { b.bounded = n })
	return nil
}

func (b *beat) Last(context.Context, string) (eventlog.Raw, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.stored)
	return eventlog.Raw{Revision: uint64(max(n, 1) - 1)}, n > 0, nil
}

func (b *beat) Append(ctx context.Context, stream string, exp eventlog.Expected, events ...eventlog.Proposed) (eventlog.Appended, error) {
	b.mu.Lock()
	wait, cut := b.append, b.cut
	b.mu.Unlock()
	if cut {
		<-ctx.Done()
		return eventlog.Appended{}, errors.Join(eventlog.ErrOutcomeUnknown, ctx.Err())
	}
	time.Sleep(wait)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.foreign > 0 {
		b.foreign--
		b.stored = append(b.stored, eventlog.Proposed{})
	}
	if exp.Next() != uint64(len(b.stored)) {
		return eventlog.Appended{}, &eventlog.WrongRevision{Stream: stream, Expected: exp}
	}
	b.stored = append(b.stored, events...)
	b.position += 10
	raw := eventlog.Raw{Stream: stream, Revision: uint64(len(b.stored) - 1), Position: b.position, Type: events[0].Type, Data: events[0].Data}
	late := b.deliver
	go func() {
		time.Sleep(late)
		select {
		case b.feed.deliveries <- eventlog.Delivery{Event: &raw}:
		case <-b.gone:
		}
	}()
	return eventlog.Appended{Revision: raw.Revision, Position: raw.Position}, nil
}

func (b *beat) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.stored)
}

// fresh is a directory with pulses that run until the test ends.
type fresh struct {
	*beat
	dir    *auth.Directory
	pulses *auth.Pulses
	jumped atomic.Int64 // Added to the clock.
}

// newFresh must be called within a bubble of synctest; end ends what it started.
func newFresh(t *testing.T) (f *fresh, end func()) {
	t.Helper()
	f = &fresh{beat: &beat{feed: newFeed(), gone: make(chan struct{})}}
	f.dir = auth.NewDirectory(f.feed.follow, discard())
	began := time.Now()
	var err error
	f.pulses, err = auth.NewPulses(auth.PulsesConfig{
		Log: f.beat, Node: "n", Nonce: "p", Logger: discard(), Clock: func() time.Duration { return time.Since(began) + time.Duration(f.jumped.Load()) },
	}, f.dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{f.dir.Run, f.pulses.Run} {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	f.feed.deliveries <- eventlog.Delivery{CaughtUp: true}
	return f, func() { cancel(); wg.Wait(); close(f.gone); time.Sleep(time.Minute) }
}

func stale(err error) bool { return domain.CodeOf(err) == domain.Unavailable }

// TestFreshnessCountsFromTheSending: what was acknowledged while the pulse was under way
// may be missing in the directory.
func TestFreshnessCountsFromTheSending(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, end := newFresh(t)
		defer end()
		f.locked(func() { f.append, f.deliver = 150*time.Millisecond, 250*time.Millisecond })
		began := time.Now()
		if err := f.pulses.WaitFresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 400*time.Millisecond {
			t.Errorf("it was fresh after %v, want it to wait for the pulse", took)
		}
		if age, ok := f.pulses.Age(); !ok || age != 400*time.Millisecond {
			t.Errorf("age %v, %v; want the time since the sending", age, ok)
		}
	})
}

func TestOlderThanTheBoundIsNotFreshAndBecomesSoAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, end := newFresh(t)
		defer end()
		ask := func() error { return f.pulses.WaitFresh(t.Context()) }
		if err := ask(); err != nil {
			t.Fatal(err)
		}
		f.locked(func() { f.cut = true })
		cut := time.Now()
		refused := false
		for time.Since(cut) < 10*time.Second {
			before := time.Now()
			err := ask()
			if stale(err) {
				refused = true
				if waited := time.Since(before); waited > auth.FreshnessBound {
					t.Fatalf("it was refused after %v", waited)
				}
				if f.pulses.Fresh() == nil {
					t.Fatal("it is refused and fresh")
				}
			} else if time.Since(cut) > auth.FreshnessBound {
				t.Fatalf("%v after the cut: fresh, %v", time.Since(cut), err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		if !refused {
			t.Fatal("it was never refused")
		}
		before := time.Now()
		if err := ask(); !stale(err) || time.Since(before) > auth.FreshnessBound/10 {
			t.Errorf("in a known outage: %v after %v, want it soon", err, time.Since(before))
		}
		f.locked(func() { f.cut = false })
		time.Sleep(2 * auth.FreshnessBound)
		if err := ask(); err != nil {
			t.Errorf("after the outage: %v", err)
		}
	})
}

// TestPulsesAreSentOnlyWhileNeeded, and then at least every quarter of the bound.
func TestPulsesAreSentOnlyWhileNeeded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, end := newFresh(t)
		defer end()
		time.Sleep(time.Hour)
		if n := f.count(); n != 0 {
			t.Fatalf("%d pulses while nobody asked", n)
		}
		began := time.Now()
		for time.Since(began) < 10*time.Second {
			if err := f.pulses.WaitFresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			if age, _ := f.pulses.Age(); age > auth.FreshnessBound/4 {
				t.Fatalf("age %v while it is asked for", age)
			}
			time.Sleep(7 * time.Millisecond)
		}
		busy := f.count()
		if busy < 40 || busy > 42 {
			t.Errorf("%d pulses in 10 s, want one every quarter of a second", busy)
		}
		time.Sleep(time.Hour)
		if n := f.count() - busy; n > 5 {
			t.Errorf("%d pulses after the last question", n)
		}
		if f.bounded == 0 || f.bounded > 16 {
			t.Errorf("the stream keeps %d events", f.bounded)
		}
		before := time.Now()
		if err := f.pulses.WaitFresh(t.Context()); err != nil || time.Since(before) > 0 {
			t.Errorf("the first question after an hour: %v after %v, want the time of one pulse", err, time.Since(before))
		}
	})
}

// TestAnothersPulseProvesNothing: of a process that had this node's name before, or of a
// node whose name begins as ours does.
func TestAnothersPulseProvesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, end := newFresh(t)
		defer end()
		f.locked(func() { f.cut = true })
		asked := make(chan error, 1)
		go func() { asked <- f.pulses.WaitFresh(t.Context()) }()
		synctest.Wait() // Our pulse number 1 is under way.
		for i, raw := range []eventlog.Raw{
			{Stream: "ktx.pulse-n", Type: "pulse.sent.v1", Data: []byte(`{"process":"before","number":1}`)},
			{Stream: "ktx.pulse-n2", Type: "pulse.sent.v1", Data: []byte(`{"process":"p","number":1}`)},
			{Stream: "ktx.pulse-n", Type: "other.v1", Data: []byte(`{"process":"p","number":1}`)},
			{Stream: "ktx.pulse-n", Type: "pulse.sent.v1", Data: []byte(`{"process":"p","number":2}`)},
			{Stream: "ktx.pulse-n", Type: "pulse.sent.v1", Data: []byte(`{`)},
		} {
			raw.Position = uint64(i + 1)
			f.feed.deliveries <- eventlog.Delivery{Event: &raw}
		}
		if err := <-asked; !stale(err) {
			t.Errorf("fresh by another's pulse: %v", err)
		}
	})
}

// TestAClockThatWentOnWhileTheProcessStoodStillCounts: after SIGCONT, or a machine's sleep,
// nothing is accepted by what was known before, not even by a request that was half done.
func TestAClockThatWentOnWhileTheProcessStoodStillCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, end := newFresh(t)
		defer end()
		if err := f.pulses.WaitFresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.locked(func() { f.cut = true })
		f.jumped.Add(int64(time.Minute))
		if err := f.pulses.Fresh(); !stale(err) {
			t.Errorf("fresh after a minute of standing still: %v", err)
		}
		f.locked(func() { f.cut = false })
		if err := f.pulses.WaitFresh(t.Context()); err != nil {
			t.Errorf("it does not become fresh again: %v", err)
		}
		if age, _ := f.pulses.Age(); age > auth.FreshnessBound {
			t.Errorf("age %v", age)
		}
	})
}

// TestAProcessUnderThisNodesNameDoesNotStopPulses: an old one that hangs, or a copy.
func TestAProcessUnderThisNodesNameDoesNotStopPulses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, end := newFresh(t)
		defer end()
		for range 5 {
			f.locked(func() { f.foreign = 2 })
			time.Sleep(2 * time.Second)
			if err := f.pulses.WaitFresh(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if c := f.pulses.Counts(); c.Failed != 0 || c.Returned == 0 {
			t.Errorf("counts %+v", c)
		}
	})
}
