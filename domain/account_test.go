package domain_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
)

// account folds what cmds cause.
func account(tb testing.TB, cmds ...domain.AccountCommand) domain.Account {
	tb.Helper()
	var a domain.Account
	for i, cmd := range cmds {
		events, err := a.Decide(cmd)
		if err != nil {
			tb.Fatal(err)
		}
		for _, e := range events {
			a = a.Evolve(domain.Recorded{Event: e, Meta: domain.Metadata{EffectiveAt: t0.Add(time.Duration(i) * time.Second)}})
		}
	}
	return a
}

func settings(userKeys, serviceIDs domain.Restriction) domain.AccountSettings {
	return domain.AccountSettings{RestrictUserKeys: userKeys, RestrictServiceIDs: serviceIDs, RestrictUserList: domain.RestrictionOff, MFA: domain.MFANone}
}

func restrict(userKeys, serviceIDs domain.Restriction) domain.UpdateAccountSettings {
	return domain.UpdateAccountSettings{IfMatch: "*", RestrictUserKeys: &userKeys, RestrictServiceIDs: &serviceIDs}
}

// TestARestrictionHoldsForEverybodyInTheAccount, and only while it is on.
func TestARestrictionHoldsForEverybodyInTheAccount(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		userKeys, serviceIDs domain.Restriction
		want                 domain.Restricted
	}{
		{domain.RestrictionNotSet, domain.RestrictionNotSet, domain.Restricted{}},
		{domain.RestrictionOff, domain.RestrictionOff, domain.Restricted{}},
		{domain.RestrictionOn, domain.RestrictionOff, domain.Restricted{UserKeys: true}},
		{domain.RestrictionOff, domain.RestrictionOn, domain.Restricted{ServiceIDs: true}},
	} {
		a := account(t,
			domain.CreateAccount{Account: "acct1", Name: "Acme", Owner: "User-1", OwnerName: "Ada"}, domain.AddMember{IAMID: "User-2", Name: "Bob"},
			restrict(domain.RestrictionOn, domain.RestrictionOn), restrict(tt.userKeys, tt.serviceIDs),
			domain.SetRoles{IAMID: "User-1", Roles: []domain.Role{domain.RoleUserKeyCreator}},
		)
		for _, id := range []domain.IAMID{"User-1", "User-2"} {
			if got := a.Standing(id).Restricted; got != tt.want {
				t.Errorf("%s with %s, %s: %+v, want %+v", id, tt.userKeys, tt.serviceIDs, got, tt.want)
			}
		}
		if owner, _ := a.Member("User-1"); owner.Name != "Ada" || !a.Standing("User-1").Owner {
			t.Errorf("the owner with a role is %+v", owner)
		}
	}
}

