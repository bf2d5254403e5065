package query_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
	"example.com/keytrail/query"
)

// addFindings inserts finding states; version 0 is the opening.
func (f *fixture) addFindings(position uint64, version uint64, findings ...domain.Finding) {
	f.t.Helper()
	columns := []string{
		"account_id", "id", "version", "position", "block", "recorded_at", "rule_id", "rule_version", "severity", "technique", "key_id", "iam_id",
		"title", "reason", "advice", "first_seen", "last_seen", "count", "status", "finding",
	}
	f.insert("findings", columns, len(findings), func(i int) []any {
		d := findings[i]
		text, err := json.Marshal(d)
		if err != nil {
			f.t.Fatal(err)
		}
		return []any{
			string(d.Account), d.ID.String(), version, position, uint64(1), now, d.Rule, uint32(d.RuleVersion), string(d.Level), d.Technique, string(d.KeyID),
			string(d.IAMID), d.Title, d.Reason, d.Advice, d.FirstSeen, d.LastSeen, d.Count, string(d.Status), string(text),
		}
	})
}

func newFinding(n int, account domain.AccountID) domain.Finding {
	at := now.Add(-time.Duration(n/2) * time.Hour) // Two at a time.
	return domain.Finding{
		ID: domain.FindingID("rule", 1, fmt.Sprint(n), domain.Evidence{}), Rule: fmt.Sprint("rule-", n%2), RuleVersion: 1, Level: domain.LevelHigh,
		Account: account, KeyID: "ApiKey-1", Title: "t", Reason: "r", FirstSeen: at, LastSeen: at, Count: 1, Status: domain.FindingOpen,
		Evidence: []domain.Evidence{{EventID: "e", Position: 7, Time: at}},
	}
}

type findingsPage struct {
	Findings []domain.Finding
	Next     string
}

func TestFindingsAreListedOnceInTheirNewestState(t *testing.T) {
	f := newFixture(t)
	want := make([]string, 0, 9)
	for n := range 9 {
		f.addFindings(uint64(n+1), 0, newFinding(n, accountA))
	}
	extended := newFinding(3, accountA)
	extended.Count = 5
	f.addFindings(50, 1, extended)
	f.addFindings(60, 0, newFinding(20, accountX))
	f.progress.set(1, 60)
	params := url.Values{"limit": {"2"}}
	var got []domain.Finding
	for {
		var page findingsPage
		f.get("/v1/findings", params, &page)
		got = append(got, page.Findings...)
		if page.Next == "" {
			break
		}
		// What is opened after the first page is not on a later one.
		f.addFindings(100+uint64(len(got)), 0, newFinding(30+len(got), accountA))
		params.Set("cursor", page.Next)
	}
	ids := make([]string, 0, len(got))
	for _, g := range got {
		ids = append(ids, g.ID.String())
		if g.ID == extended.ID && g.Count != 5 {
			t.Errorf("the extended finding counts %d, want its newest state", g.Count)
		}
	}
	for n := range 9 {
		want = append(want, newFinding(n, accountA).ID.String())
	}
	slices.Sort(want)
	sorted := slices.Sorted(slices.Values(ids))
	if diff := cmp.Diff(want, sorted); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	if !slices.IsSortedFunc(got, func(a, b domain.Finding) int { return b.FirstSeen.Compare(a.FirstSeen) }) {
		t.Error("the findings are not in order of their first evidence")
	}
	var page findingsPage
	f.get("/v1/findings", url.Values{"rule_id": {"rule-1"}, "severity": {"high"}, "status": {"open"}, "key_id": {"ApiKey-1"}, "account_id": {"acct-a"}}, &page)
	if len(page.Findings) == 0 || slices.ContainsFunc(page.Findings, func(d domain.Finding) bool { return d.Rule != "rule-1" }) {
		t.Errorf("findings of one rule: %+v", page.Findings)
	}
	var one domain.Finding
	f.get("/v1/findings/"+extended.ID.String(), nil, &one)
	if one.ID != extended.ID || len(one.Evidence) != 1 || one.Evidence[0].Position != 7 {
		t.Errorf("one finding: %+v", one)
	}
	if rec := f.get("/v1/findings/"+newFinding(20, accountX).ID.String(), nil, nil); rec.Code != http.StatusNotFound {
		t.Errorf("another account's finding: %d, want 404", rec.Code)
	}
}

