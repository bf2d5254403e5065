package domain_test

import (
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"example.com/keytrail/domain"
)

func owner() domain.Initiator  { return domain.Initiator{IAMID: "User-1", Account: "acct1"} }
func system() domain.Initiator { return domain.Initiator{IAMID: domain.SystemIAMID} }

func createDemo() domain.CreateKey {
	return domain.CreateKey{
		ID: "ApiKey-1", Account: "acct1", IAMID: "User-1", Kind: domain.KindUser, Name: "demo-key",
		SecretHash: "hmac-sha256:aa", By: owner(), At: t0,
	}
}

// record gives e the place in a stream that a command at time now would.
func record(k domain.Key, e domain.Event, now time.Time) domain.Recorded {
	revision := uint64(len(k.History()))
	at := k.NextEffective(now)
	if o, ok := e.(domain.KeyObserved); ok {
		at = o.After.ModifiedAt
	}
	return domain.Recorded{
		Stream: "s", Revision: revision, Position: revision*10 + 1, Type: e.Type(), Event: e,
		ID:   domain.DeriveID("test", string(rune('a'+revision%26)), e.Type(), at.String()),
		Meta: domain.Metadata{Schema: 1, EffectiveAt: at, Initiator: owner()},
	}
}

// given folds the events that cmds cause, one after the other, a second apart.
func given(tb testing.TB, cmds ...domain.KeyCommand) domain.Key {
	tb.Helper()
	var k domain.Key
	for i, cmd := range cmds {
		events, err := k.Decide(cmd)
		if err != nil {
			tb.Fatalf("given %T: %v", cmd, err)
		}
		for _, e := range events {
			k = k.Evolve(record(k, e, t0.Add(time.Duration(i)*time.Second)))
		}
	}
	return k
}

