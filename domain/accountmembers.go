package domain

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Bounds of what is kept of a user, in bytes.
const (
	emailBytesMax    = 254
	languageBytesMax = 64
)

// Member is a user of an account, or a service ID that holds roles in it.
type Member struct {
	MemberProfile
	Roles []Role
	// Parent stands above the user in the classic hierarchy: whoever invited it, unless that
	// was changed. Above the owner is nobody.
	Parent     IAMID
	Functional bool
	Settings   MemberSettings
	// Addresses are those from which the user may come (Settings.AllowedAddresses).
	Addresses AddressList
	AddedAt   time.Time
}

// evolveMember returns a after a fact about one of its members.
func (a Account) evolveMember(rec Recorded, about MemberEvent) Account {
	switch e := about.(type) {
	case MemberAdded:
		return a.with(e.IAMID, Member{
			MemberProfile: MemberProfile{Name: e.Name, Firstname: e.Firstname, Lastname: e.Lastname, Email: e.Email},
			Roles:         e.Roles, Parent: IAMID(firstOf(string(e.Parent), string(a.owner))), Functional: e.Functional, AddedAt: rec.Meta.EffectiveAt,
		})
	case MemberUpdated:
		return a.changed(e.IAMID, func(m *Member) { m.MemberProfile = e.New })
	case MemberRemoved:
		return a.without(rec, e)
	case RolesSet:
		if _, service := ServiceIDOf(e.IAMID); service && len(e.New) == 0 {
			a.members = a.members.without(e.IAMID)
			return a
		}
		return a.changed(e.IAMID, func(m *Member) { m.Roles = e.New })
	case ParentSet:
		return a.changed(e.IAMID, func(m *Member) { m.Parent = e.New })
	case FunctionalSet:
		return a.changed(e.IAMID, func(m *Member) { m.Functional = e.Functional })
	case MemberSettingsSet:
		return a.changed(e.IAMID, func(m *Member) {
			m.Settings, m.Addresses = e.New, recordedAddresses(e.New.AllowedAddresses)
		})
	case GrantsSet:
		return a.withGrants(e.IAMID, e.New)
	}
	return a
}

func (a Account) withGrants(id IAMID, g Grants) Account {
	a.grants = a.grants.without(id)
	if len(g) > 0 {
		a.grants = a.grants.with(id, g)
	}
	return a
}

func (a Account) with(id IAMID, m Member) Account {
	a.members = a.members.with(id, &m)
	return a
}

func (a Account) changed(id IAMID, change func(*Member)) Account {
	m, _ := a.Member(id)
	change(&m)
	return a.with(id, m)
}

// without returns a after the user of e was removed and those below it moved up.
func (a Account) without(rec Recorded, e MemberRemoved) Account {
	a.members = a.members.without(e.IAMID)
	for _, id := range e.Moved {
		if m, ok := a.members.get(id); ok {
			moved := *m
			moved.Parent = e.Parent
			a.members = a.members.with(id, &moved)
		}
	}
	a.removed = a.removed.with(e.IAMID, rec.Position)
	return a.withGrants(e.IAMID, nil)
}

// Identities returns the owner, the users, and the service IDs that hold roles, sorted.
func (a Account) Identities() []IAMID {
	var ids []IAMID
	for id := range a.members.all() {
		ids = append(ids, id)
	}
	if _, listed := a.members.get(a.owner); a.owner != "" && !listed {
		ids = append(ids, a.owner)
	}
	slices.Sort(ids)
	return ids
}

// Users returns the owner and the users, sorted.
func (a Account) Users() []IAMID {
	return slices.DeleteFunc(a.Identities(), func(id IAMID) bool {
		_, service := ServiceIDOf(id)
		return service
	})
}

// Member returns what the account knows of id; the owner is a member.
func (a Account) Member(id IAMID) (Member, bool) {
	if m, ok := a.members.get(id); ok {
		return *m, true
	}
	if id == a.owner && id != "" {
		return Member{MemberProfile: MemberProfile{Name: a.ownerName, Email: a.ownerEmail}, AddedAt: a.createdAt}, true
	}
	return Member{}, false
}

// user is Member for users only.
func (a Account) user(id IAMID) (Member, bool) {
	if _, service := ServiceIDOf(id); service {
		return Member{}, false
	}
	return a.Member(id)
}

// RemovedAt returns the log position at which the user id was removed last, 0 if it never
// was. Keys that were made before it are invalid for ever.
func (a Account) RemovedAt(id IAMID) uint64 {
	position, _ := a.removed.get(id)
	return position
}

