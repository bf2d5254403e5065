package eventstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"
)

const (
	// scavengeBlocks is how many blocks one transaction rewrites: folds wait for it,
	// appends do not.
	scavengeBlocks = 16
	// scavengeRuns bounds what one pass keeps in mind.
	scavengeRuns = 100_000
)

// ScavengeReport says what a scavenge removed.
type ScavengeReport struct {
	// Events were hidden by the limits of their stream, and are gone.
	Events int
	// Bytes is what they took in the log. The file does not shrink; what is freed is
	// used again before it grows.
	Bytes int64
}

// Scavenge removes what limits ($maxCount, $maxAge, $tb), soft deletes and tombstones
// hide: for good, and without any effect on reads of streams. A stream keeps its last
// event, hidden or not, and with it its numbering. It works in small transactions;
// after a crash or an error what is done is done, and the next one goes on.
func (s *Server) Scavenge(ctx context.Context) (ScavengeReport, error) {
	return s.store.scavenger.run(ctx)
}

// scavenger removes hidden events from the tables.
type scavenger struct {
	tables *tables
	reader *reader
	folder *folder
	log    *slog.Logger

	turn sync.Mutex // One scavenge at a time.

	stop chan struct{}
	done chan struct{}
}

// removal is a run of which the events before a revision go.
type removal struct {
	run

	cut uint64
}

// every scavenges from time to time, until the scavenger is stopped.
func (s *scavenger) every(ctx context.Context, interval time.Duration) {
	defer close(s.done)
	if interval < 0 {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		switch r, err := s.run(ctx); {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.log.ErrorContext(ctx, "scavenge failed, the next one goes on", slog.Any("error", err))
		case r.Events > 0:
			s.log.InfoContext(ctx, "scavenged", slog.Int("events", r.Events), slog.Int64("bytes", r.Bytes))
		}
	}
}

// run scavenges once.
func (s *scavenger) run(ctx context.Context) (ScavengeReport, error) {
	s.turn.Lock()
	defer s.turn.Unlock()
	var report ScavengeReport
	if err := s.folder.drain(ctx); err != nil {
		return report, fmt.Errorf("scavenge: %w", err)
	}
	for {
		work, err := s.plan(ctx)
		if err != nil {
			return report, fmt.Errorf("scavenge: %w", err)
		}
		if len(work) == 0 {
			return report, nil
		}
		for some := range slices.Chunk(slices.Sorted(maps.Keys(work)), scavengeBlocks) {
			if err := s.rewrite(ctx, some, work, &report); err != nil {
				return report, fmt.Errorf("scavenge: %w", err)
			}
		}
	}
}

// plan returns what is to be removed, by block.
func (s *scavenger) plan(ctx context.Context) (map[uint64][]removal, error) {
	names, err := s.limited(ctx)
	if err != nil {
		return nil, err
	}
	work := make(map[uint64][]removal)
	n := 0
	for _, name := range names {
		found, err := s.hidden(ctx, name)
		if err != nil {
			return nil, err
		}
		for _, r := range found {
			work[r.block] = append(work[r.block], r)
		}
		if n += len(found); n >= scavengeRuns {
			break
		}
	}
	return work, nil
}

