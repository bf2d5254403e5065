package domain_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"example.com/keytrail/domain"
)

// recordSchema returns the published schema of an activity record.
func recordSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	s, err := jsonschema.NewCompiler().Compile(filepath.Join("..", "docs", "schema", "activity.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestEveryRecordIsOfThePublishedSchema: of every event, of every class of refusal, and of
// uses that say much and little.
func TestEveryRecordIsOfThePublishedSchema(t *testing.T) {
	t.Parallel()
	schema := recordSchema(t)
	check := func(name string, a domain.Activity, ext domain.Extension) {
		t.Helper()
		text, err := domain.MarshalCADF(a, ext)
		if err != nil {
			t.Fatal(err)
		}
		record, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(record); err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
	events := samples()
	for code, status := range map[domain.Code]int{
		domain.Forbidden: 403, domain.NotFound: 404, domain.Conflict: 409, domain.PreconditionFailed: 412, domain.Unauthenticated: 401,
	} {
		events = append(events, domain.CommandRefused{
			Action: "iam-identity.user-apikey.lock", Account: "acct1", Target: "ApiKey-1", TargetKind: "user", Status: status, Code: code, Reason: "why", Count: 1,
		})
	}
	for _, e := range events {
		if a, ok := domain.ActivityOf(recorded(e)); ok {
			check(e.Type(), a, domain.Extension{Position: 99, Stream: "kt.x", Revision: 4, EventType: e.Type()})
		}
	}
	for _, u := range []domain.Use{{}, {
		ID: "u1", Time: t0, Account: "acct1", KeyID: "AKIA1", IAMID: "iam-ServiceId-1", Action: "s3:GetObject", Outcome: domain.OutcomeFailure, Status: 403,
		ErrorCode: "AccessDenied", Source: "2001:db8::1", UserAgent: "cli", Target: "arn:aws:s3:::b", RequestID: "r", Labels: map[string]string{"a": "b"},
	}} {
		check("use "+u.ID, domain.ActivityOfUse(u, 7, 3), domain.Extension{Position: 7, Index: 3, Stream: "kt.usage-client-01", Revision: 4, EventType: domain.TypeUsageRecorded})
	}
}

// TestARecordThatIsNotWholeIsNotOfTheSchema: the schema demands what events.md does.
func TestARecordThatIsNotWholeIsNotOfTheSchema(t *testing.T) {
	t.Parallel()
	schema := recordSchema(t)
	refused := domain.CommandRefused{
		Action: "iam-identity.user-apikey.lock", Account: "acct1", Target: "ApiKey-1", TargetKind: "user", Status: 403, Code: domain.Forbidden, Reason: "why", Count: 1,
	}
	tests := []struct {
		name   string
		change func(*domain.Activity)
		valid  bool
	}{
		{name: "as it is", change: func(*domain.Activity) {}, valid: true},
		{name: "no reason for a failure", change: func(a *domain.Activity) { a.Reason = "" }},
		{name: "a failure with the status of a success", change: func(a *domain.Activity) { a.ReasonCode = 204 }},
		{name: "nobody was refused a right", change: func(a *domain.Activity) { a.Initiator.IAMID, a.Initiator.Name = "", "" }},
		{name: "the refused has no name", change: func(a *domain.Activity) { a.Initiator.Name = "" }},
		{name: "a message without failure", change: func(a *domain.Activity) { a.Message = "IAM Identity Service: lock user-apikey x" }},
		{name: "no correlation", change: func(a *domain.Activity) { a.CorrelationID = "" }},
		{name: "no name of IBM's for a lock", change: func(a *domain.Activity) { a.RequestData = []byte(`{}`) }},
		{name: "an unknown severity", change: func(a *domain.Activity) { a.Severity = "high" }},
		{name: "an action of one part", change: func(a *domain.Activity) { a.Action = "lock" }},
		{name: "a change without the old value", change: func(a *domain.Activity) {
			a.RequestData = []byte(`{"compatAction":"iam-identity.user-apikey.update","changes":[{"field":"name","new":"b"}]}`)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, _ := domain.ActivityOf(recorded(refused))
			tt.change(&a)
			text, err := domain.MarshalCADF(a, domain.Extension{Position: 99, Stream: "kt.x", EventType: domain.TypeCommandRefused})
			if err != nil {
				t.Fatal(err)
			}
			record, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(record); (err == nil) != tt.valid {
				t.Errorf("%v, want valid: %v\n%s", err, tt.valid, text)
			}
		})
	}
}
