package projections

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

// futureMax is by how much a use's time may be ahead of its arrival.
const futureMax = 48 * time.Hour

// mayBeGone reports whether rows of uses at that time may have been dropped: the table
// drops by time of arrival, which no use is long ahead of.
func (v *verifier) mayBeGone(at time.Time) bool {
	return !v.opt.KeptSince.IsZero() && at.Before(v.opt.KeptSince.Add(futureMax))
}

// dropped reports whether the rows of events recorded at that time may have been dropped.
func (v *verifier) dropped(recordedAt time.Time) bool { return recordedAt.Before(v.opt.KeptSince) }

// sealedPlaces walks over the events of segments that are in no archive, stream by stream.
type sealedPlaces struct {
	streams []*sealedStream
}

// sealedStream is the walk over the unkept segments of one stream.
type sealedStream struct {
	seals  []domain.UsageSegmentSealed
	places []domain.Place // What is left of seals[0].
	sums   *sealSums      // Of seals[0].
}

// sealSums adds up the rows of a segment that is checked by its seal alone.
type sealSums struct {
	seal     domain.UsageSegmentSealed
	accounts map[domain.AccountID]uint64
	given    bool // Some event of it is in the log, and was compared whole.
	dropped  bool // Its rows may be gone.
}

// sealedRow is an event that is in neither log nor archive: what its seal says of it, and
// what the table has.
type sealedRow struct {
	of       *sealSums
	revision uint64
	want     uint64
	have     uint64
}

// newSealedPlaces returns the walk over what log cannot give again.
func newSealedPlaces(ctx context.Context, log *ArchiveLog) (*sealedPlaces, error) {
	notKept, err := log.NotKept(ctx)
	if err != nil {
		return nil, err
	}
	by := map[string]*sealedStream{}
	for _, seal := range notKept {
		s := by[seal.Stream]
		if s == nil {
			s = &sealedStream{}
			by[seal.Stream] = s
		}
		s.seals = append(s.seals, seal)
	}
	out := &sealedPlaces{}
	for _, name := range slices.Sorted(maps.Keys(by)) {
		out.streams = append(out.streams, by[name])
	}
	return out, nil
}

// upTo returns the events up to position to that were not given, by position, and the
// segments that end there.
func (p *sealedPlaces) upTo(to uint64, given map[uint64]eventlog.Raw) (map[uint64]*sealedRow, []*sealSums, error) {
	missing := map[uint64]*sealedRow{}
	var ended []*sealSums
	for _, s := range p.streams {
		for len(s.seals) > 0 {
			if s.sums == nil {
				places, err := domain.UnpackPlaces(s.seals[0].Places)
				if err != nil {
					return nil, nil, fmt.Errorf("segment %d of %s: %w", s.seals[0].Segment, s.seals[0].Stream, err)
				}
				s.places, s.sums = places, &sealSums{seal: s.seals[0], accounts: map[domain.AccountID]uint64{}}
			}
			for len(s.places) > 0 && s.places[0].Position <= to {
				at := s.places[0]
				s.places = s.places[1:]
				if _, ok := given[at.Position]; ok {
					s.sums.given = true
					continue
				}
				last := s.sums.seal.LastRevision - uint64(len(s.places))
				missing[at.Position] = &sealedRow{of: s.sums, revision: last, want: at.Records}
			}
			if len(s.places) > 0 {
				break
			}
			ended = append(ended, s.sums)
			s.seals, s.sums = s.seals[1:], nil
		}
	}
	return missing, ended, nil
}

// matchesWithout reports how b, made again from what is left, differs from its plan, where
// the events in missing are in neither log nor archive. The hash cannot be made again.
func (p *BlockPlanned) matchesWithout(b *block, missing map[uint64]*sealedRow) error {
	rows := b.rowsPerTable()
	want := maps.Clone(p.Rows)
	for _, m := range missing {
		rows[tableUsage] += m.want
	}
	// Which hours those uses touched, nobody can tell any more.
	delete(rows, tableUsageBuckets)
	delete(want, tableUsageBuckets)
	maps.DeleteFunc(rows, func(_ string, n uint64) bool { return n == 0 })
	if b.number != p.Block || b.from != p.From || b.events+uint64(len(missing)) != p.Events || !maps.Equal(rows, want) || uint64(len(b.poison)) != p.Poisoned {
		return fmt.Errorf("the log and its seals have %d and %d events with rows %v for block %d, the plan %d with %v",
			b.events, len(missing), rows, p.Block, p.Events, want)
	}
	return nil
}

