package eventstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// Report says what [Verify] looked at.
type Report struct {
	// Events and Streams are what the log holds.
	Events, Streams int
	// Last is the position of the newest event.
	Last uint64
}

// Verify reads the whole log in dir, tables and journal, and checks what must
// always be true: every block and every record has its checksum, positions increase
// strictly and times do not go back, each stream counts its revisions without a gap,
// and each event stands where the stream says. Its error names the first place that
// is wrong. The folder may be in use.
func Verify(ctx context.Context, dir string) (_ Report, err error) {
	view, err := openView(ctx, dir)
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, view.close()) }()
	v := newVerifier(view.conn)
	if err := v.tables(ctx); err != nil {
		return v.report, err
	}
	return v.report, v.records(ctx, view.records)
}

func newVerifier(conn *sql.Conn) *verifier {
	return &verifier{conn: conn, next: make(map[string]uint64), limits: make(map[string]limits)}
}

// tables checks the tables' file.
func (v *verifier) tables(ctx context.Context) error {
	for _, check := range []func(context.Context) error{v.check, v.blocks, v.runs, v.limited} {
		if err := check(ctx); err != nil {
			return err
		}
	}
	return nil
}

// limited checks that the limits of streams are those that their metadata sets.
func (v *verifier) limited(ctx context.Context) (err error) {
	rows, err := v.conn.QueryContext(ctx, `SELECT name, max_count, max_age_s, trim_below FROM streams
WHERE max_count IS NOT NULL OR max_age_s IS NOT NULL OR trim_below IS NOT NULL`)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var name string
		var l limits
		if err := rows.Scan(&name, &l.maxCount, &l.maxAgeS, &l.trimBelow); err != nil {
			return fmt.Errorf("verify: %w", err)
		}
		if l != v.limits[name] {
			return fmt.Errorf("%w: stream %q has the limits %+v, its metadata says %+v", errCorrupt, name, l, v.limits[name])
		}
		delete(v.limits, name)
	}
	for name, l := range v.limits {
		if l != (limits{}) {
			return fmt.Errorf("%w: stream %q has no limits, its metadata says %+v", errCorrupt, name, l)
		}
	}
	return rows.Err()
}

type verifier struct {
	conn   *sql.Conn
	report Report

	created int64
	block   *block // The block read last.
	sid     int64
	name    string
	cut     uint64 // Where the stream may begin.
	rev     uint64 // The next one of the stream.
	frames  []frame
	inRuns  int
	limits  map[string]limits // As metadata sets them.
	next    map[string]uint64 // Of the streams that the journal goes on with.
}

// check lets SQLite check the file.
func (v *verifier) check(ctx context.Context) error {
	var verdict string
	if err := v.conn.QueryRowContext(ctx, `PRAGMA integrity_check(1)`).Scan(&verdict); err != nil {
		return fmt.Errorf("%w: %w", errCorrupt, err)
	}
	if verdict != "ok" {
		return fmt.Errorf("%w: %s", errCorrupt, verdict)
	}
	return nil
}

func (v *verifier) blocks(ctx context.Context) (err error) {
	rows, err := v.conn.QueryContext(ctx, `SELECT first_pos, last_pos, events, crc32c, body FROM blocks ORDER BY first_pos`)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		b, err := scanBlock(rows)
		if err != nil {
			return err
		}
		if v.frames, err = b.frames(v.frames); err != nil {
			return err
		}
		for _, f := range v.frames {
			if err := v.frame(f); err != nil {
				return err
			}
		}
		if n := len(v.frames); n == 0 || v.frames[0].pos < b.first || v.frames[n-1].pos != b.last {
			return fmt.Errorf("%w: the block at position %d does not hold what it says", errCorrupt, b.first)
		}
	}
	return rows.Err()
}

// frame checks the next event of the log.
func (v *verifier) frame(f frame) error {
	if f.pos <= v.report.Last || f.created < v.created {
		return fmt.Errorf("%w: event at position %d after %d, created %d after %d", errCorrupt, f.pos, v.report.Last, f.created, v.created)
	}
	v.report.Last, v.created = f.pos, f.created
	v.report.Events++
	if name := string(f.stream); isMetaStream(name) {
		data, err := f.data()
		if err != nil {
			return err
		}
		v.limits[name[2:]] = parseLimits(data)
	}
	return nil
}

// records checks what is in the journal alone.
func (v *verifier) records(ctx context.Context, records []record) error {
	for _, r := range records {
		if r.after != max(v.report.Last, positionStart) {
			return fmt.Errorf("%w: record %d of the journal follows position %d, but the log ends at %d", errCorrupt, r.seq, r.after, v.report.Last)
		}
		frames, err := (&block{first: r.after, n: r.events, body: r.body}).frames(v.frames)
		if err != nil {
			return fmt.Errorf("record %d of the journal: %w", r.seq, err)
		}
		v.frames = frames
		for _, f := range frames {
			if err := v.frame(f); err != nil {
				return err
			}
			if err := v.follows(ctx, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// follows checks that f, from the journal, is the next event of its stream.
func (v *verifier) follows(ctx context.Context, f frame) error {
	name := string(f.stream)
	next, ok := v.next[name]
	if !ok {
		h, err := scanHead(v.conn.QueryRowContext(ctx, headQuery, name))
		if err != nil {
			return err
		}
		next = h.next()
		if !h.exists {
			v.report.Streams++
		}
	}
	if f.rev != next && f.rev != revisionMax {
		return fmt.Errorf("%w: stream %q goes on at revision %d (position %d) instead of %d", errCorrupt, name, f.rev, f.pos, next)
	}
	v.next[name] = f.rev + 1
	return nil
}

func (v *verifier) runs(ctx context.Context) (err error) {
	rows, err := v.conn.QueryContext(ctx, `
SELECT r.sid, COALESCE(s.name, ''), COALESCE(s.cut_below, 0), r.first_rev, r.events, r.created, r.block
FROM runs r LEFT JOIN streams s USING (sid) ORDER BY r.sid, r.first_rev`)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var sid int64
		var name string
		var cut uint64
		var x run
		if err := rows.Scan(&sid, &name, &cut, &x.first, &x.events, &x.created, &x.block); err != nil {
			return fmt.Errorf("verify: %w", err)
		}
		if sid != v.sid {
			v.sid, v.name, v.cut, v.rev = sid, name, cut, 0
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
	if v.rev == 0 {
		v.rev = v.cut
	}
	if x.first != v.rev && x.first != revisionMax {
		return fmt.Errorf("%w: stream %q goes on at revision %d instead of %d", errCorrupt, v.name, x.first, v.rev)
	}
	if v.block == nil || v.block.first != x.block {
		var err error
		row := v.conn.QueryRowContext(ctx, `SELECT first_pos, last_pos, events, crc32c, body FROM blocks WHERE first_pos = ?`, clampInt(x.block))
		if v.block, err = scanBlock(row); err != nil {
			return err
		}
	}
	var err error
	if v.frames, err = v.block.of(v.name, x, v.frames); err != nil {
		return err
	}
	for _, f := range v.frames {
		if f.created > x.created {
			return fmt.Errorf("%w: stream %q has an event of another time at revision %d", errCorrupt, v.name, f.rev)
		}
	}
	v.inRuns += x.events
	v.rev = x.end()
	return nil
}
