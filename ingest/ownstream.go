package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

// ownStreamTriesMax bounds how often an append is repeated after others wrote the stream.
const ownStreamTriesMax = 5

// ownStream is the end of a stream that this process writes, and as a rule no other. One
// goroutine at a time may use it.
type ownStream struct {
	log  CommandLog
	name string

	known bool // exp and last are.
	exp   eventlog.Expected
	last  time.Time // Newest effective time of the stream.
}

// append appends what propose makes of the stream's newest effective time, which returns
// the new one too, and returns when it is durable. Where another process wrote the stream
// it looks for the new end and goes on there; what it appends then must have the same ids.
// After an error it may be stored or not.
func (s *ownStream) append(ctx context.Context, propose func(last time.Time) ([]eventlog.Proposed, time.Time, error)) error {
	for range ownStreamTriesMax {
		if err := s.locate(ctx); err != nil {
			return err
		}
		events, last, err := propose(s.last)
		if err != nil {
			return err
		}
		done, err := s.log.Append(ctx, s.name, s.exp, events...)
		if err == nil {
			s.exp, s.last = eventlog.Exactly(done.Revision), last
			return nil
		}
		s.known = false // Another process may write this stream; look again.
		if _, wrong := errors.AsType[*eventlog.WrongRevision](err); !wrong {
			return logError("append to "+s.name, err)
		}
	}
	return domain.Errorf(domain.Unavailable, "others write the same stream; try again").WithMessageCode("log_contended")
}

// locate finds the end of the stream.
func (s *ownStream) locate(ctx context.Context) error {
	if s.known {
		return nil
	}
	raw, ok, err := s.log.Last(ctx, s.name)
	if err != nil {
		return logError("read "+s.name, err)
	}
	s.exp = eventlog.NoStream()
	if ok {
		meta, err := domain.DecodeMetadata(raw.Meta)
		if err != nil {
			return fmt.Errorf("read %s: %w", s.name, err)
		}
		s.exp, s.last = eventlog.Exactly(raw.Revision), meta.EffectiveAt
	}
	s.known = true
	return nil
}
