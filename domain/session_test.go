package domain_test

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"example.com/keytrail/domain"
)

var sessionLimits = domain.SessionLimits{
	AccessToken: time.Hour, RefreshToken: 72 * time.Hour, Session: 24 * time.Hour, Idle: 2 * time.Hour, SessionsMax: 10,
}

func createSession() domain.CreateSession {
	return domain.CreateSession{
		ID: "s1", Key: domain.KeyState{ID: "k1", Account: "acct1", IAMID: "User-1", SupportSessions: true}, Limits: sessionLimits,
		Address: "192.0.2.1", Agent: "cli", At: t0,
	}
}

// sessionAfter gives commands one after the other and returns what was decided last.
func sessionAfter(t *testing.T, cmds ...domain.SessionCommand) (s domain.Session, events []domain.Event, err error) {
	t.Helper()
	for i, cmd := range cmds {
		if events, err = s.Decide(cmd); err != nil && i < len(cmds)-1 {
			t.Fatal(err)
		}
		for _, e := range events {
			s = s.Evolve(domain.Recorded{Event: e, Meta: domain.Metadata{EffectiveAt: t0.Add(time.Duration(i) * time.Second)}})
		}
	}
	return s, events, err
}

func TestSessionsDecide(t *testing.T) {
	t.Parallel()
	refresh := func(generation uint64, after time.Duration) domain.SessionCommand {
		return domain.RefreshSession{Generation: generation, Limits: sessionLimits, At: t0.Add(after)}
	}
	revoke := domain.RevokeSession{Reason: domain.SessionByCommand, At: t0.Add(time.Minute)}
	short := createSession()
	short.Limits.RefreshToken = 900 * time.Second
	plain := createSession()
	plain.Key.SupportSessions = false
	began := domain.SessionState{
		ID: "s1", Account: "acct1", IAMID: "User-1", KeyID: "k1", CreatedAt: t0, ExpiresAt: t0.Add(24 * time.Hour), EndsAt: t0.Add(2 * time.Hour),
		RefreshedAt: t0, Generation: 1, Address: "192.0.2.1", Agent: "cli",
	}
	with := func(change func(*domain.SessionState)) domain.SessionState {
		s := began
		change(&s)
		return s
	}
	tests := []struct {
		name string
		cmds []domain.SessionCommand
		want []domain.Event
		code string
	}{
		{name: "a sign-in begins one, which ends when nobody refreshes it", cmds: []domain.SessionCommand{createSession()}, want: []domain.Event{domain.SessionCreated{After: began}}},
		{name: "one whose refresh token ends before", cmds: []domain.SessionCommand{short}, want: []domain.Event{domain.SessionCreated{After: with(func(s *domain.SessionState) { s.EndsAt = t0.Add(900 * time.Second) })}}},
		{name: "a key without sessions", cmds: []domain.SessionCommand{plain}, code: "no_sessions"},
		{name: "twice", cmds: []domain.SessionCommand{createSession(), createSession()}, code: "session_exists"},
		{name: "refreshed", cmds: []domain.SessionCommand{createSession(), refresh(1, time.Hour)}, want: []domain.Event{domain.SessionRefreshed{After: with(func(s *domain.SessionState) {
			s.RefreshedAt, s.EndsAt, s.Generation = t0.Add(time.Hour), t0.Add(3*time.Hour), 2
		})}}},
		{name: "refreshed too late", cmds: []domain.SessionCommand{createSession(), refresh(1, 2*time.Hour)}, code: "session_ended"},
		{name: "a refresh token used twice", cmds: []domain.SessionCommand{createSession(), refresh(1, time.Minute), refresh(1, time.Minute)}, want: []domain.Event{domain.SessionRevoked{Reason: domain.SessionReused, After: with(func(s *domain.SessionState) {
			s.RefreshedAt, s.EndsAt, s.Generation, s.Over = t0.Add(time.Minute), t0.Add(2*time.Hour+time.Minute), 2, true
		})}}},
		{name: "a refresh token that was never made", cmds: []domain.SessionCommand{createSession(), refresh(2, time.Minute)}, code: "invalid_credential"},
		{name: "revoked", cmds: []domain.SessionCommand{createSession(), revoke}, want: []domain.Event{domain.SessionRevoked{Reason: domain.SessionByCommand, After: with(func(s *domain.SessionState) { s.Over = true })}}},
		{name: "revoked twice", cmds: []domain.SessionCommand{createSession(), revoke, revoke}},
		{name: "revoked after its time", cmds: []domain.SessionCommand{createSession(), domain.RevokeSession{At: t0.Add(2 * time.Hour)}}},
		{name: "refreshed after it was revoked", cmds: []domain.SessionCommand{createSession(), revoke, refresh(1, time.Minute)}, code: "session_revoked"},
		{name: "one that never was, refreshed", cmds: []domain.SessionCommand{refresh(1, 0)}, code: "session_not_found"},
		{name: "one that never was, revoked", cmds: []domain.SessionCommand{revoke}, code: "session_not_found"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, got, err := sessionAfter(t, tt.cmds...)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if code := messageCodeOf(err); code != tt.code {
				t.Errorf("%v, want %q", err, tt.code)
			}
		})
	}
}

