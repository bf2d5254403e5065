package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

const (
	// lookMax bounds one question to the usage table, lookPause is how long after one that
	// failed no other is asked.
	lookMax   = 5 * time.Second
	lookPause = 5 * time.Second
	// aheadMax is how far a source's clock may be ahead of ours: where the beginning of a
	// slot was cut off, it is taken to hold no use of a later time.
	aheadMax = 7 * 24 * time.Hour
)

// slotIndex knows of every event of a slot the times of its uses, so that a search reads
// only the events that can hold what it looks for: 24 bytes for some ten thousand uses.
type slotIndex struct {
	turn    chan struct{} // Held by whoever reads or changes what follows.
	entries []slotEntry
	end     eventlog.Expected
	upTo    uint64 // Position of the newest event.
	// cut is when the oldest event was recorded that is still there; zero if none is missing.
	cut time.Time
}

// slotEntry is one event: its uses have times from from to to, in ms.
type slotEntry struct {
	revision uint64
	from, to int64
}

// sought are the uses of a chunk that came with an id, and the span of their times in ms.
type sought struct {
	keys     map[useKey]struct{}
	from, to int64
}

func (c *chunk) sought() sought {
	s := sought{keys: make(map[useKey]struct{}, len(c.uses))}
	for i := range c.uses {
		if !c.explicit[i] {
			continue
		}
		u := &c.uses[i]
		at := u.Time.UnixMilli()
		if len(s.keys) == 0 {
			s.from, s.to = at, at
		}
		s.keys[useKey{account: u.Account, id: u.ID}] = struct{}{}
		s.from, s.to = min(s.from, at), max(s.to, at)
	}
	return s
}

// scan finds out from the slot itself which of c's uses it holds: what look asks the usage
// table, for when that does not answer. It is as exact, since all uses of an account and a
// class by account are in this slot; what is appended after the scan is found as after a
// look. c must be of such a class.
func (w *slotWriter) scan(ctx context.Context, c *chunk) error {
	want := c.sought()
	c.known, c.upTo, c.looked = make(map[useKey]struct{}), noFloor, len(want.keys) > 0
	if !c.looked {
		return nil
	}
	x := &w.index
	select {
	case x.turn <- struct{}{}:
		defer func() { <-x.turn }()
	case <-ctx.Done():
		return fmt.Errorf("wait to search the slot: %w", ctx.Err())
	}
	err := w.searchAll(ctx, want, c)
	if errors.Is(err, errCutMeanwhile) { // Once more, with what is left.
		x.entries, x.end, x.upTo, x.cut = nil, eventlog.NoStream(), 0, time.Time{}
		err = w.searchAll(ctx, want, c)
	}
	return err
}

// errCutMeanwhile says that events of the index are no longer in the log.
var errCutMeanwhile = domain.Errorf(domain.Unavailable, "the log was cut meanwhile; try again").WithMessageCode("usage_unavailable")

// searchAll brings the index up to date and reads every event that can hold something.
func (w *slotWriter) searchAll(ctx context.Context, want sought, c *chunk) error {
	x := &w.index
	if err := w.extend(ctx); err != nil {
		return err
	}
	if !x.cut.IsZero() && want.from <= x.cut.Add(aheadMax).UnixMilli() {
		return domain.Errorf(domain.Unavailable, "the usage table does not answer, and the log no longer holds all that these records must be compared with; send them again later").
			WithMessageCode("usage_unavailable")
	}
	c.upTo = x.upTo
	for i := 0; i < len(x.entries); {
		n := 0 // Neighbours that can hold something.
		for i+n < len(x.entries) && n < slotReadPage && x.entries[i+n].from <= want.to && x.entries[i+n].to >= want.from {
			n++
		}
		if n > 0 {
			if err := w.search(ctx, x.entries[i].revision, n, want, c.known); err != nil {
				return err
			}
		}
		i += max(n, 1)
	}
	return nil
}

// extend takes the events into the index that came since.
func (w *slotWriter) extend(ctx context.Context) error {
	x := &w.index
	for {
		page, err := w.log.ReadStream(ctx, w.stream, x.end.Next(), slotReadPage)
		if err != nil {
			return logError("search slot", err)
		}
		for _, raw := range page {
			rec, err := eventlog.Decode(raw)
			if err != nil {
				return fmt.Errorf("search slot: %w", err)
			}
			e, ok := rec.Event.(domain.UsageRecorded)
			if !ok {
				return fmt.Errorf("search slot: a %s stands at %s@%d", raw.Type, raw.Stream, raw.Revision)
			}
			if len(x.entries) == 0 && raw.Revision > 0 {
				x.cut = raw.RecordedAt
			}
			x.entries = append(x.entries, slotEntry{revision: raw.Revision, from: e.Batch.From.UnixMilli(), to: e.Batch.To.UnixMilli()})
			x.end, x.upTo = eventlog.Exactly(raw.Revision), raw.Position
		}
		if len(page) < slotReadPage {
			return nil
		}
	}
}

// search adds to found what of want stands in the n events from revision first on.
func (w *slotWriter) search(ctx context.Context, first uint64, n int, want sought, found map[useKey]struct{}) error {
	page, err := w.log.ReadStream(ctx, w.stream, first, n)
	if err != nil {
		return logError("search slot", err)
	}
	if len(page) < n || page[0].Revision != first {
		return errCutMeanwhile
	}
	for _, raw := range page {
		rec, err := eventlog.Decode(raw)
		if err != nil {
			return fmt.Errorf("search slot: %w", err)
		}
		e, ok := rec.Event.(domain.UsageRecorded)
		if !ok {
			return fmt.Errorf("search slot: a %s stands at %s@%d", raw.Type, raw.Stream, raw.Revision)
		}
		uses, err := w.codec.Decode(e.Batch.Columns)
		if err != nil {
			return fmt.Errorf("search slot %s@%d: %w", raw.Stream, raw.Revision, err)
		}
		for i := range uses {
			k := useKey{account: uses[i].Account, id: uses[i].ID}
			if _, wanted := want.keys[k]; wanted {
				// The key of ours, since that of the decoder goes with its next call.
				found[useKey{account: domain.AccountID(string([]byte(k.account))), id: string([]byte(k.id))}] = struct{}{}
			}
		}
	}
	return nil
}

// look finds out which of c's uses are in the log up to some position: from the usage
// table, or, where that does not answer within a bound, from the slot.
func (s *slots) look(ctx context.Context, c *chunk) error {
	if s.known == nil {
		return nil
	}
	if c.ordered { // Its slot is the caller's: it does not hold all of an account.
		return s.ask(ctx, c)
	}
	if !s.resting() {
		limited, cancel := context.WithTimeout(ctx, lookMax)
		err := s.ask(limited, c)
		cancel()
		s.asked(ctx, err)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), err)
		}
	}
	return c.to.scan(ctx, c)
}

// resting reports whether the table failed a moment ago.
func (s *slots) resting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	since := s.now().Sub(s.failedAt)
	return s.failed && since >= 0 && since < lookPause
}

// asked notes whether the table answered, and tells the log when that changes.
func (s *slots) asked(ctx context.Context, err error) {
	s.mu.Lock()
	was := s.failed
	s.failed, s.failedAt = err != nil, s.now()
	s.mu.Unlock()
	switch {
	case err != nil && !was && ctx.Err() == nil:
		s.logger.LogAttrs(ctx, slog.LevelWarn, "the usage table does not answer: imports compare with the log itself, which is slower", slog.Any("error", err))
	case err == nil && was:
		s.logger.LogAttrs(ctx, slog.LevelInfo, "the usage table answers again")
	}
}
