package eventlogtest

import (
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

func (s *suite) readStream(t *testing.T) {
	stream := name(t)
	all := events(1200)
	exp := eventlog.NoStream()
	for chunk := range slices.Chunk(all, 100) {
		exp = eventlog.Exactly(s.mustAppend(t, stream, exp, chunk...).Revision)
	}
	want := idsOf(all)
	backwards := slices.Clone(want)
	slices.Reverse(backwards)
	at := func(n uint64) *uint64 { return &n }
	for _, test := range []struct {
		name  string
		from  *uint64 // nil: from the end, backwards.
		back  bool
		limit int
		want  []domain.EventID
	}{
		{name: "all", from: at(0), limit: 5000, want: want},
		{name: "from the middle, some", from: at(150), limit: 120, want: want[150:270]},
		{name: "past the end", from: at(1200), limit: 10},
		{name: "none asked for", from: at(0), limit: 0},
		{name: "backwards from the end", back: true, limit: 5000, want: backwards},
		{name: "backwards from the middle, some", from: at(150), back: true, limit: 120, want: backwards[1199-150 : 1199-30]},
		{name: "backwards to the beginning", from: at(1), back: true, limit: 10, want: backwards[1198:]},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []eventlog.Raw
			var err error
			if test.back {
				got, err = s.log.ReadStreamBackwards(within(t), stream, test.from, test.limit)
			} else {
				got, err = s.log.ReadStream(within(t), stream, *test.from, test.limit)
			}
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(ids(got), test.want) {
				t.Errorf("got %d events, want %d, or another order", len(got), len(test.want))
			}
		})
	}
	missing := name(t)
	if got := s.mustRead(t, missing); len(got) != 0 {
		t.Errorf("a missing stream has %d events", len(got))
	}
	if _, ok, err := s.log.Last(within(t), missing); ok || err != nil {
		t.Errorf("last of a missing stream: got %t, %v", ok, err)
	}
	if last, ok, err := s.log.Last(within(t), stream); !ok || err != nil || last.Revision != 1199 {
		t.Errorf("last: got revision %d, %t, %v", last.Revision, ok, err)
	}
}

func (s *suite) readEdges(t *testing.T) {
	stream, missing := name(t), name(t)
	s.mustAppend(t, stream, eventlog.NoStream(), events(2)...)
	raw := func(stream string, from esdb.StreamPosition) error {
		t.Helper()
		r, err := s.client.ReadStream(within(t), stream, esdb.ReadStreamOptions{From: from}, 10)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		_, err = r.Recv()
		return err
	}
	if err := raw(missing, esdb.Start{}); !hasCode(err, esdb.ErrorCodeResourceNotFound) {
		t.Errorf("a missing stream: the client got %v, want that it is not found", err)
	}
	if err := raw(stream, esdb.End{}); !errors.Is(err, io.EOF) {
		t.Errorf("forwards from the end: the client got %v, want nothing", err)
	}
}

func (s *suite) readAll(t *testing.T) {
	stream := name(t)
	all := events(3)
	s.mustAppend(t, stream, eventlog.NoStream(), all...)
	middle := s.mustRead(t, stream)[1]
	from := esdb.Position{Commit: middle.Position, Prepare: middle.Position}
	read := func(o esdb.ReadAllOptions, count uint64) (got []domain.EventID) {
		t.Helper()
		r, err := s.client.ReadAll(within(t), o, count)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for {
			e, err := r.Recv()
			if errors.Is(err, io.EOF) {
				return got
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, domain.EventID(e.OriginalEvent().EventID))
		}
	}
	want := idsOf(all)
	wantIDs(t, "forwards from the middle", read(esdb.ReadAllOptions{From: from}, 2), want[1:])
	wantIDs(t, "backwards from the middle", read(esdb.ReadAllOptions{From: from, Direction: esdb.Backwards}, 1), want[:1])
	wantIDs(t, "backwards from the end", read(esdb.ReadAllOptions{From: esdb.End{}, Direction: esdb.Backwards}, 2), []domain.EventID{want[2], want[1]})
	if got := read(esdb.ReadAllOptions{From: esdb.Start{}}, 1); len(got) != 1 {
		t.Errorf("forwards from the start: %d events, want 1", len(got))
	}
	if got := read(esdb.ReadAllOptions{From: esdb.End{}}, 10); len(got) != 0 {
		t.Errorf("forwards from the end: %d events, want none", len(got))
	}
}

