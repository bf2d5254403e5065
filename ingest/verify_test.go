package ingest_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
	"example.com/keytrail/ingest"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/usagebatch"
)

// verifier adds a member who may verify in the first account and returns his key.
func (n *node) verifier() string { return n.member("User-verifier", domain.RoleVerifier) }

// ask verifies a key as the one who has the key by.
func (n *node) ask(by, key string, more ...string) reply {
	n.tb.Helper()
	body := map[string]any{"apikey": key}
	for i := 0; i+1 < len(more); i += 2 {
		body[more[i]] = more[i+1]
	}
	return n.call(by, "POST", "/v1/apikeys/verify", body)
}

// TestVerifySaysWhatAKeyIsWorth: each way in which a key can end, one use each, with what the
// caller said of where it was shown.
func TestVerifySaysWhatAKeyIsWorth(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	by := n.verifier()
	service := n.must(201, n.call(n.admin, "POST", "/v1/serviceids", map[string]any{"name": "ci"}))
	tests := []struct {
		name   string
		of     domain.IAMID
		change func(id string)
		code   string
		status int
	}{
		{name: "good", code: "VALID", status: 200},
		{name: "locked", code: "VALID", status: 200, change: func(id string) { n.must(204, n.call(n.admin, "POST", "/v1/apikeys/"+id+"/lock", nil)) }},
		{name: "disabled", code: "DISABLED", status: 401, change: func(id string) { n.must(204, n.call(n.admin, "POST", "/v1/apikeys/"+id+"/disable", nil)) }},
		{name: "enabled again", code: "VALID", status: 200, change: func(id string) {
			n.must(204, n.call(n.admin, "POST", "/v1/apikeys/"+id+"/disable", nil))
			n.must(204, n.call(n.admin, "DELETE", "/v1/apikeys/"+id+"/disable", nil))
		}},
		{name: "deleted", code: "DELETED", status: 401, change: func(id string) { n.must(204, n.call(n.admin, "DELETE", "/v1/apikeys/"+id, nil)) }},
		{name: "of a service ID", code: "VALID", status: 200, of: domain.IAMID(service.field("iam_id"))},
		{name: "expired", code: "EXPIRED", status: 401, change: func(id string) {
			at := n.clock.Now().Add(time.Minute).UTC().Format("2006-01-02T15:04:05+0000")
			n.must(200, n.call(n.admin, "PUT", "/v1/apikeys/"+id, map[string]any{"expires_at": at}, "If-Match", "*"))
			n.clock.Advance(2 * time.Minute)
		}},
		{name: "of a service ID that is deleted", code: "IDENTITY_INVALID", status: 401, of: domain.IAMID(service.field("iam_id")), change: func(string) {
			n.must(204, n.call(n.admin, "DELETE", "/v1/serviceids/"+service.field("id"), nil))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { //nolint:paralleltest // One node, whose uses are counted.
			if tt.of == "" {
				tt.of = n.boot.Owner
			}
			id, value := n.createKey(n.admin, tt.of, tt.name)
			if tt.change != nil {
				tt.change(id)
			}
			before := len(n.uses.all())
			r := n.must(200, n.ask(by, value, "source_ip", "2001:db8::7", "user_agent", "agent", "target", "crn:x"))
			if r.field("code") != tt.code || r.body["valid"] != (tt.code == "VALID") || r.field("key_id") != id || r.field("iam_id") != string(tt.of) ||
				r.field("account_id") != string(n.boot.Account) || (r.field("reason") == "") != (tt.code == "VALID") || strings.Contains(r.raw, value) {
				t.Errorf("answer %s, want %s", r.raw, tt.code)
			}
			uses := n.uses.all()[before:]
			if len(uses) != 1 {
				t.Fatalf("%d uses, want one", len(uses))
			}
			u, outcome, code := uses[0], domain.OutcomeSuccess, ""
			if tt.code != "VALID" {
				outcome, code = domain.OutcomeFailure, tt.code
			}
			if u.Outcome != outcome || u.ErrorCode != code || u.Status != tt.status || u.KeyID != domain.KeyID(id) || u.Account != n.boot.Account ||
				u.IAMID != tt.of || u.Source != "2001:db8::7" || u.UserAgent != "agent" || u.Target != "crn:x" || !strings.HasSuffix(u.Action, "-apikey.login") {
				t.Errorf("use %+v", u)
			}
			if r.header.Get("Keytrail-Position") == "" || r.header.Get("Cache-Control") != "no-store" {
				t.Errorf("headers %v", r.header)
			}
		})
	}
}

// TestVerifyListsEveryAccountOfTheUser, and a user's key counts wherever the user is a
// member; a service ID's only where the service ID is something.
func TestVerifyListsEveryAccountOfTheUser(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	user := n.member("User-both")
	other := domain.AccountID(n.must(201, n.call(n.admin, "POST", "/v1/accounts", map[string]any{"name": "Other", "owner_iam_id": "User-other"})).field("id"))
	for _, m := range []domain.AddMember{{IAMID: "User-both", Name: "b"}, {IAMID: "User-there", Name: "v", Roles: []domain.Role{domain.RoleVerifier}}} {
		if _, _, err := n.commands.ChangeAccount(t.Context(), systemOrder(), other, m); err != nil {
			t.Fatal(err)
		}
	}
	_, there, _, err := n.commands.CreateKey(t.Context(), systemOrder(), newKeyIn(string(other), "User-there"))
	if err != nil {
		t.Fatal(err)
	}
	r := n.must(200, n.ask(n.verifier(), user))
	want := []any{string(min(n.boot.Account, other)), string(max(n.boot.Account, other))}
	if diff := cmp.Diff(want, r.body["accounts"]); diff != "" || r.field("code") != "VALID" {
		t.Errorf("accounts (-want +got):\n%s", diff)
	}
	if r := n.ask(there.Reveal(), user); r.field("code") != "VALID" || r.field("account_id") != string(n.boot.Account) {
		t.Errorf("asked in the user's other account: %s", r.raw)
	}
	if r := n.ask(there.Reveal(), n.admin); r.field("code") != "NOT_FOUND" {
		t.Errorf("of somebody who is nobody there: %s", r.raw)
	}
}

// TestVerifyTellsNobodyOfKeysElsewhere: the answers and the records of an unknown value, a
// wrong checksum and another tenant's key differ in nothing.
func TestVerifyTellsNobodyOfKeysElsewhere(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	by := n.verifier()
	other := n.must(201, n.call(n.admin, "POST", "/v1/accounts", map[string]any{"name": "Other", "owner_iam_id": "User-other"})).field("id")
	_, theirs, _, err := n.commands.CreateKey(t.Context(), systemOrder(), newKeyIn(other, "User-other"))
	if err != nil {
		t.Fatal(err)
	}
	wrong := []byte(theirs.Reveal())
	wrong[10] ^= 1
	var answers, records []string
	for _, tt := range []struct{ name, value string }{
		{"unknown", "no-such-value"}, {"wrong checksum", string(wrong)}, {"another tenant's", theirs.Reveal()},
	} {
		before := len(n.refused())
		r := n.must(200, n.ask(by, tt.value, "source_ip", "192.0.2.9", "user_agent", "agent"))
		answers = append(answers, r.raw)
		list := n.refused()[before:]
		if len(list) != 1 || list[0].Account != n.boot.Account || !strings.Contains(string(list[0].Request), "hmac-sha256:") || strings.Contains(string(list[0].Request), tt.value) {
			t.Fatalf("%s: recorded %+v", tt.name, list)
		}
		all := n.events(domain.RefusedStreams)
		who := all[len(all)-1].Meta.Initiator
		if who.Address != "192.0.2.9" || who.Agent != "agent" || who.IAMID != "" {
			t.Errorf("%s: initiator %+v", tt.name, who)
		}
		list[0].Request, list[0].First, list[0].Last = nil, time.Time{}, time.Time{}
		records = append(records, list[0].Action+list[0].Reason+string(list[0].Code))
	}
	if answers[0] != `{"valid":false,"code":"NOT_FOUND","reason":"no such API key"}` || answers[1] != answers[0] || answers[2] != answers[0] || records[1] != records[0] || records[2] != records[0] {
		t.Errorf("answers %q, records %q", answers, records)
	}
	if len(n.uses.all()) != 0 {
		t.Error("a use was recorded of a key that the caller may not know of")
	}
}

// TestOnlyVerifiersVerify: whoever has the role nowhere is forbidden, and that is recorded.
func TestOnlyVerifiersVerify(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	_, value := n.createKey(n.admin, n.boot.Owner, "k")
	all := domain.Roles()
	for _, role := range all {
		by, before := n.member(domain.IAMID("User-"+strings.ReplaceAll(string(role), " ", "")), role), len(n.refused())
		r := n.ask(by, value)
		if role == domain.RoleVerifier {
			n.must(200, r)
			continue
		}
		code, _ := r.failure()
		list := n.refused()[before:]
		if r.status != 403 || code != "missing_role" || len(list) != 1 || list[0].Action != domain.ActionKeyVerify || list[0].Code != domain.Forbidden {
			t.Errorf("%s: %d %s, recorded %+v", role, r.status, r.raw, list)
		}
	}
	if r := n.call("", "POST", "/v1/authorize", map[string]any{"apikey": value}); r.status != 401 {
		t.Errorf("nobody: %d", r.status)
	}
}

// TestBothSurfacesTakeBothWaysToSignIn: a platform key verifies on either, for a caller who
// shows his own by Basic or as bearer.
func TestBothSurfacesTakeBothWaysToSignIn(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	by := n.verifier()
	_, value := n.createKey(n.admin, n.boot.Owner, "k")
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("apikey:"+by))
	for _, path := range []string{"/v1/apikeys/verify", "/v1/authorize"} {
		for _, header := range []string{basic, "Bearer " + by} {
			r := n.call("", "POST", path, map[string]any{"apikey": value, "action": "cos.object.get"}, "Authorization", header)
			if r.status != 200 || r.field("code") != "VALID" {
				t.Errorf("%s: %d %s", path, r.status, r.raw)
			}
		}
	}
	for _, u := range n.uses.all() {
		if u.Action != "cos.object.get" || u.Labels[domain.LabelVerified] != "User-verifier" {
			t.Errorf("use %+v", u)
		}
	}
}

