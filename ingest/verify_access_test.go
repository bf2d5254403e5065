package ingest_test

import (
	"encoding/base64"
	"net/url"
	"testing"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/keystore"
)

// order gives a command about an account as keytrail itself, and waits until it holds.
func (n *node) order(account domain.AccountID, cmd domain.AccountCommand) {
	n.tb.Helper()
	_, pos, err := n.commands.ChangeAccount(n.tb.Context(), systemOrder(), account, cmd)
	if err != nil {
		n.tb.Fatal(err)
	}
	if err := n.dirs.WaitFor(n.tb.Context(), pos); err != nil {
		n.tb.Fatal(err)
	}
}

// account makes another account with that owner.
func (n *node) account(owner domain.IAMID) domain.AccountID {
	n.tb.Helper()
	return domain.AccountID(n.must(201, n.call(n.admin, "POST", "/v1/accounts", map[string]any{"name": "of " + owner, "owner_iam_id": owner})).field("id"))
}

// TestAddressesAreCheckedWhereverAKeyComesFrom: sign-in, every kind of credential, refresh and
// verify; the account's list and the user's must both allow it, and each refusal is recorded
// with where it came from.
func TestAddressesAreCheckedWhereverAKeyComesFrom(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	id, value := n.sessionKey(n.admin, n.boot.Owner, "k")
	in := n.enter(value)
	token, fresh := in.field("access_token"), in.field("refresh_token")
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("apikey:"+value))
	ways := []struct {
		name   string
		ok     int
		action string // Of the record of the refusal; "" = a use.
		send   func() reply
	}{
		{"sign-in", 200, "", func() reply { return n.signIn(url.Values{"grant_type": {grant}, "apikey": {value}}) }},
		{"key as bearer", 200, "iam-identity.user-apikey.login", func() reply { return n.call(value, "GET", "/v1/accounts", nil) }},
		{"key by Basic", 200, "iam-identity.user-apikey.login", func() reply { return n.call("", "GET", "/v1/accounts", nil, "Authorization", basic) }},
		{"token", 200, "iam-identity.user-apikey.login", func() reply { return n.call(token, "GET", "/v1/accounts", nil) }},
		{"a command", 404, "iam-identity.user-apikey.lock", func() reply { return n.call(token, "POST", "/v1/apikeys/none/lock", nil) }},
		{"refresh", 200, "iam-identity.user-refreshtoken.login", func() reply {
			r := n.refreshWith(fresh)
			if r.status == 200 {
				fresh = r.field("refresh_token")
			}
			return r
		}},
	}
	for _, tt := range []struct {
		name, account, user string
		allowed             bool
	}{
		{"no lists", "", "", true},
		{"in the account's range", "127.0.0.0-127.0.0.9", "", true},
		{"not in the account's", "10.0.0.0/8,::1", "", false},
		{"in both", "127.0.0.0/8", "127.0.0.1", true},
		{"only in the account's", "127.0.0.1", "10.0.0.0/8", false},
		{"only in the user's", "10.0.0.0/8", "127.0.0.1", false},
		{"no lists again", "", "", true},
	} {
		n.order(n.boot.Account, domain.UpdateAccountSettings{IfMatch: "*", AllowedAddresses: &tt.account})
		n.order(n.boot.Account, domain.SetMemberSettings{IAMID: n.boot.Owner, AllowedAddresses: &tt.user})
		n.clock.Advance(time.Minute) // Equal refusals fold for ten seconds.
		for _, way := range ways {
			uses, refusals := len(n.uses.all()), len(n.refused())
			r := way.send()
			if tt.allowed {
				if r.status != way.ok {
					t.Errorf("%s, %s: %d %s", tt.name, way.name, r.status, r.raw)
				}
				continue
			}
			if code, _ := r.failure(); r.status != 403 || code != "ip_refused" {
				t.Errorf("%s, %s: %d %s", tt.name, way.name, r.status, r.raw)
			}
			if way.action == "" {
				if seen := n.uses.all()[uses:]; len(seen) != 1 || seen[0].Outcome != domain.OutcomeFailure || seen[0].ErrorCode != "ip_refused" || seen[0].Status != 403 || seen[0].Source != "127.0.0.1" {
					t.Errorf("%s, %s: uses %+v", tt.name, way.name, seen)
				}
				continue
			}
			all := n.events(domain.RefusedStreams)
			a, _ := domain.ActivityOf(all[len(all)-1])
			if len(all) != refusals+1 || a.Action != way.action || a.ReasonCode != 403 || a.Severity != domain.SeverityCritical || a.Initiator.Address != "127.0.0.1" || a.Initiator.IAMID != n.boot.Owner ||
				(string(a.KeyID) != id && way.name != "a command") {
				t.Errorf("%s, %s: %d records, the last %s %d of key %s", tt.name, way.name, len(all)-refusals, a.Action, a.ReasonCode, a.KeyID)
			}
		}
	}
}

