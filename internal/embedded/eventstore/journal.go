package eventstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

const (
	journalPrefix = "journal-"
	// zerosBytes is how much of a new segment is filled at once.
	zerosBytes = 256 << 10
	// sparesMax bounds the segments that are kept to be used again.
	sparesMax = 2
)

// journal makes group commits durable before they reach the tables. It is a set of
// files filled with zeros beforehand, so that a record costs one write in place and
// one fdatasync. The writer is its only user, but for release, which the folder
// calls.
//
// A file holds records of one salt or garbage; nothing else says which. Which salt
// counts, and from which record on, is in the tables' file: there an old journal is
// cut off by one commit, whatever its bytes are.
type journal struct {
	files  Files
	dir    string
	bounds bounds
	log    *slog.Logger

	salt   uint64
	seq    uint64 // Of the newest record.
	active *segment

	want chan struct{} // Asks for a spare. Closed at the end.
	done chan struct{} // Closed when the goroutine that makes spares has ended.

	mu     sync.Mutex // Guards all below.
	name   string     // Of the active file.
	sealed []*segment // Full, oldest first.
	spares []*segment // Ready to be written over.
	stale  []string   // Found at the start.
	number uint64     // Of the newest file.
	size   int64      // What the next new segment should have.
}

// segment is one file of the journal.
type segment struct {
	file      File
	path      string
	sizeBytes int64
	used      int64
	last      uint64 // Newest record in it.
	spoilt    bool   // A write or a sync failed: what it holds is not known.
}

// openJournal takes over the files in dir; what they hold must have been folded,
// or be about to be read by [readJournal].
func openJournal(ctx context.Context, files Files, dir string, b bounds, log *slog.Logger) (*journal, error) {
	j := &journal{
		files: files, dir: dir, bounds: b, log: log, size: b.segmentBytes,
		want: make(chan struct{}, 1), done: make(chan struct{}),
	}
	paths, err := journalFiles(dir)
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		if _, err := fmt.Sscanf(filepath.Base(path), journalPrefix+"%d", &j.number); err != nil {
			return nil, fmt.Errorf("open journal: %s is no file of the journal: %w", path, err)
		}
	}
	j.stale = paths
	go j.prepare(ctx)
	return j, nil
}

// journalFiles returns the paths of the journal's files, oldest first.
func journalFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list journal: %w", err)
	}
	var paths []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), journalPrefix) {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, nil
}

// begin starts a new run of the journal after record seq: a new salt, and a segment
// to write to. Until the tables' file says so, the old run counts.
func (j *journal) begin(ctx context.Context, seq uint64) (salt uint64, name string, err error) {
	var b [4]byte
	_, _ = rand.Read(b[:]) // It never fails.
	salt = (runOf(j.salt)+1)<<32 | uint64(binary.BigEndian.Uint32(b[:])) | 1
	if j.active == nil || j.active.spoilt || j.active.used > 0 {
		s, err := j.next(ctx, 0)
		if err != nil {
			return 0, "", err
		}
		if j.active != nil {
			j.active.last = math.MaxUint64 // It goes with forget, never before.
		}
		j.turn(s)
	}
	j.salt, j.seq = salt, seq
	return salt, filepath.Base(j.active.path), nil
}

// turn makes s the segment that is written to.
func (j *journal) turn(s *segment) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.active != nil {
		j.sealed = append(j.sealed, j.active)
	}
	j.active, j.name = s, filepath.Base(s.path)
}

// runOf returns the number of the run that a salt stands for.
func runOf(salt uint64) uint64 { return salt >> 32 }

