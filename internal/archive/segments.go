package archive

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

// sealsPage is how many seals are read at a time: each may have hundreds of KiB.
const sealsPage = 32

// StreamReader reads a stream of the log; [eventlog.Log] is one.
type StreamReader interface {
	ReadStream(ctx context.Context, stream string, from uint64, limit int) ([]eventlog.Raw, error)
}

// Seals knows every sealed segment: it follows [domain.HorizonStream], and refuses seals
// that are not one chain for each stream. It is safe for concurrent use.
type Seals struct {
	log StreamReader

	mu       sync.Mutex // Guards what follows, during reads too.
	next     eventlog.Expected
	last     time.Time // Effective time of the last seal.
	streams  map[string][]domain.UsageSegmentSealed
	sealed   uint64
	archived uint64
	bytes    uint64
}

// NewSeals returns the seals of log; nothing is read before [Seals.Refresh].
func NewSeals(log StreamReader) *Seals {
	return &Seals{log: log, streams: map[string][]domain.UsageSegmentSealed{}}
}

// Refresh reads what was sealed since.
func (s *Seals) Refresh(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		events, err := s.log.ReadStream(ctx, domain.HorizonStream, s.next.Next(), sealsPage)
		if err != nil {
			return fmt.Errorf("read seals: %w", err)
		}
		for _, raw := range events {
			if err := s.takeLocked(raw); err != nil {
				return err
			}
		}
		if len(events) < sealsPage {
			return nil
		}
	}
}

func (s *Seals) takeLocked(raw eventlog.Raw) error {
	if raw.Revision != s.next.Next() {
		return fmt.Errorf("read seals: %s@%d stands where %d is due", raw.Stream, raw.Revision, s.next.Next())
	}
	rec, err := eventlog.Decode(raw)
	if err != nil {
		return fmt.Errorf("read seals: %w", err)
	}
	e, ok := rec.Event.(domain.UsageSegmentSealed)
	if !ok {
		return fmt.Errorf("read seals: a %s stands at %s@%d", raw.Type, raw.Stream, raw.Revision)
	}
	have := s.streams[e.Stream]
	var last *domain.UsageSegmentSealed
	if len(have) > 0 {
		last = &have[len(have)-1]
	}
	if err := e.Follows(last); err != nil {
		return fmt.Errorf("read seals: %s@%d: %w", raw.Stream, raw.Revision, err)
	}
	s.streams[e.Stream] = append(have, e)
	s.next, s.last = eventlog.Exactly(raw.Revision), rec.Meta.EffectiveAt
	s.sealed++
	if e.Archive != nil {
		s.archived++
		s.bytes += e.Archive.Bytes
	}
	return nil
}

// End returns where the stream of seals ended at the last Refresh, and when the last seal
// was true.
func (s *Seals) End() (eventlog.Expected, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next, s.last
}

// Of returns the sealed segments of stream, in order, as of the last Refresh. The caller
// must not change them.
func (s *Seals) Of(stream string) []domain.UsageSegmentSealed {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.streams[stream]
	return slices.Clip(have)
}

// All returns every sealed segment, those of one stream in order.
func (s *Seals) All() []domain.UsageSegmentSealed {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]domain.UsageSegmentSealed, 0, s.sealed)
	for _, of := range s.streams {
		out = append(out, of...)
	}
	return out
}

// Totals returns how many segments are sealed, how many of them archived, and in how many
// bytes.
func (s *Seals) Totals() (sealed, archived, bytes uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sealed, s.archived, s.bytes
}
