package auth_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/eventlog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// feed is a subscription that a test fills.
type feed struct {
	deliveries chan eventlog.Delivery
	opened     chan eventlog.SubscribeOptions
	err        error
}

func newFeed() *feed {
	return &feed{deliveries: make(chan eventlog.Delivery), opened: make(chan eventlog.SubscribeOptions, 9)}
}

func (f *feed) follow(_ context.Context, opt eventlog.SubscribeOptions) (auth.Subscription, error) {
	f.opened <- opt
	return f, f.err
}

func (f *feed) Next(ctx context.Context) (eventlog.Delivery, error) {
	select {
	case d, ok := <-f.deliveries:
		if !ok {
			return d, errors.New("broken for good")
		}
		return d, nil
	case <-ctx.Done():
		return eventlog.Delivery{}, ctx.Err()
	}
}

func (f *feed) Close() {}

// rawOf is rec as the log delivers it.
func rawOf(tb testing.TB, rec domain.Recorded) *eventlog.Raw {
	tb.Helper()
	p, err := eventlog.Propose(rec.ID, rec.Event, rec.Meta)
	if err != nil {
		tb.Fatal(err)
	}
	return &eventlog.Raw{Stream: rec.Stream, Revision: rec.Revision, Position: rec.Position, ID: rec.ID, Type: p.Type, Data: p.Data, Meta: p.Meta}
}

func at(stream string, revision, position uint64, e domain.Event) domain.Recorded {
	return domain.Recorded{
		Stream: stream, Revision: revision, Position: position, ID: domain.DeriveID("t", stream, strconv.FormatUint(revision, 10)),
		Type: e.Type(), Event: e, Meta: domain.Metadata{Schema: 1, EffectiveAt: t0.Add(time.Duration(position) * time.Second)},
	}
}

func keyState(id domain.KeyID, change ...func(*domain.KeyState)) domain.KeyState {
	s := domain.KeyState{ID: id, Account: "acct1", IAMID: "User-1", Kind: domain.KindUser, SecretHash: "hmac-sha256:" + string(id), Version: 1, CreatedAt: t0, ModifiedAt: t0}
	for _, f := range change {
		f(&s)
	}
	return s
}

// of returns what makes a key that of another user.
func of(iam domain.IAMID) func(*domain.KeyState) {
	return func(s *domain.KeyState) { s.IAMID = iam }
}

func deleted(s *domain.KeyState)  { s.Deleted = true }
func disabled(s *domain.KeyState) { s.Disabled = true }

// history is a small log with everything in it.
func history() []domain.Recorded {
	session := func(generation uint64, over bool) domain.SessionState {
		return domain.SessionState{ID: "s1", Account: "acct1", IAMID: "User-1", EndsAt: t0.Add(time.Hour), Generation: generation, Over: over}
	}
	account, key, svc := domain.AccountStream("acct1"), domain.KeyStream("k1"), domain.ServiceIDStream("ServiceId-1")
	return []domain.Recorded{
		at(account, 0, 10, domain.AccountCreated{Account: "acct1", Name: "Acme", Owner: "User-1", OwnerName: "Ada"}),
		at(account, 1, 20, domain.MemberAdded{Account: "acct1", IAMID: "User-2", Name: "Bob"}),
		at(key, 0, 30, domain.KeyCreated{After: keyState("k1")}),
		at(account, 2, 40, domain.RolesSet{Account: "acct1", IAMID: "User-2", New: []domain.Role{domain.RoleViewer}}),
		at(svc, 0, 50, domain.ServiceIDCreated{ID: "ServiceId-1", IAMID: "iam-ServiceId-1", Account: "acct1", Name: "ci"}),
		at(key, 1, 60, domain.KeyDisabled{After: keyState("k1", disabled)}),
		at(domain.AccountStream("acct2"), 0, 70, domain.AccountCreated{Account: "acct2", Name: "Other", Owner: "User-2"}),
		at(key, 2, 80, domain.KeyDeleted{After: keyState("k1", deleted)}),
		at(svc, 1, 90, domain.ServiceIDDeleted{ID: "ServiceId-1", IAMID: "iam-ServiceId-1", Account: "acct1"}),
		at(domain.ExternalKeyStream("acct2", "AKIA1"), 0, 100, domain.KeyObserved{Fact: domain.ObservedCreated, After: domain.KeyState{ID: "AKIA1", Account: "acct2", Kind: domain.KindExternal}}),
		at(domain.SessionStream("s1"), 0, 110, domain.SessionCreated{After: session(1, false)}),
		at(domain.SessionStream("s1"), 1, 120, domain.SessionRefreshed{After: session(2, false)}),
		at(domain.SessionStream("s1"), 2, 130, domain.SessionRevoked{After: session(2, true)}),
	}
}