// TestEveryKindOfKeyVerifiesOnBothSurfaces under the name of its kind; one that was rotated
// until its overlap ends.
func TestEveryKindOfKeyVerifiesOnBothSurfaces(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	by := n.verifier()
	service := n.serviceID(map[string]any{"apikey": map[string]any{"name": "credential"}})
	credential, _ := service.body["apikey"].(map[string]any)
	made := func(body map[string]any) string {
		return n.must(201, n.call(n.admin, "POST", "/v1/apikeys", body)).field("apikey")
	}
	of, _ := credential["apikey"].(string)
	for _, tt := range []struct{ kind, action, value string }{
		{"user", "iam-identity.user-apikey.login", made(map[string]any{"name": "u", "iam_id": n.boot.Owner})},
		{"classic", "iam-identity.classic-apikey.login", made(map[string]any{"name": "c", "iam_id": n.boot.Owner, "type": "classic"})},
		{"serviceid", "iam-identity.serviceid-apikey.login", made(map[string]any{"name": "s", "iam_id": service.field("iam_id")})},
		{"service-credential", "iam-identity.serviceid-apikey.login", of},
	} {
		for _, path := range []string{"/v1/apikeys/verify", "/v1/authorize"} {
			r := n.must(200, n.call(by, "POST", path, map[string]any{"apikey": tt.value}))
			uses := n.uses.all()
			if u := uses[len(uses)-1]; r.field("code") != "VALID" || r.field("kind") != tt.kind || u.Action != tt.action {
				t.Errorf("%s: %s: %s, recorded as %s", path, tt.kind, r.raw, u.Action)
			}
		}
	}
	id, old := n.createKey(n.admin, n.boot.Owner, "rotated")
	next := n.must(201, n.call(n.admin, "POST", "/v1/apikeys/"+id+"/rotate", map[string]any{"overlap": "1h"})).field("apikey")
	for _, tt := range []struct {
		wait           time.Duration
		old, successor string
	}{{0, "VALID", "VALID"}, {59 * time.Minute, "VALID", "VALID"}, {time.Minute, "EXPIRED", "VALID"}} {
		n.clock.Advance(tt.wait)
		if was, is := n.ask(by, old), n.ask(by, next); was.field("code") != tt.old || is.field("code") != tt.successor {
			t.Errorf("%v later: %s and %s", tt.wait, was.raw, is.raw)
		}
	}
}

