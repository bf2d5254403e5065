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
	VerbAbandon Verb = "abandon"
	VerbRotate  Verb = "rotate"
	// VerbReveal is to read the value of a key again.
	VerbReveal Verb = "reveal"
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
	// RightRestrict is to restrict the creation of keys and service IDs, or to lift that.
	RightRestrict Right = "restrict"
	// RightAssign is to manage the members of the account and what they may do: invite and
	// remove them, set roles, grants, the hierarchy, and from where they may come.
	RightAssign Right = "assign"
	// RightSettings is to see the account's settings and security contacts.
	RightSettings Right = "settings"
)

// rightOperate is what [AuthorizeOperator] asks for, in the operator's account.
const rightOperate Right = "operate"

// View is a class of things that the access table knows. Those of keys are also the
// filters of a list of keys.
type View string

// The views.
const (
	// ViewMine are the caller's own keys. It has no rows of its own: what an identity may
	// do to its own is in the rows of the kind of key.
	ViewMine         View = "mine"
	ViewUserKeys     View = "user"
	ViewServiceKeys  View = "serviceid"
	ViewExternalKeys View = "external"
	ViewClassicKeys  View = "classic"
	// ViewFunctionalKeys are the user keys of functional IDs: a filter, with the rows of those.
	ViewFunctionalKeys View = "functional"
	ViewServiceIDs     View = "serviceids"
	// ViewUsers are the users of an account. To whom reads, those that stand below it in the
	// classic hierarchy are its own.
	ViewUsers    View = "users"
	ViewSessions View = "sessions"
	ViewAccount  View = "account"
)

// accessRule is a row of the table: who may do one of verbs to what is in view.
type accessRule struct {
	view  View
	verbs [6]Verb
	// own: the identity that it belongs to may, whatever its roles.
	own bool
	// above: so may who stands above that identity in the classic hierarchy.
	above bool
	// members: whoever belongs to the account may, unless the account restricts that.
	members bool
	// roles: who holds one of them may. The account's owner holds every one but the creators'.
	roles roleSet
	// creator: while the account restricts creation here, nobody may without this role,
	// neither the owner of the account nor whom own lets.
	creator roleSet
	// words say what is done, where verb and view do not ("to … needs the role …").
	words string
}

// accessTable is who may do what: the one place where that is written. What is not in it,
// only keytrail itself may do. Decisions, the words of a refusal, and the filters that are
// offered are all made from it.
func accessTable() [34]accessRule {
	const (
		readers = viewer | operator | editor | administrator | auditor
		makers  = operator | editor | administrator
	)
	return [...]accessRule{
		{view: ViewUserKeys, verbs: [6]Verb{VerbCreate}, own: true, creator: userKeyCreator},
		{view: ViewUserKeys, verbs: [6]Verb{VerbRead, VerbList}, own: true, roles: administrator | auditor},
		{view: ViewUserKeys, verbs: [6]Verb{VerbUpdate, VerbLock, VerbUnlock, VerbEnable, VerbDelete}, own: true, roles: administrator},
		{view: ViewUserKeys, verbs: [6]Verb{VerbDisable}, own: true, roles: administrator | responder},
		// Whoever rotates a key sees the value of the next: it is as good as to create one.
		{view: ViewUserKeys, verbs: [6]Verb{VerbRotate}, own: true},

		{view: ViewServiceKeys, verbs: [6]Verb{VerbCreate}, roles: makers},
		{view: ViewServiceKeys, verbs: [6]Verb{VerbRead, VerbList}, own: true, roles: readers},
		{view: ViewServiceKeys, verbs: [6]Verb{VerbUpdate, VerbLock, VerbUnlock, VerbEnable}, roles: editor | administrator},
		{view: ViewServiceKeys, verbs: [6]Verb{VerbDisable}, roles: editor | administrator | responder},
		{view: ViewServiceKeys, verbs: [6]Verb{VerbDelete}, roles: operator | administrator},
		{view: ViewServiceKeys, verbs: [6]Verb{VerbRotate}, roles: makers | responder},
		{view: ViewServiceKeys, verbs: [6]Verb{VerbReveal}, roles: makers},

		// That external keys cannot be changed here is for [Key.Decide] to say, to whom may see them.
		{view: ViewExternalKeys, verbs: [6]Verb{VerbRead, VerbList}, own: true, roles: readers},
		{view: ViewExternalKeys, verbs: [6]Verb{VerbUpdate, VerbLock, VerbUnlock, VerbEnable}, roles: editor | administrator},
		{view: ViewExternalKeys, verbs: [6]Verb{VerbDisable, VerbRotate}, roles: editor | administrator | responder},
		{view: ViewExternalKeys, verbs: [6]Verb{VerbDelete}, roles: operator | administrator},

		{view: ViewClassicKeys, verbs: [6]Verb{VerbCreate, VerbReveal}, own: true},
		{view: ViewClassicKeys, verbs: [6]Verb{VerbRead, VerbList, VerbDelete}, own: true, above: true},
		{view: ViewClassicKeys, verbs: [6]Verb{VerbUpdate, VerbLock, VerbUnlock, VerbDisable, VerbEnable, VerbRotate}, own: true},

		{view: ViewServiceIDs, verbs: [6]Verb{VerbCreate}, roles: makers | serviceIDCreator, creator: serviceIDCreator},
		{view: ViewServiceIDs, verbs: [6]Verb{VerbRead, VerbList}, own: true, roles: readers},
		{view: ViewServiceIDs, verbs: [6]Verb{VerbUpdate, VerbLock, VerbUnlock}, roles: editor | administrator},
		{view: ViewServiceIDs, verbs: [6]Verb{VerbDelete}, roles: operator | administrator},

		{view: ViewUsers, verbs: [6]Verb{VerbRead, VerbList}, own: true, members: true, roles: readers},
		{view: ViewUsers, verbs: [6]Verb{VerbUpdate}, own: true, roles: administrator},

		{view: ViewSessions, verbs: [6]Verb{VerbList, VerbDelete}, own: true, roles: administrator},

		{view: ViewAccount, verbs: [6]Verb{Verb(RightRead)}, roles: readers, words: "read the audit data of this account"},
		{view: ViewAccount, verbs: [6]Verb{Verb(RightVerify)}, roles: verifier, words: "verify keys of this account"},
		{view: ViewAccount, verbs: [6]Verb{Verb(RightIngest)}, roles: ingester | administrator, words: "record uses in this account"},
		{view: ViewAccount, verbs: [6]Verb{Verb(RightTriage)}, roles: responder | administrator, words: "triage findings of this account"},
		{view: ViewAccount, verbs: [6]Verb{Verb(RightConfigure)}, roles: administrator, words: "change rules and settings of this account"},
		{view: ViewAccount, verbs: [6]Verb{Verb(RightRestrict)}, roles: operator | administrator, words: "restrict creation in this account"},
		{view: ViewAccount, verbs: [6]Verb{Verb(RightAssign), Verb(rightOperate)}, roles: administrator, words: "manage the members of this account and what they may do"},
		{view: ViewAccount, verbs: [6]Verb{Verb(RightSettings)}, roles: readers, words: "read the settings of this account"},
	}
}

