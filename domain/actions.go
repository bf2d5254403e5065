package domain

import "strings"

// CName is the cloud name in the CRNs that keytrail makes.
const CName = "keytrail"

// KeyAction returns the name of the activity that verb on a key of that kind is.
func KeyAction(kind KeyKind, verb Verb) string {
	object := keyObject(kind)
	if kind == KindServiceCredential && verb == VerbLogin {
		object = keyObject(KindServiceID) // A sign-in as a service ID, by IBM's name.
	}
	return "iam-identity." + object + "." + string(verb)
}

// ServiceIDAction returns the name of the activity that verb on a service ID is.
func ServiceIDAction(verb Verb) string { return "iam-identity.account-serviceid." + string(verb) }

// The other names of activities.
const (
	ActionAccountCreate  = "iam-identity.account.create"
	ActionUsageRecord    = "usage.batch.record"
	ActionMemberAdd      = "user-management.user.invite"
	ActionSettingsUpdate = "iam-identity.account-settings.update"
	ActionRolesSet       = "user-management.user.update"
	ActionMemberUpdate   = "user-management.user.update"
	ActionMemberRemove   = "user-management.user.delete"
	ActionLimitsUpdate   = "iam-identity.account-limits.update"
	ActionLimitsRead     = "iam-identity.account-limits.read"
	ActionLimitNear      = "iam-identity.apikey-limit.near"
	ActionLimitReach     = "iam-identity.apikey-limit.reach"

	ActionAccessSettingsUpdate = "iam-access-management.account-settings.update"
	ActionGrantsUpdate         = "iam-access-management.grants.update"
	ActionContactsUpdate       = "user-management.security-contacts.update"
	ActionContactsConfirm      = "user-management.security-contacts.confirm"
	ActionContactsRead         = "user-management.security-contacts.read"
	ActionSettingsRead         = "iam-identity.account-settings.read"
	ActionAccessSettingsRead   = "iam-access-management.account-settings.read"
	ActionGrantsRead           = "iam-access-management.grants.read"
	ActionActivitySearch       = "activity.search"
	ActionActivityRead         = "activity.read"
	ActionPrivilegeRead        = "iam-access-management.privilege-report.read"
	ActionMemberRead           = "user-management.user.read"
	ActionMemberList           = "user-management.user.list"

	ActionFindingOpen   = "finding.open"
	ActionFindingExtend = "finding.extend"
	ActionSegmentSeal   = "usage.segment.seal"
	ActionRangeCut      = "usage.range.cut"
	ActionHoldSet       = "legal-hold.hold.set"
	ActionReportCreate  = "iam-identity.account-report.create"
	ActionReportRead    = "iam-identity.account-report.read"
	ActionHoldRelease   = "legal-hold.hold.release"
)

func keyObject(kind KeyKind) string {
	switch kind {
	case KindServiceID:
		return "serviceid-apikey"
	case KindExternal:
		return "external-apikey"
	case KindClassic:
		return "classic-apikey"
	case KindServiceCredential:
		return "service-credential"
	case KindUser:
		return "user-apikey"
	}
	return "user-apikey"
}

// KeyCRN returns the cloud resource name of a key.
func KeyCRN(account AccountID, id KeyID) string { return crn(account, "apikey", string(id)) }

// ServiceIDCRN returns the cloud resource name of a service ID.
func ServiceIDCRN(account AccountID, id string) string { return crn(account, "serviceid", id) }

func crn(account AccountID, resourceType, resource string) string {
	scope := ""
	if account != "" {
		scope = "a/" + string(account)
	}
	return "crn:v1:" + CName + ":public:iam-identity::" + scope + "::" + resourceType + ":" + resource
}

// compatAction returns IBM's name for an action that IBM folds into update, or "".
func compatAction(action string) string {
	object, verb := action[:max(strings.LastIndexByte(action, '.'), 0)], lastPart(action)
	switch verb {
	case "lock", "unlock", "disable", "enable":
		return object + ".update"
	}
	return ""
}

// messageOf returns "IAM Identity Service: lock user-apikey NAME", with " -failure"
// at the end where the act did not succeed.
func messageOf(action, name string, outcome Outcome) string {
	var b strings.Builder
	b.WriteString(serviceTitle(action))
	b.WriteString(": ")
	b.WriteString(lastPart(action))
	if object := objectOf(action); object != "" {
		b.WriteByte(' ')
		b.WriteString(object)
	}
	if name != "" {
		b.WriteByte(' ')
		b.WriteString(name)
	}
	if outcome == OutcomeFailure {
		b.WriteString(" -failure")
	}
	return b.String()
}

func serviceTitle(action string) string {
	service, _, _ := strings.Cut(action, ".")
	switch service {
	case "iam-identity":
		return "IAM Identity Service"
	case "iam-access-management":
		return "IAM Access Management"
	case "user-management":
		return "User Management"
	}
	return "Keytrail"
}

// objectOf returns the object type of an action: its middle part, or its first where
// it has only two.
func objectOf(action string) string {
	parts := strings.Split(action, ".")
	switch len(parts) {
	case 1:
		return ""
	case 2:
		return parts[0]
	}
	return parts[len(parts)-2]
}

// targetTypeOf returns the type of what an action is about, "iam-identity/user-apikey".
func targetTypeOf(action string) string {
	service, _, ok := strings.Cut(action, ".")
	if object := objectOf(action); ok && object != service {
		return service + "/" + object
	}
	return service
}
