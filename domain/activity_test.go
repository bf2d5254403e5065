package domain_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
)

// recorded wraps e as the log would give it.
func recorded(e domain.Event) domain.Recorded {
	return domain.Recorded{
		Stream: "kt.apikey-ApiKey-1", Revision: 4, Position: 99, ID: domain.DeriveID("t", "1"), Type: e.Type(), Event: e,
		Meta: domain.Metadata{EffectiveAt: t0.Add(1234 * time.Millisecond), CorrelationID: "corr-1", Initiator: domain.Initiator{
			IAMID: "User-1", Name: "Ada", Type: domain.ActorUser, Account: "acct1", Credential: "token", CredentialID: "ApiKey-9", Address: "192.0.2.7", Agent: "curl",
		}},
	}
}

// noRecord says which events are no records: a usage batch, whose uses are, and what is
// reserved for a key, whose own events are.
func noRecord(e domain.Event) bool {
	return slices.Contains([]string{
		domain.TypeUsageRecorded, domain.TypeKeySlotTaken, domain.TypeKeySlotFreed, domain.TypeKeySlotsAdopted,
		domain.TypeKeyValueReserved, domain.TypeKeyValueReleased,
	}, e.Type())
}

// TestEveryEventButUsageIsAnActivity: the fields that every record must have.
func TestEveryEventButUsageIsAnActivity(t *testing.T) {
	t.Parallel()
	for _, e := range samples() {
		t.Run(e.Type(), func(t *testing.T) {
			t.Parallel()
			a, ok := domain.ActivityOf(recorded(e))
			if noRecord(e) {
				if ok {
					t.Error("is a record")
				}
				return
			}
			if !ok || a.Account != "acct1" || a.Action == "" || a.Severity == "" || a.Message == "" || a.Outcome == "" ||
				a.TargetID == "" || a.TargetType == "" || a.ReasonCode == 0 || a.CorrelationID != "corr-1" || a.Initiator.Name != "Ada" {
				t.Errorf("incomplete: %+v", a)
			}
			if a.DataEvent {
				t.Error("a management act is marked as use")
			}
			b, err := domain.MarshalCADF(a, domain.Extension{Position: 99, Stream: "s", Revision: 4, EventType: e.Type()})
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(b), "hmac-sha256") {
				t.Errorf("the record tells the secret's fingerprint: %s", b)
			}
		})
	}
}

