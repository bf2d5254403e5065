package eventlogtest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/google/uuid"

	"example.com/keytrail/internal/eventlog"
)

func (s *suite) appendInOrder(t *testing.T) {
	stream := name(t)
	all := events(5)
	all[1].JSON, all[1].Data, all[1].Meta = false, []byte{0, 0xff, 1}, []byte{}
	at := s.mustAppend(t, stream, eventlog.NoStream(), all[:2]...)
	if at.Revision != 1 || at.Position == 0 {
		t.Errorf("append answered %+v, want revision 1 and a position", at)
	}
	at = s.mustAppend(t, stream, eventlog.Exactly(1), all[2:]...)
	if at.Revision != 4 {
		t.Errorf("append answered revision %d, want 4", at.Revision)
	}
	s.wantStream(t, stream, 0, all...)
	if got := s.mustRead(t, stream)[4].Position; got != at.Position {
		t.Errorf("last event is at position %d, append said %d", got, at.Position)
	}
}

func (s *suite) wrongRevision(t *testing.T) {
	three := events(3)
	for _, test := range []struct {
		name         string
		exp, actual  eventlog.Expected
		given, wants []eventlog.Proposed
	}{
		{name: "none expected, some there", given: three, exp: eventlog.NoStream(), actual: eventlog.Exactly(2), wants: three},
		{name: "behind", given: three, exp: eventlog.Exactly(1), actual: eventlog.Exactly(2), wants: three},
		{name: "ahead", given: three, exp: eventlog.Exactly(3), actual: eventlog.Exactly(2), wants: three},
		{name: "some expected, none there", exp: eventlog.Exactly(0), actual: eventlog.NoStream()},
	} {
		t.Run(test.name, func(t *testing.T) {
			stream := name(t)
			if len(test.given) > 0 {
				s.mustAppend(t, stream, eventlog.NoStream(), test.given...)
			}
			_, err := s.log.Append(within(t), stream, test.exp, event("new"))
			var wrong *eventlog.WrongRevision
			if !errors.As(err, &wrong) {
				t.Fatalf("append at %s: got %v, want a wrong revision", test.exp, err)
			}
			if wrong.Stream != stream || wrong.Expected != test.exp || wrong.Actual != test.actual {
				t.Errorf("got %+v, want actual %s", wrong, test.actual)
			}
			s.wantStream(t, stream, 0, test.wants...)
			// The server itself must refuse, and say where the stream is.
			var raw esdb.ExpectedRevision = esdb.NoStream{}
			if rev, ok := test.exp.Revision(); ok {
				raw = esdb.Revision(rev)
			}
			actual := "'no_stream'"
			if rev, ok := test.actual.Revision(); ok {
				actual = fmt.Sprintf("'%d'", rev)
			}
			if _, err := s.server(t, stream, raw, event("new")); !hasCode(err, esdb.ErrorCodeWrongExpectedVersion) || !strings.Contains(err.Error(), "but got "+actual) {
				t.Errorf("the client got %v, want that the stream is at %s", err, actual)
			}
		})
	}
}

func (s *suite) repeat(t *testing.T) {
	stream := name(t)
	all := events(7)
	first := s.mustAppend(t, stream, eventlog.NoStream(), all[:3]...)
	second := s.mustAppend(t, stream, eventlog.Exactly(2), all[3:5]...)
	s.mustAppend(t, stream, eventlog.Exactly(4), all[5:]...)
	if again := s.mustAppend(t, stream, eventlog.NoStream(), all[:3]...); again != first {
		t.Errorf("repeat answered %+v, want %+v", again, first)
	}
	if again := s.mustAppend(t, stream, eventlog.Exactly(2), all[3:5]...); again != second {
		t.Errorf("repeat answered %+v, want %+v", again, second)
	}
	// The server itself must see the repeat, not only our log.
	res, err := s.client.AppendToStream(within(t), stream, esdb.AppendToStreamOptions{ExpectedRevision: esdb.Revision(2)}, eventData(all[3:5])...)
	if err != nil {
		t.Fatalf("repeat by the client: %v", err)
	}
	if res.NextExpectedVersion != second.Revision {
		t.Errorf("repeat by the client answered revision %d, want %d", res.NextExpectedVersion, second.Revision)
	}
	s.wantStream(t, stream, 0, all...)
}

func eventData(events []eventlog.Proposed) []esdb.EventData {
	out := make([]esdb.EventData, len(events))
	for i, e := range events {
		out[i] = esdb.EventData{EventID: uuid.UUID(e.ID), EventType: e.Type, ContentType: esdb.ContentTypeJson, Data: e.Data, Metadata: e.Meta}
	}
	return out
}