// compareCarried checks that what a plan says was carried over are events that were cut and
// are in no archive, each once, with the rows that their seals say. One that is in the log
// after all is compared whole.
func (e *eventVerifier) compareCarried(p *BlockPlanned, missing map[uint64]*sealedRow, wrong func(string, ...any)) {
	type place struct {
		stream   string
		revision uint64
	}
	left := make(map[place]uint64, len(missing))
	for _, m := range missing {
		left[place{m.of.seal.Stream, m.revision}] = m.want
	}
	there := map[place]bool{}
	for _, raw := range e.places {
		there[place{raw.Stream, raw.Revision}] = true
	}
	for _, c := range p.Carried {
		if c.LastRevision < c.FirstRevision || c.LastRevision-c.FirstRevision >= p.Events {
			wrong("block %d carries %s@%d to %d, more than its %d events", p.Block, c.Stream, c.FirstRevision, c.LastRevision, p.Events)
			continue
		}
		rows, compared := uint64(0), false
		for r := c.FirstRevision; r <= c.LastRevision; r++ {
			at := place{c.Stream, r}
			n, ok := left[at]
			if !ok && !there[at] {
				wrong("block %d carries %s@%d, which is none of its events that were cut", p.Block, c.Stream, r)
			}
			compared = compared || !ok
			delete(left, at)
			delete(there, at)
			rows += n
			e.report.CarriedEvents++
		}
		e.report.CarriedRecords += c.Rows
		if !compared && rows != c.Rows {
			wrong("block %d carries %d rows of %s@%d to %d, the seals say %d", p.Block, c.Rows, c.Stream, c.FirstRevision, c.LastRevision, rows)
		}
	}
}

// bySeal takes in the current row of the cursor if its event can be checked by its seal
// only, and reports whether that is so.
func (e *eventVerifier) bySeal(c *cursor) bool {
	if c.table != tableUsage {
		return false
	}
	key := keyOf(c)
	m := e.missing[key.position]
	if m == nil || uint64(key.idx) != m.have {
		return false // A row that is there twice, or after a gap.
	}
	m.have++
	m.of.accounts[domain.AccountID(value[string](c, "account_id"))]++
	return true
}

// compareSealed compares the rows of a block's missing events with their seals, once all
// rows up to the block's end were read.
func (e *eventVerifier) compareSealed(ended []*sealSums) {
	for _, position := range slices.Sorted(maps.Keys(e.missing)) {
		m := e.missing[position]
		e.report.SealedEvents++
		e.report.SealedRecords += m.want
		if m.have == m.want {
			continue
		}
		if m.have < m.want && e.dropped(m.of.seal.LastRecordedAt) {
			m.of.dropped = true
			e.report.Dropped += m.want - m.have
			continue
		}
		e.differ(Difference{
			Where: tableUsage, Stream: m.of.seal.Stream, Position: position, Block: e.block.number,
			What: fmt.Sprintf("%d rows of a sealed event, segment %d says %d", m.have, m.of.seal.Segment, m.want),
		})
	}
	for _, s := range ended {
		e.compareSums(s)
	}
}

func (e *eventVerifier) compareSums(s *sealSums) {
	if s.given || s.dropped || s.seal.AccountsOmitted > 0 {
		return
	}
	var wrong []string
	for _, a := range s.seal.Accounts {
		if have := s.accounts[a.Account]; have != a.Records {
			wrong = append(wrong, fmt.Sprintf("account %s has %d rows, its seal says %d", a.Account, have, a.Records))
		}
		delete(s.accounts, a.Account)
	}
	for _, account := range slices.Sorted(maps.Keys(s.accounts)) {
		wrong = append(wrong, fmt.Sprintf("account %s has %d rows, its seal none", account, s.accounts[account]))
	}
	if len(wrong) > 0 {
		e.differ(Difference{
			Where: tableUsage, Stream: s.seal.Stream, Revision: s.seal.FirstRevision, Position: s.seal.FirstPosition,
			What: fmt.Sprintf("segment %d: %s", s.seal.Segment, strings.Join(wrong, "; ")),
		})
	}
}