func (s *suite) head(t *testing.T) {
	stream, other := name(t), name(t)
	if got, err := s.log.Head(within(t), []string{stream}); err != nil || got != 0 {
		t.Errorf("head of no events: got %d, %v", got, err)
	}
	at := s.mustAppend(t, stream, eventlog.NoStream(), events(2)...)
	newer := s.mustAppend(t, other, eventlog.NoStream(), events(2)...)
	if got, err := s.log.Head(within(t), []string{stream}); err != nil || got != at.Position {
		t.Errorf("head: got %d, %v, want %d", got, err, at.Position)
	}
	if got, err := s.log.Head(within(t), []string{stream, other}); err != nil || got != newer.Position {
		t.Errorf("head of both: got %d, %v, want %d", got, err, newer.Position)
	}
}

func (s *suite) maxCount(t *testing.T) {
	stream := name(t)
	all := events(10)
	s.mustAppend(t, stream, eventlog.NoStream(), all[:8]...)
	for range 2 { // The second time changes nothing.
		if err := s.log.SetMaxCount(within(t), stream, 3); err != nil {
			t.Fatal(err)
		}
	}
	s.wantStream(t, stream, 5, all[5:8]...)
	s.mustAppend(t, stream, eventlog.Exactly(7), all[8:]...)
	s.wantStream(t, stream, 7, all[7:]...)
	if err := s.log.SetMaxCount(within(t), stream, 1); err != nil {
		t.Fatal(err)
	}
	s.wantStream(t, stream, 9, all[9:]...)
	// What is hidden still counts as stored.
	s.mustAppend(t, stream, eventlog.NoStream(), all[:8]...)
	s.wantStream(t, stream, 9, all[9:]...)
	meta := s.mustRead(t, "$$"+stream)
	if len(meta) != 1 || meta[0].Revision != 1 {
		t.Errorf("metadata was written %+v, want its second event only", meta)
	}
}

func (s *suite) setMetadata(t *testing.T, stream string, set func(*esdb.StreamMetadata)) {
	t.Helper()
	m := esdb.StreamMetadata{}
	set(&m)
	if _, err := s.client.SetStreamMetadata(within(t), stream, esdb.AppendToStreamOptions{ExpectedRevision: esdb.Any{}}, m); err != nil {
		t.Fatalf("set metadata: %v", err)
	}
}

func (s *suite) truncateBefore(t *testing.T) {
	stream := name(t)
	all := events(6)
	s.mustAppend(t, stream, eventlog.NoStream(), all...)
	s.setMetadata(t, stream, func(m *esdb.StreamMetadata) { m.SetTruncateBefore(4) })
	s.wantStream(t, stream, 4, all[4:]...)
	got, err := s.log.ReadStreamBackwards(within(t), stream, nil, 10)
	if err != nil {
		t.Fatal(err)
	}
	wantIDs(t, "backwards", ids(got), []domain.EventID{all[5].ID, all[4].ID})
	s.mustAppend(t, stream, eventlog.Exactly(5), events(1)...)
}

func (s *suite) cut(t *testing.T) {
	stream := name(t)
	all := events(6)
	s.mustAppend(t, stream, eventlog.NoStream(), all...)
	s.setMetadata(t, stream, func(m *esdb.StreamMetadata) { m.SetMaxCount(100) })
	for _, step := range []struct{ before, want uint64 }{{2, 2}, {4, 4}, {4, 4}, {3, 4}} {
		if err := s.log.SetTruncateBefore(within(t), stream, step.before); err != nil {
			t.Fatal(err)
		}
		if at, err := s.log.TruncateBefore(within(t), stream); err != nil || at != step.want {
			t.Errorf("cut before %d: cut at %d, %v; want %d", step.before, at, err, step.want)
		}
	}
	s.wantStream(t, stream, 4, all[4:]...)
	m, err := s.client.GetStreamMetadata(within(t), stream, esdb.ReadStreamOptions{Direction: esdb.Backwards, From: esdb.End{}})
	if err != nil {
		t.Fatal(err)
	}
	if m.MaxCount() == nil || *m.MaxCount() != 100 {
		t.Errorf("the cut changed the limit by count: %v", m.MaxCount())
	}
	for _, before := range []uint64{0, 1 << 63} {
		if err := s.log.SetTruncateBefore(within(t), stream, before); err == nil {
			t.Errorf("a cut before %d was taken", before)
		}
	}
	s.mustAppend(t, stream, eventlog.Exactly(5), events(1)...)
}

