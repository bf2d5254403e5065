package ingest

import (
	"fmt"
	"strconv"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

// findingBook is what a detector remembers of the findings in the log: enough to see
// whether a candidate is one of them and says anything new, without their evidence.
type findingBook struct {
	byID   map[domain.EventID]*knownFinding
	byCase map[findingCase][]*knownFinding
	// position is the newest that the book has taken in.
	position uint64
}

// findingCase is what findings of the same thing share.
type findingCase struct {
	rule      string
	version   int
	dedupeKey string
}

type knownFinding struct {
	// state is the finding without its evidence and texts.
	state     domain.Finding
	revision  uint64
	effective time.Time
	// seen is the content that was compared last.
	seen domain.EventID
	// closed marks a finding with an event that cannot be read.
	closed bool
}

func newFindingBook() *findingBook {
	return &findingBook{byID: map[domain.EventID]*knownFinding{}, byCase: map[findingCase][]*knownFinding{}}
}

// match returns the finding that candidate belongs to, nil if there is none: of
// several, the one that begins first, which is the one that grew over the others.
func (b *findingBook) match(candidate domain.Finding) *knownFinding {
	best := b.byID[candidate.ID]
	for _, k := range b.byCase[findingCase{candidate.Rule, candidate.RuleVersion, candidate.DedupeKey}] {
		if !k.state.SameCase(candidate) {
			continue
		}
		if best == nil || k.state.FirstSeen.Before(best.state.FirstSeen) ||
			k.state.FirstSeen.Equal(best.state.FirstSeen) && k.state.ID.String() < best.state.ID.String() {
			best = k
		}
	}
	return best
}

// apply takes in a stored event of a finding. Older ones than the book knows change
// nothing. After an error the finding is closed.
func (b *findingBook) apply(raw eventlog.Raw) error {
	id, err := domain.ParseEventID(raw.Stream[min(len(domain.FindingStreams), len(raw.Stream)):])
	if err != nil {
		return fmt.Errorf("stream %s: %w", raw.Stream, err)
	}
	if k := b.byID[id]; k != nil && (k.closed || k.revision >= raw.Revision) {
		return nil
	}
	rec, err := eventlog.Decode(raw)
	if err == nil {
		if f, ok := findingIn(rec.Event); ok && f.ID == id {
			b.take(f, raw.Revision, rec.Meta.EffectiveAt)
			return nil
		}
		err = fmt.Errorf("%s at revision %d is no finding of that id", raw.Type, raw.Revision)
	}
	k := b.known(domain.Finding{ID: id})
	k.closed = true
	return err
}

// take remembers f as its stream holds it at revision.
func (b *findingBook) take(f domain.Finding, revision uint64, effective time.Time) {
	k := b.known(f)
	k.seen = contentID(f)
	f.Evidence, f.Reason, f.Advice, f.Title = nil, "", "", ""
	k.state, k.revision, k.effective = f, revision, effective
}

// known returns the entry of f, made if it is missing.
func (b *findingBook) known(f domain.Finding) *knownFinding {
	k := b.byID[f.ID]
	if k == nil {
		k = &knownFinding{state: f}
		b.byID[f.ID] = k
		c := findingCase{f.Rule, f.RuleVersion, f.DedupeKey}
		b.byCase[c] = append(b.byCase[c], k)
	}
	return k
}

// after returns now in milliseconds, later than the newest event of finding id.
func (b *findingBook) after(id domain.EventID, now time.Time) time.Time {
	now = now.UTC().Truncate(time.Millisecond)
	if k := b.byID[id]; k != nil && !now.After(k.effective) {
		return k.effective.Add(time.Millisecond)
	}
	return now
}

// findingOf returns the finding that a stored event carries.
func findingOf(raw eventlog.Raw) (domain.Finding, error) {
	rec, err := eventlog.Decode(raw)
	if err != nil {
		return domain.Finding{}, err //nolint:wrapcheck // It names the event.
	}
	f, ok := findingIn(rec.Event)
	if !ok {
		return domain.Finding{}, fmt.Errorf("%s at %s@%d is no finding", raw.Type, raw.Stream, raw.Revision)
	}
	return f, nil
}

func findingIn(e domain.Event) (domain.Finding, bool) {
	switch e := e.(type) { //nolint:gochecksumtype // Only these carry findings.
	case domain.FindingOpened:
		return e.After, true
	case domain.FindingExtended:
		return e.After, true
	}
	return domain.Finding{}, false
}

// contentID names what a finding says: two with the same one need not be compared.
func contentID(f domain.Finding) domain.EventID {
	parts := make([]string, 0, 4+2*len(f.Evidence))
	parts = append(parts, f.ID.String(), strconv.FormatUint(f.Count, 10),
		strconv.FormatInt(f.FirstSeen.UnixMilli(), 10), strconv.FormatInt(f.LastSeen.UnixMilli(), 10))
	for _, e := range f.Evidence {
		parts = append(parts, strconv.FormatUint(e.Position, 10), strconv.FormatUint(uint64(e.Index), 10))
	}
	return domain.DeriveID("finding-content", parts...)
}
