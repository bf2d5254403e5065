package domain

import (
	"strings"
	"time"
)

// serviceIAMPrefix begins the IAM id of every service ID.
const serviceIAMPrefix = "iam-"

// ServiceIAMID returns the IAM id of the service ID with that identifier.
func ServiceIAMID(id string) IAMID { return IAMID(serviceIAMPrefix + id) }

// ServiceIDOf returns the identifier of the service ID that iam names, and whether it
// names one.
func ServiceIDOf(iam IAMID) (string, bool) {
	id, ok := strings.CutPrefix(string(iam), serviceIAMPrefix)
	return id, ok && strings.HasPrefix(id, "ServiceId-")
}

// Account is the fold of an account's stream. The zero Account has no history.
type Account struct {
	id                    AccountID
	name, source          string
	owner                 IAMID
	ownerName, ownerEmail string
	createdAt             time.Time
	members               byID[*Member] // Users, and service IDs that hold roles.
	removed               byID[uint64]  // By user, the position at which it was removed last.
	settings              AccountSettings
	limits                AccountLimits
	settingsVersion       uint64      // How often settings were set.
	addresses             AddressList // settings.AllowedAddresses.
	access                AccessSettings
	accessVersion         uint64 // How often they were set.
	contacts              []ConfirmedContact
	contactDays           int          // 0: not set.
	grants                byID[Grants] // Of who has some.
	last                  time.Time
}

// FoldAccount returns the account whose whole stream is history, in log order.
func FoldAccount(history []Recorded) Account {
	var a Account
	for _, rec := range history {
		a = a.Evolve(rec)
	}
	return a
}

// Evolve returns a after rec; events that are not about an account change nothing.
func (a Account) Evolve(rec Recorded) Account {
	if rec.Meta.EffectiveAt.After(a.last) {
		a.last = rec.Meta.EffectiveAt
	}
	about, ok := rec.Event.(AccountEvent)
	if !ok {
		return a
	}
	switch e := about.(type) {
	case AccountCreated:
		a.id, a.name, a.source = e.Account, e.Name, e.Source
		a.owner, a.ownerName, a.ownerEmail = e.Owner, e.OwnerName, e.OwnerEmail
		a.createdAt = rec.Meta.EffectiveAt
		a.settings = defaultAccountSettings()
	case MemberEvent:
		a = a.evolveMember(rec, e)
	case AccountSettingsSet:
		a.settings, a.addresses = e.New, recordedAddresses(e.New.AllowedAddresses)
		a.settingsVersion++
	case AccessSettingsSet:
		a.access = e.New
		a.accessVersion++
	case ContactsEvent:
		a = a.evolveContacts(rec, e)
	case AccountLimitsSet:
		a.limits = e.New
	}
	return a
}

// Exists reports whether the account was created.
func (a Account) Exists() bool { return a.id != "" }

// ID returns the account's id.
func (a Account) ID() AccountID { return a.id }

// Name returns the account's name.
func (a Account) Name() string { return a.name }

// Source returns the system that an account of another system belongs to, or "".
func (a Account) Source() string { return a.source }

// Owner returns who holds every role in the account but those of creators.
func (a Account) Owner() IAMID { return a.owner }

// CreatedAt returns when the account was created.
func (a Account) CreatedAt() time.Time { return a.createdAt }

// Standing returns what id is in the account.
func (a Account) Standing(id IAMID) Standing {
	m, ok := a.members.get(id)
	var roles []Role
	if ok {
		roles = m.Roles
	}
	return Standing{Owner: id != "" && id == a.owner, Member: ok, Roles: roles, Restricted: Restricted{
		UserKeys: a.settings.RestrictUserKeys == RestrictionOn, ServiceIDs: a.settings.RestrictServiceIDs == RestrictionOn,
		Users: a.settings.RestrictUserList == RestrictionOn,
	}}
}

// NextEffective returns the effective time of a fact that is decided now.
func (a Account) NextEffective(now time.Time) time.Time { return NextEffective(now, a.last) }

// AccountCommand is an order about one account. The set is closed.
//
//sumtype:decl
type AccountCommand interface {
	isAccountCommand()
}

// CreateAccount makes a new account.
type CreateAccount struct {
	Account    AccountID
	Name       string
	Owner      IAMID
	OwnerName  string
	OwnerEmail string
	Source     string
}

func (CreateAccount) isAccountCommand() {}

// Decide returns the facts that cmd adds to the history of a. No facts and a nil
// error mean that cmd repeats what is already so.
func (a Account) Decide(cmd AccountCommand) ([]Event, error) {
	switch c := cmd.(type) {
	case CreateAccount:
		return a.create(c)
	case MemberCommand:
		return a.decideMember(c)
	case SetAccountLimits:
		return a.setLimits(c)
	case UpdateAccountSettings:
		return a.updateSettings(c)
	case UpdateAccessSettings:
		return a.updateAccess(c)
	case SetSecurityContacts:
		return a.setContacts(c)
	case ConfirmSecurityContacts:
		return a.confirmContacts()
	default:
		return nil, Errorf(Internal, "unexpected command %T", cmd)
	}
}

func (a Account) create(c CreateAccount) ([]Event, error) {
	if err := checkName(c.Name); err != nil {
		return nil, err
	}
	if !ValidID(string(c.Account)) || len(c.Account) > accountBytesMax {
		return nil, Errorf(Invalid, "is not an account id").WithField("id").WithMessageCode("invalid_id")
	}
	if !ValidID(string(c.Owner)) {
		return nil, Errorf(Invalid, "is not an IAM id").WithField("owner_iam_id").WithMessageCode("invalid_iam_id")
	}
	if a.Exists() {
		return nil, Errorf(Conflict, "account %s already exists", c.Account).WithMessageCode("account_exists")
	}
	return []Event{AccountCreated{
		Account: c.Account, Name: c.Name, Owner: c.Owner, OwnerName: c.OwnerName, OwnerEmail: c.OwnerEmail, Source: c.Source,
	}}, nil
}

// accountBytesMax bounds an account id (see [AccountID]).
const accountBytesMax = 64

func errNoAccount() *Error {
	return Errorf(NotFound, "no such account").WithMessageCode("account_not_found")
}
