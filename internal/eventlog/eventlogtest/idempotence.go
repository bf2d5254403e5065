package eventlogtest

import (
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/google/uuid"

	"example.com/keytrail/internal/eventlog"
)

// server appends with the unmodified client, so that our own log cannot help.
func (s *suite) server(t *testing.T, stream string, exp esdb.ExpectedRevision, events ...eventlog.Proposed) (*esdb.WriteResult, error) {
	t.Helper()
	return s.client.AppendToStream(within(t), stream, esdb.AppendToStreamOptions{ExpectedRevision: exp}, eventData(events)...)
}

// repeatRules are EventStoreDB's: what is the same success again, what is a conflict and
// what is stored a second time.
func (s *suite) repeatRules(t *testing.T) {
	const stored, conflict = -1, -2
	all := events(6)
	other := event("other")
	for _, test := range []struct {
		name   string
		exp    esdb.ExpectedRevision
		events []eventlog.Proposed
		want   int // The revision of the same success again, or stored, or conflict.
	}{
		{"the last at its place", esdb.Revision(4), all[5:], 5},
		{"the middle at its place", esdb.Revision(1), all[2:4], 3},
		{"the first, expecting no stream", esdb.NoStream{}, all[:2], 1},
		{"all, expecting no stream", esdb.NoStream{}, all, 5},
		{"the middle, expecting anything", esdb.Any{}, all[2:4], 3},
		{"the last, expecting a stream", esdb.StreamExists{}, all[5:], 5},
		{"begins alike and ends otherwise", esdb.Revision(1), []eventlog.Proposed{all[2], other}, conflict},
		{"begins alike and goes past the end", esdb.Revision(4), []eventlog.Proposed{all[5], other}, conflict},
		{"alike at another place", esdb.Revision(2), all[2:4], conflict},
		{"others, expecting no stream", esdb.NoStream{}, []eventlog.Proposed{other}, conflict},
		{"known and unknown, expecting anything", esdb.Any{}, []eventlog.Proposed{all[1], other}, conflict},
		{"ahead of the end", esdb.Revision(6), []eventlog.Proposed{other}, conflict},
		{"another, expecting anything", esdb.Any{}, []eventlog.Proposed{other}, stored},
		{"another, expecting a stream", esdb.StreamExists{}, []eventlog.Proposed{other}, stored},
		{"the same at the end is another event", esdb.Revision(5), all[5:], stored},
	} {
		t.Run(test.name, func(t *testing.T) {
			stream := name(t)
			s.mustAppend(t, stream, eventlog.NoStream(), all...)
			res, err := s.server(t, stream, test.exp, test.events...)
			count := len(all)
			switch {
			case test.want == conflict:
				if !hasCode(err, esdb.ErrorCodeWrongExpectedVersion) {
					t.Errorf("got %+v, %v, want a wrong expected version", res, err)
				}
			case err != nil:
				t.Errorf("got %v", err)
			case test.want == stored:
				count += len(test.events)
				if res.NextExpectedVersion != uint64(count-1) { //nolint:gosec // Small.
					t.Errorf("stored at %d, want %d", res.NextExpectedVersion, count-1)
				}
			case res.NextExpectedVersion != uint64(test.want): //nolint:gosec // Small.
				t.Errorf("answered revision %d, want %d", res.NextExpectedVersion, test.want)
			}
			if got := s.mustRead(t, stream); len(got) != count {
				t.Errorf("the stream has %d events, want %d", len(got), count)
			}
		})
	}
}

// A repeat that comes late must not bring a deleted stream back.
func (s *suite) repeatAfterDelete(t *testing.T) {
	stream := name(t)
	all := events(4)
	s.mustAppend(t, stream, eventlog.NoStream(), all[:3]...)
	if _, err := s.client.DeleteStream(within(t), stream, esdb.DeleteStreamOptions{ExpectedRevision: esdb.Revision(2)}); err != nil {
		t.Fatal(err)
	}
	for _, exp := range []esdb.ExpectedRevision{esdb.NoStream{}, esdb.Any{}} {
		if res, err := s.server(t, stream, exp, all[:3]...); err != nil || res.NextExpectedVersion != 2 {
			t.Errorf("the repeat at %v: got %+v, %v, want the same success", exp, res, err)
		}
	}
	if got := s.mustRead(t, stream); len(got) != 0 {
		t.Fatalf("the repeat brought %d events back", len(got))
	}
	if _, err := s.server(t, stream, esdb.StreamExists{}, all[3]); !hasCode(err, esdb.ErrorCodeStreamDeleted) {
		t.Errorf("an append that expects the deleted stream: got %v, want that it is deleted", err)
	}
	if _, err := s.server(t, stream, esdb.Revision(2), all[3]); err != nil {
		t.Errorf("an append at the last revision: got %v, want the stream back", err)
	}
	s.wantStream(t, stream, 3, all[3])
}

// A stream that has only metadata counts as existing, but has no events.
func (s *suite) metadataOnly(t *testing.T) {
	stream := name(t)
	s.setMetadata(t, stream, func(m *esdb.StreamMetadata) { m.SetMaxCount(5) })
	if got := s.mustRead(t, stream); len(got) != 0 {
		t.Fatalf("%d events in a stream that has none", len(got))
	}
	if _, err := s.server(t, stream, esdb.Revision(0), events(1)...); !hasCode(err, esdb.ErrorCodeWrongExpectedVersion) {
		t.Errorf("an append at revision 0: got %v", err)
	}
	first := events(1)
	if res, err := s.server(t, stream, esdb.NoStream{}, first...); err != nil || res.NextExpectedVersion != 0 {
		t.Errorf("an append that expects no stream: got %+v, %v", res, err)
	}
	other := name(t)
	s.setMetadata(t, other, func(m *esdb.StreamMetadata) { m.SetMaxCount(5) })
	if res, err := s.server(t, other, esdb.StreamExists{}, first...); err != nil || res.NextExpectedVersion != 0 {
		t.Errorf("an append that expects a stream with metadata: got %+v, %v", res, err)
	}
}

// An append without events stores nothing and still checks.
func (s *suite) emptyAppend(t *testing.T) {
	stream := name(t)
	s.mustAppend(t, stream, eventlog.NoStream(), events(2)...)
	if _, err := s.server(t, stream, esdb.Revision(1)); err != nil {
		t.Errorf("at the right revision: got %v", err)
	}
	for _, exp := range []esdb.ExpectedRevision{esdb.Revision(0), esdb.Revision(2), esdb.NoStream{}} {
		if _, err := s.server(t, stream, exp); !hasCode(err, esdb.ErrorCodeWrongExpectedVersion) {
			t.Errorf("at %v: got %v, want a wrong expected version", exp, err)
		}
	}
	if got := s.mustRead(t, stream); len(got) != 2 {
		t.Errorf("the stream has %d events, want 2", len(got))
	}
}

// Ids are kept as they were given, whatever their version.
func (s *suite) idsKept(t *testing.T) {
	stream := name(t)
	given := []string{"00000000-0000-0000-0000-000000000001", "ffffffff-ffff-ffff-ffff-ffffffffffff", uuid.NewSHA1(uuid.NameSpaceURL, []byte(stream)).String()}
	all := make([]eventlog.Proposed, 0, len(given))
	for _, id := range given {
		e := event(id)
		e.ID = [16]byte(uuid.MustParse(id))
		all = append(all, e)
	}
	s.mustAppend(t, stream, eventlog.NoStream(), all...)
	s.wantStream(t, stream, 0, all...)
}
