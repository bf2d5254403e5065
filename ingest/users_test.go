package ingest_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/IBM/go-sdk-core/v5/core"
	"github.com/IBM/platform-services-go-sdk/usermanagementv1"
	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

// TestIBMsSDKManagesUsers: invites, lists with its pager, reads, changes and removes them.
func TestIBMsSDKManagesUsers(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	account := string(n.boot.Account)
	client, err := usermanagementv1.NewUserManagementV1(&usermanagementv1.UserManagementV1Options{
		URL: n.srv.URL, Authenticator: &core.IamAuthenticator{ApiKey: n.admin, URL: n.srv.URL, Client: n.srv.Client()},
	})
	if err != nil {
		t.Fatal(err)
	}
	client.Service.SetHTTPClient(n.srv.Client())
	var invite []usermanagementv1.InviteUser
	for i := range 7 {
		invite = append(invite, usermanagementv1.InviteUser{Email: new(fmt.Sprintf("user%d@example.com", i)), AccountRole: new("Member")})
	}
	invited, resp, err := client.InviteUsersWithContext(t.Context(), &usermanagementv1.InviteUsersOptions{AccountID: &account, Users: invite})
	wantStatus(t, "invite", 202, resp, err)
	id := invited.Resources[3].ID
	if len(invited.Resources) != 7 || *invited.Resources[3].Email != "user3@example.com" || *invited.Resources[3].State != "ACTIVE" {
		t.Errorf("invited %+v", invited.Resources)
	}
	pager, err := client.NewUsersPager(&usermanagementv1.ListUsersOptions{AccountID: &account, Limit: new(int64(3))})
	if err != nil {
		t.Fatal(err)
	}
	all, err := pager.GetAllWithContext(t.Context())
	if err != nil || len(all) != 8 || !slices.IsSortedFunc(all, func(a, b usermanagementv1.UserProfile) int { return strings.Compare(*a.IamID, *b.IamID) }) {
		t.Errorf("the pager gives %d users, %v; want 8, sorted", len(all), err)
	}
	found, resp, err := client.ListUsersWithContext(t.Context(), &usermanagementv1.ListUsersOptions{AccountID: &account, Search: new("email:USER1@example.com,email:user2@example.com"), IncludeSettings: new(true)})
	wantStatus(t, "search", 200, resp, err)
	if *found.TotalResults != 2 || len(found.Resources) != 2 || found.NextURL != nil {
		t.Errorf("found %+v", found)
	}
	resp, err = client.UpdateUserProfileWithContext(t.Context(), &usermanagementv1.UpdateUserProfileOptions{AccountID: &account, IamID: id, Firstname: new("Ada"), Lastname: new("Lovelace"), State: new("ACTIVE")})
	wantStatus(t, "update", 204, resp, err)
	got, resp, err := client.GetUserProfileWithContext(t.Context(), &usermanagementv1.GetUserProfileOptions{AccountID: &account, IamID: id})
	wantStatus(t, "get", 200, resp, err)
	if *got.Firstname != "Ada" || *got.Lastname != "Lovelace" || *got.Email != "user3@example.com" || *got.UserID != "user3@example.com" || *got.AccountID != account || *got.AddedOn == "" {
		t.Errorf("profile %+v", got)
	}
	resp, err = client.UpdateUserSettingsWithContext(t.Context(), &usermanagementv1.UpdateUserSettingsOptions{AccountID: &account, IamID: id, SelfManage: new(true), AllowedIPAddresses: new("10.0.0.0/8")})
	wantStatus(t, "update settings", 204, resp, err)
	settings, resp, err := client.GetUserSettingsWithContext(t.Context(), &usermanagementv1.GetUserSettingsOptions{AccountID: &account, IamID: id})
	wantStatus(t, "get settings", 200, resp, err)
	if !*settings.SelfManage || *settings.AllowedIPAddresses != "10.0.0.0/8" || *settings.Language != "" {
		t.Errorf("settings %+v", settings)
	}
	resp, err = client.RemoveUserWithContext(t.Context(), &usermanagementv1.RemoveUserOptions{AccountID: &account, IamID: id})
	wantStatus(t, "remove", 204, resp, err)
	_, resp, err = client.GetUserProfileWithContext(t.Context(), &usermanagementv1.GetUserProfileOptions{AccountID: &account, IamID: id})
	wantStatus(t, "get of one who was removed", 404, resp, err)
}

