package domain

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
)

// AccountLimits are how many keys the identities of an account may have.
type AccountLimits struct {
	// KeysPerIdentity is for all whom Identities does not name; 0 is [KeyLimitDefault].
	KeysPerIdentity int           `json:"apikeys_per_identity,omitempty"`
	Identities      map[IAMID]int `json:"identities,omitempty"`
}

// Keys returns how many keys id may have.
func (l AccountLimits) Keys(id IAMID) int {
	if n, ok := l.Identities[id]; ok {
		return n
	}
	return cmp.Or(l.KeysPerIdentity, KeyLimitDefault)
}

// accountIdentityLimitsMax bounds the identities that have a limit of their own.
const accountIdentityLimitsMax = 1000

func (l AccountLimits) check() error {
	if len(l.Identities) > accountIdentityLimitsMax {
		return Errorf(Invalid, "names more than %d identities", accountIdentityLimitsMax).WithField("identities").WithMessageCode("too_long")
	}
	if n := l.KeysPerIdentity; n < 0 || n > KeyLimitMax {
		return errLimit("apikeys_per_identity")
	}
	for _, id := range slices.Sorted(maps.Keys(l.Identities)) {
		if !ValidID(string(id)) {
			return Errorf(Invalid, "names what is not an IAM id").WithField("identities").WithMessageCode("invalid_iam_id")
		}
		if n := l.Identities[id]; n < 1 || n > KeyLimitMax {
			return errLimit("identities." + string(id))
		}
	}
	return nil
}

func errLimit(field string) error {
	return Errorf(Invalid, "must be 1 to %d", KeyLimitMax).WithField(field).WithMessageCode("invalid_limit")
}

func (l AccountLimits) equal(other AccountLimits) bool {
	return l.KeysPerIdentity == other.KeysPerIdentity && maps.Equal(l.Identities, other.Identities)
}

// AccountLimitsSet records all the limits of an account from now on.
type AccountLimitsSet struct {
	Account AccountID     `json:"account_id"`
	Old     AccountLimits `json:"old"`
	New     AccountLimits `json:"new"`
}

// TypeAccountLimits is the stored name of [AccountLimitsSet].
const TypeAccountLimits = "account.limits-set.v1"

// Type implements [Event].
func (AccountLimitsSet) Type() string { return TypeAccountLimits }

func (AccountLimitsSet) isEvent()        {}
func (AccountLimitsSet) isAccountEvent() {}

func (e AccountLimitsSet) changes() []Change {
	var out []Change
	add := func(field string, old, now int) {
		if old != now {
			out = append(out, Change{Field: field, Old: limitText(old), New: limitText(now)})
		}
	}
	add("apikeys_per_identity", e.Old.KeysPerIdentity, e.New.KeysPerIdentity)
	all := maps.Clone(e.Old.Identities)
	if all == nil {
		all = map[IAMID]int{}
	}
	maps.Copy(all, e.New.Identities)
	for _, id := range slices.Sorted(maps.Keys(all)) {
		add("identities."+string(id), e.Old.Identities[id], e.New.Identities[id])
	}
	return out
}

func limitText(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// SetAccountLimits sets all the limits of the account.
type SetAccountLimits struct {
	Limits AccountLimits
}

func (SetAccountLimits) isAccountCommand() {}

// Limits returns how many keys the account's identities may have.
func (a Account) Limits() AccountLimits { return a.limits }

func (a Account) setLimits(c SetAccountLimits) ([]Event, error) {
	if err := c.Limits.check(); err != nil {
		return nil, err
	}
	switch {
	case !a.Exists():
		return nil, errNoAccount()
	case c.Limits.equal(a.limits):
		return nil, nil
	}
	return []Event{AccountLimitsSet{Account: a.id, Old: a.limits, New: c.Limits}}, nil
}