// Ancestors returns who stands above the user id in the classic hierarchy, the nearest
// first and the owner of the account last. Above the owner and above strangers is nobody.
func (a Account) Ancestors(id IAMID) []IAMID {
	var up []IAMID
	for m, ok := a.user(id); ok && id != a.owner; m, ok = a.user(id) {
		id = m.Parent
		if _, known := a.user(id); !known || slices.Contains(up, id) {
			id = a.owner // Not in what we recorded; whatever is, everybody is below the owner.
		}
		up = append(up, id)
	}
	return up
}

// below returns who stands directly below the user id, sorted.
func (a Account) below(id IAMID) []IAMID {
	var out []IAMID
	for child, m := range a.members.all() {
		if _, service := ServiceIDOf(child); !service && m.Parent == id && child != a.owner {
			out = append(out, child)
		}
	}
	slices.Sort(out)
	return out
}

// MemberCommand is an order about the members of an account. The set is closed.
//
//sumtype:decl
type MemberCommand interface {
	AccountCommand
	isMemberCommand()
}

// AddMember takes a user into the account.
type AddMember struct {
	IAMID               IAMID
	Name                string // "" = first and last name.
	Firstname, Lastname string
	Email               string
	Roles               []Role
	Functional          bool
	// Parent is who stands above the user; "" = By, if that is a user of the account, else
	// the owner.
	Parent IAMID
	By     IAMID // Who invites.
}

// AddMembers takes several users into the account, all or none.
type AddMembers struct{ Members []AddMember }

// UpdateMember changes what is not nil of what a user is called.
type UpdateMember struct {
	IAMID               IAMID
	Name                *string
	Firstname, Lastname *string
	Email               *string
}

// RemoveMember takes a user out of the account.
type RemoveMember struct{ IAMID IAMID }

// SetRoles sets all the roles of a member or of a service ID.
type SetRoles struct {
	IAMID IAMID
	Roles []Role
}

// SetParent moves a user, with all below it, below another in the classic hierarchy.
type SetParent struct{ IAMID, Parent IAMID }

// SetFunctional says whether a user is a functional ID.
type SetFunctional struct {
	IAMID      IAMID
	Functional bool
}

// SetMemberSettings changes what is not nil of a user's settings.
type SetMemberSettings struct {
	IAMID IAMID
	// From is where the user is if it gives the command itself: see [UpdateAccountSettings].
	From                 netip.Addr
	AllowedAddresses     *string
	Language             *string
	NotificationLanguage *string
	SelfManage           *bool
}

func (AddMember) isAccountCommand()         {}
func (AddMembers) isAccountCommand()        {}
func (UpdateMember) isAccountCommand()      {}
func (RemoveMember) isAccountCommand()      {}
func (SetRoles) isAccountCommand()          {}
func (SetParent) isAccountCommand()         {}
func (SetFunctional) isAccountCommand()     {}
func (SetMemberSettings) isAccountCommand() {}

func (AddMember) isMemberCommand()         {}
func (AddMembers) isMemberCommand()        {}
func (UpdateMember) isMemberCommand()      {}
func (RemoveMember) isMemberCommand()      {}
func (SetRoles) isMemberCommand()          {}
func (SetParent) isMemberCommand()         {}
func (SetFunctional) isMemberCommand()     {}
func (SetMemberSettings) isMemberCommand() {}

func (a Account) decideMember(cmd MemberCommand) ([]Event, error) {
	switch c := cmd.(type) {
	case AddMember:
		return a.addMember(c)
	case AddMembers:
		return a.addMembers(c)
	case UpdateMember:
		return a.updateMember(c)
	case RemoveMember:
		return a.removeMember(c)
	case SetRoles:
		return a.setRoles(c)
	case SetParent:
		return a.setParent(c)
	case SetFunctional:
		return a.setFunctional(c)
	case SetMemberSettings:
		return a.setMemberSettings(c)
	case SetGrants:
		return a.setGrants(c)
	default:
		return nil, Errorf(Internal, "unexpected command %T", cmd)
	}
}

func (a Account) addMembers(c AddMembers) ([]Event, error) {
	var events []Event
	after, seen := a, map[IAMID]bool{}
	for _, m := range c.Members {
		if seen[m.IAMID] {
			return nil, Errorf(Invalid, "names a user twice").WithField("users").WithMessageCode("duplicate_user")
		}
		seen[m.IAMID] = true
		added, err := after.addMember(m)
		if err != nil {
			return nil, err
		}
		for _, e := range added {
			after = after.Evolve(Recorded{Event: e})
		}
		events = append(events, added...)
	}
	return events, nil
}