func TestKeyRules(t *testing.T) {
	t.Parallel()
	now := t0.Add(time.Hour)
	lock, unlock := domain.LockKey{By: owner(), At: t0}, domain.UnlockKey{By: owner(), At: now}
	del := domain.DeleteKey{By: owner(), At: now}
	external := domain.ObserveKey{Fact: domain.ObservedCreated, SourceEvent: "e1", ID: "AKIA1", Account: "acct1", Name: "ci", Source: "aws", At: t0}
	rename := func(tag, name string) domain.UpdateKey {
		return domain.UpdateKey{IfMatch: tag, Name: &name, By: owner(), At: now}
	}
	created := createDemo()
	with := func(change func(*domain.CreateKey)) domain.CreateKey {
		c := createDemo()
		change(&c)
		return c
	}
	tests := []struct {
		name     string
		given    []domain.KeyCommand
		when     domain.KeyCommand
		want     []string // Types of the new events.
		wantCode domain.Code
		wantMsg  string // Message code.
	}{
		{name: "a key is created", when: created, want: []string{domain.TypeKeyCreated}},
		{name: "a key needs a name", when: with(func(c *domain.CreateKey) { c.Name = " " }), wantCode: domain.Invalid, wantMsg: "missing_name"},
		{name: "a name is bounded", when: with(func(c *domain.CreateKey) { c.Name = strings.Repeat("x", domain.KeyNameBytesMax+1) }), wantCode: domain.Invalid, wantMsg: "too_long"},
		{name: "a name is text", when: with(func(c *domain.CreateKey) { c.Name = "a\xff" }), wantCode: domain.Invalid, wantMsg: "invalid_text"},
		{name: "a description is bounded", when: with(func(c *domain.CreateKey) { c.Description = strings.Repeat("x", domain.KeyDescriptionBytesMax+1) }), wantCode: domain.Invalid, wantMsg: "too_long"},
		{name: "an expiry in the past is refused", when: with(func(c *domain.CreateKey) { c.ExpiresAt = "2020-01-01T00:00+0000" }), wantCode: domain.Invalid, wantMsg: "expires_at_in_past"},
		{name: "an expiry that is no date is refused", when: with(func(c *domain.CreateKey) { c.ExpiresAt = "soon" }), wantCode: domain.Invalid, wantMsg: "invalid_expires_at"},
		{name: "an unknown leak action is refused", when: with(func(c *domain.CreateKey) { c.ActionOnLeak = "shred" }), wantCode: domain.Invalid, wantMsg: "invalid_action_when_leaked"},
		{name: "only user keys have sessions", when: with(func(c *domain.CreateKey) { c.Kind, c.SupportSessions = domain.KindServiceID, true }), wantCode: domain.Invalid, wantMsg: "sessions_need_user_key"},
		{name: "a key is created once", given: []domain.KeyCommand{created}, when: created, wantCode: domain.Conflict, wantMsg: "key_exists"},

		{name: "an update needs a tag", given: []domain.KeyCommand{created}, when: rename("", "x"), wantCode: domain.Invalid, wantMsg: "missing_if_match"},
		{name: "a stale tag is refused", given: []domain.KeyCommand{created}, when: rename("7-0000", "x"), wantCode: domain.Conflict, wantMsg: "stale_entity_tag"},
		{name: "the tag of now is taken", given: []domain.KeyCommand{created}, when: rename(given(t, created).State().EntityTag(), "x"), want: []string{domain.TypeKeyUpdated}},
		{name: "a quoted tag is taken", given: []domain.KeyCommand{created}, when: rename(`"`+given(t, created).State().EntityTag()+`"`, "x"), want: []string{domain.TypeKeyUpdated}},
		{name: "a star takes any version", given: []domain.KeyCommand{created}, when: rename("*", "x"), want: []string{domain.TypeKeyUpdated}},
		{name: "an update that changes nothing is no event", given: []domain.KeyCommand{created}, when: rename("*", "demo-key")},
		{name: "a name cannot be cleared", given: []domain.KeyCommand{created}, when: rename("*", ""), wantCode: domain.Invalid, wantMsg: "missing_name"},
		{name: "a locked key refuses update", given: []domain.KeyCommand{created, lock}, when: rename("*", "x"), wantCode: domain.Conflict, wantMsg: domain.MessageCodeLocked},
		{name: "a deleted key refuses update", given: []domain.KeyCommand{created, del}, when: rename("*", "x"), wantCode: domain.NotFound, wantMsg: "key_not_found"},

		{name: "a locked key refuses its owner's delete", given: []domain.KeyCommand{created, lock}, when: del, wantCode: domain.Conflict, wantMsg: domain.MessageCodeLocked},
		{name: "a locked key does not stop the system's delete", given: []domain.KeyCommand{created, lock}, when: domain.DeleteKey{By: system(), At: now}, want: []string{domain.TypeKeyDeleted}},
		{name: "a locked key can be disabled", given: []domain.KeyCommand{created, lock}, when: domain.DisableKey{By: owner(), At: now}, want: []string{domain.TypeKeyDisabled}},
		{name: "locking twice changes nothing", given: []domain.KeyCommand{created, lock}, when: domain.LockKey{By: owner(), At: now}},
		{name: "an unlocked key can be deleted", given: []domain.KeyCommand{created, lock, unlock}, when: del, want: []string{domain.TypeKeyDeleted}},
		{name: "deleting twice changes nothing", given: []domain.KeyCommand{created, del}, when: del},
		{name: "a deleted key cannot be enabled", given: []domain.KeyCommand{created, del}, when: domain.EnableKey{By: owner(), At: now}, wantCode: domain.NotFound, wantMsg: "key_not_found"},
		{name: "what never was cannot be locked", when: lock, wantCode: domain.NotFound, wantMsg: "key_not_found"},
		{name: "what never was cannot be deleted", when: del, wantCode: domain.NotFound, wantMsg: "key_not_found"},
		{name: "enabling a working key changes nothing", given: []domain.KeyCommand{created}, when: domain.EnableKey{By: owner(), At: now}},

		{name: "an external key refuses delete", given: []domain.KeyCommand{external}, when: del, wantCode: domain.Conflict, wantMsg: domain.MessageCodeExternal},
		{name: "an external key refuses disable", given: []domain.KeyCommand{external}, when: domain.DisableKey{By: owner(), At: now}, wantCode: domain.Conflict, wantMsg: domain.MessageCodeExternal},
		{name: "an external key refuses update", given: []domain.KeyCommand{external}, when: rename("*", "x"), wantCode: domain.Conflict, wantMsg: domain.MessageCodeExternal},
		{name: "the same source record is observed once", given: []domain.KeyCommand{external}, when: external},
		{name: "a use of a known key is no fact about it", given: []domain.KeyCommand{external}, when: domain.ObserveKey{Fact: domain.ObservedUse, SourceEvent: "e2", ID: "AKIA1", Account: "acct1", At: now}},
		{name: "a use before all that is known is one", given: []domain.KeyCommand{external}, when: domain.ObserveKey{Fact: domain.ObservedUse, SourceEvent: "e2", ID: "AKIA1", Account: "acct1", At: t0.Add(-time.Hour)}, want: []string{domain.TypeKeyObserved}},
		{name: "an observed contradiction is recorded", given: []domain.KeyCommand{external}, when: domain.ObserveKey{Fact: domain.ObservedCreated, SourceEvent: "e3", ID: "AKIA1", Account: "acct1", At: now}, want: []string{domain.TypeKeyObserved}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			events, err := given(t, tt.given...).Decide(tt.when)
			if tt.wantCode != "" {
				e, ok := err.(*domain.Error) //nolint:errorlint // Decide returns it bare.
				if !ok || e.Code != tt.wantCode || e.MessageCode != tt.wantMsg {
					t.Fatalf("error = %v (%+v), want %s %s", err, e, tt.wantCode, tt.wantMsg)
				}
				if len(events) != 0 {
					t.Errorf("refused, but gave %v", events)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range events {
				got = append(got, e.Type())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUpdateRecordsOldAndNewAndEmptyClears(t *testing.T) {
	t.Parallel()
	c := createDemo()
	c.ExpiresAt, c.Description = "2027-01-31T23:59+0000", "old"
	k := given(t, c)
	events, err := k.Decide(domain.UpdateKey{
		IfMatch: "*", Name: new("new"), Description: new(""), ExpiresAt: new(""), ActionOnLeak: new(domain.LeakNone),
		SupportSessions: new(true), By: owner(), At: t0.Add(time.Minute),
	})
	if err != nil {
		t.Fatal(err)
	}
	e, ok := events[0].(domain.KeyUpdated)
	if !ok {
		t.Fatalf("got %T", events[0])
	}
	want := []domain.Change{
		{Field: "name", Old: "demo-key", New: "new"},
		{Field: "description", Old: "old", New: ""},
		{Field: "expires_at", Old: "2027-01-31T23:59+0000", New: ""},
		{Field: "action_when_leaked", Old: "disable", New: "none"},
		{Field: "support_sessions", Old: "false", New: "true"},
	}
	if diff := cmp.Diff(want, e.Changes); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if e.After.ExpiresAt != nil || e.After.Version != 2 || e.After.SecretHash != c.SecretHash {
		t.Errorf("state after = %+v", e.After)
	}
}

func TestAnExpiredKeyCanBeRenamedWithItsOldExpiry(t *testing.T) {
	t.Parallel()
	c := createDemo()
	c.ExpiresAt = "2026-03-01T13:00+0000"
	events, err := given(t, c).Decide(domain.UpdateKey{
		IfMatch: "*", Name: new("x"), ExpiresAt: new("2026-03-01T13:00+0000"), By: owner(), At: t0.AddDate(0, 1, 0),
	})
	if err != nil || len(events) != 1 {
		t.Errorf("sending back what was read: %v, %v", events, err)
	}
}

func TestEntityTagChangesWithEveryChange(t *testing.T) {
	t.Parallel()
	a := given(t, createDemo())
	b := given(t, createDemo(), domain.LockKey{By: owner(), At: t0})
	other := createDemo()
	other.ID = "ApiKey-2"
	tags := []string{a.State().EntityTag(), b.State().EntityTag(), given(t, other).State().EntityTag()}
	slices.Sort(tags)
	if len(slices.Compact(tags)) != 3 {
		t.Errorf("tags repeat: %v", tags)
	}
}

func TestEvolveLeavesTheReceiverAsItWas(t *testing.T) {
	t.Parallel()
	base := given(t, createDemo())
	locked := base.Evolve(record(base, domain.KeyLocked{After: domain.KeyState{ID: "ApiKey-1", Locked: true}}, t0))
	disabled := base.Evolve(record(base, domain.KeyDisabled{After: domain.KeyState{ID: "ApiKey-1", Disabled: true}}, t0))
	if base.State().Locked || !locked.State().Locked || locked.State().Disabled || !disabled.State().Disabled {
		t.Error("two futures of one key share their past")
	}
	if locked.History()[1].Type != domain.TypeKeyLocked || disabled.History()[1].Type != domain.TypeKeyDisabled {
		t.Error("two futures of one key share their history")
	}
}

func TestObservedStateFollowsTheSourcesTime(t *testing.T) {
	t.Parallel()
	at := t0.Add
	observe := func(f domain.ObservedFact, id string, d time.Duration) domain.ObserveKey {
		return domain.ObserveKey{Fact: f, SourceEvent: id, ID: "AKIA1", Account: "acct1", At: at(d)}
	}
	created := observe(domain.ObservedCreated, "c", 0)
	created.Name, created.Source = "ci", "aws"
	// The delete is told before the disable that happened earlier.
	k := given(t, created, observe(domain.ObservedDeleted, "d", 2*time.Hour), observe(domain.ObservedDisabled, "x", time.Hour))
	if s := k.State(); !s.Deleted || s.Name != "ci" || s.Source != "aws" {
		t.Errorf("now = %+v, want the deleted key with its name", s)
	}
	for _, tt := range []struct {
		name string
		at   time.Duration
		want domain.KeyStatus
	}{
		{"between creation and disable", 30 * time.Minute, domain.StatusActive},
		{"at the disable", time.Hour, domain.StatusDisabled},
		{"after the delete", 3 * time.Hour, domain.StatusDeleted},
	} {
		s, ok := domain.StateAt(k.History(), at(tt.at))
		if !ok || s.StatusAt(at(tt.at)) != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, s.StatusAt(at(tt.at)), tt.want)
		}
	}
	if s, ok := domain.StateAt(k.History(), at(-time.Second)); ok {
		t.Errorf("before the creation the state is %+v", s)
	}
}

// drawCommand draws any command about a key of ours.
func drawCommand(t *rapid.T, now time.Time) domain.KeyCommand {
	by := rapid.SampledFrom([]domain.Initiator{owner(), system()}).Draw(t, "by")
	switch rapid.IntRange(0, 6).Draw(t, "command") {
	case 0:
		return domain.UpdateKey{IfMatch: "*", Name: new(rapid.SampledFrom([]string{"a", "b", ""}).Draw(t, "name")), By: by, At: now}
	case 1:
		return domain.LockKey{By: by, At: now}
	case 2:
		return domain.UnlockKey{By: by, At: now}
	case 3:
		return domain.DisableKey{By: by, At: now}
	case 4:
		return domain.EnableKey{By: by, At: now}
	case 5:
		return domain.DeleteKey{By: by, At: now}
	}
	c := createDemo()
	c.At = now
	return c
}

// TestReplayGivesTheSameKey: whatever was commanded, at whatever clock, folding the
// history again gives the state that was seen live, after every step; effective times
// strictly increase; nothing follows a delete; the state at the time of each fact is
// the state that the fact left.
func TestReplayGivesTheSameKey(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		k := domain.FoldKey(nil)
		now := t0
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(-5000, 5000).Draw(t, "clock")) * time.Millisecond) // Clocks go back.
			events, err := k.Decide(drawCommand(t, now))
			if err != nil && len(events) > 0 {
				t.Fatal("refused, and yet events")
			}
			if k.State().Deleted && len(events) > 0 {
				t.Fatalf("a deleted key changed: %v", events)
			}
			for _, e := range events {
				rec := record(k, e, now)
				if s := e.(domain.KeyEvent).State(); !s.ModifiedAt.Equal(rec.Meta.EffectiveAt) {
					t.Fatalf("modified at %s, effective at %s", s.ModifiedAt, rec.Meta.EffectiveAt)
				}
				if n := len(k.History()); n > 0 && !rec.Meta.EffectiveAt.After(k.History()[n-1].Meta.EffectiveAt) {
					t.Fatal("effective time does not increase")
				}
				k = k.Evolve(rec)
			}
			again := domain.FoldKey(k.History())
			if diff := cmp.Diff(k.State(), again.State()); diff != "" {
				t.Fatalf("replay differs: %s", diff)
			}
			for _, rec := range k.History() {
				s, ok := domain.StateAt(k.History(), rec.Meta.EffectiveAt)
				if want := rec.Event.(domain.KeyEvent).State(); !ok || !cmp.Equal(s, want) {
					t.Fatalf("state at %s is %+v, want %+v", rec.Meta.EffectiveAt, s, want)
				}
			}
		}
	})
}

