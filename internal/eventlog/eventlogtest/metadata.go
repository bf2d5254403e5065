package eventlogtest

import (
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

// pollEvery is how often the suite looks whether time has done its work.
const pollEvery = 50 * time.Millisecond

// until looks again and again whether done holds.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx := within(t)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within %s", what, patience())
		}
	}
}

func (s *suite) maxAge(t *testing.T) {
	old, young := name(t), name(t)
	all := events(4)
	for _, stream := range []string{old, young} {
		s.mustAppend(t, stream, eventlog.NoStream(), all[:3]...)
	}
	s.setMetadata(t, young, func(m *esdb.StreamMetadata) { m.SetMaxAge(time.Hour) })
	s.setMetadata(t, old, func(m *esdb.StreamMetadata) { m.SetMaxAge(time.Second) })
	until(t, "the events are hidden by their age", func() bool { return len(s.mustRead(t, old)) == 0 })
	s.wantStream(t, young, 0, all[:3]...)
	if at := s.mustAppend(t, old, eventlog.Exactly(2), all[3]); at.Revision != 3 {
		t.Errorf("the numbering went on at %d, want 3", at.Revision)
	}
	// $all shows what the stream hides, until it is scavenged.
	s.setMetadata(t, old, func(m *esdb.StreamMetadata) { m.SetMaxAge(time.Hour) })
	s.wantStream(t, old, 0, all...)
}

func (s *suite) limitsTogether(t *testing.T) {
	stream := name(t)
	all := events(10)
	s.mustAppend(t, stream, eventlog.NoStream(), all...)
	for _, test := range []struct {
		maxCount, before uint64
		low              uint64
	}{{4, 2, 6}, {8, 5, 5}, {1, 9, 9}, {3, 100, 10}} {
		s.setMetadata(t, stream, func(m *esdb.StreamMetadata) {
			m.SetMaxCount(test.maxCount)
			m.SetTruncateBefore(test.before)
		})
		s.wantStream(t, stream, test.low, all[test.low:]...)
		back, err := s.log.ReadStreamBackwards(within(t), stream, nil, 100)
		if err != nil {
			t.Fatal(err)
		}
		want := slices.Clone(idsOf(all[test.low:]))
		slices.Reverse(want)
		if !slices.Equal(ids(back), want) {
			t.Errorf("keep %d, before %d: backwards got %d events, want %d", test.maxCount, test.before, len(back), len(want))
		}
		sub := s.rawStream(t, stream, esdb.Start{}, false)
		if got := drainStored(t, sub); !slices.Equal(got, idsOf(all[test.low:])) {
			t.Errorf("keep %d, before %d: a subscription got %d events, want %d", test.maxCount, test.before, len(got), 10-test.low)
		}
	}
}

