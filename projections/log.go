package projections

import (
	"context"

	"example.com/keytrail/internal/eventlog"
)

// Subscription follows the log; see [eventlog.Subscription].
type Subscription interface {
	Next(ctx context.Context) (eventlog.Delivery, error)
	Close()
}

// Log is what this package needs of the event log. [NewLog] makes one from the real
// log; tests give one that fails on purpose. The methods' contracts are those of
// [eventlog.Log].
type Log interface {
	Append(ctx context.Context, stream string, exp eventlog.Expected, events ...eventlog.Proposed) (eventlog.Appended, error)
	ReadStream(ctx context.Context, stream string, from uint64, limit int) ([]eventlog.Raw, error)
	ReadStreamBackwards(ctx context.Context, stream string, from *uint64, limit int) ([]eventlog.Raw, error)
	Last(ctx context.Context, stream string) (eventlog.Raw, bool, error)
	Head(ctx context.Context, prefixes []string) (uint64, error)
	Subscribe(ctx context.Context, opt eventlog.SubscribeOptions) (Subscription, error)
}

// NewLog returns l as a [Log].
func NewLog(l *eventlog.Log) Log { return realLog{l} }

type realLog struct{ *eventlog.Log }

// Subscribe implements [Log].
func (l realLog) Subscribe(ctx context.Context, opt eventlog.SubscribeOptions) (Subscription, error) {
	s, err := l.Log.Subscribe(ctx, opt)
	if err != nil {
		return nil, err
	}
	return s, nil
}