// TestAUserWhoIsRemovedIsOutAtOnce, with its key, also when it is invited again; those below
// it move up.
func TestAUserWhoIsRemovedIsOutAtOnce(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	users := "/v2/accounts/" + string(n.boot.Account) + "/users"
	bob := n.member("User-bob", domain.RoleAdministrator)
	n.must(202, n.call(bob, "POST", users, map[string]any{"users": []any{map[string]any{"iam_id": "User-cy", "name": "Cy"}}}))
	if r := n.must(200, n.call(n.admin, "GET", users+"/User-cy", nil)); r.field("parent") != "User-bob" {
		t.Errorf("invited by bob: %s", r.raw)
	}
	r := n.must(204, n.call(n.admin, "DELETE", users+"/User-bob", nil))
	if r.header.Get("Keytrail-Position") == "" {
		t.Error("no position")
	}
	if code, _ := n.must(401, n.call(bob, "GET", users, nil)).failure(); code != "identity_invalid" {
		t.Errorf("his key is refused as %q", code)
	}
	if r := n.must(200, n.call(n.admin, "GET", users+"/User-cy", nil)); r.field("parent") != string(n.boot.Owner) {
		t.Errorf("with bob gone: %s", r.raw)
	}
	n.must(202, n.call(n.admin, "POST", users, map[string]any{"users": []any{map[string]any{"iam_id": "User-bob", "name": "Bob"}}}))
	n.must(401, n.call(bob, "GET", users, nil))
	records := n.events(domain.AccountStreams)
	record, _ := domain.ActivityOf(records[len(records)-2])
	if record.Action != "user-management.user.delete" || record.Severity != domain.SeverityCritical || record.Initiator.IAMID != n.boot.Owner || !strings.Contains(string(record.RequestData), `{"field":"parent of User-cy","old":"User-bob"`) {
		t.Errorf("record %+v: %s", record, record.RequestData)
	}
}

// TestHiddenUsersAreSeenByThoseAbove: whoever holds no role sees itself and whom it invited.
func TestHiddenUsersAreSeenByThoseAbove(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	account := string(n.boot.Account)
	users := "/v2/accounts/" + account + "/users"
	member, viewer := n.member("User-member"), n.member("User-viewer", domain.RoleViewer)
	n.must(202, n.call(n.admin, "POST", users, map[string]any{"users": []any{
		map[string]any{"iam_id": "User-a", "parent": "User-member", "functional": true}, map[string]any{"iam_id": "User-b", "parent": "User-a"}, map[string]any{"iam_id": "User-c"},
	}}))
	list := func(key, query string) []string {
		t.Helper()
		r := n.must(200, n.call(key, "GET", users+query, nil))
		ids := []string{}
		for _, user := range r.body["resources"].([]any) {
			ids = append(ids, user.(map[string]any)["iam_id"].(string))
		}
		if int(r.body["total_results"].(float64)) != len(ids) {
			t.Errorf("total_results of %s", r.raw)
		}
		return ids
	}
	all := []string{"User-a", "User-b", "User-c", "User-member", "User-viewer", string(n.boot.Owner)}
	slices.Sort(all)
	if diff := cmp.Diff(all, list(member, "")); diff != "" {
		t.Errorf("while nothing is hidden: %s", diff)
	}
	n.must(200, n.call(n.admin, "PUT", "/v1/accounts/"+account+"/settings/identity", map[string]any{"restrict_user_list_visibility": "RESTRICTED"}, "If-Match", "*"))
	if diff := cmp.Diff([]string{"User-a", "User-b", "User-member"}, list(member, "")); diff != "" {
		t.Errorf("a member sees: %s", diff)
	}
	if diff := cmp.Diff(all, list(viewer, "")); diff != "" {
		t.Errorf("a viewer sees: %s", diff)
	}
	if diff := cmp.Diff([]string{"User-a"}, list(member, "?search=functional:true")); diff != "" {
		t.Errorf("functional IDs: %s", diff)
	}
	n.must(200, n.call(member, "GET", users+"/User-b", nil))
	if code, _ := n.must(403, n.call(member, "GET", users+"/User-c", nil)).failure(); code != "missing_role" {
		t.Errorf("a hidden user: %q", code)
	}
	n.must(404, n.call(viewer, "GET", users+"/User-x", nil))
	refusals := n.refused()
	if last := refusals[len(refusals)-1]; last.Action != "user-management.user.read" || last.Code != domain.Forbidden {
		t.Errorf("recorded %+v", last)
	}
}