// TestVerifyChecksWhereAKeyWasShown, which has nothing to do with where the caller is; where
// the account allows only some addresses, one must be given.
func TestVerifyChecksWhereAKeyWasShown(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	by, user := n.verifier(), n.member("User-a")
	n.order(n.boot.Account, domain.UpdateAccountSettings{IfMatch: "*", AllowedAddresses: new("127.0.0.1,192.0.2.0/24,2001:db8::-2001:db8::ff")})
	n.order(n.boot.Account, domain.SetMemberSettings{IAMID: "User-a", AllowedAddresses: new("192.0.2.0-192.0.2.9,2001:db8::/32")})
	for _, tt := range []struct{ from, code string }{
		{"192.0.2.5", "VALID"},
		{"::ffff:192.0.2.5", "VALID"},
		{"2001:db8::7", "VALID"},
		{"192.0.2.10", "IP_REFUSED"},
		{"2001:db8:1::1", "IP_REFUSED"},
		{"203.0.113.1", "IP_REFUSED"},
		{"", "IP_REFUSED"},
	} {
		r := n.must(200, n.ask(by, user, "source_ip", tt.from))
		uses := n.uses.all()
		if u := uses[len(uses)-1]; r.field("code") != tt.code || (u.Status == 403) != (tt.code == "IP_REFUSED") {
			t.Errorf("%q: %s, use %+v", tt.from, r.raw, u)
		}
	}
	if r := n.ask(by, by, "source_ip", "192.0.2.200"); r.field("code") != "VALID" {
		t.Errorf("another user, without a list of his own: %s", r.raw)
	}
}

// TestAnotherAccountDecidesWhomItLetsIn, and has a record of each decision.
func TestAnotherAccountDecidesWhomItLetsIn(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	by, user := n.verifier(), n.member("User-a")
	other := n.account("User-other")
	n.order(other, domain.AddMember{IAMID: "User-a", Name: "a"})
	crn := "crn:v1:x:public:cos:global:a/" + string(other) + ":guid:bucket:b"
	for _, tt := range []struct {
		name     string
		setting  domain.Interaction
		target   string
		code     string
		decision string // "" = none.
		enforced bool
	}{
		{"at home", domain.Interaction{State: domain.InteractionLimited}, string(n.boot.Account), "VALID", "", false},
		{"let in", domain.Interaction{State: domain.InteractionEnabled}, crn, "VALID", "Permit", true},
		{"kept out", domain.Interaction{State: domain.InteractionLimited}, crn, "CROSS_ACCOUNT_REFUSED", "Deny", true},
		{"kept out, by the account's id", domain.Interaction{State: domain.InteractionLimited}, string(other), "CROSS_ACCOUNT_REFUSED", "Deny", true},
		{"on the list", domain.Interaction{State: domain.InteractionLimited, Allowed: []domain.AccountID{n.boot.Account}}, crn, "VALID", "Permit", true},
		{"only recorded", domain.Interaction{State: domain.InteractionMonitor}, crn, "VALID", "Deny", false},
		{"an account that nobody knows", domain.Interaction{State: domain.InteractionEnabled}, "crn:v1:x:public:cos:global:a/none:guid:bucket:b", "FORBIDDEN", "", false},
	} {
		n.order(other, domain.UpdateAccessSettings{IfMatch: "*", User: &tt.setting})
		before := len(n.uses.all())
		r := n.must(200, n.ask(by, user, "target", tt.target, "source_ip", "192.0.2.1"))
		uses := n.uses.all()[before:]
		last := uses[len(uses)-1]
		if r.field("code") != tt.code || last.Account != n.boot.Account || last.Target != tt.target || (last.ErrorCode == tt.code) != (tt.code != "VALID") {
			t.Errorf("%s: %s, use %+v", tt.name, r.raw, last)
		}
		crossing, _ := r.body["cross_account"].(map[string]any)
		if tt.decision == "" {
			if len(uses) != 1 || crossing != nil {
				t.Errorf("%s: %d records, %s", tt.name, len(uses), r.raw)
			}
			continue
		}
		if len(uses) != 2 || crossing["decision"] != tt.decision || crossing["is_enforced"] != tt.enforced || crossing["account_id"] != string(other) {
			t.Errorf("%s: %d records, %s", tt.name, len(uses), r.raw)
			continue
		}
		a := domain.ActivityOfUse(uses[0], 1, 0)
		if refused := tt.code != "VALID"; a.Action != "iam-access-management.account-settings.eval" || a.Account != other || uses[0].Labels["decision"] != tt.decision ||
			(uses[0].Labels["isEnforced"] == "true") != tt.enforced || (a.Outcome == domain.OutcomeFailure) != refused || a.Initiator.IAMID != "User-a" || a.Initiator.Address != "192.0.2.1" {
			t.Errorf("%s: record %+v", tt.name, a)
		}
	}
}

