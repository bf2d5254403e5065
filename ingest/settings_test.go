package ingest_test

import (
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/IBM/go-sdk-core/v5/core"
	"github.com/IBM/platform-services-go-sdk/iamidentityv1"
	"github.com/IBM/platform-services-go-sdk/iampolicymanagementv1"
	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
)

// TestIBMsSDKReadsAndChangesSettings, as its own integration test does it, and more.
func TestIBMsSDKReadsAndChangesSettings(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	client, account, owner := n.sdk(), string(n.boot.Account), string(n.boot.Owner)
	read, resp, err := client.GetAccountSettingsWithContext(t.Context(), &iamidentityv1.GetAccountSettingsOptions{AccountID: &account, IncludeHistory: new(true), ResolveUserMfa: new(false)})
	wantStatus(t, "get", 200, resp, err)
	if read.History == nil || read.RestrictUserDomains == nil || read.UserMfa == nil || *read.Mfa != "NONE" || *read.SessionExpirationInSeconds != "NOT_SET" || *read.RestrictUserListVisibility != "NOT_RESTRICTED" {
		t.Errorf("settings of a new account: %+v", read)
	}
	tag := resp.GetHeaders().Get("Etag")
	if tag == "" || tag != *read.EntityTag {
		t.Errorf("Etag %q, entity_tag %q", tag, *read.EntityTag)
	}
	domains := iamidentityv1.AccountSettingsUserDomainRestriction{RealmID: new("IBMid"), RestrictInvitation: new(false), InvitationEmailAllowPatterns: []string{"**@**ibm.com"}}
	change := &iamidentityv1.UpdateAccountSettingsOptions{
		IfMatch: &tag, AccountID: &account, RestrictCreateServiceID: new("NOT_RESTRICTED"), RestrictCreatePlatformApikey: new("NOT_RESTRICTED"), RestrictUserListVisibility: new("NOT_RESTRICTED"),
		RestrictUserDomains: []iamidentityv1.AccountSettingsUserDomainRestriction{domains}, Mfa: new("NONE"), UserMfa: []iamidentityv1.UserMfa{{IamID: &owner, Mfa: new("NONE")}},
		SessionExpirationInSeconds: new("86400"), SessionInvalidationInSeconds: new("7200"), MaxSessionsPerIdentity: new("10"),
		SystemAccessTokenExpirationInSeconds: new("3600"), SystemRefreshTokenExpirationInSeconds: new("259200"), AllowedIPAddresses: new("127.0.0.1, ::1"),
	}
	got, resp, err := client.UpdateAccountSettingsWithContext(t.Context(), change)
	wantStatus(t, "update", 200, resp, err)
	want := &iamidentityv1.AccountSettingsResponse{
		Context: got.Context, AccountID: &account, EntityTag: got.EntityTag, History: got.History,
		RestrictCreateServiceID: change.RestrictCreateServiceID, RestrictCreatePlatformApikey: change.RestrictCreatePlatformApikey, RestrictUserListVisibility: change.RestrictUserListVisibility,
		AllowedIPAddresses: new("127.0.0.1,::1"), Mfa: change.Mfa, UserMfa: []iamidentityv1.AccountSettingsUserMfaResponse{{IamID: &owner, Mfa: new("NONE")}},
		SessionExpirationInSeconds: change.SessionExpirationInSeconds, SessionInvalidationInSeconds: change.SessionInvalidationInSeconds, MaxSessionsPerIdentity: change.MaxSessionsPerIdentity,
		SystemAccessTokenExpirationInSeconds: change.SystemAccessTokenExpirationInSeconds, SystemRefreshTokenExpirationInSeconds: change.SystemRefreshTokenExpirationInSeconds,
		RestrictUserDomains: change.RestrictUserDomains,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("updated (-want +got):\n%s", diff)
	}
	if h := got.History[len(got.History)-1]; *got.EntityTag == tag || len(got.History) != 2 || *h.Action != "iam-identity.account-settings.update" || *h.IamID != owner || len(h.Params) != 10 {
		t.Errorf("history %d, last %+v", len(got.History), h)
	}
	_, resp, err = client.UpdateAccountSettingsWithContext(t.Context(), change)
	wantStatus(t, "update with a stale tag", 409, resp, err)
	_, resp, err = client.UpdateAccountSettingsWithContext(t.Context(), &iamidentityv1.UpdateAccountSettingsOptions{IfMatch: new("*"), AccountID: &account, SystemAccessTokenExpirationInSeconds: new("NOT_SET")})
	wantStatus(t, "update of any version", 200, resp, err)
	effective, resp, err := client.GetEffectiveAccountSettingsWithContext(t.Context(), &iamidentityv1.GetEffectiveAccountSettingsOptions{AccountID: &account, IncludeHistory: new(true), ResolveUserMfa: new(true)})
	wantStatus(t, "effective", 200, resp, err)
	e := effective.Effective
	if *e.SystemAccessTokenExpirationInSeconds != "3600" || *effective.Account.SystemAccessTokenExpirationInSeconds != "NOT_SET" || *e.MaxSessionsPerIdentity != "10" || *e.UserMfa[0].Name != "administrator" || len(effective.Account.History) != 3 {
		t.Errorf("effective %+v of %+v", e, effective.Account)
	}
}

