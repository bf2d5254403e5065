package ingest_test

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
	"example.com/keytrail/ingest"
	"example.com/keytrail/internal/auth"
)

// accessWorld is a node with one caller of every role, the owner, a plain member, and a
// stranger who owns another account.
type accessWorld struct {
	*node
	callers map[string]string // Keys by persona.
	iam     map[string]domain.IAMID
}

const strangerPersona = "Stranger"

func newAccessWorld(t *testing.T) *accessWorld {
	t.Helper()
	n := newNode(t)
	n.limit(1000)
	w := &accessWorld{node: n, callers: map[string]string{"Owner": n.admin}, iam: map[string]domain.IAMID{"Owner": n.boot.Owner}}
	add := func(name string, roles ...domain.Role) {
		w.iam[name] = domain.IAMID("User-" + strings.ReplaceAll(name, " ", ""))
		w.callers[name] = n.member(w.iam[name], roles...)
	}
	add("Member")
	for _, r := range domain.Roles() {
		add(string(r), r)
	}
	w.iam[strangerPersona] = "User-stranger"
	other := n.must(201, n.call(n.admin, "POST", "/v1/accounts", map[string]any{"name": "Other", "owner_iam_id": w.iam[strangerPersona]}))
	_, secret, _, err := n.commands.CreateKey(t.Context(), systemOrder(), newKeyIn(other.field("id"), w.iam[strangerPersona]))
	if err != nil {
		t.Fatal(err)
	}
	w.callers[strangerPersona] = secret.Reveal()
	return w
}

// made returns a new key of iam, put into the log by keytrail itself.
func (w *accessWorld) made(iam domain.IAMID) string {
	w.tb.Helper()
	key, _, _, err := w.commands.CreateKey(w.tb.Context(), systemOrder(), newKeyIn(string(w.boot.Account), iam))
	if err != nil {
		w.tb.Fatal(err)
	}
	return string(key.State().ID)
}

func (w *accessWorld) serviceID() (id string, iam domain.IAMID) {
	w.tb.Helper()
	r := w.must(201, w.call(w.admin, "POST", "/v1/serviceids", map[string]any{"name": "ci", "account_id": w.boot.Account}))
	return r.field("id"), domain.IAMID(r.field("iam_id"))
}

// act is one request; who may is in allowed, for everybody else it is 403 and a record,
// for a stranger 404.
type act struct {
	name, allowed string
	status        int // Of success.
	action        string
	method        string
	target        func(caller domain.IAMID) (path string, body any)
}

// keyActs are all acts on one key that owner gives, for whom change, disable and end may.
func keyActs(name, action string, target func(caller domain.IAMID) string, read, change, disable, end string) []act {
	on := func(suffix string, body any) func(domain.IAMID) (string, any) {
		return func(caller domain.IAMID) (string, any) { return "/v1/apikeys/" + target(caller) + suffix, body }
	}
	return []act{
		{name + ": read", read, 200, action + ".read", "GET", on("", nil)},
		{name + ": update", change, 200, action + ".update", "PUT", on("", map[string]any{"name": "new"})},
		{name + ": lock", change, 204, action + ".lock", "POST", on("/lock", nil)},
		{name + ": unlock", change, 204, action + ".unlock", "DELETE", on("/lock", nil)},
		{name + ": disable", disable, 204, action + ".disable", "POST", on("/disable", nil)},
		{name + ": enable", change, 204, action + ".enable", "DELETE", on("/disable", nil)},
		{name + ": delete", end, 204, action + ".delete", "DELETE", on("", nil)},
	}
}

