package eventlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"example.com/keytrail/domain"
)

const (
	defaultCheckpointInterval = 250 * time.Millisecond
	defaultNackDelay          = 10 * time.Millisecond
)

// SubscriberConfig says who consumes what, and how much at once.
type SubscriberConfig struct {
	// Consumer names the checkpoints. Two subscribers of one name are safe (both
	// get everything since the checkpoint) but no use.
	Consumer string
	// Topics maps a topic to the stream prefixes that it filters. A topic that is
	// not listed is what a [Publisher] publishes under that name.
	Topics map[string][]string
	// Window is how many messages may be out and not acknowledged. Default 1: the
	// next message comes when this one is acknowledged. Above 1, first deliveries
	// still come in log order, and a refused message comes again before any new one.
	Window int
	// CheckpointInterval is the least time between two stored checkpoints. Default
	// 250 ms. A crash repeats what was acknowledged since the last one.
	CheckpointInterval time.Duration
	// NackDelay is how long a refused message waits. Default 10 ms.
	NackDelay time.Duration
}

func (c *SubscriberConfig) setDefaults() {
	if c.Window == 0 {
		c.Window = 1
	}
	if c.CheckpointInterval == 0 {
		c.CheckpointInterval = defaultCheckpointInterval
	}
	if c.NackDelay == 0 {
		c.NackDelay = defaultNackDelay
	}
}

// Validate reports everything that is wrong with c, joined.
func (c SubscriberConfig) Validate() error {
	var errs []error
	if !domain.ValidID(c.Consumer) {
		errs = append(errs, fmt.Errorf("subscriber: consumer %q is not 1 to 128 letters, digits and -_.:@", c.Consumer))
	}
	if c.Window < 0 || c.CheckpointInterval < 0 || c.NackDelay < 0 {
		errs = append(errs, errors.New("subscriber: window, checkpoint interval and nack delay must not be negative"))
	}
	for topic, prefixes := range c.Topics {
		if !domain.ValidID(topic) || len(prefixes) == 0 {
			errs = append(errs, fmt.Errorf("subscriber: topic %q needs a valid name and at least one prefix", topic))
		}
		for _, p := range prefixes {
			if strings.HasPrefix(checkpointStreams, p) || strings.HasPrefix(p, checkpointStreams) {
				errs = append(errs, fmt.Errorf("subscriber: topic %q covers checkpoints (prefix %q): each one stored would cause the next", topic, p))
			}
		}
	}
	return errors.Join(errs...)
}

// Subscriber is watermill's subscriber over the log: persistent, in order, at
// least once. It is safe for concurrent use.
type Subscriber struct {
	log *Log
	cfg SubscriberConfig

	mu      sync.Mutex // Guards closed, and adding to running.
	closed  bool
	closing chan struct{}
	running sync.WaitGroup
}

var _ message.Subscriber = (*Subscriber)(nil)

// NewSubscriber returns a subscriber over log, which it does not close.
func NewSubscriber(log *Log, cfg SubscriberConfig) (*Subscriber, error) {
	cfg.setDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Subscriber{log: log, cfg: cfg, closing: make(chan struct{})}, nil
}

// Subscribe delivers the topic's messages from after the consumer's checkpoint
// until ctx or the subscriber ends; then the checkpoint is stored and the channel
// closed. The channel is closed too if the log refuses the subscription for good.
func (s *Subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	if !domain.ValidID(topic) {
		return nil, fmt.Errorf("subscribe: topic %q is not 1 to 128 letters, digits and -_.:@", topic)
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, fmt.Errorf("subscribe to %s: %w", topic, ErrClosed)
	}
	s.running.Add(1)
	s.mu.Unlock()

	d, err := s.start(ctx, topic)
	if err != nil {
		s.running.Done()
		return nil, fmt.Errorf("subscribe to %s: %w", topic, err)
	}
	go func() { //nolint:contextcheck // d runs under a context that start made from ctx.
		defer s.running.Done()
		d.run()
	}()
	return d.out, nil
}

func (s *Subscriber) start(ctx context.Context, topic string) (*dispatcher, error) {
	prefixes, ok := s.cfg.Topics[topic]
	if !ok {
		prefixes = []string{PublishedStream(topic)}
	}
	checkpoint, err := loadCheckpoint(ctx, s.log, CheckpointStream(s.cfg.Consumer, topic), s.cfg.CheckpointInterval)
	if err != nil {
		return nil, err
	}
	sub, err := s.log.Subscribe(ctx, SubscribeOptions{Prefixes: prefixes, After: checkpoint.stored})
	if err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(ctx)
	return &dispatcher{
		cfg: s.cfg, topic: topic, logger: s.log.cfg.Logger, sub: sub, checkpoint: checkpoint,
		ctx: run, cancel: cancel, closing: s.closing,
		out: make(chan *message.Message), settled: make(chan settlement, s.cfg.Window),
	}, nil
}

