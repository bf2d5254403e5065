package domain

import (
	"iter"
	"maps"
	"time"
)

// KeyLimitDefault is how many keys an identity may have where its account says nothing,
// KeyLimitMax the most that an account may allow.
const (
	KeyLimitDefault = 20
	KeyLimitMax     = 100_000
)

// ClassicKeysMax is how many classic keys a user has at a time.
const ClassicKeysMax = 1

// adoptMax bounds the keys of one [KeySlotsAdopted]: an append takes about 1 MiB.
const adoptMax = 5000

// nearOf returns from how many keys on limit is near: 90 % of it.
func nearOf(limit int) int { return (9*limit + 9) / 10 }

// KeySlot is the place of one key.
type KeySlot struct {
	KeyID   KeyID
	Kind    KeyKind // "" where the slot was adopted.
	Account AccountID
	IAMID   IAMID
	// Predecessor is set as long as the slot is outside the limit.
	Predecessor KeyID
	ValueHash   string
	At          time.Time // Since when it is taken.
}

// KeySlots are the keys that one identity has in one account, or is about to have: the
// fold of a stream of slots. It is a value; Evolve leaves the receiver as it was.
type KeySlots struct {
	exists, complete bool
	slots            slotTable
	outside          int // Slots outside the limit.
	near, reached    bool
	last             time.Time
}

// Evolve returns s after rec; events that are not about slots change nothing.
func (s KeySlots) Evolve(rec Recorded) KeySlots {
	if rec.Meta.EffectiveAt.After(s.last) {
		s.last = rec.Meta.EffectiveAt
	}
	about, ok := rec.Event.(ReservationEvent)
	if !ok {
		return s
	}
	s.exists = true
	switch e := about.(type) {
	case KeySlotTaken:
		s.complete = true
		s = s.with(KeySlot{
			KeyID: e.KeyID, Kind: e.Kind, Account: e.Account, IAMID: e.IAMID, Predecessor: e.Predecessor, ValueHash: e.ValueHash,
			At: rec.Meta.EffectiveAt,
		}).below(e.Limit)
	case KeySlotsAdopted:
		s.complete = e.Rest == 0
		for _, id := range e.KeyIDs {
			s = s.with(KeySlot{KeyID: id, Account: e.Account, IAMID: e.IAMID, At: rec.Meta.EffectiveAt})
		}
	case KeySlotFreed:
		s = s.without(e.KeyID).below(e.Limit)
	case KeyLimitNeared:
		s.near = true
	case KeyLimitReached:
		s.reached = true
	case KeyValueReserved, KeyValueReleased:
	}
	return s
}

func (s KeySlots) with(slot KeySlot) KeySlots {
	if slot.Predecessor != "" {
		s.outside++
	}
	s.slots = s.slots.set(slot.KeyID, &slot)
	return s
}

// without ends a slot; the one that was outside the limit for its sake comes into it.
func (s KeySlots) without(id KeyID) KeySlots {
	old, ok := s.slots.get(id)
	if !ok {
		return s
	}
	if old.Predecessor != "" {
		s.outside--
	}
	s.slots = s.slots.set(id, nil)
	if next, ok := s.successorOf(id); ok {
		next.Predecessor = ""
		s.outside--
		s.slots = s.slots.set(next.KeyID, &next)
	}
	return s
}

// below takes back what was said of the limit where it is true no more.
func (s KeySlots) below(limit int) KeySlots {
	s.near = s.near && s.Used() >= nearOf(limit)
	s.reached = s.reached && s.Used() >= limit
	return s
}

// successorOf returns the slot that is outside the limit because id has one.
func (s KeySlots) successorOf(id KeyID) (KeySlot, bool) {
	if s.outside == 0 {
		return KeySlot{}, false
	}
	for slot := range s.slots.all() {
		if slot.Predecessor == id {
			return slot, true
		}
	}
	return KeySlot{}, false
}

// Complete reports whether the keys from before there were slots are among these.
func (s KeySlots) Complete() bool { return s.complete }