func (s *suite) noRepeat(t *testing.T) {
	all := events(4)
	for _, test := range []struct {
		name   string
		exp    eventlog.Expected
		events []eventlog.Proposed
	}{
		{"another id", eventlog.Exactly(1), events(1)},
		{"the same ids in another order", eventlog.Exactly(1), []eventlog.Proposed{all[3], all[2]}},
		{"the same ids and one more", eventlog.Exactly(1), append(slices.Clone(all[2:]), event("more"))},
		{"the same ids at another place", eventlog.NoStream(), all[2:]},
	} {
		t.Run(test.name, func(t *testing.T) {
			stream := name(t)
			s.mustAppend(t, stream, eventlog.NoStream(), all...)
			_, err := s.log.Append(within(t), stream, test.exp, test.events...)
			if !errors.As(err, new(*eventlog.WrongRevision)) {
				t.Errorf("got %v, want a wrong revision", err)
			}
			s.wantStream(t, stream, 0, all...)
		})
	}
}

func (s *suite) anyAndExists(t *testing.T) {
	stream := name(t)
	all := events(3)
	exists := esdb.AppendToStreamOptions{ExpectedRevision: esdb.StreamExists{}}
	if _, err := s.client.AppendToStream(within(t), stream, exists, eventData(all[:1])...); !hasCode(err, esdb.ErrorCodeWrongExpectedVersion) {
		t.Errorf("append to a missing stream that should exist: got %v", err)
	}
	for i := range all {
		opt := esdb.AppendToStreamOptions{ExpectedRevision: esdb.Any{}}
		if i == 2 {
			opt = exists
		}
		for range 2 { // The second time is a repeat.
			res, err := s.client.AppendToStream(within(t), stream, opt, eventData(all[i:i+1])...)
			if err != nil {
				t.Fatalf("append %d: %v", i, err)
			}
			if res.NextExpectedVersion != uint64(i) {
				t.Errorf("append %d answered revision %d", i, res.NextExpectedVersion)
			}
		}
	}
	s.wantStream(t, stream, 0, all...)
}

func hasCode(err error, code esdb.ErrorCode) bool {
	var e *esdb.Error
	return errors.As(err, &e) && e.IsErrorCode(code)
}

func (s *suite) positions(t *testing.T) {
	a, b := name(t), name(t)
	var last eventlog.Raw
	expA, expB := eventlog.NoStream(), eventlog.NoStream()
	for range 5 {
		expA = eventlog.Exactly(s.mustAppend(t, a, expA, events(3)...).Revision)
		expB = eventlog.Exactly(s.mustAppend(t, b, expB, events(2)...).Revision)
	}
	rawsA, rawsB := s.mustRead(t, a), s.mustRead(t, b)
	for i := range 5 {
		for _, r := range slices.Concat(rawsA[3*i:3*i+3], rawsB[2*i:2*i+2]) {
			if r.Position <= last.Position+1 { // Nobody may rely on the next one being one more.
				t.Fatalf("position %d after %d", r.Position, last.Position)
			}
			if r.RecordedAt.Before(last.RecordedAt) {
				t.Fatalf("recorded at %s after %s", r.RecordedAt, last.RecordedAt)
			}
			last = r
		}
	}
}

func (s *suite) tooLarge(t *testing.T) {
	stream := name(t)
	limit := s.target.MaxAppendBytes
	e := event("")
	e.Meta = []byte{}
	e.JSON = false
	e.Data = bytes.Repeat([]byte("x"), limit-2*len(e.Type)+1)
	if _, err := s.log.Append(within(t), stream, eventlog.NoStream(), e); !errors.Is(err, eventlog.ErrTooLarge) {
		t.Errorf("one byte too many: got %v, want %v", err, eventlog.ErrTooLarge)
	}
	// Half of it twice: the limit is on the append, not on the event; and the server
	// must hold it too.
	half := eventlog.Proposed{ID: e.ID, Type: e.Type, Data: e.Data[:limit/2+1]}
	other := half
	other.ID = event("").ID
	if _, err := s.client.AppendToStream(within(t), stream, esdb.AppendToStreamOptions{ExpectedRevision: esdb.NoStream{}}, eventData([]eventlog.Proposed{half, other})...); err == nil {
		t.Error("the server took an append over its limit")
	}
	if got := s.mustRead(t, stream); len(got) != 0 {
		t.Fatalf("%d events are stored of refused appends", len(got))
	}
	e.Data = e.Data[1:]
	s.mustAppend(t, stream, eventlog.NoStream(), e)
	s.wantStream(t, stream, 0, e)
}