// acts are the acts of P04 to P06, with the roles of api.md.
func (w *accessWorld) acts() []act {
	const (
		anybody = "Member,Viewer,Operator,Editor,Administrator,User API key creator,Service ID creator,Verifier,Auditor,Ingester,Responder,Owner"
		admins  = "Administrator,Owner"
		readers = "Viewer,Operator,Editor,Administrator,Auditor,Owner"
		makers  = "Operator,Editor,Administrator,Owner"
	)
	account := string(w.boot.Account)
	others := func(domain.IAMID) string { return w.made("User-Victim") }
	own := func(caller domain.IAMID) string {
		if caller == w.iam[strangerPersona] {
			return w.made("User-Victim")
		}
		return w.made(caller)
	}
	_, service := w.serviceID()
	ofService := func(domain.IAMID) string { return w.made(service) }
	newKey := func(iam func(caller domain.IAMID) domain.IAMID) func(domain.IAMID) (string, any) {
		return func(caller domain.IAMID) (string, any) {
			return "/v1/apikeys", map[string]any{"name": "x", "account_id": account, "iam_id": iam(caller)}
		}
	}
	serviceAct := func(domain.IAMID) (string, any) {
		id, _ := w.serviceID()
		return "/v1/serviceids/" + id, nil
	}
	return slices.Concat(
		keyActs("own key", "iam-identity.user-apikey", own, anybody, anybody, anybody, anybody),
		keyActs("another's key", "iam-identity.user-apikey", others, "Administrator,Auditor,Owner", admins, "Administrator,Responder,Owner", admins),
		keyActs("service ID's key", "iam-identity.serviceid-apikey", ofService, readers, "Editor,Administrator,Owner", "Editor,Administrator,Responder,Owner", "Operator,Administrator,Owner"),
		[]act{
			{"own key: create", anybody, 201, "iam-identity.user-apikey.create", "POST", newKey(func(c domain.IAMID) domain.IAMID { return c })},
			{"another's key: create", "", 201, "iam-identity.user-apikey.create", "POST", newKey(func(domain.IAMID) domain.IAMID { return "User-Victim" })},
			{"service ID's key: create", makers, 201, "iam-identity.serviceid-apikey.create", "POST", newKey(func(domain.IAMID) domain.IAMID { return service })},
			{"service ID: create", makers + ",Service ID creator", 201, "iam-identity.account-serviceid.create", "POST", func(domain.IAMID) (string, any) {
				return "/v1/serviceids", map[string]any{"name": "x", "account_id": account}
			}},
			{"service ID: read", readers, 200, "iam-identity.account-serviceid.read", "GET", serviceAct},
			{"service ID: delete", "Operator,Administrator,Owner", 204, "iam-identity.account-serviceid.delete", "DELETE", serviceAct},
		},
	)
}

// TestWhoMayDoWhatOverHTTP sends every act as every role: what is not allowed is 403, names
// a role, changes nothing, and leaves one critical record; a stranger is answered 404.
func TestWhoMayDoWhatOverHTTP(t *testing.T) {
	t.Parallel()
	w := newAccessWorld(t)
	for _, a := range w.acts() {
		for _, name := range slices.Sorted(maps.Keys(w.callers)) {
			path, body := a.target(w.iam[name])
			before := w.events(domain.EvidencePrefix)
			r := w.call(w.callers[name], a.method, path, body, "If-Match", "*")
			after := w.events(domain.EvidencePrefix)[len(before):]
			switch {
			case slices.Contains(strings.Split(a.allowed, ","), name):
				if r.status != a.status {
					t.Errorf("%s, %s: %d, want %d: %s", name, a.name, r.status, a.status, r.raw)
				}
			case name == strangerPersona:
				if code, _ := r.failure(); r.status != http.StatusNotFound || !strings.HasSuffix(code, "_not_found") {
					t.Errorf("%s, %s: %d %s, want 404", name, a.name, r.status, code)
				}
			default:
				w.refusedCritically(t, name+", "+a.name, a.action, r, after)
			}
		}
	}
}

// refusedCritically checks that r is a 403 and that after is its one record.
func (w *accessWorld) refusedCritically(t *testing.T, name, action string, r reply, after []domain.Recorded) {
	t.Helper()
	code, _ := r.failure()
	if r.status != http.StatusForbidden || (code != "missing_role" && code != "not_own_key") || (code == "missing_role") != strings.Contains(r.raw, "needs the role ") {
		t.Errorf("%s: %d, want 403 and the role: %s", name, r.status, r.raw)
	}
	if len(after) != 1 {
		t.Errorf("%s: %d records, want one of the refusal", name, len(after))
		return
	}
	record, ok := domain.ActivityOf(after[0])
	if !ok || record.Action != action || record.Severity != domain.SeverityCritical || record.Outcome != domain.OutcomeFailure || record.ReasonCode != 403 {
		t.Errorf("%s: record %+v", name, record)
	}
}