// view is all that a directory says.
type view struct {
	Key      domain.KeyState
	ByHash   domain.KeyState
	Standing map[domain.IAMID]domain.Standing
	Accounts map[domain.IAMID][]domain.AccountID
	Service  domain.ServiceIDState
	External []domain.AccountID
	Home     domain.AccountID
	Bob      string
	Session  domain.SessionState
}

func viewOf(d *auth.Directory) view {
	v := view{Standing: map[domain.IAMID]domain.Standing{}, Accounts: map[domain.IAMID][]domain.AccountID{}, Home: d.Home(), Bob: d.NameOf("User-2")}
	v.Key, _ = d.Key("k1")
	v.ByHash, _ = d.KeyByFingerprint("hmac-sha256:k1")
	for _, id := range []domain.IAMID{"User-1", "User-2", "iam-ServiceId-1", ""} {
		v.Standing[id], v.Accounts[id] = d.Standing(id, "acct1"), d.AccountsOf(id)
	}
	v.Service, _ = d.ServiceID("ServiceId-1")
	v.External = d.ExternalAccounts("AKIA1")
	v.Session, _ = d.Session("s1")
	return v
}

// TestOwnWritesAheadOfTheLogEndInTheSameDirectory: any events applied early, in any
// order and any number of times, before the log brings them all in order.
func TestOwnWritesAheadOfTheLogEndInTheSameDirectory(t *testing.T) {
	t.Parallel()
	want := auth.NewDirectory(nil, discard())
	for _, rec := range history() {
		want.Apply(rec)
	}
	rapid.Check(t, func(t *rapid.T) {
		d := auth.NewDirectory(nil, discard())
		early := history()
		rand.New(rand.NewSource(rapid.Int64().Draw(t, "seed"))).Shuffle(len(early), func(i, j int) { early[i], early[j] = early[j], early[i] })
		early = early[:rapid.IntRange(0, len(early)).Draw(t, "early")]
		for i, rec := range history() {
			d.Apply(rec)
			if i < len(early) {
				d.Apply(early[i])
			}
		}
		if diff := cmp.Diff(viewOf(want), viewOf(d)); diff != "" {
			t.Fatalf("(-in order +with early ones):\n%s", diff)
		}
	})
}

func TestADisableIsKnownBeforeTheLogBringsIt(t *testing.T) {
	t.Parallel()
	d := auth.NewDirectory(nil, discard())
	d.Apply(at(domain.KeyStream("k1"), 5, 90, domain.KeyDisabled{After: keyState("k1", disabled)})) // What came before is not here yet.
	d.Apply(at(domain.KeyStream("k1"), 4, 80, domain.KeyEnabled{After: keyState("k1")}))
	if s, _ := d.Key("k1"); !s.Disabled {
		t.Error("an older event undid a newer one")
	}
}

