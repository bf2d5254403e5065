package domain

// MemberProfile is what a user of an account is called, and how it is reached.
type MemberProfile struct {
	Name      string `json:"name"`
	Firstname string `json:"firstname,omitempty"`
	Lastname  string `json:"lastname,omitempty"`
	Email     string `json:"email,omitempty"`
}

// MemberUpdated records what a user of an account is called from now on.
type MemberUpdated struct {
	Account AccountID     `json:"account_id"`
	IAMID   IAMID         `json:"iam_id"`
	Old     MemberProfile `json:"old"`
	New     MemberProfile `json:"new"`
}

// MemberRemoved records that a user belongs to an account no more. The keys that it had
// there are invalid from then on, also if it is added again.
type MemberRemoved struct {
	Account AccountID `json:"account_id"`
	IAMID   IAMID     `json:"iam_id"`
	Name    string    `json:"name"`
	Email   string    `json:"email,omitempty"`
	Roles   []Role    `json:"roles,omitempty"`
	// Parent is who stands above Moved now: those who stood directly below the user.
	Parent IAMID   `json:"parent_iam_id"`
	Moved  []IAMID `json:"moved,omitempty"`
}

// ParentSet records who stands above a user in the classic hierarchy from now on.
type ParentSet struct {
	Account AccountID `json:"account_id"`
	IAMID   IAMID     `json:"iam_id"`
	Old     IAMID     `json:"old"`
	New     IAMID     `json:"new"`
}

// FunctionalSet records whether a user is a functional ID: one that programs share, and no
// person.
type FunctionalSet struct {
	Account    AccountID `json:"account_id"`
	IAMID      IAMID     `json:"iam_id"`
	Functional bool      `json:"functional"`
}

// MemberSettings are a user's settings in one account.
type MemberSettings struct {
	// AllowedAddresses is the canonical text of an [AddressList]; "" allows every address.
	AllowedAddresses     string `json:"allowed_ip_addresses,omitempty"`
	Language             string `json:"language,omitempty"`
	NotificationLanguage string `json:"notification_language,omitempty"`
	SelfManage           bool   `json:"self_manage,omitempty"`
}

// MemberSettingsSet records all the settings of a user in an account from now on.
type MemberSettingsSet struct {
	Account AccountID      `json:"account_id"`
	IAMID   IAMID          `json:"iam_id"`
	Old     MemberSettings `json:"old"`
	New     MemberSettings `json:"new"`
}

// Stored names of the events about members, besides those of [MemberAdded] and [RolesSet].
const (
	TypeMemberUpdated     = "account.member-updated.v1"
	TypeMemberRemoved     = "account.member-removed.v1"
	TypeParentSet         = "account.parent-set.v1"
	TypeFunctionalSet     = "account.functional-set.v1"
	TypeMemberSettingsSet = "account.member-settings-set.v1"
)

// Type implements [Event].
func (MemberUpdated) Type() string { return TypeMemberUpdated }

// Type implements [Event].
func (MemberRemoved) Type() string { return TypeMemberRemoved }

// Type implements [Event].
func (ParentSet) Type() string { return TypeParentSet }

// Type implements [Event].
func (FunctionalSet) Type() string { return TypeFunctionalSet }

// Type implements [Event].
func (MemberSettingsSet) Type() string { return TypeMemberSettingsSet }

func (MemberUpdated) isEvent()     {}
func (MemberRemoved) isEvent()     {}
func (ParentSet) isEvent()         {}
func (FunctionalSet) isEvent()     {}
func (MemberSettingsSet) isEvent() {}

func (MemberUpdated) isAccountEvent()     {}
func (MemberRemoved) isAccountEvent()     {}
func (ParentSet) isAccountEvent()         {}
func (FunctionalSet) isAccountEvent()     {}
func (MemberSettingsSet) isAccountEvent() {}

func (MemberUpdated) isMemberEvent()     {}
func (MemberRemoved) isMemberEvent()     {}
func (ParentSet) isMemberEvent()         {}
func (FunctionalSet) isMemberEvent()     {}
func (MemberSettingsSet) isMemberEvent() {}

// Member implements [MemberEvent].
func (e MemberAdded) Member() IAMID { return e.IAMID }

// Member implements [MemberEvent].
func (e RolesSet) Member() IAMID { return e.IAMID }

// Member implements [MemberEvent].
func (e MemberUpdated) Member() IAMID { return e.IAMID }

// Member implements [MemberEvent].
func (e MemberRemoved) Member() IAMID { return e.IAMID }

// Member implements [MemberEvent].
func (e ParentSet) Member() IAMID { return e.IAMID }

// Member implements [MemberEvent].
func (e FunctionalSet) Member() IAMID { return e.IAMID }

// Member implements [MemberEvent].
func (e MemberSettingsSet) Member() IAMID { return e.IAMID }
