package domain

import (
	"fmt"
	"time"
)

// observe records a fact of another system. The same source record is recorded once.
// A mere use is a fact about the key only where it is the earliest thing known.
func (k Key) observe(c ObserveKey) ([]Event, error) {
	if k.tip {
		return nil, fmt.Errorf("domain: observe %s: the key's history is not at hand", c.ID)
	}
	for _, rec := range k.history {
		e, ok := rec.Event.(KeyObserved)
		if ok && e.SourceEvent == c.SourceEvent && e.Fact == c.Fact {
			return nil, nil
		}
		if c.Fact == ObservedUse && !rec.Meta.EffectiveAt.After(c.At) {
			return nil, nil
		}
	}
	return []Event{KeyObserved{Fact: c.Fact, SourceEvent: c.SourceEvent, After: k.observed(c)}}, nil
}

// observed returns the state that c alone implies, with the name, owner and origin
// that earlier or later facts told. A key that was first seen in use counts as
// created when it was first seen.
func (k Key) observed(c ObserveKey) KeyState {
	at := c.At.UTC().Truncate(time.Millisecond)
	known, before := StateAt(k.history, at)
	if !before {
		known = k.state
		known.CreatedAt = at
	}
	s := KeyState{
		ID: c.ID, Account: c.Account, Kind: KindExternal,
		IAMID:   IAMID(firstOf(string(c.IAMID), string(known.IAMID))),
		Name:    firstOf(c.Name, known.Name),
		Source:  firstOf(c.Source, known.Source),
		Parent:  firstOf(c.Parent, known.Parent),
		Version: k.state.Version + 1, CreatedAt: known.CreatedAt, ModifiedAt: at,
		ExpiresAt: known.ExpiresAt, Description: known.Description,
	}
	if c.ExpiresAt != nil {
		t := c.ExpiresAt.UTC().Truncate(time.Second)
		s.ExpiresAt = &t
	}
	switch c.Fact {
	case ObservedCreated, ObservedIssued:
		s.CreatedAt = at
	case ObservedDisabled:
		s.Disabled = true
	case ObservedDeleted:
		s.Deleted = true
	case ObservedUse, ObservedEnabled:
	}
	return s
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
