package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
)

// checkpointEvents is how many events the server considers between checkpoints: the
// client's own windows of 32.
const checkpointEvents = 32

// Subscription follows the log. Its deliveries come in log order, none twice and
// none skipped, across any number of breaks. One goroutine at a time may call
// Next.
type Subscription struct {
	log    *Log
	opt    SubscribeOptions
	cancel context.CancelFunc
	out    *deliveries
	done   chan struct{}
	err    error // Why it ended; read after done is closed.
}

// Subscribe follows the log from after opt.After, or from its start. It returns
// when the log has confirmed the subscription; ctx ends only that wait, [Log.Close]
// and [Subscription.Close] end the subscription.
func (l *Log) Subscribe(ctx context.Context, opt SubscribeOptions) (*Subscription, error) {
	if (len(opt.Prefixes) == 0) == (len(opt.Types) == 0) {
		return nil, errors.New("subscribe: either stream prefixes or event types are required")
	}
	if opt.FromStart && opt.After != 0 {
		return nil, errors.New("subscribe: from the start and after a position exclude each other")
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &Subscription{
		log: l, opt: opt, cancel: cancel,
		out: newDeliveries(), done: make(chan struct{}),
	}
	if err := l.register(s); err != nil {
		cancel()
		return nil, err
	}
	confirmed := make(chan error, 1)
	go s.run(run, confirmed)
	wait, stop := context.WithTimeout(ctx, l.cfg.ReadTimeout)
	defer stop()
	var err error
	select {
	case err = <-confirmed:
	case <-wait.Done():
		err = fmt.Errorf("subscribe: %w: %w", ErrUnavailable, wait.Err())
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (l *Log) register(s *Subscription) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	l.subscriptions[s] = struct{}{}
	return nil
}

// Next returns the next delivery. It waits while the log is unavailable; its error
// is ctx's, [ErrClosed], or that the log refuses the subscription for good.
func (s *Subscription) Next(ctx context.Context) (Delivery, error) {
	for {
		if d, ok := s.out.take(); ok {
			return d, nil
		}
		select {
		case <-s.out.ready:
		case <-s.done:
			if d, ok := s.out.take(); ok {
				return d, nil
			}
			return Delivery{}, s.err
		case <-ctx.Done():
			return Delivery{}, ctx.Err()
		}
	}
}

// Close ends the subscription and waits for its goroutine. What was not taken by
// Next is dropped. Calling it again does nothing.
func (s *Subscription) Close() {
	s.cancel()
	<-s.done
	s.log.mu.Lock()
	delete(s.log.subscriptions, s)
	s.log.mu.Unlock()
}

// follower is the state of the goroutine behind a subscription.
type follower struct {
	*Subscription

	confirmed chan<- error // Room for one: the first confirmation, or why there is none.
	last      uint64       // Position of the last event delivered, or where to begin after.
	begun     bool         // last is set.
	newest    uint64       // The newest position known to be considered.
	wait      time.Duration
}

// run subscribes again after every break, from the last event it delivered, until
// it is cancelled or refused.
func (s *Subscription) run(ctx context.Context, confirmed chan error) {
	defer close(s.done)
	f := &follower{Subscription: s, confirmed: confirmed, last: s.opt.After, begun: !s.opt.FromStart, newest: s.opt.After, wait: retryFirst}
	for {
		err := f.follow(ctx)
		if ctx.Err() != nil || errors.Is(err, ErrClosed) {
			err = ErrClosed
		} else if v := classify(err); v == unavailable || v == doubtful || v == missing {
			s.log.cfg.Logger.WarnContext(ctx, "subscription broken, subscribing again", slog.Uint64("after", f.last), slog.Any("error", err))
			if pause(ctx, s.log.pool.closed, f.wait) == nil {
				f.wait = min(2*f.wait, retryMax)
				continue
			}
			err = ErrClosed
		} else {
			err = fmt.Errorf("subscribe: %w", err)
		}
		s.err = err
		f.confirm(err)
		return
	}
}

// confirm tells who waits for the first confirmation; later ones nobody waits for. A call
// that hangs in the client may still confirm after run has ended: neither ever blocks.
func (f *follower) confirm(err error) {
	select {
	case f.confirmed <- err:
	default:
	}
}

// follow delivers from one subscription of the client until it breaks.
func (f *follower) follow(ctx context.Context) error {
	// The client's subscription lives as long as the call: it has its own goroutine
	// and the connection is not closed under it.
	_, err := call(ctx, f.log.pool, func(ctx context.Context, c *esdb.Client) (struct{}, error) {
		return struct{}{}, f.followOn(ctx, c)
	})
	return err
}

func (f *follower) followOn(ctx context.Context, c *esdb.Client) error {
	opt := esdb.SubscribeToAllOptions{
		From:               esdb.Start{},
		MaxSearchWindow:    checkpointEvents,
		CheckpointInterval: 1,
		Filter:             &esdb.SubscriptionFilter{Type: esdb.StreamFilterType, Prefixes: f.opt.Prefixes},
	}
	if len(f.opt.Types) > 0 {
		opt.Filter = &esdb.SubscriptionFilter{Type: esdb.EventFilterType, Prefixes: f.opt.Types}
	}
	if f.begun {
		opt.From = esdb.Position{Commit: f.last, Prepare: f.last}
	}
	sub, err := c.SubscribeToAll(ctx, opt)
	if err != nil {
		return err
	}
	defer sub.Close() //nolint:errcheck // It always returns nil.
	f.confirm(nil)
	f.wait = retryFirst
	for {
		e := sub.Recv()
		if e.SubscriptionDropped != nil {
			return e.SubscriptionDropped.Error
		}
		if d, ok := f.delivery(e); ok {
			if err := f.out.put(ctx, d); err != nil {
				return err
			}
		}
	}
}

// delivery turns one message of the client into a delivery, or false if it is not
// worth one.
func (f *follower) delivery(e *esdb.SubscriptionEvent) (delivered, bool) {
	switch {
	case e.EventAppeared != nil:
		r := e.EventAppeared.OriginalEvent()
		if f.begun && r.Position.Commit <= f.last {
			return delivered{}, false // Seen before the break.
		}
		f.last, f.begun = r.Position.Commit, true
		f.newest = max(f.newest, r.Position.Commit)
		return delivered{event: r, Delivery: Delivery{Position: f.newest}}, true
	case e.CheckPointReached != nil:
		if e.CheckPointReached.Commit <= f.newest {
			return delivered{}, false
		}
		f.newest = e.CheckPointReached.Commit
		return delivered{Delivery: Delivery{Position: f.newest}}, true
	case e.CaughtUp != nil:
		return delivered{Delivery: Delivery{CaughtUp: true, Position: f.newest}}, true
	}
	return delivered{}, false
}
