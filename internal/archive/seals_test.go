package archive_test

import (
	"context"
	"fmt"
	"testing"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/archive"
	"example.com/keytrail/internal/eventlog"
)

// sealLog is a stream of seals.
type sealLog []eventlog.Raw

func (l sealLog) ReadStream(_ context.Context, _ string, from uint64, limit int) ([]eventlog.Raw, error) {
	rest := l[min(int(from), len(l)):]
	return rest[:min(limit, len(rest))], nil
}

func sealEvent(tb testing.TB, revision int, e domain.Event) eventlog.Raw {
	tb.Helper()
	p, err := eventlog.Propose(domain.DeriveID("t", fmt.Sprint(revision)), e, domain.Metadata{})
	if err != nil {
		tb.Fatal(err)
	}
	return eventlog.Raw{Stream: domain.HorizonStream, Revision: uint64(revision), ID: p.ID, Type: p.Type, Data: p.Data, Meta: p.Meta}
}

func TestSealsAreOneChainForEachStream(t *testing.T) {
	t.Parallel()
	seal := func(stream string, n uint64) domain.UsageSegmentSealed {
		s := domain.UsageSegmentSealed{Stream: stream, Segment: n, FirstRevision: 2 * (n - 1), LastRevision: 2*n - 1, Events: 2, SHA256: fmt.Sprint(stream, n)}
		if n > 1 {
			s.Previous = fmt.Sprint(stream, n-1)
		}
		return s
	}
	archived := seal("b", 1)
	archived.Archive = &domain.SegmentArchive{Bytes: 50}
	var log sealLog
	for i, e := range []domain.Event{seal("a", 1), archived, seal("a", 2)} {
		log = append(log, sealEvent(t, i, e))
	}
	s := archive.NewSeals(&log)
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if end, _ := s.End(); end != eventlog.Exactly(2) {
		t.Errorf("ends at %v", end)
	}
	log = append(log, sealEvent(t, 3, seal("b", 2)))
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(s.Of("a")) != 2 || len(s.Of("b")) != 2 || len(s.All()) != 4 {
		t.Errorf("%d, %d of %d segments", len(s.Of("a")), len(s.Of("b")), len(s.All()))
	}
	if sealed, archived, bytes := s.Totals(); sealed != 4 || archived != 1 || bytes != 50 {
		t.Errorf("totals %d %d %d", sealed, archived, bytes)
	}
	for name, e := range map[string]domain.Event{
		"a segment that is sealed": seal("a", 2), "a segment after a gap": seal("a", 4), "no seal": domain.LegalHoldSet{},
	} {
		bad := append(sealLog{}, log...)
		bad = append(bad, sealEvent(t, 4, e))
		if err := archive.NewSeals(bad).Refresh(t.Context()); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	gap := append(sealLog{}, log...)
	gap[1].Revision = 7
	if err := archive.NewSeals(gap).Refresh(t.Context()); err == nil {
		t.Error("a missing seal was not seen")
	}
}
