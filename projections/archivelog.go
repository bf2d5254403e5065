package projections

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/archive"
	"example.com/keytrail/internal/eventlog"
)

// ErrNotKept says that the log was cut and the cut range was archived nowhere: what was
// made from it cannot be made again.
var ErrNotKept = errors.New("events were cut and are in no archive")

// errMoved says that a range was cut while it was being read. Reading again helps.
var errMoved = errors.New("events were cut while they were read, or are missing")

// ArchiveLogConfig configures an [ArchiveLog].
type ArchiveLogConfig struct {
	Log   Log
	Seals *archive.Seals
	// Archives are the folders of archives by class of usage.
	Archives map[string]*archive.Dir
	// Carrier, if set, gives rows for events that were cut and are in no archive: in the
	// place of each comes a stand-in, which only this package can read. Without it that is
	// [ErrNotKept].
	Carrier Carrier
}

// ArchiveLog is a [Log] with what was cut from it: a subscription gives the events of
// archived segments and those that are still in the log, each once, by position. Whatever
// makes or checks tables from the beginning reads through it.
//
// The revisions of every usage stream are followed: an event that is neither in the log
// nor in an archive is an error, never skipped; or, with a [Carrier], a stand-in made of
// the rows that other tables hold of it, exactly as many as its seal says.
type ArchiveLog struct {
	Log

	cfg ArchiveLogConfig
	// gaps lets readers pass ranges that were cut and are in no archive: they see the
	// events before and after.
	gaps bool
}

// NewArchiveLog returns the log with its archives.
func NewArchiveLog(cfg ArchiveLogConfig) *ArchiveLog { return &ArchiveLog{Log: cfg.Log, cfg: cfg} }

// Subscribe implements [Log]. A missing or damaged archive is an error of
// [Subscription.Next] that names the file.
func (l *ArchiveLog) Subscribe(ctx context.Context, opt eventlog.SubscribeOptions) (Subscription, error) {
	sub, err := l.Log.Subscribe(ctx, opt)
	if err != nil || !slices.ContainsFunc(opt.Prefixes, mayMatchUsage) {
		return sub, err
	}
	// The seals are read after the log has confirmed: what is cut from now on is seen by
	// its revisions.
	if err := l.cfg.Seals.Refresh(ctx); err != nil {
		sub.Close()
		return nil, err
	}
	m := &mergedSubscription{cfg: l.cfg, gaps: l.gaps, live: sub, after: opt.After, next: map[string]uint64{}, rows: &carriedRows{from: l.cfg.Carrier}}
	for _, seal := range l.cfg.Seals.All() {
		if seal.LastPosition <= opt.After || !hasAnyPrefix(seal.Stream, opt.Prefixes) {
			continue
		}
		if seal.Archive == nil {
			if l.cfg.Carrier == nil {
				continue
			}
			m.rows.end = max(m.rows.end, seal.LastPosition)
		}
		m.closed = append(m.closed, seal)
	}
	slices.SortFunc(m.closed, func(a, b domain.UsageSegmentSealed) int {
		if a.FirstPosition < b.FirstPosition {
			return -1
		}
		return 1
	})
	return m, nil
}

func mayMatchUsage(prefix string) bool {
	shorter := strings.HasPrefix(domain.UsageStreams, prefix) //nolint:gocritic // The prefix may be the shorter of the two.
	return shorter || strings.HasPrefix(prefix, domain.UsageStreams)
}

func hasAnyPrefix(stream string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(stream, p) })
}

// mergedSubscription merges archived segments and the log by position.
type mergedSubscription struct {
	cfg    ArchiveLogConfig
	gaps   bool
	live   Subscription
	after  uint64
	closed []domain.UsageSegmentSealed // By first position.
	open   openSegments
	ahead  *eventlog.Delivery // Of the log.
	next   map[string]uint64  // The revision that is due, of each usage stream seen.
	rows   *carriedRows       // For what neither the log nor an archive has.
}

// openSegment is a sealed segment of which the first event is not delivered yet: an
// archive, or one that is in none and of which the seal has the places.
type openSegment struct {
	file   *archive.File
	unkept *unkeptSegment // Where file is nil.
	first  eventlog.Raw
}

// next returns the segment's next event, [io.EOF] at its end.
func (s *openSegment) next() (eventlog.Raw, error) {
	if s.file != nil {
		return s.file.Next()
	}
	raw, ok := s.unkept.Next()
	if !ok {
		return raw, io.EOF
	}
	return raw, nil
}

