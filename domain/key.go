package domain

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Bounds of the text fields of a key, in bytes. IBM states none; these keep every
// event far below what the log takes in one append.
const (
	KeyNameBytesMax        = 1024
	KeyDescriptionBytesMax = 4096
)

// Key is one API key: the fold of its stream. The zero Key has no history. A Key is a
// value; Evolve returns another and leaves the receiver as it was.
type Key struct {
	history []Recorded // Log order; empty in a tip.
	events  int
	tip     bool
	// newestAt and newestID are those of the fact that is last by effective time and id;
	// state is the one after it.
	newestAt time.Time
	newestID EventID
	state    KeyState
}

// FoldKey returns the key whose whole stream is history, in log order.
func FoldKey(history []Recorded) Key {
	var k Key
	for _, rec := range history {
		k = k.evolve(rec)
	}
	return k
}

// Evolve returns k after rec. It holds no rules and cannot fail: what is in the log
// happened, whatever today's rules say about it. Events that are not about a key
// change nothing.
func (k Key) Evolve(rec Recorded) Key {
	k.history = slices.Clip(k.history) // The receiver's array must not be shared.
	return k.evolve(rec)
}

func (k Key) evolve(rec Recorded) Key {
	e, ok := rec.Event.(KeyEvent)
	if !ok {
		return k
	}
	if k.events == 0 || effectiveOrder(rec.Meta.EffectiveAt, rec.ID, k.newestAt, k.newestID) > 0 {
		k.newestAt, k.newestID, k.state = rec.Meta.EffectiveAt, rec.ID, e.State()
	}
	k.events++
	if !k.tip {
		k.history = append(k.history, rec)
	}
	return k
}

// Tip returns k without its history. It evolves and decides as k does, however long the
// history, but for observed facts, which need the whole of it: they are an error.
func (k Key) Tip() Key {
	k.history, k.tip = nil, true
	return k
}

// Exists reports whether anything was ever recorded about the key.
func (k Key) Exists() bool { return k.events > 0 }

// State returns what is known now, deleted or not.
func (k Key) State() KeyState { return k.state }

// History returns the key's events in log order, none of a tip. The caller must not
// change it.
func (k Key) History() []Recorded { return k.history }

// NextEffective returns the effective time of a fact that is decided now.
func (k Key) NextEffective(now time.Time) time.Time {
	return NextEffective(now, k.newestAt)
}

// StateAt returns the state that was in force at t: that of the fact which is last by
// effective time, then event id, among those not after t. The order of history does
// not matter. It is false where nothing was true yet.
func StateAt(history []Recorded, t time.Time) (KeyState, bool) {
	var best *Recorded
	for i := range history {
		rec := &history[i]
		if _, ok := rec.Event.(KeyEvent); !ok || rec.Meta.EffectiveAt.After(t) {
			continue
		}
		if best == nil || effectiveOrder(rec.Meta.EffectiveAt, rec.ID, best.Meta.EffectiveAt, best.ID) > 0 {
			best = rec
		}
	}
	if best == nil {
		return KeyState{}, false
	}
	e, ok := best.Event.(KeyEvent)
	if !ok {
		return KeyState{}, false
	}
	return e.State(), true
}

// effectiveOrder compares two facts by effective time, then event id.
func effectiveOrder(a time.Time, aID EventID, b time.Time, bID EventID) int {
	if c := a.Compare(b); c != 0 {
		return c
	}
	return bytes.Compare(aID[:], bID[:])
}

// EntityTag returns the tag of this version of the key, for If-Match.
func (s KeyState) EntityTag() string {
	version := strconv.FormatUint(s.Version, 10)
	sum := sha256.Sum256([]byte(string(s.ID) + "\x00" + version))
	return version + "-" + hex.EncodeToString(sum[:8])
}