// TestBadUsersAreRefusedWithTheFieldNamed, and nothing is changed.
func TestBadUsersAreRefusedWithTheFieldNamed(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	users := "/v2/accounts/" + string(n.boot.Account) + "/users"
	owner := users + "/" + string(n.boot.Owner)
	before := len(n.events(domain.AccountStreams))
	tests := []struct {
		name, method, path string
		body               any
		status             int
		code, field        string
	}{
		{"nobody", "POST", users, `{"users":[]}`, 400, "invalid_users", "users"},
		{"neither e-mail nor identity", "POST", users, `{"users":[{"name":"x"}]}`, 400, "missing_email", "email"},
		{"no e-mail address", "POST", users, `{"users":[{"email":"x"}]}`, 400, "invalid_email", "email"},
		{"one good, one bad", "POST", users, `{"users":[{"email":"a@b.c"},{"email":"d@e.f","roles":["King"]}]}`, 400, "invalid_role", "roles"},
		{"a policy", "POST", users, `{"users":[{"email":"a@b.c"}],"iam_policy":[{}]}`, 400, "no_policies", "iam_policy"},
		{"an account role", "POST", users, `{"users":[{"email":"a@b.c","account_role":"Owner"}]}`, 400, "unknown_value", "account_role"},
		{"a service ID as a user", "POST", users, `{"users":[{"iam_id":"iam-ServiceId-1"}]}`, 400, "invalid_iam_id", "iam_id"},
		{"a parent that is nobody", "POST", users, `{"users":[{"email":"a@b.c","parent":"User-x"}]}`, 400, "invalid_parent", "parent"},
		{"a page too large", "GET", users + "?limit=101", nil, 400, "invalid_limit", "limit"},
		{"a page that is none", "GET", users + "?_start=!", nil, 400, "invalid_start", "_start"},
		{"an unknown search", "GET", users + "?search=shoe:9", nil, 400, "invalid_search", "search"},
		{"a phone number", "PATCH", owner, `{"phonenumber":"1"}`, 400, "not_kept", "phonenumber"},
		{"a state", "PATCH", owner, `{"state":"VPN_ONLY"}`, 400, "not_kept", "state"},
		{"roles left out", "PUT", owner + "/roles", `{}`, 400, "missing_roles", "roles"},
		{"the owner's roles", "PUT", owner + "/roles", `{"roles":["Viewer"]}`, 409, "owner_roles", ""},
		{"the owner's parent", "PUT", owner + "/parent", `{"parent":"User-x"}`, 409, "owner_stays", ""},
		{"the owner", "DELETE", owner, nil, 409, "owner_stays", ""},
		{"roles of a service ID that is none", "PUT", users + "/iam-ServiceId-1/roles", `{"roles":["Viewer"]}`, 404, "serviceid_not_found", ""},
		{"a user that is none", "DELETE", users + "/User-x", nil, 404, "member_not_found", ""},
		{"an account that is none", "GET", "/v2/accounts/x/users", nil, 404, "account_not_found", ""},
	}
	for _, tt := range tests {
		r := n.call(n.admin, tt.method, tt.path, tt.body)
		if code, field := r.failure(); r.status != tt.status || code != tt.code || field != tt.field {
			t.Errorf("%s: %d %q field %q, want %d %q field %q", tt.name, r.status, code, field, tt.status, tt.code, tt.field)
		}
	}
	if after := len(n.events(domain.AccountStreams)); after != before {
		t.Errorf("refused commands left %d events", after-before)
	}
}

