package domain

import "slices"

// InteractionState says how identities of other accounts are let in, in IBM's words.
type InteractionState string

// The states. What is not set is enabled.
const (
	// InteractionEnabled lets all in.
	InteractionEnabled InteractionState = "enabled"
	// InteractionLimited lets in only those of the allowed accounts.
	InteractionLimited InteractionState = "limited"
	// InteractionMonitor lets all in, and records what limited would have refused.
	InteractionMonitor InteractionState = "monitor"
)

// allowedAccountsMax bounds the accounts of one [Interaction].
const allowedAccountsMax = 1000

// Interaction says which identities of one type are let in from other accounts.
type Interaction struct {
	State   InteractionState `json:"state" enum:"enabled,limited,monitor"`
	Allowed []AccountID      `json:"external_allowed_accounts"`
}

// Permits reports whether an identity that belongs to the account from may act in the account
// whose setting i is, and whether that is enforced: what is not enforced is only recorded.
func (i Interaction) Permits(own, from AccountID) (permit, enforced bool) {
	switch i.State {
	case InteractionLimited:
		return from == own || slices.Contains(i.Allowed, from), true
	case InteractionMonitor:
		return from == own || slices.Contains(i.Allowed, from), false
	case InteractionEnabled:
	}
	return true, true
}

// AccessSettings say, by type of identity, which of other accounts are let in.
type AccessSettings struct {
	User      Interaction `json:"user"`
	ServiceID Interaction `json:"service_id"`
	Service   Interaction `json:"service"`
}

// Of returns the setting for the identity id: a user's or a service ID's.
func (s AccessSettings) Of(id IAMID) Interaction {
	if _, service := ServiceIDOf(id); service {
		return s.ServiceID
	}
	return s.User
}

func (s AccessSettings) filled() AccessSettings {
	for _, i := range []*Interaction{&s.User, &s.ServiceID, &s.Service} {
		if i.State == "" {
			i.State = InteractionEnabled
		}
		if i.Allowed == nil {
			i.Allowed = []AccountID{}
		}
	}
	return s
}

// AccessSettingsSet records all the access management settings of an account from now on.
type AccessSettingsSet struct {
	Account AccountID      `json:"account_id"`
	Old     AccessSettings `json:"old"`
	New     AccessSettings `json:"new"`
}

// TypeAccessSettings is the stored name of [AccessSettingsSet].
const TypeAccessSettings = "account.access-settings-set.v1"

// Type implements [Event].
func (AccessSettingsSet) Type() string    { return TypeAccessSettings }
func (AccessSettingsSet) isEvent()        {}
func (AccessSettingsSet) isAccountEvent() {}

func (e AccessSettingsSet) changes() []Change {
	of := func(name string, old, now Interaction) []Change {
		return onlyChanges(
			Change{name + ".state", string(old.State), string(now.State)},
			Change{name + ".external_allowed_accounts", joined(old.Allowed), joined(now.Allowed)},
		)
	}
	return slices.Concat(of("user", e.Old.User, e.New.User), of("service_id", e.Old.ServiceID, e.New.ServiceID), of("service", e.Old.Service, e.New.Service))
}

// UpdateAccessSettings changes what is not nil of an account's access management settings.
// Each type is set as a whole.
type UpdateAccessSettings struct {
	// IfMatch is the tag of the version that was read, or * for any.
	IfMatch   string       `json:"-"`
	User      *Interaction `json:"user,omitempty"`
	ServiceID *Interaction `json:"service_id,omitempty"`
	Service   *Interaction `json:"service,omitempty"`
}

func (UpdateAccessSettings) isAccountCommand() {}

// AccessSettings returns the account's access management settings.
func (a Account) AccessSettings() AccessSettings { return a.access.filled() }

// AccessSettingsTag returns the tag of this version of the access management settings, for
// If-Match.
func (a Account) AccessSettingsTag() string {
	return settingsTag(a.id, "access_management", a.accessVersion)
}

func (a Account) updateAccess(c UpdateAccessSettings) ([]Event, error) {
	next := a.AccessSettings()
	for _, t := range []struct {
		name string
		to   *Interaction
		from *Interaction
	}{{"user", &next.User, c.User}, {"service_id", &next.ServiceID, c.ServiceID}, {"service", &next.Service, c.Service}} {
		if t.from == nil {
			continue
		}
		checked, err := t.from.checked("external_account_identity_interaction.identity_types." + t.name)
		if err != nil {
			return nil, err
		}
		*t.to = checked
	}
	if !a.Exists() {
		return nil, errNoAccount()
	}
	if err := checkTag(c.IfMatch, a.AccessSettingsTag(), "set of settings"); err != nil {
		return nil, err
	}
	e := AccessSettingsSet{Account: a.id, Old: a.AccessSettings(), New: next}
	if len(e.changes()) == 0 {
		return nil, nil
	}
	return []Event{e}, nil
}

// checked returns i with its accounts sorted, each once, or why it is not well formed.
func (i Interaction) checked(field string) (Interaction, error) {
	refuse := func(name, code, why string) (Interaction, error) {
		return Interaction{}, Errorf(Invalid, "%s", why).WithField(field + "." + name).WithMessageCode(code)
	}
	switch i.State {
	case InteractionEnabled:
		if len(i.Allowed) > 0 {
			return refuse("external_allowed_accounts", "not_limited", "must be empty where the state is enabled: all accounts are allowed")
		}
	case InteractionLimited, InteractionMonitor:
	default:
		return refuse("state", "unknown_value", "must be enabled, limited or monitor")
	}
	if len(i.Allowed) > allowedAccountsMax {
		return refuse("external_allowed_accounts", "too_many", "has too many accounts")
	}
	for _, id := range i.Allowed {
		if !ValidID(string(id)) || len(id) > accountBytesMax {
			return refuse("external_allowed_accounts", "invalid_id", "holds what is no account id")
		}
	}
	i.Allowed = slices.Compact(slices.Sorted(slices.Values(i.Allowed)))
	if i.Allowed == nil {
		i.Allowed = []AccountID{}
	}
	return i, nil
}
