package domain

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What holds where an account sets nothing, as with IBM.
const (
	accessTokenDefault  = time.Hour
	refreshTokenDefault = 72 * time.Hour
	sessionDefault      = 24 * time.Hour
	sessionIdleDefault  = 2 * time.Hour
)

// Bounds of the settings.
const (
	lifetimeSecondsMin     = 900
	sessionSecondsMax      = 86_400
	sessionIdleSecondsMax  = 7_200
	sessionsMaxMax         = 100_000
	accessTokenSecondsMax  = 3_600
	refreshTokenSecondsMax = 259_200
	userMFAMax             = 500
	userDomainsMax         = 20
	emailPatternsMax       = 100
	emailPatternBytesMax   = 254
	realmBytesMax          = 64
)

// AccessTokenLifetime returns how long an access token is accepted.
func (s AccountSettings) AccessTokenLifetime() time.Duration {
	return seconds(s.AccessTokenSeconds, accessTokenDefault)
}

// RefreshTokenLifetime returns how long a refresh token is accepted.
func (s AccountSettings) RefreshTokenLifetime() time.Duration {
	return seconds(s.RefreshTokenSeconds, refreshTokenDefault)
}

// SessionLifetime returns how long a session lasts at most.
func (s AccountSettings) SessionLifetime() time.Duration {
	return seconds(s.SessionExpirationSeconds, sessionDefault)
}

// SessionIdle returns after how long without activity a session ends.
func (s AccountSettings) SessionIdle() time.Duration {
	return seconds(s.SessionInvalidationSeconds, sessionIdleDefault)
}

// SessionLimit returns how many sessions an identity may have, and whether there is a limit.
func (s AccountSettings) SessionLimit() (int, bool) { return s.SessionsMax, s.SessionsMax > 0 }

func seconds(n int, otherwise time.Duration) time.Duration {
	if n == 0 {
		return otherwise
	}
	return time.Duration(n) * time.Second
}

// Effective returns the settings that hold: s, and the defaults where it sets nothing. The
// number of sessions has none.
func (s AccountSettings) Effective() AccountSettings {
	s = s.filled()
	for _, r := range []*Restriction{&s.RestrictUserKeys, &s.RestrictServiceIDs} {
		if *r == RestrictionNotSet {
			*r = RestrictionOff
		}
	}
	for n, d := range map[*int]time.Duration{
		&s.AccessTokenSeconds: s.AccessTokenLifetime(), &s.RefreshTokenSeconds: s.RefreshTokenLifetime(),
		&s.SessionExpirationSeconds: s.SessionLifetime(), &s.SessionInvalidationSeconds: s.SessionIdle(),
	} {
		*n = int(d / time.Second)
	}
	return s
}

// Settings returns the account's settings.
func (a Account) Settings() AccountSettings { return a.settings.filled() }

// SettingsTag returns the tag of this version of the settings, for If-Match.
func (a Account) SettingsTag() string { return settingsTag(a.id, "identity", a.settingsVersion) }

// Addresses returns from where the account's keys and tokens may be used.
func (a Account) Addresses() AddressList { return a.addresses }

// settingsTag returns the tag of a version of one kind of an account's settings.
func settingsTag(account AccountID, kind string, version uint64) string {
	return KeyState{ID: KeyID("settings/" + kind + "/" + string(account)), Version: version + 1}.EntityTag()
}

