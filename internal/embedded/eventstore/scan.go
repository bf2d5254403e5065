package eventstore

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// StoredEvent is one event as the log holds it. Who receives it owns its slices.
type StoredEvent struct {
	// Stream and Revision name the event for ever; Position orders all events.
	Stream   string
	Revision uint64
	Position uint64
	// ID and Type are what the writer named; JSON says what kind of bytes Data is.
	ID   [16]byte
	Type string
	JSON bool
	// Data and Meta are the stored bytes.
	Data, Meta []byte
	// Created is the server's time of the append, UTC.
	Created time.Time
}

// Scan calls fn for every event of the log in dir from position from on, in order:
// also for those that limits of their stream hide and that are not scavenged yet. It
// ends with fn's first error. What it sees is one state of the log; the folder may be
// in use. Every block is checked against its checksum before fn sees any of it.
func Scan(ctx context.Context, dir string, from uint64, fn func(StoredEvent) error) (err error) {
	v, err := openView(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.close()) }()
	var frames []frame
	return v.blocks(ctx, from, func(b *block) error {
		if frames, err = b.frames(frames); err != nil {
			return err
		}
		for _, f := range frames {
			if f.pos < from {
				continue
			}
			e, err := f.event()
			if err != nil {
				return err
			}
			if err := fn(e); err != nil {
				return err
			}
		}
		return nil
	})
}

// blocks calls fn for every block that may hold events from position from on, then
// for what is in the journal alone.
func (v *view) blocks(ctx context.Context, from uint64, fn func(*block) error) (err error) {
	rows, err := v.conn.QueryContext(ctx, `SELECT first_pos, last_pos, events, crc32c, body FROM blocks WHERE last_pos >= ?1
AND first_pos >= COALESCE((SELECT max(first_pos) FROM blocks WHERE first_pos <= ?1), 0) ORDER BY first_pos`, clampInt(from))
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		b, err := scanBlock(rows)
		if err != nil {
			return err
		}
		if err := fn(b); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	for _, r := range v.records {
		if err := fn(&block{first: r.after + 1, n: r.events, body: r.body}); err != nil {
			return fmt.Errorf("record %d of the journal: %w", r.seq, err)
		}
	}
	return nil
}

// event returns what the frame holds, in memory of its own.
func (f frame) event() (StoredEvent, error) {
	m, err := f.message()
	if err != nil {
		return StoredEvent{}, err
	}
	e := m.GetEvent().GetEvent()
	return StoredEvent{
		Stream: string(f.stream), Revision: f.rev, Position: f.pos, ID: f.id, Type: string(f.typ),
		JSON: e.GetMetadata()["content-type"] == contentType(true), Data: e.GetData(), Meta: e.GetCustomMetadata(),
		Created: time.Unix(0, f.created*100).UTC(),
	}, nil
}
