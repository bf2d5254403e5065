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
	case AddMember, AddMembers, RemoveMember, SetRoles, SetParent, SetFunctional:
		return AuthorizeAccount(who, in, RightAssign)
	case SetAccountSettings:
		return AuthorizeAccount(who, in, RightRestrict)
	case SetAccountLimits:
		return AuthorizeAccount(who, in, RightConfigure)
	case CreateAccount:
		return AuthorizeOperator(who, in, "make accounts")
	default:
		return Errorf(Internal, "unexpected command %T", cmd)
	}
}
