package domain_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"example.com/keytrail/domain"
)

// acme is an account of User-1 with User-2, whom User-1 invited, and User-3, whom User-2 did.
func acme(more ...domain.AccountCommand) []domain.AccountCommand {
	return append([]domain.AccountCommand{
		domain.CreateAccount{Account: "acct1", Name: "Acme", Owner: "User-1", OwnerName: "Ada"},
		domain.AddMember{IAMID: "User-2", Name: "Bob", Email: "bob@example.com", By: "User-1"},
		domain.AddMember{IAMID: "User-3", Firstname: "Cy", Lastname: "Coe", By: "User-2"},
	}, more...)
}

func TestMemberRules(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		when domain.AccountCommand
		want []domain.Event
		code domain.Code
	}{
		{
			name: "who invites stands above", when: domain.AddMember{IAMID: "User-4", Name: "Di", By: "User-3", Functional: true},
			want: []domain.Event{domain.MemberAdded{Account: "acct1", IAMID: "User-4", Name: "Di", Parent: "User-3", Functional: true}},
		},
		{
			name: "the owner stands above whom a stranger to the account invites", when: domain.AddMember{IAMID: "User-4", By: "User-9"},
			want: []domain.Event{domain.MemberAdded{Account: "acct1", IAMID: "User-4", Parent: "User-1"}},
		},
		{
			name: "the owner stands above whom a service ID invites", when: domain.AddMember{IAMID: "User-4", By: "iam-ServiceId-1"},
			want: []domain.Event{domain.MemberAdded{Account: "acct1", IAMID: "User-4", Parent: "User-1"}},
		},
		{
			name: "an invitation can name who stands above", when: domain.AddMember{IAMID: "User-4", By: "User-1", Parent: "User-3"},
			want: []domain.Event{domain.MemberAdded{Account: "acct1", IAMID: "User-4", Parent: "User-3"}},
		},
		{name: "a stranger stands above nobody", when: domain.AddMember{IAMID: "User-4", Parent: "User-9"}, code: domain.Invalid},
		{name: "an e-mail address belongs to one user", when: domain.AddMember{IAMID: "User-4", Email: "BOB@example.com"}, code: domain.Conflict},
		{name: "an e-mail address has one @", when: domain.AddMember{IAMID: "User-4", Email: "a@b@c"}, code: domain.Invalid},
		{name: "an e-mail address is no list", when: domain.AddMember{IAMID: "User-4", Email: "a@b.c,d@e.f"}, code: domain.Invalid},
		{
			name: "several are invited together", when: domain.AddMembers{Members: []domain.AddMember{{IAMID: "User-4", By: "User-2"}, {IAMID: "User-5", Parent: "User-4"}}},
			want: []domain.Event{
				domain.MemberAdded{Account: "acct1", IAMID: "User-4", Parent: "User-2"}, domain.MemberAdded{Account: "acct1", IAMID: "User-5", Parent: "User-4"},
			},
		},
		{name: "all are invited or none", when: domain.AddMembers{Members: []domain.AddMember{{IAMID: "User-4"}, {IAMID: "User-2", Name: "Rob"}}}, code: domain.Conflict},
		{name: "two of an invitation have one e-mail address", when: domain.AddMembers{Members: []domain.AddMember{{IAMID: "User-4", Email: "x@y.z"}, {IAMID: "User-5", Email: "x@y.z"}}}, code: domain.Conflict},
		{name: "an invitation names a user once", when: domain.AddMembers{Members: []domain.AddMember{{IAMID: "User-4"}, {IAMID: "User-4"}}}, code: domain.Invalid},
		{
			name: "a profile changes only what is given", when: domain.UpdateMember{IAMID: "User-3", Lastname: new("Doe")},
			want: []domain.Event{domain.MemberUpdated{
				Account: "acct1", IAMID: "User-3", Old: domain.MemberProfile{Name: "Cy Coe", Firstname: "Cy", Lastname: "Coe"},
				New: domain.MemberProfile{Name: "Cy Doe", Firstname: "Cy", Lastname: "Doe"},
			}},
		},
		{name: "the same profile changes nothing", when: domain.UpdateMember{IAMID: "User-3", Firstname: new("Cy")}},
		{name: "nobody takes another's e-mail address", when: domain.UpdateMember{IAMID: "User-3", Email: new("bob@example.com")}, code: domain.Conflict},
		{name: "a stranger has no profile", when: domain.UpdateMember{IAMID: "User-9"}, code: domain.NotFound},
		{name: "a service ID has no profile here", when: domain.UpdateMember{IAMID: "iam-ServiceId-1"}, code: domain.NotFound},
		{
			name: "whoever stood below one who is removed moves up", when: domain.RemoveMember{IAMID: "User-2"},
			want: []domain.Event{domain.MemberRemoved{
				Account: "acct1", IAMID: "User-2", Name: "Bob", Email: "bob@example.com", Parent: "User-1", Moved: []domain.IAMID{"User-3"},
			}},
		},
		{name: "the owner stays", when: domain.RemoveMember{IAMID: "User-1"}, code: domain.Conflict},
		{name: "a stranger is not removed", when: domain.RemoveMember{IAMID: "User-9"}, code: domain.NotFound},
		{
			name: "a user moves in the hierarchy", when: domain.SetParent{IAMID: "User-3", Parent: "User-1"},
			want: []domain.Event{domain.ParentSet{Account: "acct1", IAMID: "User-3", Old: "User-2", New: "User-1"}},
		},
		{name: "where it stands already changes nothing", when: domain.SetParent{IAMID: "User-3", Parent: "User-2"}},
		{name: "nobody stands above himself", when: domain.SetParent{IAMID: "User-2", Parent: "User-2"}, code: domain.Conflict},
		{name: "nobody stands below whom he stands above", when: domain.SetParent{IAMID: "User-2", Parent: "User-3"}, code: domain.Conflict},
		{name: "nobody stands above the owner", when: domain.SetParent{IAMID: "User-1", Parent: "User-2"}, code: domain.Conflict},
		{name: "a parent is a user of the account", when: domain.SetParent{IAMID: "User-3", Parent: "User-9"}, code: domain.Invalid},
		{name: "a stranger stands nowhere", when: domain.SetParent{IAMID: "User-9", Parent: "User-1"}, code: domain.NotFound},
		{
			name: "a user becomes a functional ID", when: domain.SetFunctional{IAMID: "User-2", Functional: true},
			want: []domain.Event{domain.FunctionalSet{Account: "acct1", IAMID: "User-2", Functional: true}},
		},
		{name: "a person is a person", when: domain.SetFunctional{IAMID: "User-2"}},
		{name: "the owner is no functional ID", when: domain.SetFunctional{IAMID: "User-1", Functional: true}, code: domain.Conflict},
		{
			name: "a user's addresses are kept in one form", when: domain.SetMemberSettings{IAMID: "User-2", AllowedAddresses: new(" 192.0.2.7/24 , ::ffff:10.0.0.1")},
			want: []domain.Event{domain.MemberSettingsSet{Account: "acct1", IAMID: "User-2", New: domain.MemberSettings{AllowedAddresses: "192.0.2.0/24,10.0.0.1"}}},
		},
		{name: "settings that are given as they are change nothing", when: domain.SetMemberSettings{IAMID: "User-2", AllowedAddresses: new(""), SelfManage: new(false)}},
		{name: "an address that is none is refused", when: domain.SetMemberSettings{IAMID: "User-2", AllowedAddresses: new("192.0.2.256")}, code: domain.Invalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := account(t, acme()...).Decide(tt.when)
			if codeOf(err) != tt.code {
				t.Fatalf("error = %v, want %q", err, tt.code)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

// TestWhatIsSetForAMemberHolds, until it is removed; added again, it begins anew.
func TestWhatIsSetForAMemberHolds(t *testing.T) {
	t.Parallel()
	set := acme(
		domain.SetRoles{IAMID: "User-2", Roles: []domain.Role{domain.RoleEditor}}, domain.SetFunctional{IAMID: "User-2", Functional: true},
		domain.SetMemberSettings{IAMID: "User-2", AllowedAddresses: new("10.0.0.0/8"), Language: new("en")}, domain.UpdateMember{IAMID: "User-2", Name: new("Rob")},
	)
	m, _ := account(t, set...).Member("User-2")
	if m.Name != "Rob" || m.Email != "bob@example.com" || !m.Functional || m.Parent != "User-1" || m.Addresses.String() != "10.0.0.0/8" || m.Settings.Language != "en" {
		t.Errorf("%+v", m)
	}
	gone := account(t, append(set, domain.RemoveMember{IAMID: "User-2"})...)
	if _, ok := gone.Member("User-2"); ok || gone.Standing("User-2").Known() {
		t.Error("one who was removed is a member")
	}
	if diff := cmp.Diff([]domain.IAMID{"User-1"}, gone.Ancestors("User-3")); diff != "" {
		t.Error(diff)
	}
	deep := account(t, acme(domain.AddMember{IAMID: "User-4", By: "User-3"}, domain.RemoveMember{IAMID: "User-3"})...)
	if diff := cmp.Diff([]domain.IAMID{"User-2", "User-1"}, deep.Ancestors("User-4")); diff != "" {
		t.Error(diff)
	}
	again, _ := account(t, append(set, domain.RemoveMember{IAMID: "User-2"}, domain.AddMember{IAMID: "User-2", Name: "Bob"})...).Member("User-2")
	if again.Functional || again.Roles != nil || !again.Addresses.Empty() {
		t.Errorf("one who was added again is %+v", again)
	}
}

// TestTheHierarchyIsATreeBelowTheOwner, whatever is ordered: every user's ancestors end with
// the owner, none stands above itself, and whoever invited or was set stands right above.
func TestTheHierarchyIsATreeBelowTheOwner(t *testing.T) {
	t.Parallel()
	ids := []domain.IAMID{"User-1", "User-2", "User-3", "User-4", "User-5", "User-6"}
	rapid.Check(t, func(t *rapid.T) {
		a := domain.Account{}.Evolve(domain.Recorded{Event: domain.AccountCreated{Account: "acct1", Owner: "User-1"}})
		one, other := rapid.SampledFrom(ids), rapid.SampledFrom(ids)
		for range rapid.IntRange(1, 40).Draw(t, "orders") {
			id, above := one.Draw(t, "user"), other.Draw(t, "above")
			cmd := rapid.SampledFrom([]domain.AccountCommand{
				domain.AddMember{IAMID: id, By: above}, domain.SetParent{IAMID: id, Parent: above}, domain.SetParent{IAMID: id, Parent: above}, domain.RemoveMember{IAMID: id},
			}).Draw(t, "order")
			before := a
			events, err := a.Decide(cmd)
			if domain.CodeOf(err) == domain.Internal && err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				a = a.Evolve(domain.Recorded{Event: e})
			}
			if set, ok := cmd.(domain.SetParent); ok && err == nil && a.Ancestors(set.IAMID)[0] != set.Parent {
				t.Fatalf("%s was set above %s, above it are %v", set.Parent, set.IAMID, a.Ancestors(set.IAMID))
			}
			for _, user := range a.Users() {
				up := a.Ancestors(user)
				if gone, ok := cmd.(domain.RemoveMember); ok {
					want := slices.DeleteFunc(before.Ancestors(user), func(id domain.IAMID) bool { return err == nil && id == gone.IAMID })
					if !slices.Equal(up, want) {
						t.Fatalf("with %s gone, above %s are %v, want %v", gone.IAMID, user, up, want)
					}
				}
				switch {
				case user == "User-1" && len(up) != 0:
					t.Fatalf("above the owner: %v", up)
				case user != "User-1" && (len(up) == 0 || up[len(up)-1] != "User-1" || slices.Contains(up, user)):
					t.Fatalf("above %s: %v", user, up)
				}
				for i, ancestor := range up {
					if diff := cmp.Diff(up[i+1:], a.Ancestors(ancestor)); len(up) > i+1 && diff != "" {
						t.Fatalf("above %s are %v, above %s: %s", user, up, ancestor, diff)
					}
				}
			}
		}
	})
}

// TestARecordedCycleEndsAtTheOwner: whatever was recorded, asking for ancestors ends.
func TestARecordedCycleEndsAtTheOwner(t *testing.T) {
	t.Parallel()
	a := account(t, acme()...)
	for _, e := range []domain.Event{domain.ParentSet{Account: "acct1", IAMID: "User-2", New: "User-3"}, domain.ParentSet{Account: "acct1", IAMID: "User-3", New: "User-2"}} {
		a = a.Evolve(domain.Recorded{Event: e})
	}
	up := a.Ancestors("User-2")
	if len(up) == 0 || up[len(up)-1] != "User-1" {
		t.Errorf("ancestors %v", up)
	}
}

// TestEventsFromBeforeTheHierarchyStandBelowTheOwner.
func TestEventsFromBeforeTheHierarchyStandBelowTheOwner(t *testing.T) {
	t.Parallel()
	a := domain.FoldAccount([]domain.Recorded{
		{Event: domain.AccountCreated{Account: "acct1", Owner: "User-1"}}, {Event: domain.MemberAdded{Account: "acct1", IAMID: "User-2"}},
	})
	if diff := cmp.Diff([]domain.IAMID{"User-1"}, a.Ancestors("User-2")); diff != "" {
		t.Error(diff)
	}
	if got := a.Ancestors("User-9"); got != nil {
		t.Errorf("above a stranger: %v", got)
	}
}

// TestWhoMayChangeAnAccount: each command by role, on the caller and on another.
func TestWhoMayChangeAnAccount(t *testing.T) {
	t.Parallel()
	a := account(t, acme()...)
	admins := []string{"Administrator", "Owner"}
	everybody := []string{}
	for _, p := range personas() {
		everybody = append(everybody, p.name)
	}
	tests := []struct {
		name    string
		cmd     domain.AccountCommand
		allowed []string
	}{
		{"invite", domain.AddMember{IAMID: "User-4"}, admins},
		{"invite several", domain.AddMembers{}, admins},
		{"remove", domain.RemoveMember{IAMID: "User-3"}, admins},
		{"remove himself", domain.RemoveMember{IAMID: "User-2"}, admins},
		{"set roles", domain.SetRoles{IAMID: "User-3"}, admins},
		{"set his own roles", domain.SetRoles{IAMID: "User-2"}, admins},
		{"move", domain.SetParent{IAMID: "User-3"}, admins},
		{"make functional", domain.SetFunctional{IAMID: "User-3"}, admins},
		{"change his own profile", domain.UpdateMember{IAMID: "User-2"}, everybody},
		{"change another's profile", domain.UpdateMember{IAMID: "User-1"}, admins},
		{"change the profile of one below", domain.UpdateMember{IAMID: "User-3"}, admins},
		{"change his own language", domain.SetMemberSettings{IAMID: "User-2", Language: new("en")}, everybody},
		{"change his own addresses", domain.SetMemberSettings{IAMID: "User-2", AllowedAddresses: new("")}, admins},
		{"change another's language", domain.SetMemberSettings{IAMID: "User-3", Language: new("en")}, admins},
		{"make an account", domain.CreateAccount{}, admins},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, p := range personas() {
				want := domain.Forbidden
				if slices.Contains(tt.allowed, p.name) {
					want = ""
				}
				if got := codeOf(domain.AuthorizeAccountChange(domain.Initiator{IAMID: "User-2"}, p.in, a, tt.cmd)); got != want {
					t.Errorf("%s: %q, want %q", p.name, got, want)
				}
			}
			stranger := codeOf(domain.AuthorizeAccountChange(domain.Initiator{IAMID: "User-2"}, domain.Standing{}, a, tt.cmd))
			if _, makes := tt.cmd.(domain.CreateAccount); stranger != domain.NotFound && !makes {
				t.Errorf("a stranger: %q, want that there is no such account", stranger)
			}
		})
	}
}

// TestARestrictedMemberSeesThoseBelow, and nobody else; a role lifts that.
func TestARestrictedMemberSeesThoseBelow(t *testing.T) {
	t.Parallel()
	a := account(t, acme(domain.AddMember{IAMID: "User-4", Name: "Di", By: "User-3"}, domain.AddMember{IAMID: "User-5", Name: "Ed", By: "User-1"})...)
	for _, tt := range []struct {
		who  domain.IAMID
		sees []domain.IAMID
	}{
		{"User-2", []domain.IAMID{"User-2", "User-3", "User-4"}},
		{"User-4", []domain.IAMID{"User-4"}},
		{"User-5", []domain.IAMID{"User-5"}},
	} {
		in := domain.Standing{Member: true, Restricted: domain.Restricted{Users: true}}
		var got []domain.IAMID
		for _, user := range a.Users() {
			if domain.AuthorizeUser(domain.Initiator{IAMID: tt.who}, in, domain.VerbList, a, user) == nil {
				got = append(got, user)
			}
		}
		if diff := cmp.Diff(tt.sees, got); diff != "" {
			t.Errorf("%s sees (-want +got):\n%s", tt.who, diff)
		}
	}
}
