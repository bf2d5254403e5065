package ingest_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
	"example.com/keytrail/ingest"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/keystore"
)

// errDied is what a process that has died says; nobody hears it.
var errDied = errors.New("the process has died")

// mortalLog is the log of a process that dies at an append: before it is stored, or after,
// when nobody is told any more.
type mortalLog struct {
	ingest.CommandLog
	mu     sync.Mutex // Guards all below.
	left   int        // Appends before the fatal one.
	stored bool       // The fatal one is stored.
	dead   bool
}

func (l *mortalLog) Append(ctx context.Context, stream string, exp eventlog.Expected, events ...eventlog.Proposed) (eventlog.Appended, error) {
	l.mu.Lock()
	l.left--
	fatal := !l.dead && l.left < 0
	dead := l.dead
	l.dead = l.dead || fatal
	l.mu.Unlock()
	if dead || fatal && !l.stored {
		return eventlog.Appended{}, errDied
	}
	done, err := l.CommandLog.Append(ctx, stream, exp, events...)
	if fatal {
		return eventlog.Appended{}, errDied
	}
	return done, err
}

// process returns the commands of another process on the same log.
func (n *node) process(log ingest.CommandLog) *ingest.Commands {
	return ingest.NewCommands(ingest.CommandsConfig{
		Log: log, Directory: n.dirs, Store: n.store, Refusals: n.refusals, Now: n.clock.Now, Random: rand.Reader,
	})
}

// soundSlots fails the test unless every living key has a slot, every slot a living key, and
// there are not more than limit of an identity.
func (n *node) soundSlots(when string, limit int) {
	n.tb.Helper()
	living, slots := map[string][]string{}, map[string]domain.KeySlots{}
	states := map[domain.KeyID]domain.KeyState{}
	for _, rec := range n.events(domain.KeyStreams) {
		s := rec.Event.(domain.KeyEvent).State()
		states[s.ID] = s
	}
	for id, s := range states {
		if !s.Deleted && s.Kind != domain.KindExternal {
			stream := domain.KeySlotStream(s.Account, s.IAMID, s.Kind)
			living[stream] = append(living[stream], string(id))
		}
	}
	for _, rec := range n.events(domain.KeySlotStreams) {
		slots[rec.Stream] = slots[rec.Stream].Evolve(rec)
	}
	for stream, s := range slots {
		var got []string
		for slot := range s.All() {
			got = append(got, string(slot.KeyID))
		}
		slices.Sort(got)
		slices.Sort(living[stream])
		if diff := cmp.Diff(living[stream], got); diff != "" {
			n.tb.Errorf("%s: %s (-living keys +slots):\n%s", when, stream, diff)
		}
		if s.Used() > limit {
			n.tb.Errorf("%s: %s has %d keys, may have %d", when, stream, s.Used(), limit)
		}
	}
}