func (s *openSegment) close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// openSegments is a heap by position.
type openSegments []*openSegment

// Len implements [heap.Interface].
func (o openSegments) Len() int { return len(o) }

// Less implements [heap.Interface].
func (o openSegments) Less(i, j int) bool { return o[i].first.Position < o[j].first.Position }

// Swap implements [heap.Interface].
func (o openSegments) Swap(i, j int) { o[i], o[j] = o[j], o[i] }

// Push implements [heap.Interface].
func (o *openSegments) Push(x any) {
	if s, ok := x.(*openSegment); ok {
		*o = append(*o, s)
	}
}

// Pop implements [heap.Interface].
func (o *openSegments) Pop() any {
	old := *o
	last := old[len(old)-1]
	*o = old[:len(old)-1]
	return last
}

// Next implements [Subscription].
func (m *mergedSubscription) Next(ctx context.Context) (eventlog.Delivery, error) {
	if err := m.openDue(); err != nil {
		return eventlog.Delivery{}, err
	}
	if m.ahead == nil {
		// The newest event of a stream is never cut, so the log always comes to a position
		// behind every archived one.
		d, err := m.live.Next(ctx)
		if err != nil {
			return d, err
		}
		m.ahead = &d
	}
	d := *m.ahead
	if len(m.open) > 0 && m.archiveFirst(d) {
		raw, err := m.sealed(ctx, d)
		if err != nil {
			return eventlog.Delivery{}, err
		}
		return eventlog.Delivery{Event: &raw, Position: raw.Position}, m.follows(&raw)
	}
	m.ahead = nil
	if d.Event != nil {
		return d, m.follows(d.Event)
	}
	return d, nil
}

// sealed returns the first event of the open segments, which comes before d or is d: from
// the archive, or from the log where that still has it, or a stand-in.
func (m *mergedSubscription) sealed(ctx context.Context, d eventlog.Delivery) (eventlog.Raw, error) {
	top := m.open[0]
	raw := top.first
	inLog := d.Event != nil && d.Event.Position == raw.Position
	if inLog && (d.Event.Stream != raw.Stream || d.Event.Revision != raw.Revision || top.file != nil && d.Event.ID != raw.ID) {
		return raw, fmt.Errorf("the seals have %s@%d at %d, the log %s@%d", raw.Stream, raw.Revision, raw.Position, d.Event.Stream, d.Event.Revision)
	}
	var err error
	switch {
	case top.file != nil:
	case inLog:
		raw = *d.Event
	default:
		raw, err = m.rows.standIn(ctx, top.unkept, raw)
	}
	if err != nil {
		return raw, err
	}
	if inLog {
		m.ahead = nil // It comes once.
	}
	return raw, m.advance()
}

// archiveFirst reports whether the first archived event comes before, or is, what the log
// gives next. When the log has given all that it had, everything archived comes first.
func (m *mergedSubscription) archiveFirst(d eventlog.Delivery) bool {
	return d.Event == nil && d.CaughtUp || m.open[0].first.Position <= d.Position
}

// openDue opens the segments whose first event may be the next.
func (m *mergedSubscription) openDue() error {
	for len(m.closed) > 0 && (len(m.open) == 0 || m.closed[0].FirstPosition < m.open[0].first.Position) {
		seal := m.closed[0]
		m.closed = m.closed[1:]
		opened, err := m.openSeal(seal)
		if err != nil {
			return err
		}
		heap.Push(&m.open, opened) // At the top, before every position, until its first event is read.
		if err := m.advance(); err != nil {
			return err
		}
	}
	return nil
}

func (m *mergedSubscription) openSeal(seal domain.UsageSegmentSealed) (*openSegment, error) {
	if seal.Archive == nil {
		unkept, err := newUnkeptSegment(seal)
		return &openSegment{unkept: unkept}, err
	}
	class, _ := domain.UsageClassOf(seal.Stream)
	dir := m.cfg.Archives[class]
	if dir == nil {
		return nil, fmt.Errorf("archive %s of segment %d of %s: no folder of archives is named for class %q", seal.Archive.Name, seal.Segment, seal.Stream, class)
	}
	file, err := dir.Open(seal)
	return &openSegment{file: file}, err
}

