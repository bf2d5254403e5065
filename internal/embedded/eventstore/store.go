package eventstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"time"
)

// store is the log in a folder: the tables, the journal in front of them, the
// writer and the readers.
type store struct {
	db      *database
	tables  *tables
	journal *journal
	recent  *recent
	reader  *reader
	folder  *folder
	writer  *writer
	log     *slog.Logger

	scavenger     *scavenger
	scavengeEvery time.Duration
}

// openStore opens the log in cfg.Dir, which the caller has locked, and brings what
// the journal holds into the tables. Nothing runs yet.
func openStore(ctx context.Context, cfg Config) (_ *store, err error) {
	s := &store{log: cfg.Logger, scavengeEvery: cfg.ScavengeEvery}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.abandon(ctx))
		}
	}()
	if s.db, err = openDatabase(ctx, cfg.Dir); err != nil {
		return nil, err
	}
	if s.tables, err = newTables(ctx, s.db.write); err != nil {
		return nil, err
	}
	if s.db.small {
		if err = newVerifier(s.tables.conn).tables(ctx); err != nil {
			return nil, fmt.Errorf("%w: restore the data folder from a backup", err)
		}
	}
	state, err := s.tables.readState(ctx)
	if err != nil {
		return nil, err
	}
	records, err := recordsOf(cfg.Files, cfg.Dir, state)
	if err != nil {
		return nil, err
	}
	if s.journal, err = openJournal(ctx, cfg.Files, cfg.Dir, cfg.bounds, cfg.Logger); err != nil {
		return nil, err
	}
	s.journal.salt, s.journal.seq, s.journal.name = state.salt, state.folded, state.file
	s.writer = &writer{
		journal: s.journal, clock: cfg.Clock, log: cfg.Logger,
		requests: make(chan *request, groupMax), stopped: make(chan struct{}),
		heads: newHeadCache(headsMax),
	}
	if err = s.writer.load(ctx, s.db.read); err != nil {
		return nil, err
	}
	s.recent = s.writer.recent
	if s.reader, err = newReader(ctx, s.db.read, s.recent, cfg.Clock); err != nil {
		return nil, err
	}
	s.folder = newFolder(s.tables, s.recent, s.journal, cfg.bounds, cfg.Logger)
	s.writer.reader, s.writer.folder = s.reader, s.folder
	s.scavenger = &scavenger{
		tables: s.tables, reader: s.reader, folder: s.folder, log: cfg.Logger,
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	if err = s.writer.replay(ctx, records); err != nil {
		return nil, err
	}
	if err = s.writer.begin(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// recordsOf returns what the journal holds and the tables do not.
func recordsOf(files Files, dir string, state journalState) ([]record, error) {
	if !state.inUse() {
		return readJournal(files, dir, state.salt, math.MaxUint64)
	}
	if _, err := os.Stat(filepath.Join(dir, state.file)); err != nil {
		return nil, fmt.Errorf("%w: the log was not closed, and a file of its journal is missing (%w): put it back, or restore the data folder from a backup", errCorrupt, err)
	}
	return readJournal(files, dir, state.salt, state.folded)
}

// replay takes records of the journal for what they are: commits.
func (w *writer) replay(ctx context.Context, records []record) error {
	for _, r := range records {
		if shown, _ := w.recent.head(); r.after != max(shown, positionStart) {
			return fmt.Errorf("%w: record %d of the journal follows position %d, but the log ends at %d", errCorrupt, r.seq, r.after, shown)
		}
		g, err := w.regroup(ctx, r)
		if err != nil {
			return fmt.Errorf("record %d of the journal, after position %d: %w", r.seq, r.after, err)
		}
		w.journal.seq = r.seq
		w.adopt(g, int64(padded(recordHeaderBytes+len(r.body))))
		for w.folder.full() {
			if err := w.folder.fold(ctx); err != nil {
				return err
			}
		}
	}
	if len(records) > 0 {
		w.log.InfoContext(ctx, "journal read back", slog.Int("commits", len(records)), slog.Uint64("position", w.last))
	}
	return nil
}

// regroup makes the group again whose record r is.
func (w *writer) regroup(ctx context.Context, r record) (*group, error) {
	g := newGroup(w)
	for off := 0; off < len(r.body); {
		f, next, err := frameAt(r.body, off)
		if err != nil {
			return nil, err
		}
		if err := g.restore(ctx, f, r.body[off:next]); err != nil {
			return nil, err
		}
		off = next
	}
	if g.events != r.events {
		return nil, fmt.Errorf("%w: %d events instead of %d", errCorrupt, g.events, r.events)
	}
	return g, nil
}

// restore adds an event that was in the log already, stored as raw.
func (g *group) restore(ctx context.Context, f frame, raw []byte) error {
	name := string(f.stream)
	h, err := g.head(ctx, name)
	if err != nil {
		return err
	}
	if !h.exists {
		h.cut = f.rev // Of what a stream begins with later, the beginning was scavenged.
	}
	if h.exists && f.rev != h.next() && f.rev != revisionMax || f.pos <= g.last {
		return fmt.Errorf("%w: stream %s goes on at revision %d (position %d) instead of %d", errCorrupt, name, f.rev, f.pos, h.next())
	}
	if h.sid == 0 {
		h.sid = g.number(name)
	}
	if !h.exists && f.rev > 0 && f.rev != revisionMax {
		g.begins[h.sid] = f.rev
	}
	b := g.block()
	if n := len(g.runs); n > 0 && g.runs[n-1].sid == h.sid && g.runs[n-1].in == b && g.runs[n-1].end() == f.rev {
		g.runs[n-1].events++
		g.runs[n-1].created = f.created
	} else {
		g.runs = append(g.runs, groupRun{run: run{sid: h.sid, stream: name, first: f.rev, events: 1, created: f.created}, in: b})
	}
	g.created = f.created
	g.extend(b, f.pos)
	g.buf = append(g.buf, raw...)
	h.last, h.exists = f.rev, true
	g.heads[name] = h
	if !isMetaStream(name) {
		return nil
	}
	if _, err := g.head(ctx, name[2:]); err != nil {
		return err
	}
	data, err := f.data()
	if err != nil {
		return err
	}
	g.limit(name[2:], parseLimits(data))
	return nil
}

// start lets the store's goroutines run.
func (s *store) start(ctx context.Context) {
	go s.writer.run(ctx)
	go s.folder.run(ctx)
	go s.scavenger.every(ctx, s.scavengeEvery)
}

// close ends everything; what was acknowledged is in the tables then, and if they
// cannot take it, in the journal for the next start. Nobody may use the store any
// more.
func (s *store) close(ctx context.Context) error {
	s.writer.stop()
	close(s.scavenger.stop)
	<-s.scavenger.done
	folded, err := s.folder.close(context.WithoutCancel(ctx))
	return errors.Join(err, s.journal.close(ctx, folded), s.reader.close(), s.tables.close(), s.db.close())
}

// abandon undoes a start that did not succeed.
func (s *store) abandon(ctx context.Context) error {
	var errs []error
	if s.journal != nil {
		errs = append(errs, s.journal.close(ctx, false))
	}
	if s.reader != nil {
		errs = append(errs, s.reader.close())
	}
	if s.tables != nil {
		errs = append(errs, s.tables.close())
	}
	if s.db != nil {
		errs = append(errs, s.db.close())
	}
	return errors.Join(errs...)
}