// write makes buf, a record's frames behind room for its header, the next record.
// When it returns nil the record is durable. After any other result the journal
// cannot be written to until it begins anew; what may be on disk is then decided by
// the tables' file. errNotStored says that nothing was written at all.
func (j *journal) write(ctx context.Context, buf []byte, after uint64, events int) (n int64, err error) {
	buf = sealRecord(buf, j.salt, j.seq+1, after, events)
	n = int64(len(buf))
	if j.active.used+n > j.active.sizeBytes {
		s, err := j.next(ctx, n)
		if err != nil {
			return 0, fmt.Errorf("%w: %w", errNotStored, err)
		}
		j.turn(s)
	}
	if _, err := j.active.file.WriteAt(buf, j.active.used); err != nil {
		j.active.spoilt = true
		return 0, fmt.Errorf("write journal: %w", err)
	}
	if err := j.active.file.Sync(); err != nil {
		j.active.spoilt = true
		return 0, fmt.Errorf("sync journal: %w", err)
	}
	j.active.used += n
	j.seq++
	j.active.last = j.seq
	return n, nil
}

// next returns a segment with room for n bytes: a spare, or a new one.
func (j *journal) next(ctx context.Context, n int64) (*segment, error) {
	j.mu.Lock()
	i := slices.IndexFunc(j.spares, func(s *segment) bool { return s.sizeBytes >= n })
	if i >= 0 {
		s := j.spares[i]
		j.spares = slices.Delete(j.spares, i, i+1)
		j.mu.Unlock()
		j.ask()
		return s, nil
	}
	sizeBytes := max(j.size, int64(padded(int(n))))
	j.mu.Unlock()
	s, err := j.make(ctx, sizeBytes)
	if err == nil {
		j.ask()
	}
	return s, err
}

// ask lets a spare be made, if there is none.
func (j *journal) ask() {
	select {
	case j.want <- struct{}{}:
	default:
	}
}

// prepare makes spares when asked, until the journal is closed.
func (j *journal) prepare(ctx context.Context) {
	defer close(j.done)
	for range j.want {
		j.mu.Lock()
		missing := len(j.spares) == 0
		j.size = min(2*j.size, j.bounds.segmentBytesMax)
		sizeBytes := j.size
		j.mu.Unlock()
		if !missing {
			continue
		}
		s, err := j.make(ctx, sizeBytes)
		if err != nil { // The writer will need it, try itself, and tell its callers.
			j.log.WarnContext(ctx, "no spare segment for the journal", slog.Any("error", err))
			continue
		}
		j.mu.Lock()
		j.spares = append(j.spares, s)
		j.mu.Unlock()
	}
}

// make makes a file of sizeBytes zeros. It is durable when make returns.
func (j *journal) make(ctx context.Context, sizeBytes int64) (*segment, error) {
	j.mu.Lock()
	j.number++
	path := filepath.Join(j.dir, fmt.Sprintf(journalPrefix+"%010d", j.number))
	j.mu.Unlock()
	f, err := j.files.Open(path, true)
	if err != nil {
		return nil, fmt.Errorf("make segment of the journal: %w", err)
	}
	s := &segment{file: f, path: path, sizeBytes: sizeBytes}
	if err := s.fill(); err != nil {
		err = fmt.Errorf("make segment of the journal: %w", err)
		return nil, errors.Join(err, j.drop(ctx, s))
	}
	if err := j.files.SyncFolder(j.dir); err != nil {
		return nil, errors.Join(fmt.Errorf("make segment of the journal: %w", err), j.drop(ctx, s))
	}
	return s, nil
}

func (s *segment) fill() error {
	zeros := make([]byte, min(zerosBytes, s.sizeBytes))
	for at := int64(0); at < s.sizeBytes; at += int64(len(zeros)) {
		if _, err := s.file.WriteAt(zeros[:min(int64(len(zeros)), s.sizeBytes-at)], at); err != nil {
			return err
		}
	}
	return s.file.Sync()
}

// drop closes and removes a segment.
func (j *journal) drop(ctx context.Context, s *segment) error {
	if err := errors.Join(s.file.Close(), j.files.Remove(s.path)); err != nil {
		return fmt.Errorf("remove segment of the journal: %w", err)
	}
	j.log.DebugContext(ctx, "segment of the journal removed", slog.String("path", s.path))
	return nil
}

// current returns the name of the file that is written to. It is safe for
// concurrent use.
func (j *journal) current() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.name
}

