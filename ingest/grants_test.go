package ingest_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
	"example.com/keytrail/ingest"
)

// usedActions is what was done with keys, and what was asked about it last.
type usedActions struct {
	mu       sync.Mutex
	by       map[domain.KeyID][]ingest.UsedAction
	from, to time.Time
}

func (u *usedActions) UsedActions(_ context.Context, _ domain.AccountID, keys []domain.KeyID, from, to time.Time) (map[domain.KeyID][]ingest.UsedAction, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.from, u.to = from, to
	out := map[domain.KeyID][]ingest.UsedAction{}
	for _, k := range keys {
		out[k] = u.by[k]
	}
	return out, nil
}

// twoAccounts is a node with a second account of User-other, in both of which User-bob is.
// It returns the second account and a key of its owner.
func twoAccounts(t *testing.T) (n *node, second domain.AccountID, other string) {
	t.Helper()
	n = newNode(t)
	r := n.must(201, n.call(n.admin, "POST", "/v1/accounts", map[string]any{"name": "Other", "owner_iam_id": "User-other"}))
	second = domain.AccountID(r.field("id"))
	_, secret, _, err := n.commands.CreateKey(t.Context(), systemOrder(), newKeyIn(string(second), "User-other"))
	if err != nil {
		t.Fatal(err)
	}
	for _, account := range []domain.AccountID{n.boot.Account, second} {
		n.join(account, "User-bob")
	}
	return n, second, secret.Reveal()
}

// join takes a user into an account.
func (n *node) join(account domain.AccountID, iam domain.IAMID) {
	n.tb.Helper()
	_, pos, err := n.commands.ChangeAccount(n.tb.Context(), systemOrder(), account, domain.AddMember{IAMID: iam, Name: string(iam)})
	if err != nil {
		n.tb.Fatal(err)
	}
	if err := n.dirs.WaitFor(n.tb.Context(), pos); err != nil {
		n.tb.Fatal(err)
	}
}

// list sends a call whose answer is a list.
func (n *node) list(key, method, path string, body any) []any {
	n.tb.Helper()
	r := n.must(200, n.call(key, method, path, body))
	return r.list
}

func granting(account domain.AccountID, actions ...string) map[string]any {
	return map[string]any{"account_id": string(account), "actions": actions}
}

