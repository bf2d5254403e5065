package ingest_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/keytrail/domain"
)

// sessionKey makes a key of the owner's that has sessions.
func (n *node) sessionKey(by string, iam domain.IAMID, name string) (id, value string) {
	n.tb.Helper()
	r := n.must(201, n.call(by, "POST", "/v1/apikeys", map[string]any{"name": name, "iam_id": iam, "support_sessions": true}))
	return r.field("id"), r.field("apikey")
}

// enter signs in with a key.
func (n *node) enter(value string) reply {
	n.tb.Helper()
	return n.must(200, n.signIn(url.Values{"grant_type": {grant}, "apikey": {value}}))
}

// refreshWith uses a refresh token.
func (n *node) refreshWith(token string) reply {
	n.tb.Helper()
	return n.signIn(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
}

// good reports whether an access token is accepted.
func (n *node) good(token string) bool {
	n.tb.Helper()
	switch r := n.call(token, "GET", "/v1/accounts", nil); r.status {
	case 200:
		return true
	case 401:
		return false
	default:
		n.tb.Fatalf("%d %s", r.status, r.raw)
		return false
	}
}

// listed are the ids of the sessions that a caller is shown.
func (n *node) listed(by string) []string {
	n.tb.Helper()
	r := n.must(200, n.call(by, "GET", "/v1/sessions", nil))
	out := []string{}
	for _, s := range r.body["sessions"].([]any) {
		out = append(out, s.(map[string]any)["id"].(string))
	}
	return out
}

// TestASessionIsRefreshedTokenByToken: each refresh token is good once, each access token as
// long as the session; nothing of the tokens is in the log.
func TestASessionIsRefreshedTokenByToken(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	id, value := n.sessionKey(n.admin, n.boot.Owner, "k")
	first := n.enter(value)
	session := first.field("session_id")
	if session == "" || first.field("refresh_token") == "not_supported" || !n.good(first.field("access_token")) {
		t.Fatalf("signed in: %s", first.raw)
	}
	second := n.must(200, n.refreshWith(first.field("refresh_token")))
	third := n.must(200, n.refreshWith(second.field("refresh_token")))
	for name, r := range map[string]reply{"first": first, "second": second, "third": third} {
		if r.field("session_id") != session || !n.good(r.field("access_token")) {
			t.Errorf("%s: %s", name, r.raw)
		}
	}
	if uses := n.uses.all(); len(uses) != 1 || uses[0].Action != "iam-identity.user-apikey.login" {
		t.Errorf("uses %+v, want the one sign-in with the key", uses)
	}
	var actions []string
	for _, rec := range n.events(domain.SessionStreams) {
		a, _ := domain.ActivityOf(rec)
		actions = append(actions, a.Action)
		if a.KeyID != domain.KeyID(id) || a.Initiator.IAMID != n.boot.Owner || a.Initiator.Address != "127.0.0.1" || a.CorrelationID == "" {
			t.Errorf("record %+v", a)
		}
	}
	if want := "iam-identity.user-session.create iam-identity.user-refreshtoken.login iam-identity.user-refreshtoken.login"; strings.Join(actions, " ") != want {
		t.Errorf("records %q", actions)
	}
	for _, rec := range n.events(domain.EvidencePrefix) {
		data, _, err := domain.EncodeEvent(rec.Event)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range []reply{first, second, third} {
			for _, name := range []string{"access_token", "refresh_token"} {
				if parts := strings.Split(r.field(name), "."); strings.Contains(string(data), parts[2]) {
					t.Errorf("%s holds a token", rec.Stream)
				}
			}
		}
	}
}

// TestAKeyWithoutSessionsHasNone, nor has a service ID's.
func TestAKeyWithoutSessionsHasNone(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	if r := n.enter(n.admin); r.field("refresh_token") != "not_supported" || r.field("session_id") != "" {
		t.Errorf("%s", r.raw)
	}
	if len(n.events(domain.SessionStreams)) != 0 {
		t.Error("a session began")
	}
}

// TestARefreshTokenUsedTwiceRevokesItsSession, critically, and who has newer tokens is out too.
func TestARefreshTokenUsedTwiceRevokesItsSession(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	_, value := n.sessionKey(n.admin, n.boot.Owner, "k")
	first := n.enter(value)
	second := n.must(200, n.refreshWith(first.field("refresh_token")))
	r := n.must(400, n.refreshWith(first.field("refresh_token")))
	if r.field("errorCode") != "refresh_token_reused" {
		t.Errorf("used again: %s", r.raw)
	}
	if n.good(first.field("access_token")) || n.good(second.field("access_token")) {
		t.Error("its access tokens are still accepted")
	}
	if r := n.must(400, n.refreshWith(second.field("refresh_token"))); r.field("errorCode") != "session_revoked" {
		t.Errorf("the newest refresh token: %s", r.raw)
	}
	if !n.good(n.enter(value).field("access_token")) {
		t.Error("the key is out too")
	}
	critical := map[string]int{}
	for _, rec := range slices.Concat(n.events(domain.SessionStreams), n.events(domain.RefusedStreams)) {
		if a, _ := domain.ActivityOf(rec); a.Severity == domain.SeverityCritical {
			critical[a.Action+" "+string(a.Outcome)]++
		}
	}
	if critical["iam-identity.user-session.revoke success"] != 1 || critical["iam-identity.user-refreshtoken.login failure"] != 2 {
		t.Errorf("critical records: %v", critical)
	}
}

// TestOfRacingRefreshesOneWinsAndTheSessionIsGone: two who have the same token are two.
func TestOfRacingRefreshesOneWinsAndTheSessionIsGone(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	_, value := n.sessionKey(n.admin, n.boot.Owner, "k")
	token := n.enter(value).field("refresh_token")
	var wg sync.WaitGroup
	answers := make(chan reply, 8)
	for range cap(answers) {
		wg.Go(func() { answers <- n.refreshWith(token) })
	}
	wg.Wait()
	close(answers)
	won := 0
	for r := range answers {
		if r.status == 200 {
			won++
		} else if code := r.field("errorCode"); r.status != 400 || code != "refresh_token_reused" && code != "session_revoked" {
			t.Errorf("%d %s", r.status, r.raw)
		}
	}
	if won != 1 || len(n.listed(n.admin)) != 0 {
		t.Errorf("%d won, sessions %v", won, n.listed(n.admin))
	}
}

// TestASessionIsRevokedByItsUserOrAnAdministrator, at once; nobody else learns of it.
func TestASessionIsRevokedByItsUserOrAnAdministrator(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	user, other := n.member("User-a"), n.member("User-b", domain.RoleViewer)
	account := "account_id=" + string(n.boot.Account)
	other404 := n.must(201, n.call(n.admin, "POST", "/v1/accounts", map[string]any{"name": "Other", "owner_iam_id": "User-other"})).field("id")
	_, stranger, _, err := n.commands.CreateKey(t.Context(), systemOrder(), newKeyIn(other404, "User-other"))
	if err != nil {
		t.Fatal(err)
	}
	_, value := n.sessionKey(user, "User-a", "k")
	for _, tt := range []struct {
		name, by string
		status   int
	}{
		{"another member", other, 403}, {"a stranger", stranger.Reveal(), 404}, {"its user", user, 204}, {"an administrator", n.admin, 204},
	} {
		in := n.enter(value)
		before := len(n.refused())
		r := n.call(tt.by, "DELETE", "/v1/sessions/"+in.field("session_id"), nil)
		if gone := tt.status == 204; r.status != tt.status || n.good(in.field("access_token")) == gone ||
			slices.Contains(n.listed(user), in.field("session_id")) == gone || (r.header.Get("Keytrail-Position") != "") != gone {
			t.Errorf("%s: %d %s", tt.name, r.status, r.raw)
		}
		refused := n.refused()[before:]
		if tt.status != 204 && (len(refused) != 1 || refused[0].Action != "iam-identity.user-session.revoke") {
			t.Errorf("%s: recorded %+v", tt.name, refused)
		}
	}
	for _, tt := range []struct {
		name, by, query string
		status, count   int
	}{
		{"one's own", user, "", 200, 2},
		{"one's own in the account", user, "?iam_id=User-a&" + account, 200, 2},
		{"everybody's", user, "?" + account, 403, 0},
		{"another's", other, "?iam_id=User-a", 403, 0},
		{"another's, as administrator", n.admin, "?iam_id=User-a", 200, 2},
		{"all, as administrator", n.admin, "?" + account, 200, 2},
		{"of another tenant", stranger.Reveal(), "?" + account, 404, 0},
		{"nobody's", n.admin, "?iam_id=User-none", 200, 0},
		{"a page of none", n.admin, "?pagesize=0", 400, 0},
	} {
		r := n.call(tt.by, "GET", "/v1/sessions"+tt.query, nil)
		if list, _ := r.body["sessions"].([]any); r.status != tt.status || len(list) != tt.count {
			t.Errorf("%s: %d %s", tt.name, r.status, r.raw)
		}
	}
	if r := n.call(n.admin, "DELETE", "/v1/sessions/none", nil); r.status != 404 {
		t.Errorf("one that is not: %d", r.status)
	}
}

// TestSessionsAreListedPageByPage without gap or repeat while others begin.
func TestSessionsAreListedPageByPage(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	_, value := n.sessionKey(n.admin, n.boot.Owner, "k")
	began := map[string]bool{}
	for range 5 {
		began[n.enter(value).field("session_id")] = true
	}
	query, seen := "?pagesize=2", []string{}
	for range 9 {
		r := n.must(200, n.call(n.admin, "GET", "/v1/sessions"+query, nil))
		for _, s := range r.body["sessions"].([]any) {
			seen = append(seen, s.(map[string]any)["id"].(string))
		}
		if r.field("next") == "" {
			break
		}
		n.enter(value)
		query = "?pagesize=2&pagetoken=" + r.field("next")
	}
	if !slices.IsSorted(seen) || len(slices.Compact(slices.Clone(seen))) != len(seen) {
		t.Errorf("seen %v", seen)
	}
	for id := range began {
		if !slices.Contains(seen, id) {
			t.Errorf("%s is not listed", id)
		}
	}
}

// TestTokensEndAtOnceWithTheirKeyIdentityOrSession, for introspection and for every call, and
// only for whoever may know it.
func TestTokensEndAtOnceWithTheirKeyIdentityOrSession(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	by, user := n.verifier(), n.member("User-a")
	service := n.must(201, n.call(n.admin, "POST", "/v1/serviceids", map[string]any{"name": "ci"}))
	introspect := func(by, token string) reply {
		return n.must(200, n.call(by, "POST", "/identity/introspect", url.Values{"token": {token}}.Encode(), "Content-Type", "application/x-www-form-urlencoded"))
	}
	for _, tt := range []struct {
		name    string
		service bool
		end     func(id string, in reply)
	}{
		{name: "disabled", end: func(id string, _ reply) { n.must(204, n.call(n.admin, "POST", "/v1/apikeys/"+id+"/disable", nil)) }},
		{name: "deleted", end: func(id string, _ reply) { n.must(204, n.call(n.admin, "DELETE", "/v1/apikeys/"+id, nil)) }},
		{name: "session revoked", end: func(_ string, in reply) {
			n.must(204, n.call(n.admin, "DELETE", "/v1/sessions/"+in.field("session_id"), nil))
		}},
		{name: "service ID deleted", service: true, end: func(string, reply) {
			n.must(204, n.call(n.admin, "DELETE", "/v1/serviceids/"+service.field("id"), nil))
		}},
		{name: "user removed", end: func(string, reply) {
			if _, _, err := n.commands.ChangeAccount(t.Context(), systemOrder(), n.boot.Account, domain.RemoveMember{IAMID: "User-a"}); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		var id, value string
		if tt.service {
			id, value = n.createKey(n.admin, domain.IAMID(service.field("iam_id")), tt.name)
		} else {
			id, value = n.sessionKey(user, "User-a", tt.name)
		}
		in := n.enter(value)
		token := in.field("access_token")
		r := introspect(by, token)
		account, _ := r.body["account"].(map[string]any)
		if r.body["active"] != true || r.field("apikey_id") != id || r.field("session_id") != in.field("session_id") || r.field("sub") != r.field("iam_id") ||
			account["bss"] != string(n.boot.Account) || r.body["exp"] != in.body["expiration"] || r.field("token_type") != "Bearer" || r.field("iss") != "keytrail" {
			t.Errorf("%s: %s", tt.name, r.raw)
		}
		if introspect(token, token).body["active"] != true {
			t.Errorf("%s: not active to itself", tt.name)
		}
		if r := introspect(n.member("User-"+domain.IAMID(fmt.Sprintf("%x", tt.name)), domain.RoleViewer), token); r.raw != `{"active":false}` {
			t.Errorf("%s: a viewer learns %s", tt.name, r.raw)
		}
		tt.end(id, in)
		if r := introspect(by, token); r.raw != `{"active":false}` || n.good(token) {
			t.Errorf("%s: %s", tt.name, r.raw)
		}
	}
	for name, token := range map[string]string{"no token": "x", "a key": n.admin, "half a token": "eyJ.x.y"} {
		if r := introspect(by, token); r.raw != `{"active":false}` || r.header.Get("Keytrail-Position") == "" {
			t.Errorf("%s: %s", name, r.raw)
		}
	}
	if r := n.call(by, "POST", "/identity/introspect", "", "Content-Type", "application/x-www-form-urlencoded"); r.status != 400 {
		t.Errorf("nothing: %d %s", r.status, r.raw)
	}
}

// TestASessionEndsByTheClock: when nobody refreshes it, and at its end whoever does.
func TestASessionEndsByTheClock(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	_, value := n.sessionKey(n.admin, n.boot.Owner, "k")
	idle := n.enter(value)
	n.clock.Advance(2*time.Hour + time.Second)
	if r := n.must(400, n.refreshWith(idle.field("refresh_token"))); r.field("errorCode") != "token_expired" {
		t.Errorf("idle: %s", r.raw)
	}
	if list := n.listed(n.admin); len(list) != 0 {
		t.Errorf("listed %v", list)
	}
	kept := n.enter(value)
	for range 14 {
		n.clock.Advance(100 * time.Minute)
		kept = n.must(200, n.refreshWith(kept.field("refresh_token")))
	}
	n.clock.Advance(39 * time.Minute)
	kept = n.must(200, n.refreshWith(kept.field("refresh_token")))
	if left := kept.body["expires_in"].(float64); left > 60 {
		t.Errorf("in the last minute of a session a token for %v s", left)
	}
	n.clock.Advance(2 * time.Minute)
	if r := n.refreshWith(kept.field("refresh_token")); r.status != http.StatusBadRequest || n.good(kept.field("access_token")) {
		t.Errorf("after 24 hours: %d %s", r.status, r.raw)
	}
}