func TestActivityOfKeyEvents(t *testing.T) {
	t.Parallel()
	s := domain.KeyState{ID: "ApiKey-1", Account: "acct1", Kind: domain.KindUser, Name: "demo-key"}
	of := func(kind domain.KeyKind, locked, disabled bool) domain.KeyState {
		s := s
		s.Kind, s.Locked, s.Disabled = kind, locked, disabled
		return s
	}
	tests := []struct {
		name, action, message string
		event                 domain.Event
		code                  int
		severity              domain.Severity
		request               string // Part of requestData.
	}{
		{"create", "iam-identity.user-apikey.create", "create user-apikey demo-key", domain.KeyCreated{After: s}, 201, domain.SeverityNormal, `"key_kind":"user"`},
		{"create for a service ID", "iam-identity.serviceid-apikey.create", "create serviceid-apikey demo-key", domain.KeyCreated{After: of(domain.KindServiceID, false, false)}, 201, domain.SeverityNormal, `"key_kind":"serviceid"`},
		{"update", "iam-identity.user-apikey.update", "update user-apikey demo-key", domain.KeyUpdated{Changes: []domain.Change{{Field: "name", Old: "a", New: "demo-key"}}, After: s}, 200, domain.SeverityWarning, `"prev_instance_name":"a"`},
		{"lock", "iam-identity.user-apikey.lock", "lock user-apikey demo-key", domain.KeyLocked{After: of(domain.KindUser, true, false)}, 204, domain.SeverityWarning, `"lock":true`},
		{"unlock", "iam-identity.user-apikey.unlock", "unlock user-apikey demo-key", domain.KeyUnlocked{After: s}, 204, domain.SeverityWarning, `"compatAction":"iam-identity.user-apikey.update"`},
		{"disable", "iam-identity.user-apikey.disable", "disable user-apikey demo-key", domain.KeyDisabled{After: of(domain.KindUser, false, true)}, 204, domain.SeverityWarning, `{"field":"disabled","old":"false","new":"true"}`},
		{"enable", "iam-identity.user-apikey.enable", "enable user-apikey demo-key", domain.KeyEnabled{After: s}, 204, domain.SeverityWarning, `{"field":"disabled","old":"true","new":"false"}`},
		{"delete", "iam-identity.user-apikey.delete", "delete user-apikey demo-key", domain.KeyDeleted{After: s}, 204, domain.SeverityCritical, `"key_id":"ApiKey-1"`},
		{"observed use", "iam-identity.external-apikey.observe", "observe external-apikey demo-key", domain.KeyObserved{Fact: domain.ObservedUse, SourceEvent: "e1", After: of(domain.KindExternal, false, false)}, 200, domain.SeverityNormal, `"source_event":"e1"`},
		{"observed delete", "iam-identity.external-apikey.delete", "delete external-apikey demo-key", domain.KeyObserved{Fact: domain.ObservedDeleted, After: of(domain.KindExternal, false, false)}, 200, domain.SeverityCritical, `"fact":"deleted"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, _ := domain.ActivityOf(recorded(tt.event))
			got := []any{a.Action, a.Message, a.ReasonCode, a.Severity, a.Outcome, a.TargetID}
			want := []any{tt.action, "IAM Identity Service: " + tt.message, tt.code, tt.severity, domain.OutcomeSuccess, "crn:v1:keytrail:public:iam-identity::a/acct1::apikey:ApiKey-1"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if !strings.Contains(string(a.RequestData), tt.request) {
				t.Errorf("requestData %s lacks %s", a.RequestData, tt.request)
			}
		})
	}
}

func TestActivityOfRefusals(t *testing.T) {
	t.Parallel()
	base := domain.CommandRefused{Action: "iam-identity.user-apikey.update", Target: "ApiKey-1", TargetName: "demo-key", TargetKind: "user", Status: 409, Code: domain.Conflict, Reason: "why", Count: 1}
	with := func(change func(*domain.CommandRefused)) domain.CommandRefused {
		e := base
		change(&e)
		return e
	}
	tests := []struct {
		name     string
		event    domain.CommandRefused
		severity domain.Severity
	}{
		{"a stale tag is a warning", base, domain.SeverityWarning},
		{"a locked key is critical", with(func(e *domain.CommandRefused) { e.Locked = true }), domain.SeverityCritical},
		{"a missing right is critical", with(func(e *domain.CommandRefused) { e.Status, e.Code = 403, domain.Forbidden }), domain.SeverityCritical},
		{"an unknown credential is critical, whatever was answered", with(func(e *domain.CommandRefused) { e.Status, e.Code = 400, domain.Unauthenticated }), domain.SeverityCritical},
		{"a refused delete is critical", with(func(e *domain.CommandRefused) { e.Action = "iam-identity.user-apikey.delete" }), domain.SeverityCritical},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, ok := domain.ActivityOf(recorded(tt.event))
			if !ok || a.Severity != tt.severity || a.Outcome != domain.OutcomeFailure || a.Reason != "why" || a.KeyID != "ApiKey-1" || a.Account != "acct1" {
				t.Errorf("%+v, want severity %s", a, tt.severity)
			}
			if want := " user-apikey demo-key -failure"; !strings.HasSuffix(a.Message, want) {
				t.Errorf("message %q does not end in %q", a.Message, want)
			}
		})
	}
	a, _ := domain.ActivityOf(recorded(with(func(e *domain.CommandRefused) { e.Count = 7 })))
	if !strings.Contains(string(a.RequestData), `"count":7`) {
		t.Errorf("a folded refusal does not say how often: %s", a.RequestData)
	}
}

// TestSeverityByActAndCode is the rule of events.md: the higher of the two.
func TestSeverityByActAndCode(t *testing.T) {
	t.Parallel()
	byCode := map[int]domain.Severity{200: domain.SeverityNormal, 201: domain.SeverityNormal, 204: domain.SeverityNormal, 404: domain.SeverityNormal}
	for _, c := range []int{400, 409, 424, 500, 502, 504, 505} {
		byCode[c] = domain.SeverityWarning
	}
	for _, c := range []int{401, 403, 503, 507} {
		byCode[c] = domain.SeverityCritical
	}
	byVerb := map[string]domain.Severity{
		"create": domain.SeverityNormal, "read": domain.SeverityNormal, "list": domain.SeverityNormal, "login": domain.SeverityNormal,
		"confirm": domain.SeverityWarning, "search": domain.SeverityNormal, "export": domain.SeverityNormal, "invite": domain.SeverityNormal,
		"update": domain.SeverityWarning, "lock": domain.SeverityWarning, "unlock": domain.SeverityWarning,
		"disable": domain.SeverityWarning, "enable": domain.SeverityWarning, "expire": domain.SeverityWarning,
		"delete": domain.SeverityCritical, "purge": domain.SeverityCritical, "rotate": domain.SeverityCritical, "leak": domain.SeverityCritical,
	}
	rank := map[domain.Severity]int{domain.SeverityNormal: 0, domain.SeverityWarning: 1, domain.SeverityCritical: 2}
	for verb, ofVerb := range byVerb {
		for code, ofCode := range byCode {
			want := ofVerb
			if rank[ofCode] > rank[want] {
				want = ofCode
			}
			if got := domain.SeverityOf("iam-identity.user-apikey."+verb, code); got != want {
				t.Errorf("%s with %d is %s, want %s", verb, code, got, want)
			}
		}
	}
}

func TestActivityOfUse(t *testing.T) {
	t.Parallel()
	use := func(change func(*domain.Use)) domain.Use {
		u := domain.Use{ID: "u1", Time: t0, Account: "acct1", KeyID: "AKIA1", Action: "s3:GetObject", Outcome: domain.OutcomeSuccess, Status: 200, Source: "2001:db8::1", UserAgent: "aws-cli"}
		change(&u)
		return u
	}
	tests := []struct {
		name     string
		use      domain.Use
		severity domain.Severity
		message  string
	}{
		{"a use that worked", use(func(*domain.Use) {}), domain.SeverityNormal, "use of AKIA1: s3:GetObject"},
		{"a use refused with a status", use(func(u *domain.Use) { u.Status, u.Outcome = 403, domain.OutcomeFailure }), domain.SeverityCritical, "use of AKIA1: s3:GetObject -failure"},
		{"a use refused without a status", use(func(u *domain.Use) {
			u.Status, u.Outcome, u.ErrorCode = 0, domain.OutcomeFailure, "Client.UnauthorizedOperation"
		}), domain.SeverityCritical, "use of AKIA1: s3:GetObject -failure"},
		{"a use that failed otherwise", use(func(u *domain.Use) { u.Status, u.Outcome, u.ErrorCode = 0, domain.OutcomeFailure, "NoSuchBucket" }), domain.SeverityWarning, "use of AKIA1: s3:GetObject -failure"},
		{"a use whose outcome nobody told", use(func(u *domain.Use) { u.Outcome, u.Status = "", 500 }), domain.SeverityWarning, "use of AKIA1: s3:GetObject -failure"},
		{"a sign-in", use(func(u *domain.Use) { u.Action = "iam-identity.user-apikey.login" }), domain.SeverityNormal, "IAM Identity Service: login user-apikey AKIA1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := domain.ActivityOfUse(tt.use, 7, 3)
			if a.Severity != tt.severity || a.Message != tt.message || !a.DataEvent || a.ID != "u1" || a.KeyID != "AKIA1" {
				t.Errorf("got %+v, want %s %q", a, tt.severity, tt.message)
			}
		})
	}
	if a := domain.ActivityOfUse(domain.Use{}, 7, 3); a.ID != "7-3" {
		t.Errorf("a use without an id is named %q", a.ID)
	}
}

// TestCADFHasTheFieldsOfEventsMD checks names, forms and constants of one whole record.
func TestCADFHasTheFieldsOfEventsMD(t *testing.T) {
	t.Parallel()
	a, _ := domain.ActivityOf(recorded(domain.CommandRefused{
		Action: "iam-identity.user-apikey.delete", Account: "acct1", Target: "ApiKey-1", TargetName: "demo-key", TargetKind: "user",
		Status: 409, Code: domain.Conflict, Reason: "key ApiKey-1 is locked", Locked: true, Count: 1,
	}))
	b, err := domain.MarshalCADF(a, domain.Extension{Position: 1 << 60, Stream: "kt.refused-w", Revision: 4, EventType: domain.TypeCommandRefused})
	if err != nil {
		t.Fatal(err)
	}
	var got, want any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	const text = `{
		"typeURI": "http://schemas.dmtf.org/cloud/audit/1.0/event", "eventType": "activity",
		"id": "` + "ID" + `", "eventTime": "2026-03-01T12:00:01.23+0000",
		"action": "iam-identity.user-apikey.delete", "outcome": "failure", "severity": "critical",
		"reason": {"reasonCode": 409, "reasonType": "Conflict", "reasonForFailure": "key ApiKey-1 is locked"},
		"initiator": {"id": "User-1", "name": "Ada", "typeURI": "service/security/account/user", "credential": {"type": "token", "id": "ApiKey-9"},
			"host": {"address": "192.0.2.7", "addressType": "IPv4", "agent": "curl"}},
		"target": {"id": "crn:v1:keytrail:public:iam-identity::a/acct1::apikey:ApiKey-1", "name": "demo-key", "typeURI": "iam-identity/user-apikey", "host": {}},
		"observer": {"name": "ActivityTracker"}, "correlationId": "corr-1", "dataEvent": false,
		"logSourceCRN": "crn:v1:keytrail:public:iam-identity::a/acct1:::", "saveServiceCopy": true,
		"message": "IAM Identity Service: delete user-apikey demo-key -failure",
		"requestData": {"instance_name": "demo-key", "lock": true, "key_id": "ApiKey-1", "key_kind": "user", "code": "conflict"},
		"keytrail": {"position": "1152921504606846976", "stream": "kt.refused-w", "revision": 4, "event_type": "command.refused.v1",
			"account_id": "acct1", "key_id": "ApiKey-1", "effective_at": "2026-03-01T12:00:01.234Z"}
	}`
	if err := json.Unmarshal([]byte(strings.Replace(text, "ID", a.ID, 1)), &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("CADF (-want +got):\n%s", diff)
	}
}
