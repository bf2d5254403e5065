package ingest_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/keytrail/domain"
)

// TestEveryCredentialThatIsRefusedLeavesOneRecord: unknown, wrong, expired, disabled, deleted
// or from an address that is not allowed; by sign-in, by verification, by Basic and as bearer,
// to read or to command. Each says from where and with what it was shown, and which key it was
// or its fingerprint, never its value.
func TestEveryCredentialThatIsRefusedLeavesOneRecord(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	by := n.verifier()
	n.order(n.boot.Account, domain.AddMember{IAMID: "User-far", Name: "far"})
	n.order(n.boot.Account, domain.SetMemberSettings{IAMID: "User-far", AllowedAddresses: new("10.0.0.0/8")})
	made := func(iam domain.IAMID, path, method string) shownKey {
		key, secret, _, err := n.commands.CreateKey(t.Context(), systemOrder(), newKeyIn(string(n.boot.Account), iam))
		if err != nil {
			t.Fatal(err)
		}
		id := string(key.State().ID)
		if method != "" {
			n.must(204, n.call(n.admin, method, "/v1/apikeys/"+id+path, nil))
		}
		return shownKey{id, secret.Reveal()}
	}
	good := made(n.boot.Owner, "", "")
	wrong := []byte(good.value)
	wrong[12] ^= 1
	expired := made(n.boot.Owner, "", "")
	at := n.clock.Now().Add(time.Minute).UTC().Format("2006-01-02T15:04:05+0000")
	n.must(200, n.call(n.admin, "PUT", "/v1/apikeys/"+expired.id, map[string]any{"expires_at": at}, "If-Match", "*"))
	n.clock.Advance(2 * time.Minute)
	for _, tt := range []struct {
		name   string
		key    shownKey
		verify string // The code of a verification.
	}{
		{"unknown", shownKey{"", "some-value-of-another-system"}, "NOT_FOUND"},
		{"wrong", shownKey{"", string(wrong)}, "NOT_FOUND"},
		{"expired", expired, "EXPIRED"},
		{"disabled", made(n.boot.Owner, "/disable", "POST"), "DISABLED"},
		{"deleted", made(n.boot.Owner, "", "DELETE"), "DELETED"},
		{"from elsewhere", made("User-far", "", ""), "IP_REFUSED"},
	} {
		basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("apikey:"+tt.key.value))
		for _, way := range []struct {
			name, agent, action string
			send                func() reply
		}{
			{"sign-in", "test-agent", "iam-identity.user-apikey.login", func() reply { return n.signIn(url.Values{"grant_type": {grant}, "apikey": {tt.key.value}}) }},
			{"verify", "their-agent", "iam-identity.user-apikey.login", func() reply {
				return n.ask(by, tt.key.value, "source_ip", "127.0.0.1", "user_agent", "their-agent")
			}},
			{"Basic", "Go-http-client/1.1", "iam-identity.user-apikey.login", func() reply { return n.call("", "GET", "/v1/apikeys", nil, "Authorization", basic) }},
			{"bearer", "Go-http-client/1.1", "iam-identity.user-apikey.login", func() reply { return n.call(tt.key.value, "GET", "/v1/apikeys", nil) }},
			{"bearer of a command", "Go-http-client/1.1", "iam-identity.user-apikey.lock", func() reply { return n.call(tt.key.value, "POST", "/v1/apikeys/"+good.id+"/lock", nil) }},
		} {
			name := tt.name + ", " + way.name
			n.clock.Advance(2 * time.Minute) // Equal refusals fold for a minute.
			before := n.failures()
			r := way.send()
			if accepted := r.status < 300; accepted != (way.name == "verify") || accepted && r.field("code") != tt.verify || strings.Contains(r.raw, tt.key.value) {
				t.Errorf("%s: %d %s", name, r.status, r.raw)
			}
			fresh := slices.DeleteFunc(n.failures(), func(a domain.Activity) bool {
				return slices.ContainsFunc(before, func(b domain.Activity) bool { return a.ID == b.ID })
			})
			if len(fresh) != 1 {
				t.Errorf("%s: %d records", name, len(fresh))
				continue
			}
			a := fresh[0]
			if a.Action != way.action || a.Outcome != domain.OutcomeFailure || a.Initiator.Address != "127.0.0.1" || a.Initiator.Agent != way.agent || a.ReasonCode < http.StatusBadRequest || a.Reason == "" {
				t.Errorf("%s: record %s %s %d %q of %s with %q", name, a.Action, a.Outcome, a.ReasonCode, a.Reason, a.Initiator.Address, a.Initiator.Agent)
			}
			data := string(a.RequestData)
			if strings.Contains(data, tt.key.value) || strings.Contains(data, "hmac-sha256:") != (tt.key.id == "") {
				t.Errorf("%s: %s", name, data)
			}
			if known := string(a.KeyID) == tt.key.id || string(a.Initiator.CredentialID) == tt.key.id; !known {
				t.Errorf("%s: record of key %q by %q, want %q", name, a.KeyID, a.Initiator.CredentialID, tt.key.id)
			}
		}
	}
}

type shownKey struct{ id, value string }

// failures are the records of refusals and of uses that failed.
func (n *node) failures() []domain.Activity {
	n.tb.Helper()
	var out []domain.Activity
	for _, rec := range n.events(domain.RefusedStreams) {
		a, _ := domain.ActivityOf(rec)
		out = append(out, a)
	}
	for i, u := range n.uses.all() {
		if u.Outcome == domain.OutcomeFailure {
			out = append(out, domain.ActivityOfUse(u, uint64(i), 0))
		}
	}
	return out
}
