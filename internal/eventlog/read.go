package eventlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"

	"example.com/keytrail/domain"
)

// ReadStream returns at most limit events of stream in order, the first at
// revision from or the next that is still visible. A missing stream has none.
func (l *Log) ReadStream(ctx context.Context, stream string, from uint64, limit int) ([]Raw, error) {
	return l.readStream(ctx, stream, esdb.ReadStreamOptions{Direction: esdb.Forwards, From: esdb.Revision(from)}, limit)
}

// ReadStreamBackwards returns at most limit events of stream, newest first,
// beginning at revision *from, or at the end if from is nil. A missing stream has
// none.
func (l *Log) ReadStreamBackwards(ctx context.Context, stream string, from *uint64, limit int) ([]Raw, error) {
	opt := esdb.ReadStreamOptions{Direction: esdb.Backwards, From: esdb.End{}}
	if from != nil {
		opt.From = esdb.Revision(*from)
	}
	return l.readStream(ctx, stream, opt, limit)
}

// Last returns the newest event of stream, or false if there is none.
func (l *Log) Last(ctx context.Context, stream string) (Raw, bool, error) {
	events, err := l.ReadStreamBackwards(ctx, stream, nil, 1)
	if err != nil || len(events) == 0 {
		return Raw{}, false, err
	}
	return events[0], true, nil
}

func (l *Log) readStream(ctx context.Context, stream string, opt esdb.ReadStreamOptions, limit int) ([]Raw, error) {
	if limit <= 0 {
		return nil, nil
	}
	return read(ctx, l, "read "+stream, func(ctx context.Context, c *esdb.Client) ([]Raw, error) {
		s, err := c.ReadStream(ctx, stream, opt, uint64(limit)) //nolint:gosec // Positive.
		if err != nil {
			return nil, err
		}
		defer s.Close()
		out := make([]Raw, 0, min(limit, 64))
		err = drain(s, func(r Raw) bool {
			out = append(out, r)
			return true
		})
		return out, err
	})
}

// read repeats fn while the log is unavailable, until the read timeout. A missing
// stream is no error and gives nothing.
func read[T any](ctx context.Context, l *Log, what string, fn func(context.Context, *esdb.Client) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.ReadTimeout)
	defer cancel()
	var out T
	err := l.retry(ctx, func() (bool, error) {
		v, err := call(ctx, l.pool, fn)
		if err == nil {
			out = v
			return true, nil
		}
		switch classify(err) {
		case missing:
			return true, nil
		case unavailable, doubtful:
			return ctx.Err() != nil, failRead(what, err)
		case refused, conflict, deleted, tooLarge:
		}
		return true, failRead(what, err)
	})
	return out, err
}

// drain gives every event to yield until that returns false.
func drain(s *esdb.ReadStream, yield func(Raw) bool) error {
	for {
		e, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if r := rawOf(e.OriginalEvent()); !yield(r) {
			return nil
		}
	}
}

func rawOf(e *esdb.RecordedEvent) Raw {
	return Raw{
		Stream: e.StreamID, Revision: e.EventNumber, Position: e.Position.Commit,
		ID: domain.EventID(e.EventID), Type: e.EventType, JSON: e.ContentType == "application/json",
		Data: e.Data, Meta: e.UserMetadata, RecordedAt: e.CreatedDate,
	}
}

// Head returns the position of the newest event whose stream has one of the
// prefixes, or 0 if there is none. It reads the log backwards from its end, since
// the protocol's plain reads have no filter: the first time as far as the newest such
// event, later only what is new since.
func (l *Log) Head(ctx context.Context, prefixes []string) (uint64, error) {
	key := strings.Join(prefixes, "\x00")
	l.mu.Lock()
	known := l.heads[key]
	l.mu.Unlock()
	var found knownHead
	err := l.newest(ctx, math.MaxInt64, func(r Raw) bool {
		found.tail = max(found.tail, r.Position)
		switch {
		case hasPrefix(r.Stream, prefixes):
			found.head = r.Position
		case r.Position <= known.tail && known.tail <= found.tail: // All before has been looked at.
			found.head = known.head
		default:
			return false
		}
		return true
	})
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heads[key] = found
	return found.head, nil
}

// knownHead is what is known of the log up to tail: head is its newest event of some
// prefixes.
type knownHead struct{ tail, head uint64 }

// newest looks at the newest count events up to one that matches. It asks for few events first: what a read has asked for and does not take is
// sent all the same, up to a window of the connection.
func (l *Log) newest(ctx context.Context, count uint64, match func(Raw) bool) error {
	var from esdb.AllPosition = esdb.End{}
	for page := uint64(newestPage); ; page *= newestGrowth {
		page = min(page, count)
		p, err := l.lookBack(ctx, from, page, match)
		if err != nil || p.found || p.seen < page || page == count {
			return err
		}
		count -= page
		from = esdb.Position{Commit: p.oldest, Prepare: p.oldest}
	}
}

const (
	// newestPage is how many events newest looks at first.
	newestPage = 4
	// newestGrowth is by how much the next page is bigger.
	newestGrowth = 16
)

// lookedAt is a page of the log, read backwards.
type lookedAt struct {
	seen   uint64
	oldest uint64 // Position.
	found  bool
}

// lookBack looks at count events before from, up to the first that matches.
func (l *Log) lookBack(ctx context.Context, from esdb.AllPosition, count uint64, match func(Raw) bool) (lookedAt, error) {
	return read(ctx, l, "read end of log", func(ctx context.Context, c *esdb.Client) (lookedAt, error) {
		s, err := c.ReadAll(ctx, esdb.ReadAllOptions{Direction: esdb.Backwards, From: from}, count)
		if err != nil {
			return lookedAt{}, err
		}
		defer s.Close()
		var p lookedAt
		err = drain(s, func(r Raw) bool {
			p.seen, p.oldest = p.seen+1, r.Position
			p.found = match(r)
			return !p.found
		})
		return p, err
	})
}

func hasPrefix(stream string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(stream, p) {
			return true
		}
	}
	return false
}

// SetMaxCount makes the log keep only the newest n events of stream. It is for
// machinery: evidence is never cut that way. It writes nothing if that is already
// so.
func (l *Log) SetMaxCount(ctx context.Context, stream string, n uint64) error {
	if n == 0 {
		return fmt.Errorf("set limit of %s: a limit of 0 events", stream)
	}
	metadata := "$$" + stream
	last, ok, err := l.Last(ctx, metadata)
	if err != nil {
		return err
	}
	fields := map[string]json.RawMessage{}
	exp := NoStream()
	if ok {
		if err := json.Unmarshal(last.Data, &fields); err != nil {
			return fmt.Errorf("set limit of %s: stored metadata: %w", stream, err)
		}
		exp = Exactly(last.Revision)
	}
	want := fmt.Sprintf("%d", n)
	if string(fields["$maxCount"]) == want {
		return nil
	}
	fields["$maxCount"] = json.RawMessage(want)
	data, err := json.Marshal(fields)
	if err != nil {
		return fmt.Errorf("set limit of %s: %w", stream, err)
	}
	id := limitID(stream, exp, n)
	if _, err := l.Append(ctx, metadata, exp, Proposed{ID: id, Type: "$metadata", JSON: true, Data: data}); err != nil {
		return fmt.Errorf("set limit of %s: %w", stream, err)
	}
	return nil
}