// limited returns the streams that may hide something.
func (s *scavenger) limited(ctx context.Context) (names []string, err error) {
	rows, err := s.reader.limited.QueryContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("read streams with limits: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, fmt.Errorf("read streams with limits: %w", err)
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// hidden returns the runs of a stream in the tables that hold events to be removed.
func (s *scavenger) hidden(ctx context.Context, name string) ([]removal, error) {
	st, err := s.reader.open(ctx, name)
	if err != nil || st.sid == 0 {
		return nil, err
	}
	cut := uint64(math.MaxInt64)
	if st.visible() && !st.tombstoned() {
		cut = st.low
	}
	newest, err := s.reader.runs(ctx, s.reader.runsBackwards, st.sid, int64(math.MaxInt64), 1)
	if err != nil || len(newest) == 0 {
		return nil, err
	}
	cut = min(cut, newest[0].end()-1) // The last event stays.
	runs, err := s.reader.runs(ctx, s.reader.runsForwards, st.sid, 0, scavengeRuns)
	if err != nil {
		return nil, err
	}
	var out []removal
	for _, x := range runs {
		if x.first >= cut {
			break
		}
		x.sid, x.stream = st.sid, name
		out = append(out, removal{run: x, cut: cut})
	}
	return out, nil
}

// rewrite removes from some blocks, in one transaction, what work says.
func (s *scavenger) rewrite(ctx context.Context, blocks []uint64, work map[uint64][]removal, report *ScavengeReport) error {
	s.folder.turn.Lock()
	defer s.folder.turn.Unlock()
	var done ScavengeReport
	err := s.tables.transact(ctx, func(tx *sql.Tx) error {
		done = ScavengeReport{}
		for _, first := range blocks {
			if err := s.rewriteBlock(ctx, tx, first, work[first], &done); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	report.Events += done.Events
	report.Bytes += done.Bytes
	return nil
}

func (s *scavenger) rewriteBlock(ctx context.Context, tx *sql.Tx, first uint64, removals []removal, done *ScavengeReport) error {
	b, err := scanBlock(tx.QueryRowContext(ctx, `SELECT first_pos, last_pos, events, crc32c, body FROM blocks WHERE first_pos = ?`, clampInt(first)))
	if err != nil {
		return err
	}
	cuts := make(map[string]uint64, len(removals))
	for _, r := range removals {
		cuts[r.stream] = r.cut
		if err := s.shorten(ctx, tx, r); err != nil {
			return err
		}
	}
	left, err := b.without(cuts)
	if err != nil {
		return err
	}
	done.Events += b.n - left.n
	done.Bytes += int64(len(b.body) - len(left.body))
	if left.n == 0 {
		return s.tables.exec(ctx, tx, `DELETE FROM blocks WHERE first_pos = ?`, clampInt(first))
	}
	return s.tables.exec(ctx, tx, `UPDATE blocks SET last_pos = ?, events = ?, crc32c = ?, body = ? WHERE first_pos = ?`,
		clampInt(left.last), left.n, int64(left.checksum()), left.body, clampInt(first))
}

// shorten lets a run, and its stream, begin at the cut. The runs of a stream are
// shortened in order, so the stream always begins where it says.
func (s *scavenger) shorten(ctx context.Context, tx *sql.Tx, r removal) error {
	if err := s.tables.exec(ctx, tx, `DELETE FROM runs WHERE sid = ? AND first_rev = ?`, r.sid, clampInt(r.first)); err != nil {
		return err
	}
	if r.cut < r.end() {
		if err := s.tables.exec(ctx, tx, `INSERT INTO runs (sid, first_rev, events, created, block) VALUES (?, ?, ?, ?, ?)`,
			r.sid, clampInt(r.cut), clampInt(r.end()-r.cut), r.created, clampInt(r.block)); err != nil {
			return err
		}
	}
	return s.tables.exec(ctx, tx, `UPDATE streams SET cut_below = max(cut_below, ?) WHERE sid = ?`, clampInt(min(r.cut, r.end())), r.sid)
}

// without returns b without the events before the cuts of their streams.
func (b *block) without(cuts map[string]uint64) (*block, error) {
	left := &block{first: b.first, last: b.last}
	for off := 0; off < len(b.body); {
		f, next, err := frameAt(b.body, off)
		if err != nil {
			return nil, fmt.Errorf("block at position %d: %w", b.first, err)
		}
		if cut, ok := cuts[string(f.stream)]; !ok || f.rev >= cut {
			left.body = append(left.body, b.body[off:next]...)
			left.n++
			left.last = f.pos
		}
		off = next
	}
	return left, nil
}