// Used counts the slots within the limit.
func (s KeySlots) Used() int { return s.slots.count - s.outside }

// Slot returns the slot of a key.
func (s KeySlots) Slot(id KeyID) (KeySlot, bool) { return s.slots.get(id) }

// All returns the slots that are taken, in no order.
func (s KeySlots) All() iter.Seq[KeySlot] { return s.slots.all() }

// NextEffective returns the effective time of a fact that is decided now.
func (s KeySlots) NextEffective(now time.Time) time.Time { return NextEffective(now, s.last) }

// KeySlotCommand is an order about the slots of one identity. The set is closed.
//
//sumtype:decl
type KeySlotCommand interface {
	isKeySlotCommand()
}

// TakeKeySlot takes a place for a key that is about to be made.
type TakeKeySlot struct {
	Account     AccountID
	IAMID       IAMID
	KeyID       KeyID
	Kind        KeyKind
	Predecessor KeyID // Where it is a rotation's: the place is then outside the limit.
	ValueHash   string
	Limit       int
	// Existing are the living keys of the identity. They are needed only while the slots
	// are not [KeySlots.Complete].
	Existing []KeyID
}

// FreeKeySlot gives the place of a key back that is deleted or was never made.
type FreeKeySlot struct {
	Account  AccountID
	IAMID    IAMID
	KeyID    KeyID
	Limit    int
	Existing []KeyID // As of [TakeKeySlot]; without KeyID.
}

func (TakeKeySlot) isKeySlotCommand() {}
func (FreeKeySlot) isKeySlotCommand() {}

// MessageCodeKeyLimit marks a refusal because an identity has all the keys that it may have.
const MessageCodeKeyLimit = "key_limit_reached"

// Decide returns the facts that cmd adds. No facts and a nil error mean that it is so
// already. As long as the slots are not [KeySlots.Complete] after them, cmd is to be given
// again: a stream that is new takes in the keys from before it in pieces.
func (s KeySlots) Decide(cmd KeySlotCommand) ([]Event, error) {
	switch c := cmd.(type) {
	case TakeKeySlot:
		return s.take(c)
	case FreeKeySlot:
		return s.free(c)
	default:
		return nil, Errorf(Internal, "unexpected command %T", cmd)
	}
}

func (s KeySlots) take(c TakeKeySlot) ([]Event, error) {
	s, events := s.adopt(c.Account, c.IAMID, c.Existing)
	if len(events) > 0 && !s.complete {
		return events, nil
	}
	if _, ok := s.slots.get(c.KeyID); ok {
		return events, nil
	}
	if err := s.mayTake(c); err != nil {
		return nil, err
	}
	taken := KeySlotTaken{
		Account: c.Account, IAMID: c.IAMID, KeyID: c.KeyID, Kind: c.Kind, Predecessor: c.Predecessor, ValueHash: c.ValueHash,
		Used: s.Used(), Limit: c.Limit,
	}
	if c.Predecessor != "" {
		return append(events, taken), nil
	}
	taken.Used++
	events = append(events, taken)
	if c.Kind == KindClassic {
		return events, nil // One of one is no warning.
	}
	s = s.below(c.Limit)
	if !s.near && taken.Used >= nearOf(c.Limit) {
		events = append(events, KeyLimitNeared{Account: c.Account, IAMID: c.IAMID, Used: taken.Used, Limit: c.Limit})
	}
	if !s.reached && taken.Used >= c.Limit {
		events = append(events, KeyLimitReached{Account: c.Account, IAMID: c.IAMID, Used: taken.Used, Limit: c.Limit})
	}
	return events, nil
}

func (s KeySlots) mayTake(c TakeKeySlot) error {
	if c.Predecessor != "" {
		return s.mayFollow(c.Predecessor)
	}
	switch {
	case s.Used() < c.Limit:
		return nil
	case c.Kind == KindClassic:
		return Errorf(Conflict, "a user has one classic key at a time: delete it first").WithMessageCode("classic_key_exists")
	}
	return Errorf(Conflict, "the identity has %d API keys, and may have %d", s.Used(), c.Limit).WithMessageCode(MessageCodeKeyLimit)
}