func TestADirectoryAnswersOnlyWhileItFollowsTheLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFeed()
		d := auth.NewDirectory(f.follow, discard())
		state := keyState("k1")
		unavailable := func(when string) {
			t.Helper()
			if err := d.Check(state, t0); domain.CodeOf(err) != domain.Unavailable {
				t.Errorf("%s: %v, want unavailable", when, err)
			}
		}
		unavailable("before it runs")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- d.Run(ctx) }()
		if opt := <-f.opened; !opt.FromStart {
			t.Errorf("the first run starts at %+v", opt)
		}
		for _, rec := range history()[:3] {
			f.deliveries <- eventlog.Delivery{Event: rawOf(t, rec)}
		}
		synctest.Wait()
		unavailable("before it has caught up")
		f.deliveries <- eventlog.Delivery{CaughtUp: true}
		synctest.Wait()
		if err := errors.Join(d.Check(state, t0), d.Ready()); err != nil {
			t.Errorf("caught up: %v", err)
		}
		if d.Reached() != 30 {
			t.Errorf("reached %d, want 30", d.Reached())
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ended by its owner: %v", err)
		}
		unavailable("after its end")

		done2 := make(chan error, 1)
		go func() { done2 <- d.Run(t.Context()) }()
		if opt := <-f.opened; opt.After != 30 || opt.FromStart {
			t.Errorf("the next run starts at %+v, want after 30", opt)
		}
		f.deliveries <- eventlog.Delivery{CaughtUp: true}
		close(f.deliveries)
		if err := <-done2; err == nil {
			t.Error("a broken subscription is no error")
		}
		unavailable("after the subscription broke")
	})
}

func TestAnEventThatCannotBeReadClosesItsKeyOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFeed()
		d := auth.NewDirectory(f.follow, discard())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- d.Run(ctx) }()
		<-f.opened
		f.deliveries <- eventlog.Delivery{Event: rawOf(t, at(domain.AccountStream("acct1"), 0, 5, domain.AccountCreated{Account: "acct1", Owner: "User-1"}))}
		f.deliveries <- eventlog.Delivery{Event: rawOf(t, at(domain.KeyStream("k1"), 0, 10, domain.KeyCreated{After: keyState("k1")}))}
		f.deliveries <- eventlog.Delivery{Event: rawOf(t, at(domain.KeyStream("k2"), 0, 20, domain.KeyCreated{After: keyState("k2")}))}
		bad := rawOf(t, at(domain.KeyStream("k1"), 1, 30, domain.KeyEnabled{After: keyState("k1")}))
		bad.Type = "apikey.revoked.v7"
		f.deliveries <- eventlog.Delivery{Event: bad}
		f.deliveries <- eventlog.Delivery{CaughtUp: true}
		synctest.Wait()
		if err := d.Check(keyState("k1"), t0); domain.CodeOf(err) != domain.Unavailable {
			t.Errorf("the key with the unreadable event: %v, want unavailable", err)
		}
		if err := d.Check(keyState("k2"), t0); err != nil {
			t.Errorf("the other key: %v", err)
		}
		if d.Reached() != 30 {
			t.Errorf("stuck at %d", d.Reached())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestAnOwnWriteThatComesBackMovesThePositionOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFeed()
		d := auth.NewDirectory(f.follow, discard())
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = d.Run(ctx) }()
		<-f.opened
		created := at(domain.KeyStream("k1"), 0, 10, domain.KeyCreated{After: keyState("k1")})
		ended := at(domain.KeyStream("k1"), 1, 20, domain.KeyDisabled{After: keyState("k1", disabled)})
		d.Apply(created)
		d.Apply(ended)
		for i, rec := range []domain.Recorded{created, ended} {
			f.deliveries <- eventlog.Delivery{Event: rawOf(t, rec)}
			synctest.Wait()
			if d.Reached() != rec.Position {
				t.Errorf("after event %d the directory is at %d, want %d", i, d.Reached(), rec.Position)
			}
			if s, _ := d.Key("k1"); !s.Disabled {
				t.Error("an own write that came back undid the one after it")
			}
		}
		f.deliveries <- eventlog.Delivery{Event: rawOf(t, at(domain.KeyStream("k1"), 2, 30, domain.KeyEnabled{After: keyState("k1")}))}
		synctest.Wait()
		if s, _ := d.Key("k1"); s.Disabled || d.Reached() != 30 {
			t.Errorf("another node's write is not seen: %+v at %d", s, d.Reached())
		}
		cancel()
		synctest.Wait()
	})
}

