package domain_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"example.com/keytrail/domain"
)

// The two accounts of the matrix. Whoever is anything in home is nobody in elsewhere.
const (
	home      = domain.AccountID("acct1")
	elsewhere = domain.AccountID("acct2")
)

func codeOf(err error) domain.Code {
	if err == nil {
		return ""
	}
	return domain.CodeOf(err)
}

func role(r ...domain.Role) domain.Standing { return domain.Standing{Member: true, Roles: r} }

func verbs() []domain.Verb {
	return []domain.Verb{
		domain.VerbCreate, domain.VerbRead, domain.VerbList, domain.VerbUpdate, domain.VerbLock, domain.VerbUnlock,
		domain.VerbDisable, domain.VerbEnable, domain.VerbDelete, domain.VerbLogin, domain.VerbObserve, domain.VerbRotate, domain.VerbReveal, domain.VerbAbandon,
	}
}

func rights() []domain.Right {
	return []domain.Right{
		domain.RightRead, domain.RightVerify, domain.RightIngest, domain.RightTriage, domain.RightConfigure, domain.RightRestrict, domain.RightAssign,
		domain.RightSettings,
	}
}

// persona is a column of the matrix: who holds one role, or none, or owns the account.
type persona struct {
	name string
	in   domain.Standing
}

func personas() []persona {
	return []persona{
		{"Member", role()},
		{"Viewer", role(domain.RoleViewer)},
		{"Operator", role(domain.RoleOperator)},
		{"Editor", role(domain.RoleEditor)},
		{"Administrator", role(domain.RoleAdministrator)},
		{"UserKeyCreator", role(domain.RoleUserKeyCreator)},
		{"ServiceIDCreator", role(domain.RoleServiceIDCreator)},
		{"Verifier", role(domain.RoleVerifier)},
		{"Auditor", role(domain.RoleAuditor)},
		{"Ingester", role(domain.RoleIngester)},
		{"Responder", role(domain.RoleResponder)},
		{"Owner", domain.Standing{Owner: true, Member: true}},
	}
}

func restrictions() []domain.Restricted {
	var all []domain.Restricted
	for i := range 8 {
		all = append(all, domain.Restricted{UserKeys: i&1 != 0, ServiceIDs: i&2 != 0, Users: i&4 != 0})
	}
	return all
}

// question is one thing to decide: verb on something in view.
type question struct {
	view domain.View
	own  bool
	verb domain.Verb
}

// questions is every question there is.
func questions() []question {
	var all []question
	for _, view := range []domain.View{domain.ViewUserKeys, domain.ViewServiceKeys, domain.ViewExternalKeys, domain.ViewClassicKeys, domain.ViewServiceIDs, domain.ViewSessions, domain.ViewUsers} {
		for _, own := range []bool{true, false} {
			for _, verb := range verbs() {
				all = append(all, question{view, own, verb})
			}
		}
	}
	for _, right := range rights() {
		all = append(all, question{view: domain.ViewAccount, verb: domain.Verb(right)})
	}
	return append(all, question{view: domain.ViewAccount, verb: "operate"})
}

// ask puts q for somebody who stands so.
func (q question) ask(who domain.Initiator, in domain.Standing) error {
	owner := domain.IAMID("somebody else")
	if q.own {
		owner = who.IAMID
	}
	switch q.view {
	case domain.ViewUsers:
		return domain.AuthorizeUser(who, in, q.verb, domain.Account{}, owner)
	case domain.ViewServiceIDs:
		return domain.AuthorizeServiceID(who, in, q.verb, domain.ServiceIDState{ID: "s", Account: home, IAMID: owner})
	case domain.ViewSessions:
		return domain.AuthorizeSession(who, in, q.verb, domain.SessionState{ID: "s", Account: home, IAMID: owner})
	case domain.ViewAccount:
		if q.verb == "operate" {
			return domain.AuthorizeOperator(who, in, "do it")
		}
		return domain.AuthorizeAccount(who, in, domain.Right(q.verb))
	case domain.ViewMine, domain.ViewUserKeys, domain.ViewServiceKeys, domain.ViewExternalKeys, domain.ViewClassicKeys, domain.ViewFunctionalKeys:
	}
	return domain.AuthorizeKey(who, in, q.verb, domain.KeyState{ID: "k", Account: home, IAMID: owner, Kind: domain.KeyKind(q.view)})
}

