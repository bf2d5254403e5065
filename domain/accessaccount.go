package domain

// AuthorizeAccountChange says whether one who stands so in the account a may give cmd about
// it. Who may make accounts at all, [AuthorizeOperator] says.
func AuthorizeAccountChange(who Initiator, in Standing, a Account, cmd AccountCommand) error {
	switch c := cmd.(type) {
	case UpdateMember:
		return AuthorizeUser(who, in, VerbUpdate, a, c.IAMID)
	case SetMemberSettings:
		if c.AllowedAddresses == nil { // From where a user may come is not for it to say.
			return AuthorizeUser(who, in, VerbUpdate, a, c.IAMID)
		}
		return AuthorizeAccount(who, in, RightAssign)
	case AddMember, AddMembers, RemoveMember, SetRoles, SetParent, SetFunctional, SetGrants:
		return AuthorizeAccount(who, in, RightAssign)
	case UpdateAccountSettings:
		return c.authorize(who, in, a)
	case UpdateAccessSettings, SetSecurityContacts, ConfirmSecurityContacts, SetAccountLimits:
		return AuthorizeAccount(who, in, RightConfigure)
	case CreateAccount:
		return AuthorizeOperator(who, in, "make accounts")
	default:
		return Errorf(Internal, "unexpected command %T", cmd)
	}
}

// authorize asks for the right that each changed setting needs.
func (c UpdateAccountSettings) authorize(who Initiator, in Standing, a Account) error {
	if err := AuthorizeAccount(who, in, RightSettings); err != nil {
		return err
	}
	next, err := c.apply(a.Settings())
	if err != nil {
		return err
	}
	for _, change := range settingsChanges(a.Settings(), next) {
		right := RightConfigure
		switch change.Field {
		case "restrict_create_platform_apikey", "restrict_create_service_id":
			right = RightRestrict
		}
		if err := AuthorizeAccount(who, in, right); err != nil {
			return err
		}
	}
	return nil
}
