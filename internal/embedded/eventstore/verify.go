package eventstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
)

// Report says what [Verify] looked at.
type Report struct {
	// Events and Streams are what the log holds.
	Events, Streams int
	// Last is the position of the newest event.
	Last uint64
}

// Verify reads the whole log in dir and checks what must always be true: every
// block has its checksum, positions increase strictly and times do not go back,
// each stream counts its revisions without a gap, and each event stands where the
// stream says. The folder may be in use.
func Verify(ctx context.Context, dir string) (_ Report, err error) {
	db, err := openPool(filepath.Join(dir, "events.db"), 2, "query_only(1)", "busy_timeout(10000)")
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	v := &verifier{db: db}
	if err := v.blocks(ctx); err != nil {
		return v.report, err
	}
	return v.report, v.runs(ctx)
}

type verifier struct {
	db     *sql.DB
	report Report

	created int64
	block   *block // The block read last.
	sid     int64
	name    string
	next    uint64
	inRuns  int
}

func (v *verifier) blocks(ctx context.Context) (err error) {
	rows, err := v.db.QueryContext(ctx, `SELECT first_pos, last_pos, events, crc32c, body FROM blocks ORDER BY first_pos`)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var frames []frame
	for rows.Next() {
		b, err := scanBlock(rows)
		if err != nil {
			return err
		}
		if frames, err = b.frames(frames); err != nil {
			return err
		}
		for _, f := range frames {
			if f.pos <= v.report.Last || f.created < v.created {
				return fmt.Errorf("%w: event at position %d after %d, created %d after %d", errCorrupt, f.pos, v.report.Last, f.created, v.created)
			}
			v.report.Last, v.created = f.pos, f.created
			v.report.Events++
		}
		if len(frames) == 0 || frames[0].pos != b.first || frames[len(frames)-1].pos != b.last {
			return fmt.Errorf("%w: the block at position %d does not hold what it says", errCorrupt, b.first)
		}
	}
	return rows.Err()
}

func (v *verifier) runs(ctx context.Context) (err error) {
	rows, err := v.db.QueryContext(ctx, `
SELECT r.sid, COALESCE(s.name, ''), r.first_rev, r.events, r.created, r.block, r.at
FROM runs r LEFT JOIN streams s USING (sid) ORDER BY r.sid, r.first_rev`)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var sid int64
		var name string
		var x run
		if err := rows.Scan(&sid, &name, &x.first, &x.events, &x.created, &x.block, &x.at); err != nil {
			return fmt.Errorf("verify: %w", err)
		}
		if sid != v.sid {
			v.sid, v.name, v.next = sid, name, 0
			v.report.Streams++
		}
		if err := v.run(ctx, x); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if v.inRuns != v.report.Events {
		return fmt.Errorf("%w: the log holds %d events, the streams %d", errCorrupt, v.report.Events, v.inRuns)
	}
	return nil
}

func (v *verifier) run(ctx context.Context, x run) error {
	if x.first != v.next && x.first != revisionMax {
		return fmt.Errorf("%w: stream %q goes on at revision %d instead of %d", errCorrupt, v.name, x.first, v.next)
	}
	if v.block == nil || v.block.first != x.block {
		var err error
		row := v.db.QueryRowContext(ctx, `SELECT first_pos, last_pos, events, crc32c, body FROM blocks WHERE first_pos = ?`, clampInt(x.block))
		if v.block, err = scanBlock(row); err != nil {
			return err
		}
	}
	off := x.at
	for i := range x.events {
		f, next, err := frameAt(v.block.body, off)
		if err != nil {
			return err
		}
		if string(f.stream) != v.name || f.rev != x.first+uint64(i) || f.created != x.created {
			return fmt.Errorf("%w: stream %q has event %s@%d at revision %d", errCorrupt, v.name, f.stream, f.rev, x.first+uint64(i))
		}
		off = next
	}
	v.inRuns += x.events
	v.next = x.first + uint64(x.events) //nolint:gosec // A count.
	return nil
}