// TestGrantsAreSetInEveryAccountOrInNone: all is checked before the first append; the same
// again changes nothing; what another tenant granted stays, and is not seen.
func TestGrantsAreSetInEveryAccountOrInNone(t *testing.T) {
	t.Parallel()
	n, second, other := twoAccounts(t)
	path := "/v1/identities/User-bob/grants"
	if got := n.list(n.admin, "GET", path, nil); len(got) != 0 {
		t.Errorf("at first: %v", got)
	}
	n.list(other, "PUT", path, []any{granting(second, "theirs.*")})
	third := domain.AccountID(n.must(201, n.call(n.admin, "POST", "/v1/accounts", map[string]any{"name": "Third"})).field("id"))
	n.join(third, "User-bob")
	before := len(n.events(domain.AccountStreams))
	for name, tt := range map[string]struct {
		body        any
		status      int
		code, field string
	}{
		"another's account":             {[]any{granting(n.boot.Account, "a"), granting(second, "b")}, 404, "account_not_found", ""},
		"an account that is none":       {[]any{granting(n.boot.Account, "a"), granting("nowhere", "b")}, 404, "account_not_found", ""},
		"a bad grant beside a good one": {[]any{granting(n.boot.Account, "a"), granting(n.boot.Account, "")}, 400, "invalid_grants", "actions"},
		"a bad one in one account":      {[]any{granting(n.boot.Account, "a"), granting(third, "b\n")}, 400, "invalid_grants", "actions"},
		"a bad one in the other":        {[]any{granting(n.boot.Account, "a\n"), granting(third, "b")}, 400, "invalid_grants", "actions"},
		"no actions":                    {[]any{granting(n.boot.Account)}, 400, "invalid_grants", "actions"},
		"no account":                    {[]any{granting("", "a")}, 400, "invalid_id", "account_id"},
		"no list":                       {"null", 400, "missing_grants", "grants"},
		"an object":                     {map[string]any{}, 400, "wrong_type", ""},
	} {
		r := n.call(n.admin, "PUT", path, tt.body)
		if code, field := r.failure(); r.status != tt.status || code != tt.code || field != tt.field {
			t.Errorf("%s: %d %q %q, want %d %q %q", name, r.status, code, field, tt.status, tt.code, tt.field)
		}
	}
	n.must(404, n.call(n.admin, "PUT", "/v1/identities/User-nobody/grants", []any{}))
	n.must(404, n.call(n.admin, "PUT", "/v1/identities/iam-ServiceId-1/grants", []any{granting(n.boot.Account, "a")}))
	if after := len(n.events(domain.AccountStreams)); after != before {
		t.Fatalf("what was refused left %d events", after-before)
	}
	set := []any{granting(n.boot.Account, "s3.Get*", "s3.List"), map[string]any{"account_id": n.boot.Account, "actions": []string{"kms.*"}, "resources": []string{"key/1"}}}
	for range 2 {
		if got := n.list(n.admin, "PUT", path, set); len(got) != 2 {
			t.Errorf("set: %v", got)
		}
	}
	if after := len(n.events(domain.AccountStreams)); after != before+1 {
		t.Errorf("the same twice left %d events, want 1", after-before)
	}
	if got := n.list(n.admin, "GET", path, nil); len(got) != 2 || got[0].(map[string]any)["account_id"] != string(n.boot.Account) {
		t.Errorf("the administrator of one account sees %v", got)
	}
	n.join(second, n.boot.Owner) // Where he is a member without that right, too.
	if got := n.list(n.admin, "PUT", path, []any{}); len(got) != 0 {
		t.Errorf("taken away: %v", got)
	}
	mine, _ := n.dirs.Account(n.boot.Account)
	theirs, _ := n.dirs.Account(second)
	if mine.Grants("User-bob") != nil || len(theirs.Grants("User-bob")) != 1 {
		t.Errorf("mine %v, theirs %v", mine.Grants("User-bob"), theirs.Grants("User-bob"))
	}
}

// TestGrantsOfAServiceIDAreItsOwn, those of a user are in each of its accounts; he sees all.
func TestGrantsOfAServiceIDAreItsOwn(t *testing.T) {
	t.Parallel()
	n, second, other := twoAccounts(t)
	svc := n.must(201, n.call(n.admin, "POST", "/v1/serviceids", map[string]any{"name": "ci", "account_id": n.boot.Account}))
	path := "/v1/identities/" + svc.field("iam_id") + "/grants"
	n.list(n.admin, "PUT", path, []any{granting(n.boot.Account, "build.*")})
	n.must(404, n.call(other, "PUT", path, []any{granting(second, "*")}))
	if code, _ := n.must(404, n.call(other, "GET", path, nil)).failure(); code != "identity_not_found" {
		t.Errorf("a stranger's service ID: %s", code)
	}
	n.list(n.admin, "PUT", "/v1/identities/User-bob/grants", []any{granting(n.boot.Account, "a")})
	n.list(other, "PUT", "/v1/identities/User-bob/grants", []any{granting(second, "b")})
	_, secret, _, err := n.commands.CreateKey(t.Context(), systemOrder(), newKeyIn(string(second), "User-bob"))
	if err != nil {
		t.Fatal(err)
	}
	if got := n.list(secret.Reveal(), "GET", "/v1/identities/User-bob/grants", nil); len(got) != 2 {
		t.Errorf("bob sees %v", got)
	}
	if r := n.call(secret.Reveal(), "GET", path, nil); r.status != 403 && r.status != 404 {
		t.Errorf("bob reads a service ID's: %d", r.status)
	}
	if r := n.call(secret.Reveal(), "PUT", "/v1/identities/User-bob/grants", []any{granting(second, "*")}); r.status != 403 {
		t.Errorf("bob grants himself: %d", r.status)
	}
	refusals := n.refused()
	if last := refusals[len(refusals)-1]; last.Action != "iam-access-management.grants.update" || last.Target != "User-bob" {
		t.Errorf("recorded %+v", last)
	}
}