// ruleOf returns the row for verb in view; the zero rule allows nobody.
func ruleOf(view View, verb Verb) accessRule {
	for _, r := range accessTable() {
		if r.view == view && slices.Contains(r.verbs[:], verb) {
			return r
		}
	}
	return accessRule{}
}

// Restricted is what an account lets only creators create, its owner included, and what it
// shows to those who hold a role only.
type Restricted struct {
	UserKeys   bool // Needs [RoleUserKeyCreator]; the keys of service IDs are not concerned.
	ServiceIDs bool // Needs [RoleServiceIDCreator].
	Users      bool // Members without a role see themselves and those below them.
}

func (r Restricted) in(view View) bool {
	return view == ViewUserKeys && r.UserKeys || view == ViewServiceIDs && r.ServiceIDs || view == ViewUsers && r.Users
}

// Standing is what one identity is in one account. The zero Standing is a stranger.
type Standing struct {
	// Owner holds every role but those of creators.
	Owner bool
	// Member says that the identity belongs to the account, with or without roles.
	Member bool
	Roles  []Role
	// Restricted is the account's, the same for everybody in it.
	Restricted Restricted
}

// Known reports whether the identity may know that the account exists.
func (s Standing) Known() bool { return s.Owner || s.Member || len(s.Roles) > 0 }

// Can reports whether the identity holds right in the account.
func (s Standing) Can(right Right) bool { return s.judge(ViewAccount, Verb(right), false) == allowed }

// KeyViews returns the filters of a list of keys that are open to the identity: its own
// keys, and every class of which it may list all.
func (s Standing) KeyViews() []View {
	if !s.Known() {
		return nil
	}
	views := []View{ViewMine, ViewClassicKeys} // Of classic keys everybody sees those that are his to see.
	for _, v := range []View{ViewUserKeys, ViewServiceKeys, ViewExternalKeys} {
		if s.judge(v, VerbList, false) == allowed {
			views = append(views, v)
		}
	}
	if slices.Contains(views, ViewUserKeys) {
		views = append(views, ViewFunctionalKeys)
	}
	return views
}

// verdict is what the table says.
type verdict int

const (
	allowed    verdict = iota
	unknown            // A stranger learns nothing.
	missing            // None of the roles.
	restricted         // Creation is restricted, and the creator's role is missing.
)