// TestOnlyTheFiltersThatAnAccountOffersAreAnswered: an account says which filters of its
// keys are open to the caller; those answer 200, the others 403 with a record.
func TestOnlyTheFiltersThatAnAccountOffersAreAnswered(t *testing.T) {
	t.Parallel()
	w := newAccessWorld(t)
	account := string(w.boot.Account)
	lists := map[string]string{
		"mine": "?account_id=" + account,
		"user": "?scope=account&type=user&account_id=" + account, "serviceid": "?scope=account&type=serviceid&account_id=" + account,
		"external": "?scope=account&type=external&account_id=" + account, "classic": "?scope=account&type=classic&account_id=" + account,
		"functional": "?scope=account&type=functional&account_id=" + account,
	}
	want := map[string][]any{}
	for name := range w.callers {
		want[name] = []any{"mine", "classic"}
	}
	for _, name := range []string{"Viewer", "Operator", "Editor"} {
		want[name] = []any{"mine", "classic", "serviceid", "external"}
	}
	for _, name := range []string{"Administrator", "Auditor", "Owner"} {
		want[name] = []any{"mine", "classic", "user", "serviceid", "external", "functional"}
	}
	for name, key := range w.callers {
		if name == strangerPersona {
			w.must(404, w.call(key, "GET", "/v1/accounts/"+account, nil))
			continue
		}
		offered, _ := w.must(200, w.call(key, "GET", "/v1/accounts/"+account, nil)).body["key_views"].([]any)
		if diff := cmp.Diff(want[name], offered); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		for view, query := range lists {
			before := w.events(domain.EvidencePrefix)
			r := w.call(key, "GET", "/v1/apikeys"+query, nil)
			after := w.events(domain.EvidencePrefix)[len(before):]
			if slices.Contains(offered, any(view)) {
				if r.status != http.StatusOK || len(after) != 0 {
					t.Errorf("%s, %s: %d, %d records: %s", name, view, r.status, len(after), r.raw)
				}
				continue
			}
			w.refusedCritically(t, name+", "+view, "iam-identity."+strings.Replace(view, "functional", "user", 1)+"-apikey.list", r, after)
		}
	}
	for view, query := range lists {
		if r := w.call(w.callers[strangerPersona], "GET", "/v1/apikeys"+query, nil); r.status != http.StatusNotFound {
			t.Errorf("a stranger lists %s: %d", view, r.status)
		}
	}
}

// change carries out cmd about the first account as keytrail itself, and waits until this
// node knows.
func (w *accessWorld) change(cmd domain.AccountCommand) {
	w.tb.Helper()
	_, position, err := w.commands.ChangeAccount(w.tb.Context(), systemOrder(), w.boot.Account, cmd)
	if err != nil {
		w.tb.Fatal(err)
	}
	if err := w.dirs.WaitFor(w.tb.Context(), position); err != nil {
		w.tb.Fatal(err)
	}
}