// TestGrantsShowOnTheNextVerify: of a user in each account, of a service ID in its own.
func TestGrantsShowOnTheNextVerify(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	by, user := n.verifier(), n.member("User-a")
	service := n.must(201, n.call(n.admin, "POST", "/v1/serviceids", map[string]any{"name": "ci"}))
	_, value := n.createKey(n.admin, domain.IAMID(service.field("iam_id")), "k")
	other := n.account("User-other")
	n.order(other, domain.AddMember{IAMID: "User-a", Name: "a"})
	reads := domain.Grants{{Actions: []string{"cos.object.get"}}}
	check := func(name, key, target, code string) {
		t.Helper()
		if r := n.must(200, n.ask(by, key, "action", "cos.object.put", "target", target)); r.field("code") != code {
			t.Errorf("%s: %s, want %s", name, r.raw, code)
		}
	}
	for _, tt := range []struct {
		name string
		iam  domain.IAMID
		key  string
	}{{"a service ID", domain.IAMID(service.field("iam_id")), value}, {"a user", "User-a", user}} {
		check(tt.name+" without grants", tt.key, "", "VALID")
		n.order(n.boot.Account, domain.SetGrants{IAMID: tt.iam, Grants: reads})
		check(tt.name+" with others", tt.key, "", "FORBIDDEN")
		n.order(n.boot.Account, domain.SetGrants{IAMID: tt.iam, Grants: append(reads, domain.Grant{Actions: []string{"cos.object.*"}})})
		check(tt.name+" with this", tt.key, "", "VALID")
	}
	n.order(other, domain.SetGrants{IAMID: "User-a", Grants: reads})
	check("granted at home, not there", user, string(other), "FORBIDDEN")
	check("granted at home", user, string(n.boot.Account), "VALID")
}

// TestTokensLiveAsLongAsTheAccountSays, never longer than their key.
func TestTokensLiveAsLongAsTheAccountSays(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	id, value := n.sessionKey(n.admin, n.boot.Owner, "k")
	lives := func(want time.Duration) {
		t.Helper()
		got := time.Duration(n.enter(value).body["expires_in"].(float64)) * time.Second
		if got > want || got < want-3*time.Second {
			t.Errorf("a token of %v, want %v", got, want)
		}
	}
	lives(time.Hour)
	n.order(n.boot.Account, domain.UpdateAccountSettings{IfMatch: "*", AccessTokenSeconds: new("1000")})
	lives(1000 * time.Second)
	at := n.clock.Now().Add(500 * time.Second).UTC().Format("2006-01-02T15:04:05+0000")
	n.must(200, n.call(n.admin, "PUT", "/v1/apikeys/"+id, map[string]any{"expires_at": at}, "If-Match", "*"))
	lives(500 * time.Second)
	n.must(200, n.call(n.admin, "PUT", "/v1/apikeys/"+id, map[string]any{"expires_at": ""}, "If-Match", "*"))
	n.order(n.boot.Account, domain.UpdateAccountSettings{
		IfMatch: "*", AccessTokenSeconds: new("NOT_SET"), SessionExpirationSeconds: new("1200"), SessionInvalidationSeconds: new("900"), RefreshTokenSeconds: new("900"),
	})
	lives(900 * time.Second)
	in := n.enter(value)
	n.clock.Advance(800 * time.Second)
	in = n.must(200, n.refreshWith(in.field("refresh_token")))
	if left := in.body["expires_in"].(float64); left > 400 {
		t.Errorf("%v s left of a session of 1200 s after 800", left)
	}
}

// TestTheOldestSessionMakesRoom, also where two nodes begin some at once.
func TestTheOldestSessionMakesRoom(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	two := startNode(t, n.log, n.dir)
	n.order(n.boot.Account, domain.UpdateAccountSettings{IfMatch: "*", SessionsMax: new("2")})
	_, value := n.sessionKey(n.admin, n.boot.Owner, "k")
	first := n.enter(value)
	second := n.enter(value)
	third := n.enter(value)
	if n.good(first.field("access_token")) || !n.good(second.field("access_token")) || !n.good(third.field("access_token")) {
		t.Error("not the oldest one ended")
	}
	list := n.events(domain.SessionStreams)
	if e, ok := list[len(list)-1].Event.(domain.SessionRevoked); !ok || e.Reason != domain.SessionTooMany || e.After.ID != first.field("session_id") {
		t.Errorf("last event %+v", list[len(list)-1].Event)
	}
	n.order(n.boot.Account, domain.UpdateAccountSettings{IfMatch: "*", SessionsMax: new("1")})
	for range 15 {
		done := make(chan error, 2)
		for _, node := range []*node{n, two} {
			go func() {
				key, _ := node.dirs.KeyByFingerprint(node.store.FingerprintSecret(keystore.NewSecret(value)))
				_, _, err := node.commands.BeginSession(t.Context(), systemOrder(), key, n.dirs.SessionLimits(key.Account))
				done <- err
			}()
		}
		for range 2 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		if live := n.liveSessions(); live > 1 {
			t.Fatalf("%d sessions live, at most one may", live)
		}
	}
}

// liveSessions counts the sessions of the log that were not ended before their time.
func (n *node) liveSessions() (count int) {
	n.tb.Helper()
	live := map[string]bool{}
	for _, rec := range n.events(domain.SessionStreams) {
		s := rec.Event.(domain.SessionEvent).State()
		live[s.ID] = !s.Over
	}
	for _, l := range live {
		if l {
			count++
		}
	}
	return count
}