// String returns q as the first columns of the matrix have it.
func (q question) String() string {
	whose := "other"
	switch {
	case q.view == domain.ViewAccount:
		whose = "-"
	case q.own:
		whose = "own"
	}
	return string(q.view) + " " + whose + " " + string(q.verb)
}

// matrix reads the expectations: by question, the cell of every persona.
func matrix(t *testing.T) map[string]map[string]string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "access", "matrix.txt"))
	if err != nil {
		t.Fatal(err)
	}
	cells := map[string]map[string]string{}
	for line := range strings.Lines(string(data)) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		name := strings.Join(words[:3], " ")
		if cells[name] != nil || len(words) != 3+len(personas()) {
			t.Fatalf("matrix: %q is there twice or has not one cell a persona", name)
		}
		cells[name] = map[string]string{}
		for i, p := range personas() {
			cells[name][p.name] = words[3+i]
		}
	}
	return cells
}

// wanted is what a cell means while r is in force.
func wanted(t *testing.T, cell string, r domain.Restricted) domain.Code {
	t.Helper()
	allowed := map[string]bool{"+": true, ".": false, "k": !r.UserKeys, "s": !r.ServiceIDs, "u": !r.Users}
	may, ok := allowed[cell]
	switch {
	case !ok:
		t.Fatalf("matrix: unknown cell %q", cell)
	case may:
		return ""
	}
	return domain.Forbidden
}

// TestAccessMatrix asks every question of every persona, under every restriction, as one of
// the account and as one of another, and of keytrail itself.
func TestAccessMatrix(t *testing.T) {
	t.Parallel()
	cells, asked, decisions := matrix(t), map[string]bool{}, 0
	who, system := domain.Initiator{IAMID: "User-1"}, domain.Initiator{IAMID: domain.SystemIAMID}
	for _, q := range questions() {
		row, known := cells[q.String()]
		asked[q.String()] = true
		for _, p := range personas() {
			for _, r := range restrictions() {
				want := domain.Forbidden // What is not in the matrix, only keytrail itself may do.
				if known {
					want = wanted(t, row[p.name], r)
				}
				stranger := domain.NotFound
				if q.verb == "operate" {
					stranger = domain.Forbidden // The operator's account is no secret.
				}
				inHome, inOther := p.in, domain.Standing{Restricted: r}
				inHome.Restricted = r
				for _, c := range []struct {
					name string
					who  domain.Initiator
					in   domain.Standing
					want domain.Code
				}{
					{"same account", who, inHome, want},
					{"another account", who, inOther, stranger},
					{"keytrail itself, same account", system, inHome, ""},
					{"keytrail itself, another account", system, inOther, ""},
				} {
					decisions++
					if got := codeOf(q.ask(c.who, c.in)); got != c.want {
						t.Errorf("%s, %s, %s, %+v: %q, want %q", p.name, q, c.name, r, got, c.want)
					}
				}
			}
		}
	}
	for name := range cells {
		if !asked[name] {
			t.Errorf("the matrix has %q, which nobody asked", name)
		}
	}
	t.Logf("%d decisions", decisions)
}

// TestEveryRoleIsInTheMatrix, and can be held.
func TestEveryRoleIsInTheMatrix(t *testing.T) {
	t.Parallel()
	account := domain.FoldAccount([]domain.Recorded{{Event: domain.AccountCreated{Account: home, Owner: "User-1"}}})
	for _, r := range domain.Roles() {
		if !slices.ContainsFunc(personas(), func(p persona) bool { return slices.Contains(p.in.Roles, r) }) {
			t.Errorf("no persona holds %q", r)
		}
		if _, err := account.Decide(domain.AddMember{IAMID: "User-2", Name: "Bob", Roles: []domain.Role{r}}); err != nil {
			t.Errorf("%q: %v", r, err)
		}
	}
}