// UpdateAccountSettings changes what is not nil of the account's settings. The names in JSON
// are IBM's.
type UpdateAccountSettings struct {
	// IfMatch is the tag of the version that was read, or * for any.
	IfMatch string `json:"-"`
	// From is where whoever gives the command is: nobody locks itself out. The zero Addr: it
	// cannot.
	From               netip.Addr   `json:"-"`
	RestrictUserKeys   *Restriction `json:"restrict_create_platform_apikey,omitempty" enum:"RESTRICTED,NOT_RESTRICTED,NOT_SET"`
	RestrictServiceIDs *Restriction `json:"restrict_create_service_id,omitempty" enum:"RESTRICTED,NOT_RESTRICTED,NOT_SET"`
	RestrictUserList   *Restriction `json:"restrict_user_list_visibility,omitempty" enum:"RESTRICTED,NOT_RESTRICTED"`
	// UserDomains replaces the entries of its realms; one with nothing but a realm takes
	// that realm's entry away.
	UserDomains      []UserDomains `json:"restrict_user_domains,omitempty"`
	AllowedAddresses *string       `json:"allowed_ip_addresses,omitempty" description:"Addresses, ranges a-b and networks, separated by commas; empty for all."`
	MFA              *MFA          `json:"mfa,omitempty"`
	UserMFA          []UserMFA     `json:"user_mfa,omitempty"` // Replaces all of them, where it is not nil.
	// The numbers come as text, NOT_SET for none.
	SessionExpirationSeconds   *string `json:"session_expiration_in_seconds,omitempty" description:"900 to 86400, or NOT_SET."`
	SessionInvalidationSeconds *string `json:"session_invalidation_in_seconds,omitempty" description:"900 to 7200, or NOT_SET."`
	SessionsMax                *string `json:"max_sessions_per_identity,omitempty" description:"1 or more, or NOT_SET."`
	AccessTokenSeconds         *string `json:"system_access_token_expiration_in_seconds,omitempty" description:"900 to 3600, or NOT_SET."`
	RefreshTokenSeconds        *string `json:"system_refresh_token_expiration_in_seconds,omitempty" description:"900 to 259200, or NOT_SET."`
	RecordReads                *bool   `json:"record_reads,omitempty" description:"Make an activity record of every read and list of the account's keys."`
}

func (UpdateAccountSettings) isAccountCommand() {}

func (a Account) updateSettings(c UpdateAccountSettings) ([]Event, error) {
	next, err := c.apply(a.Settings())
	if err != nil {
		return nil, err
	}
	if !a.Exists() {
		return nil, errNoAccount()
	}
	for _, u := range c.UserMFA {
		if _, ok := a.user(u.IAMID); !ok {
			return nil, Errorf(Invalid, "%q is no user of the account", shortened(string(u.IAMID))).WithField("user_mfa").WithMessageCode("invalid_user_mfa")
		}
	}
	if err := checkTag(c.IfMatch, a.SettingsTag(), "set of settings"); err != nil {
		return nil, err
	}
	if equalSettings(a.Settings(), next) {
		return nil, nil
	}
	if c.AllowedAddresses != nil {
		if err := checkLockOut(next.AllowedAddresses, c.From); err != nil {
			return nil, err
		}
	}
	return []Event{AccountSettingsSet{Account: a.id, Old: a.Settings(), New: next}}, nil
}

// apply returns s with what c changes, or why c is not well formed.
func (c UpdateAccountSettings) apply(s AccountSettings) (AccountSettings, error) {
	if err := c.applyWords(&s); err != nil {
		return s, err
	}
	for _, n := range []struct {
		field    string
		to       *int
		from     *string
		min, max int
	}{
		{"session_expiration_in_seconds", &s.SessionExpirationSeconds, c.SessionExpirationSeconds, lifetimeSecondsMin, sessionSecondsMax},
		{"session_invalidation_in_seconds", &s.SessionInvalidationSeconds, c.SessionInvalidationSeconds, lifetimeSecondsMin, sessionIdleSecondsMax},
		{"max_sessions_per_identity", &s.SessionsMax, c.SessionsMax, 1, sessionsMaxMax},
		{"system_access_token_expiration_in_seconds", &s.AccessTokenSeconds, c.AccessTokenSeconds, lifetimeSecondsMin, accessTokenSecondsMax},
		{"system_refresh_token_expiration_in_seconds", &s.RefreshTokenSeconds, c.RefreshTokenSeconds, lifetimeSecondsMin, refreshTokenSecondsMax},
	} {
		if n.from == nil {
			continue
		}
		value, err := settingsNumber(*n.from, n.min, n.max)
		if err != nil {
			return s, inField(err, n.field)
		}
		*n.to = value
	}
	if c.RecordReads != nil {
		s.RecordReads = *c.RecordReads
	}
	return s, nil
}