// TestRestrictedCreationIsForCreatorsOnly, the owner of the account included, each
// restriction by itself; what is restricted is refused with a record.
func TestRestrictedCreationIsForCreatorsOnly(t *testing.T) {
	t.Parallel()
	w := newAccessWorld(t)
	_, service := w.serviceID()
	account := string(w.boot.Account)
	everybody := slices.DeleteFunc(slices.Sorted(maps.Keys(w.callers)), func(name string) bool { return name == strangerPersona })
	makers := []string{"Administrator", "Editor", "Operator", "Owner"}
	create := func(name, path string, body map[string]any, action string, allowed []string, restricted bool) {
		t.Helper()
		before := w.events(domain.EvidencePrefix)
		r := w.call(w.callers[name], "POST", path, body)
		after := w.events(domain.EvidencePrefix)[len(before):]
		code, _ := r.failure()
		switch {
		case slices.Contains(allowed, name):
			if r.status != http.StatusCreated {
				t.Errorf("%s, %s: %d, want 201: %s", name, action, r.status, r.raw)
			}
		case restricted:
			if r.status != http.StatusForbidden || code != domain.MessageCodeRestricted || len(after) != 1 {
				t.Errorf("%s, %s: %d %s, %d records; want 403, restricted, one: %s", name, action, r.status, code, len(after), r.raw)
				return
			}
			record, _ := domain.ActivityOf(after[0])
			if record.Action != action || record.Severity != domain.SeverityCritical || record.ReasonCode != 403 {
				t.Errorf("%s: record %+v", name, record)
			}
		default:
			if r.status != http.StatusForbidden || code != domain.MessageCodeMissingRole {
				t.Errorf("%s, %s: %d %s, want 403", name, action, r.status, code)
			}
		}
	}
	for _, on := range []domain.AccountSettings{
		{RestrictUserKeys: domain.RestrictionOn, RestrictServiceIDs: domain.RestrictionNotSet},
		{RestrictUserKeys: domain.RestrictionNotSet, RestrictServiceIDs: domain.RestrictionOn},
		{RestrictUserKeys: domain.RestrictionOff, RestrictServiceIDs: domain.RestrictionOff},
	} {
		w.change(domain.UpdateAccountSettings{IfMatch: "*", RestrictUserKeys: &on.RestrictUserKeys, RestrictServiceIDs: &on.RestrictServiceIDs})
		userKeys, serviceIDs := everybody, append(slices.Clone(makers), "Service ID creator")
		if on.RestrictUserKeys == domain.RestrictionOn {
			userKeys = []string{"User API key creator"}
		}
		if on.RestrictServiceIDs == domain.RestrictionOn {
			serviceIDs = []string{"Service ID creator"}
		}
		for _, name := range everybody {
			create(name, "/v1/apikeys", map[string]any{"name": "x", "account_id": account, "iam_id": w.iam[name]},
				"iam-identity.user-apikey.create", userKeys, on.RestrictUserKeys == domain.RestrictionOn)
			create(name, "/v1/serviceids", map[string]any{"name": "x", "account_id": account},
				"iam-identity.account-serviceid.create", serviceIDs, on.RestrictServiceIDs == domain.RestrictionOn)
			create(name, "/v1/apikeys", map[string]any{"name": "x", "account_id": account, "iam_id": service},
				"iam-identity.serviceid-apikey.create", makers, false)
		}
	}
	w.change(domain.UpdateAccountSettings{IfMatch: "*", RestrictUserKeys: new(domain.RestrictionOn), RestrictServiceIDs: new(domain.RestrictionOn)})
	w.change(domain.SetRoles{IAMID: w.boot.Owner, Roles: []domain.Role{domain.RoleUserKeyCreator}})
	create("Owner", "/v1/apikeys", map[string]any{"name": "x", "account_id": account, "iam_id": w.boot.Owner}, "iam-identity.user-apikey.create", []string{"Owner"}, true)
}

// TestOnlyOperatorsAndAdministratorsRestrictCreation: others are refused with a record of
// what they asked for, and the restriction has a record with old and new.
func TestOnlyOperatorsAndAdministratorsRestrictCreation(t *testing.T) {
	t.Parallel()
	w := newAccessWorld(t)
	now := domain.RestrictionNotSet
	for _, name := range slices.Sorted(maps.Keys(w.callers)) {
		settings := domain.UpdateAccountSettings{IfMatch: "*", RestrictUserKeys: new(domain.RestrictionOn)}
		if now == domain.RestrictionOn {
			settings.RestrictUserKeys = new(domain.RestrictionOff)
		}
		o := ingest.Order{
			Caller:    auth.NewCaller(domain.Initiator{IAMID: w.iam[name], Account: w.boot.Account}, w.dirs),
			RequestID: "request of " + name, CorrelationID: "test",
		}
		before := w.events(domain.EvidencePrefix)
		_, _, err := w.commands.ChangeAccount(t.Context(), o, w.boot.Account, settings)
		after := w.events(domain.EvidencePrefix)[len(before):]
		if len(after) != 1 {
			t.Errorf("%s: %d records, want one", name, len(after))
			continue
		}
		record, _ := domain.ActivityOf(after[0])
		wantErr, wantSeverity, wantData := domain.Forbidden, domain.SeverityCritical, `"request":{"restrict_create_platform_apikey":"`+string(*settings.RestrictUserKeys)
		switch name {
		case "Operator", "Administrator", "Owner":
			wantErr, wantSeverity, wantData = "", domain.SeverityWarning, `"changes":[{"field":"restrict_create_platform_apikey","old":"`+string(now)+`","new":"`+string(*settings.RestrictUserKeys)
			now = *settings.RestrictUserKeys
		case strangerPersona:
			wantErr, wantSeverity = domain.NotFound, domain.SeverityWarning
		}
		var got domain.Code
		if err != nil {
			got = domain.CodeOf(err)
		}
		if got != wantErr || record.Action != "iam-identity.account-settings.update" || record.Severity != wantSeverity || !strings.Contains(string(record.RequestData), wantData) {
			t.Errorf("%s: %v, record %s %s %s %s", name, err, record.Action, record.Severity, record.Outcome, record.RequestData)
		}
	}
}
