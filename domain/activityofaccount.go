package domain

import (
	"strconv"
	"strings"
)

func ofAccountEvent(a *Activity, e AccountEvent) {
	switch e := e.(type) {
	case AccountCreated:
		ofAccount(a, ActionAccountCreate, e.Account, e.Name, requestData{IAMID: e.Owner, InstanceName: e.Name})
		a.ReasonCode = 201
	case MemberEvent:
		ofMemberEvent(a, e)
	case AccountSettingsSet:
		ofAccount(a, ActionSettingsUpdate, e.Account, string(e.Account), requestData{Changes: e.Changes()})
	case AccessSettingsSet:
		ofAccount(a, ActionAccessSettingsUpdate, e.Account, string(e.Account), requestData{Changes: e.changes()})
	case AccountLimitsSet:
		ofAccount(a, ActionLimitsUpdate, e.Account, string(e.Account), requestData{Changes: e.changes()})
	case ContactsEvent:
		ofContacts(a, e)
	}
}

func ofContacts(a *Activity, e ContactsEvent) {
	switch e := e.(type) {
	case SecurityContactsSet:
		ofAccount(a, ActionContactsUpdate, e.Account, string(e.Account), requestData{Changes: e.changes()})
	case SecurityContactsConfirmed:
		ofAccount(a, ActionContactsConfirm, e.Account, string(e.Account), requestData{Count: uint64(len(e.Contacts))})
	}
}

func ofAccount(a *Activity, action string, account AccountID, name string, d requestData) {
	a.Action, a.Account, a.TargetName = action, account, name
	a.TargetID = crn(account, "account", string(account))
	a.RequestData = d.encode()
}

func ofMemberEvent(a *Activity, e MemberEvent) {
	switch e := e.(type) {
	case MemberAdded:
		ofMember(a, ActionMemberAdd, e.Account, e.IAMID, e.Name, requestData{Roles: e.Roles, Changes: onlyChanges(
			Change{"email", "", e.Email}, Change{"parent", "", string(e.Parent)}, Change{"functional", "", yes(e.Functional)},
		)})
		a.ReasonCode = 202
	case MemberUpdated:
		ofMember(a, ActionMemberUpdate, e.Account, e.IAMID, e.New.Name, requestData{
			InstanceName: e.New.Name, PrevInstanceName: e.Old.Name, Changes: onlyChanges(
				Change{"name", e.Old.Name, e.New.Name}, Change{"firstname", e.Old.Firstname, e.New.Firstname},
				Change{"lastname", e.Old.Lastname, e.New.Lastname}, Change{"email", e.Old.Email, e.New.Email},
			),
		})
	case MemberRemoved:
		moved := make([]Change, len(e.Moved))
		for i, id := range e.Moved {
			moved[i] = Change{"parent of " + string(id), string(e.IAMID), string(e.Parent)}
		}
		ofMember(a, ActionMemberRemove, e.Account, e.IAMID, e.Name, requestData{Roles: e.Roles, Changes: moved})
		a.ReasonCode = 204
	case RolesSet:
		ofMember(a, ActionRolesSet, e.Account, e.IAMID, string(e.IAMID), requestData{
			Roles: e.New, Changes: []Change{{"roles", joinRoles(e.Old), joinRoles(e.New)}},
		})
	case ParentSet:
		ofMember(a, ActionMemberUpdate, e.Account, e.IAMID, string(e.IAMID), requestData{Changes: []Change{{"parent", string(e.Old), string(e.New)}}})
	case FunctionalSet:
		ofMember(a, ActionMemberUpdate, e.Account, e.IAMID, string(e.IAMID), requestData{Changes: flip("functional", e.Functional)})
	case GrantsSet:
		ofMember(a, ActionGrantsUpdate, e.Account, e.IAMID, string(e.IAMID), requestData{Changes: []Change{{"grants", e.Old.text(), e.New.text()}}})
	case MemberSettingsSet:
		ofMember(a, ActionMemberUpdate, e.Account, e.IAMID, string(e.IAMID), requestData{Changes: onlyChanges(
			Change{"allowed_ip_addresses", e.Old.AllowedAddresses, e.New.AllowedAddresses}, Change{"language", e.Old.Language, e.New.Language},
			Change{"notification_language", e.Old.NotificationLanguage, e.New.NotificationLanguage},
			Change{"self_manage", strconv.FormatBool(e.Old.SelfManage), strconv.FormatBool(e.New.SelfManage)},
		)})
	}
}

func ofMember(a *Activity, action string, account AccountID, id IAMID, name string, d requestData) {
	a.Action, a.Account, a.TargetName = action, account, firstOf(name, string(id))
	a.TargetID = crn(account, "user", string(id))
	d.IAMID = id
	a.RequestData = d.encode()
}

// onlyChanges returns those of all that change something.
func onlyChanges(all ...Change) []Change {
	var out []Change
	for _, c := range all {
		if c.Old != c.New {
			out = append(out, c)
		}
	}
	return out
}

// yes returns "true" or nothing.
func yes(b bool) string {
	if b {
		return "true"
	}
	return ""
}

func joined(ids []AccountID) string {
	parts := make([]string, len(ids))
	for i, id := range ids {
		parts[i] = string(id)
	}
	return strings.Join(parts, ",")
}

func joinRoles(roles []Role) string {
	var out []byte
	for i, r := range roles {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, r...)
	}
	return string(out)
}