func TestQuestionsThatAreNone(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	by := n.verifier()
	_, value := n.createKey(n.admin, n.boot.Owner, "k")
	for _, tt := range []struct {
		name        string
		body        any
		code, field string
	}{
		{"no value", map[string]any{}, "missing_apikey", "apikey"},
		{"no address", map[string]any{"apikey": value, "source_ip": "somewhere"}, "invalid_source_ip", "source_ip"},
		{"an address with a zone", map[string]any{"apikey": value, "source_ip": "fe80::1%eth0"}, "invalid_source_ip", "source_ip"},
		{"a secret where it would be kept", map[string]any{"apikey": value, "target": value}, "holds_secret", "target"},
		{"a chosen value where it would be kept", map[string]any{"apikey": strings.Repeat("chosen-", 6), "user_agent": "x" + strings.Repeat("chosen-", 6)}, "holds_secret", "user_agent"},
		{"an action that is too long", map[string]any{"apikey": value, "action": strings.Repeat("a", 300)}, "too_long", "action"},
		{"an agent that is no text", map[string]any{"apikey": value, "user_agent": "a\x00b"}, "invalid_text", "user_agent"},
		{"a field of no meaning", map[string]any{"apikey": value, "sourceip": "192.0.2.1"}, "unknown_field", "sourceip"},
		{"no object", `[]`, "wrong_type", ""},
	} {
		r := n.call(by, "POST", "/v1/apikeys/verify", tt.body)
		if code, field := r.failure(); r.status != 400 || code != tt.code || field != tt.field || strings.Contains(r.raw, value) {
			t.Errorf("%s: %d %s, want %s of %s", tt.name, r.status, r.raw, tt.code, tt.field)
		}
	}
	if len(n.uses.all())+len(n.refused()) != 0 {
		t.Error("what is no question was recorded")
	}
}