// TestIBMsSDKChangesAccessManagement: each type of identity by itself, by the Etag.
func TestIBMsSDKChangesAccessManagement(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	account := string(n.boot.Account)
	client, err := iampolicymanagementv1.NewIamPolicyManagementV1(&iampolicymanagementv1.IamPolicyManagementV1Options{
		URL: n.srv.URL, Authenticator: &core.IamAuthenticator{ApiKey: n.admin, URL: n.srv.URL, Client: n.srv.Client()},
	})
	if err != nil {
		t.Fatal(err)
	}
	client.Service.SetHTTPClient(n.srv.Client())
	read, resp, err := client.GetSettingsWithContext(t.Context(), &iampolicymanagementv1.GetSettingsOptions{AccountID: &account})
	wantStatus(t, "get", 200, resp, err)
	if types := read.ExternalAccountIdentityInteraction.IdentityTypes; *types.User.State != "enabled" || types.Service.ExternalAllowedAccounts == nil {
		t.Errorf("of a new account: %+v", types)
	}
	tag := resp.GetHeaders().Get("Etag")
	change := func(tag, state string, accounts ...string) (*iampolicymanagementv1.AccountSettingsAccessManagement, *core.DetailedResponse, error) {
		return client.UpdateSettingsWithContext(t.Context(), &iampolicymanagementv1.UpdateSettingsOptions{
			AccountID: &account, IfMatch: &tag, ExternalAccountIdentityInteraction: &iampolicymanagementv1.ExternalAccountIdentityInteractionPatch{
				IdentityTypes: &iampolicymanagementv1.IdentityTypesPatch{User: &iampolicymanagementv1.IdentityTypesBase{State: &state, ExternalAllowedAccounts: accounts}},
			},
		})
	}
	got, resp, err := change(tag, "limited", "acct9", "acct2")
	wantStatus(t, "limit users", 200, resp, err)
	types := got.ExternalAccountIdentityInteraction.IdentityTypes
	if *types.User.State != "limited" || !cmp.Equal(types.User.ExternalAllowedAccounts, []string{"acct2", "acct9"}) || *types.ServiceID.State != "enabled" {
		t.Errorf("limited: %+v", types)
	}
	_, resp, err = change(tag, "monitor", "acct2")
	wantStatus(t, "a stale Etag", 409, resp, err)
	_, resp, err = change("*", "enabled", "acct2")
	wantStatus(t, "accounts where all are allowed", 400, resp, err)
	changed := n.events(domain.AccountStreams)
	if e, ok := changed[len(changed)-1].Event.(domain.AccessSettingsSet); !ok || e.Old.User.State != domain.InteractionEnabled || e.New.User.State != domain.InteractionLimited {
		t.Errorf("recorded %+v", changed[len(changed)-1])
	}
}

