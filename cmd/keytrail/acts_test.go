package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// act is a call that gives a command, and the record that it must leave. $name stands for
// what an earlier act has kept.
type act struct {
	call, body string
	ifMatch    bool
	status     int
	keep       string // name=field of the answer
	action     string // Of the record; "" for none of its own.
	severity   string
	failed     bool // Somebody failed who is not the caller, and nobody knows.
}

// acts gives every command of the API once, and some that are refused.
func acts() []act {
	const (
		key, service = "iam-identity.user-apikey.", "iam-identity.account-serviceid."
		user         = "user-management.user."
		n, w, c      = "normal", "warning", "critical"
	)
	return []act{
		{call: "POST /v1/accounts", body: `{"name":"Other"}`, status: 201, keep: "other=id", action: "iam-identity.account.create", severity: n},
		{call: "POST /v1/apikeys", body: `{"name":"demo","iam_id":"$me"}`, status: 201, keep: "key=id", action: key + "create", severity: n},
		{call: "PUT /v1/apikeys/$key", body: `{"name":"renamed"}`, ifMatch: true, status: 200, action: key + "update", severity: w},
		{call: "POST /v1/apikeys/$key/lock", status: 204, action: key + "lock", severity: w},
		{call: "PUT /v1/apikeys/$key", body: `{"name":"x"}`, ifMatch: true, status: 409, action: key + "update", severity: c},
		{call: "DELETE /v1/apikeys/$key", status: 409, action: key + "delete", severity: c},
		{call: "DELETE /v1/apikeys/$key/lock", status: 204, action: key + "unlock", severity: w},
		{call: "POST /v1/apikeys/$key/disable", status: 204, action: key + "disable", severity: w},
		{call: "DELETE /v1/apikeys/$key/disable", status: 204, action: key + "enable", severity: w},
		{call: "POST /v1/apikeys/$key/rotate", body: `{"overlap":"1h"}`, status: 201, keep: "next=id", action: key + "rotate", severity: c},
		{call: "DELETE /v1/apikeys/$key", status: 204, action: key + "delete", severity: c},
		{call: "DELETE /v1/apikeys/ApiKey-none", status: 404, action: key + "delete", severity: c},
		{call: "POST /v1/apikeys/verify", body: `{"apikey":"kt_unknown"}`, status: 200, action: key + "login", severity: c, failed: true},
		{call: "POST /v1/authorize", body: `{"apikey":"$admin"}`, status: 200, action: key + "login", severity: n},
		{call: "POST /v1/serviceids", body: `{"name":"ci"}`, status: 201, keep: "ci=id", action: service + "create", severity: n},
		{call: "PUT /v1/serviceids/$ci", body: `{"name":"cd"}`, ifMatch: true, status: 200, action: service + "update", severity: w},
		{call: "POST /v1/serviceids/$ci/lock", status: 204, action: service + "lock", severity: w},
		{call: "DELETE /v1/serviceids/$ci", status: 409, action: service + "delete", severity: c},
		{call: "DELETE /v1/serviceids/$ci/lock", status: 204, action: service + "unlock", severity: w},
		{call: "DELETE /v1/serviceids/$ci", status: 204, action: service + "delete", severity: c},
		{call: "PUT /v1/accounts/$home/settings/identity", body: `{"record_reads":true}`, ifMatch: true, status: 200, action: "iam-identity.account-settings.update", severity: w},
		{call: "PUT /v1/accounts/$home/limits/identity", body: `{"apikeys_per_identity":30}`, status: 200, action: "iam-identity.account-limits.update", severity: w},
		{call: "POST /v1/accounts/$home/limits/identity", body: `{"apikeys_per_identity":["$me"]}`, status: 200},
		{call: "PUT /v1/accounts/$home/settings/access_management", body: accessBody, ifMatch: true, status: 200, action: "iam-access-management.account-settings.update", severity: w},
		{call: "PATCH /v1/accounts/$home/settings/access_management", body: strings.ReplaceAll(accessBody, "monitor", "enabled"), ifMatch: true, status: 200, action: "iam-access-management.account-settings.update", severity: w},
		{call: "PUT /v1/accounts/$home/security_contacts", body: `{"contacts":[{"name":"Ada","email":"ada@example.com"}]}`, status: 200, action: "user-management.security-contacts.update", severity: w},
		{call: "POST /v1/accounts/$home/security_contacts/confirm", status: 200, action: "user-management.security-contacts.confirm", severity: w},
		{call: "POST /v2/accounts/$home/users", body: `{"users":[{"email":"bob@example.com"}]}`, status: 202, keep: "bob=resources.0.id", action: user + "invite", severity: n},
		{call: "PATCH /v2/accounts/$home/users/$bob", body: `{"name":"Bob"}`, status: 204, action: user + "update", severity: w},
		{call: "PATCH /v2/accounts/$home/users/$bob/settings", body: `{"allowed_ip_addresses":"192.0.2.0/24"}`, status: 204, action: user + "update", severity: w},
		{call: "PUT /v2/accounts/$home/users/$bob/roles", body: `{"roles":["Viewer"]}`, status: 200, action: user + "update", severity: w},
		{call: "PUT /v2/accounts/$home/users/$me/roles", body: `{"roles":["Viewer"]}`, status: 409, action: user + "update", severity: w},
		{call: "PUT /v2/accounts/$home/users/$bob/parent", body: `{"parent":"$bob"}`, status: 409, action: user + "update", severity: w},
		{call: "PUT /v2/accounts/$home/users/$bob/functional", status: 204, action: user + "update", severity: w},
		{call: "DELETE /v2/accounts/$home/users/$bob/functional", status: 204, action: user + "update", severity: w},
		{call: "PUT /v1/identities/$bob/grants", body: `[{"account_id":"$home","actions":["s3:*"],"resources":["*"]}]`, status: 200, action: "iam-access-management.grants.update", severity: w},
		{call: "DELETE /v2/accounts/$home/users/$bob", status: 204, action: user + "delete", severity: c},
		{call: "POST /v1/activity/accounts/$home/report", status: 202, action: "iam-identity.account-report.create", severity: n},
		{call: "DELETE /v1/sessions/none", status: 404, action: "iam-identity.user-session.revoke", severity: c},
		{call: "POST /v1/legal-holds", body: `{"id":"case-7","reason":"r"}`, status: 201, action: "legal-hold.hold.set", severity: w},
		{call: "POST /v1/legal-holds/case-7/release", body: `{"reason":"over"}`, status: 200, action: "legal-hold.hold.release", severity: w},
		{call: "POST /v1/usage", body: `{"id":"u1","time":"2026-11-01T00:00:00Z","key_id":"$next","action":"s3.get"}`, status: 202},
	}
}