func TestAccountRules(t *testing.T) {
	t.Parallel()
	create := domain.CreateAccount{Account: "acct1", Name: "Acme", Owner: "User-1", OwnerName: "Ada"}
	bob := domain.AddMember{IAMID: "User-2", Name: "Bob", Roles: []domain.Role{domain.RoleViewer, domain.RoleAuditor, domain.RoleViewer}}
	tests := []struct {
		name  string
		given []domain.AccountCommand
		when  domain.AccountCommand
		want  []domain.Event
		code  domain.Code
	}{
		{
			name: "an account is created", when: create,
			want: []domain.Event{domain.AccountCreated{Account: "acct1", Name: "Acme", Owner: "User-1", OwnerName: "Ada"}},
		},
		{name: "an account is created once", given: []domain.AccountCommand{create}, when: create, code: domain.Conflict},
		{name: "an account needs a name", when: domain.CreateAccount{Account: "a", Owner: "u"}, code: domain.Invalid},
		{name: "an account needs an owner", when: domain.CreateAccount{Account: "a", Name: "n"}, code: domain.Invalid},
		{name: "an account id can stand in a stream name", when: domain.CreateAccount{Account: "a/b", Name: "n", Owner: "u"}, code: domain.Invalid},
		{
			name: "a member's roles are sorted, each once", given: []domain.AccountCommand{create}, when: bob,
			want: []domain.Event{domain.MemberAdded{Account: "acct1", IAMID: "User-2", Name: "Bob", Roles: []domain.Role{domain.RoleAuditor, domain.RoleViewer}, Parent: "User-1"}},
		},
		{name: "adding the same member again changes nothing", given: []domain.AccountCommand{create, bob}, when: bob},
		{name: "a member is added once", given: []domain.AccountCommand{create, bob}, when: domain.AddMember{IAMID: "User-2", Name: "Rob"}, code: domain.Conflict},
		{name: "a member of nothing is not added", when: bob, code: domain.NotFound},
		{name: "an unknown role is refused", given: []domain.AccountCommand{create}, when: domain.AddMember{IAMID: "User-2", Roles: []domain.Role{"King"}}, code: domain.Invalid},
		{name: "a service ID is no member", given: []domain.AccountCommand{create}, when: domain.AddMember{IAMID: "iam-ServiceId-1"}, code: domain.Invalid},
		{name: "the system is no member", given: []domain.AccountCommand{create}, when: domain.AddMember{IAMID: domain.SystemIAMID}, code: domain.Invalid},
		{
			name: "roles are set as a whole, with the old ones", given: []domain.AccountCommand{create, bob}, when: domain.SetRoles{IAMID: "User-2", Roles: []domain.Role{domain.RoleEditor}},
			want: []domain.Event{domain.RolesSet{Account: "acct1", IAMID: "User-2", Old: []domain.Role{domain.RoleAuditor, domain.RoleViewer}, New: []domain.Role{domain.RoleEditor}}},
		},
		{name: "setting the same roles changes nothing", given: []domain.AccountCommand{create, bob}, when: domain.SetRoles{IAMID: "User-2", Roles: []domain.Role{domain.RoleViewer, domain.RoleAuditor}}},
		{name: "the owner's roles are not set", given: []domain.AccountCommand{create}, when: domain.SetRoles{IAMID: "User-1", Roles: []domain.Role{domain.RoleViewer, domain.RoleUserKeyCreator}}, code: domain.Conflict},
		{
			name: "the owner can be made a creator", given: []domain.AccountCommand{create}, when: domain.SetRoles{IAMID: "User-1", Roles: []domain.Role{domain.RoleUserKeyCreator}},
			want: []domain.Event{domain.RolesSet{Account: "acct1", IAMID: "User-1", New: []domain.Role{domain.RoleUserKeyCreator}}},
		},
		{
			name: "the owner can be no creator any more", given: []domain.AccountCommand{create, domain.SetRoles{IAMID: "User-1", Roles: []domain.Role{domain.RoleUserKeyCreator}}}, when: domain.SetRoles{IAMID: "User-1"},
			want: []domain.Event{domain.RolesSet{Account: "acct1", IAMID: "User-1", Old: []domain.Role{domain.RoleUserKeyCreator}}},
		},
		{
			name: "settings are recorded as a whole, with the old ones", given: []domain.AccountCommand{create}, when: restrict(domain.RestrictionOn, domain.RestrictionNotSet),
			want: []domain.Event{domain.AccountSettingsSet{
				Account: "acct1", Old: settings(domain.RestrictionNotSet, domain.RestrictionNotSet), New: settings(domain.RestrictionOn, domain.RestrictionNotSet),
			}},
		},
		{
			name: "setting the same settings changes nothing", given: []domain.AccountCommand{create, restrict(domain.RestrictionOn, domain.RestrictionOff)},
			when: restrict(domain.RestrictionOn, domain.RestrictionOff),
		},
		{name: "an unknown restriction is refused", given: []domain.AccountCommand{create}, when: restrict("SOMETIMES", domain.RestrictionOn), code: domain.Invalid},
		{name: "a restriction that is empty is refused", given: []domain.AccountCommand{create}, when: restrict(domain.RestrictionOn, ""), code: domain.Invalid},
		{name: "no account has no settings", when: restrict(domain.RestrictionOn, domain.RestrictionOn), code: domain.NotFound},
		{name: "a stranger's roles are not set", given: []domain.AccountCommand{create}, when: domain.SetRoles{IAMID: "User-9"}, code: domain.NotFound},
		{
			name: "a service ID can hold roles", given: []domain.AccountCommand{create}, when: domain.SetRoles{IAMID: "iam-ServiceId-1", Roles: []domain.Role{domain.RoleIngester}},
			want: []domain.Event{domain.RolesSet{Account: "acct1", IAMID: "iam-ServiceId-1", New: []domain.Role{domain.RoleIngester}}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := account(t, tt.given...).Decide(tt.when)
			if codeOf(err) != tt.code {
				t.Fatalf("error = %v, want %q", err, tt.code)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

func TestStandingFollowsTheAccountsEvents(t *testing.T) {
	t.Parallel()
	a := account(t,
		domain.CreateAccount{Account: "acct1", Name: "Acme", Owner: "User-1"},
		domain.AddMember{IAMID: "User-2", Name: "Bob"},
		domain.SetRoles{IAMID: "User-2", Roles: []domain.Role{domain.RoleEditor}},
	)
	if !a.Standing("User-1").Owner || a.Standing("").Owner {
		t.Error("the owner, and nobody else, is the owner")
	}
	if diff := cmp.Diff(role(domain.RoleEditor), a.Standing("User-2")); diff != "" {
		t.Error(diff)
	}
	if a.Standing("User-3").Known() {
		t.Error("a stranger is known")
	}
	if diff := cmp.Diff([]domain.IAMID{"User-1", "User-2"}, a.Identities()); diff != "" {
		t.Error(diff)
	}
}

func TestServiceIDRules(t *testing.T) {
	t.Parallel()
	create := domain.CreateServiceID{ID: "ServiceId-1", Account: "acct1", Name: "ci"}
	fold := func(cmds ...domain.ServiceIDCommand) domain.ServiceID {
		var s domain.ServiceID
		for _, cmd := range cmds {
			events, err := s.Decide(cmd)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				s = s.Evolve(domain.Recorded{Event: e, Meta: domain.Metadata{EffectiveAt: t0, Initiator: owner()}})
			}
		}
		return s
	}
	tests := []struct {
		name  string
		given []domain.ServiceIDCommand
		when  domain.ServiceIDCommand
		want  int
		code  domain.Code
	}{
		{name: "a service ID is created", when: create, want: 1},
		{name: "a service ID is created once", given: []domain.ServiceIDCommand{create}, when: create, code: domain.Conflict},
		{name: "a service ID needs a name", when: domain.CreateServiceID{ID: "x"}, code: domain.Invalid},
		{name: "a service ID is deleted", given: []domain.ServiceIDCommand{create}, when: domain.DeleteServiceID{}, want: 1},
		{name: "deleting twice changes nothing", given: []domain.ServiceIDCommand{create, domain.DeleteServiceID{}}, when: domain.DeleteServiceID{}},
		{name: "what never was is not deleted", when: domain.DeleteServiceID{}, code: domain.NotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := fold(tt.given...).Decide(tt.when)
			if codeOf(err) != tt.code || len(got) != tt.want {
				t.Errorf("%v, %v; want %d events, %q", got, err, tt.want, tt.code)
			}
		})
	}
	s := fold(create).State()
	if id, ok := domain.ServiceIDOf(s.IAMID); !ok || id != s.ID || s.CreatedBy != "User-1" {
		t.Errorf("state = %+v", s)
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, in, want string }{
		{"IBM's form", "2027-01-31T23:59+0000", "2027-01-31T23:59+0000"},
		{"with seconds", "2027-01-31T23:59:07+0000", "2027-01-31T23:59:07+0000"},
		{"another zone", "2027-01-31T23:59+0200", "2027-01-31T21:59+0000"},
		{"RFC 3339", "2027-01-31T23:59:00Z", "2027-01-31T23:59+0000"},
		{"an hour that looks like seconds", "2027-01-31T00:00:00+0000", "2027-01-31T00:00+0000"},
		{"no zone", "2027-01-31T23:59", ""},
		{"no date", "tomorrow", ""},
		{"beyond what is stored", "9999-01-31T23:59+0000", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := domain.ParseExpiry(tt.in)
			if (err == nil) != (tt.want != "") {
				t.Fatalf("ParseExpiry(%q) = %v, %v", tt.in, got, err)
			}
			if err == nil && domain.FormatExpiry(&got) != tt.want {
				t.Errorf("%q comes back as %q, want %q", tt.in, domain.FormatExpiry(&got), tt.want)
			}
		})
	}
	if got := domain.NextEffective(t0.Add(-time.Hour), t0); !got.Equal(t0.Add(time.Millisecond)) {
		t.Errorf("a clock that went back gives %s", got)
	}
}