func TestTheLimitWarnsOnceAndBlocksExactly(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	var ids []string
	for i := range 19 { // The administrator has a key already.
		id, _ := n.createKey(n.admin, n.boot.Owner, fmt.Sprint("k", i))
		ids = append(ids, id)
	}
	full := func() {
		t.Helper()
		r := n.must(http.StatusConflict, n.call(n.admin, "POST", "/v1/apikeys", map[string]any{"name": "one more", "iam_id": n.boot.Owner}))
		if code, _ := r.failure(); code != domain.MessageCodeKeyLimit {
			t.Errorf("refused with %q: %s", code, r.raw)
		}
	}
	full()
	full()
	n.must(204, n.call(n.admin, "DELETE", "/v1/apikeys/"+ids[0], nil))
	id, _ := n.createKey(n.admin, n.boot.Owner, "again full")
	n.must(204, n.call(n.admin, "DELETE", "/v1/apikeys/"+id, nil))
	for _, id := range ids[1:4] {
		n.must(204, n.call(n.admin, "DELETE", "/v1/apikeys/"+id, nil))
	}
	for i := range 2 {
		n.createKey(n.admin, n.boot.Owner, fmt.Sprint("after", i))
	}
	var got []string
	for _, rec := range n.events(domain.KeySlotStreams) {
		if a, ok := domain.ActivityOf(rec); ok {
			got = append(got, strings.TrimPrefix(a.Action, "iam-identity.apikey-limit.")+" "+string(a.Severity)+" "+string(a.RequestData))
		}
	}
	used := func(what, severity string, n0 int) string {
		return fmt.Sprintf(`%s %s {"iam_id":"%s","used":%d,"limit":20}`, what, severity, n.boot.Owner, n0)
	}
	want := []string{used("near", "warning", 18), used("reach", "critical", 20), used("reach", "critical", 20), used("near", "warning", 18)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	refused := n.refused()
	if len(refused) != 2 || refused[0].Action != "iam-identity.user-apikey.create" || refused[0].Status != 409 {
		t.Errorf("refusals %+v", refused)
	}
	n.soundSlots("in the end", 20)
}

// TestTheLimitIsExactUnderConcurrentCreationsOfTwoNodes: forty at once, twenty get one.
func TestTheLimitIsExactUnderConcurrentCreationsOfTwoNodes(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.member("User-x")
	other := n.process(n.log)
	var wg sync.WaitGroup
	errs := make([]error, 40)
	for i := range errs {
		wg.Go(func() {
			at := n.commands
			if i%2 == 1 {
				at = other
			}
			o := systemOrder()
			_, _, _, errs[i] = at.CreateKey(t.Context(), o, ingest.NewKey{Account: n.boot.Account, IAMID: "User-x", Name: "k"})
		})
	}
	wg.Wait()
	made := 1 // The member's first.
	for _, err := range errs {
		e, ok := errors.AsType[*domain.Error](err)
		switch {
		case err == nil:
			made++
		case !ok || e.MessageCode != domain.MessageCodeKeyLimit:
			t.Errorf("refused otherwise: %v", err)
		}
	}
	if made != domain.KeyLimitDefault {
		t.Errorf("%d keys, want %d", made, domain.KeyLimitDefault)
	}
	n.soundSlots("after forty", domain.KeyLimitDefault)
}

// TestAProcessThatDiesLosesNoSlot: it dies before or after each append of a creation or a
// deletion is stored; another one settles.
func TestAProcessThatDiesLosesNoSlot(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	row := 0
	for _, act := range []string{"create", "create with a chosen value", "delete"} {
		for left := range 4 {
			for _, stored := range []bool{false, true} {
				row++
				name := fmt.Sprintf("%s, %d appends, then one is stored %t", act, left, stored)
				dieAndSettle(n, name, domain.IAMID(fmt.Sprint("User-", row)), act, left, stored)
			}
		}
	}
}

func dieAndSettle(n *node, name string, iam domain.IAMID, act string, left int, stored bool) {
	n.tb.Helper()
	ctx := n.tb.Context()
	asked := ingest.NewKey{Account: n.boot.Account, IAMID: iam, Name: "victim"}
	victim, _, _, err := n.commands.CreateKey(ctx, systemOrder(), asked)
	if err != nil {
		n.tb.Fatal(err)
	}
	asked.Name = "made by " + string(iam)
	if strings.Contains(act, "chosen") {
		asked.Value = keystore.NewSecret("a value that was chosen by " + name)
	}
	mortal := n.process(&mortalLog{CommandLog: n.log, left: left, stored: stored})
	if act == "delete" {
		_, _, err = mortal.ChangeKey(ctx, systemOrder(), ingest.KeyRef{ID: victim.State().ID}, domain.DeleteKey{By: systemOrder().Caller.Initiator, At: n.clock.Now()}, nil)
	} else {
		_, _, _, err = mortal.CreateKey(ctx, systemOrder(), asked)
	}
	if err != nil && !errors.Is(err, errDied) {
		n.tb.Fatalf("%s: %v", name, err)
	}
	survivor := n.reconciler(n.process(n.log), 0)
	for range 2 { // The second time changes nothing.
		if err := survivor.Reconcile(ctx); err != nil {
			n.tb.Fatalf("%s: %v", name, err)
		}
		n.soundSlots(name, domain.KeyLimitDefault)
	}
	if act != "delete" && !n.made(asked.Name) {
		if _, _, _, err := n.process(n.log).CreateKey(ctx, systemOrder(), asked); err != nil {
			n.tb.Errorf("%s: what was never made cannot be made again: %v", name, err)
		}
	}
}

// made reports whether a key with that name was created.
func (n *node) made(name string) bool {
	return slices.ContainsFunc(n.events(domain.KeyStreams), func(rec domain.Recorded) bool {
		e, ok := rec.Event.(domain.KeyCreated)
		return ok && e.After.Name == name
	})
}

// reconciler follows the log until the test ends; it waits grace before it gives up on others.
func (n *node) reconciler(commands *ingest.Commands, grace time.Duration) *ingest.Reconciler {
	n.tb.Helper()
	r := ingest.NewReconciler(ingest.ReconcilerConfig{
		Commands: commands, Directory: n.dirs, Follow: auth.FollowLog(n.log), Now: n.clock.Now, Logger: testLogger(n.tb), Grace: grace,
	})
	ctx, cancel := context.WithCancel(n.tb.Context())
	done := make(chan error, 1)
	go func() { done <- r.Follow(ctx) }()
	n.tb.Cleanup(func() { cancel(); cleanup(n.tb, <-done) })
	if err := r.WaitReady(ctx); err != nil {
		n.tb.Fatal(err)
	}
	return r
}

// sleepyLog does something else right before each append.
type sleepyLog struct {
	ingest.CommandLog
	wake func(stream string)
}

func (l *sleepyLog) Append(ctx context.Context, stream string, exp eventlog.Expected, events ...eventlog.Proposed) (eventlog.Appended, error) {
	l.wake(stream)
	return l.CommandLog.Append(ctx, stream, exp, events...)
}

// TestACreatorThatIsMerelySlowLoses: its creation was ended while it slept.
func TestACreatorThatIsMerelySlowLoses(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	slow := n.process(&sleepyLog{CommandLog: n.log, wake: func(stream string) {
		if !strings.HasPrefix(stream, domain.KeyStreams) {
			return
		}
		if err := n.reconciler(n.process(n.log), 0).Reconcile(t.Context()); err != nil {
			t.Error(err)
		}
	}})
	_, _, _, err := slow.CreateKey(t.Context(), systemOrder(), ingest.NewKey{Account: n.boot.Account, IAMID: "User-x", Name: "late"})
	if domain.CodeOf(err) != domain.Conflict || n.made("late") {
		t.Errorf("a creation that was ended: %v, made %t", err, n.made("late"))
	}
	n.soundSlots("after it", domain.KeyLimitDefault)
}