const accessBody = `{"external_account_identity_interaction":{"identity_types":{"user":{"state":"monitor"}}}}`

// machineCalls are commands to the installation, which machinery's own streams record, and
// those whose records are uses of keys.
func machineCalls() []string {
	return []string{
		"DELETE /v1/projections/generations/{}", "POST /v1/projections/generations", "POST /v1/projections/poison/replay", "POST /v1/projections/verify",
		"POST /v1/horizon/check", "POST /v1/horizon/seal", "POST /v1/imports/cloudtrail", "POST /identity/token", "POST /identity/introspect",
	}
}

// TestEveryCommandLeavesItsRecord: of every route that gives a command, carried out or
// refused, with or without a credential; and every record of the run is of the published
// schema.
func TestEveryCommandLeavesItsRecord(t *testing.T) {
	s := newSystem(t)
	me, home := s.me()
	known := map[string]string{"me": me, "home": home, "admin": s.api.Key()}
	_, operations := s.operations()
	given := map[string]bool{}
	list := acts()
	for i, a := range list {
		method, path, _ := strings.Cut(expand(a.call, known), " ")
		status, body := s.act(method, path, expand(a.body, known), fmt.Sprint("act-", i), a.ifMatch, true)
		if status != a.status {
			t.Errorf("%s: %d, want %d: %s", a.call, status, a.status, body)
			continue
		}
		keepField(t, known, a, body)
		given[templateOf(operations, method, path)] = true
		if a.action != "" && a.status < 300 {
			if status, body := s.act(method, path, expand(a.body, known), fmt.Sprint("nobody-", i), a.ifMatch, false); status != http.StatusUnauthorized {
				t.Errorf("%s without a credential: %d %s", a.call, status, body)
			}
		}
	}
	for _, o := range operations {
		call := unnamed(o.Method + " " + o.Path)
		if o.Method != http.MethodGet && !given[call] && !slices.Contains(machineCalls(), call) {
			t.Errorf("nobody gave %s", call)
		}
	}
	records := s.exported()
	checkRecords(t, list, records)
	checkSchema(t, records)
}