// checkLockOut refuses a list of allowed addresses that leaves out whoever sets it.
func checkLockOut(allowed string, from netip.Addr) error {
	if !from.IsValid() || recordedAddresses(allowed).Allows(from) {
		return nil
	}
	return Errorf(Conflict, "leaves out %s, from where you ask: you would lock yourself out", from).
		WithField("allowed_ip_addresses").WithMessageCode("would_lock_out")
}

func settingsNumber(text string, low, high int) (int, error) {
	if text == string(RestrictionNotSet) {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high || strconv.Itoa(n) != text {
		return 0, Errorf(Invalid, "must be a whole number from %d to %d, or NOT_SET", low, high).WithMessageCode("out_of_bounds")
	}
	return n, nil
}

// applyWords is apply for all but numbers and flags.
func (c UpdateAccountSettings) applyWords(s *AccountSettings) error {
	for _, r := range []struct {
		field    string
		to, from *Restriction
		unset    bool // It may be NOT_SET.
	}{
		{"restrict_create_platform_apikey", &s.RestrictUserKeys, c.RestrictUserKeys, true},
		{"restrict_create_service_id", &s.RestrictServiceIDs, c.RestrictServiceIDs, true},
		{"restrict_user_list_visibility", &s.RestrictUserList, c.RestrictUserList, false},
	} {
		if r.from == nil {
			continue
		}
		if err := checkRestriction(*r.from, r.unset); err != nil {
			return inField(err, r.field)
		}
		*r.to = *r.from
	}
	if c.AllowedAddresses != nil {
		list, err := ParseAddressList(*c.AllowedAddresses)
		if err != nil {
			return inField(err, "allowed_ip_addresses")
		}
		s.AllowedAddresses = list.String()
	}
	if c.MFA != nil {
		if err := checkMFA(*c.MFA); err != nil {
			return inField(err, "mfa")
		}
		s.MFA = *c.MFA
	}
	var err error
	if s.UserMFA, err = c.userMFA(s.UserMFA); err != nil {
		return inField(err, "user_mfa")
	}
	if s.UserDomains, err = c.userDomains(s.UserDomains); err != nil {
		return inField(err, "restrict_user_domains")
	}
	return nil
}

func checkRestriction(r Restriction, unset bool) error {
	switch r {
	case RestrictionOn, RestrictionOff:
		return nil
	case RestrictionNotSet:
		if unset {
			return nil
		}
	}
	words := "must be RESTRICTED or NOT_RESTRICTED"
	if unset {
		words = "must be RESTRICTED, NOT_RESTRICTED or NOT_SET"
	}
	return Errorf(Invalid, "%s", words).WithMessageCode("unknown_value")
}

func checkMFA(m MFA) error {
	switch m {
	case MFANone, MFANoROPC, MFATOTP, MFATOTPAll, MFALevel1, MFALevel2, MFALevel3:
		return nil
	}
	return Errorf(Invalid, "must be NONE, NONE_NO_ROPC, TOTP, TOTP4ALL, LEVEL1, LEVEL2 or LEVEL3").WithMessageCode("unknown_value")
}

// userMFA returns the users' second factors after c, by user.
func (c UpdateAccountSettings) userMFA(old []UserMFA) ([]UserMFA, error) {
	if c.UserMFA == nil {
		return old, nil
	}
	if len(c.UserMFA) > userMFAMax {
		return nil, Errorf(Invalid, "has more than %d entries", userMFAMax).WithMessageCode("too_many")
	}
	list := slices.SortedFunc(slices.Values(c.UserMFA), func(a, b UserMFA) int { return cmp.Compare(a.IAMID, b.IAMID) })
	for i, u := range list {
		if err := checkMFA(u.MFA); err != nil {
			return nil, err
		}
		if i > 0 && list[i-1].IAMID == u.IAMID {
			return nil, Errorf(Invalid, "names a user twice").WithMessageCode("duplicate_user")
		}
	}
	return list, nil
}

// userDomains returns the domains of invitations after c, by realm.
func (c UpdateAccountSettings) userDomains(old []UserDomains) ([]UserDomains, error) {
	byRealm := map[string]UserDomains{}
	for _, d := range old {
		byRealm[d.Realm] = d
	}
	given := map[string]bool{}
	for _, d := range c.UserDomains {
		if err := d.check(); err != nil {
			return nil, err
		}
		if given[d.Realm] {
			return nil, Errorf(Invalid, "names a realm twice").WithMessageCode("duplicate_realm")
		}
		given[d.Realm] = true
		byRealm[d.Realm] = d
		if d.Patterns == nil && !d.Restrict {
			delete(byRealm, d.Realm)
		}
	}
	if len(byRealm) > userDomainsMax {
		return nil, Errorf(Invalid, "has more than %d realms", userDomainsMax).WithMessageCode("too_many")
	}
	var list []UserDomains
	for _, d := range byRealm {
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b UserDomains) int { return cmp.Compare(a.Realm, b.Realm) })
	return list, nil
}