// accountActs are acts on accounts and their users, with the roles of api.md.
func (w *accessWorld) accountActs() []act {
	const (
		anybody = "Member,Viewer,Operator,Editor,Administrator,User API key creator,Service ID creator,Verifier,Auditor,Ingester,Responder,Owner"
		readers = "Viewer,Operator,Editor,Administrator,Auditor,Owner"
		admins  = "Administrator,Owner"
		ops     = "Operator,Administrator,Owner"
	)
	account := string(w.boot.Account)
	settings, contacts := "/v1/accounts/"+account+"/settings/", "/v1/accounts/"+account+"/security_contacts"
	users := "/v2/accounts/" + account + "/users"
	count := 0
	fixed := func(path string, body any) func(domain.IAMID) (string, any) {
		return func(domain.IAMID) (string, any) { return path, body }
	}
	// each gives every caller another value, so that there is something to change.
	each := func(path string, body func(n int) any) func(domain.IAMID) (string, any) {
		return func(domain.IAMID) (string, any) { count++; return path, body(count) }
	}
	fresh := func(suffix string, body any) func(domain.IAMID) (string, any) {
		return func(domain.IAMID) (string, any) {
			count++
			id := domain.IAMID(fmt.Sprintf("User-fresh%d", count))
			w.change(domain.AddMember{IAMID: id})
			return users + "/" + string(id) + suffix, body
		}
	}
	own := func(suffix string, body func(n int) any) func(domain.IAMID) (string, any) {
		return func(caller domain.IAMID) (string, any) {
			count++
			return users + "/" + string(caller) + suffix, body(count)
		}
	}
	restrict := func(domain.IAMID) (string, any) {
		a, _ := w.dirs.Account(w.boot.Account)
		if a.Settings().RestrictServiceIDs == domain.RestrictionOn {
			return settings + "identity", `{"restrict_create_service_id":"NOT_SET"}`
		}
		return settings + "identity", `{"restrict_create_service_id":"RESTRICTED"}`
	}
	return []act{
		{"settings: read", readers, 200, "iam-identity.account-settings.read", "GET", fixed(settings+"identity", nil)},
		{"effective settings: read", readers, 200, "iam-identity.account-settings.read", "GET", fixed("/v1/accounts/"+account+"/effective_settings/identity", nil)},
		{"creation of service IDs: restrict", ops, 200, "iam-identity.account-settings.update", "PUT", restrict},
		{"settings: change", admins, 200, "iam-identity.account-settings.update", "PUT", each(settings+"identity", func(n int) any { return map[string]any{"max_sessions_per_identity": fmt.Sprint(n)} })},
		{"access settings: read", readers, 200, "iam-access-management.account-settings.read", "GET", fixed(settings+"access_management", nil)},
		{"access settings: change", admins, 200, "iam-access-management.account-settings.update", "PATCH", fixed(settings+"access_management", `{}`)},
		{"contacts: read", readers, 200, "user-management.security-contacts.read", "GET", fixed(contacts, nil)},
		{"contacts: change", admins, 200, "user-management.security-contacts.update", "PUT", fixed(contacts, `{"contacts":[{"name":"Ada","email":"ada@example.com"}]}`)},
		{"contacts: confirm", admins, 200, "user-management.security-contacts.confirm", "POST", fixed(contacts+"/confirm", nil)},
		{"grants: read", readers, 200, "iam-access-management.grants.read", "GET", fixed("/v1/identities/"+string(w.boot.Owner)+"/grants", nil)},
		{"grants: change", admins, 200, "iam-access-management.grants.update", "PUT", each("/v1/identities/"+string(w.boot.Owner)+"/grants", func(n int) any {
			return []any{granting(w.boot.Account, fmt.Sprint("a", n))}
		})},
		{"privilege report", "Administrator,Auditor,Owner", 200, "iam-access-management.privilege-report.read", "GET", fixed("/v1/accounts/"+account+"/reports/privilege", nil)},
		{"users: list", anybody, 200, "", "GET", fixed(users, nil)},
		{"users: list with settings", readers, 200, "user-management.user.list", "GET", fixed(users+"?include_settings=true", nil)},
		{"users: invite", admins, 202, "user-management.user.invite", "POST", each(users, func(n int) any {
			return map[string]any{"users": []any{map[string]any{"email": fmt.Sprintf("u%d@example.com", n)}}}
		})},
		{"user: read", anybody, 200, "", "GET", fixed(users+"/"+string(w.boot.Owner), nil)},
		{"user: change", admins, 204, "user-management.user.update", "PATCH", fresh("", `{"firstname":"Di"}`)},
		{"user: change itself", anybody, 204, "", "PATCH", own("", func(n int) any { return map[string]any{"firstname": fmt.Sprint("Name", n)} })},
		{"user: remove", admins, 204, "user-management.user.delete", "DELETE", fresh("", nil)},
		{"user: roles", admins, 200, "user-management.user.update", "PUT", fresh("/roles", `{"roles":["Viewer"]}`)},
		{"user: parent", admins, 200, "user-management.user.update", "PUT", fresh("/parent", `{"parent":"User-Member"}`)},
		{"user: functional", admins, 204, "user-management.user.update", "PUT", fresh("/functional", nil)},
		{"user: a person", admins, 204, "user-management.user.update", "DELETE", fresh("/functional", nil)},
		{"user settings: read", readers, 200, "user-management.user.read", "GET", fresh("/settings", nil)},
		{"user settings: read its own", anybody, 200, "", "GET", own("/settings", func(int) any { return nil })},
		{"user settings: change", admins, 204, "user-management.user.update", "PATCH", fresh("/settings", `{"language":"en"}`)},
		{"user settings: change its own", anybody, 204, "", "PATCH", own("/settings", func(n int) any { return map[string]any{"language": fmt.Sprint(n)} })},
		{"user settings: change its own addresses", admins, 204, "user-management.user.update", "PATCH", own("/settings", func(n int) any {
			return map[string]any{"allowed_ip_addresses": fmt.Sprintf("127.0.0.1,10.0.0.%d", n)}
		})},
	}
}