// TestThePrivilegeReportSaysWhatCanBeTakenAway: of each key what is granted, what was used,
// what of the one nothing of the other needs, and what the other needs beyond.
func TestThePrivilegeReportSaysWhatCanBeTakenAway(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	bob := n.member("User-bob")
	path := "/v1/accounts/" + string(n.boot.Account) + "/reports/privilege"
	var key domain.KeyID
	for _, rec := range n.events(domain.KeyStreams) {
		if s := rec.Event.(domain.KeyEvent).State(); s.IAMID == "User-bob" {
			key = s.ID
		}
	}
	last := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	n.used.by = map[domain.KeyID][]ingest.UsedAction{key: {{Action: "s3.GetObject", Count: 2, Last: last}, {Action: "s3.Delete", Count: 1, Last: last}, {Action: "s3.List", Count: 9, Last: last}}}
	n.list(n.admin, "PUT", "/v1/identities/User-bob/grants", []any{granting(n.boot.Account, "s3.Get*", "s3.List", "kms.*")})
	find := func(r reply, id domain.KeyID) map[string]any {
		t.Helper()
		for _, k := range r.body["keys"].([]any) {
			if k.(map[string]any)["key_id"] == string(id) {
				return k.(map[string]any)
			}
		}
		t.Fatalf("no key %s in %s", id, r.raw)
		return nil
	}
	r := n.must(200, n.call(n.admin, "GET", path+"?days=30", nil))
	got := find(r, key)
	for field, want := range map[string]string{
		"unrestricted": "false", "unused": "[kms.*]", "beyond": "[s3.Delete]", "used_total": "3",
		"used": "[map[action:s3.List count:9 last_used:2026-05-06T07:08:09.000+0000] map[action:s3.GetObject count:2 last_used:2026-05-06T07:08:09.000+0000] map[action:s3.Delete count:1 last_used:2026-05-06T07:08:09.000+0000]]",
	} {
		if fmt.Sprint(got[field]) != want {
			t.Errorf("%s = %v, want %s", field, got[field], want)
		}
	}
	if d := n.used.to.Sub(n.used.from); d < 29*24*time.Hour || d > 31*24*time.Hour {
		t.Errorf("asked for %s", d)
	}
	if admin := find(r, n.boot.KeyID); admin["unrestricted"] != true || len(admin["used"].([]any)) != 0 || len(admin["beyond"].([]any)) != 0 {
		t.Errorf("a key without grants: %v", admin)
	}
	if r := n.must(200, n.call(n.admin, "GET", path+"?pagesize=1", nil)); r.field("next") == "" || len(r.body["keys"].([]any)) != 1 {
		t.Errorf("a page of one: %s", r.raw)
	}
	for query, field := range map[string]string{"?days=0": "days", "?days=401": "days", "?pagesize=x": "pagesize"} {
		if _, got := n.must(400, n.call(n.admin, "GET", path+query, nil)).failure(); got != field {
			t.Errorf("%s: field %q", query, got)
		}
	}
	n.must(403, n.call(bob, "GET", path, nil))
	if refusals := n.refused(); refusals[len(refusals)-1].Action != "iam-access-management.privilege-report.read" {
		t.Errorf("recorded %+v", refusals[len(refusals)-1])
	}
	auditor := n.member("User-auditor", domain.RoleAuditor)
	n.must(200, n.call(auditor, "GET", path, nil))
}

// TestTheWholeLotOfUsedActionsIsCounted, where not all are shown.
func TestTheWholeLotOfUsedActionsIsCounted(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	var many []ingest.UsedAction
	for i := range 250 {
		many = append(many, ingest.UsedAction{Action: fmt.Sprintf("a.%03d", i), Count: uint64(i + 1)})
	}
	n.used.by = map[domain.KeyID][]ingest.UsedAction{n.boot.KeyID: many}
	r := n.must(200, n.call(n.admin, "GET", "/v1/accounts/"+string(n.boot.Account)+"/reports/privilege", nil))
	i := slices.IndexFunc(r.body["keys"].([]any), func(k any) bool { return k.(map[string]any)["key_id"] == string(n.boot.KeyID) })
	key := r.body["keys"].([]any)[i].(map[string]any)
	used := key["used"].([]any)
	if diff := cmp.Diff([]any{200, 250.0, "a.249"}, []any{len(used), key["used_total"], used[0].(map[string]any)["action"]}); diff != "" {
		t.Error(diff)
	}
}
