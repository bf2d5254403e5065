package archive

import (
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

const (
	// magic opens a file; its last two bytes show a transfer that changed line ends.
	magic = "KTARC1\r\n"
	// blockBytes is when a block is full, before compression. It holds at least one event.
	blockBytes = 1 << 20
	// blockBytesMax bounds what a reader takes for a block: a full one and an event.
	blockBytesMax = blockBytes + eventBytesMax
	headBytesMax  = 64 << 10
)

// castagnoli is the CRC-32C table of block checksums.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// Header opens a file: which range it holds.
type Header struct {
	Stream        string `json:"stream"`
	Segment       uint64 `json:"segment"`
	FirstRevision uint64 `json:"first_revision"`
	LastRevision  uint64 `json:"last_revision"`
	// Previous is the hash of the segment before.
	Previous string `json:"previous"`
}

// Footer ends a file.
type Footer struct {
	Events uint64 `json:"events"`
	// SHA256 is the chain over the events; see [Chain].
	SHA256 string `json:"sha256"`
}

// Writer writes one archive to a stream. It is not safe for concurrent use.
type Writer struct {
	out    io.Writer
	whole  hash.Hash // Over every byte of the file before its own last 32.
	table  *crc32.Table
	zip    *zstd.Encoder
	chain  *Chain
	events uint64
	raw    []byte
	zipped []byte
	bytes  uint64
}

// NewWriter writes the head of an archive to out.
func NewWriter(out io.Writer, h Header) (*Writer, error) {
	zip, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true))
	if err != nil {
		return nil, fmt.Errorf("archive compressor: %w", err)
	}
	chain, err := NewChain(h.Previous)
	if err != nil {
		return nil, err
	}
	head, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("archive header: %w", err)
	}
	w := &Writer{out: out, whole: sha256.New(), table: castagnoli(), zip: zip, chain: chain}
	b := append([]byte(magic), 0, 0, 0, 0)
	binary.BigEndian.PutUint32(b[len(magic):], uint32(len(head))) //nolint:gosec // Some hundred bytes.
	b = append(b, head...)
	return w, w.write(binary.BigEndian.AppendUint32(b, crc32.Checksum(head, w.table)))
}

func (w *Writer) write(b []byte) error {
	n, err := w.out.Write(b)
	w.bytes += uint64(n) //nolint:gosec // Not negative.
	w.whole.Write(b)
	if err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	return nil
}

// Add writes the next event.
func (w *Writer) Add(r *eventlog.Raw) error {
	before := len(w.raw)
	w.raw = appendEvent(w.raw, r)
	if len(w.raw)-before > eventBytesMax {
		return fmt.Errorf("archive event %s@%d: %d bytes, at most %d", r.Stream, r.Revision, len(w.raw)-before, eventBytesMax)
	}
	w.chain.Add(r)
	w.events++
	if len(w.raw) >= blockBytes {
		return w.flush()
	}
	return nil
}

func (w *Writer) flush() error {
	if len(w.raw) == 0 {
		return nil
	}
	w.zipped = w.zip.EncodeAll(w.raw, append(w.zipped[:0], make([]byte, 12)...))
	body := w.zipped[12:]
	binary.BigEndian.PutUint32(w.zipped, uint32(len(body)))      //nolint:gosec // Bounded by the block.
	binary.BigEndian.PutUint32(w.zipped[4:], uint32(len(w.raw))) //nolint:gosec // Bounded by the block.
	binary.BigEndian.PutUint32(w.zipped[8:], crc32.Checksum(body, w.table))
	w.raw = w.raw[:0]
	return w.write(w.zipped)
}

// Close writes what is left and the end. It returns the SHA-256 and the length of the
// whole file, and the chain's hash. It does not close what is below.
func (w *Writer) Close() (sum string, bytes uint64, chain string, err error) {
	chain = w.chain.Sum()
	foot, err := json.Marshal(Footer{Events: w.events, SHA256: chain})
	if err != nil {
		return "", 0, "", fmt.Errorf("archive footer: %w", err)
	}
	end := binary.BigEndian.AppendUint32(make([]byte, 4), uint32(len(foot))) //nolint:gosec // Some hundred bytes.
	end = append(end, foot...)
	if err := errors.Join(w.flush(), w.write(end)); err != nil {
		return "", 0, "", err
	}
	if err := w.write(w.whole.Sum(nil)); err != nil {
		return "", 0, "", err
	}
	return hex.EncodeToString(w.whole.Sum(nil)), w.bytes, chain, nil
}
