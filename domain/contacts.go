package domain

import (
	"strconv"
	"strings"
	"time"
)

// Bounds of an account's security contacts.
const (
	contactsMax         = 20
	contactDaysMax      = 3650
	contactDaysDefault  = 90
	contactNameBytesMax = 256
)

// SecurityContact is who is told of what concerns an account's security.
type SecurityContact struct {
	Name  string `json:"name"`
	Email string `json:"email"`
}

// SecurityContactsSet records all the security contacts of an account from now on.
type SecurityContactsSet struct {
	Account AccountID         `json:"account_id"`
	Old     []SecurityContact `json:"old,omitempty"`
	New     []SecurityContact `json:"new,omitempty"`
	// After so many days without confirmation a contact is stale.
	OldStaleDays int `json:"old_stale_after_days"`
	NewStaleDays int `json:"new_stale_after_days"`
}

// SecurityContactsConfirmed records that the security contacts of an account are still right.
type SecurityContactsConfirmed struct {
	Account  AccountID         `json:"account_id"`
	Contacts []SecurityContact `json:"contacts"`
}

// ContactsEvent is a fact about an account's security contacts.
//
//sumtype:decl
type ContactsEvent interface {
	AccountEvent
	isContactsEvent()
}

// Stored names of the events about security contacts.
const (
	TypeContactsSet       = "account.security-contacts-set.v1"
	TypeContactsConfirmed = "account.security-contacts-confirmed.v1"
)

// Type implements [Event].
func (SecurityContactsSet) Type() string { return TypeContactsSet }

// Type implements [Event].
func (SecurityContactsConfirmed) Type() string { return TypeContactsConfirmed }

func (SecurityContactsSet) isEvent()               {}
func (SecurityContactsConfirmed) isEvent()         {}
func (SecurityContactsSet) isAccountEvent()        {}
func (SecurityContactsConfirmed) isAccountEvent()  {}
func (SecurityContactsSet) isContactsEvent()       {}
func (SecurityContactsConfirmed) isContactsEvent() {}

// SetSecurityContacts sets all the security contacts of an account. Those that are new are
// confirmed by it.
type SetSecurityContacts struct {
	Contacts  []SecurityContact
	StaleDays *int // nil: as it is.
}

// ConfirmSecurityContacts says that all security contacts of an account are still right.
type ConfirmSecurityContacts struct{}

func (SetSecurityContacts) isAccountCommand()     {}
func (ConfirmSecurityContacts) isAccountCommand() {}

// ConfirmedContact is a security contact, and when it was last known to be right.
type ConfirmedContact struct {
	SecurityContact
	ConfirmedAt time.Time
	ConfirmedBy IAMID
}

// SecurityContacts returns the account's security contacts.
func (a Account) SecurityContacts() []ConfirmedContact { return a.contacts }

// ContactsStaleAfter returns the days without confirmation after which a contact is stale.
func (a Account) ContactsStaleAfter() int {
	if a.contactDays == 0 {
		return contactDaysDefault
	}
	return a.contactDays
}

// StaleAt reports whether c was not confirmed in the days before now.
func (c ConfirmedContact) StaleAt(now time.Time, days int) bool {
	return !now.Before(c.ConfirmedAt.AddDate(0, 0, days))
}

// evolveContacts returns a after a fact about its security contacts.
func (a Account) evolveContacts(rec Recorded, about ContactsEvent) Account {
	confirmed := func(c SecurityContact) ConfirmedContact {
		return ConfirmedContact{SecurityContact: c, ConfirmedAt: rec.Meta.EffectiveAt, ConfirmedBy: rec.Meta.Initiator.IAMID}
	}
	old := map[SecurityContact]ConfirmedContact{}
	for _, c := range a.contacts {
		old[c.SecurityContact] = c
	}
	var list []SecurityContact
	switch e := about.(type) {
	case SecurityContactsSet:
		list, a.contactDays = e.New, e.NewStaleDays
	case SecurityContactsConfirmed:
		list, old = e.Contacts, nil
	}
	a.contacts = nil
	for _, c := range list {
		known, ok := old[c]
		if !ok {
			known = confirmed(c)
		}
		a.contacts = append(a.contacts, known)
	}
	return a
}

func (a Account) plainContacts() []SecurityContact {
	list := make([]SecurityContact, len(a.contacts))
	for i, c := range a.contacts {
		list[i] = c.SecurityContact
	}
	return list
}

func (a Account) setContacts(c SetSecurityContacts) ([]Event, error) {
	if len(c.Contacts) > contactsMax {
		return nil, Errorf(Invalid, "has more than %d entries", contactsMax).WithField("contacts").WithMessageCode("too_many")
	}
	seen := map[string]bool{}
	for _, contact := range c.Contacts {
		if strings.TrimSpace(contact.Name) == "" {
			return nil, Errorf(Invalid, "is required").WithField("contacts.name").WithMessageCode("missing_name")
		}
		if err := checkText("contacts.name", contact.Name, contactNameBytesMax); err != nil {
			return nil, err
		}
		if err := checkText("contacts.email", contact.Email, emailBytesMax); err != nil {
			return nil, err
		}
		email := strings.ToLower(contact.Email)
		if !looksLikeEmail(email) || seen[email] {
			return nil, Errorf(Invalid, "must be an e-mail address, each of another contact").WithField("contacts.email").WithMessageCode("invalid_email")
		}
		seen[email] = true
	}
	e := SecurityContactsSet{Account: a.id, Old: a.plainContacts(), New: c.Contacts, OldStaleDays: a.ContactsStaleAfter(), NewStaleDays: a.ContactsStaleAfter()}
	if c.StaleDays != nil {
		if e.NewStaleDays = *c.StaleDays; e.NewStaleDays < 1 || e.NewStaleDays > contactDaysMax {
			return nil, Errorf(Invalid, "must be 1 to %d", contactDaysMax).WithField("stale_after_days").WithMessageCode("out_of_bounds")
		}
	}
	switch {
	case !a.Exists():
		return nil, errNoAccount()
	case len(e.changes()) == 0:
		return nil, nil
	}
	return []Event{e}, nil
}

func (a Account) confirmContacts() ([]Event, error) {
	switch {
	case !a.Exists():
		return nil, errNoAccount()
	case len(a.contacts) == 0:
		return nil, Errorf(Conflict, "the account has no security contacts to confirm").WithMessageCode("no_contacts")
	}
	return []Event{SecurityContactsConfirmed{Account: a.id, Contacts: a.plainContacts()}}, nil
}

func (e SecurityContactsSet) changes() []Change {
	return onlyChanges(
		Change{"contacts", contactsText(e.Old), contactsText(e.New)},
		Change{"stale_after_days", strconv.Itoa(e.OldStaleDays), strconv.Itoa(e.NewStaleDays)},
	)
}

// contactsText is one to one: an e-mail address holds no blank, comma or bracket.
func contactsText(list []SecurityContact) string {
	parts := make([]string, len(list))
	for i, c := range list {
		parts[i] = strconv.Quote(c.Name) + " <" + c.Email + ">"
	}
	return strings.Join(parts, ", ")
}