func TestWaitForReturnsWhenTheLogHasComeSoFar(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFeed()
		d := auth.NewDirectory(f.follow, discard())
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = d.Run(ctx) }()
		<-f.opened
		waited := make(chan error, 1)
		go func() { waited <- d.WaitFor(t.Context(), 20) }()
		f.deliveries <- eventlog.Delivery{Event: rawOf(t, history()[0])}
		synctest.Wait()
		select {
		case err := <-waited:
			t.Errorf("did not wait: %v", err)
		default:
		}
		f.deliveries <- eventlog.Delivery{Event: rawOf(t, history()[1])}
		if err := <-waited; err != nil {
			t.Error(err)
		}
		short, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := d.WaitFor(short, 99); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("err = %v, want the deadline", err)
		}
		cancel()
		synctest.Wait()
	})
}

func TestCheckSaysWhyAKeyIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFeed()
		d := auth.NewDirectory(f.follow, discard())
		for _, rec := range history() {
			d.Apply(rec)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = d.Run(ctx) }()
		<-f.opened
		f.deliveries <- eventlog.Delivery{CaughtUp: true}
		synctest.Wait()
		expiry := t0.Add(time.Hour)
		expiring := func(s *domain.KeyState) { s.ExpiresAt = &expiry }
		service := func(s *domain.KeyState) { s.Kind, s.IAMID = domain.KindServiceID, "iam-ServiceId-1" }
		for _, tt := range []struct {
			name  string
			state domain.KeyState
			at    time.Time
			want  string
		}{
			{"an active key", keyState("k"), t0, ""},
			{"a disabled key", keyState("k", disabled), t0, "key_disabled"},
			{"a deleted key, disabled before", keyState("k", disabled, deleted), t0, "key_deleted"},
			{"a key a moment before its expiry", keyState("k", expiring), expiry.Add(-time.Millisecond), ""},
			{"a key at its expiry", keyState("k", expiring), expiry, "key_expired"},
			{"a key of a deleted service ID", keyState("k", service), t0, "identity_invalid"},
			{"a key of a member", keyState("k", of("User-2")), t0, ""},
			{"a key of nobody in its account", keyState("k", of("User-9")), t0, "identity_invalid"},
			{"a key in an account that is not there", keyState("k", func(s *domain.KeyState) { s.Account = "acct9" }), t0, "identity_invalid"},
		} {
			got := ""
			if e, ok := errors.AsType[*domain.Error](d.Check(tt.state, tt.at)); ok {
				got = e.MessageCode
			}
			if got != tt.want {
				t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
			}
		}
		cancel()
		synctest.Wait()
	})
}

// TestAUsersKeysEndWithItsMembershipForEver: whatever this node has applied of its own
// before the log brought it, a key that was made before its user was removed is refused,
// also when the user belongs to the account again; one made after that is not.
func TestAUsersKeysEndWithItsMembershipForEver(t *testing.T) {
	t.Parallel()
	account, bob := domain.AccountStream("acct1"), of("User-2")
	added := domain.MemberAdded{Account: "acct1", IAMID: "User-2", Name: "Bob"}
	log := []domain.Recorded{
		at(account, 0, 10, domain.AccountCreated{Account: "acct1", Owner: "User-1"}),
		at(account, 1, 20, added),
		at(domain.KeyStream("old"), 0, 30, domain.KeyCreated{After: keyState("old", bob)}),
		at(account, 2, 40, domain.MemberRemoved{Account: "acct1", IAMID: "User-2"}),
		at(account, 3, 50, added),
		at(domain.KeyStream("new"), 0, 60, domain.KeyCreated{After: keyState("new", bob)}),
		at(domain.KeyStream("old"), 1, 70, domain.KeyUpdated{After: keyState("old", bob)}),
		at(domain.KeyStream("new"), 1, 80, domain.KeyUpdated{After: keyState("new", bob)}),
	}
	rapid.Check(t, func(rt *rapid.T) {
		early := rapid.SliceOf(rapid.SampledFrom(log)).Draw(rt, "applied early")
		synctest.Test(t, func(t *testing.T) {
			f := newFeed()
			d := auth.NewDirectory(f.follow, discard())
			for _, rec := range early {
				d.Apply(rec)
			}
			ctx, cancel := context.WithCancel(t.Context())
			go func() { _ = d.Run(ctx) }()
			<-f.opened
			for i, rec := range log {
				f.deliveries <- eventlog.Delivery{Event: rawOf(t, rec)}
				if i == 3 {
					f.deliveries <- eventlog.Delivery{CaughtUp: true}
					synctest.Wait()
					if d.Standing("User-2", "acct1").Known() != d.Standing("User-2", "acct1").Member || d.Check(keyState("old", bob), t0) == nil {
						rt.Error("the key of a user who was removed is valid")
					}
				}
			}
			f.deliveries <- eventlog.Delivery{CaughtUp: true}
			synctest.Wait()
			if err := d.Check(keyState("old", bob), t0); domain.CodeOf(err) != domain.Unauthenticated {
				rt.Errorf("the old key of one who was added again: %v", err)
			}
			if err := d.Check(keyState("new", bob), t0); err != nil {
				rt.Errorf("the new key: %v", err)
			}
			cancel()
			synctest.Wait()
		})
	})
}