// judge applies the table. Its result depends on nothing else.
func (s Standing) judge(view View, verb Verb, own bool) verdict {
	if !s.Known() {
		return unknown
	}
	rule, held := ruleOf(view, verb), s.held()
	own = own && rule.own
	if rule.creator != 0 && s.Restricted.in(view) && held&rule.creator == 0 {
		if own || rule.roles&rule.creator != 0 {
			return restricted
		}
		return missing // The creator's role would not help either.
	}
	if own || held&rule.roles != 0 || rule.members && !s.Restricted.in(view) {
		return allowed
	}
	return missing
}

func (s Standing) held() roleSet {
	var set roleSet
	if s.Owner {
		set = ^(userKeyCreator | serviceIDCreator)
	}
	for i, r := range Roles() {
		if slices.Contains(s.Roles, r) {
			set |= 1 << i
		}
	}
	return set
}

// AuthorizeKey says whether the identity who, standing so in the key's account, may do
// verb to it. A stranger learns nothing: [NotFound]. The system may do everything.
func AuthorizeKey(who Initiator, in Standing, verb Verb, key KeyState) error {
	return authorize(who, in, viewOf(key.Kind), verb, who.IAMID == key.IAMID && key.IAMID != "")
}

// AuthorizeKeyIn is [AuthorizeKey] where the account of the key is at hand: whoever stands
// above a user in its hierarchy may see and delete that user's classic keys.
func AuthorizeKeyIn(who Initiator, in Standing, verb Verb, a Account, key KeyState) error {
	view := viewOf(key.Kind)
	own := who.IAMID == key.IAMID && key.IAMID != ""
	if !own && ruleOf(view, verb).above {
		own = slices.Contains(a.Ancestors(key.IAMID), who.IAMID)
	}
	return authorize(who, in, view, verb, own)
}

// AuthorizeServiceID says whether one who stands so in the service ID's account may do
// verb to it.
func AuthorizeServiceID(who Initiator, in Standing, verb Verb, s ServiceIDState) error {
	return authorize(who, in, ViewServiceIDs, verb, who.IAMID == s.IAMID && s.IAMID != "")
}

// AuthorizeSession says whether the identity who, standing so in the session's account, may
// do verb to it.
func AuthorizeSession(who Initiator, in Standing, verb Verb, s SessionState) error {
	return authorize(who, in, ViewSessions, verb, who.IAMID == s.IAMID && s.IAMID != "")
}

// AuthorizeAccount says whether one who stands so in an account holds right there.
func AuthorizeAccount(who Initiator, in Standing, right Right) error {
	return authorize(who, in, ViewAccount, Verb(right), false)
}

// AuthorizeUser says whether one who stands so in the account a may do verb to its user.
// Who stands above a user in the hierarchy may see it as itself.
func AuthorizeUser(who Initiator, in Standing, verb Verb, a Account, user IAMID) error {
	own := who.IAMID == user && user != ""
	if verb == VerbRead || verb == VerbList {
		own = own || slices.Contains(a.Ancestors(user), who.IAMID)
	}
	return authorize(who, in, ViewUsers, verb, own)
}

// AuthorizeOperator says whether one who stands so in the operator's account may do what
// concerns the whole installation, such as "make accounts". That the operator has an
// account is no secret: a stranger is forbidden too.
func AuthorizeOperator(who Initiator, in Standing, doing string) error {
	if who.IsSystem() || in.Can(rightOperate) {
		return nil
	}
	return errMissing("to "+doing, ruleOf(ViewAccount, Verb(rightOperate)).roles, " in the operator's account")
}

// AuthorizeList says whether one who stands so in the account that q names may have the
// list, which needs every view that it reaches into.
func AuthorizeList(who Initiator, in Standing, q KeysQuery) error {
	for _, kind := range q.kinds() {
		if kind == KindClassic && in.Known() {
			continue // What is in the list is bounded by q.ClassicOf.
		}
		if err := AuthorizeKey(who, in, VerbList, KeyState{Kind: kind, IAMID: q.IAMID}); err != nil {
			return err
		}
	}
	return nil
}

func authorize(who Initiator, in Standing, view View, verb Verb, own bool) error {
	if who.IsSystem() {
		return nil
	}
	switch in.judge(view, verb, own) {
	case allowed:
		return nil
	case unknown:
		return errUnknown(view)
	case restricted:
		return errRestricted(view, verb)
	case missing:
	}
	return errRefused(view, verb)
}

func viewOf(kind KeyKind) View {
	switch kind {
	case KindServiceID, KindServiceCredential:
		return ViewServiceKeys
	case KindExternal:
		return ViewExternalKeys
	case KindClassic:
		return ViewClassicKeys
	case KindUser:
	}
	return ViewUserKeys
}