// TestARoleInOneAccountIsNothingInAnother, as the folds of two accounts say.
func TestARoleInOneAccountIsNothingInAnother(t *testing.T) {
	t.Parallel()
	roles := domain.Roles()
	mine := domain.FoldAccount([]domain.Recorded{
		{Event: domain.AccountCreated{Account: home, Owner: "User-owner"}},
		{Event: domain.MemberAdded{Account: home, IAMID: "User-all", Roles: roles[:]}},
	})
	theirs := domain.FoldAccount([]domain.Recorded{{Event: domain.AccountCreated{Account: elsewhere, Owner: "User-them"}}})
	for _, id := range []domain.IAMID{"User-owner", "User-all"} {
		for _, q := range questions() {
			who := domain.Initiator{IAMID: id, Account: home}
			want := domain.NotFound
			if q.verb == "operate" {
				want = domain.Forbidden
			}
			if got := codeOf(q.ask(who, theirs.Standing(id))); got != want {
				t.Errorf("%s, %s in another account: %q, want %q", id, q, got, want)
			}
			if got := codeOf(q.ask(who, mine.Standing(id))); got == domain.NotFound {
				t.Errorf("%s, %s in his own account: %q", id, q, got)
			}
		}
	}
}

// TestADecisionHasNoOtherReasons: it is the same whatever else is true of the caller and
// the key, it is what one of his roles alone would give, and one role more takes nothing away.
func TestADecisionHasNoOtherReasons(t *testing.T) {
	t.Parallel()
	all := domain.Roles()
	rapid.Check(t, func(t *rapid.T) {
		in := domain.Standing{
			Member: true, Owner: rapid.Bool().Draw(t, "owner"), Roles: rapid.SliceOfN(rapid.SampledFrom(all[:]), 0, 6).Draw(t, "roles"),
			Restricted: rapid.SampledFrom(restrictions()).Draw(t, "restricted"),
		}
		q := rapid.SampledFrom(questions()).Draw(t, "question")
		text := rapid.StringN(0, 8, 32)
		who := domain.Initiator{
			IAMID: "User-1", Account: domain.AccountID(text.Draw(t, "credential's account")), Name: text.Draw(t, "name"),
			Address: text.Draw(t, "address"), Agent: text.Draw(t, "agent"), CredentialID: domain.KeyID(text.Draw(t, "key")),
		}
		got := q.ask(who, in) == nil
		alone := q.ask(domain.Initiator{IAMID: "User-1"}, domain.Standing{Member: true, Owner: in.Owner, Restricted: in.Restricted}) == nil
		for _, r := range in.Roles {
			alone = alone || q.ask(domain.Initiator{IAMID: "User-1"}, domain.Standing{Member: true, Roles: []domain.Role{r}, Restricted: in.Restricted}) == nil
		}
		if got != alone {
			t.Fatalf("%s with %+v: %t; one by one: %t", q, in, got, alone)
		}
		if q.view != domain.ViewServiceIDs && q.view != domain.ViewSessions && q.view != domain.ViewAccount && q.view != domain.ViewUsers {
			key := domain.KeyState{
				Account: home, Kind: domain.KeyKind(q.view), Name: text.Draw(t, "key name"), CreatedBy: "User-1",
				Locked: rapid.Bool().Draw(t, "locked"), Disabled: rapid.Bool().Draw(t, "disabled"), Deleted: rapid.Bool().Draw(t, "deleted"),
			}
			if q.own {
				key.IAMID = who.IAMID
			}
			if (domain.AuthorizeKey(who, in, q.verb, key) == nil) != got {
				t.Fatalf("%s on %+v: not %t", q, key, got)
			}
		}
	})
}

