package eventlog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Log is a connection to the event log. It is safe for concurrent use. It
// reconnects by itself.
type Log struct {
	cfg  Config
	pool *pool

	mu            sync.Mutex // Guards all below.
	subscriptions map[*Subscription]struct{}
	heads         map[string]knownHead // By prefixes.
	closed        bool
}

// Open connects to the event log. It fails at once with a clear error if the
// configuration is wrong, and after cfg.ReadTimeout if nobody answers.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	cfg.setDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	l := &Log{cfg: cfg, pool: newPool(cfg), subscriptions: make(map[*Subscription]struct{}), heads: make(map[string]knownHead)}
	if err := l.newest(ctx, 1, func(Raw) bool { return true }); err != nil {
		return nil, errors.Join(fmt.Errorf("open event log: %w", err), l.Close())
	}
	return l, nil
}

// Close ends every subscription, waits for the calls in flight and closes the
// connection. Calling it again does nothing.
func (l *Log) Close() error {
	l.mu.Lock()
	l.closed = true
	open := make([]*Subscription, 0, len(l.subscriptions))
	for s := range l.subscriptions {
		open = append(open, s)
	}
	l.mu.Unlock()
	for _, s := range open {
		s.Close()
	}
	return l.pool.close(max(l.cfg.AppendTimeout, l.cfg.ReadTimeout) + time.Second)
}

const (
	retryFirst = 5 * time.Millisecond
	retryMax   = 500 * time.Millisecond
)

// retry runs try until it says that it is done or ctx ends. It returns try's last
// error.
func (l *Log) retry(ctx context.Context, try func() (done bool, err error)) error {
	wait := retryFirst
	for {
		done, err := try()
		if done || errors.Is(err, ErrClosed) {
			return err
		}
		if pause(ctx, l.pool.closed, wait) != nil {
			return err
		}
		wait = min(2*wait, retryMax)
	}
}

// pause waits for d, or returns an error when ctx or closed ends first.
func pause(ctx context.Context, closed <-chan struct{}, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-closed:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}
