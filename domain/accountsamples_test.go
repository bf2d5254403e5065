package domain_test

import "example.com/keytrail/domain"

// accountSamples holds one event of every type about accounts that came after the first
// ones, with every field set.
func accountSamples() []domain.Event {
	settings := domain.MemberSettings{AllowedAddresses: "192.0.2.0/24", Language: "en", NotificationLanguage: "de", SelfManage: true}
	return []domain.Event{
		domain.MemberUpdated{
			Account: "acct1", IAMID: "User-2", Old: domain.MemberProfile{Name: "Bob"},
			New: domain.MemberProfile{Name: "Bob Builder", Firstname: "Bob", Lastname: "Builder", Email: "bob@example.com"},
		},
		domain.MemberRemoved{
			Account: "acct1", IAMID: "User-2", Name: "Bob", Email: "bob@example.com", Roles: []domain.Role{domain.RoleViewer},
			Parent: "User-1", Moved: []domain.IAMID{"User-3", "User-4"},
		},
		domain.ParentSet{Account: "acct1", IAMID: "User-3", Old: "User-1", New: "User-2"},
		domain.FunctionalSet{Account: "acct1", IAMID: "User-3", Functional: true},
		domain.MemberSettingsSet{Account: "acct1", IAMID: "User-3", Old: domain.MemberSettings{Language: "fr"}, New: settings},
	}
}