// release takes back the segments whose records are all at or before seq: they are
// in the tables' file for good. The one that this file names as the journal's stays.
// It is safe for concurrent use.
func (j *journal) release(ctx context.Context, seq uint64, named string) error {
	var surplus []*segment
	j.mu.Lock()
	for len(j.sealed) > 0 && j.sealed[0].last <= seq && filepath.Base(j.sealed[0].path) != named {
		s := j.sealed[0]
		j.sealed = j.sealed[1:]
		if s.sizeBytes < j.size || len(j.spares) >= sparesMax {
			surplus = append(surplus, s)
			continue
		}
		s.used, s.last = 0, 0
		j.spares = append(j.spares, s)
		slices.SortStableFunc(j.spares, func(a, b *segment) int { return cmp.Compare(a.sizeBytes, b.sizeBytes) })
	}
	j.mu.Unlock()
	errs := make([]error, 0, len(surplus))
	for _, s := range surplus {
		errs = append(errs, j.drop(ctx, s))
	}
	return errors.Join(errs...)
}

// forget removes the files of runs that count no more: those found at the start and
// those that were sealed since.
func (j *journal) forget(ctx context.Context) error {
	j.mu.Lock()
	sealed, stale := j.sealed, j.stale
	j.sealed, j.stale = nil, nil
	j.mu.Unlock()
	errs := make([]error, 0, len(sealed)+len(stale))
	for _, s := range sealed {
		errs = append(errs, j.drop(ctx, s))
	}
	for _, path := range stale {
		errs = append(errs, j.files.Remove(path))
	}
	return errors.Join(errs...)
}

// close lets go of the files. With remove they are deleted: all is folded.
func (j *journal) close(ctx context.Context, remove bool) error {
	close(j.want)
	<-j.done
	var errs []error
	j.mu.Lock()
	all := append(slices.Clone(j.sealed), j.spares...)
	j.sealed, j.spares = nil, nil
	j.mu.Unlock()
	if j.active != nil {
		all = append(all, j.active)
		j.active = nil
	}
	for _, s := range all {
		if remove {
			errs = append(errs, j.drop(ctx, s))
		} else {
			errs = append(errs, s.file.Close())
		}
	}
	return errors.Join(errs...)
}

// readJournal returns the records of a salt after record seq, in order. What is no
// record is either the torn end, which was never acknowledged, or never written: so
// the records must follow each other without a gap.
func readJournal(files Files, dir string, salt, seq uint64) ([]record, error) {
	paths, err := journalFiles(dir)
	if err != nil {
		return nil, err
	}
	var records []record
	for _, path := range paths {
		found, err := readSegment(files, path, salt, seq)
		if errors.Is(err, fs.ErrNotExist) {
			continue // Folded and removed since, if the journal is in use.
		}
		if err != nil {
			return nil, fmt.Errorf("read journal %s: %w", path, err)
		}
		records = append(records, found...)
	}
	slices.SortFunc(records, func(a, b record) int { return cmp.Compare(a.seq, b.seq) })
	for i, r := range records {
		if want := seq + 1 + uint64(i); r.seq != want {
			return nil, fmt.Errorf("%w: the journal in %s lacks its record %d, but holds record %d (after position %d)", errCorrupt, dir, want, r.seq, r.after)
		}
	}
	return records, nil
}

// readSegment returns the records of one file.
func readSegment(files Files, path string, salt, seq uint64) (records []record, err error) {
	f, err := files.Open(path, false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sizeBytes, err := f.Size()
	if err != nil {
		return nil, err
	}
	buf := make([]byte, sizeBytes)
	if _, err := f.ReadAt(buf, 0); err != nil {
		return nil, err
	}
	for at := 0; at < len(buf); {
		r, ok := recordAt(buf[at:])
		if !ok {
			at += pageBytes
			continue
		}
		at += padded(recordHeaderBytes + len(r.body))
		if runOf(r.salt) > runOf(salt) {
			return nil, fmt.Errorf("%w: it is of run %d, the tables know of run %d only: a part of them was lost", errCorrupt, runOf(r.salt), runOf(salt))
		}
		if r.salt == salt && r.seq > seq {
			r.body = slices.Clone(r.body)
			records = append(records, r)
		}
	}
	return records, nil
}