// addMember makes an event of a new user. The same again is no event.
func (a Account) addMember(c AddMember) ([]Event, error) {
	roles, err := checkRoles(c.Roles)
	if err != nil {
		return nil, err
	}
	profile, err := MemberProfile{Name: c.Name, Firstname: c.Firstname, Lastname: c.Lastname, Email: c.Email}.checked()
	if err != nil {
		return nil, err
	}
	if _, service := ServiceIDOf(c.IAMID); service || !ValidID(string(c.IAMID)) || c.IAMID == SystemIAMID {
		return nil, Errorf(Invalid, "is not the IAM id of a user").WithField("iam_id").WithMessageCode("invalid_iam_id")
	}
	if !a.Exists() {
		return nil, errNoAccount()
	}
	if m, ok := a.Member(c.IAMID); ok {
		same := m.MemberProfile == profile && slices.Equal(m.Roles, roles) && m.Functional == c.Functional
		if same && (c.Parent == "" || c.Parent == m.Parent) {
			return nil, nil
		}
		return nil, Errorf(Conflict, "user %s is a member already", c.IAMID).WithMessageCode("member_exists")
	}
	if err := a.checkEmail(profile.Email); err != nil {
		return nil, err
	}
	parent := c.Parent
	if parent == "" {
		parent = a.owner
		if _, ok := a.user(c.By); ok {
			parent = c.By
		}
	} else if _, ok := a.user(parent); !ok {
		return nil, errParent("is no user of the account")
	}
	return []Event{MemberAdded{
		Account: a.id, IAMID: c.IAMID, Name: profile.Name, Email: profile.Email, Roles: roles,
		Firstname: profile.Firstname, Lastname: profile.Lastname, Parent: parent, Functional: c.Functional,
	}}, nil
}

// checkEmail refuses an address that the account does not invite, or that another of its
// users has.
func (a Account) checkEmail(email string) error {
	if !a.settings.AllowsEmail(email) {
		return Errorf(Conflict, "the account's settings allow no user with this e-mail address").WithField("email").WithMessageCode("email_not_allowed")
	}
	if email == "" {
		return nil
	}
	owner, _ := a.Member(a.owner)
	taken := strings.EqualFold(owner.Email, email)
	for _, m := range a.members.all() {
		taken = taken || strings.EqualFold(m.Email, email)
	}
	if taken {
		return Errorf(Conflict, "a user of the account has this e-mail address already").WithField("email").WithMessageCode("email_exists")
	}
	return nil
}

// checked returns p with a name made of its parts, or of its address, where it has none.
func (p MemberProfile) checked() (MemberProfile, error) {
	if p.Name == "" {
		p.Name = firstOf(strings.TrimSpace(p.Firstname+" "+p.Lastname), p.Email)
	}
	for _, text := range []struct {
		field, value string
		bytesMax     int
	}{
		{"name", p.Name, KeyNameBytesMax},
		{"firstname", p.Firstname, KeyNameBytesMax/2 - 1},
		{"lastname", p.Lastname, KeyNameBytesMax/2 - 1},
		{"email", p.Email, emailBytesMax},
	} {
		if err := checkText(text.field, text.value, text.bytesMax); err != nil {
			return p, err
		}
	}
	if p.Email != "" && !looksLikeEmail(p.Email) {
		return p, Errorf(Invalid, "is not an e-mail address").WithField("email").WithMessageCode("invalid_email")
	}
	return p, nil
}

// looksLikeEmail reports whether s is one local part, one @ and one domain, without blanks
// or control characters.
func looksLikeEmail(s string) bool {
	local, host, ok := strings.Cut(s, "@")
	if !ok || local == "" || host == "" || strings.Contains(host, "@") {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`,;<>"`, r) })
}

func (a Account) updateMember(c UpdateMember) ([]Event, error) {
	m, ok := a.user(c.IAMID)
	if !ok {
		return nil, errNoMember()
	}
	p := m.MemberProfile
	for _, field := range []struct{ to, from *string }{
		{&p.Firstname, c.Firstname}, {&p.Lastname, c.Lastname}, {&p.Email, c.Email},
	} {
		if field.from != nil {
			*field.to = *field.from
		}
	}
	switch {
	case c.Name != nil:
		p.Name = *c.Name
	case c.Firstname != nil || c.Lastname != nil:
		p.Name = "" // It follows from the parts.
	}
	p, err := p.checked()
	switch {
	case err != nil:
		return nil, err
	case p == m.MemberProfile:
		return nil, nil
	}
	if !strings.EqualFold(p.Email, m.Email) {
		if err := a.checkEmail(p.Email); err != nil {
			return nil, err
		}
	}
	return []Event{MemberUpdated{Account: a.id, IAMID: c.IAMID, Old: m.MemberProfile, New: p}}, nil
}

func (a Account) removeMember(c RemoveMember) ([]Event, error) {
	m, ok := a.user(c.IAMID)
	switch {
	case !ok:
		return nil, errNoMember()
	case c.IAMID == a.owner:
		return nil, Errorf(Conflict, "the owner of an account cannot be removed from it").WithMessageCode("owner_stays")
	}
	return []Event{MemberRemoved{
		Account: a.id, IAMID: c.IAMID, Name: m.Name, Email: m.Email, Roles: m.Roles, Parent: a.Ancestors(c.IAMID)[0], Moved: a.below(c.IAMID),
	}}, nil
}

