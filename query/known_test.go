package query_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
	"example.com/keytrail/query"
)

func TestKnownUsesAreThoseOfTheAccountAndTheTime(t *testing.T) {
	f := newFixture(t)
	late := keyUse(accountA, "ApiKey-1", now.Add(time.Hour), 3, 0)
	f.addUses(keyUse(accountA, "ApiKey-1", now, 1, 0), keyUse(accountB, "ApiKey-1", now, 2, 0), late)
	f.progress.set(1, 42)
	known, upTo, err := query.KnownUses{Tables: tables(f.store, f.progress)}.Known(
		t.Context(), accountA, []string{"use-1-0", "use-2-0", "use-3-0", "use-9-9"}, now, now)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"use-1-0"}, slices.Collect(maps.Keys(known))); diff != "" || upTo != 42 {
		t.Errorf("known up to %d (-want +got):\n%s", upTo, diff)
	}
}

// TestKeyActivityCountsSuccessfulSignIns, and verifications, whatever they were for.
func TestKeyActivityCountsSuccessfulSignIns(t *testing.T) {
	f := newFixture(t)
	verified := keyUse(accountA, "ApiKey-1", now.Add(-time.Minute), 5, 0)
	verified.Labels = map[string]string{domain.LabelVerified: "User-1"}
	first, last, failed, read := keyUse(accountA, "ApiKey-1", now.Add(-time.Hour), 1, 0), keyUse(accountA, "ApiKey-1", now, 2, 0),
		keyUse(accountA, "ApiKey-1", now.Add(time.Hour), 3, 0), keyUse(accountA, "ApiKey-1", now.Add(2*time.Hour), 4, 0)
	first.Action, last.Action, failed.Action = "iam-identity.user-apikey.login", "iam-identity.user-apikey.login", "iam-identity.user-apikey.login"
	failed.Outcome = domain.OutcomeFailure
	other := last
	other.Account = accountB
	f.addUses(first, last, failed, read, verified, other)
	count, at, err := f.handler.KeyActivity(t.Context(), accountA, "ApiKey-1")
	if err != nil || count != 3 || !at.Equal(now) {
		t.Errorf("%d sign-ins, the last at %v (%v), want 3 at %v", count, at, err, now)
	}
	if count, at, err := f.handler.KeyActivity(t.Context(), accountA, "ApiKey-2"); err != nil || count != 0 || !at.IsZero() {
		t.Errorf("an unused key: %d at %v (%v)", count, at, err)
	}
}

// TestUsedActionsAreCountedByKey: successful uses in the time asked for, of the keys asked
// for, in the account; sign-ins are none.
func TestUsedActionsAreCountedByKey(t *testing.T) {
	f := newFixture(t)
	position := uint64(0)
	done := func(account domain.AccountID, key domain.KeyID, action string, at time.Time, change ...func(*domain.Use)) use {
		position++
		u := keyUse(account, key, at, position, 0)
		u.Action = action
		for _, c := range change {
			c(&u.Use)
		}
		return u
	}
	f.addUses(
		done(accountA, "ApiKey-1", "s3.Get", now.Add(-time.Hour)), done(accountA, "ApiKey-1", "s3.Get", now.Add(-time.Minute)),
		done(accountA, "ApiKey-1", "s3.List", now.Add(-24*time.Hour)),
		done(accountA, "ApiKey-1", "s3.Old", now.Add(-25*time.Hour)), done(accountA, "ApiKey-1", "s3.Future", now),
		done(accountA, "ApiKey-1", "iam-identity.user-apikey.login", now.Add(-time.Hour)),
		done(accountA, "ApiKey-1", "s3.Refused", now.Add(-time.Hour), func(u *domain.Use) { u.Outcome = domain.OutcomeFailure }),
		done(accountA, "ApiKey-2", "s3.Put", now.Add(-time.Hour)), done(accountA, "ApiKey-3", "s3.Put", now.Add(-time.Hour)),
		done(accountB, "ApiKey-1", "s3.Theirs", now.Add(-time.Hour)),
	)
	got, err := f.handler.UsedActions(t.Context(), accountA, []domain.KeyID{"ApiKey-1", "ApiKey-2"}, now.Add(-24*time.Hour), now)
	if err != nil {
		t.Fatal(err)
	}
	want := []query.UsedAction{
		{KeyID: "ApiKey-1", Action: "s3.Get", Count: 2, Last: now.Add(-time.Minute)},
		{KeyID: "ApiKey-1", Action: "s3.List", Count: 1, Last: now.Add(-24 * time.Hour)},
		{KeyID: "ApiKey-2", Action: "s3.Put", Count: 1, Last: now.Add(-time.Hour)},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got, err := f.handler.UsedActions(t.Context(), accountA, nil, now.Add(-time.Hour), now); err != nil || got != nil {
		t.Errorf("of no key: %v %v", got, err)
	}
}