// TestBadSettingsAreRefusedWithTheFieldNamed, and nothing is changed.
func TestBadSettingsAreRefusedWithTheFieldNamed(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	account := "/v1/accounts/" + string(n.boot.Account)
	before := len(n.events(domain.EvidencePrefix))
	tests := []struct {
		name, method, path, body string
		headers                  []string
		code, field              string
	}{
		{"no tag", "PUT", "/settings/identity", `{"mfa":"NONE"}`, nil, "missing_if_match", "If-Match"},
		{"an unknown field", "PUT", "/settings/identity", `{"mfaa":"NONE"}`, []string{"If-Match", "*"}, "unknown_field", "mfaa"},
		{"a number that is no text", "PUT", "/settings/identity", `{"max_sessions_per_identity":3}`, []string{"If-Match", "*"}, "wrong_type", "max_sessions_per_identity"},
		{"out of bounds, beside what is good", "PUT", "/settings/identity", `{"record_reads":true,"system_access_token_expiration_in_seconds":"60"}`, []string{"If-Match", "*"}, "out_of_bounds", "system_access_token_expiration_in_seconds"},
		{"no address", "PUT", "/settings/identity", `{"allowed_ip_addresses":"fe80::1%eth0"}`, []string{"If-Match", "*"}, "invalid_address", "allowed_ip_addresses"},
		{"a flag that is none", "GET", "/settings/identity?include_history=maybe", "", nil, "not_boolean", "include_history"},
		{"no Etag", "PATCH", "/settings/access_management", `{}`, nil, "missing_if_match", "If-Match"},
		{"an unknown state", "PUT", "/settings/access_management", `{"external_account_identity_interaction":{"identity_types":{"service_id":{"state":"off","external_allowed_accounts":[]}}}}`, []string{"If-Match", "*"}, "unknown_value", "external_account_identity_interaction.identity_types.service_id.state"},
		{"a contact without a name", "PUT", "/security_contacts", `{"contacts":[{"email":"a@b.c"}]}`, nil, "missing_name", "contacts.name"},
		{"a contact without an address", "PUT", "/security_contacts", `{"contacts":[{"name":"Ada","email":"none"}]}`, nil, "invalid_email", "contacts.email"},
	}
	for _, tt := range tests {
		var body any
		if tt.body != "" {
			body = tt.body
		}
		r := n.call(n.admin, tt.method, account+tt.path, body, tt.headers...)
		if code, field := r.failure(); r.status != 400 || code != tt.code || field != tt.field {
			t.Errorf("%s: %d %q field %q, want 400 %q field %q", tt.name, r.status, code, field, tt.code, tt.field)
		}
	}
	if after := len(n.events(domain.EvidencePrefix)); after != before {
		t.Errorf("requests that are no valid command left %d events", after-before)
	}
}

// TestNobodyLocksItselfOut by a list of addresses, neither of the account nor of its own; what
// others may is for it to say.
func TestNobodyLocksItselfOut(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.member("User-b")
	settings := "/v1/accounts/" + string(n.boot.Account) + "/settings/identity"
	user := func(iam domain.IAMID) string {
		return "/v2/accounts/" + string(n.boot.Account) + "/users/" + string(iam) + "/settings"
	}
	for _, tt := range []struct {
		name, method, path, list string
		status                   int
	}{
		{"the account's, without us", "PUT", settings, "192.0.2.0/24", 409},
		{"the account's", "PUT", settings, "192.0.2.0/24,127.0.0.1", 200},
		{"the account's, anybody", "PUT", settings, "", 200},
		{"one's own, without us", "PATCH", user(n.boot.Owner), "::1", 409},
		{"one's own", "PATCH", user(n.boot.Owner), "127.0.0.0/8", 204},
		{"another's", "PATCH", user("User-b"), "192.0.2.1", 204},
	} {
		before := len(n.refused())
		r := n.call(n.admin, tt.method, tt.path, map[string]any{"allowed_ip_addresses": tt.list}, "If-Match", "*")
		if r.status != tt.status {
			t.Errorf("%s: %d %s", tt.name, r.status, r.raw)
		}
		if code, field := r.failure(); tt.status == 409 && (code != "would_lock_out" || field != "allowed_ip_addresses" || len(n.refused()) != before+1) {
			t.Errorf("%s: %q of field %q, %d refusals recorded", tt.name, code, field, len(n.refused())-before)
		}
		n.must(200, n.call(n.admin, "GET", "/v1/accounts", nil))
	}
}

