package domain_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
)

// TestWhereAKeyMayBeUsed: the target's account decides whether those of other accounts are
// let in, then the grants there.
func TestWhereAKeyMayBeUsed(t *testing.T) {
	t.Parallel()
	grants := domain.Grants{{Actions: []string{"cos.*"}, Resources: []string{"crn:*:bucket"}}}
	where := func(id domain.AccountID, state domain.InteractionState, allowed []domain.AccountID, g domain.Grants) domain.Account {
		i := domain.Interaction{State: state, Allowed: allowed}
		return domain.FoldAccount([]domain.Recorded{
			{Event: domain.AccountCreated{Account: id, Name: "n", Owner: "User-owner"}},
			{Event: domain.MemberAdded{Account: id, IAMID: "User-1", Name: "u"}},
			{Event: domain.AccessSettingsSet{Account: id, New: domain.AccessSettings{User: i, ServiceID: domain.Interaction{State: domain.InteractionEnabled}}}},
			{Event: domain.GrantsSet{Account: id, IAMID: "User-1", New: g}},
		})
	}
	crossing := func(permit, enforced bool) *domain.Crossing {
		return &domain.Crossing{Account: elsewhere, Permit: permit, Enforced: enforced}
	}
	tests := []struct {
		name           string
		where          domain.Account
		stranger       bool
		iam            domain.IAMID
		action, target string
		code           domain.VerifyCode
		crossing       *domain.Crossing
	}{
		{name: "at home, nothing said", where: where(home, domain.InteractionLimited, nil, grants), code: domain.VerifyValid},
		{name: "at home, no grants", where: where(home, domain.InteractionLimited, nil, nil), action: "x.y.z", target: "t", code: domain.VerifyValid},
		{name: "at home, granted", where: where(home, "", nil, grants), action: "cos.object.get", target: "crn:a:bucket", code: domain.VerifyValid},
		{name: "at home, another action", where: where(home, "", nil, grants), action: "iam.x.y", target: "crn:a:bucket", code: domain.VerifyForbidden},
		{name: "at home, another target", where: where(home, "", nil, grants), action: "cos.object.get", target: "crn:a:key", code: domain.VerifyForbidden},
		{name: "at home, no target", where: where(home, "", nil, grants), action: "cos.object.get", code: domain.VerifyForbidden},
		{name: "where it is nobody", where: where(elsewhere, domain.InteractionEnabled, nil, nil), stranger: true, code: domain.VerifyForbidden},
		{name: "where nobody lives", stranger: true, code: domain.VerifyForbidden},
		{name: "let in, enabled", where: where(elsewhere, domain.InteractionEnabled, nil, nil), code: domain.VerifyValid, crossing: crossing(true, true)},
		{name: "let in, on the list", where: where(elsewhere, domain.InteractionLimited, []domain.AccountID{home}, nil), code: domain.VerifyValid, crossing: crossing(true, true)},
		{name: "kept out", where: where(elsewhere, domain.InteractionLimited, []domain.AccountID{"a3"}, nil), code: domain.VerifyCrossAccountRefused, crossing: crossing(false, true)},
		{name: "kept out before grants are asked", where: where(elsewhere, domain.InteractionLimited, nil, grants), action: "x", code: domain.VerifyCrossAccountRefused, crossing: crossing(false, true)},
		{name: "only recorded", where: where(elsewhere, domain.InteractionMonitor, nil, nil), code: domain.VerifyValid, crossing: crossing(false, false)},
		{name: "watched, and on the list", where: where(elsewhere, domain.InteractionMonitor, []domain.AccountID{home}, nil), code: domain.VerifyValid, crossing: crossing(true, false)},
		{name: "let in, not granted", where: where(elsewhere, domain.InteractionEnabled, nil, grants), action: "x", code: domain.VerifyForbidden, crossing: crossing(true, true)},
		{name: "service IDs have their own setting", where: where(elsewhere, domain.InteractionLimited, nil, nil), iam: domain.ServiceIAMID("ServiceId-1"), code: domain.VerifyValid, crossing: crossing(true, true)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.iam == "" {
				tt.iam = "User-1"
			}
			q := domain.AccessQuestion{
				Key: domain.KeyState{ID: "k", Account: home, IAMID: tt.iam}, Action: tt.action, Target: tt.target, Where: tt.where, Known: !tt.stranger,
			}
			code, reason, got := q.Decide()
			if diff := cmp.Diff(tt.crossing, got); diff != "" || code != tt.code || (reason == "") != (code == domain.VerifyValid) {
				t.Errorf("%s %q, want %s; decision (-want +got):\n%s", code, reason, tt.code, diff)
			}
		})
	}
}

func TestTheAccountOfACRN(t *testing.T) {
	t.Parallel()
	for crn, want := range map[string]domain.AccountID{
		"crn:v1:bluemix:public:cloud-object-storage:global:a/acct1:guid:bucket:b": "acct1",
		"crn:v1:bluemix:public:cloud-object-storage:global:a/acct1:guid::":        "acct1",
		domain.KeyCRN("acct1", "k"):                        "acct1",
		"crn:v1:bluemix:public:is:us-south:o/org:guid:x:y": "",
		"crn:v1:bluemix:public:is:us-south::guid:x:y":      "",
		"crn:v1:bluemix:public:is:us-south:a/:guid:x:y":    "",
		"crn:v1:bluemix:public:is:us-south:a/a b:guid:x:y": "",
		"crn:v1:a/acct1": "",
		"arn:v1:bluemix:public:is:us-south:a/acct1:g::": "",
		"acct1": "", "": "",
	} {
		if got := domain.AccountOfCRN(crn); got != want {
			t.Errorf("%q: %q, want %q", crn, got, want)
		}
	}
}

// TestADecisionIsInItsRecord as IBM words it.
func TestADecisionIsInItsRecord(t *testing.T) {
	t.Parallel()
	a := domain.ActivityOfUse(domain.Use{Action: domain.ActionAccessEval, Labels: map[string]string{"decision": "Deny", "isEnforced": "false"}}, 1, 0)
	if got := string(a.RequestData); got != `{"labels":{"decision":"Deny","isEnforced":"false"},"decision":"Deny","isEnforced":false,"index":0}` {
		t.Errorf("%s", got)
	}
}
