package ingest_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"example.com/keytrail/domain"
	"example.com/keytrail/ingest"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/keystore"
)

// orderedLog is an event log in memory with exact revisions.
type orderedLog struct {
	mu       sync.Mutex // Guards all below.
	streams  map[string][]eventlog.Raw
	position uint64
}

func (l *orderedLog) Append(_ context.Context, stream string, exp eventlog.Expected, events ...eventlog.Proposed) (eventlog.Appended, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	have := l.streams[stream]
	next := exp.Next()
	if next != uint64(len(have)) {
		if end := next + uint64(len(events)); end <= uint64(len(have)) && have[next].ID == events[0].ID {
			last := have[end-1]
			return eventlog.Appended{Revision: last.Revision, Position: last.Position}, nil
		}
		return eventlog.Appended{}, &eventlog.WrongRevision{Stream: stream, Expected: exp}
	}
	for _, e := range events {
		l.position++
		have = append(have, eventlog.Raw{
			Stream: stream, Revision: uint64(len(have)), Position: l.position, ID: e.ID, Type: e.Type, JSON: e.JSON, Data: e.Data, Meta: e.Meta, RecordedAt: time.Now(),
		})
	}
	l.streams[stream] = have
	return eventlog.Appended{Revision: uint64(len(have)) - 1, Position: l.position}, nil
}

func (l *orderedLog) ReadStream(_ context.Context, stream string, from uint64, limit int) ([]eventlog.Raw, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	have := l.streams[stream]
	from = min(from, uint64(len(have)))
	return slices.Clone(have[from:min(from+uint64(limit), uint64(len(have)))]), nil
}

func (l *orderedLog) Last(_ context.Context, stream string) (eventlog.Raw, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	have := l.streams[stream]
	if len(have) == 0 {
		return eventlog.Raw{}, false, nil
	}
	return have[len(have)-1], true, nil
}

// end returns the position of the newest event.
func (l *orderedLog) end() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.position
}

// all returns every event in the order of the log.
func (l *orderedLog) all() []eventlog.Raw {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []eventlog.Raw
	for _, events := range l.streams {
		out = append(out, events...)
	}
	slices.SortFunc(out, func(a, b eventlog.Raw) int { return int(a.Position) - int(b.Position) })
	return out
}

// steppedLog lets each append of an actor wait until it is its turn; a dead actor's never come.
type steppedLog struct {
	*orderedLog
	turn chan bool // true: go on; false: die.
	dead bool      // Only the actor's goroutine touches it.
}

func (l *steppedLog) Append(ctx context.Context, stream string, exp eventlog.Expected, events ...eventlog.Proposed) (eventlog.Appended, error) {
	l.dead = l.dead || !<-l.turn
	if l.dead {
		return eventlog.Appended{}, errDied
	}
	return l.orderedLog.Append(ctx, stream, exp, events...)
}

// logFollower delivers what is in a memory log.
type logFollower struct {
	events []eventlog.Raw
	at     int
}

func (f *logFollower) Next(ctx context.Context) (eventlog.Delivery, error) {
	if f.at < len(f.events) {
		f.at++
		return eventlog.Delivery{Event: &f.events[f.at-1]}, nil
	}
	if f.at == len(f.events) {
		f.at++
		return eventlog.Delivery{CaughtUp: true}, nil
	}
	<-ctx.Done()
	return eventlog.Delivery{}, ctx.Err()
}

func (f *logFollower) Close() {}

// steppedActor is a process that does one thing after the other.
type steppedActor struct {
	log  *steppedLog
	done chan struct{}
}

// TestSlotsStaySoundWhateverTheOrder: two creators, a deleter and a reconciler, each a process
// of its own, step by step in any order; some die. After each step no key is without a slot
// and there are never too many; in the end no slot is without a key.
func TestSlotsStaySoundWhateverTheOrder(t *testing.T) {
	t.Parallel()
	store, err := keystore.Open(t.Context(), t.TempDir(), "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		order := rapid.SliceOfN(rapid.IntRange(0, 99), 15, 40).Draw(rt, "order")
		var fault string
		synctest.Test(t, func(t *testing.T) { fault = steps(t, store, order) })
		if fault != "" {
			rt.Fatal(fault)
		}
	})
}

const steppedLimit = 3