// Close ends all subscriptions, stores their checkpoints and closes their
// channels. Calling it again does nothing.
func (s *Subscriber) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.closing)
	}
	s.mu.Unlock()
	s.running.Wait()
	return nil
}

// dispatcher hands the events of one subscription to one consumer.
type dispatcher struct {
	cfg        SubscriberConfig
	topic      string
	logger     *slog.Logger
	sub        *Subscription
	checkpoint *checkpointer
	ctx        context.Context //nolint:containedctx // The subscription's, which watermill wants in every message.
	cancel     context.CancelFunc
	closing    <-chan struct{}
	out        chan *message.Message
	settled    chan settlement
	waiters    sync.WaitGroup

	// All below belongs to run.
	flying []*flight // Taken from the log and not yet covered by the checkpoint, in log order.
	again  []*flight // Refused, to be sent before anything new.
	next   *flight   // To be sent now.
}

// flight is one event on its way through the consumer.
type flight struct {
	raw   Raw
	acked bool
}

// settlement says what the consumer did with a message.
type settlement struct {
	flight *flight
	acked  bool
}

// run dispatches until it is told to end.
func (d *dispatcher) run() {
	var storing sync.WaitGroup
	storeCtx, stopStoring := context.WithCancel(context.WithoutCancel(d.ctx))
	storing.Go(func() { d.checkpoint.run(storeCtx) })
	defer func() {
		d.cancel() // Ends the contexts of messages that are still out.
		d.waiters.Wait()
		d.land()
		d.sub.Close()
		stopStoring()
		storing.Wait()
		close(d.out)
	}()
	for d.step() {
	}
}

// step waits for the next thing to happen and does it.
func (d *dispatcher) step() bool {
	if d.next == nil && len(d.again) > 0 {
		d.next, d.again = d.again[0], d.again[1:]
	}
	var out chan<- *message.Message
	var m *message.Message
	var cancel context.CancelFunc
	var in <-chan struct{}
	switch {
	case d.next != nil:
		out = d.out
		m = messageOf(d.next.raw)
		var ctx context.Context
		ctx, cancel = context.WithCancel(d.ctx)
		m.SetContext(ctx)
	case len(d.flying) < d.cfg.Window:
		if v, ok := d.sub.out.take(); ok {
			if v.Event != nil {
				d.next = &flight{raw: *v.Event}
				d.flying = append(d.flying, d.next)
			}
			return true
		}
		in = d.sub.out.ready
	}
	sent := false
	defer func() {
		if cancel != nil && !sent {
			cancel()
		}
	}()
	select {
	case out <- m:
		sent = true
		d.watch(d.next, m, cancel)
		d.next = nil
	case <-in: // There is something to take.
	case s := <-d.settled:
		d.settle(s)
	case <-d.sub.done:
		if !errors.Is(d.sub.err, ErrClosed) {
			d.logger.ErrorContext(d.ctx, "subscription ended", slog.String("topic", d.topic), slog.Any("error", d.sub.err))
		}
		return false
	case <-d.closing:
		return false
	case <-d.ctx.Done():
		return false
	}
	return true
}

// watch reports what becomes of a message, and ends its context then.
func (d *dispatcher) watch(f *flight, m *message.Message, cancel context.CancelFunc) {
	d.waiters.Go(func() {
		defer cancel()
		select {
		case <-m.Acked():
			d.settled <- settlement{flight: f, acked: true} // Never blocks: one place a flight.
		case <-m.Nacked():
			if pause(d.ctx, d.closing, d.cfg.NackDelay) == nil {
				d.settled <- settlement{flight: f}
			}
		case <-d.ctx.Done():
			select { // What was acknowledged before the end counts.
			case <-m.Acked():
				d.settled <- settlement{flight: f, acked: true}
			default:
			}
		}
	})
}

func (d *dispatcher) settle(s settlement) {
	if !s.acked {
		d.again = append(d.again, s.flight)
		if d.next != nil { // Not out yet: the refused one goes first.
			d.again, d.next = append(d.again, d.next), nil
		}
		slices.SortFunc(d.again, func(a, b *flight) int { return cmp.Compare(a.raw.Position, b.raw.Position) })
		return
	}
	s.flight.acked = true
	n := 0
	for n < len(d.flying) && d.flying[n].acked {
		n++
	}
	if n > 0 {
		d.checkpoint.reached(d.flying[n-1].raw.Position)
		d.flying = d.flying[n:]
	}
}

// land takes in what was settled before the end.
func (d *dispatcher) land() {
	for {
		select {
		case s := <-d.settled:
			d.settle(s)
		default:
			return
		}
	}
}
