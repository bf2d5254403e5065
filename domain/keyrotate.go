package domain

import "time"

// RotationOverlapDefault is how long a rotated key goes on beside its successor where
// nobody says, RotationOverlapMax the longest that may be asked for.
const (
	RotationOverlapDefault = 24 * time.Hour
	RotationOverlapMax     = 90 * 24 * time.Hour
)

// RotateKey ends a key at Until, or when it expires if that is earlier, in favour of a
// successor that exists already.
type RotateKey struct {
	Successor KeyID
	Until     time.Time
	// Abandoned is what [KeyState.AbandonedRotations] was before anything was done for the
	// rotation.
	Abandoned uint64
	By        Initiator
	At        time.Time
}

// AbandonRotation says that a rotation which did not come to its end never will: Successor
// is about to be deleted. Where it came to its end after all, it changes nothing. Only the
// system gives it.
type AbandonRotation struct {
	Successor KeyID
	At        time.Time
}

// RevealKey asks for the value of a key that is kept to be read again. It is a fact each
// time.
type RevealKey struct {
	By Initiator
	At time.Time
}

// Verb implements [KeyCommand].
func (RotateKey) Verb() Verb { return VerbRotate }

// Verb implements [KeyCommand].
func (RevealKey) Verb() Verb { return VerbReveal }

// Verb implements [KeyCommand].
func (AbandonRotation) Verb() Verb { return VerbAbandon }

func (RotateKey) isKeyCommand()       {}
func (AbandonRotation) isKeyCommand() {}
func (RevealKey) isKeyCommand()       {}

// KeyRotated records that a key has a successor, and when the key ends. After has both.
type KeyRotated struct {
	After KeyState `json:"after"`
}

// KeyRotationAbandoned records that a rotation did not come to its end: the key goes on, and
// the successor that After names as abandoned ends.
type KeyRotationAbandoned struct {
	After KeyState `json:"after"`
}

// KeyValueRead records that the value of a key was handed out again.
type KeyValueRead struct {
	After KeyState `json:"after"`
}

// Stored names of these events.
const (
	TypeKeyRotated           = "apikey.rotated.v1"
	TypeKeyRotationAbandoned = "apikey.rotation-abandoned.v1"
	TypeKeyValueRead         = "apikey.value-read.v1"
)

// Type implements [Event].
func (KeyRotated) Type() string { return TypeKeyRotated }

// Type implements [Event].
func (KeyRotationAbandoned) Type() string { return TypeKeyRotationAbandoned }

// Type implements [Event].
func (KeyValueRead) Type() string { return TypeKeyValueRead }

// State implements [KeyEvent].
func (e KeyRotated) State() KeyState { return e.After }

// State implements [KeyEvent].
func (e KeyRotationAbandoned) State() KeyState { return e.After }

// State implements [KeyEvent].
func (e KeyValueRead) State() KeyState { return e.After }

func (KeyRotated) isEvent()           {}
func (KeyRotationAbandoned) isEvent() {}
func (KeyValueRead) isEvent()         {}

func (KeyRotated) isKeyEvent()           {}
func (KeyRotationAbandoned) isKeyEvent() {}
func (KeyValueRead) isKeyEvent()         {}

// MayRotate says whether the key can have a successor now, whoever asks.
func (k Key) MayRotate(by Initiator) error {
	switch {
	case !k.Exists() || k.state.Deleted:
		return errNoKey()
	case k.state.Kind == KindExternal:
		return errExternal(k.state, VerbRotate)
	case k.state.Kind == KindClassic:
		return Errorf(Conflict, "a user has one classic key at a time: delete it, and create another").WithMessageCode("classic_key_exists")
	case k.state.Locked && !by.IsSystem():
		return errLocked(k.state)
	}
	return nil
}

// rotate ends the key in favour of c.Successor. One that has a successor takes another only
// where the slots say that the first is gone.
func (k Key) rotate(c RotateKey) ([]Event, error) {
	if err := k.MayRotate(c.By); err != nil {
		return nil, err
	}
	switch {
	case c.Successor == k.state.Successor:
		return nil, nil
	case c.Abandoned != k.state.AbandonedRotations:
		return nil, Errorf(Conflict, "the rotation took too long; try again").WithMessageCode("rotation_abandoned")
	}
	at := k.NextEffective(c.At)
	after := k.changed(k.state, at)
	ends := c.Until.UTC().Truncate(time.Second)
	if after.ExpiresAt != nil && after.ExpiresAt.Before(ends) {
		ends = *after.ExpiresAt
	}
	after.Successor, after.EndsAt, after.ExpiresAt = c.Successor, &ends, &ends
	return []Event{KeyRotated{After: after}}, nil
}

// abandonRotation makes sure that c.Successor never follows the key.
func (k Key) abandonRotation(c AbandonRotation) []Event {
	if !k.Exists() || k.state.Deleted || k.state.Successor == c.Successor || k.state.AbandonedSuccessor == c.Successor {
		return nil
	}
	after := k.changed(k.state, k.NextEffective(c.At))
	after.AbandonedSuccessor = c.Successor
	after.AbandonedRotations++
	return []Event{KeyRotationAbandoned{After: after}}
}

func (k Key) reveal() ([]Event, error) {
	if !k.Exists() || k.state.Deleted || !k.state.ValueStored {
		return nil, errNoKey()
	}
	return []Event{KeyValueRead{After: k.state}}, nil
}

// checkEnd keeps a rotated key from living longer than its rotation says.
func checkEnd(s KeyState, expires *time.Time) error {
	if s.EndsAt == nil || expires != nil && !expires.After(*s.EndsAt) {
		return nil
	}
	return Errorf(Conflict, "the key was rotated and ends at %s", FormatExpiry(s.EndsAt)).WithField("expires_at").WithMessageCode("key_rotated")
}