// TestStateAtDoesNotDependOnOrder: facts about external keys arrive in any order.
func TestStateAtDoesNotDependOnOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		facts := []domain.ObservedFact{domain.ObservedCreated, domain.ObservedDisabled, domain.ObservedEnabled, domain.ObservedDeleted}
		var history []domain.Recorded
		for i := range rapid.IntRange(1, 12).Draw(t, "facts") {
			at := t0.Add(time.Duration(rapid.IntRange(0, 5).Draw(t, "minute")) * time.Minute) // Ties are likely.
			s := domain.KeyState{ID: "AKIA1", Disabled: i%2 == 0, Version: uint64(i)}
			history = append(history, domain.Recorded{
				ID: domain.DeriveID("t", string(rune('a'+i))), Meta: domain.Metadata{EffectiveAt: at},
				Event: domain.KeyObserved{Fact: rapid.SampledFrom(facts).Draw(t, "fact"), After: s},
			})
		}
		shuffled := slices.Clone(history)
		rand.New(rand.NewSource(rapid.Int64().Draw(t, "seed"))).Shuffle(len(shuffled), func(i, j int) {
			shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
		})
		for minute := -1; minute <= 6; minute++ {
			at := t0.Add(time.Duration(minute) * time.Minute)
			a, okA := domain.StateAt(history, at)
			b, okB := domain.StateAt(shuffled, at)
			if okA != okB || !cmp.Equal(a, b) {
				t.Fatalf("at minute %d: %+v or %+v", minute, a, b)
			}
		}
		if !cmp.Equal(domain.FoldKey(history).State(), domain.FoldKey(shuffled).State()) {
			t.Fatal("the fold depends on the order")
		}
	})
}

