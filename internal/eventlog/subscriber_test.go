package eventlog_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/embedded/eventstore"
	"example.com/keytrail/internal/eventlog"
)

func subscriber(t *testing.T, l *eventlog.Log, cfg eventlog.SubscriberConfig) *eventlog.Subscriber {
	t.Helper()
	cfg.NackDelay, cfg.CheckpointInterval = time.Millisecond, time.Millisecond
	s, err := eventlog.NewSubscriber(l, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func next(t *testing.T, ch <-chan *message.Message) *message.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	select {
	case m, ok := <-ch:
		if !ok {
			t.Fatal("the channel is closed")
		}
		return m
	case <-ctx.Done():
		t.Fatal("no message came")
	}
	return nil
}

func revision(t *testing.T, m *message.Message) uint64 {
	t.Helper()
	r, err := eventlog.FromMessage(m)
	if err != nil {
		t.Fatal(err)
	}
	return r.Revision
}

// appendMany appends n events to the stream kt.a.
func appendMany(t *testing.T, l *eventlog.Log, n int) {
	t.Helper()
	const stream = "kt.a"
	exp := eventlog.NoStream()
	if last, ok, err := l.Last(t.Context(), stream); err != nil {
		t.Fatal(err)
	} else if ok {
		exp = eventlog.Exactly(last.Revision)
	}
	if _, err := l.Append(t.Context(), stream, exp, benchEvents(exp.Next()+1, n)...); err != nil {
		t.Fatal(err)
	}
}

// With a window of N, N messages are out at once, in order; the checkpoint is what
// is acknowledged without a hole; after a restart nothing is skipped and the order
// is kept.
func TestWindowDeliversInOrderAndResumesAtTheFirstHole(t *testing.T) {
	l := openLog(t, startServer(t, eventstore.Config{}))
	const window = 8
	cfg := eventlog.SubscriberConfig{Consumer: "c", Topics: map[string][]string{"t": {"kt.a"}}, Window: window}
	appendMany(t, l, 30)

	first := subscriber(t, l, cfg)
	ch, err := first.Subscribe(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	var out []*message.Message
	for i := range window {
		m := next(t, ch)
		if got := revision(t, m); got != uint64(i) {
			t.Fatalf("message %d is revision %d", i, got)
		}
		out = append(out, m)
	}
	select {
	case m := <-ch:
		t.Fatalf("revision %d came beyond the window", revision(t, m))
	case <-time.After(20 * time.Millisecond): // Long enough to be seen often; it can only miss the fault.
	}
	for _, i := range []int{0, 1, 2, 4, 5, 7} { // Not 3.
		out[i].Ack()
	}
	for _, want := range []uint64{8, 9, 10} { // The window moves with the hole, not over it.
		if got := revision(t, next(t, ch)); got != want {
			t.Fatalf("got revision %d, want %d", got, want)
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	second := subscriber(t, l, cfg)
	if ch, err = second.Subscribe(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	for want := uint64(3); want < 30; want++ {
		m := next(t, ch)
		if got := revision(t, m); got != want {
			t.Fatalf("after the restart: got revision %d, want %d", got, want)
		}
		m.Ack()
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}

	third := subscriber(t, l, cfg)
	if ch, err = third.Subscribe(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	appendMany(t, l, 1)
	if got := revision(t, next(t, ch)); got != 30 {
		t.Errorf("after everything was acknowledged: got revision %d, want 30", got)
	}
}

// A refused message comes again before anything new.
func TestRefusedMessageComesAgainFirst(t *testing.T) {
	l := openLog(t, startServer(t, eventstore.Config{}))
	appendMany(t, l, 10)
	s := subscriber(t, l, eventlog.SubscriberConfig{Consumer: "c", Topics: map[string][]string{"t": {"kt.a"}}, Window: 3})
	ch, err := s.Subscribe(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	a, b, c := next(t, ch), next(t, ch), next(t, ch)
	b.Nack()
	again := next(t, ch)
	if again.UUID != b.UUID {
		t.Fatalf("got %s, want %s again", again.UUID, b.UUID)
	}
	for _, m := range []*message.Message{a, again, c} {
		m.Ack()
	}
	for want := uint64(3); want < 10; want++ {
		m := next(t, ch)
		if got := revision(t, m); got != want {
			t.Fatalf("got revision %d, want %d", got, want)
		}
		m.Ack()
	}
}

func TestCheckpointStreamStaysShort(t *testing.T) {
	l := openLog(t, startServer(t, eventstore.Config{}))
	const total = 60
	for i := range total {
		appendMany(t, l, 1)
		s := subscriber(t, l, eventlog.SubscriberConfig{Consumer: "c", Topics: map[string][]string{"t": {"kt.a"}}})
		ch, err := s.Subscribe(t.Context(), "t")
		if err != nil {
			t.Fatal(err)
		}
		m := next(t, ch)
		if got := revision(t, m); got != uint64(i) {
			t.Fatalf("got revision %d, want %d", got, i)
		}
		m.Ack()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	stream := eventlog.CheckpointStream("c", "t")
	got, err := l.ReadStream(t.Context(), stream, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) == 0 || len(got) > 8 || got[len(got)-1].Revision != total-1 {
		t.Errorf("%d checkpoints are kept of %d", len(got), total)
	}
}

func TestMessageCarriesItsEvent(t *testing.T) {
	l := openLog(t, startServer(t, eventstore.Config{}))
	e := benchEvents(1, 1)[0]
	e.Meta = []byte(`{"v":1}`)
	if _, err := l.Append(t.Context(), "kt.a", eventlog.NoStream(), e); err != nil {
		t.Fatal(err)
	}
	s := subscriber(t, l, eventlog.SubscriberConfig{Consumer: "c", Topics: map[string][]string{"t": {"kt.a"}}})
	ch, err := s.Subscribe(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	got, err := eventlog.FromMessage(next(t, ch))
	if err != nil {
		t.Fatal(err)
	}
	want, _, err := l.Last(t.Context(), "kt.a")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("event (-want +got):\n%s", d)
	}
	if _, err := eventlog.FromMessage(message.NewMessage(watermill.NewUUID(), nil)); err == nil {
		t.Error("a message of another origin was taken for an event")
	}
}

func TestSubscriberConfigIsRefused(t *testing.T) {
	l := openLog(t, startServer(t, eventstore.Config{}))
	for _, test := range []struct {
		name string
		cfg  eventlog.SubscriberConfig
		want string
	}{
		{"no consumer", eventlog.SubscriberConfig{}, "consumer"},
		{"a slash in the consumer", eventlog.SubscriberConfig{Consumer: "a/b"}, "consumer"},
		{"negative window", eventlog.SubscriberConfig{Consumer: "c", Window: -1}, "negative"},
		{"topic without prefixes", eventlog.SubscriberConfig{Consumer: "c", Topics: map[string][]string{"t": nil}}, "prefix"},
		{"topic over the checkpoints", eventlog.SubscriberConfig{Consumer: "c", Topics: map[string][]string{"t": {"kt.", "ktx."}}}, "covers checkpoints"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := eventlog.NewSubscriber(l, test.cfg); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want it to say %q", err, test.want)
			}
		})
	}
}

func TestPublisherStoresACallWholeAndInOrder(t *testing.T) {
	l := openLog(t, startServer(t, eventstore.Config{}))
	a, b := eventlog.NewPublisher(l), eventlog.NewPublisher(l)
	var want []string
	for i := range 20 { // Two publishers take turns: each finds the stream moved on.
		var ms []*message.Message
		for range 5 {
			m := message.NewMessage(watermill.NewUUID(), []byte(fmt.Sprint(i)))
			ms, want = append(ms, m), append(want, m.UUID)
		}
		p := a
		if i%2 == 1 {
			p = b
		}
		if err := p.Publish("topic", ms...); err != nil {
			t.Fatal(err)
		}
	}
	got, err := l.ReadStream(t.Context(), eventlog.PublishedStream("topic"), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var uuids []string
	for _, r := range got {
		uuids = append(uuids, r.ID.String())
	}
	if d := cmp.Diff(want, uuids); d != "" {
		t.Errorf("stored (-want +got):\n%s", d)
	}
	if err := a.Publish("topic", message.NewMessage("no-uuid", nil)); err == nil {
		t.Error("a message without a UUID was taken")
	}
	if err := a.Publish("to/pic", message.NewMessage(watermill.NewUUID(), nil)); err == nil {
		t.Error("a topic with a slash was taken")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Publish("topic", message.NewMessage(watermill.NewUUID(), nil)); err == nil {
		t.Error("a closed publisher published")
	}
}

func TestProposedEventComesBackAsItWas(t *testing.T) {
	l := openLog(t, startServer(t, eventstore.Config{}))
	at := time.Date(2026, 3, 4, 5, 6, 7, 8e6, time.UTC)
	meta := domain.Metadata{Schema: domain.MetadataSchema, EffectiveAt: at, Initiator: domain.Initiator{IAMID: "IBMid-1"}, CorrelationID: "c"}
	event := domain.KeyLocked{}
	id := benchID(7)
	p, err := eventlog.Propose(id, event, meta)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), "kt.apikey-1", eventlog.NoStream(), p); err != nil {
		t.Fatal(err)
	}
	raw, _, err := l.Last(t.Context(), "kt.apikey-1")
	if err != nil {
		t.Fatal(err)
	}
	got, err := eventlog.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	want := domain.Recorded{
		Stream: "kt.apikey-1", Position: raw.Position, ID: id, Type: event.Type(),
		RecordedAt: raw.RecordedAt, Meta: meta, Event: event,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("recorded (-want +got):\n%s", d)
	}
	raw.Type = "no.such.v1"
	if _, err := eventlog.Decode(raw); err == nil || !strings.Contains(err.Error(), "kt.apikey-1@0") {
		t.Errorf("an unknown type: got %v, want an error that names the place", err)
	}
}
