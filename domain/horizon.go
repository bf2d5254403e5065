package domain

import (
	"encoding/binary"
	"fmt"
	"maps"
	"strings"
	"time"
)

// Bounds of a segment. They are part of what makes two sealers find the same segments:
// changing one changes the bounds of segments that are not sealed yet.
const (
	SegmentEventsMax   = 4096
	SegmentBytesMax    = 32 << 20 // Of the events' data.
	SegmentAccountsMax = 2048
)

// UsageClassOf returns the class of a usage stream, and whether stream is one.
func UsageClassOf(stream string) (string, bool) {
	rest, ok := strings.CutPrefix(stream, UsageStreams)
	class, of, cut := strings.Cut(rest, "-")
	return class, ok && cut && class != "" && of != ""
}

// Place says where an event stands and how many records it holds.
type Place struct{ Position, Records uint64 }

// PackPlaces encodes the places of a segment's events, whose positions must increase:
// for each the distance from the position before (from 0) and its records, as uvarints.
func PackPlaces(places []Place) []byte {
	var out []byte
	last := uint64(0)
	for _, p := range places {
		out = binary.AppendUvarint(out, p.Position-last)
		out = binary.AppendUvarint(out, p.Records)
		last = p.Position
	}
	return out
}

// UnpackPlaces reads what [PackPlaces] wrote, and refuses what it cannot have written.
func UnpackPlaces(b []byte) ([]Place, error) {
	var out []Place
	last := uint64(0)
	for len(b) > 0 {
		delta, n := binary.Uvarint(b)
		if n <= 0 || delta == 0 || last+delta < last {
			return nil, fmt.Errorf("places: bad position after %d", last)
		}
		records, m := binary.Uvarint(b[n:])
		if m <= 0 {
			return nil, fmt.Errorf("places: bad count after %d", last)
		}
		last += delta
		out = append(out, Place{Position: last, Records: records})
		b = b[n+m:]
	}
	return out, nil
}

// Follows reports how e is not the segment after previous, nil if it is. previous is nil
// for the first segment of a stream.
func (e UsageSegmentSealed) Follows(previous *UsageSegmentSealed) error {
	var before UsageSegmentSealed
	first := uint64(0)
	if previous != nil {
		before, first = *previous, previous.LastRevision+1
	}
	switch {
	case e.Segment != before.Segment+1:
		return fmt.Errorf("segment %d of %s follows segment %d", e.Segment, e.Stream, before.Segment)
	case e.FirstRevision != first:
		return fmt.Errorf("segment %d of %s begins at revision %d, want %d", e.Segment, e.Stream, e.FirstRevision, first)
	case e.Previous != before.SHA256:
		return fmt.Errorf("segment %d of %s does not name the hash of the segment before", e.Segment, e.Stream)
	case e.LastRevision < e.FirstRevision || e.Events != e.LastRevision-e.FirstRevision+1:
		return fmt.Errorf("segment %d of %s has %d events from revision %d to %d", e.Segment, e.Stream, e.Events, e.FirstRevision, e.LastRevision)
	}
	return nil
}

// LegalHold is a hold that is in force.
type LegalHold struct {
	ID string `json:"id"`
	// Account is empty for a hold on everything.
	Account AccountID `json:"account_id,omitempty"`
	Reason  string    `json:"reason"`
	By      IAMID     `json:"by"`
	Since   time.Time `json:"since"`
}

// covers reports whether the hold forbids to cut a segment.
func (h LegalHold) covers(e UsageSegmentSealed) bool {
	if h.Account == "" || e.AccountsOmitted > 0 {
		return true
	}
	for _, a := range e.Accounts {
		if a.Account == h.Account {
			return true
		}
	}
	return false
}

// LegalHolds is the fold of [LegalHoldStream]: the holds in force and the cuts. The
// zero value has no history.
type LegalHolds struct {
	set  map[string]LegalHold
	past map[string]struct{} // Ids that were released.
	cuts map[string]UsageRangeCut
	last time.Time
}

// FoldLegalHolds returns the holds whose whole stream is history, in log order.
func FoldLegalHolds(history []Recorded) LegalHolds {
	var h LegalHolds
	for _, rec := range history {
		h.apply(rec)
	}
	return h
}

// Evolve returns h after rec; events that are no holds and no cuts change nothing.
func (h LegalHolds) Evolve(rec Recorded) LegalHolds {
	h.set, h.past, h.cuts = maps.Clone(h.set), maps.Clone(h.past), maps.Clone(h.cuts)
	h.apply(rec)
	return h
}

func (h *LegalHolds) apply(rec Recorded) {
	if h.set == nil {
		h.set, h.past, h.cuts = map[string]LegalHold{}, map[string]struct{}{}, map[string]UsageRangeCut{}
	}
	if rec.Meta.EffectiveAt.After(h.last) {
		h.last = rec.Meta.EffectiveAt
	}
	about, ok := rec.Event.(HorizonEvent)
	if !ok {
		return
	}
	switch e := about.(type) {
	case LegalHoldSet:
		h.set[e.Hold] = LegalHold{ID: e.Hold, Account: e.Account, Reason: e.Reason, By: rec.Meta.Initiator.IAMID, Since: rec.Meta.EffectiveAt}
	case LegalHoldReleased:
		delete(h.set, e.Hold)
		h.past[e.Hold] = struct{}{}
	case UsageRangeCut:
		if e.Before > h.cuts[e.Stream].Before {
			h.cuts[e.Stream] = e
		}
	case UsageSegmentSealed:
	}
}

// NextEffective returns the time from which a new fact is true.
func (h LegalHolds) NextEffective(now time.Time) time.Time { return NextEffective(now, h.last) }

// InForce returns the holds in force, the oldest first.
func (h LegalHolds) InForce() []LegalHold {
	out := make([]LegalHold, 0, len(h.set))
	for _, hold := range h.set {
		out = append(out, hold)
	}
	sortHolds(out)
	return out
}

// Cut returns the newest cut of stream; its Before is 0 where there is none.
func (h LegalHolds) Cut(stream string) UsageRangeCut { return h.cuts[stream] }

// Holding returns a hold that forbids to cut e, and whether there is one.
func (h LegalHolds) Holding(e UsageSegmentSealed) (LegalHold, bool) {
	for _, hold := range h.InForce() {
		if hold.covers(e) {
			return hold, true
		}
	}
	return LegalHold{}, false
}