// TestNobodyLosesHisOwnKeys: whatever the roles and restrictions, a user may do everything
// to his own, and create more unless that is restricted.
func TestNobodyLosesHisOwnKeys(t *testing.T) {
	t.Parallel()
	for _, p := range personas() {
		for _, r := range restrictions() {
			p.in.Restricted = r
			for _, verb := range verbs()[1:9] {
				q := question{domain.ViewUserKeys, true, verb}
				if err := q.ask(domain.Initiator{IAMID: "User-1"}, p.in); err != nil {
					t.Errorf("%s, %+v: %v", p.name, r, err)
				}
			}
			create := question{domain.ViewUserKeys, true, domain.VerbCreate}
			may := !r.UserKeys || p.name == "UserKeyCreator"
			if err := create.ask(domain.Initiator{IAMID: "User-1"}, p.in); (err == nil) != may {
				t.Errorf("%s creates, %+v: %v, want %t", p.name, r, err, may)
			}
		}
	}
}

// TestARefusalNamesTheRolesThatWouldHelp: those and no others.
func TestARefusalNamesTheRolesThatWouldHelp(t *testing.T) {
	t.Parallel()
	who := domain.Initiator{IAMID: "User-1"}
	for _, q := range questions() {
		for _, r := range restrictions() {
			in := role()
			in.Restricted = r
			err := q.ask(who, in)
			if err == nil {
				continue
			}
			for _, helper := range domain.Roles() {
				holding := role(helper)
				holding.Restricted = r
				helps, named := q.ask(who, holding) == nil, namesRole(err.Error(), helper)
				if helps != named {
					t.Errorf("%s, %+v: %q helps %t, is named %t: %q", q, r, helper, helps, named, err)
				}
			}
		}
	}
}

// namesRole reports whether message names r, and not only a role whose name has r in it.
func namesRole(message string, r domain.Role) bool {
	_, list, _ := strings.Cut(message, " needs the role ")
	for _, end := range []string{" on IAM Identity", " in the operator's account"} {
		list = strings.ReplaceAll(list, end, "")
	}
	list = strings.ReplaceAll(strings.ReplaceAll(list, " or the role ", ","), " or ", ",")
	return slices.Contains(strings.Split(strings.ReplaceAll(list, ", ", ","), ","), string(r))
}

// TestTheWordsOfARefusal: what the caller reads, and the code for programs.
func TestTheWordsOfARefusal(t *testing.T) {
	t.Parallel()
	member := role()
	member.Restricted = domain.Restricted{UserKeys: true, ServiceIDs: true}
	tests := []struct {
		q             question
		in            domain.Standing
		message, code string
	}{
		{question{domain.ViewUserKeys, false, domain.VerbDelete}, member, "to delete another user's API key needs the role Administrator on IAM Identity", "missing_role"},
		{question{domain.ViewUserKeys, false, domain.VerbList}, member, "to list all user API keys needs the role Administrator on IAM Identity or the role Auditor", "missing_role"},
		{question{domain.ViewServiceKeys, false, domain.VerbUpdate}, member, "to update a service ID's API key needs the role Editor or Administrator on IAM Identity", "missing_role"},
		{question{domain.ViewServiceIDs, false, domain.VerbRead}, member, "to read a service ID needs the role Viewer, Operator, Editor or Administrator on IAM Identity or the role Auditor", "missing_role"},
		{question{domain.ViewAccount, false, "verify"}, member, "to verify keys of this account needs the role Verifier", "missing_role"},
		{question{domain.ViewAccount, false, "operate"}, member, "to do it needs the role Administrator on IAM Identity in the operator's account", "missing_role"},
		{question{domain.ViewUserKeys, false, domain.VerbCreate}, role(), "only the user that it belongs to may create a user's API key", "not_own_key"},
		{question{domain.ViewUserKeys, true, domain.VerbCreate}, member, "creation is restricted in this account, also for its owner: to create a user's API key needs the role User API key creator on IAM Identity", "creation_restricted"},
		{question{domain.ViewServiceIDs, false, domain.VerbCreate}, member, "creation is restricted in this account, also for its owner: to create a service ID needs the role Service ID creator on IAM Identity", "creation_restricted"},
		{question{domain.ViewUsers, false, domain.VerbRead}, domain.Standing{Member: true, Restricted: domain.Restricted{Users: true}}, "to read another user needs the role Viewer, Operator, Editor or Administrator on IAM Identity or the role Auditor", "missing_role"},
		{question{domain.ViewUsers, false, domain.VerbUpdate}, role(), "to update another user needs the role Administrator on IAM Identity", "missing_role"},
		{question{domain.ViewUsers, false, domain.VerbRead}, domain.Standing{}, "no such account", "account_not_found"},
		{question{domain.ViewAccount, false, "settings"}, member, "to read the settings of this account needs the role Viewer, Operator, Editor or Administrator on IAM Identity or the role Auditor", "missing_role"},
		{question{domain.ViewExternalKeys, false, domain.VerbObserve}, member, "only keytrail itself may observe this", "missing_role"},
		{question{domain.ViewUserKeys, true, domain.VerbRead}, domain.Standing{}, "no such API key", "key_not_found"},
		{question{domain.ViewServiceIDs, true, domain.VerbRead}, domain.Standing{}, "no such service ID", "serviceid_not_found"},
		{question{domain.ViewAccount, false, "assign"}, domain.Standing{}, "no such account", "account_not_found"},
	}
	for _, tt := range tests {
		t.Run(tt.q.String(), func(t *testing.T) {
			t.Parallel()
			got, ok := errors.AsType[*domain.Error](tt.q.ask(domain.Initiator{IAMID: "User-1"}, tt.in))
			if !ok || got.Message != tt.message || got.MessageCode != tt.code {
				t.Errorf("%+v, want %q %s", got, tt.message, tt.code)
			}
		})
	}
}

