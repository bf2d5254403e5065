package auth_test

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/keystore"
)

// TestATokenOfASessionEndsWithIt: by the clock, and at once when it is revoked.
func TestATokenOfASessionEndsWithIt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.session(t0)
	s.EndsAt = t0.Add(20 * time.Minute)
	access, end, err := b.auth.Issue(b.key, &s, "id")
	if err != nil || !end.Equal(s.EndsAt) {
		t.Fatalf("ends at %v, %v", end, err)
	}
	refresh, err := b.auth.IssueRefresh(s, "id")
	if err != nil {
		t.Fatal(err)
	}
	check := func(name, code string) {
		t.Helper()
		got, err := b.auth.Token(t.Context(), access, anywhere)
		if messageCode(err) != code || code == "" && got.Session != "s1" {
			t.Errorf("%s, access token: %+v, %v", name, got, err)
		}
		r, err := b.auth.Refresh(t.Context(), refresh, anywhere)
		if messageCode(err) != code || code == "" && (r.Session != "s1" || r.Generation != 1 || r.Key.ID != "k1") {
			t.Errorf("%s, refresh token: %+v, %v", name, r, err)
		}
	}
	check("before anybody told this node of the session", "")
	b.dir.Apply(at(domain.SessionStream("s1"), 0, 40, domain.SessionCreated{After: s}))
	check("living", "")
	b.now = s.EndsAt
	check("at its end", "token_expired")
	b.now = t0
	over := s
	over.Over = true
	b.dir.Apply(at(domain.SessionStream("s1"), 1, 50, domain.SessionRevoked{Reason: domain.SessionByCommand, After: over}))
	check("revoked", "session_revoked")
}

// TestNoTokenIsTakenForTheOtherKind, nor one of a key that is refused.
func TestNoTokenIsTakenForTheOtherKind(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.session(t0)
	access, _, err := b.auth.Issue(b.key, &s, "id")
	if err != nil {
		t.Fatal(err)
	}
	refresh, err := b.auth.IssueRefresh(s, "id")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.auth.Refresh(t.Context(), access, anywhere); messageCode(err) != "invalid_credential" {
		t.Errorf("an access token refreshes: %v", err)
	}
	for name, ask := range map[string]func(keystore.Secret) error{
		"signs in":  func(s keystore.Secret) error { _, err := b.auth.Token(t.Context(), s, anywhere); return err },
		"is a key":  func(s keystore.Secret) error { _, err := b.auth.Key(t.Context(), s, anywhere); return err },
		"is active": func(s keystore.Secret) error { _, err := b.auth.Introspect(t.Context(), s); return err },
		"is nothing": func(keystore.Secret) error {
			_, err := b.auth.Introspect(t.Context(), keystore.NewSecret(""))
			return err
		},
	} {
		if err := ask(refresh); messageCode(err) != "invalid_credential" {
			t.Errorf("a refresh token %s: %v", name, err)
		}
	}
	b.dir.Apply(at(domain.KeyStream("k1"), 1, 40, domain.KeyDisabled{After: keyState("k1", disabled)}))
	if got, err := b.auth.Refresh(t.Context(), refresh, anywhere); messageCode(err) != "key_disabled" || got.Key.ID != "k1" {
		t.Errorf("of a disabled key: %+v, %v", got, err)
	}
}

// TestSessionsLeaveTheDirectoryWhenTheyAreOver by the time of the log, and not before every
// token of theirs is: none that was revoked is ever taken for a living one.
func TestSessionsLeaveTheDirectoryWhenTheyAreOver(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		f := newFeed()
		d := auth.NewDirectory(f.follow, discard())
		done := make(chan error, 1)
		go func() { done <- d.Run(t.Context()) }()
		now, position := t0, uint64(1)
		deliver := func(rec domain.Recorded) {
			position++
			rec.Position, rec.RecordedAt = position, now
			raw := rawOf(t, rec)
			raw.RecordedAt = now
			f.deliveries <- eventlog.Delivery{Event: raw}
		}
		living, revokedAt := map[string]domain.SessionState{}, map[string]time.Time{}
		revisions := map[string]uint64{}
		for i := range rapid.IntRange(1, 30).Draw(rt, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 120).Draw(rt, "minutes")) * time.Minute)
			id := "s" + strconv.Itoa(rapid.IntRange(0, 5).Draw(rt, "session"))
			s, known := living[id]
			var e domain.Event
			switch _, over := revokedAt[id]; {
			case over || known && s.Ended(now):
				e = domain.AccountCreated{Account: domain.AccountID("a" + strconv.Itoa(i)), Name: "n", Owner: "o"} // Time passes.
			case !known:
				s = domain.SessionState{ID: id, IAMID: "User-1", Account: "acct1", CreatedAt: now, EndsAt: now.Add(2 * time.Hour), Generation: 1}
				e = domain.SessionCreated{After: s}
			case rapid.Bool().Draw(rt, "revoke"):
				s.Over, revokedAt[id] = true, now
				e = domain.SessionRevoked{After: s}
			default:
				s.EndsAt = now.Add(2 * time.Hour)
				e = domain.SessionRefreshed{After: s}
			}
			living[id] = s
			stream := domain.SessionStream(id)
			if _, other := e.(domain.AccountCreated); other {
				stream = domain.AccountStream(domain.AccountID("a" + strconv.Itoa(i)))
			}
			deliver(at(stream, revisions[stream], 0, e))
			revisions[stream]++
		}
		now = now.Add(time.Second)
		deliver(at(domain.AccountStream("last"), 0, 0, domain.AccountCreated{Account: "last", Name: "n", Owner: "o"}))
		if err := d.WaitFor(t.Context(), position); err != nil {
			rt.Fatal(err)
		}
		count := 0
		for id, s := range living {
			got, known := d.Session(id)
			at, over := revokedAt[id]
			switch {
			case !s.Ended(now) && (!known || got != s):
				rt.Fatalf("%s is %+v (%t), want %+v", id, got, known, s)
			case over && now.Sub(at) <= time.Hour && !got.Over:
				rt.Fatalf("%s was revoked %v ago and is forgotten", id, now.Sub(at))
			case known && s.Ended(now.Add(-3*time.Hour)) && (!over || now.Sub(at) > 3*time.Hour):
				rt.Fatalf("%s is still there: %+v at %v", id, got, now)
			}
			if !s.Ended(now) {
				count++
			}
		}
		if of, in := d.SessionsOf("User-1", now), d.SessionsIn("acct1", now); len(of) != count || fmt.Sprint(of) != fmt.Sprint(in) {
			rt.Fatalf("%d and %d sessions, want %d", len(of), len(in), count)
		}
		close(f.deliveries)
		if err := <-done; err == nil {
			rt.Fatal("the feed broke unseen")
		}
	})
}