func (s *suite) metadataStream(t *testing.T) {
	stream := name(t)
	s.setMetadata(t, stream, func(m *esdb.StreamMetadata) { m.SetMaxCount(5) })
	s.setMetadata(t, stream, func(m *esdb.StreamMetadata) { m.SetMaxCount(7) })
	if got := s.mustRead(t, "$$"+stream); len(got) != 1 || got[0].Revision != 1 {
		t.Errorf("got %d events, want the newest only", len(got))
	}
	m, err := s.client.GetStreamMetadata(within(t), stream, esdb.ReadStreamOptions{Direction: esdb.Backwards, From: esdb.End{}})
	if err != nil {
		t.Fatal(err)
	}
	if m.MaxCount() == nil || *m.MaxCount() != 7 {
		t.Errorf("got limit %v, want 7", m.MaxCount())
	}
}

func (s *suite) softDelete(t *testing.T) {
	stream := name(t)
	all := events(5)
	s.mustAppend(t, stream, eventlog.NoStream(), all[:3]...)
	if _, err := s.client.DeleteStream(within(t), stream, esdb.DeleteStreamOptions{ExpectedRevision: esdb.Revision(2)}); err != nil {
		t.Fatal(err)
	}
	if got := s.mustRead(t, stream); len(got) != 0 {
		t.Fatalf("%d events are visible after the delete", len(got))
	}
	if at := s.mustAppend(t, stream, eventlog.NoStream(), all[3]); at.Revision != 3 {
		t.Errorf("the first event after the delete has revision %d, want 3", at.Revision)
	}
	s.mustAppend(t, stream, eventlog.Exactly(3), all[4])
	s.wantStream(t, stream, 3, all[3:]...)
}

func (s *suite) deleteExpected(t *testing.T) {
	stream := name(t)
	all := events(3)
	s.mustAppend(t, stream, eventlog.NoStream(), all...)
	if _, err := s.client.DeleteStream(within(t), stream, esdb.DeleteStreamOptions{ExpectedRevision: esdb.Revision(1)}); err == nil {
		t.Error("a delete at a wrong revision was taken")
	}
	if _, err := s.client.TombstoneStream(within(t), stream, esdb.TombstoneStreamOptions{ExpectedRevision: esdb.NoStream{}}); err == nil {
		t.Error("a tombstone at a wrong revision was taken")
	}
	s.wantStream(t, stream, 0, all...)
}

func (s *suite) tombstone(t *testing.T) {
	stream := name(t)
	s.mustAppend(t, stream, eventlog.NoStream(), events(3)...)
	if _, err := s.client.TombstoneStream(within(t), stream, esdb.TombstoneStreamOptions{ExpectedRevision: esdb.Revision(2)}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.log.ReadStream(within(t), stream, 0, 10); !errors.Is(err, eventlog.ErrStreamDeleted) {
		t.Errorf("read: got %v, want %v", err, eventlog.ErrStreamDeleted)
	}
	for _, exp := range []eventlog.Expected{eventlog.NoStream(), eventlog.Exactly(2)} {
		if _, err := s.log.Append(within(t), stream, exp, event("late")); !errors.Is(err, eventlog.ErrStreamDeleted) {
			t.Errorf("append at %s: got %v, want %v", exp, err, eventlog.ErrStreamDeleted)
		}
	}
	if err := s.log.SetMaxCount(within(t), stream, 1); err == nil {
		t.Error("metadata of a tombstoned stream was written")
	}
}

func (s *suite) links(t *testing.T) {
	stream, links := name(t), name(t)
	target := event("target")
	s.mustAppend(t, stream, eventlog.NoStream(), event("other"), target)
	link := event("link")
	link.Type, link.JSON, link.Data = "$>", false, []byte("1@"+stream)
	s.mustAppend(t, links, eventlog.NoStream(), link)
	for _, resolve := range []bool{true, false} {
		r, err := s.client.ReadStream(within(t), links, esdb.ReadStreamOptions{From: esdb.Start{}, ResolveLinkTos: resolve}, 1)
		if err != nil {
			t.Fatal(err)
		}
		e, err := r.Recv()
		r.Close()
		if err != nil {
			t.Fatal(err)
		}
		if got := domain.EventID(e.OriginalEvent().EventID); got != link.ID {
			t.Errorf("resolve %t: original event is %s, want the link", resolve, got)
		}
		want := link.ID
		if resolve {
			want = target.ID
		}
		if e.Event == nil || domain.EventID(e.Event.EventID) != want {
			t.Errorf("resolve %t: got event %+v, want %s", resolve, e.Event, want)
		}
	}
}
