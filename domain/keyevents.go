package domain

import "time"

// KeyKind is what a key is bound to.
type KeyKind string

// The kinds of key.
const (
	KindUser      KeyKind = "user"
	KindServiceID KeyKind = "serviceid"
	KindExternal  KeyKind = "external"
	// KindClassic is a key of classic infrastructure: a user has one at a time, and can read
	// its value again.
	KindClassic KeyKind = "classic"
	// KindServiceCredential is the key that was made with its service ID, in one call.
	KindServiceCredential KeyKind = "service-credential"
)

// isKeyKind reports whether k is a kind of key.
func isKeyKind(k KeyKind) bool {
	switch k {
	case KindUser, KindServiceID, KindExternal, KindClassic, KindServiceCredential:
		return true
	}
	return false
}

// OfService reports whether keys of the kind act as a service ID.
func (k KeyKind) OfService() bool { return k == KindServiceID || k == KindServiceCredential }

// LeakAction says what happens to a key when it is reported leaked.
type LeakAction string

// The leak actions; the default is [LeakDisable].
const (
	LeakNone    LeakAction = "none"
	LeakDisable LeakAction = "disable"
	LeakDelete  LeakAction = "delete"
)

// KeyState is all that is known of a key at one moment. It never holds the secret:
// SecretHash is a keyed fingerprint that names its algorithm.
type KeyState struct {
	ID      KeyID     `json:"id"`
	Account AccountID `json:"account_id"`
	// IAMID is the identity that the key acts as.
	IAMID       IAMID   `json:"iam_id,omitempty"`
	Kind        KeyKind `json:"kind"`
	Name        string  `json:"name,omitempty"`
	Description string  `json:"description,omitempty"`
	// Version counts the changes; it is the entity tag's source.
	Version         uint64     `json:"version"`
	Locked          bool       `json:"locked,omitempty"`
	Disabled        bool       `json:"disabled,omitempty"`
	Deleted         bool       `json:"deleted,omitempty"`
	ExpiresAt       *time.Time `json:"expires_at,omitempty"` // To the second, UTC.
	CreatedAt       time.Time  `json:"created_at"`
	CreatedBy       IAMID      `json:"created_by,omitempty"`
	ModifiedAt      time.Time  `json:"modified_at"`
	ActionOnLeak    LeakAction `json:"action_when_leaked,omitempty"`
	SupportSessions bool       `json:"support_sessions,omitempty"`
	// SecretHash is "hmac-sha256:<hex>" of SHA-256(secret) under the pepper; empty
	// for external keys.
	SecretHash string `json:"secret_hash,omitempty"`
	// Source names the system that an external key belongs to ("aws").
	Source string `json:"source,omitempty"`
	// Parent is the key or principal that an external key was issued by, if known.
	Parent string `json:"parent,omitempty"`
	// ValueStored says that the value is kept, sealed, to be read again.
	ValueStored bool `json:"value_stored,omitempty"`
	// Successor is the key that took over in a rotation, and EndsAt when this one ends
	// because of that: ExpiresAt is never later. Predecessor is the key that this one follows.
	Successor   KeyID      `json:"successor,omitempty"`
	EndsAt      *time.Time `json:"ends_at,omitempty"`
	Predecessor KeyID      `json:"predecessor,omitempty"`
	// AbandonedSuccessor is a key that was to take over and never will.
	AbandonedSuccessor KeyID `json:"abandoned_successor,omitempty"`
	// AbandonedRotations counts the rotations that were given up: one that began before the
	// newest of them is one of them.
	AbandonedRotations uint64 `json:"abandoned_rotations,omitempty"`
}

// KeyStatus is what a key is worth at one moment.
type KeyStatus string

// The statuses, in the order in which they win over each other: a deleted key is
// deleted whatever else it is.
const (
	StatusUnknown  KeyStatus = "unknown"
	StatusActive   KeyStatus = "active"
	StatusDisabled KeyStatus = "disabled"
	StatusExpired  KeyStatus = "expired"
	StatusDeleted  KeyStatus = "deleted"
)

// StatusAt returns the status of s at t, given that s is the state in force then.
// A key is expired from the second of ExpiresAt on.
func (s KeyState) StatusAt(t time.Time) KeyStatus {
	switch {
	case s.Deleted:
		return StatusDeleted
	case s.Disabled:
		return StatusDisabled
	case s.ExpiresAt != nil && !t.Before(*s.ExpiresAt):
		return StatusExpired
	}
	return StatusActive
}

// Change is one field that an update set.
type Change struct {
	Field string `json:"field"`
	Old   string `json:"old"`
	New   string `json:"new"`
}

// KeyCreated records a new key.
type KeyCreated struct {
	After KeyState `json:"after"`
}

// KeyUpdated records changed fields, with old and new values.
type KeyUpdated struct {
	Changes []Change `json:"changes"`
	After   KeyState `json:"after"`
}

// KeyLocked records that a key refuses changes from now on. It still works.
type KeyLocked struct {
	After KeyState `json:"after"`
}