// newRefusals returns what was refused from revision next of this node's stream on, and
// moves next behind it.
func (n *node) newRefusals(next *uint64) []domain.Recorded {
	n.tb.Helper()
	page, err := n.log.ReadStream(n.tb.Context(), domain.RefusedStream(n.store.InstallationID()), *next, 100)
	if err != nil {
		n.tb.Fatal(err)
	}
	out := make([]domain.Recorded, len(page))
	for i, raw := range page {
		if out[i], err = eventlog.Decode(raw); err != nil {
			n.tb.Fatal(err)
		}
	}
	*next += uint64(len(page))
	return out
}

// TestWhoMayManageAnAccountOverHTTP sends every act as every role: what is not allowed is
// 403, names a role, and leaves one critical record; a stranger is answered 404, and one
// without a credential 401 with a record of what it tried.
func TestWhoMayManageAnAccountOverHTTP(t *testing.T) {
	t.Parallel()
	w := newAccessWorld(t)
	next := uint64(len(w.events(domain.RefusedStreams)))
	for _, a := range w.accountActs() {
		for _, name := range slices.Sorted(maps.Keys(w.callers)) {
			path, body := a.target(w.iam[name])
			r := w.call(w.callers[name], a.method, path, body, "If-Match", "*")
			after := w.newRefusals(&next)
			switch {
			case slices.Contains(strings.Split(a.allowed, ","), name):
				if r.status != a.status || r.header.Get("Keytrail-Position") == "" || len(after) != 0 {
					t.Errorf("%s, %s: %d, want %d; %d refusals: %s", name, a.name, r.status, a.status, len(after), r.raw)
				}
			case name == strangerPersona:
				if code, _ := r.failure(); r.status != http.StatusNotFound || !strings.HasSuffix(code, "_not_found") {
					t.Errorf("%s, %s: %d %s, want 404", name, a.name, r.status, code)
				}
				for _, rec := range after {
					if rec.Event.(domain.CommandRefused).Account == w.boot.Account {
						t.Errorf("%s, %s: left a record in this account", name, a.name)
					}
				}
			default:
				w.refusedCritically(t, name+", "+a.name, a.action, r, after)
			}
		}
		if a.method == http.MethodGet {
			continue
		}
		path, body := a.target("User-nobody")
		w.must(401, w.call("", a.method, path, body))
		for _, rec := range w.newRefusals(&next) {
			if got := rec.Event.(domain.CommandRefused).Action; a.action != "" && got != a.action {
				t.Errorf("%s without a credential is recorded as %s", a.name, got)
			}
		}
	}
}