// TestOnlyOpenFiltersAreOffered: a filter is offered exactly where the list that it stands
// for is permitted.
func TestOnlyOpenFiltersAreOffered(t *testing.T) {
	t.Parallel()
	want := map[string][]domain.View{}
	for _, name := range []string{"Member", "UserKeyCreator", "ServiceIDCreator", "Verifier", "Ingester", "Responder"} {
		want[name] = []domain.View{domain.ViewMine, domain.ViewClassicKeys}
	}
	for _, name := range []string{"Viewer", "Operator", "Editor"} {
		want[name] = []domain.View{domain.ViewMine, domain.ViewClassicKeys, domain.ViewServiceKeys, domain.ViewExternalKeys}
	}
	for _, name := range []string{"Administrator", "Auditor", "Owner"} {
		want[name] = []domain.View{domain.ViewMine, domain.ViewClassicKeys, domain.ViewUserKeys, domain.ViewServiceKeys, domain.ViewExternalKeys, domain.ViewFunctionalKeys}
	}
	who := domain.Initiator{IAMID: "User-1"}
	for _, p := range personas() {
		offered := p.in.KeyViews()
		if diff := cmp.Diff(want[p.name], offered); diff != "" {
			t.Errorf("%s (-want +got):\n%s", p.name, diff)
		}
		own := domain.KeysQuery{Scope: "entity", IAMID: who.IAMID}
		if err := domain.AuthorizeList(who, p.in, own); err != nil {
			t.Errorf("%s lists his own: %v", p.name, err)
		}
		for _, kind := range []domain.KeyKind{domain.KindUser, domain.KindServiceID, domain.KindExternal, domain.KindClassic} {
			err := domain.AuthorizeList(who, p.in, domain.KeysQuery{Scope: "account", Type: kind})
			if slices.Contains(offered, domain.View(kind)) != (err == nil) {
				t.Errorf("%s: %s is offered %t, and listing gives %v", p.name, kind, err != nil, err)
			}
		}
		whole := len(offered) == 6
		if err := domain.AuthorizeList(who, p.in, domain.KeysQuery{Scope: "account"}); (err == nil) != whole {
			t.Errorf("%s lists every kind: %v, want %t", p.name, err, whole)
		}
	}
	if got := (domain.Standing{}).KeyViews(); got != nil {
		t.Errorf("a stranger is offered %v", got)
	}
}
