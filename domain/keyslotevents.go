package domain

// KeySlotTaken records that a key has its place among those that its identity may have. It
// stands before the key: the key is created only when this is in the log.
type KeySlotTaken struct {
	Account AccountID `json:"account_id"`
	IAMID   IAMID     `json:"iam_id"`
	KeyID   KeyID     `json:"key_id"`
	Kind    KeyKind   `json:"kind"`
	// Predecessor is the key that this one follows in a rotation. As long as that one has a
	// slot, this one is outside the limit.
	Predecessor KeyID `json:"predecessor,omitempty"`
	// ValueHash is the fingerprint of a value that the caller chose; see [KeyValueReserved].
	ValueHash string `json:"value_hash,omitempty"`
	// Used counts the slots within the limit, this one included; Limit is what it was.
	Used  int `json:"used"`
	Limit int `json:"limit"`
}

// KeySlotFreed records that a key has its place no more: it is deleted, or was never made.
type KeySlotFreed struct {
	Account AccountID `json:"account_id"`
	IAMID   IAMID     `json:"iam_id"`
	KeyID   KeyID     `json:"key_id"`
	Used    int       `json:"used"`
	Limit   int       `json:"limit"`
}

// KeySlotsAdopted records the places of keys that were made before there were slots.
type KeySlotsAdopted struct {
	Account AccountID `json:"account_id"`
	IAMID   IAMID     `json:"iam_id"`
	KeyIDs  []KeyID   `json:"key_ids"`
	// Rest counts the keys that are still to be adopted: no slot is taken before.
	Rest int `json:"rest,omitempty"`
	Used int `json:"used"`
}

// KeyLimitNeared records that an identity has come to 90 % of the keys that it may have.
type KeyLimitNeared struct {
	Account AccountID `json:"account_id"`
	IAMID   IAMID     `json:"iam_id"`
	Used    int       `json:"used"`
	Limit   int       `json:"limit"`
}

// KeyLimitReached records that an identity has all the keys that it may have.
type KeyLimitReached struct {
	Account AccountID `json:"account_id"`
	IAMID   IAMID     `json:"iam_id"`
	Used    int       `json:"used"`
	Limit   int       `json:"limit"`
}

// KeyValueReserved records that a value that a caller chose belongs to one key, for ever
// once the key is made. The stream's name is the value's fingerprint.
type KeyValueReserved struct {
	Account AccountID `json:"account_id"`
	KeyID   KeyID     `json:"key_id"`
}

// KeyValueReleased records that the key for which a value was reserved was never made.
type KeyValueReleased struct {
	Account AccountID `json:"account_id"`
	KeyID   KeyID     `json:"key_id"`
}

// Stored names of the events that keep limits and values exact.
const (
	TypeKeySlotTaken     = "keyslot.taken.v1"
	TypeKeySlotFreed     = "keyslot.freed.v1"
	TypeKeySlotsAdopted  = "keyslot.adopted.v1"
	TypeKeyLimitNeared   = "keyslot.limit-neared.v1"
	TypeKeyLimitReached  = "keyslot.limit-reached.v1"
	TypeKeyValueReserved = "keyvalue.reserved.v1"
	TypeKeyValueReleased = "keyvalue.released.v1"
)

// Type implements [Event].
func (KeySlotTaken) Type() string { return TypeKeySlotTaken }

// Type implements [Event].
func (KeySlotFreed) Type() string { return TypeKeySlotFreed }

// Type implements [Event].
func (KeySlotsAdopted) Type() string { return TypeKeySlotsAdopted }

// Type implements [Event].
func (KeyLimitNeared) Type() string { return TypeKeyLimitNeared }

// Type implements [Event].
func (KeyLimitReached) Type() string { return TypeKeyLimitReached }

// Type implements [Event].
func (KeyValueReserved) Type() string { return TypeKeyValueReserved }

// Type implements [Event].
func (KeyValueReleased) Type() string { return TypeKeyValueReleased }

func (KeySlotTaken) isEvent()     {}
func (KeySlotFreed) isEvent()     {}
func (KeySlotsAdopted) isEvent()  {}
func (KeyLimitNeared) isEvent()   {}
func (KeyLimitReached) isEvent()  {}
func (KeyValueReserved) isEvent() {}
func (KeyValueReleased) isEvent() {}

func (KeySlotTaken) isReservationEvent()     {}
func (KeySlotFreed) isReservationEvent()     {}
func (KeySlotsAdopted) isReservationEvent()  {}
func (KeyLimitNeared) isReservationEvent()   {}
func (KeyLimitReached) isReservationEvent()  {}
func (KeyValueReserved) isReservationEvent() {}
func (KeyValueReleased) isReservationEvent() {}
