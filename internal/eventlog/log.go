package eventlog

import (
	"context"
	"errors"
)

// Log is a connection to the event log. It is safe for concurrent use.
type Log struct {
	cfg Config
}

// Subscription follows the log. One goroutine at a time may call Next.
type Subscription struct{}

// Open connects to the event log and fails with a clear error if it cannot.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	cfg.setDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return nil, errors.ErrUnsupported
}

// Close ends every subscription, waits for the calls in flight and closes the connection.
func (l *Log) Close() error { return errors.ErrUnsupported }

// Append stores events in one transaction at the end of stream. When it returns
// nil they are durable. It repeats itself while the log is unavailable, until
// its timeout; such repeats cannot store anything twice.
func (l *Log) Append(ctx context.Context, stream string, exp Expected, events ...Proposed) (Appended, error) {
	return Appended{}, errors.ErrUnsupported
}

// ReadStream returns at most limit events, the first at revision from or after. A missing stream has none.
func (l *Log) ReadStream(ctx context.Context, stream string, from uint64, limit int) ([]Raw, error) {
	return nil, errors.ErrUnsupported
}

// ReadStreamBackwards returns at most limit events, newest first, beginning at revision *from, or at the end if from is nil.
func (l *Log) ReadStreamBackwards(ctx context.Context, stream string, from *uint64, limit int) ([]Raw, error) {
	return nil, errors.ErrUnsupported
}

// Last returns the newest event of stream, or false if there is none.
func (l *Log) Last(ctx context.Context, stream string) (Raw, bool, error) {
	return Raw{}, false, errors.ErrUnsupported
}

// SetMaxCount makes the log keep only the newest n events of a machinery stream.
func (l *Log) SetMaxCount(ctx context.Context, stream string, n uint64) error {
	return errors.ErrUnsupported
}

// Head returns the position of the newest event whose stream has one of the prefixes, or 0 if there is none.
func (l *Log) Head(ctx context.Context, prefixes []string) (uint64, error) {
	return 0, errors.ErrUnsupported
}

// Subscribe follows the log from opt.After.
func (l *Log) Subscribe(ctx context.Context, opt SubscribeOptions) (*Subscription, error) {
	return nil, errors.ErrUnsupported
}

// Next returns the next delivery, in log order, never one twice and none skipped.
func (s *Subscription) Next(ctx context.Context) (Delivery, error) {
	return Delivery{}, errors.ErrUnsupported
}

// Close ends the subscription and waits for its goroutine.
func (s *Subscription) Close() {}