func (s *suite) metadataKept(t *testing.T) {
	stream := name(t)
	s.mustAppend(t, stream, eventlog.NoStream(), events(3)...)
	acl := esdb.Acl{}
	acl.AddReadRoles("auditors")
	s.setMetadata(t, stream, func(m *esdb.StreamMetadata) {
		m.SetMaxCount(7)
		m.SetMaxAge(time.Hour)
		m.SetCacheControl(15 * time.Second)
		m.SetAcl(acl)
		m.AddCustomProperty("own", "kept")
	})
	read := func() *esdb.StreamMetadata {
		t.Helper()
		m, err := s.client.GetStreamMetadata(within(t), stream, esdb.ReadStreamOptions{Direction: esdb.Backwards, From: esdb.End{}})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	check := func(when string, m *esdb.StreamMetadata) {
		t.Helper()
		if m.MaxCount() == nil || *m.MaxCount() != 7 || m.MaxAge() == nil || *m.MaxAge() != time.Hour ||
			m.CacheControl() == nil || *m.CacheControl() != 15*time.Second || m.CustomProperty("own") != "kept" || m.StreamAcl() == nil {
			t.Errorf("%s: metadata is %+v", when, m)
		}
	}
	check("as set", read())
	if _, err := s.client.DeleteStream(within(t), stream, esdb.DeleteStreamOptions{ExpectedRevision: esdb.Revision(2)}); err != nil {
		t.Fatal(err)
	}
	before := func(when string, want int64) { // The client reads a number this large as a float.
		t.Helper()
		var m struct {
			TB int64 `json:"$tb"`
		}
		raws := s.mustRead(t, "$$"+stream)
		if err := json.Unmarshal(raws[len(raws)-1].Data, &m); err != nil || m.TB != want {
			t.Errorf("%s: $tb is %d, %v, want %d", when, m.TB, err, want)
		}
	}
	check("after a soft delete", read())
	before("after a soft delete", 1<<63-1)
	s.mustAppend(t, stream, eventlog.NoStream(), event("again"))
	check("after the stream came back", read())
	before("after the stream came back", 3)
}

// What is no number, or no JSON at all, hides nothing and breaks nothing.
func (s *suite) oddMetadata(t *testing.T) {
	for _, data := range []string{`{"$maxCount":"3"}`, `{"$maxCount":-1,"$tb":null}`, `[]`, `null`, `not JSON`, `{"own":{"$maxCount":1}}`} {
		stream := name(t)
		all := events(5)
		s.mustAppend(t, stream, eventlog.NoStream(), all...)
		e := event("metadata")
		e.Type, e.Data, e.JSON = "$metadata", []byte(data), json.Valid([]byte(data))
		if _, err := s.client.AppendToStream(within(t), "$$"+stream, esdb.AppendToStreamOptions{ExpectedRevision: esdb.NoStream{}}, eventData([]eventlog.Proposed{e})...); err != nil {
			continue // Refused is as good.
		}
		got := s.mustRead(t, stream)
		if !slices.Equal(ids(got), idsOf(all)) {
			t.Errorf("metadata %q hides %d of %d events", data, len(all)-len(got), len(all))
		}
	}
}

// systemEvents: what the server and clients do to streams is in the log too.
func (s *suite) systemEvents(t *testing.T) {
	soft, hard := name(t), name(t)
	sub := s.raw(t, esdb.SubscribeToAllOptions{
		From:   esdb.Start{},
		Filter: &esdb.SubscriptionFilter{Type: esdb.StreamFilterType, Prefixes: []string{soft, hard, "$$" + soft}},
	})
	s.mustAppend(t, soft, eventlog.NoStream(), events(1)...)
	s.setMetadata(t, soft, func(m *esdb.StreamMetadata) { m.SetMaxCount(5) })
	if _, err := s.client.DeleteStream(within(t), soft, esdb.DeleteStreamOptions{ExpectedRevision: esdb.Revision(0)}); err != nil {
		t.Fatal(err)
	}
	s.mustAppend(t, hard, eventlog.NoStream(), events(2)...)
	if _, err := s.client.TombstoneStream(within(t), hard, esdb.TombstoneStreamOptions{ExpectedRevision: esdb.Revision(1)}); err != nil {
		t.Fatal(err)
	}
	type seen struct {
		Stream, Type string
		Revision     uint64
	}
	want := []seen{
		{soft, "test.v1", 0},
		{"$$" + soft, "$metadata", 0},
		{"$$" + soft, "$metadata", 1},
		{hard, "test.v1", 0},
		{hard, "test.v1", 1},
		{hard, "$streamDeleted", 1<<63 - 1},
	}
	var got []seen
	for len(got) < len(want) {
		if e := recv(t, sub).EventAppeared; e != nil {
			o := e.OriginalEvent()
			got = append(got, seen{o.StreamID, o.EventType, o.EventNumber})
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the log (-want +got):\n%s", d)
	}
	// A read of the log shows them, too: near its end, whoever else writes.
	r, err := s.client.ReadAll(within(t), esdb.ReadAllOptions{From: esdb.End{}, Direction: esdb.Backwards}, 500)
	if err != nil {
		t.Fatal(err)
	}
	system := 0
	for _, e := range readResolved(t, r) {
		if o := e.OriginalEvent(); o.StreamID == "$$"+soft || o.StreamID == hard && o.EventType == "$streamDeleted" {
			system++
		}
	}
	if system != 3 {
		t.Errorf("a read of the log shows %d of 3 system events", system)
	}
}

// rawStream subscribes to one stream with the unmodified client.
func (s *suite) rawStream(t *testing.T, stream string, from esdb.StreamPosition, resolve bool) *esdb.Subscription {
	t.Helper()
	sub, err := s.client.SubscribeToStream(within(t), stream, esdb.SubscribeToStreamOptions{From: from, ResolveLinkTos: resolve})
	if err != nil {
		t.Fatalf("subscribe: %v", err)
	}
	t.Cleanup(func() {
		if err := sub.Close(); err != nil {
			t.Error(err)
		}
	})
	return sub
}

// drainStored returns the events up to the caught-up notice.
func drainStored(t *testing.T, sub *esdb.Subscription) (got []domain.EventID) {
	t.Helper()
	for {
		e := recv(t, sub)
		if e.EventAppeared != nil {
			got = append(got, domain.EventID(e.EventAppeared.OriginalEvent().EventID))
		}
		if e.CaughtUp != nil {
			return got
		}
	}
}

// linkTo returns an event that stands for another.
func linkTo(target string) eventlog.Proposed {
	link := event("link")
	link.Type, link.JSON, link.Data = "$>", false, []byte(target)
	return link
}

// linksEverywhere: reads and subscriptions, of a stream and of $all, show the target
// beside the link when asked to, and the link alone where there is no target.
func (s *suite) linksEverywhere(t *testing.T) {
	stream, gone, links := name(t), name(t), name(t)
	target := event("target")
	s.mustAppend(t, stream, eventlog.NoStream(), event("other"), target)
	s.mustAppend(t, gone, eventlog.NoStream(), event("hidden"), event("shown"))
	s.setMetadata(t, gone, func(m *esdb.StreamMetadata) { m.SetTruncateBefore(1) })
	all := []eventlog.Proposed{linkTo("1@" + stream), linkTo("7@" + stream), linkTo("0@" + name(t)), linkTo("0@" + gone), linkTo("nonsense")}
	s.mustAppend(t, links, eventlog.NoStream(), all...)
	check := func(how string, resolve bool, got []*esdb.ResolvedEvent) {
		t.Helper()
		if len(got) != len(all) {
			t.Fatalf("%s: %d events, want %d", how, len(got), len(all))
		}
		for i, e := range got {
			if o := e.OriginalEvent(); domain.EventID(o.EventID) != all[i].ID || o.StreamID != links {
				t.Errorf("%s: event %d is %s of %s, want the link", how, i, o.EventID, o.StreamID)
			}
			switch {
			case !resolve:
				if e.Event == nil || e.Link != nil || domain.EventID(e.Event.EventID) != all[i].ID {
					t.Errorf("%s: event %d is resolved: %+v", how, i, e)
				}
			case i == 0:
				if e.Link == nil || e.Event == nil || domain.EventID(e.Event.EventID) != target.ID || e.Event.StreamID != stream || e.Event.EventNumber != 1 {
					t.Errorf("%s: event %d is %+v, want the target", how, i, e)
				}
			case e.Link == nil || e.Event != nil:
				t.Errorf("%s: event %d is %+v, want the link alone", how, i, e)
			}
		}
	}
	for _, resolve := range []bool{true, false} {
		r, err := s.client.ReadStream(within(t), links, esdb.ReadStreamOptions{From: esdb.Start{}, ResolveLinkTos: resolve}, 100)
		if err != nil {
			t.Fatal(err)
		}
		check("read", resolve, readResolved(t, r))
		check("subscription", resolve, nextResolved(t, s.rawStream(t, links, esdb.Start{}, resolve), len(all)))
		check("subscription to $all", resolve, nextResolved(t, s.raw(t, esdb.SubscribeToAllOptions{
			From: esdb.Start{}, ResolveLinkTos: resolve,
			Filter: &esdb.SubscriptionFilter{Type: esdb.StreamFilterType, Prefixes: []string{links}},
		}), len(all)))
	}
}

func readResolved(t *testing.T, r *esdb.ReadStream) (got []*esdb.ResolvedEvent) {
	t.Helper()
	defer r.Close()
	for {
		e, err := r.Recv()
		if errors.Is(err, io.EOF) {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e)
	}
}

func nextResolved(t *testing.T, sub *esdb.Subscription, n int) (got []*esdb.ResolvedEvent) {
	t.Helper()
	for len(got) < n {
		if e := recv(t, sub).EventAppeared; e != nil {
			got = append(got, e)
		}
	}
	return got
}

// A tombstone ends those who follow, and says why.
func (s *suite) tombstoneEndsFollowers(t *testing.T) {
	stream := name(t)
	s.mustAppend(t, stream, eventlog.NoStream(), events(2)...)
	sub := s.rawStream(t, stream, esdb.Start{}, false)
	drainStored(t, sub)
	if _, err := s.client.TombstoneStream(within(t), stream, esdb.TombstoneStreamOptions{ExpectedRevision: esdb.Any{}}); err != nil {
		t.Fatal(err)
	}
	for {
		e := sub.Recv()
		if d := e.SubscriptionDropped; d != nil {
			if !strings.Contains(d.Error.Error(), "is deleted") {
				t.Errorf("the subscription ended with %v", d.Error)
			}
			break
		}
	}
	r, err := s.client.ReadStream(within(t), stream, esdb.ReadStreamOptions{From: esdb.Start{}}, 10)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Recv(); !hasCode(err, esdb.ErrorCodeStreamDeleted) || !strings.Contains(err.Error(), stream) {
		t.Errorf("read: got %v, want that %s is deleted", err, stream)
	}
	for _, exp := range []esdb.ExpectedRevision{esdb.Any{}, esdb.StreamExists{}, esdb.NoStream{}, esdb.Revision(1)} {
		_, err := s.client.AppendToStream(within(t), stream, esdb.AppendToStreamOptions{ExpectedRevision: exp}, eventData(events(1))...)
		if !hasCode(err, esdb.ErrorCodeStreamDeleted) {
			t.Errorf("append at %v: got %v", exp, err)
		}
	}
}
