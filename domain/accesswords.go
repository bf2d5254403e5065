package domain

import (
	"slices"
	"strings"
)

// Message codes of refusals for lack of rights.
const (
	// MessageCodeMissingRole: the message names the roles of which one is needed.
	MessageCodeMissingRole = "missing_role"
	// MessageCodeNotOwnKey: no role helps, only the user that a key belongs to may.
	MessageCodeNotOwnKey = "not_own_key"
	// MessageCodeRestricted: the account restricts creation, for its owner too.
	MessageCodeRestricted = "creation_restricted"
)

// roleSet has bit i for the i-th of [Roles].
type roleSet uint16

const (
	viewer roleSet = 1 << iota
	operator
	editor
	administrator
	userKeyCreator
	serviceIDCreator
	verifier
	auditor
	ingester
	responder

	// onIAMIdentity are IBM's roles; the others are ours.
	onIAMIdentity = viewer | operator | editor | administrator | userKeyCreator | serviceIDCreator
)

// Roles returns all roles: IBM's on IAM Identity, then ours.
func Roles() [10]Role {
	return [...]Role{
		RoleViewer, RoleOperator, RoleEditor, RoleAdministrator, RoleUserKeyCreator, RoleServiceIDCreator,
		RoleVerifier, RoleAuditor, RoleIngester, RoleResponder,
	}
}

// words returns the roles of the set as a refusal names them.
func (s roleSet) words() string {
	var parts []string
	if ibm := s & onIAMIdentity; ibm != 0 {
		parts = append(parts, "the role "+ibm.either()+" on IAM Identity")
	}
	if ours := s &^ onIAMIdentity; ours != 0 {
		parts = append(parts, "the role "+ours.either())
	}
	return strings.Join(parts, " or ")
}

// either returns "A, B or C".
func (s roleSet) either() string {
	var names []string
	for i, r := range Roles() {
		if s&(1<<i) != 0 {
			names = append(names, string(r))
		}
	}
	last := len(names) - 1
	if last == 0 {
		return names[0]
	}
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// errUnknown is what a stranger hears: the same as if there were no such thing.
func errUnknown(view View) *Error {
	switch view {
	case ViewServiceIDs:
		return errNoServiceID()
	case ViewAccount, ViewUsers:
		return errNoAccount()
	case ViewSessions:
		return errNoSession()
	case ViewMine, ViewUserKeys, ViewServiceKeys, ViewExternalKeys, ViewClassicKeys, ViewFunctionalKeys:
	}
	return errNoKey()
}

// errRestricted is what whoever lacks the creator's role hears while creation is restricted.
func errRestricted(view View, verb Verb) *Error {
	rule := ruleOf(view, verb)
	return Errorf(Forbidden, "creation is restricted in this account, also for its owner: to %s needs %s", deed(rule, verb), rule.creator.words()).
		WithMessageCode(MessageCodeRestricted)
}

// errRefused is what a member hears whom the table does not let.
func errRefused(view View, verb Verb) *Error {
	rule := ruleOf(view, verb)
	switch {
	case rule.roles != 0:
		return errMissing("to "+deed(rule, verb), rule.roles, "")
	case rule.above:
		return Errorf(Forbidden, "only the user that it belongs to, and who stands above that user in the hierarchy, may %s", deed(rule, verb)).
			WithMessageCode(MessageCodeNotOwnKey)
	case rule.own:
		return Errorf(Forbidden, "only the user that it belongs to may %s", deed(rule, verb)).WithMessageCode(MessageCodeNotOwnKey)
	}
	return Errorf(Forbidden, "only keytrail itself may %s this", verb).WithMessageCode(MessageCodeMissingRole)
}

func errMissing(what string, roles roleSet, where string) *Error {
	return Errorf(Forbidden, "%s needs %s%s", what, roles.words(), where).WithMessageCode(MessageCodeMissingRole)
}

// deed says what verb is under rule.
func deed(rule accessRule, verb Verb) string {
	if rule.words != "" {
		return rule.words
	}
	one, all := "a user's API key", "all user API keys"
	switch rule.view {
	case ViewUserKeys, ViewFunctionalKeys, ViewMine, ViewAccount:
		if rule.roles != 0 {
			one = "another user's API key"
		}
	case ViewServiceKeys:
		one, all = "a service ID's API key", "all service ID API keys"
	case ViewExternalKeys:
		one, all = "an external API key", "all external API keys"
	case ViewClassicKeys:
		one, all = "a classic infrastructure API key", "all classic infrastructure API keys"
	case ViewServiceIDs:
		one, all = "a service ID", "all service IDs"
	case ViewUsers:
		one, all = "another user", "all users"
	case ViewSessions:
		one, all = "another user's session", "all sessions"
	}
	if verb == VerbList {
		return string(verb) + " " + all
	}
	return string(verb) + " " + one
}

// knownRole reports whether r is one of [Roles].
func knownRole(r Role) bool {
	all := Roles()
	return slices.Contains(all[:], r)
}
