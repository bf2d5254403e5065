package query_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
)

// leaves lists the scalar values in a record by their path.
func leaves(prefix string, v any, out map[string]string) {
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			path := name
			if prefix != "" {
				path = prefix + "." + name
			}
			leaves(path, inner, out)
		}
	case string:
		out[prefix] = v
	case json.Number:
		out[prefix] = v.String()
	case bool:
		out[prefix] = fmt.Sprint(v)
	}
}

func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `*`, `\*`, "\n", `\n`, "\t", `\t`, "\r", `\r`).Replace(s) + `"`
}

func pick[T any](r *rand.Rand, values ...T) T { return values[r.IntN(len(values))] }

// randomTime is a time that the record shows in full: eventTime ends at hundredths.
func randomTime(r *rand.Rand) time.Time {
	return now.Truncate(time.Second).Add(-time.Duration(r.IntN(1000)) * 10 * time.Millisecond)
}

// randomUse is a use of which any field may be missing or odd.
func randomUse(r *rand.Rand, position uint64) use {
	u := use{position: position, block: 1}
	u.Use = domain.Use{
		ID: pick(r, "", fmt.Sprint("id-", position)), Time: randomTime(r), Account: pick(r, accountA, accountB),
		KeyID: pick[domain.KeyID](r, "", "ApiKey-1", "AKIA.1"), IAMID: pick[domain.IAMID](r, "", "IBMid-1", "iam-ServiceId-9", "system", "iam-x"),
		Action: pick(r, "", "s3.object.get", "iam-identity.user-apikey.login", "iam-identity.x", "s3:GetObject", "a.b", "single", "a.b.c.d", "x..y"),
		Access: pick(r, "", domain.AccessRead, domain.AccessWrite), Outcome: pick(r, "", domain.OutcomeSuccess, domain.OutcomeFailure, domain.OutcomePending),
		Status: pick(r, 0, 200, 204, 400, 401, 403, 404, 409, 413, 422, 500, 503, 507, 599), ErrorCode: pick(r, "", "AccessDenied", "Client.UnauthorizedOperation", "NoSuchKey"),
		Source: pick(r, "", "192.0.2.7", "2001:db8::7", "AWS Internal", "::ffff:10.0.0.1", "300.1.1.1"), UserAgent: pick(r, "", "curl/8 \"x\"", "50%_\\ *"),
		Region: pick(r, "", "eu-de"), Target: pick(r, "", "arn:aws:s3:::b/k", "O'Reilly -- ü"), RequestID: pick(r, "", "req-1"), LatencyMS: uint32(r.IntN(3)),
		Bytes: pick(r, uint64(0), 1<<63), Country: pick(r, "", "DE"), ASN: uint32(r.IntN(2)) * 3320, KeyFingerprint: pick(r, "", "hmac-sha256:ab"),
	}
	if r.IntN(2) == 0 {
		u.Labels = map[string]string{"team": "core", "k8s.io/name": "p'o\"d"}
	}
	return u
}

func randomEvent(r *rand.Rand, position uint64) event {
	e := keyEvent(pick(r, accountA, accountB), pick[domain.KeyID](r, "", "ApiKey-1"), randomTime(r), position)
	e.Outcome, e.ReasonCode, e.Reason = pick(r, domain.OutcomeSuccess, domain.OutcomeFailure), pick(r, 200, 201, 403, 409), pick(r, "", "locked")
	e.Initiator.Type = pick(r, "", domain.ActorUser, domain.ActorServiceID, domain.ActorClientID, domain.ActorSystem)
	e.Initiator.Address = pick(r, "", "192.0.2.7", "2001:db8::7", "host.example")
	e.Initiator.AuthnID, e.Initiator.Credential, e.Initiator.CredentialID = pick(r, "", "IBMid-2"), pick(r, "", "token"), pick[domain.KeyID](r, "", "ApiKey-9")
	return e
}