func TestATimelineShowsCommandsUsesAndFindingsOfOneKey(t *testing.T) {
	f := newFixture(t)
	d := newFinding(0, accountA)
	d.Count = 9
	f.addFindings(4, 0, d)
	command, other := keyEvent(accountA, "ApiKey-1", now.Add(-3*time.Hour), 1), keyEvent(accountA, "ApiKey-2", now, 2)
	news := keyEvent(accountA, "ApiKey-1", now.Add(-time.Hour), 4)
	news.stream, news.eventType, news.Action = domain.FindingStream(d.ID), domain.TypeFindingOpened, domain.ActionFindingOpen
	f.addEvents(command, other, news)
	f.addUses(keyUse(accountA, "ApiKey-1", now.Add(-2*time.Hour), 3, 1), keyUse(accountA, "ApiKey-2", now, 5, 0))
	f.progress.set(1, 10)
	var got []string
	params := url.Values{"limit": {"1"}, "sort": {"asc"}}
	for {
		var page query.TimelineAnswer
		f.get("/v1/apikeys/ApiKey-1/timeline", params, &page)
		for _, e := range page.Entries {
			line := fmt.Sprint(e.Kind, " ", e.Position, " ", e.Index)
			if e.Finding != nil {
				line += fmt.Sprint(" ", e.Finding.Count)
			}
			got = append(got, line)
		}
		if page.Next == "" {
			break
		}
		params.Set("cursor", page.Next)
	}
	if diff := cmp.Diff([]string{"command 1 0", "use 3 1", "finding 4 0 9"}, got); diff != "" {
		t.Errorf("timeline (-want +got):\n%s", diff)
	}
	var empty query.TimelineAnswer
	f.get("/v1/apikeys/ApiKey-1/timeline", url.Values{"from": {"-1s"}}, &empty)
	if empty.Entries == nil || len(empty.Entries) != 0 {
		t.Errorf("a known key without records in the range: %+v, want an empty list", empty)
	}
	if rec := f.get("/v1/apikeys/ApiKey-3/timeline", nil, nil); rec.Code != http.StatusNotFound {
		t.Errorf("an unknown key: %d, want 404", rec.Code)
	}
}

func TestARecordIsFoundByItsId(t *testing.T) {
	f := newFixture(t)
	nameless := keyUse(accountA, "ApiKey-1", now, 7, 3)
	nameless.ID = ""
	twice := keyUse(accountB, "ApiKey-1", now, 8, 0)
	twice.ID = "use-9-0"
	f.addEvents(keyEvent(accountA, "ApiKey-1", now, 1))
	f.addUses(nameless, twice, keyUse(accountA, "ApiKey-1", now, 9, 0), keyUse(accountA, "ApiKey-1", now, 500, 0))
	f.progress.set(1, 10)
	tests := []struct {
		name, path string
		status     int
	}{
		{name: "an event", path: "/v1/events/" + keyEvent(accountA, "", now, 1).ID, status: http.StatusOK},
		{name: "a use whose source gave no id", path: "/v1/events/7-3", status: http.StatusOK},
		{name: "an id in two accounts", path: "/v1/events/use-9-0", status: http.StatusConflict},
		{name: "an id in two accounts, one named", path: "/v1/events/use-9-0?account_id=acct-b", status: http.StatusOK},
		{name: "beyond the position", path: "/v1/events/use-500-0", status: http.StatusNotFound},
		{name: "nothing", path: "/v1/events/7-4", status: http.StatusNotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path, params, _ := strings.Cut(tt.path, "?")
			values, err := url.ParseQuery(params)
			if err != nil {
				t.Fatal(err)
			}
			if rec := f.get(path, values, nil); rec.Code != tt.status {
				t.Errorf("%d %s, want %d", rec.Code, rec.Body, tt.status)
			}
		})
	}
}

