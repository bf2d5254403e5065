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
		domain.AccessSettingsSet{
			Account: "acct1",
			Old: domain.AccessSettings{
				User: domain.Interaction{State: domain.InteractionEnabled, Allowed: []domain.AccountID{}}, ServiceID: domain.Interaction{State: domain.InteractionEnabled, Allowed: []domain.AccountID{}},
				Service: domain.Interaction{State: domain.InteractionEnabled, Allowed: []domain.AccountID{}},
			},
			New: domain.AccessSettings{
				User: domain.Interaction{State: domain.InteractionLimited, Allowed: []domain.AccountID{"acct2"}}, ServiceID: domain.Interaction{State: domain.InteractionMonitor, Allowed: []domain.AccountID{"acct3"}},
				Service: domain.Interaction{State: domain.InteractionEnabled, Allowed: []domain.AccountID{}},
			},
		},
		domain.SecurityContactsSet{
			Account: "acct1", Old: []domain.SecurityContact{{Name: "Ada", Email: "ada@example.com"}}, New: []domain.SecurityContact{{Name: "Bob", Email: "bob@example.com"}},
			OldStaleDays: 90, NewStaleDays: 30,
		},
		domain.SecurityContactsConfirmed{Account: "acct1", Contacts: []domain.SecurityContact{{Name: "Bob", Email: "bob@example.com"}}},
		domain.GrantsSet{
			Account: "acct1", IAMID: "User-2", Old: domain.Grants{{Actions: []string{"*"}}},
			New: domain.Grants{{Actions: []string{"s3:Get*"}, Resources: []string{"arn:aws:s3:::a/*"}}},
		},
	}
}

// allSettings are account settings with every field set.
func allSettings() domain.AccountSettings {
	return domain.AccountSettings{
		RestrictUserKeys: domain.RestrictionOn, RestrictServiceIDs: domain.RestrictionOff, RestrictUserList: domain.RestrictionOn,
		UserDomains:      []domain.UserDomains{{Realm: "IBMid", Patterns: []string{"**@example.com"}, Restrict: true}},
		AllowedAddresses: "10.0.0.0/8", MFA: domain.MFALevel3, UserMFA: []domain.UserMFA{{IAMID: "User-1", MFA: domain.MFANone}},
		SessionExpirationSeconds: 86400, SessionInvalidationSeconds: 7200, SessionsMax: 10, AccessTokenSeconds: 900, RefreshTokenSeconds: 259200,
		RecordReads: true,
	}
}
