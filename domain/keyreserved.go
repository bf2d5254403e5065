package domain

import "time"

// Bounds of a value that a caller chooses for a key, in characters.
const (
	KeyValueCharsMin = 32
	KeyValueCharsMax = 512
)

// ReservedValue says which key a value belongs to that a caller chose: the fold of the
// stream that the value's fingerprint names. The zero ReservedValue is free.
type ReservedValue struct {
	key  KeyID
	last time.Time
}

// Evolve returns v after rec; events that are not about values change nothing.
func (v ReservedValue) Evolve(rec Recorded) ReservedValue {
	if rec.Meta.EffectiveAt.After(v.last) {
		v.last = rec.Meta.EffectiveAt
	}
	about, ok := rec.Event.(ReservationEvent)
	if !ok {
		return v
	}
	switch e := about.(type) {
	case KeyValueReserved:
		v.key = e.KeyID
	case KeyValueReleased:
		v.key = ""
	case KeySlotTaken, KeySlotFreed, KeySlotsAdopted, KeyLimitNeared, KeyLimitReached:
	}
	return v
}

// Key returns the key that the value belongs to, "" for none.
func (v ReservedValue) Key() KeyID { return v.key }

// NextEffective returns the effective time of a fact that is decided now.
func (v ReservedValue) NextEffective(now time.Time) time.Time { return NextEffective(now, v.last) }

// Reserve returns the facts that make the value that of a key of account. A value that was
// ever that of a made key stays so, deleted or not: a use is of one key for ever.
func (v ReservedValue) Reserve(account AccountID, id KeyID) ([]Event, error) {
	switch v.key {
	case id:
		return nil, nil
	case "":
		return []Event{KeyValueReserved{Account: account, KeyID: id}}, nil
	}
	return nil, Errorf(Conflict, "is the value of a key already").WithField("apikey").WithMessageCode("duplicate_value")
}

// Release returns the facts that free the value of a key that was never made.
func (v ReservedValue) Release(account AccountID, id KeyID) []Event {
	if v.key != id {
		return nil
	}
	return []Event{KeyValueReleased{Account: account, KeyID: id}}
}

// CheckChosenValue says why value cannot be that of a key, without a word of it. It needs
// a length that nobody guesses, and a look by which a header carries it and nobody takes it
// for a token or for a value that keytrail made.
func CheckChosenValue(value string) error {
	refuse := func(code, format string, args ...any) error {
		return Errorf(Invalid, format, args...).WithField("apikey").WithMessageCode(code)
	}
	if n := len(value); n < KeyValueCharsMin || n > KeyValueCharsMax {
		return refuse("invalid_apikey_length", "must have %d to %d characters", KeyValueCharsMin, KeyValueCharsMax)
	}
	for i := range len(value) {
		if value[i] < ' ' || value[i] > '~' {
			return refuse("invalid_apikey", "must be of printable ASCII characters")
		}
	}
	switch {
	case value[0] == ' ' || value[len(value)-1] == ' ':
		return refuse("invalid_apikey", "must not begin or end with a space")
	case LooksLikeKeyValue(value):
		return refuse("invalid_apikey", "must not look like a value that keytrail makes")
	case LooksLikeToken(value):
		return refuse("invalid_apikey", "must not look like a token")
	}
	return nil
}

// LooksLikeToken tells a token from a key's value: a JWT begins with '{"' in base64 and has
// three parts.
func LooksLikeToken(s string) bool {
	dots := 0
	for i := range len(s) {
		if s[i] == '.' {
			dots++
		}
	}
	return len(s) > 3 && s[:3] == "eyJ" && dots == 2
}
