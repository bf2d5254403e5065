package eventlogtest

import (
	"context"
	"slices"
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

// follow subscribes until the test ends.
func (s *suite) follow(t *testing.T, opt eventlog.SubscribeOptions) *eventlog.Subscription {
	t.Helper()
	sub, err := s.log.Subscribe(within(t), opt)
	if err != nil {
		t.Fatalf("subscribe: %v", err)
	}
	t.Cleanup(sub.Close)
	return sub
}

// take returns the next n events of sub, with whether it caught up on the way.
func take(t *testing.T, sub *eventlog.Subscription, n int) (got []domain.EventID, caughtUp bool) {
	t.Helper()
	ctx := within(t)
	for len(got) < n {
		d, err := sub.Next(ctx)
		if err != nil {
			t.Fatalf("next, after %d of %d events: %v", len(got), n, err)
		}
		caughtUp = caughtUp || d.CaughtUp
		if d.Event != nil {
			got = append(got, d.Event.ID)
			if d.Position < d.Event.Position {
				t.Errorf("delivery at position %d of an event at %d", d.Position, d.Event.Position)
			}
		}
	}
	return got, caughtUp
}

// takeCaughtUp returns the events up to the caught-up notice.
func takeCaughtUp(t *testing.T, sub *eventlog.Subscription) (got []domain.EventID) {
	t.Helper()
	ctx := within(t)
	for {
		d, err := sub.Next(ctx)
		if err != nil {
			t.Fatalf("next, after %d events: %v", len(got), err)
		}
		if d.Event != nil {
			got = append(got, d.Event.ID)
		}
		if d.CaughtUp {
			return got
		}
	}
}

func (s *suite) resume(t *testing.T) {
	stream := name(t)
	all := events(300)
	exp := eventlog.NoStream()
	for chunk := range slices.Chunk(all, 7) {
		exp = eventlog.Exactly(s.mustAppend(t, stream, exp, chunk...).Revision)
	}
	raws := s.mustRead(t, stream)
	// Inside of an append, at its end, at the last event.
	for _, i := range []int{0, 6, 100, 299} {
		sub := s.follow(t, eventlog.SubscribeOptions{Prefixes: []string{stream}, After: raws[i].Position})
		got := takeCaughtUp(t, sub)
		if !slices.Equal(got, idsOf(all[i+1:])) {
			t.Errorf("after event %d: got %d events, want %d, or another order", i, len(got), len(all)-i-1)
		}
	}
	sub := s.follow(t, eventlog.SubscribeOptions{Prefixes: []string{stream}, FromStart: true})
	wantIDs(t, "from the start", takeCaughtUp(t, sub), idsOf(all))
	// The server itself must begin after the position, not only our log.
	for _, i := range []int{0, 6, 298} {
		raw := s.raw(t, esdb.SubscribeToAllOptions{
			From:   esdb.Position{Commit: raws[i].Position, Prepare: raws[i].Position},
			Filter: &esdb.SubscriptionFilter{Type: esdb.StreamFilterType, Prefixes: []string{stream}},
		})
		e := recv(t, raw)
		for e.EventAppeared == nil {
			e = recv(t, raw)
		}
		if got := domain.EventID(e.EventAppeared.OriginalEvent().EventID); got != all[i+1].ID {
			t.Errorf("after event %d the client gets %s, want the next", i, got)
		}
	}
}

func (s *suite) prefixes(t *testing.T) {
	a, b, c := name(t), name(t), name(t)
	var want []domain.EventID
	expected := map[string]eventlog.Expected{}
	for i := range 60 {
		for _, stream := range []string{a, b, c} {
			e := event("x")
			expected[stream] = eventlog.Exactly(s.mustAppend(t, stream, expected[stream], e).Revision)
			if stream != b {
				want = append(want, e.ID)
			}
		}
		if i == 29 {
			sub := s.follow(t, eventlog.SubscribeOptions{Prefixes: []string{a, c}, FromStart: true})
			defer func() {
				got, _ := take(t, sub, 120)
				wantIDs(t, "subscribed half-way", got, want)
			}()
		}
	}
	sub := s.follow(t, eventlog.SubscribeOptions{Prefixes: []string{a, c}, FromStart: true})
	wantIDs(t, "subscribed at the end", takeCaughtUp(t, sub), want)
}

func (s *suite) caughtUp(t *testing.T) {
	stream := name(t)
	all := events(20)
	s.mustAppend(t, stream, eventlog.NoStream(), all[:5]...)
	sub := s.follow(t, eventlog.SubscribeOptions{Prefixes: []string{stream}, FromStart: true})
	wantIDs(t, "stored", takeCaughtUp(t, sub), idsOf(all[:5]))
	for i := 5; i < 20; i++ {
		s.mustAppend(t, stream, eventlog.Exactly(uint64(i-1)), all[i])
		got, again := take(t, sub, 1)
		wantIDs(t, "live", got, idsOf(all[i:i+1]))
		if again {
			t.Error("caught up a second time without a break")
		}
	}
	none := s.follow(t, eventlog.SubscribeOptions{Prefixes: []string{name(t)}, FromStart: true})
	wantIDs(t, "nothing to catch up with", takeCaughtUp(t, none), nil)
}

// raw subscribes with the unmodified client.
func (s *suite) raw(t *testing.T, opt esdb.SubscribeToAllOptions) *esdb.Subscription {
	t.Helper()
	sub, err := s.client.SubscribeToAll(within(t), opt)
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

// recv returns the next thing of a client's subscription.
func recv(t *testing.T, sub *esdb.Subscription) *esdb.SubscriptionEvent {
	t.Helper()
	e := sub.Recv()
	if e.SubscriptionDropped != nil {
		t.Fatalf("subscription dropped: %v", e.SubscriptionDropped.Error)
	}
	return e
}

func (s *suite) filters(t *testing.T) {
	stream := name(t)
	all := events(4)
	kind := "type-" + stream
	all[1].Type, all[3].Type = kind+".a", kind+".b"
	s.mustAppend(t, stream, eventlog.NoStream(), all...)
	for _, test := range []struct {
		name   string
		filter esdb.SubscriptionFilter
		want   []domain.EventID
	}{
		{"type prefix", esdb.SubscriptionFilter{Type: esdb.EventFilterType, Prefixes: []string{kind}}, []domain.EventID{all[1].ID, all[3].ID}},
		{"type expression", esdb.SubscriptionFilter{Type: esdb.EventFilterType, Regex: "^" + kind + `\.b$`}, []domain.EventID{all[3].ID}},
		{"stream expression", esdb.SubscriptionFilter{Type: esdb.StreamFilterType, Regex: "^" + stream + "$"}, idsOf(all)},
		{"stream prefix", esdb.SubscriptionFilter{Type: esdb.StreamFilterType, Prefixes: []string{"no-such", stream}}, idsOf(all)},
	} {
		t.Run(test.name, func(t *testing.T) {
			sub := s.raw(t, esdb.SubscribeToAllOptions{From: esdb.Start{}, Filter: &test.filter})
			var got []domain.EventID
			for len(got) < len(test.want) {
				if e := recv(t, sub).EventAppeared; e != nil {
					got = append(got, domain.EventID(e.OriginalEvent().EventID))
				}
			}
			wantIDs(t, "events", got, test.want)
		})
	}
}

func (s *suite) checkpoints(t *testing.T) {
	stream, other := name(t), name(t)
	from := s.mustAppend(t, stream, eventlog.NoStream(), event("first"))
	sub := s.raw(t, esdb.SubscribeToAllOptions{
		From:   esdb.Position{Commit: from.Position, Prepare: from.Position},
		Filter: &esdb.SubscriptionFilter{Type: esdb.StreamFilterType, Prefixes: []string{stream}},
	})
	for caughtUp := false; !caughtUp; {
		caughtUp = recv(t, sub).CaughtUp != nil
	}
	// Nothing of this matches: only checkpoints can tell how far the log was looked at.
	at := s.mustAppend(t, other, eventlog.NoStream(), events(200)...)
	last := uint64(0)
	for first := s.mustRead(t, other)[0].Position; last < first; {
		e := recv(t, sub)
		if e.CheckPointReached == nil {
			t.Fatalf("got %+v, want a checkpoint", e)
		}
		if e.CheckPointReached.Commit <= last {
			t.Fatalf("checkpoint %d after %d", e.CheckPointReached.Commit, last)
		}
		last = e.CheckPointReached.Commit
	}
	if last > at.Position {
		t.Errorf("checkpoint %d is past the end %d", last, at.Position)
	}
}

func (s *suite) followStream(t *testing.T) {
	stream := name(t)
	all := events(6)
	s.mustAppend(t, stream, eventlog.NoStream(), all[:4]...)
	follow := func(from esdb.StreamPosition) *esdb.Subscription {
		t.Helper()
		sub, err := s.client.SubscribeToStream(within(t), stream, esdb.SubscribeToStreamOptions{From: from})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := sub.Close(); err != nil {
				t.Error(err)
			}
		})
		return sub
	}
	subs := map[*esdb.Subscription]int{follow(esdb.Start{}): 0, follow(esdb.Revision(1)): 2, follow(esdb.End{}): 4}
	for sub, first := range subs {
		var got []domain.EventID
		for live := false; !live; {
			e := recv(t, sub)
			if e.EventAppeared != nil {
				got = append(got, domain.EventID(e.EventAppeared.OriginalEvent().EventID))
			}
			live = e.CaughtUp != nil
		}
		wantIDs(t, "stored", got, append([]domain.EventID(nil), idsOf(all[first:4])...))
	}
	s.mustAppend(t, stream, eventlog.Exactly(3), all[4:]...)
	for sub := range subs {
		for _, want := range all[4:] {
			e := recv(t, sub)
			if e.EventAppeared == nil || domain.EventID(e.EventAppeared.OriginalEvent().EventID) != want.ID {
				t.Fatalf("live: got %+v, want %s", e, want.ID)
			}
		}
	}
}