// TestAFilterOnAnyShownFieldFindsTheRecord holds the filter's expressions to what the
// records show: whatever a record shows at a path finds it under that path.
func TestAFilterOnAnyShownFieldFindsTheRecord(t *testing.T) {
	f := newFixture(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	events, uses := make([]event, 0, 25), make([]use, 0, 25)
	for i := range uint64(25) {
		events, uses = append(events, randomEvent(r, 2*i+1)), append(uses, randomUse(r, 2*i+2))
	}
	f.addEvents(events...)
	f.addUses(uses...)
	f.progress.set(1, 1000)
	var page eventsPage
	f.get("/v1/events", url.Values{"limit": {"1000"}}, &page)
	if len(page.Events) != len(events)+len(uses) {
		t.Fatalf("%d records are shown, want %d", len(page.Events), len(events)+len(uses))
	}
	// What a record shows at a path; each distinct one is asked for once.
	asked, wanted := map[string][]string{}, map[string]string{}
	for _, text := range page.Events {
		var record any
		dec := json.NewDecoder(strings.NewReader(string(text)))
		dec.UseNumber()
		if err := dec.Decode(&record); err != nil {
			t.Fatal(err)
		}
		shown := map[string]string{}
		leaves("", record, shown)
		for path, value := range shown {
			question := path + "=" + quoted(value)
			asked[question] = append(asked[question], shown["keytrail.position"])
			wanted[question] = path
		}
	}
	paths := map[string]int{}
	for question, path := range wanted {
		// Each path three times is enough: every value of it would take minutes.
		if paths[path]++; paths[path] > 3 {
			continue
		}
		var found eventsPage
		f.get("/v1/events", url.Values{"filter": {question}, "limit": {"1000"}}, &found)
		got := make([]string, 0, len(found.Events))
		for _, text := range found.Events {
			var e shown
			if err := json.Unmarshal(text, &e); err != nil {
				t.Fatal(err)
			}
			got = append(got, e.Keytrail.Position)
		}
		want := slices.Clone(asked[question])
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("filter %s: positions (-shown +found):\n%s", question, diff)
		}
	}
	if len(paths) < 40 {
		t.Errorf("only %d paths were tried", len(paths))
	}
}

func TestEveryExampleOfAFilterFindsWhatItSays(t *testing.T) {
	f := newFixture(t)
	create, login := keyEvent(accountA, "ApiKey-1", now.Add(-time.Hour), 1), keyEvent(accountA, "ApiKey-1", now.Add(-2*time.Hour), 2)
	create.Action, login.Action = "iam-identity.user-apikey.create", "iam-identity.user-apikey.login"
	create.Severity = domain.SeverityNormal
	login.Outcome, login.ReasonCode, login.Severity, login.Initiator.IAMID = domain.OutcomeFailure, 403, domain.SeverityCritical, ""
	login.RequestData = nil
	read, denied := keyUse(accountB, "ApiKey-2", now.Add(-3*time.Hour), 3, 0), keyUse(accountB, "ApiKey-2", now.AddDate(0, 0, -30), 4, 0)
	read.Labels = map[string]string{"team": "core"}
	denied.Outcome, denied.Status, denied.Source, denied.UserAgent = domain.OutcomeFailure, 403, "10.1.2.3", "Python-urllib/3"
	f.addEvents(create, login)
	f.addUses(read, denied)
	f.progress.set(1, 10)
	name := map[string]string{create.ID: "create", login.ID: "login", read.ID: "read", denied.ID: "denied"}
	tests := []struct {
		filter string
		want   []string
	}{
		{filter: "", want: []string{"create", "login", "read", "denied"}},
		{filter: `action:"iam-identity.user-apikey" AND NOT action:"login"`, want: []string{"create"}},
		{filter: `outcome="failure"`, want: []string{"login", "denied"}},
		{filter: `reason.reasonCode=403`, want: []string{"login", "denied"}},
		{filter: `reason.reasonType="Forbidden"`, want: []string{"login", "denied"}},
		{filter: `severity="critical"`, want: []string{"login", "denied"}},
		{filter: `initiator.id:*`, want: []string{"create", "read", "denied"}},
		{filter: `NOT initiator.id:*`, want: []string{"login"}},
		{filter: `action=("s3.object.get" OR "iam-identity.user-apikey.create")`, want: []string{"create", "read", "denied"}},
		{filter: `action!=("s3.object.get" OR "iam-identity.user-apikey.create")`, want: []string{"login"}},
		{filter: `action:iam-identity.*`, want: []string{"create", "login"}},
		{filter: `action=*.create`, want: []string{"create"}},
		{filter: `requestData.changes:"name"`, want: []string{"create"}},
		{filter: `requestData.nested.n>4`, want: []string{"create"}},
		{filter: `requestData.lock=true`, want: []string{"create"}},
		{filter: `requestData.keyId="ApiKey-2"`, want: []string{"read", "denied"}},
		{filter: `labels.team=core`, want: []string{"read"}},
		{filter: `requestData.labels.team:*`, want: []string{"read"}},
		{filter: `dataEvent=true`, want: []string{"read", "denied"}},
		{filter: `address=10.0.0.0/8`, want: []string{"denied"}},
		{filter: `address!=10.0.0.0/8 account_id=acct-b`, want: []string{"read"}},
		{filter: `agent:python`, want: []string{"denied"}},
		{filter: `time>-1d`, want: []string{"create", "login", "read"}},
		{filter: `eventTime<="2026-05-01"`, want: []string{"denied"}},
		{filter: `python-URLLIB`, want: []string{"denied"}},
		{filter: `key_id=ApiKey-1 OR key_id=ApiKey-2 AND -outcome=success`, want: []string{"login", "denied"}},
		{filter: `position>=3`, want: []string{"read", "denied"}},
		{filter: `keytrail.event_type="usage.recorded.v1"`, want: []string{"read", "denied"}},
	}
	for _, tt := range tests {
		t.Run(tt.filter, func(t *testing.T) {
			var page eventsPage
			f.get("/v1/events", url.Values{"filter": {tt.filter}}, &page)
			got := make([]string, 0, len(page.Events))
			for _, id := range page.ids(t) {
				got = append(got, name[id])
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("found (-want +got):\n%s", diff)
			}
		})
	}
}

