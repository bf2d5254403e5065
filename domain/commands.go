package domain

import "time"

// KeyCommand is an order about one API key. The set is closed; only this package
// can add a member.
//
//sumtype:decl
type KeyCommand interface {
	// Verb returns what the command would do to the key.
	Verb() Verb
	isKeyCommand()
}

// CreateKey makes a new key.
type CreateKey struct {
	ID              KeyID
	Account         AccountID
	IAMID           IAMID
	Kind            KeyKind
	Name            string
	Description     string
	ExpiresAt       string     // As in the request; "" = never.
	ActionOnLeak    LeakAction // "" = [LeakDisable].
	SupportSessions bool
	SecretHash      string
	StoreValue      bool  // Keep the value to be read again; classic keys always do.
	Predecessor     KeyID // Where it is a rotation's.
	Locked          bool
	Disabled        bool
	By              Initiator
	At              time.Time
}

// UpdateKey changes the fields that are not nil. An empty description or expiry
// clears it; an empty name is refused.
type UpdateKey struct {
	// IfMatch is the entity tag that the caller has read, or "*". Required.
	IfMatch         string
	Name            *string
	Description     *string
	ExpiresAt       *string
	ActionOnLeak    *LeakAction
	SupportSessions *bool
	By              Initiator
	At              time.Time
}

// LockKey makes a key refuse update and delete.
type LockKey struct {
	By Initiator
	At time.Time
}

// UnlockKey lets a locked key be changed again.
type UnlockKey struct {
	By Initiator
	At time.Time
}

// DisableKey makes a key be refused at use.
type DisableKey struct {
	By Initiator
	At time.Time
}

// EnableKey makes a disabled key work again.
type EnableKey struct {
	By Initiator
	At time.Time
}

// DeleteKey ends a key for good.
type DeleteKey struct {
	By Initiator
	At time.Time
}

// AbandonKey ends a creation that did not come so far in time. Where the key was made after
// all, it changes nothing. Only the system gives it.
type AbandonKey struct {
	ID      KeyID
	Account AccountID
	IAMID   IAMID
	Kind    KeyKind
	At      time.Time
}

// ObserveKey tells what another system's log says about its key. It is never
// refused. Empty fields are taken from what is known already.
type ObserveKey struct {
	Fact        ObservedFact
	SourceEvent string
	ID          KeyID
	Account     AccountID
	IAMID       IAMID
	Name        string
	Source      string
	Parent      string
	ExpiresAt   *time.Time
	// At is the source's time.
	At time.Time
}

// Verb implements [KeyCommand].
func (CreateKey) Verb() Verb { return VerbCreate }

// Verb implements [KeyCommand].
func (UpdateKey) Verb() Verb { return VerbUpdate }

// Verb implements [KeyCommand].
func (LockKey) Verb() Verb { return VerbLock }

// Verb implements [KeyCommand].
func (UnlockKey) Verb() Verb { return VerbUnlock }

// Verb implements [KeyCommand].
func (DisableKey) Verb() Verb { return VerbDisable }

// Verb implements [KeyCommand].
func (EnableKey) Verb() Verb { return VerbEnable }

// Verb implements [KeyCommand].
func (DeleteKey) Verb() Verb { return VerbDelete }

// Verb implements [KeyCommand].
func (ObserveKey) Verb() Verb { return VerbObserve }

// Verb implements [KeyCommand].
func (AbandonKey) Verb() Verb { return VerbAbandon }

func (CreateKey) isKeyCommand()  {}
func (UpdateKey) isKeyCommand()  {}
func (LockKey) isKeyCommand()    {}
func (UnlockKey) isKeyCommand()  {}
func (DisableKey) isKeyCommand() {}
func (EnableKey) isKeyCommand()  {}
func (DeleteKey) isKeyCommand()  {}
func (ObserveKey) isKeyCommand() {}
func (AbandonKey) isKeyCommand() {}