func (s *suite) restart(t *testing.T) {
	if s.target.Restart == nil {
		t.Skip("this server cannot be restarted from here")
	}
	stream := name(t)
	sub := s.follow(t, eventlog.SubscribeOptions{Prefixes: []string{stream}, FromStart: true})
	const total = 300
	all := events(total)
	failed := make(chan error, 1)
	ctx := within(t)
	go func() {
		failed <- s.appendAll(ctx, stream, all)
	}()
	got := make([]domain.EventID, 0, total)
	for i := range 3 {
		some, _ := take(t, sub, total/4)
		got = append(got, some...)
		if i < 2 {
			s.target.Restart(t)
		}
	}
	some, _ := take(t, sub, total-len(got))
	got = append(got, some...)
	if err := <-failed; err != nil {
		t.Fatalf("append across restarts: %v", err)
	}
	if !slices.Equal(got, idsOf(all)) {
		t.Error("the subscription skipped, doubled or reordered events")
	}
	s.wantStream(t, stream, 0, all...)
}

func (s *suite) appendAll(ctx context.Context, stream string, all []eventlog.Proposed) error {
	exp := eventlog.NoStream()
	for _, e := range all {
		at, err := s.log.Append(ctx, stream, exp, e)
		if err != nil {
			return err
		}
		exp = eventlog.Exactly(at.Revision)
	}
	return nil
}