// hostile holds values that have broken query languages, spreadsheets and parsers.
func hostile() []string {
	return []string{
		"'", `"`, "\\", "`", "') OR 1=1 --", "'; DROP TABLE usage; --", "?", "??", "{x:String}", "@p1", "$1", "%", "_", "\\%", "*", "**", "\x01", "\r\n",
		"ü", "\u202e", "\ufffd", "\xff", "\x00", "-1", "0", "18446744073709551616", "1e999", "NaN", "-inf", "0x10", "null", "true", "::", "0.0.0.0/0", "::/0",
		"1970-01-01", "2099-12-31T23:59:59Z", "9999-01-01", "-9999999d", "now", "a=1", "a:*", "(", "))", "file('/etc/passwd')", "x IN (SELECT 1)",
		"s3:*", "[", "(?i", "--", "/*", strings.Repeat("a", 600), strings.Repeat("(", 40), strings.Repeat("NOT ", 40) + "a", "action:" + strings.Repeat("%", 300),
	}
}

// FuzzNoParameterMakesTheServerFail asks the real engine with hostile parameters: the
// answer may refuse, but never with a fault of ours.
func FuzzNoParameterMakesTheServerFail(f *testing.F) {
	for _, h := range hostile() {
		f.Add(h, h)
	}
	f.Add("target.name", "O'Reilly")
	fields := []string{
		"id", "eventTime", "action", "reason.reasonCode", "reason.reasonType", "initiator.host.address", "requestData.a.b", "requestData", "labels.x", "dataEvent",
		"keytrail.position", "target.typeURI", "message", "asn", "severity",
	}
	fx := newFixture(f)
	fx.addEvents(keyEvent(accountA, "ApiKey-1", now, 1))
	fx.addUses(keyUse(accountA, "ApiKey-1", now, 2, 0))
	fx.progress.set(1, 10)
	f.Fuzz(func(t *testing.T, name, value string) {
		r := rand.New(rand.NewPCG(uint64(len(name)), uint64(len(value))))
		field := pick(r, fields...)
		filters := []string{value, field + "=" + value, field + pick(r, ":", "!=", "<", ">=") + quoted(value), "labels." + name + ":" + quoted(value), `requestData.` + quoted(name) + ">" + quoted(value)}
		for _, q := range []struct {
			path   string
			params url.Values
		}{
			{"/v1/events", url.Values{"filter": {pick(r, filters...)}}},
			{"/v1/events", url.Values{"from": {value}, "to": {name}, "sort": {"asc"}}},
			{"/v1/events", url.Values{"cursor": {value}, "limit": {name}}},
			{"/v1/events/" + url.PathEscape(value), url.Values{}},
			{"/v1/apikeys/" + url.PathEscape(value) + "/timeline", url.Values{"filter": {filters[0]}}},
			{"/v1/usage/series", url.Values{"key_id": {value}, "action": {name}, "by": {"agent"}}},
			{"/v1/usage/top", url.Values{"by": {"action"}, "filter": {pick(r, filters...)}, "iam_id": {value}}},
			{"/v1/findings", url.Values{"status": {value}, "rule_id": {name}, "key_id": {value}}},
			{"/v1/findings/" + url.PathEscape(value), url.Values{}},
		} {
			rec := ask(t, fx.engine, q.path, q.params)
			if rec.Code >= http.StatusInternalServerError {
				t.Errorf("GET %s %q: %d %s", q.path, q.params, rec.Code, rec.Body)
			}
		}
	})
}