// TestWhoIsRemovedBelongsNowhere: neither the account nor the list of accounts knows it.
func TestWhoIsRemovedBelongsNowhere(t *testing.T) {
	t.Parallel()
	d := auth.NewDirectory(nil, discard())
	account := domain.AccountStream("acct1")
	d.Apply(at(account, 0, 10, domain.AccountCreated{Account: "acct1", Owner: "User-1"}))
	d.Apply(at(account, 1, 20, domain.MemberAdded{Account: "acct1", IAMID: "User-2"}))
	d.Apply(at(domain.AccountStream("acct2"), 0, 25, domain.AccountCreated{Account: "acct2", Owner: "User-2"}))
	before := d.AccountsOf("User-2")
	d.Apply(at(account, 2, 30, domain.MemberRemoved{Account: "acct1", IAMID: "User-2"}))
	if d.Standing("User-2", "acct1").Known() || !slices.Equal(d.AccountsOf("User-2"), []domain.AccountID{"acct2"}) {
		t.Errorf("still known, in %v", d.AccountsOf("User-2"))
	}
	if diff := cmp.Diff([]domain.AccountID{"acct1", "acct2"}, before); diff != "" {
		t.Errorf("what a reader held has changed: %s", diff)
	}
	d.Apply(at(account, 3, 40, domain.RolesSet{Account: "acct1", IAMID: "iam-ServiceId-7", New: []domain.Role{domain.RoleViewer}}))
	d.Apply(at(account, 4, 50, domain.RolesSet{Account: "acct1", IAMID: "iam-ServiceId-7"}))
	if len(d.AccountsOf("iam-ServiceId-7")) != 0 {
		t.Error("a service ID without a role belongs to another's account")
	}
}

func TestCallerScope(t *testing.T) {
	t.Parallel()
	d := auth.NewDirectory(nil, discard())
	for _, rec := range history() {
		d.Apply(rec)
	}
	bob := auth.NewCaller(domain.Initiator{IAMID: "User-2"}, d)
	if diff := cmp.Diff([]domain.AccountID{"acct1", "acct2"}, bob.Accounts(domain.RightRead)); diff != "" {
		t.Errorf("read: %s", diff)
	}
	if diff := cmp.Diff([]domain.AccountID{"acct2"}, bob.Accounts(domain.RightAssign)); diff != "" {
		t.Errorf("assign: %s", diff)
	}
	svc := auth.NewCaller(domain.Initiator{IAMID: "iam-ServiceId-1"}, d)
	if got := svc.Accounts(domain.RightRead); got != nil || svc.Standing("acct1").Known() {
		t.Errorf("a deleted service ID reads %v", got)
	}
	if (auth.Caller{}).Can(domain.RightRead, "acct1") || (auth.Caller{}).Accounts(domain.RightRead) != nil {
		t.Error("the zero caller may read")
	}
}