// TestSecurityContactsOverHTTP: set, gone stale, confirmed.
func TestSecurityContactsOverHTTP(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	path := "/v1/accounts/" + string(n.boot.Account) + "/security_contacts"
	if r := n.must(200, n.call(n.admin, "GET", path, nil)); r.body["stale"] != true || len(r.body["contacts"].([]any)) != 0 {
		t.Errorf("no contacts: %s", r.raw)
	}
	n.must(409, n.call(n.admin, "POST", path+"/confirm", nil))
	set := n.must(200, n.call(n.admin, "PUT", path, map[string]any{"contacts": []any{map[string]any{"name": "Ada", "email": "ada@example.com"}}, "stale_after_days": 30}))
	if set.body["stale"] != false || set.header.Get("Keytrail-Position") == "" {
		t.Errorf("just set: %s", set.raw)
	}
	n.clock.Advance(31 * 24 * 3600e9)
	if r := n.must(200, n.call(n.admin, "GET", path, nil)); r.body["stale"] != true || r.body["contacts"].([]any)[0].(map[string]any)["stale"] != true {
		t.Errorf("31 days later: %s", r.raw)
	}
	r := n.must(200, n.call(n.admin, "POST", path+"/confirm", nil))
	contact := r.body["contacts"].([]any)[0].(map[string]any)
	if r.body["stale"] != false || contact["confirmed_by"] != string(n.boot.Owner) || contact["name"] != "Ada" {
		t.Errorf("confirmed: %s", r.raw)
	}
}

// TestOfChangesByTheSameTagOneWins, on two nodes at once; and however two nodes move users
// about, nobody ever stands above himself.
func TestOfChangesByTheSameTagOneWins(t *testing.T) {
	t.Parallel()
	one := newNode(t)
	nodes := []*node{one, startNode(t, one.log, one.dir)}
	path := "/v1/accounts/" + string(one.boot.Account) + "/settings/identity"
	tag := one.must(200, one.call(one.admin, "GET", path, nil)).header.Get("Etag")
	var wg sync.WaitGroup
	statuses := make([]int, 8)
	for i := range statuses {
		wg.Go(func() {
			statuses[i] = nodes[i%2].call(one.admin, "PUT", path, map[string]any{"max_sessions_per_identity": strconv.Itoa(i + 1)}, "If-Match", tag).status
		})
	}
	wg.Wait()
	slices.Sort(statuses)
	if diff := cmp.Diff([]int{200, 409, 409, 409, 409, 409, 409, 409}, statuses); diff != "" {
		t.Error(diff)
	}
	users := []domain.IAMID{"User-a", "User-b", "User-c"}
	for _, id := range users {
		_, _, err := one.commands.ChangeAccount(t.Context(), systemOrder(), one.boot.Account, domain.AddMember{IAMID: id})
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 12 {
		wg.Go(func() {
			id, parent := users[i%3], users[(i+1+i/6)%3]
			_, _, err := nodes[i%2].commands.ChangeAccount(t.Context(), systemOrder(), one.boot.Account, domain.SetParent{IAMID: id, Parent: parent})
			if err != nil && domain.CodeOf(err) != domain.Conflict {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	a := domain.FoldAccount(one.events(domain.AccountStream(one.boot.Account)))
	for _, id := range users {
		if up := a.Ancestors(id); slices.Contains(up, id) || up[len(up)-1] != one.boot.Owner {
			t.Errorf("above %s: %v", id, up)
		}
	}
}
