package domain

import "slices"

// Verb is what a command or a read does to a key or a service ID.
type Verb string

// The verbs; each is also the last part of an action's name.
const (
	VerbCreate  Verb = "create"
	VerbRead    Verb = "read"
	VerbList    Verb = "list"
	VerbUpdate  Verb = "update"
	VerbLock    Verb = "lock"
	VerbUnlock  Verb = "unlock"
	VerbDisable Verb = "disable"
	VerbEnable  Verb = "enable"
	VerbDelete  Verb = "delete"
	VerbLogin   Verb = "login"
	VerbObserve Verb = "observe"
)

// Right is what a role allows in a whole account, apart from single keys.
type Right string

// The rights.
const (
	// RightRead is to read the account's activity, usage, findings and exports.
	RightRead Right = "read"
	// RightVerify is to ask whether a key of the account is valid.
	RightVerify Right = "verify"
	// RightIngest is to post uses of the account's keys.
	RightIngest Right = "ingest"
	// RightTriage is to acknowledge, suppress and resolve findings.
	RightTriage Right = "triage"
	// RightConfigure is to change rules and settings.
	RightConfigure Right = "configure"
	// RightAssign is to add members and set roles.
	RightAssign Right = "assign"
)

// Standing is what one identity is in one account. The zero Standing is a stranger.
type Standing struct {
	// Owner holds every role.
	Owner bool
	// Member says that the identity belongs to the account, with or without roles.
	Member bool
	Roles  []Role
}

// Known reports whether the identity may know that the account exists.
func (s Standing) Known() bool { return s.Owner || s.Member || len(s.Roles) > 0 }

// Has reports whether the identity holds one of roles.
func (s Standing) Has(roles ...Role) bool {
	return s.Owner || slices.ContainsFunc(s.Roles, func(r Role) bool { return slices.Contains(roles, r) })
}

// Can reports whether the identity holds right in the account.
func (s Standing) Can(right Right) bool {
	switch right {
	case RightRead:
		return s.Has(RoleAuditor, RoleViewer, RoleOperator, RoleEditor, RoleAdministrator)
	case RightVerify:
		return s.Has(RoleVerifier)
	case RightIngest:
		return s.Has(RoleIngester, RoleAdministrator)
	case RightTriage:
		return s.Has(RoleResponder, RoleAdministrator)
	case RightConfigure, RightAssign:
		return s.Has(RoleAdministrator)
	}
	return false
}

// AuthorizeKey says whether the identity who, standing so in the key's account, may do
// verb to it. A stranger learns nothing: [NotFound]. The system may do everything.
//
//	own user key             everything
//	others' user keys        Administrator, but never create; Auditor reads; Responder disables
//	service ID keys          Viewer reads, Operator creates and deletes, Editor creates and
//	                         changes, Administrator all; Auditor reads; Responder disables;
//	                         the service ID itself reads
//	external keys            like service ID keys; that they cannot be changed here is
//	                         for [Key.Decide] to say
func AuthorizeKey(who Initiator, in Standing, verb Verb, key KeyState) error {
	own := who.IAMID == key.IAMID && key.IAMID != ""
	switch {
	case who.IsSystem():
		return nil
	case !in.Known():
		return errNoKey()
	case own && (key.Kind == KindUser || verb == VerbRead):
		return nil
	case key.Kind == KindUser && verb == VerbCreate:
		return Errorf(Forbidden, "a user's API key can only be created by that user").WithMessageCode("not_own_key")
	case in.Has(rolesFor(verb, key.Kind)...):
		return nil
	}
	return Errorf(Forbidden, "not allowed to %s this API key", verb).WithMessageCode("missing_role")
}

func rolesFor(verb Verb, kind KeyKind) []Role {
	shared := kind != KindUser
	switch verb {
	case VerbRead, VerbList:
		if shared {
			return []Role{RoleViewer, RoleOperator, RoleEditor, RoleAdministrator, RoleAuditor}
		}
		return []Role{RoleAdministrator, RoleAuditor}
	case VerbCreate:
		return []Role{RoleOperator, RoleEditor, RoleAdministrator}
	case VerbDelete:
		if shared {
			return []Role{RoleOperator, RoleAdministrator}
		}
	case VerbDisable:
		if shared {
			return []Role{RoleEditor, RoleAdministrator, RoleResponder}
		}
		return []Role{RoleAdministrator, RoleResponder}
	case VerbUpdate, VerbLock, VerbUnlock, VerbEnable:
		if shared {
			return []Role{RoleEditor, RoleAdministrator}
		}
	case VerbLogin, VerbObserve:
		return nil
	}
	return []Role{RoleAdministrator}
}

// AuthorizeServiceID says whether one who stands so in the service ID's account may do
// verb to it.
func AuthorizeServiceID(who Initiator, in Standing, verb Verb, s ServiceIDState) error {
	var roles []Role
	switch verb {
	case VerbRead, VerbList:
		if who.IAMID == s.IAMID && s.IAMID != "" {
			return nil
		}
		roles = []Role{RoleViewer, RoleOperator, RoleEditor, RoleAdministrator, RoleAuditor}
	case VerbCreate:
		roles = []Role{RoleOperator, RoleEditor, RoleAdministrator}
	case VerbDelete:
		roles = []Role{RoleOperator, RoleAdministrator}
	case VerbUpdate, VerbLock, VerbUnlock, VerbDisable, VerbEnable, VerbLogin, VerbObserve:
		roles = []Role{RoleEditor, RoleAdministrator}
	}
	switch {
	case who.IsSystem():
		return nil
	case !in.Known():
		return errNoServiceID()
	case in.Has(roles...):
		return nil
	}
	return Errorf(Forbidden, "not allowed to %s this service ID", verb).WithMessageCode("missing_role")
}

// AuthorizeAccount says whether one who stands so in an account holds right there.
func AuthorizeAccount(who Initiator, in Standing, right Right) error {
	switch {
	case who.IsSystem(), in.Can(right):
		return nil
	case !in.Known():
		return errNoAccount()
	}
	return Errorf(Forbidden, "not allowed to %s in this account", right).WithMessageCode("missing_role")
}