// addKeys inserts key states; each version replaces the one before.
func (f *fixture) addKeys(version uint64, keys ...domain.KeyState) {
	f.t.Helper()
	columns := []string{
		"account_id", "id", "version", "position", "block", "recorded_at", "effective_at", "kind", "iam_id", "name", "description", "locked", "disabled",
		"deleted", "created_at", "created_by", "modified_at", "state",
	}
	f.insert("api_keys", columns, len(keys), func(i int) []any {
		k := keys[i]
		text, err := json.Marshal(k)
		if err != nil {
			f.t.Fatal(err)
		}
		return []any{
			string(k.Account), string(k.ID), version, version, uint64(1), now, now, string(k.Kind), string(k.IAMID), k.Name, k.Description, k.Locked, k.Disabled,
			k.Deleted, k.CreatedAt, string(k.CreatedBy), k.ModifiedAt, string(text),
		}
	})
}

func TestKeysAreListedInPagesForwardsAndBackwards(t *testing.T) {
	f := newFixture(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 5))
	var model []domain.KeyState
	for i := range 23 {
		k := domain.KeyState{
			ID: domain.KeyID(fmt.Sprintf("ApiKey-%02d", i)), Account: pick(r, accountA, accountB), Kind: pick(r, domain.KindUser, domain.KindServiceID),
			Name: pick(r, "Go key", "go", "other"), Description: pick(r, "", "d"), IAMID: pick[domain.IAMID](r, "IBMid-1", "IBMid-2"),
			CreatedAt: now.Add(-time.Duration(r.IntN(3)) * time.Hour), CreatedBy: pick[domain.IAMID](r, "IBMid-1", ""), ModifiedAt: now,
		}
		f.addKeys(1, k)
		if i%5 == 0 {
			k.Deleted = true
			f.addKeys(2, k)
			continue
		}
		model = append(model, k)
	}
	f.addKeys(1, domain.KeyState{ID: "ApiKey-theirs", Account: accountX, Name: "go", CreatedAt: now, ModifiedAt: now})
	f.progress.set(1, 77)
	for _, sort := range []string{"", "name", "description", "created_at", "created_by"} {
		for _, order := range []string{"asc", "desc"} {
			q := domain.KeysQuery{Accounts: []domain.AccountID{accountA, accountB}, PageSize: 4, Scope: "account", Sort: sort, Order: order}
			want := slices.Clone(model)
			slices.SortFunc(want, func(a, b domain.KeyState) int {
				c := 0
				switch sort {
				case "name":
					c = strings.Compare(a.Name, b.Name)
				case "description":
					c = strings.Compare(a.Description, b.Description)
				case "created_at":
					c = a.CreatedAt.Compare(b.CreatedAt)
				case "created_by":
					c = strings.Compare(string(a.CreatedBy), string(b.CreatedBy))
				}
				if c == 0 {
					c = strings.Compare(string(a.Account)+" "+string(a.ID), string(b.Account)+" "+string(b.ID))
				}
				if order == "desc" {
					c = -c
				}
				return c
			})
			checkKeyPages(t, f, q, want)
		}
	}
}

