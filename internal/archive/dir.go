package archive

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

// Dir is a folder of archives. It is safe for concurrent use, by several processes too:
// a file's name holds the beginning of its own hash, so that no writer replaces another's
// bytes.
type Dir struct{ path string }

// OpenDir returns the folder at path, made if need be, for its owner only.
func OpenDir(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make archive folder: %w", err)
	}
	return &Dir{path: path}, nil
}

// At returns the folder at path, which is made when something is stored in it.
func At(path string) *Dir { return &Dir{path: path} }

// Path returns where the folder is.
func (d *Dir) Path() string { return d.path }

// Suffix ends the name of every archive.
const Suffix = ".kta"

// fileName names the archive of a segment.
func fileName(h Header, sum string) string {
	return fmt.Sprintf("%s.%08d.%s%s", strings.TrimPrefix(h.Stream, domain.EvidencePrefix), h.Segment, sum[:16], Suffix)
}

// Store writes events, in order, as the archive of h, and returns when the file and its
// name are durable, with the hash over the events. A repeat with the same events writes
// the same file.
func (d *Dir) Store(h Header, events iter.Seq2[eventlog.Raw, error]) (domain.SegmentArchive, string, error) {
	fail := func(err error) (domain.SegmentArchive, string, error) {
		return domain.SegmentArchive{}, "", fmt.Errorf("archive segment %d of %s: %w", h.Segment, h.Stream, err)
	}
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return fail(err)
	}
	f, err := os.CreateTemp(d.path, ".writing-*")
	if err != nil {
		return fail(err)
	}
	a, chain, err := writeTo(f, h, events)
	if err = errors.Join(err, f.Close()); err == nil {
		a.Name = fileName(h, a.SHA256)
		err = os.Rename(f.Name(), filepath.Join(d.path, a.Name))
	}
	if err != nil {
		return fail(errors.Join(err, ignoreMissing(os.Remove(f.Name()))))
	}
	if err := syncDir(d.path); err != nil {
		return fail(err)
	}
	return a, chain, nil
}

func writeTo(f *os.File, h Header, events iter.Seq2[eventlog.Raw, error]) (domain.SegmentArchive, string, error) {
	w, err := NewWriter(f, h)
	if err != nil {
		return domain.SegmentArchive{}, "", err
	}
	for raw, err := range events {
		if err != nil {
			return domain.SegmentArchive{}, "", err
		}
		if err := w.Add(&raw); err != nil {
			return domain.SegmentArchive{}, "", err
		}
	}
	sum, size, chain, err := w.Close()
	if err != nil {
		return domain.SegmentArchive{}, "", err
	}
	return domain.SegmentArchive{SHA256: sum, Bytes: size}, chain, f.Sync()
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}

// File is an open archive whose header is that of a sealed segment.
type File struct {
	*Reader
	f    *os.File
	seal domain.UsageSegmentSealed
}

// Open opens the archive of a sealed segment. Its error names the file.
func (d *Dir) Open(seal domain.UsageSegmentSealed) (*File, error) {
	if seal.Archive == nil {
		return nil, fmt.Errorf("segment %d of %s has no archive", seal.Segment, seal.Stream)
	}
	name := filepath.Join(d.path, seal.Archive.Name)
	fail := func(err error) (*File, error) {
		return nil, fmt.Errorf("archive %s of segment %d of %s: %w", name, seal.Segment, seal.Stream, err)
	}
	if filepath.Base(seal.Archive.Name) != seal.Archive.Name || !strings.HasSuffix(seal.Archive.Name, Suffix) {
		return fail(errors.New("not the name of an archive"))
	}
	f, err := os.Open(name)
	if err != nil {
		return fail(err)
	}
	r, err := NewReader(f)
	if err != nil {
		return fail(errors.Join(err, f.Close()))
	}
	want := Header{Stream: seal.Stream, Segment: seal.Segment, FirstRevision: seal.FirstRevision, LastRevision: seal.LastRevision, Previous: seal.Previous}
	if r.Header() != want {
		r.Close()
		return fail(errors.Join(fmt.Errorf("%w: it holds another range: %+v", ErrDamaged, r.Header()), f.Close()))
	}
	return &File{Reader: r, f: f, seal: seal}, nil
}

// Next is [Reader.Next], with an error that names the file. [io.EOF] says that the file
// is the one that was sealed, to the byte.
func (f *File) Next() (eventlog.Raw, error) {
	raw, err := f.Reader.Next()
	if errors.Is(err, io.EOF) {
		if f.Sum() == f.seal.Archive.SHA256 && f.Chain() == f.seal.SHA256 {
			return raw, io.EOF
		}
		err = fmt.Errorf("%w: it is whole, but not the file that was sealed", ErrDamaged)
	}
	if err != nil {
		err = fmt.Errorf("archive %s of segment %d of %s: %w", f.f.Name(), f.seal.Segment, f.seal.Stream, err)
	}
	return raw, err
}

// Close ends reading.
func (f *File) Close() error {
	f.Reader.Close()
	if err := f.f.Close(); err != nil {
		return fmt.Errorf("close archive: %w", err)
	}
	return nil
}

// Check reads the archive of a sealed segment to its end and compares it with the seal.
func (d *Dir) Check(seal domain.UsageSegmentSealed) (err error) {
	f, err := d.Open(seal)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	places, err := domain.UnpackPlaces(seal.Places)
	if err != nil {
		return fmt.Errorf("segment %d of %s: %w", seal.Segment, seal.Stream, err)
	}
	for n := 0; ; n++ {
		raw, err := f.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if n >= len(places) || places[n].Position != raw.Position {
			return fmt.Errorf("archive %s: %w: the seal has no event at %d", seal.Archive.Name, ErrDamaged, raw.Position)
		}
	}
}