func (d UserDomains) check() error {
	if d.Realm == "" || len(d.Realm) > realmBytesMax || !ValidID(d.Realm) {
		return Errorf(Invalid, "needs a realm_id of 1 to %d letters, digits and -_.:@", realmBytesMax).WithMessageCode("invalid_realm")
	}
	if len(d.Patterns) > emailPatternsMax {
		return Errorf(Invalid, "has more than %d patterns", emailPatternsMax).WithMessageCode("too_many")
	}
	for _, p := range d.Patterns {
		if p == "" || len(p) > emailPatternBytesMax || strings.ContainsFunc(p, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`,;<>"[]`, r) }) {
			return Errorf(Invalid, "%q is not a pattern of e-mail addresses", shortened(p)).WithMessageCode("invalid_pattern")
		}
	}
	return nil
}

// AllowsEmail reports whether a user with that e-mail address may be invited.
func (s AccountSettings) AllowsEmail(email string) bool {
	restricted := false
	for _, d := range s.UserDomains {
		if !d.Restrict {
			continue
		}
		restricted = true
		for _, p := range d.Patterns {
			if matchEmail(strings.ToLower(p), strings.ToLower(email)) {
				return true
			}
		}
	}
	return !restricted
}

// matchEmail reports whether s is what pattern says: * is any text without . and @, ** any
// text. Its cost is bounded by the product of their lengths.
func matchEmail(pattern, s string) bool {
	// reached[i]: the pattern from i on may still match what follows.
	reached := make([]bool, len(pattern)+1)
	reached[0] = true
	skipStars := func() {
		for i := range len(pattern) {
			if reached[i] && pattern[i] == '*' {
				reached[i+starBytes(pattern[i:])] = true
			}
		}
	}
	skipStars()
	for j := range len(s) {
		next := make([]bool, len(pattern)+1)
		for i := range len(pattern) {
			switch {
			case !reached[i]:
			case pattern[i] != '*':
				next[i+1] = next[i+1] || pattern[i] == s[j]
			case starBytes(pattern[i:]) == 2 || s[j] != '.' && s[j] != '@':
				next[i] = true
			}
		}
		reached = next
		skipStars()
	}
	return reached[len(pattern)]
}

// starBytes returns the length of the wildcard that p begins with.
func starBytes(p string) int {
	if strings.HasPrefix(p, "**") {
		return 2
	}
	return 1
}