// TestAVerificationThatIsNotRecordedIsNotAnswered, whatever the key is worth.
func TestAVerificationThatIsNotRecordedIsNotAnswered(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	by := n.verifier()
	_, value := n.createKey(n.admin, n.boot.Owner, "k")
	n.uses.fail(domain.Errorf(domain.Unavailable, "away").WithMessageCode("log_unavailable"))
	if r := n.ask(by, value); r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", r.status, r.raw)
	}
}

// TestAKeyThatEndsWhileItsUseIsRecordedIsNotAnswered: the record was true when it was made,
// the answer would not be.
func TestAKeyThatEndsWhileItsUseIsRecordedIsNotAnswered(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	by := n.verifier()
	id, value := n.createKey(n.admin, n.boot.Owner, "k")
	n.uses.during(func() {
		_, pos, err := n.commands.ChangeKey(t.Context(), systemOrder(), ingest.KeyRef{ID: domain.KeyID(id)}, domain.DisableKey{At: n.clock.Now()}, nil)
		if err != nil {
			t.Error(err)
		}
		if err := n.dirs.WaitFor(t.Context(), pos); err != nil {
			t.Error(err)
		}
	})
	if r := n.ask(by, value); r.status != http.StatusServiceUnavailable {
		t.Errorf("%d %s", r.status, r.raw)
	}
	n.uses.during(nil)
	if r := n.ask(by, value); r.field("code") != "DISABLED" {
		t.Errorf("asked again: %s", r.raw)
	}
}

// TestASecretInAUseIsNotKept, wherever a stranger put it.
func TestASecretInAUseIsNotKept(t *testing.T) {
	t.Parallel()
	value := domain.KeyValuePrefix + strings.Repeat("a", 49)
	log := newMemLog()
	r := newRecorder(t, log)
	if _, err := r.RecordUse(t.Context(), domain.Use{Time: usageNow, UserAgent: "x " + value, Source: value, Target: value, ErrorCode: value, RequestID: value}); err != nil {
		t.Fatal(err)
	}
	rec, err := eventlog.Decode(log.streams["kt.usage-verify-vnode1"][0])
	if err != nil {
		t.Fatal(err)
	}
	uses, err := usagebatch.Decode(rec.Event.(domain.UsageRecorded).Batch.Columns)
	if err != nil || len(uses) != 1 {
		t.Fatal(uses, err)
	}
	if kept := fmt.Sprint(uses); strings.Contains(kept, value) || !strings.Contains(kept, "x kt_****") {
		t.Errorf("kept %s", kept)
	}
}