// steps returns what is wrong, "" for nothing.
func steps(t *testing.T, store *keystore.Store, order []int) string {
	t.Helper()
	memory := &orderedLog{streams: map[string][]eventlog.Raw{}}
	dirs := auth.NewDirectory(nil, slog.New(slog.DiscardHandler))
	dirs.Apply(domain.Recorded{Stream: domain.AccountStream("a"), Event: domain.AccountCreated{Account: "a", Owner: "User-o"}, Position: 1})
	dirs.Apply(domain.Recorded{Stream: domain.AccountStream("a"), Revision: 1, Position: 2, Event: domain.AccountLimitsSet{Account: "a", New: domain.AccountLimits{KeysPerIdentity: steppedLimit}}})
	ctx, cancel := context.WithCancel(t.Context())
	refusals := ingest.NewRefusals(&orderedLog{streams: map[string][]eventlog.Raw{}}, "w", "n", time.Now, slog.New(slog.DiscardHandler))
	var wg sync.WaitGroup
	wg.Go(func() { _ = refusals.Run(ctx) })
	process := func(log ingest.CommandLog) *ingest.Commands {
		return ingest.NewCommands(ingest.CommandsConfig{Log: log, Directory: dirs, Store: store, Refusals: refusals, Now: time.Now, Random: rand.Reader})
	}
	begin := func(do func(*ingest.Commands)) *steppedActor {
		a := &steppedActor{log: &steppedLog{orderedLog: memory, turn: make(chan bool)}, done: make(chan struct{})}
		wg.Go(func() {
			defer close(a.done)
			for n := 0; n < 8 && !a.log.dead; n++ {
				do(process(a.log))
			}
		})
		return a
	}
	create := func(c *ingest.Commands) {
		_, _, _, _ = c.CreateKey(ctx, systemOrder(), ingest.NewKey{Account: "a", IAMID: "User-x", Name: "k"}) // What came of it, the log says.
	}
	actors := []*steppedActor{
		begin(create), begin(create),
		begin(func(c *ingest.Commands) {
			for _, key := range dirs.KeysOf("a", "User-x")[:min(1, len(dirs.KeysOf("a", "User-x")))] {
				_, _, _ = c.ChangeKey(ctx, systemOrder(), ingest.KeyRef{ID: key.ID}, domain.DeleteKey{By: systemOrder().Caller.Initiator, At: time.Now()}, nil)
			}
		}),
		begin(func(c *ingest.Commands) { _ = reconcileOnce(ctx, c, dirs, memory) }),
	}
	fault, checked := "", uint64(0)
	synctest.Wait()
	for _, n := range order {
		a := actors[n%len(actors)]
		select {
		case <-a.done:
		case a.log.turn <- n < 95:
		default: // It waits for something else; nothing here does.
		}
		synctest.Wait()
		if grown := memory.end(); grown != checked {
			checked = grown
			if fault = soundLog(memory, false); fault != "" {
				break
			}
		}
	}
	for _, a := range actors { // The rest die where they are.
		for ended := false; !ended; {
			select {
			case <-a.done:
				ended = true
			case a.log.turn <- false:
			}
		}
	}
	if err := reconcileOnce(ctx, process(memory), dirs, memory); err != nil && fault == "" {
		fault = err.Error()
	}
	if fault == "" {
		fault = soundLog(memory, true)
	}
	cancel()
	wg.Wait()
	return fault
}

// reconcileOnce settles all that the log leaves open now.
func reconcileOnce(ctx context.Context, c *ingest.Commands, dirs *auth.Directory, log *orderedLog) error {
	r := ingest.NewReconciler(ingest.ReconcilerConfig{
		Commands: c, Directory: dirs, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
		Follow: func(context.Context, eventlog.SubscribeOptions) (auth.Subscription, error) {
			return &logFollower{events: log.all()}, nil
		},
	})
	ctx, cancel := context.WithCancel(ctx)
	followed := make(chan error, 1)
	go func() { followed <- r.Follow(ctx) }()
	err := r.WaitReady(ctx)
	if err == nil {
		err = r.Reconcile(ctx)
	}
	cancel()
	<-followed
	return err
}

// soundLog says what is wrong with the keys and slots in a log. Slots without a key are wrong
// at the end only.
func soundLog(log *orderedLog, ended bool) string {
	living, slots := map[domain.KeyID]bool{}, domain.KeySlots{}
	for _, raw := range log.all() {
		rec, err := eventlog.Decode(raw)
		if err != nil {
			return err.Error()
		}
		if e, ok := rec.Event.(domain.KeyEvent); ok {
			living[e.State().ID] = !e.State().Deleted
		}
		slots = slots.Evolve(rec)
	}
	keys := 0
	for id, lives := range living {
		if _, ok := slots.Slot(id); lives && !ok {
			return fmt.Sprintf("key %s has no slot", id)
		}
		if lives {
			keys++
		}
	}
	switch {
	case keys > steppedLimit || slots.Used() > steppedLimit:
		return fmt.Sprintf("%d keys, %d slots", keys, slots.Used())
	case ended && keys != slots.Used():
		return fmt.Sprintf("in the end %d keys and %d slots", keys, slots.Used())
	}
	return ""
}