// TestATipDecidesAsTheWholeKeyDoes: a key without its history evolves and decides as the
// one with it does, whatever happened.
func TestATipDecidesAsTheWholeKeyDoes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := t0
		var key domain.Key
		tip := key.Tip()
		for range rapid.IntRange(1, 15).Draw(t, "commands") {
			now = now.Add(time.Duration(rapid.IntRange(-2, 3).Draw(t, "later")) * time.Second)
			name, tag := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name"), "*"
			if rapid.Bool().Draw(t, "with tag") {
				tag = key.State().EntityTag()
			}
			created := createDemo()
			created.At = now
			cmd := rapid.SampledFrom([]domain.KeyCommand{
				created,
				domain.UpdateKey{IfMatch: tag, Name: &name, By: owner(), At: now},
				domain.LockKey{By: owner(), At: now},
				domain.UnlockKey{By: owner(), At: now},
				domain.DisableKey{By: owner(), At: now},
				domain.EnableKey{By: owner(), At: now},
				domain.DeleteKey{By: owner(), At: now},
			}).Draw(t, "command")
			want, wantErr := key.Decide(cmd)
			got, err := tip.Decide(cmd)
			if diff := cmp.Diff(want, got); diff != "" || (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
				t.Fatalf("%T: tip says %v, key says %v\n%s", cmd, err, wantErr, diff)
			}
			for _, e := range want {
				rec := record(key, e, now)
				key, tip = key.Evolve(rec), tip.Evolve(rec)
			}
			if key.Exists() != tip.Exists() || !cmp.Equal(key.State(), tip.State()) || !key.NextEffective(now).Equal(tip.NextEffective(now)) {
				t.Fatalf("after %T: tip %+v, key %+v", cmd, tip.State(), key.State())
			}
		}
		if len(tip.History()) != 0 {
			t.Fatalf("a tip has a history of %d", len(tip.History()))
		}
		if _, err := tip.Decide(domain.ObserveKey{ID: "AKIA1", At: now}); err == nil {
			t.Fatal("a tip decides about an observed fact, which needs the history")
		}
	})
}
