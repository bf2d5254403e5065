package domain

import "time"

// KeysQuery asks for one page of a list of keys. Who asks it has checked and permitted
// everything in it but PageToken, Sort and Filter.
type KeysQuery struct {
	// Accounts bounds the answer: keys of other accounts MUST NOT be in it.
	Accounts []AccountID
	// Account is the one account that was asked for, or "".
	Account AccountID
	// IAMID restricts to the keys of one identity; "" = all.
	IAMID    IAMID
	PageSize int
	// PageToken is a Next or Previous of an earlier page; "" = the first page.
	PageToken string
	Scope     string  // "entity" or "account".
	Type      KeyKind // "" = every kind.
	// Kinds are the kinds that Type means; nil = every one.
	Kinds []KeyKind
	// Identities bounds the answer to keys of these; nil = all. IAMID bounds it too.
	Identities []IAMID
	// ClassicOf are the identities whose classic keys may be in the answer; others' MUST NOT be.
	ClassicOf []IAMID
	Sort      string // "", "name", "description", "created_at", "created_by".
	Order     string // "asc" or "desc".
	Filter    string // SCIM, unparsed.
}

// kinds returns the kinds of key that the answer to q can hold.
func (q KeysQuery) kinds() []KeyKind {
	if q.Kinds != nil {
		return q.Kinds
	}
	if q.Type != "" {
		return []KeyKind{q.Type}
	}
	if q.Scope == "entity" {
		if _, ok := ServiceIDOf(q.IAMID); ok {
			return []KeyKind{KindServiceID, KindServiceCredential}
		}
	}
	return []KeyKind{KindUser, KindServiceID, KindServiceCredential, KindExternal}
}

// KeysPage is one page. Deleted keys are not in it.
type KeysPage struct {
	Keys           []KeyState
	Next, Previous string // Page tokens; "" where there is no such page.
	Offset         int
	Position       uint64 // Up to which the page knows the log.
	Lag            time.Duration
}