// checkKeyPages walks to the end and back.
func checkKeyPages(t *testing.T, f *fixture, q domain.KeysQuery, want []domain.KeyState) {
	t.Helper()
	name := fmt.Sprintf("sort %q %s", q.Sort, q.Order)
	var walked [][]domain.KeyState
	for offset := 0; ; {
		page, err := f.handler.Keys().ListKeys(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if page.Offset != offset || page.Position != 77 || (page.Previous == "") != (offset == 0) {
			t.Errorf("%s: page at %d says offset %d, position %d, previous %q", name, offset, page.Offset, page.Position, page.Previous)
		}
		walked = append(walked, page.Keys)
		offset += len(page.Keys)
		if page.Next == "" {
			q.PageToken = page.Previous
			break
		}
		q.PageToken = page.Next
	}
	if diff := cmp.Diff(want, slices.Concat(walked...)); diff != "" {
		t.Fatalf("%s: keys (-want +got):\n%s", name, diff)
	}
	for i := len(walked) - 2; i >= 0; i-- {
		page, err := f.handler.Keys().ListKeys(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(walked[i], page.Keys); diff != "" || page.Offset != 4*i || page.Next == "" {
			t.Errorf("%s: page %d on the way back, offset %d, next %q (-want +got):\n%s", name, i, page.Offset, page.Next, diff)
		}
		q.PageToken = page.Previous
	}
	if q.PageToken != "" {
		t.Errorf("%s: the first page has one before it", name)
	}
}

func TestKeysAreFilteredAsSCIMSays(t *testing.T) {
	f := newFixture(t)
	for i, name := range []string{"Go one", "going", "100%", `say "hi"`, "ÜBER"} {
		f.addKeys(1, domain.KeyState{ID: domain.KeyID("K" + strconv.Itoa(i)), Account: accountA, Name: name, Description: "d" + strconv.Itoa(i), CreatedAt: now, ModifiedAt: now})
	}
	list := func(text string) ([]string, error) {
		page, err := f.handler.Keys().ListKeys(t.Context(), domain.KeysQuery{Accounts: []domain.AccountID{accountA}, PageSize: 10, Order: "asc", Filter: text})
		ids := make([]string, 0, len(page.Keys))
		for _, k := range page.Keys {
			ids = append(ids, string(k.ID))
		}
		return ids, err
	}
	tests := []struct {
		filter string
		want   []string
	}{
		{filter: "", want: []string{"K0", "K1", "K2", "K3", "K4"}},
		{filter: `name co "Go"`, want: []string{"K0", "K1"}},
		{filter: `name eq "go ONE"`, want: []string{"K0"}},
		{filter: `name ne "going"`, want: []string{"K0", "K2", "K3", "K4"}},
		{filter: `name sw "go" and not (name ew "ing")`, want: []string{"K0"}},
		{filter: `Name SW "über" OR name co "%"`, want: []string{"K2", "K4"}},
		{filter: `name co "\"hi"`, want: []string{"K3"}},
		{filter: `description eq "d1" or description eq "d2" and name co "x"`, want: []string{"K1"}},
		{filter: `(description eq "d1" or description eq "d2") and name co "o"`, want: []string{"K1"}},
	}
	for _, tt := range tests {
		t.Run(tt.filter, func(t *testing.T) {
			got, err := list(tt.filter)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
		})
	}
	for _, wrong := range []string{
		"name", "name co", "name co Go", `name xx "a"`, `secret eq "a"`, `name co "a`, `name co "a" and`, `(name co "a"`, `name co "a") `, `not name co "a"`,
		`name co "\u0000"`, strings.Repeat("(", 20), strings.Repeat(`name co "a" or `, 40) + `name co "a"`, strings.Repeat(" ", 3000), "'", `"`, `name co "\`,
	} {
		_, err := list(wrong)
		var e *domain.Error
		if !errors.As(err, &e) || e.Code != domain.Invalid || e.Field != "filter" {
			t.Errorf("filter %q: %v, want it refused by name", wrong, err)
		}
	}
	_, err := f.handler.Keys().ListKeys(t.Context(), domain.KeysQuery{Accounts: []domain.AccountID{accountA}, PageSize: 1, Order: "asc", PageToken: "x"})
	var e *domain.Error
	if !errors.As(err, &e) || e.Field != "pagetoken" {
		t.Errorf("a token that is not ours: %v", err)
	}
}