// TestASessionNeverLastsLongerThanItsLimits, nor comes back, whatever is done with it; one
// refresh token at a time is good, and an older one ends it.
func TestASessionNeverLastsLongerThanItsLimits(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		minutes := rapid.IntRange(1, 3000)
		limits := domain.SessionLimits{
			Session: time.Duration(minutes.Draw(t, "session")) * time.Minute, Idle: time.Duration(minutes.Draw(t, "idle")) * time.Minute,
			RefreshToken: time.Duration(minutes.Draw(t, "refresh token")) * time.Minute,
		}
		var s domain.Session
		now := t0
		take := func(cmd domain.SessionCommand) {
			before := s.State()
			events, err := s.Decide(cmd)
			if len(events) > 0 && (err != nil || before.ID != "" && before.Ended(now)) {
				t.Fatalf("%v and %v of %+v", events, err, before)
			}
			for _, e := range events {
				s = s.Evolve(domain.Recorded{Event: e, Meta: domain.Metadata{EffectiveAt: s.NextEffective(now)}})
			}
			after := s.State()
			if r, ok := cmd.(domain.RefreshSession); ok && !before.Ended(now) {
				switch refreshed := after.Generation == before.Generation+1; {
				case refreshed != (r.Generation == before.Generation):
					t.Fatalf("generation %d of %+v gave %+v", r.Generation, before, after)
				case after.Over != (r.Generation < before.Generation):
					t.Fatalf("generation %d of %+v gave %+v", r.Generation, before, after)
				}
			}
			if before.Over && after != before {
				t.Fatalf("%+v came back as %+v", before, after)
			}
			if after.EndsAt.After(t0.Add(limits.Session)) || after.EndsAt.After(after.RefreshedAt.Add(min(limits.Idle, limits.RefreshToken))) {
				t.Fatalf("%+v outlasts %+v", after, limits)
			}
		}
		create := createSession()
		create.Limits = limits
		take(create)
		for i := range rapid.IntRange(1, 20).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 200).Draw(t, "minutes"+strconv.Itoa(i))) * time.Minute)
			if rapid.IntRange(0, 9).Draw(t, "what") == 0 {
				take(domain.RevokeSession{At: now})
				continue
			}
			generation := int64(s.State().Generation) + rapid.SampledFrom([]int64{0, 0, 0, 0, -1, 1}).Draw(t, "generation")
			take(domain.RefreshSession{Generation: uint64(max(generation, 0)), Limits: limits, At: now})
		}
	})
}

// TestWhatBecomesOfASessionIsARecord: who, which key, and that to revoke is critical.
func TestWhatBecomesOfASessionIsARecord(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		event    domain.Event
		action   string
		severity domain.Severity
	}{
		{domain.SessionCreated{After: sampleSession()}, "iam-identity.user-session.create", domain.SeverityNormal},
		{domain.SessionRefreshed{After: sampleSession()}, "iam-identity.user-refreshtoken.login", domain.SeverityNormal},
		{domain.SessionRevoked{Reason: domain.SessionReused, After: sampleSession()}, "iam-identity.user-session.revoke", domain.SeverityCritical},
	} {
		a, ok := domain.ActivityOf(recorded(tt.event))
		if !ok || a.Action != tt.action || a.Severity != tt.severity || a.KeyID != "ApiKey-1" || a.Account != "acct1" || a.TargetName != "s1" || a.Outcome != domain.OutcomeSuccess {
			t.Errorf("%+v", a)
		}
	}
}

func messageCodeOf(err error) string {
	if e, ok := errors.AsType[*domain.Error](err); ok {
		return e.MessageCode
	}
	return ""
}
