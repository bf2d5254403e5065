package query_test

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
)

// addKeyStates inserts states of keys, each true from at and recorded at position.
func (f *fixture) addKeyStates(at time.Time, position uint64, states ...domain.KeyState) {
	f.t.Helper()
	columns := []string{
		"account_id", "key_id", "effective_at", "event_id", "position", "block", "recorded_at", "event_type", "kind", "iam_id", "name",
		"locked", "disabled", "deleted", "expires_at", "state",
	}
	f.insert("key_states", columns, len(states), func(i int) []any {
		s := states[i]
		text, err := json.Marshal(s)
		if err != nil {
			f.t.Fatal(err)
		}
		id := domain.DeriveID("test", string(s.ID), at.String()).String()
		return []any{
			string(s.Account), string(s.ID), at, id, position, uint64(1), now, domain.TypeKeyUpdated, string(s.Kind), string(s.IAMID), s.Name,
			s.Locked, s.Disabled, s.Deleted, s.ExpiresAt, string(text),
		}
	})
}

// TestAnAccountsActivityIsThatOfItsPosition: what was recorded later, happened later, failed,
// or belongs to others is not seen.
func TestAnAccountsActivityIsThatOfItsPosition(t *testing.T) {
	f := newFixture(t)
	at := func(hours int) time.Time { return now.Add(time.Duration(hours) * time.Hour).Truncate(time.Millisecond) }
	key := func(id, name string, deleted bool) domain.KeyState {
		return domain.KeyState{ID: domain.KeyID(id), Account: accountA, Kind: domain.KindUser, Name: name, IAMID: "User-1", Deleted: deleted}
	}
	f.addKeyStates(at(-9), 1, key("k1", "old name", false), key("k2", "gone", false), key("k3", "stays", false))
	f.addKeyStates(at(-8), 2, key("k1", "name", false), key("k2", "gone", true))
	f.addKeyStates(at(-7), 90, key("k1", "later name", false), key("k3", "stays", true), key("k4", "later", false))
	f.addKeyStates(at(1), 3, key("k1", "name of the future", false), key("k5", "of the future", false))
	foreign := key("k9", "foreign", false)
	foreign.Account = accountB
	f.addKeyStates(at(-9), 1, foreign)

	use := func(id string, hours int, position uint64, change func(*domain.Use)) use {
		u := keyUse(accountA, domain.KeyID(id), at(hours), position, 0)
		u.Action = "iam-identity.user-apikey.login"
		if change != nil {
			change(&u.Use)
		}
		return u
	}
	f.addUses(
		use("k1", -6, 3, nil), use("k1", -5, 4, nil), use("k1", -1, 91, nil), use("k1", 1, 5, nil),
		use("k1", -2, 6, func(u *domain.Use) { u.Outcome = domain.OutcomeFailure }),
		use("k1", -3, 7, func(u *domain.Use) { u.Action = "s3.object.get" }),
		use("k3", -4, 8, func(u *domain.Use) {
			u.Action, u.Labels, u.IAMID = "call", map[string]string{domain.LabelVerified: "VALID"}, "User-2"
		}),
		use("k1", -1, 9, func(u *domain.Use) { u.Account = accountB }),
	)
	service := func(id, name, kind string, hours int, position uint64) event {
		e := keyEvent(accountA, "", at(hours), position)
		e.stream, e.eventType = domain.ServiceIDStream(id), kind
		e.TargetID, e.TargetName = domain.ServiceIDCRN(accountA, id), name
		return e
	}
	f.addEvents(
		service("ServiceId-1", "old", domain.TypeServiceIDCreated, -9, 10), service("ServiceId-1", "new", "serviceid.updated.v1", -8, 11),
		service("ServiceId-2", "gone", domain.TypeServiceIDCreated, -9, 12), service("ServiceId-2", "gone", domain.TypeServiceIDDeleted, -8, 13),
		service("ServiceId-1", "new", domain.TypeServiceIDDeleted, -7, 92), service("ServiceId-3", "later", domain.TypeServiceIDCreated, -7, 93),
	)
	got, err := f.handler.AccountActivity(t.Context(), accountA, 50, now)
	if err != nil {
		t.Fatal(err)
	}
	names := map[domain.KeyID]string{}
	for _, k := range got.Keys {
		names[k.ID] = k.Name
	}
	check := func(what string, want, got any) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	check("keys", map[domain.KeyID]string{"k1": "name", "k3": "stays"}, names)
	check("sign-ins of keys", map[domain.KeyID]time.Time{"k1": at(-5), "k3": at(-4)}, got.KeyLast)
	check("uses of keys", map[domain.KeyID]time.Time{"k1": at(-3), "k3": at(-4)}, got.KeyLastUse)
	check("sign-ins of identities", []domain.IAMID{"IBMid-1", "User-2"}, slices.Sorted(maps.Keys(got.IdentityLast)))
	check("service IDs", []domain.InactiveServiceID{{ID: "ServiceId-1", Name: "new"}}, got.ServiceIDs)
}