func (a Account) setRoles(c SetRoles) ([]Event, error) {
	roles, err := checkRoles(c.Roles)
	if err != nil {
		return nil, err
	}
	m, member := a.Member(c.IAMID)
	_, service := ServiceIDOf(c.IAMID)
	switch {
	case !a.Exists():
		return nil, errNoAccount()
	case c.IAMID == a.owner && !onlyCreators(roles):
		return nil, Errorf(Conflict, "the owner of an account holds every role but those of creators").WithMessageCode("owner_roles")
	case !member && !service:
		return nil, errNoMember()
	case slices.Equal(m.Roles, roles):
		return nil, nil
	}
	return []Event{RolesSet{Account: a.id, IAMID: c.IAMID, Old: m.Roles, New: roles}}, nil
}

// setParent keeps the hierarchy a tree below the owner.
func (a Account) setParent(c SetParent) ([]Event, error) {
	m, ok := a.user(c.IAMID)
	if !ok {
		return nil, errNoMember()
	}
	_, parentOK := a.user(c.Parent)
	switch {
	case c.IAMID == a.owner:
		return nil, Errorf(Conflict, "nobody stands above the owner of an account").WithMessageCode("owner_stays")
	case !parentOK:
		return nil, errParent("is no user of the account")
	case c.Parent == c.IAMID, slices.Contains(a.Ancestors(c.Parent), c.IAMID):
		return nil, Errorf(Conflict, "stands below the user that it would stand above").WithField("parent").WithMessageCode("hierarchy_cycle")
	case c.Parent == m.Parent:
		return nil, nil
	}
	return []Event{ParentSet{Account: a.id, IAMID: c.IAMID, Old: m.Parent, New: c.Parent}}, nil
}

func (a Account) setFunctional(c SetFunctional) ([]Event, error) {
	m, ok := a.user(c.IAMID)
	switch {
	case !ok:
		return nil, errNoMember()
	case c.IAMID == a.owner && c.Functional:
		return nil, Errorf(Conflict, "the owner of an account is a person").WithMessageCode("owner_stays")
	case m.Functional == c.Functional:
		return nil, nil
	}
	return []Event{FunctionalSet{Account: a.id, IAMID: c.IAMID, Functional: c.Functional}}, nil
}

func (a Account) setMemberSettings(c SetMemberSettings) ([]Event, error) {
	m, ok := a.user(c.IAMID)
	if !ok {
		return nil, errNoMember()
	}
	next := m.Settings
	if c.AllowedAddresses != nil {
		list, err := ParseAddressList(*c.AllowedAddresses)
		if err != nil {
			return nil, inField(err, "allowed_ip_addresses")
		}
		next.AllowedAddresses = list.String()
	}
	for _, text := range []struct {
		field string
		to    *string
		from  *string
	}{{"language", &next.Language, c.Language}, {"notification_language", &next.NotificationLanguage, c.NotificationLanguage}} {
		if text.from == nil {
			continue
		}
		if err := checkText(text.field, *text.from, languageBytesMax); err != nil {
			return nil, err
		}
		*text.to = *text.from
	}
	if c.SelfManage != nil {
		next.SelfManage = *c.SelfManage
	}
	if next == m.Settings {
		return nil, nil
	}
	if c.AllowedAddresses != nil {
		if err := checkLockOut(next.AllowedAddresses, c.From); err != nil {
			return nil, err
		}
	}
	return []Event{MemberSettingsSet{Account: a.id, IAMID: c.IAMID, Old: m.Settings, New: next}}, nil
}

// inField names the field that a refusal is about.
func inField(err error, field string) error {
	if e, ok := err.(*Error); ok { //nolint:errorlint // Only our own, unwrapped, can get a field.
		return e.WithField(field)
	}
	return err
}

// onlyCreators reports whether roles are of those that the owner does not hold as such.
func onlyCreators(roles []Role) bool {
	return !slices.ContainsFunc(roles, func(r Role) bool { return r != RoleUserKeyCreator && r != RoleServiceIDCreator })
}

// checkRoles returns roles sorted, each once, or why one is no role.
func checkRoles(roles []Role) ([]Role, error) {
	for _, r := range roles {
		if !knownRole(r) {
			return nil, Errorf(Invalid, "%q is not a role", r).WithField("roles").WithMessageCode("invalid_role")
		}
	}
	sorted := slices.Clone(roles)
	slices.Sort(sorted)
	return slices.Compact(sorted), nil
}

func errNoMember() *Error {
	return Errorf(NotFound, "no such user in the account").WithMessageCode("member_not_found")
}

func errParent(why string) *Error {
	return Errorf(Invalid, "%s", why).WithField("parent").WithMessageCode("invalid_parent")
}
