package domain

import (
	"strconv"
	"strings"
)

// Restriction says whether something is restricted in an account, in IBM's words.
type Restriction string

// The restrictions; what is not set is not restricted.
const (
	RestrictionOn     Restriction = "RESTRICTED"
	RestrictionOff    Restriction = "NOT_RESTRICTED"
	RestrictionNotSet Restriction = "NOT_SET"
)

// MFA is a second factor that sign-ins need, in IBM's words. It is kept for those that sign
// people in; keys have none.
type MFA string

// The second factors.
const (
	MFANone    MFA = "NONE"
	MFANoROPC  MFA = "NONE_NO_ROPC" // No command line sign-in with a password only.
	MFATOTP    MFA = "TOTP"
	MFATOTPAll MFA = "TOTP4ALL"
	MFALevel1  MFA = "LEVEL1"
	MFALevel2  MFA = "LEVEL2"
	MFALevel3  MFA = "LEVEL3"
)

// UserMFA is a second factor of one user, instead of the account's.
type UserMFA struct {
	IAMID IAMID `json:"iam_id"`
	MFA   MFA   `json:"mfa"`
}

// UserDomains says which e-mail addresses may be invited. keytrail knows no realms: every
// entry concerns all users.
type UserDomains struct {
	Realm    string   `json:"realm_id"`
	Patterns []string `json:"invitation_email_allow_patterns,omitempty"`
	Restrict bool     `json:"restrict_invitation,omitempty"`
}

// AccountSettings are an account's rules for its identities. Numbers are 0 where they are
// not set. Fields that were not there from the beginning may be missing in stored bytes.
type AccountSettings struct {
	RestrictUserKeys   Restriction `json:"restrict_create_platform_apikey"`
	RestrictServiceIDs Restriction `json:"restrict_create_service_id"`
	// RestrictUserList hides the other users from those who hold no role.
	RestrictUserList Restriction   `json:"restrict_user_list_visibility,omitempty"`
	UserDomains      []UserDomains `json:"restrict_user_domains,omitempty"` // By realm.
	// AllowedAddresses is the canonical text of an [AddressList]; "" allows every address.
	AllowedAddresses           string    `json:"allowed_ip_addresses,omitempty"`
	MFA                        MFA       `json:"mfa,omitempty"`
	UserMFA                    []UserMFA `json:"user_mfa,omitempty"` // By user.
	SessionExpirationSeconds   int       `json:"session_expiration_in_seconds,omitempty"`
	SessionInvalidationSeconds int       `json:"session_invalidation_in_seconds,omitempty"`
	SessionsMax                int       `json:"max_sessions_per_identity,omitempty"`
	AccessTokenSeconds         int       `json:"system_access_token_expiration_in_seconds,omitempty"`
	RefreshTokenSeconds        int       `json:"system_refresh_token_expiration_in_seconds,omitempty"`
	// RecordReads makes an activity record of every read and list of the account's keys.
	RecordReads bool `json:"record_reads,omitempty"`
}

// defaultAccountSettings are those of a new account.
func defaultAccountSettings() AccountSettings {
	return AccountSettings{RestrictUserKeys: RestrictionNotSet, RestrictServiceIDs: RestrictionNotSet}.filled()
}

// filled returns s as today's version has it where an older one said less.
func (s AccountSettings) filled() AccountSettings {
	if s.RestrictUserList == "" {
		s.RestrictUserList = RestrictionOff
	}
	if s.MFA == "" {
		s.MFA = MFANone
	}
	return s
}

// AccountSettingsSet records all the settings of an account from now on.
type AccountSettingsSet struct {
	Account AccountID       `json:"account_id"`
	Old     AccountSettings `json:"old"`
	New     AccountSettings `json:"new"`
}

// TypeAccountSettings is the stored name of [AccountSettingsSet].
const TypeAccountSettings = "account.settings-set.v1"

// Type implements [Event].
func (AccountSettingsSet) Type() string    { return TypeAccountSettings }
func (AccountSettingsSet) isEvent()        {}
func (AccountSettingsSet) isAccountEvent() {}

// Changes returns the settings that the event changes, in IBM's words.
func (e AccountSettingsSet) Changes() []Change { return settingsChanges(e.Old, e.New) }

// settingsChanges returns what differs, by the fields' names in the API.
func settingsChanges(old, after AccountSettings) []Change {
	old, after = old.filled(), after.filled()
	return onlyChanges(
		Change{"restrict_create_platform_apikey", string(old.RestrictUserKeys), string(after.RestrictUserKeys)},
		Change{"restrict_create_service_id", string(old.RestrictServiceIDs), string(after.RestrictServiceIDs)},
		Change{"restrict_user_list_visibility", string(old.RestrictUserList), string(after.RestrictUserList)},
		Change{"restrict_user_domains", domainsText(old.UserDomains), domainsText(after.UserDomains)},
		Change{"allowed_ip_addresses", old.AllowedAddresses, after.AllowedAddresses},
		Change{"mfa", string(old.MFA), string(after.MFA)},
		Change{"user_mfa", mfaText(old.UserMFA), mfaText(after.UserMFA)},
		Change{"session_expiration_in_seconds", NumberText(old.SessionExpirationSeconds), NumberText(after.SessionExpirationSeconds)},
		Change{"session_invalidation_in_seconds", NumberText(old.SessionInvalidationSeconds), NumberText(after.SessionInvalidationSeconds)},
		Change{"max_sessions_per_identity", NumberText(old.SessionsMax), NumberText(after.SessionsMax)},
		Change{"system_access_token_expiration_in_seconds", NumberText(old.AccessTokenSeconds), NumberText(after.AccessTokenSeconds)},
		Change{"system_refresh_token_expiration_in_seconds", NumberText(old.RefreshTokenSeconds), NumberText(after.RefreshTokenSeconds)},
		Change{"record_reads", strconv.FormatBool(old.RecordReads), strconv.FormatBool(after.RecordReads)},
	)
}

// NumberText returns a number of the settings as the API has it: 0 is NOT_SET.
func NumberText(n int) string {
	if n == 0 {
		return string(RestrictionNotSet)
	}
	return strconv.Itoa(n)
}

func mfaText(list []UserMFA) string {
	parts := make([]string, len(list))
	for i, u := range list {
		parts[i] = string(u.IAMID) + "=" + string(u.MFA)
	}
	return strings.Join(parts, ",")
}

// domainsText is one to one: patterns hold no comma, brackets or blanks.
func domainsText(list []UserDomains) string {
	parts := make([]string, len(list))
	for i, d := range list {
		parts[i] = d.Realm + "=" + strconv.FormatBool(d.Restrict) + "[" + strings.Join(d.Patterns, " ") + "]"
	}
	return strings.Join(parts, ",")
}

func equalSettings(a, b AccountSettings) bool {
	return len(settingsChanges(a, b)) == 0
}