// Decide returns the facts that cmd adds to the history of k. It is pure: the time
// and every id arrive in cmd; facts take effect at k.NextEffective(cmd.At), observed
// ones at cmd.At. No facts and a nil error mean that cmd repeats what is already so.
func (k Key) Decide(cmd KeyCommand) ([]Event, error) {
	switch c := cmd.(type) {
	case CreateKey:
		return k.create(c)
	case UpdateKey:
		return k.update(c)
	case LockKey:
		return k.flag(c.Verb(), c.At, func(s KeyState) bool { return s.Locked }, func(s KeyState) Event {
			s.Locked = true
			return KeyLocked{After: s}
		})
	case UnlockKey:
		return k.flag(c.Verb(), c.At, func(s KeyState) bool { return !s.Locked }, func(s KeyState) Event {
			s.Locked = false
			return KeyUnlocked{After: s}
		})
	case DisableKey:
		return k.flag(c.Verb(), c.At, func(s KeyState) bool { return s.Disabled }, func(s KeyState) Event {
			s.Disabled = true
			return KeyDisabled{After: s}
		})
	case EnableKey:
		return k.flag(c.Verb(), c.At, func(s KeyState) bool { return !s.Disabled }, func(s KeyState) Event {
			s.Disabled = false
			return KeyEnabled{After: s}
		})
	case DeleteKey:
		return k.delete(c)
	case ObserveKey:
		return k.observe(c)
	case RotateKey:
		return k.rotate(c)
	case AbandonRotation:
		return k.abandonRotation(c), nil
	case RevealKey:
		return k.reveal()
	case AbandonKey:
		return k.abandon(c), nil
	default:
		return nil, fmt.Errorf("domain: decide: unexpected command %T", cmd)
	}
}

func (k Key) create(c CreateKey) ([]Event, error) {
	at := k.NextEffective(c.At)
	if err := checkName(c.Name); err != nil {
		return nil, err
	}
	if err := checkDescription(c.Description); err != nil {
		return nil, err
	}
	expires, err := futureExpiry(c.ExpiresAt, at)
	if err != nil {
		return nil, err
	}
	if c.ActionOnLeak == "" {
		c.ActionOnLeak = LeakDisable
	}
	if err := checkLeakAction(c.ActionOnLeak); err != nil {
		return nil, err
	}
	if c.SupportSessions && c.Kind != KindUser {
		return nil, errSessions()
	}
	if c.StoreValue && !c.Kind.OfService() {
		return nil, Errorf(Invalid, "the values of users' keys are not kept; they are shown at creation only").
			WithField("store_value").WithMessageCode("store_value_not_taken")
	}
	if k.Exists() {
		return nil, Errorf(Conflict, "key %s already exists", c.ID).WithMessageCode("key_exists")
	}
	return []Event{KeyCreated{After: KeyState{
		ID: c.ID, Account: c.Account, IAMID: c.IAMID, Kind: c.Kind,
		Name: c.Name, Description: c.Description, Version: 1,
		Locked: c.Locked, Disabled: c.Disabled, ExpiresAt: expires,
		CreatedAt: at, CreatedBy: c.By.IAMID, ModifiedAt: at,
		ActionOnLeak: c.ActionOnLeak, SupportSessions: c.SupportSessions, SecretHash: c.SecretHash,
		ValueStored: c.StoreValue || c.Kind == KindClassic, Predecessor: c.Predecessor,
	}}}, nil
}

// update checks the input first (400), then the state: a locked key is refused
// before the tag is looked at, since no tag would help.
func (k Key) update(c UpdateKey) ([]Event, error) {
	at := k.NextEffective(c.At)
	after, err := c.apply(k.state, at)
	if err != nil {
		return nil, err
	}
	if c.IfMatch == "" {
		return nil, errNoTag()
	}
	switch {
	case !k.Exists() || k.state.Deleted:
		return nil, errNoKey()
	case k.state.Kind == KindExternal:
		return nil, errExternal(k.state, VerbUpdate)
	case k.state.Locked && !c.By.IsSystem():
		return nil, errLocked(k.state)
	case !matchesTag(c.IfMatch, k.state.EntityTag()):
		return nil, errStaleTag("key")
	}
	if err := checkEnd(k.state, after.ExpiresAt); err != nil {
		return nil, err
	}
	changes := changesOf(k.state, after)
	if len(changes) == 0 {
		return nil, nil
	}
	return []Event{KeyUpdated{Changes: changes, After: k.changed(after, at)}}, nil
}