// advance moves the open segment at the top to its next event after the subscription's
// beginning, or closes it.
func (m *mergedSubscription) advance() error {
	top := m.open[0]
	for {
		raw, err := top.next()
		if errors.Is(err, io.EOF) {
			heap.Pop(&m.open)
			return top.close()
		}
		if err != nil {
			return err
		}
		if raw.Position > m.after {
			top.first = raw
			heap.Fix(&m.open, 0)
			return nil
		}
	}
}

// follows checks that raw is the event that is due in its usage stream.
func (m *mergedSubscription) follows(raw *eventlog.Raw) error {
	if !strings.HasPrefix(raw.Stream, domain.UsageStreams) {
		return nil
	}
	due, seen := m.next[raw.Stream]
	m.next[raw.Stream] = raw.Revision + 1
	switch {
	case seen && raw.Revision == due:
		return nil
	case seen && raw.Revision < due:
		return fmt.Errorf("%s@%d comes after %d", raw.Stream, raw.Revision, due)
	case !seen:
		due = 0 // Or whatever comes after the subscription's beginning.
	}
	return m.gap(raw, due)
}

// gap judges that the events of a stream from revision due up to raw were not given. They
// may lie before the subscription's beginning, or in sealed segments that nobody kept.
func (m *mergedSubscription) gap(raw *eventlog.Raw, due uint64) error {
	for raw.Revision > due {
		seal, ok := m.sealOf(raw.Stream, raw.Revision-1)
		if !ok {
			if due == 0 && m.after > 0 {
				return nil // Not sealed, so not cut: it lies before the beginning.
			}
			return fmt.Errorf("%w: %s from revision %d to %d", errMoved, raw.Stream, due, raw.Revision-1)
		}
		places, err := domain.UnpackPlaces(seal.Places)
		if err != nil {
			return fmt.Errorf("segment %d of %s: %w", seal.Segment, seal.Stream, err)
		}
		if at := raw.Revision - 1 - seal.FirstRevision; at < uint64(len(places)) && places[at].Position <= m.after {
			return nil // Before the beginning.
		}
		if seal.Archive != nil || m.cfg.Carrier != nil {
			return fmt.Errorf("%w: %s from revision %d to %d, sealed as segment %d", errMoved, raw.Stream, due, raw.Revision-1, seal.Segment)
		}
		if !m.gaps {
			return fmt.Errorf("%w: %s from revision %d to %d, sealed as segment %d: %d records of %s to %s", ErrNotKept, raw.Stream,
				max(due, seal.FirstRevision), raw.Revision-1, seal.Segment, seal.Records, seal.FirstRecordedAt.Format("2006-01-02"), seal.LastRecordedAt.Format("2006-01-02"))
		}
		if seal.FirstRevision <= due {
			return nil
		}
		raw = &eventlog.Raw{Stream: raw.Stream, Revision: seal.FirstRevision}
	}
	return nil
}

// sealOf returns the sealed segment that holds a revision of stream.
func (m *mergedSubscription) sealOf(stream string, revision uint64) (domain.UsageSegmentSealed, bool) {
	of := m.cfg.Seals.Of(stream)
	i, found := slices.BinarySearchFunc(of, revision, func(s domain.UsageSegmentSealed, r uint64) int {
		switch {
		case s.LastRevision < r:
			return -1
		case s.FirstRevision > r:
			return 1
		}
		return 0
	})
	if !found {
		return domain.UsageSegmentSealed{}, false
	}
	return of[i], true
}

// Close implements [Subscription].
func (m *mergedSubscription) Close() {
	m.live.Close()
	for _, s := range m.open {
		_ = s.close() // It was only read.
	}
	m.open, m.closed = nil, nil
}

// allowingGaps returns l for a reader that knows of gaps.
func (l *ArchiveLog) allowingGaps() *ArchiveLog {
	cfg := l.cfg
	cfg.Carrier = nil
	gaps := NewArchiveLog(cfg)
	gaps.gaps = true
	return gaps
}

// carrying returns l with rows of other tables for what is in neither log nor archive.
func (l *ArchiveLog) carrying(from Carrier) *ArchiveLog {
	cfg := l.cfg
	cfg.Carrier = from
	return NewArchiveLog(cfg)
}

// NotKept returns the sealed segments that are in no archive: what [ArchiveLog] cannot
// give again once they are cut.
func (l *ArchiveLog) NotKept(ctx context.Context) ([]domain.UsageSegmentSealed, error) {
	if err := l.cfg.Seals.Refresh(ctx); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(l.cfg.Seals.All(), func(s domain.UsageSegmentSealed) bool { return s.Archive != nil }), nil
}
