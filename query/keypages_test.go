package query_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
)

// TestTenThousandKeysPageWithoutGapOrRepeat, while some are deleted and others made.
func TestTenThousandKeysPageWithoutGapOrRepeat(t *testing.T) {
	f := newFixture(t)
	const count = 10_000
	keys := make([]domain.KeyState, count)
	for i := range keys {
		keys[i] = domain.KeyState{
			ID: domain.KeyID(fmt.Sprintf("ApiKey-%05d", i*7919%count)), Account: accountA, Kind: domain.KindUser, Name: fmt.Sprintf("name %02d", i%37),
			IAMID: "IBMid-1", CreatedAt: now.Add(-time.Duration(i%50) * time.Minute), CreatedBy: "IBMid-1", ModifiedAt: now,
		}
	}
	f.addKeys(1, keys...)
	f.progress.set(1, 77)
	gone := map[domain.KeyID]bool{}
	for round, sort := range []string{"", "created_at", "name"} {
		seen := map[domain.KeyID]bool{}
		q := domain.KeysQuery{Accounts: []domain.AccountID{accountA}, PageSize: 100, Scope: "account", Sort: sort, Order: "asc"}
		for pages := 0; ; pages++ {
			page, err := f.handler.Keys().ListKeys(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range page.Keys {
				if seen[k.ID] {
					t.Fatalf("sort %q: %s comes twice", sort, k.ID)
				}
				seen[k.ID] = true
			}
			if pages%20 == 10 { // One of those that came already goes, and one is made in front of all.
				first, added := page.Keys[0], page.Keys[0]
				first.Deleted = true
				added.ID, added.Name, added.CreatedAt = domain.KeyID(fmt.Sprintf("ApiKey-!%d-%d", round, pages)), "!", now.Add(-time.Hour)
				f.addKeys(2, first, added)
				gone[first.ID] = true
			}
			if page.Next == "" {
				break
			}
			q.PageToken = page.Next
		}
		for _, k := range keys {
			if !seen[k.ID] && !gone[k.ID] {
				t.Fatalf("sort %q: %s is missing", sort, k.ID)
			}
		}
	}
}

// TestOfClassicKeysOnlyThoseThatMayBeSeenAreListed, whatever else is asked.
func TestOfClassicKeysOnlyThoseThatMayBeSeenAreListed(t *testing.T) {
	f := newFixture(t)
	var keys []domain.KeyState
	for _, kind := range []domain.KeyKind{domain.KindUser, domain.KindServiceID, domain.KindServiceCredential, domain.KindClassic} {
		for _, iam := range []domain.IAMID{"User-1", "User-2"} {
			keys = append(keys, domain.KeyState{
				ID: domain.KeyID(fmt.Sprint(kind, " ", iam)), Account: accountA, Kind: kind, IAMID: iam, Name: "k", CreatedAt: now, ModifiedAt: now,
			})
		}
	}
	f.addKeys(1, keys...)
	f.progress.set(1, 77)
	for _, tt := range []struct {
		name string
		q    domain.KeysQuery
		want string
	}{
		{"nobody's", domain.KeysQuery{Kinds: []domain.KeyKind{domain.KindClassic}}, ""},
		{"his own", domain.KeysQuery{Kinds: []domain.KeyKind{domain.KindClassic}, ClassicOf: []domain.IAMID{"User-2"}}, "classic User-2"},
		{"with all kinds", domain.KeysQuery{IAMID: "User-1", ClassicOf: []domain.IAMID{"User-1"}}, "classic User-1,service-credential User-1,serviceid User-1,user User-1"},
		{"another's, with all kinds", domain.KeysQuery{IAMID: "User-1", ClassicOf: []domain.IAMID{"User-2"}}, "service-credential User-1,serviceid User-1,user User-1"},
		{"of service IDs, credentials too", domain.KeysQuery{Kinds: []domain.KeyKind{domain.KindServiceID, domain.KindServiceCredential}, IAMID: "User-2"}, "service-credential User-2,serviceid User-2"},
		{"of some identities", domain.KeysQuery{Kinds: []domain.KeyKind{domain.KindUser}, Identities: []domain.IAMID{"User-2"}}, "user User-2"},
		{"of no identities", domain.KeysQuery{Identities: []domain.IAMID{}}, ""},
	} {
		tt.q.Accounts, tt.q.PageSize, tt.q.Scope, tt.q.Order = []domain.AccountID{accountA}, 100, "account", "asc"
		page, err := f.handler.Keys().ListKeys(t.Context(), tt.q)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		var got []string
		for _, k := range page.Keys {
			got = append(got, string(k.ID))
		}
		slices.Sort(got)
		if diff := cmp.Diff(tt.want, strings.Join(got, ",")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}
