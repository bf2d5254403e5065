package domain_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"example.com/keytrail/domain"
)

// TestAnAccountIsAValue: what evolves from one leaves it as it was, however many branch off,
// and says of its members what was ordered.
func TestAnAccountIsAValue(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		type known struct {
			account domain.Account
			want    map[domain.IAMID]string
		}
		worlds := []known{{domain.Account{}.Evolve(domain.Recorded{Event: domain.AccountCreated{Account: "acct1", Owner: "User-1", OwnerName: "Ada"}}), map[domain.IAMID]string{"User-1": "Ada"}}}
		for i := range rapid.SampledFrom([]int{0, 59, 62, 63, 64, 300}).Draw(t, "others") {
			id := domain.IAMID(fmt.Sprint("User-other", i))
			worlds[0].account = worlds[0].account.Evolve(domain.Recorded{Event: domain.MemberAdded{Account: "acct1", IAMID: id, Name: string(id)}})
			worlds[0].want[id] = string(id)
		}
		for i := range rapid.IntRange(1, 60).Draw(t, "orders") {
			from := worlds[rapid.IntRange(0, len(worlds)-1).Draw(t, "from")]
			id := domain.IAMID(fmt.Sprint("User-", rapid.IntRange(2, 9).Draw(t, "user")))
			want := maps.Clone(from.want)
			var e domain.Event = domain.MemberAdded{Account: "acct1", IAMID: id, Name: fmt.Sprint("name ", i)}
			want[id] = fmt.Sprint("name ", i)
			if rapid.Bool().Draw(t, "remove") {
				e = domain.MemberRemoved{Account: "acct1", IAMID: id, Parent: "User-1"}
				delete(want, id)
			}
			worlds = append(worlds, known{from.account.Evolve(domain.Recorded{Event: e}), want})
		}
		for _, w := range worlds {
			for _, id := range w.account.Users() {
				if m, _ := w.account.Member(id); m.Name != w.want[id] {
					t.Fatalf("%s is called %q, want %q", id, m.Name, w.want[id])
				}
			}
			if got := w.account.Users(); len(got) != len(w.want) || !slices.IsSorted(got) {
				t.Fatalf("users %v, want %v", got, w.want)
			}
		}
	})
}

// BenchmarkFoldAccount folds an account of many users.
//
//	go test ./domain -run '^$' -bench FoldAccount | benchstat -col /users -
func BenchmarkFoldAccount(b *testing.B) {
	for _, users := range []int{100, 1_000, 10_000} {
		b.Run(fmt.Sprintf("users=%d", users), func(b *testing.B) {
			history := []domain.Recorded{{Event: domain.AccountCreated{Account: "acct1", Owner: "User-1"}}}
			for i := range users {
				history = append(history, domain.Recorded{Event: domain.MemberAdded{Account: "acct1", IAMID: domain.IAMID(fmt.Sprint("User-a", i)), Email: fmt.Sprint(i, "@example.com")}})
			}
			b.ReportAllocs()
			for b.Loop() {
				domain.FoldAccount(history)
			}
		})
	}
}
