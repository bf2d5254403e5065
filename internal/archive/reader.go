package archive

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/zstd"

	"example.com/keytrail/internal/eventlog"
)

// Reader reads one archive from its beginning. What [Reader.Next] gives before it returns
// [io.EOF] was checked block by block; only EOF says that the file is whole. It is not
// safe for concurrent use.
type Reader struct {
	in     *bufio.Reader
	whole  hash.Hash
	table  *crc32.Table
	unzip  *zstd.Decoder
	header Header
	chain  *Chain
	next   uint64 // Revision.
	last   uint64 // Position.
	events uint64
	zipped []byte
	raw    []byte
	rest   []byte // Of raw.
	sum    string
	err    error // Once it ended, io.EOF too.
}

// NewReader reads the head of an archive.
func NewReader(in io.Reader) (*Reader, error) {
	unzip, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(blockBytesMax), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("archive decompressor: %w", err)
	}
	r := &Reader{in: bufio.NewReaderSize(in, 64<<10), whole: sha256.New(), table: castagnoli(), unzip: unzip}
	if err := r.head(); err != nil {
		unzip.Close()
		return nil, err
	}
	return r, nil
}

// Close frees what the reader holds. It does not close what is below.
func (r *Reader) Close() { r.unzip.Close() }

// Header returns which range the file holds.
func (r *Reader) Header() Header { return r.header }

// Sum returns the SHA-256 of the whole file in hex, once Next returned [io.EOF].
func (r *Reader) Sum() string { return r.sum }

// Chain returns the hash over the events read so far.
func (r *Reader) Chain() string { return r.chain.Sum() }

// read fills b and hashes it.
func (r *Reader) read(b []byte) error {
	if _, err := io.ReadFull(r.in, b); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("%w: it is cut off", ErrDamaged)
		}
		return fmt.Errorf("read archive: %w", err)
	}
	r.whole.Write(b)
	return nil
}

func (r *Reader) number() (uint32, error) {
	var b [4]byte
	err := r.read(b[:])
	return binary.BigEndian.Uint32(b[:]), err
}

// text reads a length and as many bytes of JSON into v.
func (r *Reader) text(v any) ([]byte, error) {
	n, err := r.number()
	if err != nil {
		return nil, err
	}
	if n > headBytesMax {
		return nil, fmt.Errorf("%w: a text of %d bytes", ErrDamaged, n)
	}
	b := make([]byte, n)
	if err := r.read(b); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return b, nil
}

func (r *Reader) head() error {
	open := make([]byte, len(magic))
	if err := r.read(open); err != nil {
		return err
	}
	if string(open) != magic {
		return fmt.Errorf("%w: not a keytrail archive of a version that this program reads", ErrDamaged)
	}
	b, err := r.text(&r.header)
	if err != nil {
		return err
	}
	sum, err := r.number()
	if err != nil {
		return err
	}
	if sum != crc32.Checksum(b, r.table) {
		return fmt.Errorf("%w: checksum of the header", ErrDamaged)
	}
	r.next = r.header.FirstRevision
	if r.chain, err = NewChain(r.header.Previous); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}

// Next returns the next event, or [io.EOF] after the last one if the file is whole. Any
// other error is for good.
func (r *Reader) Next() (eventlog.Raw, error) {
	if r.err != nil {
		return eventlog.Raw{}, r.err
	}
	raw, err := r.step()
	r.err = err
	return raw, err
}

func (r *Reader) step() (eventlog.Raw, error) {
	for len(r.rest) == 0 {
		size, err := r.number()
		if err != nil {
			return eventlog.Raw{}, err
		}
		if size == 0 {
			return eventlog.Raw{}, r.end()
		}
		if err := r.block(size); err != nil {
			return eventlog.Raw{}, err
		}
	}
	raw, rest, err := takeEvent(r.rest)
	if err != nil {
		return raw, err
	}
	r.rest = rest
	if raw.Stream != r.header.Stream || raw.Revision != r.next || raw.Position <= r.last {
		return raw, fmt.Errorf("%w: %s@%d at %d stands where %s@%d is due", ErrDamaged, raw.Stream, raw.Revision, raw.Position, r.header.Stream, r.next)
	}
	r.chain.Add(&raw)
	r.next, r.last = r.next+1, raw.Position
	r.events++
	return raw, nil
}

func (r *Reader) block(zipped uint32) error {
	var b [8]byte
	if err := r.read(b[:]); err != nil {
		return err
	}
	size, sum := binary.BigEndian.Uint32(b[:]), binary.BigEndian.Uint32(b[4:])
	if size == 0 || size > blockBytesMax || zipped > blockBytesMax {
		return fmt.Errorf("%w: a block of %d bytes in %d", ErrDamaged, size, zipped)
	}
	// The buffer grows as bytes arrive: a length alone allocates little.
	var buf bytes.Buffer
	if n, err := io.Copy(&buf, io.LimitReader(r.in, int64(zipped))); err != nil || n != int64(zipped) {
		return errors.Join(fmt.Errorf("%w: a block is cut off", ErrDamaged), err)
	}
	r.zipped = buf.Bytes()
	r.whole.Write(r.zipped)
	if crc32.Checksum(r.zipped, r.table) != sum {
		return fmt.Errorf("%w: checksum of a block", ErrDamaged)
	}
	if cap(r.raw) < int(size) {
		r.raw = make([]byte, 0, size)
	}
	raw, err := r.unzip.DecodeAll(r.zipped, r.raw[:0:size])
	if err != nil || len(raw) != int(size) {
		return errors.Join(fmt.Errorf("%w: a block does not decompress to %d bytes", ErrDamaged, size), err)
	}
	r.raw, r.rest = raw, raw
	return nil
}

// end checks the footer and that nothing follows it.
func (r *Reader) end() error {
	var f Footer
	if _, err := r.text(&f); err != nil {
		return err
	}
	if f.Events != r.events || f.SHA256 != r.chain.Sum() || r.next != r.header.LastRevision+1 {
		return fmt.Errorf("%w: %d events to revision %d, its end says %d and its header %d", ErrDamaged, r.events, r.next-1, f.Events, r.header.LastRevision)
	}
	want := r.whole.Sum(nil)
	have := make([]byte, sha256.Size)
	if err := r.read(have); err != nil {
		return err
	}
	if !bytes.Equal(have, want) {
		return fmt.Errorf("%w: checksum of the file", ErrDamaged)
	}
	if _, err := r.in.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: bytes after its end", ErrDamaged)
	}
	r.sum = hex.EncodeToString(r.whole.Sum(nil))
	return io.EOF
}
