package domain

import "time"

// Event is a fact: it already happened, so it is never rejected. The set is
// closed; only this package can add a member.
//
//sumtype:decl
type Event interface {
	// Type is the stored name with its version. It is written by hand, never
	// derived from the Go type, so renaming a struct cannot orphan history.
	Type() string
	isEvent()
}

// KeyEvent is a fact about one key. It carries the key's whole state after it, so
// that readers need no look-up.
//
//sumtype:decl
type KeyEvent interface {
	Event
	// State returns the key's state from the event's effective time on.
	State() KeyState
	isKeyEvent()
}

// AccountEvent is a fact about one account and who belongs to it.
//
//sumtype:decl
type AccountEvent interface {
	Event
	isAccountEvent()
}

// MemberEvent is a fact about one of those who belong to an account.
//
//sumtype:decl
type MemberEvent interface {
	AccountEvent
	// Member returns whom the event is about.
	Member() IAMID
	isMemberEvent()
}

// ServiceIDEvent is a fact about one service ID.
//
//sumtype:decl
type ServiceIDEvent interface {
	Event
	isServiceIDEvent()
}

// SessionEvent is a fact about one session. It carries the session's whole state after it.
//
//sumtype:decl
type SessionEvent interface {
	Event
	// State returns the session's state from the event's effective time on.
	State() SessionState
	isSessionEvent()
}

// ReservationEvent is a fact about what a key must have before it can be: a place among
// those of its identity, and its value alone.
//
//sumtype:decl
type ReservationEvent interface {
	Event
	isReservationEvent()
}

// HorizonEvent is a fact about what is kept of old usage.
//
//sumtype:decl
type HorizonEvent interface {
	Event
	isHorizonEvent()
}

// FindingEvent is a fact about one finding.
//
//sumtype:decl
type FindingEvent interface {
	Event
	isFindingEvent()
}

// MetadataSchema is the version of [Metadata] that is written today.
const MetadataSchema = 1

// Metadata says who did it, how, and when it was true. It is stored beside every
// event, as JSON.
type Metadata struct {
	// Schema is the version of this struct: [MetadataSchema].
	Schema int `json:"v"`
	// EffectiveAt is when the fact was true, UTC, to the millisecond. For our own
	// commands it is the server's time and strictly increases within a stream; for
	// external facts it is the source's time.
	EffectiveAt time.Time `json:"effective_at"`
	Initiator   Initiator `json:"initiator"`
	// CorrelationID is one for everything that one request caused.
	CorrelationID string `json:"correlation_id,omitempty"`
	// CausationID is the id of the event or source record that caused this one.
	CausationID string `json:"causation_id,omitempty"`
}

// Initiator is who gave a command, in the words of CADF and IBM's Activity Tracker.
type Initiator struct {
	IAMID     IAMID     `json:"iam_id"`
	Name      string    `json:"name,omitempty"`
	AuthnID   string    `json:"authn_id,omitempty"`
	AuthnName string    `json:"authn_name,omitempty"`
	Type      ActorType `json:"type,omitempty"`
	// Account is the account that the credential belongs to.
	Account AccountID `json:"account_id,omitempty"`
	// Credential is the kind of credential: token, user, apikey, apikey-serviceid.
	Credential string `json:"credential,omitempty"`
	// CredentialID is the id of the API key that was used, if one was.
	CredentialID KeyID  `json:"credential_id,omitempty"`
	Address      string `json:"address,omitempty"`
	Agent        string `json:"agent,omitempty"`
}

// IsSystem reports whether keytrail itself acted.
func (i Initiator) IsSystem() bool { return i.IAMID == SystemIAMID }

// ActorType is the kind of an initiator.
type ActorType string

// The kinds of initiator.
const (
	ActorUser      ActorType = "user"
	ActorServiceID ActorType = "serviceid"
	ActorClientID  ActorType = "clientid"
	ActorSystem    ActorType = "system"
)

// Recorded is an event as the log holds it.
type Recorded struct {
	Stream   string
	Revision uint64
	// Position orders the whole log: it strictly increases but is not dense.
	Position   uint64
	ID         EventID
	Type       string
	RecordedAt time.Time
	Meta       Metadata
	Event      Event
}
