package eventlog

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"example.com/keytrail/domain"
)

// topicStreams begins the names of the streams that publishers write.
const topicStreams = domain.MachineryPrefix + "topic-"

// PublishedStream returns the stream that a [Publisher] writes topic to. The slash
// ends the name, so that it is no prefix of another topic's.
func PublishedStream(topic string) string { return topicStreams + topic + "/" }

// Publisher is watermill's publisher over the log: machinery only, since evidence
// is appended by commands. It is safe for concurrent use.
type Publisher struct {
	log *Log

	mu     sync.Mutex // Guards all below.
	topics map[string]*publishedTopic
	closed bool
}

// publishedTopic is where one topic's stream ends, as far as this publisher knows.
type publishedTopic struct {
	mu     sync.Mutex // Held during an append: it guards the two below.
	known  bool
	expect Expected
}

var _ message.Publisher = (*Publisher)(nil)

// NewPublisher returns a publisher over log, which it does not close.
func NewPublisher(log *Log) *Publisher {
	return &Publisher{log: log, topics: make(map[string]*publishedTopic)}
}

// Publish appends messages to the topic's stream; when it returns nil they are
// durable. Those of one call that fit one append are stored together or not at
// all. A message's UUID becomes the event's id. After an error under
// [ErrOutcomeUnknown], publishing the same messages again stores none twice, as
// long as this publisher published nothing else to the topic.
func (p *Publisher) Publish(topic string, messages ...*message.Message) error {
	if !domain.ValidID(topic) {
		return fmt.Errorf("publish: topic %q is not 1 to 128 letters, digits and -_.:@", topic)
	}
	t, err := p.topic(topic)
	if err != nil {
		return err
	}
	batches, err := p.batches(messages)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, b := range batches {
		if err := p.append(b.ctx, t, PublishedStream(topic), b.events); err != nil {
			return fmt.Errorf("publish to %s: %w", topic, err)
		}
	}
	return nil
}

func (p *Publisher) topic(name string) (*publishedTopic, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("publish to %s: %w", name, ErrClosed)
	}
	t, ok := p.topics[name]
	if !ok {
		t = &publishedTopic{}
		p.topics[name] = t
	}
	return t, nil
}

type batch struct {
	ctx    context.Context //nolint:containedctx // Watermill's messages carry theirs.
	events []Proposed
}

// batches cuts messages into appends that the server takes.
func (p *Publisher) batches(messages []*message.Message) ([]batch, error) {
	var out []batch
	sizeBytes := 0
	for _, m := range messages {
		e, err := proposedOf(m)
		if err != nil {
			return nil, err
		}
		n := len(e.Data) + len(e.Meta) + 2*len(e.Type)
		if sizeBytes += n; len(out) == 0 || sizeBytes > p.log.cfg.MaxAppendBytes {
			out = append(out, batch{ctx: m.Context()})
			sizeBytes = n
		}
		last := &out[len(out)-1]
		last.events = append(last.events, e)
	}
	return out, nil
}

// append puts events at the end of the stream, wherever other publishers have
// moved it.
func (p *Publisher) append(ctx context.Context, t *publishedTopic, stream string, events []Proposed) error {
	if !t.known {
		last, ok, err := p.log.Last(ctx, stream)
		if err != nil {
			return err
		}
		t.known, t.expect = true, NoStream()
		if ok {
			t.expect = Exactly(last.Revision)
		}
	}
	for {
		at, err := p.log.Append(ctx, stream, t.expect, events...)
		if wrong := (*WrongRevision)(nil); errors.As(err, &wrong) {
			if ctx.Err() != nil {
				return err
			}
			t.expect = wrong.Actual
			continue
		}
		if err != nil {
			return err
		}
		t.expect = Exactly(at.Revision)
		return nil
	}
}

// Close makes further calls of Publish fail. It waits for nothing: Publish returns
// only when it is done.
func (p *Publisher) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return nil
}