// mayFollow says whether a key can have a successor now: it has one at most, and none as
// long as it is one itself.
func (s KeySlots) mayFollow(id KeyID) error {
	slot, ok := s.slots.get(id)
	switch {
	case !ok:
		return errNoKey()
	case slot.Predecessor != "":
		return Errorf(Conflict, "key %s has not yet taken the place of %s; rotate it when that one has ended", id, slot.Predecessor).
			WithMessageCode("rotation_under_way")
	}
	if next, ok := s.successorOf(id); ok {
		return Errorf(Conflict, "key %s has a successor already: %s", id, next.KeyID).WithMessageCode("already_rotated")
	}
	return nil
}

func (s KeySlots) free(c FreeKeySlot) ([]Event, error) {
	s, events := s.adopt(c.Account, c.IAMID, c.Existing)
	if _, ok := s.slots.get(c.KeyID); !ok {
		return events, nil
	}
	return append(events, KeySlotFreed{
		Account: c.Account, IAMID: c.IAMID, KeyID: c.KeyID, Used: s.without(c.KeyID).Used(), Limit: c.Limit,
	}), nil
}

// adopt gives places to keys from before there were slots: it is the first thing that any
// command does on a stream, so that of two that do it at once one writes.
func (s KeySlots) adopt(account AccountID, iam IAMID, existing []KeyID) (KeySlots, []Event) {
	if s.complete {
		return s, nil
	}
	e := KeySlotsAdopted{Account: account, IAMID: iam}
	for _, id := range existing {
		if _, ok := s.slots.get(id); ok {
			continue
		}
		if len(e.KeyIDs) == adoptMax {
			e.Rest++
			continue
		}
		e.KeyIDs = append(e.KeyIDs, id)
	}
	if len(e.KeyIDs) == 0 && !s.exists {
		return s, nil
	}
	e.Used = s.Used() + len(e.KeyIDs)
	return s.Evolve(Recorded{Event: e}), []Event{e}
}

// slotTable is a table of slots that costs little to change and shares what it can with
// the ones before: a map that is never changed, and the newest changes to it.
type slotTable struct {
	base    map[KeyID]KeySlot
	changes *slotChange // Newest first.
	depth   int         // Of changes.
	count   int
}

type slotChange struct {
	id   KeyID
	slot *KeySlot // nil: freed.
	next *slotChange
}

// slotChangesMax bounds the changes that are looked through before the map.
const slotChangesMax = 64

func (t slotTable) get(id KeyID) (KeySlot, bool) {
	for c := t.changes; c != nil; c = c.next {
		if c.id == id {
			if c.slot == nil {
				return KeySlot{}, false
			}
			return *c.slot, true
		}
	}
	slot, ok := t.base[id]
	return slot, ok
}

// set returns the table with slot under id, or without one for nil.
func (t slotTable) set(id KeyID, slot *KeySlot) slotTable {
	if _, ok := t.get(id); ok {
		t.count--
	}
	if slot != nil {
		t.count++
	}
	t.changes, t.depth = &slotChange{id: id, slot: slot, next: t.changes}, t.depth+1
	if t.depth > slotChangesMax {
		t.base, t.changes, t.depth = t.whole(), nil, 0
	}
	return t
}

func (t slotTable) whole() map[KeyID]KeySlot {
	out := maps.Clone(t.base)
	if out == nil {
		out = make(map[KeyID]KeySlot, t.count)
	}
	seen := make(map[KeyID]bool, t.depth)
	for c := t.changes; c != nil; c = c.next {
		switch {
		case seen[c.id]:
			continue
		case c.slot == nil:
			delete(out, c.id)
		default:
			out[c.id] = *c.slot
		}
		seen[c.id] = true
	}
	return out
}

func (t slotTable) all() iter.Seq[KeySlot] {
	return func(yield func(KeySlot) bool) {
		for _, slot := range t.whole() {
			if !yield(slot) {
				return
			}
		}
	}
}
