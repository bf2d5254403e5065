package eventlog

import (
	"context"
	"errors"
	"fmt"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/google/uuid"

	"example.com/keytrail/domain"
)

// Append stores events in one transaction at the end of stream, if the stream is
// where exp says. When it returns nil they are durable.
//
// While the log is unavailable it repeats itself until its timeout; with the same
// ids at an exact revision that cannot store anything twice. A wrong revision is
// a [*WrongRevision]; if the events already stand where they should, it is
// success. [ErrOutcomeUnknown] means that the timeout came first: the caller
// repeats the call, or reads the stream.
func (l *Log) Append(ctx context.Context, stream string, exp Expected, events ...Proposed) (Appended, error) {
	data, err := l.eventData(stream, events)
	if err != nil {
		return Appended{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.AppendTimeout)
	defer cancel()
	var out Appended
	tried := false // An earlier attempt may have been stored.
	err = l.retry(ctx, func() (bool, error) {
		var err error
		out, err = l.appendOnce(ctx, stream, exp, data)
		switch classifyAppend(err) {
		case conflict:
			out, err = l.resolve(ctx, stream, exp, events)
			if err != nil && !errors.As(err, new(*WrongRevision)) {
				tried = true
				return false, unstored(stream, tried, err)
			}
			return true, err
		case deleted:
			return true, fmt.Errorf("append to %s: %w", stream, ErrStreamDeleted)
		case tooLarge:
			return true, fmt.Errorf("append to %s: %w: %w", stream, ErrTooLarge, err)
		case refused, missing:
			if err != nil {
				err = fmt.Errorf("append to %s: %w", stream, err)
			}
			return true, err
		case doubtful:
			tried = true
			return false, unstored(stream, tried, err)
		case unavailable:
			return false, unstored(stream, tried, err)
		}
		return true, err
	})
	return out, err
}

// classifyAppend is classify, where no error is nothing to act on.
func classifyAppend(err error) verdict {
	if err == nil {
		return refused
	}
	return classify(err)
}

func unstored(stream string, tried bool, err error) error {
	if tried {
		return fmt.Errorf("append to %s: %w: %w", stream, ErrOutcomeUnknown, err)
	}
	return fmt.Errorf("append to %s: %w: %w", stream, ErrUnavailable, err)
}

// eventData checks what is proposed and puts it in the client's words.
func (l *Log) eventData(stream string, events []Proposed) ([]esdb.EventData, error) {
	if stream == "" || stream == "$all" {
		return nil, fmt.Errorf("append: %q is not a stream", stream)
	}
	if len(events) == 0 {
		return nil, fmt.Errorf("append to %s: no events", stream)
	}
	data := make([]esdb.EventData, len(events))
	sizeBytes := 0
	for i, e := range events {
		if e.ID == (domain.EventID{}) || e.Type == "" {
			return nil, fmt.Errorf("append to %s: event %d has no id or no type", stream, i)
		}
		sizeBytes += len(e.Data) + len(e.Meta) + 2*len(e.Type)
		data[i] = esdb.EventData{
			EventID: uuid.UUID(e.ID), EventType: e.Type, ContentType: esdb.ContentTypeBinary,
			Data: e.Data, Metadata: e.Meta,
		}
		if e.JSON {
			data[i].ContentType = esdb.ContentTypeJson
		}
	}
	// A server that refuses a large append while it is still being sent breaks the
	// client's sending off, and the reason is lost: so it is not sent.
	if sizeBytes > l.cfg.MaxAppendBytes {
		return nil, fmt.Errorf("append to %s: %w: %d bytes, at most %d", stream, ErrTooLarge, sizeBytes, l.cfg.MaxAppendBytes)
	}
	return data, nil
}

func (l *Log) appendOnce(ctx context.Context, stream string, exp Expected, data []esdb.EventData) (Appended, error) {
	opt := esdb.AppendToStreamOptions{ExpectedRevision: esdb.NoStream{}}
	if rev, ok := exp.Revision(); ok {
		opt.ExpectedRevision = esdb.Revision(rev)
	}
	opt.Deadline = &l.cfg.AppendTimeout // ctx ends earlier; without it the client ends after 10 s.
	return call(ctx, l.pool, func(ctx context.Context, c *esdb.Client) (Appended, error) {
		res, err := c.AppendToStream(ctx, stream, opt, data...)
		if err != nil {
			return Appended{}, err
		}
		return Appended{Revision: res.NextExpectedVersion, Position: res.CommitPosition}, nil
	})
}

// resolve answers after a wrong expected revision: success if the events stand
// where they were to be put, since then this append, or a twin of it, was stored.
func (l *Log) resolve(ctx context.Context, stream string, exp Expected, events []Proposed) (Appended, error) {
	stored, err := l.ReadStream(ctx, stream, exp.Next(), len(events))
	if err != nil {
		return Appended{}, err
	}
	if sameEvents(stored, exp.Next(), events) {
		last := stored[len(stored)-1]
		return Appended{Revision: last.Revision, Position: last.Position}, nil
	}
	last, ok, err := l.Last(ctx, stream)
	if err != nil {
		return Appended{}, err
	}
	actual := NoStream()
	if ok {
		actual = Exactly(last.Revision)
	}
	return Appended{}, &WrongRevision{Stream: stream, Expected: exp, Actual: actual}
}

func sameEvents(stored []Raw, from uint64, events []Proposed) bool {
	if len(stored) != len(events) {
		return false
	}
	for i := range events {
		if stored[i].ID != events[i].ID || stored[i].Revision != from+uint64(i) {
			return false
		}
	}
	return true
}