// apply returns s with the fields of c, or why they are not well formed.
func (c UpdateKey) apply(s KeyState, at time.Time) (KeyState, error) {
	if c.Name != nil {
		if err := checkName(*c.Name); err != nil {
			return s, err
		}
		s.Name = *c.Name
	}
	if c.Description != nil {
		if err := checkDescription(*c.Description); err != nil {
			return s, err
		}
		s.Description = *c.Description
	}
	if c.ExpiresAt != nil && *c.ExpiresAt != FormatExpiry(s.ExpiresAt) {
		expires, err := futureExpiry(*c.ExpiresAt, at)
		if err != nil {
			return s, err
		}
		s.ExpiresAt = expires
	}
	if c.ActionOnLeak != nil {
		if err := checkLeakAction(*c.ActionOnLeak); err != nil {
			return s, err
		}
		s.ActionOnLeak = *c.ActionOnLeak
	}
	if c.SupportSessions != nil {
		if *c.SupportSessions && s.Kind != KindUser && s.Kind != "" {
			return s, errSessions()
		}
		s.SupportSessions = *c.SupportSessions
	}
	return s, nil
}

// flag sets one switch of a living key of ours; so says whether it is set already.
func (k Key) flag(v Verb, now time.Time, so func(KeyState) bool, fact func(KeyState) Event) ([]Event, error) {
	switch {
	case !k.Exists() || k.state.Deleted:
		return nil, errNoKey()
	case k.state.Kind == KindExternal:
		return nil, errExternal(k.state, v)
	case so(k.state):
		return nil, nil
	}
	return []Event{fact(k.changed(k.state, k.NextEffective(now)))}, nil
}

// delete refuses a locked key, except to the system: a leak or a purge must not wait
// for somebody to unlock.
func (k Key) delete(c DeleteKey) ([]Event, error) {
	switch {
	case !k.Exists():
		return nil, errNoKey()
	case k.state.Kind == KindExternal:
		return nil, errExternal(k.state, VerbDelete)
	case k.state.Deleted:
		return nil, nil
	case k.state.Locked && !c.By.IsSystem():
		return nil, errLocked(k.state)
	}
	after := k.changed(k.state, k.NextEffective(c.At))
	after.Deleted = true
	return []Event{KeyDeleted{After: after}}, nil
}

// abandon closes the history of a key that was never made.
func (k Key) abandon(c AbandonKey) []Event {
	if k.Exists() {
		return nil
	}
	at := k.NextEffective(c.At)
	return []Event{KeyCreationAbandoned{After: KeyState{
		ID: c.ID, Account: c.Account, IAMID: c.IAMID, Kind: c.Kind, Version: 1, Deleted: true,
		CreatedAt: at, CreatedBy: SystemIAMID, ModifiedAt: at,
	}}}
}

// changed returns s as the next version, modified at at.
func (k Key) changed(s KeyState, at time.Time) KeyState {
	s.Version = k.state.Version + 1
	s.ModifiedAt = at
	return s
}

func changesOf(old, now KeyState) []Change {
	var out []Change
	for _, f := range []struct{ name, old, now string }{
		{"name", old.Name, now.Name},
		{"description", old.Description, now.Description},
		{"expires_at", FormatExpiry(old.ExpiresAt), FormatExpiry(now.ExpiresAt)},
		{"action_when_leaked", string(old.ActionOnLeak), string(now.ActionOnLeak)},
		{"support_sessions", strconv.FormatBool(old.SupportSessions), strconv.FormatBool(now.SupportSessions)},
	} {
		if f.old != f.now {
			out = append(out, Change{Field: f.name, Old: f.old, New: f.now})
		}
	}
	return out
}
