package eventstore

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"time"
)

// FailFolds lets folds fail: before their commit, where before may use the writing
// connection, or after it, with everything stored. nil is no fault.
func (s *Server) FailFolds(before func(context.Context, *sql.Conn) error, after func() error) {
	s.store.tables.faults.Store(&faults{beforeFold: before, afterFold: after})
}

// Fold moves what the journal holds into the tables.
func (s *Server) Fold(ctx context.Context) error { return s.store.folder.fold(ctx) }

// Unfolded returns the bytes that are in the journal alone, in memory and on disk.
func (s *Server) Unfolded() (memory, journal int64) {
	s.store.folder.mu.Lock()
	defer s.store.folder.mu.Unlock()
	return s.store.folder.bytes, s.store.folder.inFiles
}

// Bounds are those of the journal.
type Bounds struct {
	SegmentBytes, SegmentBytesMax int64
	FoldBytes                     int64
	FoldAfter                     time.Duration
	TailBytesMax, JournalBytesMax int64
	Patience                      time.Duration
}

// Bound sets the bounds of the journal.
func (c *Config) Bound(b Bounds) {
	c.bounds = bounds{
		segmentBytes: b.SegmentBytes, segmentBytesMax: b.SegmentBytesMax, foldBytes: b.FoldBytes, foldAfter: b.FoldAfter,
		tailBytesMax: b.TailBytesMax, journalBytesMax: b.JournalBytesMax, patience: b.Patience,
	}
}

// JournalFiles returns the paths of the journal's files.
func JournalFiles(dir string) ([]string, error) { return journalFiles(dir) }

// OSFiles is the operating system's file system.
func OSFiles() Files { return osFiles{} }

// BoundHeads keeps at most n stream heads in memory. Call it before any append.
func (s *Server) BoundHeads(n int) { s.store.writer.heads.max = n }

// Heads returns how many stream heads are in memory. Call it after Close.
func (s *Server) Heads() int { return s.store.writer.heads.order.Len() }

// RecordPlace says where a record of the journal lies.
type RecordPlace struct {
	Seq        uint64
	Path       string
	At, Length int // Length without the padding.
}

// RecordPlaces returns where the records of the journal in dir lie that count.
func RecordPlaces(ctx context.Context, dir string) ([]RecordPlace, error) {
	v, err := openView(ctx, dir)
	if err != nil {
		return nil, err
	}
	state, err := readState(ctx, v.conn)
	if err := errors.Join(err, v.close()); err != nil {
		return nil, err
	}
	paths, err := journalFiles(dir)
	if err != nil {
		return nil, err
	}
	var places []RecordPlace
	for _, path := range paths {
		buf, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		for at := 0; at < len(buf); at += pageBytes {
			if r, ok := recordAt(buf[at:]); ok && r.salt == state.salt && r.seq > state.folded {
				places = append(places, RecordPlace{Seq: r.seq, Path: path, At: at, Length: recordHeaderBytes + len(r.body)})
			}
		}
	}
	slices.SortFunc(places, func(a, b RecordPlace) int { return cmp.Compare(a.Seq, b.Seq) })
	return places, nil
}

// CountRecords returns how many records a start would read back from the journal in
// dir, whose first one is given.
func CountRecords(dir string, first RecordPlace) (int, error) {
	buf, err := os.ReadFile(first.Path)
	if err != nil {
		return 0, err
	}
	records, err := readJournal(osFiles{}, dir, binary.BigEndian.Uint64(buf[first.At+8:]), first.Seq-1)
	return len(records), err
}
