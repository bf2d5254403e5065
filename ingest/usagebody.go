package ingest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"example.com/keytrail/domain"
)

// Bounds of one upload, of uses or of records to import.
const (
	// UploadBytesMax bounds the body as it is sent.
	UploadBytesMax = 64 << 20
	// UploadPlainBytesMax bounds it after decompression.
	UploadPlainBytesMax = 1 << 30
	// UploadsInFlightBytesMax bounds all bodies that are being received or worked on;
	// beyond it uploads are answered 503.
	UploadsInFlightBytesMax = 256 << 20

	spoolMemoryBytes = 4 << 20
	spoolStepBytes   = 256 << 10
	zstdWindowMax    = 32 << 20
)

// uploadBudget counts the bytes of all uploads that are in flight.
type uploadBudget struct {
	used atomic.Int64
	max  int64
}

func (b *uploadBudget) take(n int64) error {
	if b.used.Add(n) > b.max {
		b.used.Add(-n)
		return domain.Errorf(domain.Unavailable, "too many uploads at once, try again").WithMessageCode("too_many_uploads")
	}
	return nil
}

func (b *uploadBudget) give(n int64) { b.used.Add(-n) }

// spool holds a whole body, since nothing may be written to the log before its hash
// is known: in memory up to 4 MiB, then in a file that is already unlinked.
type spool struct {
	budget *uploadBudget
	taken  int64
	mem    []byte
	file   *os.File
	size   int64
	// hash is the hex SHA-256 of the body as it was sent.
	hash string
}

// receive reads body to its end into a spool, which the caller closes.
func receive(body io.Reader, dir string, budget *uploadBudget) (*spool, error) {
	s := &spool{budget: budget}
	sum := sha256.New()
	buf := make([]byte, spoolStepBytes)
	for {
		n, err := body.Read(buf)
		sum.Write(buf[:n])
		if err := s.add(buf[:n], dir); err != nil {
			return nil, errors.Join(err, s.close())
		}
		if errors.Is(err, io.EOF) {
			s.hash = hex.EncodeToString(sum.Sum(nil))
			return s, nil
		}
		if err != nil {
			refusal := domain.Errorf(domain.Invalid, "the body broke off").WithMessageCode("incomplete_body")
			return nil, errors.Join(fmt.Errorf("read body: %w: %w", refusal, err), s.close())
		}
	}
}

func (s *spool) add(p []byte, dir string) error {
	if s.size+int64(len(p)) > UploadBytesMax {
		return domain.Errorf(domain.TooLarge, "a body may have at most %d bytes", UploadBytesMax).WithMessageCode("body_too_large")
	}
	if err := s.budget.take(int64(len(p))); err != nil {
		return err
	}
	s.taken += int64(len(p))
	s.size += int64(len(p))
	if s.file == nil && len(s.mem)+len(p) <= spoolMemoryBytes {
		s.mem = append(s.mem, p...)
		return nil
	}
	if s.file == nil {
		f, err := os.CreateTemp(dir, "upload-*")
		if err != nil {
			return fmt.Errorf("make spool file: %w", err)
		}
		s.file = f
		// Unlinked at once: a crash leaves nothing behind.
		if err := os.Remove(f.Name()); err != nil {
			return fmt.Errorf("unlink spool file: %w", err)
		}
	}
	if _, err := s.file.Write(p); err != nil {
		return fmt.Errorf("write spool file: %w", err)
	}
	return nil
}

// reader returns the body from its beginning.
func (s *spool) reader() (io.Reader, error) {
	if s.file == nil {
		return bytes.NewReader(s.mem), nil
	}
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("rewind spool file: %w", err)
	}
	return io.MultiReader(bytes.NewReader(s.mem), s.file), nil
}

// close gives the memory, the file and the budget back.
func (s *spool) close() error {
	s.budget.give(s.taken)
	s.taken, s.mem = 0, nil
	if s.file == nil {
		return nil
	}
	if err := s.file.Close(); err != nil {
		return fmt.Errorf("close spool file: %w", err)
	}
	return nil
}

// open returns the body without its compression. It reads a compressed body through
// once before, so that a damaged or an exploding one is refused whole.
func (s *spool) open(encoding string) (io.Reader, func(), error) {
	if encoding == "" || strings.EqualFold(encoding, "identity") {
		r, err := s.reader()
		return r, func() {}, err
	}
	r, done, err := s.unpack(encoding)
	if err != nil {
		return nil, nil, err
	}
	n, err := io.Copy(io.Discard, io.LimitReader(r, UploadPlainBytesMax+1))
	done()
	switch {
	case err != nil:
		return nil, nil, badEncoding(encoding, err)
	case n > UploadPlainBytesMax:
		return nil, nil, domain.Errorf(domain.TooLarge, "a body may have at most %d bytes after decompression", UploadPlainBytesMax).
			WithMessageCode("body_too_large")
	}
	return s.unpack(encoding)
}

func (s *spool) unpack(encoding string) (io.Reader, func(), error) {
	r, err := s.reader()
	if err != nil {
		return nil, nil, err
	}
	switch {
	case strings.EqualFold(encoding, "gzip"):
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, nil, badEncoding(encoding, err)
		}
		return z, func() {}, nil
	case strings.EqualFold(encoding, "zstd"):
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdWindowMax))
		if err != nil {
			return nil, nil, badEncoding(encoding, err)
		}
		return z, z.Close, nil
	}
	return nil, nil, domain.Errorf(domain.Invalid, "must be gzip, zstd or identity").
		WithField("Content-Encoding").WithMessageCode("unsupported_encoding")
}

func badEncoding(encoding string, err error) error {
	return fmt.Errorf("%w: %w", domain.Errorf(domain.Invalid, "the body is not whole %s data", strings.ToLower(encoding)).
		WithMessageCode("damaged_body"), err)
}
