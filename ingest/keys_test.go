package ingest_test

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/keystore"
)

// TestGoldenRun is the run of events.md: seven acts, seven records, three of them
// refusals, which are critical and name who tried.
func TestGoldenRun(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	id, _ := n.createKey(n.admin, n.boot.Owner, "demo-key")
	path := "/v1/apikeys/" + id
	n.must(204, n.call(n.admin, "POST", path+"/lock", nil))
	n.must(409, n.call(n.admin, "PUT", path, map[string]any{"name": "other"}, "If-Match", "*"))
	n.must(409, n.call(n.admin, "PUT", path, map[string]any{"description": "changed"}, "If-Match", "*"))
	n.must(409, n.call(n.admin, "DELETE", path, nil))
	n.must(204, n.call(n.admin, "DELETE", path+"/lock", nil))
	n.must(204, n.call(n.admin, "DELETE", path, nil))

	type row struct{ Message, Severity, By string }
	var got []row
	for _, rec := range n.events(domain.EvidencePrefix) {
		a, ok := domain.ActivityOf(rec)
		if ok && a.KeyID == domain.KeyID(id) {
			got = append(got, row{strings.TrimPrefix(a.Message, "IAM Identity Service: "), string(a.Severity), a.Initiator.Name})
		}
	}
	want := []row{
		{"create user-apikey demo-key", "normal", "administrator"},
		{"lock user-apikey demo-key", "warning", "administrator"},
		{"update user-apikey demo-key -failure", "critical", "administrator"},
		{"update user-apikey demo-key -failure", "critical", "administrator"},
		{"delete user-apikey demo-key -failure", "critical", "administrator"},
		{"unlock user-apikey demo-key", "warning", "administrator"},
		{"delete user-apikey demo-key", "critical", "administrator"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	for _, r := range n.refused() {
		if !r.Locked || r.Status != 409 || r.Code != domain.Conflict {
			t.Errorf("refusal %+v is not marked as of a locked key", r)
		}
	}
}

func TestOneRequestHasOneCorrelationID(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	id, _ := n.createKey(n.admin, n.boot.Owner, "k")
	n.must(204, n.call(n.admin, "POST", "/v1/apikeys/"+id+"/lock", nil, "Transaction-Id", "tx-1"))
	r := n.must(409, n.call(n.admin, "DELETE", "/v1/apikeys/"+id, nil, "X-Correlation-Id", "tx-2"))
	if r.field("trace") != "tx-2" || r.header.Get("Transaction-Id") != "tx-2" {
		t.Errorf("trace %q, want the caller's", r.field("trace"))
	}
	var got []string
	for _, rec := range n.events(domain.EvidencePrefix) {
		if strings.HasPrefix(rec.Meta.CorrelationID, "tx-") {
			got = append(got, rec.Meta.CorrelationID+" "+rec.Type)
		}
	}
	want := []string{"tx-1 " + domain.TypeKeyLocked, "tx-2 " + domain.TypeCommandRefused}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestACallersCorrelationIDDoesNotMergeTwoCommands: event ids come from the server's
// request id, so two commands under one Transaction-Id are two facts.
func TestACallersCorrelationIDDoesNotMergeTwoCommands(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	id, _ := n.createKey(n.admin, n.boot.Owner, "k")
	for range 3 {
		n.must(204, n.call(n.admin, "POST", "/v1/apikeys/"+id+"/disable", nil, "Transaction-Id", "same"))
		n.must(204, n.call(n.admin, "DELETE", "/v1/apikeys/"+id+"/disable", nil, "Transaction-Id", "same"))
	}
	events := n.events(domain.KeyStreams + id)
	seen := map[domain.EventID]bool{}
	for _, rec := range events {
		seen[rec.ID] = true
	}
	if len(events) != 7 || len(seen) != 7 {
		t.Errorf("%d events, %d ids; want 7 and 7", len(events), len(seen))
	}
}

func TestBadInputIsRefusedWithTheFieldNamed(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	id, _ := n.createKey(n.admin, n.boot.Owner, "k")
	before := len(n.events(domain.EvidencePrefix))
	own := n.boot.Owner
	tests := []struct {
		name, method, path string
		body               any
		headers            []string
		status             int
		code, field        string
	}{
		{name: "no name", method: "POST", path: "/v1/apikeys", body: map[string]any{"iam_id": own}, status: 400, code: "missing_name", field: "name"},
		{name: "no identity", method: "POST", path: "/v1/apikeys", body: map[string]any{"name": "x"}, status: 400, code: "missing_iam_id", field: "iam_id"},
		{name: "name of a wrong type", method: "POST", path: "/v1/apikeys", body: `{"name":7}`, status: 400, code: "wrong_type", field: "name"},
		{name: "a field that we do not know", method: "POST", path: "/v1/apikeys", body: `{"name":"x","expire_at":"2027"}`, status: 400, code: "unknown_field", field: "expire_at"},
		{name: "a field twice", method: "POST", path: "/v1/apikeys", body: `{"name":"x","name":"y"}`, status: 400, code: "duplicate_field", field: "name"},
		{name: "a field twice, in other letters", method: "POST", path: "/v1/apikeys", body: `{"name":"x","Name":"y"}`, status: 400, code: "duplicate_field", field: "Name"},
		{name: "no JSON", method: "POST", path: "/v1/apikeys", body: `{`, status: 400, code: "invalid_json"},
		{name: "two JSON values", method: "POST", path: "/v1/apikeys", body: `{} {}`, status: 400, code: "invalid_json"},
		{name: "nothing", method: "POST", path: "/v1/apikeys", status: 400, code: "empty_body"},
		{name: "too much", method: "POST", path: "/v1/apikeys", body: `{"name":"` + strings.Repeat("x", 70<<10) + `"}`, status: 413, code: "body_too_large"},
		{name: "an expiry in the past", method: "POST", path: "/v1/apikeys", body: map[string]any{"name": "x", "iam_id": own, "expires_at": "2020-01-01T00:00+0000"}, status: 400, code: "expires_at_in_past", field: "expires_at"},
		{name: "an unknown leak action", method: "POST", path: "/v1/apikeys", body: map[string]any{"name": "x", "iam_id": own, "action_when_leaked": "sell"}, status: 400, code: "invalid_action_when_leaked", field: "action_when_leaked"},
		{name: "a stored value for a user key", method: "POST", path: "/v1/apikeys", body: map[string]any{"name": "x", "iam_id": own, "store_value": true}, status: 400, code: "store_value_not_taken", field: "store_value"},
		{name: "a header that is no boolean", method: "POST", path: "/v1/apikeys", body: map[string]any{"name": "x", "iam_id": own}, headers: []string{"Entity-Lock", "maybe"}, status: 400, code: "not_boolean", field: "Entity-Lock"},
		{name: "an update without a tag", method: "PUT", path: "/v1/apikeys/" + id, body: map[string]any{"name": "x"}, status: 400, code: "missing_if_match", field: "If-Match"},
		{name: "an empty name", method: "PUT", path: "/v1/apikeys/" + id, body: map[string]any{"name": ""}, headers: []string{"If-Match", "*"}, status: 400, code: "missing_name", field: "name"},
		{name: "a time that is none", method: "GET", path: "/v1/apikeys/" + id + "?as_of=yesterday", status: 400, code: "invalid_time", field: "as_of"},
		{name: "a flag that is no boolean", method: "GET", path: "/v1/apikeys/" + id + "?include_history=si", status: 400, code: "not_boolean", field: "include_history"},
		{name: "a page too large", method: "GET", path: "/v1/apikeys?pagesize=101", status: 400, code: "invalid_pagesize", field: "pagesize"},
		{name: "an unknown order", method: "GET", path: "/v1/apikeys?order=up", status: 400, code: "invalid_order", field: "order"},
		{name: "an unknown scope", method: "GET", path: "/v1/apikeys?scope=world", status: 400, code: "invalid_scope", field: "scope"},
		{name: "a position that is none", method: "GET", path: "/v1/apikeys", headers: []string{"Keytrail-Wait-Position", "x"}, status: 400, code: "invalid_position", field: "Keytrail-Wait-Position"},
		{name: "a path that is none", method: "GET", path: "/v1/nothing", status: 404, code: "no_such_path"},
		{name: "a method that is none", method: "PATCH", path: "/v1/apikeys", status: 405, code: "method_not_allowed"},
	}
	for _, tt := range tests {
		r := n.call(n.admin, tt.method, tt.path, tt.body, tt.headers...)
		code, field := r.failure()
		if r.status != tt.status || code != tt.code || field != tt.field {
			t.Errorf("%s: %d %q field %q, want %d %q field %q: %s", tt.name, r.status, code, field, tt.status, tt.code, tt.field, r.raw)
		}
		if r.field("trace") == "" {
			t.Errorf("%s: no trace", tt.name)
		}
	}
	if after := len(n.events(domain.EvidencePrefix)); after != before {
		t.Errorf("requests that are no valid command left %d events", after-before)
	}
}

// TestEveryRefusalIsRecordedBeforeItIsAnswered, with who tried and what.
func TestEveryRefusalIsRecordedBeforeItIsAnswered(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	id, _ := n.createKey(n.admin, n.boot.Owner, "admins")
	viewer := n.member("User-viewer", domain.RoleViewer)
	other := n.must(201, n.call(n.admin, "POST", "/v1/accounts", map[string]any{"name": "Other", "owner_iam_id": "User-stranger"}))
	_, secret, _, err := n.commands.CreateKey(t.Context(), systemOrder(), newKeyIn(other.field("id"), "User-stranger"))
	if err != nil {
		t.Fatal(err)
	}
	stranger := secret.Reveal()
	path := "/v1/apikeys/" + id
	tests := []struct {
		name, key, method, path string
		body                    any
		headers                 []string
		status                  int
		want                    domain.CommandRefused
	}{
		{
			name: "a viewer deletes another's key", key: viewer, method: "DELETE", path: path, status: 403,
			want: domain.CommandRefused{Action: "iam-identity.user-apikey.delete", Account: n.boot.Account, Target: id, TargetName: "admins", TargetKind: "user", Code: domain.Forbidden},
		},
		{
			name: "a viewer reads another's key", key: viewer, method: "GET", path: path, status: 403,
			want: domain.CommandRefused{Action: "iam-identity.user-apikey.read", Account: n.boot.Account, Target: id, TargetName: "admins", TargetKind: "user", Code: domain.Forbidden},
		},
		{
			name: "a viewer makes a key for another", key: viewer, method: "POST", path: "/v1/apikeys", body: map[string]any{"name": "x", "iam_id": n.boot.Owner}, status: 403,
			want: domain.CommandRefused{Action: "iam-identity.user-apikey.create", Account: n.boot.Account, TargetName: "x", TargetKind: "user", Code: domain.Forbidden},
		},
		{
			name: "a stranger deletes: to him there is no such key", key: stranger, method: "DELETE", path: path, status: 404,
			want: domain.CommandRefused{Action: "iam-identity.user-apikey.delete", Account: domain.AccountID(other.field("id")), Target: id, Code: domain.NotFound},
		},
		{
			name: "a stale tag", key: n.admin, method: "PUT", path: path, body: map[string]any{"name": "x"}, headers: []string{"If-Match", "1-00"}, status: 409,
			want: domain.CommandRefused{Action: "iam-identity.user-apikey.update", Account: n.boot.Account, Target: id, TargetName: "admins", TargetKind: "user", Code: domain.Conflict},
		},
		{
			name: "no credential", method: "DELETE", path: path, status: 401,
			want: domain.CommandRefused{Action: "iam-identity.user-apikey.delete", Account: n.boot.Account, Target: id, Code: domain.Unauthenticated},
		},
		{
			name: "a wrong credential", key: "kt_wrong", method: "POST", path: path + "/lock", status: 401,
			want: domain.CommandRefused{Action: "iam-identity.user-apikey.lock", Account: n.boot.Account, Target: id, Code: domain.Unauthenticated},
		},
	}
	for _, tt := range tests {
		before := len(n.refused())
		r := n.call(tt.key, tt.method, tt.path, tt.body, tt.headers...)
		list := n.refused()
		if r.status != tt.status || len(list) != before+1 {
			t.Errorf("%s: status %d, %d refusals more; want %d and 1: %s", tt.name, r.status, len(list)-before, tt.status, r.raw)
			continue
		}
		got := list[len(list)-1]
		if got.Status != tt.status || got.Count != 1 || got.Reason == "" {
			t.Errorf("%s: %+v", tt.name, got)
		}
		got.Status, got.Count, got.Reason, got.Request, got.First, got.Last = 0, 0, "", nil, time.Time{}, time.Time{}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestAnotherTenantsKeyLooksLikeNone(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	id, _ := n.createKey(n.admin, n.boot.Owner, "k")
	other := n.must(201, n.call(n.admin, "POST", "/v1/accounts", map[string]any{"name": "Other", "owner_iam_id": "User-stranger"}))
	_, secret, _, err := n.commands.CreateKey(t.Context(), systemOrder(), newKeyIn(other.field("id"), "User-stranger"))
	if err != nil {
		t.Fatal(err)
	}
	theirs := n.call(secret.Reveal(), "GET", "/v1/apikeys/"+id, nil)
	none := n.call(secret.Reveal(), "GET", "/v1/apikeys/ApiKey-none", nil)
	theirCode, _ := theirs.failure()
	noneCode, _ := none.failure()
	if theirs.status != 404 || none.status != 404 || theirCode != noneCode {
		t.Errorf("another tenant's key: %d %s; none: %d %s", theirs.status, theirCode, none.status, noneCode)
	}
	if r := n.call(secret.Reveal(), "GET", "/v1/apikeys?scope=account&account_id="+string(n.boot.Account), nil); r.status != 404 {
		t.Errorf("list of another tenant: %d", r.status)
	}
}

// TestTwoUpdatesWithOneTagExactlyOneWins, however they race.
func TestTwoUpdatesWithOneTagExactlyOneWins(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	id, _ := n.createKey(n.admin, n.boot.Owner, "k")
	tag := n.must(200, n.call(n.admin, "GET", "/v1/apikeys/"+id, nil)).field("entity_tag")
	const racers = 8
	statuses := make([]int, racers)
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			statuses[i] = n.call(n.admin, "PUT", "/v1/apikeys/"+id, map[string]any{"name": "n" + string(rune('a'+i))}, "If-Match", tag).status
		})
	}
	wg.Wait()
	won := 0
	for _, s := range statuses {
		switch s {
		case 200:
			won++
		case 409:
		default:
			t.Errorf("status %d", s)
		}
	}
	if got := len(n.events(domain.KeyStreams + id)); won != 1 || got != 2 {
		t.Errorf("%d won, %d events; want 1 and 2", won, got)
	}
}

// TestConcurrentChangesAreAllCarriedOut: conflicts are retried on the new state.
func TestConcurrentChangesAreAllCarriedOut(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	id, _ := n.createKey(n.admin, n.boot.Owner, "k")
	var wg sync.WaitGroup
	for _, path := range []string{"/lock", "/disable"} {
		wg.Go(func() { n.must(204, n.call(n.admin, "POST", "/v1/apikeys/"+id+path, nil)) })
	}
	wg.Wait()
	r := n.must(200, n.call(n.admin, "GET", "/v1/apikeys/"+id, nil))
	if r.body["locked"] != true || r.body["disabled"] != true {
		t.Errorf("locked %v, disabled %v", r.body["locked"], r.body["disabled"])
	}
}

func TestARepeatChangesNothing(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	id, _ := n.createKey(n.admin, n.boot.Owner, "k")
	for range 3 {
		n.must(204, n.call(n.admin, "POST", "/v1/apikeys/"+id+"/lock", nil))
	}
	if got := len(n.events(domain.KeyStreams + id)); got != 2 {
		t.Errorf("%d events, want 2", got)
	}
	if got := n.refused(); len(got) != 0 {
		t.Errorf("a repeat was recorded as refused: %+v", got)
	}
}

// TestAKeyEndsAtOnce: the answer to disable, delete or an expiry is the last moment at
// which the key, or a token made with it, is worth anything.
func TestAKeyEndsAtOnce(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for _, tt := range []struct {
		name, code string
		end        func(id string)
	}{
		{"disabled", "key_disabled", func(id string) { n.must(204, n.call(n.admin, "POST", "/v1/apikeys/"+id+"/disable", nil)) }},
		{"deleted", "key_deleted", func(id string) { n.must(204, n.call(n.admin, "DELETE", "/v1/apikeys/"+id, nil)) }},
		{"expired", "key_expired", func(id string) {
			at := n.clock.Now().Add(2 * time.Second).UTC().Format("2006-01-02T15:04:05-0700")
			n.must(200, n.call(n.admin, "PUT", "/v1/apikeys/"+id, map[string]any{"expires_at": at}, "If-Match", "*"))
			n.clock.Advance(3 * time.Second)
		}},
	} {
		id, value := n.createKey(n.admin, n.boot.Owner, tt.name)
		token := n.must(200, n.signIn(url.Values{"grant_type": {grant}, "apikey": {value}})).field("access_token")
		n.must(204, n.call(n.admin, "POST", "/v1/apikeys/"+id+"/lock", nil))
		for _, credential := range []string{value, token} {
			n.must(200, n.call(credential, "GET", "/v1/apikeys/"+id, nil)) // A locked key works.
		}
		n.must(204, n.call(n.admin, "DELETE", "/v1/apikeys/"+id+"/lock", nil))
		tt.end(id)
		for what, credential := range map[string]string{"key": value, "token": token} {
			r := n.call(credential, "GET", "/v1/apikeys", nil)
			if code, _ := r.failure(); r.status != 401 || code != tt.code {
				t.Errorf("%s of a %s key: %d %s, want 401 %s", what, tt.name, r.status, code, tt.code)
			}
		}
		if r := n.signIn(url.Values{"grant_type": {grant}, "apikey": {value}}); r.status != 400 || r.field("errorCode") != tt.code {
			t.Errorf("sign-in with a %s key: %d %s", tt.name, r.status, r.raw)
		}
	}
	id, value := n.createKey(n.admin, n.boot.Owner, "again")
	n.must(204, n.call(n.admin, "POST", "/v1/apikeys/"+id+"/disable", nil))
	n.must(204, n.call(n.admin, "DELETE", "/v1/apikeys/"+id+"/disable", nil))
	n.must(200, n.call(value, "GET", "/v1/apikeys/"+id, nil)) // Enabled, it works again.
}

func TestADeletedServiceIDEndsItsKeys(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	svc := n.must(201, n.call(n.admin, "POST", "/v1/serviceids", map[string]any{"name": "ci", "account_id": n.boot.Account}))
	_, value := n.createKey(n.admin, domain.IAMID(svc.field("iam_id")), "ci-key")
	n.must(200, n.call(value, "GET", "/v1/apikeys", nil))
	n.must(204, n.call(n.admin, "DELETE", "/v1/serviceids/"+svc.field("id"), nil))
	n.must(404, n.call(n.admin, "GET", "/v1/serviceids/"+svc.field("id"), nil))
	r := n.call(value, "GET", "/v1/apikeys", nil)
	if code, _ := r.failure(); r.status != 401 || code != "identity_invalid" {
		t.Errorf("key of a deleted service ID: %d %s", r.status, code)
	}
	if r := n.call(n.admin, "POST", "/v1/apikeys", map[string]any{"name": "x", "iam_id": svc.field("iam_id")}); r.status != 404 {
		t.Errorf("new key of a deleted service ID: %d", r.status)
	}
}

func TestStateAtAnEarlierTime(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	id, _ := n.createKey(n.admin, n.boot.Owner, "first")
	path := "/v1/apikeys/" + id
	n.clock.Advance(48 * time.Hour)
	n.must(200, n.call(n.admin, "PUT", path, map[string]any{"name": "second"}, "If-Match", "*"))
	n.clock.Advance(48 * time.Hour)
	n.must(204, n.call(n.admin, "DELETE", path, nil))
	n.must(404, n.call(n.admin, "GET", path, nil))
	for _, tt := range []struct{ asOf, name, status string }{
		{"-3d", "first", "active"}, {"-1d", "second", "active"}, {"-0s", "second", "deleted"},
	} {
		r := n.must(200, n.call(n.admin, "GET", path+"?as_of="+tt.asOf, nil))
		if r.field("name") != tt.name || r.field("status") != tt.status {
			t.Errorf("as of %s: %q %s, want %q %s", tt.asOf, r.field("name"), r.field("status"), tt.name, tt.status)
		}
	}
	n.must(404, n.call(n.admin, "GET", path+"?as_of=-5d", nil))
	r := n.must(200, n.call(n.admin, "GET", path+"?include_history=true&as_of=-1d", nil))
	if got, _ := r.body["history"].([]any); len(got) != 2 {
		t.Errorf("history as of yesterday has %d entries, want 2", len(got))
	}
}

func TestExternalKeysAreReadButNotChanged(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	s := domain.KeyState{ID: "AKIA1", Account: n.boot.Account, Kind: domain.KindExternal, Name: "ci", Source: "aws", Version: 1, CreatedAt: time.Now().UTC(), ModifiedAt: time.Now().UTC()}
	stream := domain.ExternalKeyStream(n.boot.Account, s.ID)
	p, err := eventlog.Propose(domain.DeriveID("t", "x"), domain.KeyObserved{Fact: domain.ObservedCreated, SourceEvent: "e", After: s}, domain.Metadata{EffectiveAt: s.CreatedAt})
	if err != nil {
		t.Fatal(err)
	}
	done, err := n.log.Append(t.Context(), stream, eventlog.NoStream(), p)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.dirs.WaitFor(t.Context(), done.Position); err != nil {
		t.Fatal(err)
	}
	if r := n.must(200, n.call(n.admin, "GET", "/v1/apikeys/AKIA1", nil)); r.field("kind") != "external" || r.field("source") != "aws" {
		t.Errorf("external key: %s", r.raw)
	}
	n.must(200, n.call(n.admin, "GET", "/v1/apikeys/AKIA1?account_id="+string(n.boot.Account), nil))
	n.must(404, n.call(n.admin, "GET", "/v1/apikeys/AKIA1?account_id=other", nil))
	n.must(404, n.call(n.admin, "GET", "/v1/apikeys/"+strings.TrimPrefix(stream, domain.KeyStreams), nil)) // No way in by the stream's name.
	r := n.call(n.admin, "POST", "/v1/apikeys/AKIA1/disable", nil)
	code, _ := r.failure()
	if r.status != 409 || code != "external_key" || !strings.Contains(r.raw, "aws iam update-access-key --status Inactive --access-key-id AKIA1 --user-name ci") {
		t.Errorf("disable of an external key: %d %s", r.status, r.raw)
	}
}

// TestNoSecretReachesTheLog searches every byte of every stored event for every secret
// that the run has seen.
func TestNoSecretReachesTheLog(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	secrets := []string{n.admin, "kt_" + strings.Repeat("q", 49), "hunter2-hunter2-hunter2-hunter2-hunter2"}
	id, value := n.createKey(n.admin, n.boot.Owner, "k")
	token := n.must(200, n.signIn(url.Values{"grant_type": {grant}, "apikey": {value}})).field("access_token")
	secrets = append(secrets, value, token)
	n.call(n.admin, "POST", "/v1/apikeys", map[string]any{"name": "x", "iam_id": n.boot.Owner, "apikey": secrets[2]})
	n.call(secrets[1], "DELETE", "/v1/apikeys/"+id, nil)
	n.signIn(url.Values{"grant_type": {grant}, "apikey": {secrets[1]}})
	n.must(200, n.call(n.admin, "GET", "/v1/apikeys/details", nil, "IAM-ApiKey", value))
	n.must(204, n.call(token, "POST", "/v1/apikeys/"+id+"/lock", nil))
	n.must(409, n.call(token, "DELETE", "/v1/apikeys/"+id, nil))

	sub, err := n.log.Subscribe(t.Context(), eventlog.SubscribeOptions{Prefixes: []string{domain.EvidencePrefix, domain.MachineryPrefix}, FromStart: true})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	for count := 0; ; {
		d, err := sub.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if d.CaughtUp {
			if count < 6 {
				t.Errorf("looked at %d events only", count)
			}
			break
		}
		if d.Event == nil {
			continue
		}
		count++
		for _, secret := range secrets {
			if strings.Contains(string(d.Event.Data)+string(d.Event.Meta)+d.Event.Stream, secret) {
				t.Errorf("%s@%d holds a secret", d.Event.Stream, d.Event.Revision)
			}
		}
	}
}

func TestAKeyIsFoundByItsValueWhichIsNotEchoed(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	id, value := n.createKey(n.admin, n.boot.Owner, "k")
	r := n.must(200, n.call(n.admin, "GET", "/v1/apikeys/details?include_history=true", nil, "IAM-ApiKey", value))
	if r.field("id") != id || strings.Contains(r.raw, value) {
		t.Errorf("details: %s", r.raw)
	}
	n.must(404, n.call(n.admin, "GET", "/v1/apikeys/details", nil, "IAM-ApiKey", "kt_none"))
	n.must(400, n.call(n.admin, "GET", "/v1/apikeys/details", nil))
	if !keystore.IsKeyValue(value) {
		t.Errorf("value has no valid checksum")
	}
}

func TestAListWaitsForWhatThisNodeWrote(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	id, _ := n.createKey(n.admin, n.boot.Owner, "k")
	pos := n.must(204, n.call(n.admin, "POST", "/v1/apikeys/"+id+"/lock", nil)).header.Get("Keytrail-Position")
	r := n.must(200, n.call(n.admin, "GET", "/v1/apikeys?pagesize=1", nil))
	if got := n.waits.last; strings.TrimLeft(pos, "0") == "" || pos != uintText(got) {
		t.Errorf("waited for %d, wrote %s", got, pos)
	}
	if r.header.Get("Keytrail-Lag") == "" || !strings.Contains(r.field("next"), "pagetoken=more") || !strings.Contains(r.field("next"), "pagesize=1") {
		t.Errorf("header %v, next %q", r.header, r.field("next"))
	}
}

// TestListPermission: what a member may list is what it may read, kind by kind.
func TestListPermission(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	keys := map[string]string{
		"member": n.member("User-m"), "Viewer": n.member("User-v", domain.RoleViewer),
		"Auditor": n.member("User-a", domain.RoleAuditor), "Administrator": n.member("User-adm", domain.RoleAdministrator),
	}
	account := "&account_id=" + string(n.boot.Account)
	for _, tt := range []struct {
		query string
		ok    string
	}{
		{"", "member Viewer Auditor Administrator"},
		{"?scope=account" + account, "Auditor Administrator"},
		{"?scope=account&type=serviceid" + account, "Viewer Auditor Administrator"},
		{"?scope=account&type=user" + account, "Auditor Administrator"},
		{"?iam_id=User-v" + account, "Viewer Auditor Administrator"},
	} {
		for who, key := range keys {
			want := http.StatusForbidden
			if strings.Contains(" "+tt.ok+" ", " "+who+" ") {
				want = http.StatusOK
			}
			if r := n.call(key, "GET", "/v1/apikeys"+tt.query, nil); r.status != want {
				t.Errorf("%s lists %q: %d, want %d: %s", who, tt.query, r.status, want, r.raw)
			}
		}
	}
}

func TestWithoutTheDirectoryNobodyIsLetIn(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.stop()
	r := n.call(n.admin, "GET", "/v1/apikeys", nil)
	if code, _ := r.failure(); r.status != 503 || code != "directory_not_ready" || r.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", r.status, r.raw)
	}
	if r := n.signIn(url.Values{"grant_type": {grant}, "apikey": {n.admin}}); r.status != 503 {
		t.Errorf("sign-in: %d", r.status)
	}
}

func TestASignInThatIsNotRecordedGivesNoToken(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.uses.err = errors.Join(domain.Errorf(domain.Unavailable, "later"))
	r := n.signIn(url.Values{"grant_type": {grant}, "apikey": {n.admin}})
	if r.status != 503 || strings.Contains(r.raw, "access_token") {
		t.Errorf("%d %s", r.status, r.raw)
	}
}