// checkRecords demands the record of each act, and of each that nobody was allowed.
func checkRecords(t *testing.T, list []act, records []map[string]any) {
	t.Helper()
	found := map[string][]map[string]any{}
	for _, r := range records {
		id, _ := r["correlationId"].(string)
		found[id] = append(found[id], r)
	}
	for i, a := range list {
		if a.action == "" {
			continue
		}
		of := found[fmt.Sprint("act-", i)]
		at := slices.IndexFunc(of, func(r map[string]any) bool { return r["action"] == a.action })
		if at < 0 {
			t.Errorf("%s (%d) left %v, want %s", a.call, a.status, actionsOf(of), a.action)
			continue
		}
		r := of[at]
		failed := a.status >= 400 || a.failed
		if r["severity"] != a.severity || (r["outcome"] == "failure") != failed || field(r, "initiator.name") == "" && r["dataEvent"] == false && !a.failed {
			t.Errorf("%s (%d): %v %v by %q, want %s", a.call, a.status, r["outcome"], r["severity"], field(r, "initiator.name"), a.severity)
		}
		if a.status >= 300 {
			continue
		}
		refusals := found[fmt.Sprint("nobody-", i)]
		if len(refusals) != 1 || refusals[0]["outcome"] != "failure" || refusals[0]["severity"] != "critical" {
			t.Errorf("%s without a credential left %v", a.call, actionsOf(refusals))
		}
	}
}

func actionsOf(records []map[string]any) []string {
	var out []string
	for _, r := range records {
		out = append(out, fmt.Sprint(r["action"], " ", r["outcome"]))
	}
	return out
}

// checkSchema holds every record against the published schema.
func checkSchema(t *testing.T, records []map[string]any) {
	t.Helper()
	schema, err := jsonschema.NewCompiler().Compile(filepath.Join("..", "..", "docs", "schema", "activity.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	actions := map[any]int{}
	for _, r := range records {
		actions[r["action"]]++
		if err := schema.Validate(r); err != nil {
			text, _ := json.Marshal(r)
			t.Errorf("%v\n%s", err, text)
		}
	}
	t.Logf("%d records of %d actions are of the schema", len(records), len(slices.Collect(maps.Keys(actions))))
}

// act sends one call.
func (s *system) act(method, path, body, correlation string, ifMatch, signedIn bool) (int, []byte) {
	s.t.Helper()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.srv.Address+path, in)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Transaction-Id", correlation)
	if ifMatch {
		req.Header.Set("If-Match", "*")
	}
	if signedIn {
		req.Header.Set("Authorization", "Bearer "+s.api.Key())
	}
	return s.send(req)
}

// templateOf returns the route that a path is of.
func templateOf(operations []operation, method, path string) string {
	best := ""
	for _, o := range operations {
		have, want := strings.Split(path, "/"), strings.Split(o.Path, "/")
		if o.Method != method || len(have) != len(want) {
			continue
		}
		fits := true
		for i := range have {
			fits = fits && (have[i] == want[i] || strings.HasPrefix(want[i], "{"))
		}
		if fits && (best == "" || !strings.Contains(o.Path, "{")) {
			best = unnamed(method + " " + o.Path)
		}
	}
	return best
}

func keepField(t *testing.T, known map[string]string, a act, body []byte) {
	t.Helper()
	name, path, ok := strings.Cut(a.keep, "=")
	if !ok {
		return
	}
	var v any
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&v); err != nil {
		t.Fatal(err)
	}
	if list, rest, in := strings.Cut(path, ".0."); in {
		m, _ := v.(map[string]any)
		v, path = m[list].([]any)[0], rest
	}
	known[name] = field(v, path)
}