// KeyUnlocked records that a key may be changed again.
type KeyUnlocked struct {
	After KeyState `json:"after"`
}

// KeyDisabled records that a key is refused at use from now on.
type KeyDisabled struct {
	After KeyState `json:"after"`
}

// KeyEnabled records that a disabled key works again.
type KeyEnabled struct {
	After KeyState `json:"after"`
}

// KeyDeleted records the end of a key. Its history stays.
type KeyDeleted struct {
	After KeyState `json:"after"`
}

// KeyCreationAbandoned records that a key will never be: who was to create it did not come
// so far in time. It stands where its creation would, so that a creator who is merely slow
// loses. After is a deleted key.
type KeyCreationAbandoned struct {
	After KeyState `json:"after"`
}

// ObservedFact is what a source's log said about an external key.
type ObservedFact string

// The facts about external keys.
const (
	ObservedUse      ObservedFact = "first-use" // The key was used; nothing says when it was made.
	ObservedCreated  ObservedFact = "created"
	ObservedIssued   ObservedFact = "issued" // A temporary key was made by another key.
	ObservedEnabled  ObservedFact = "enabled"
	ObservedDisabled ObservedFact = "disabled"
	ObservedDeleted  ObservedFact = "deleted"
)

// KeyObserved records a fact that another system's log states about its key. It is
// never refused for contradicting what was known. After is the state that the fact
// alone implies at its effective time, with what earlier facts said of name and
// owner.
type KeyObserved struct {
	Fact ObservedFact `json:"fact"`
	// SourceEvent is the id of the source's record.
	SourceEvent string   `json:"source_event"`
	After       KeyState `json:"after"`
}

// Stored names of the key events.
const (
	TypeKeyCreated   = "apikey.created.v1"
	TypeKeyUpdated   = "apikey.updated.v1"
	TypeKeyLocked    = "apikey.locked.v1"
	TypeKeyUnlocked  = "apikey.unlocked.v1"
	TypeKeyDisabled  = "apikey.disabled.v1"
	TypeKeyEnabled   = "apikey.enabled.v1"
	TypeKeyDeleted   = "apikey.deleted.v1"
	TypeKeyObserved  = "apikey.observed.v1"
	TypeKeyAbandoned = "apikey.creation-abandoned.v1"
)

// Type implements [Event].
func (KeyCreated) Type() string { return TypeKeyCreated }

// Type implements [Event].
func (KeyUpdated) Type() string { return TypeKeyUpdated }

// Type implements [Event].
func (KeyLocked) Type() string { return TypeKeyLocked }

// Type implements [Event].
func (KeyUnlocked) Type() string { return TypeKeyUnlocked }

// Type implements [Event].
func (KeyDisabled) Type() string { return TypeKeyDisabled }

// Type implements [Event].
func (KeyEnabled) Type() string { return TypeKeyEnabled }

// Type implements [Event].
func (KeyDeleted) Type() string { return TypeKeyDeleted }

// Type implements [Event].
func (KeyObserved) Type() string { return TypeKeyObserved }

// Type implements [Event].
func (KeyCreationAbandoned) Type() string { return TypeKeyAbandoned }

// State implements [KeyEvent].
func (e KeyCreated) State() KeyState { return e.After }

// State implements [KeyEvent].
func (e KeyUpdated) State() KeyState { return e.After }

// State implements [KeyEvent].
func (e KeyLocked) State() KeyState { return e.After }

// State implements [KeyEvent].
func (e KeyUnlocked) State() KeyState { return e.After }

// State implements [KeyEvent].
func (e KeyDisabled) State() KeyState { return e.After }

// State implements [KeyEvent].
func (e KeyEnabled) State() KeyState { return e.After }

// State implements [KeyEvent].
func (e KeyDeleted) State() KeyState { return e.After }

// State implements [KeyEvent].
func (e KeyObserved) State() KeyState { return e.After }

// State implements [KeyEvent].
func (e KeyCreationAbandoned) State() KeyState { return e.After }

func (KeyCreated) isEvent()           {}
func (KeyUpdated) isEvent()           {}
func (KeyLocked) isEvent()            {}
func (KeyUnlocked) isEvent()          {}
func (KeyDisabled) isEvent()          {}
func (KeyEnabled) isEvent()           {}
func (KeyDeleted) isEvent()           {}
func (KeyObserved) isEvent()          {}
func (KeyCreationAbandoned) isEvent() {}

func (KeyCreated) isKeyEvent()           {}
func (KeyUpdated) isKeyEvent()           {}
func (KeyLocked) isKeyEvent()            {}
func (KeyUnlocked) isKeyEvent()          {}
func (KeyDisabled) isKeyEvent()          {}
func (KeyEnabled) isKeyEvent()           {}
func (KeyDeleted) isKeyEvent()           {}
func (KeyObserved) isKeyEvent()          {}
func (KeyCreationAbandoned) isKeyEvent() {}
