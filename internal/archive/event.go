package archive

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

// ErrDamaged is the root of every complaint about an archive's bytes.
var ErrDamaged = errors.New("archive is damaged")

// eventBytesMax bounds one encoded event. An event store takes far less.
const eventBytesMax = 17 << 20

// flagJSON says that the event's data is JSON.
const flagJSON = 1

// appendEvent appends the canonical bytes of r: what the file holds and what the chain
// is computed over.
func appendEvent(b []byte, r *eventlog.Raw) []byte {
	b = binary.BigEndian.AppendUint64(b, r.Revision)
	b = binary.BigEndian.AppendUint64(b, r.Position)
	b = append(b, r.ID[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(r.RecordedAt.UnixNano()))
	flags := byte(0)
	if r.JSON {
		flags = flagJSON
	}
	b = append(b, flags)
	for _, text := range [][]byte{[]byte(r.Stream), []byte(r.Type), r.Meta, r.Data} {
		b = binary.AppendUvarint(b, uint64(len(text)))
		b = append(b, text...)
	}
	return b
}

// takeEvent reads one event from the front of b and returns the rest. The event shares
// no memory with b.
func takeEvent(b []byte) (eventlog.Raw, []byte, error) {
	const head = 8 + 8 + 16 + 8 + 1
	var r eventlog.Raw
	if len(b) < head {
		return r, nil, fmt.Errorf("%w: event of %d bytes", ErrDamaged, len(b))
	}
	r.Revision, r.Position = binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	r.ID = domain.EventID(b[16:32])
	r.RecordedAt = time.Unix(0, int64(binary.BigEndian.Uint64(b[32:]))).UTC() //nolint:gosec // Was signed.
	switch b[40] {
	case 0:
	case flagJSON:
		r.JSON = true
	default:
		return r, nil, fmt.Errorf("%w: event flags %x", ErrDamaged, b[40])
	}
	b = b[head:]
	var texts [4][]byte
	for i := range texts {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > uint64(len(b)-size) { //nolint:gosec // Not negative: size is within b.
			return r, nil, fmt.Errorf("%w: event is cut off", ErrDamaged)
		}
		texts[i], b = b[size:size+int(n)], b[size+int(n):] //nolint:gosec // Not more than there is.
	}
	r.Stream, r.Type = string(texts[0]), string(texts[1])
	r.Meta, r.Data = append([]byte{}, texts[2]...), append([]byte{}, texts[3]...)
	return r, b, nil
}

// Chain is the hash over a segment's events, chained to the segment before.
type Chain struct {
	sum hash.Hash
	buf []byte
}

// NewChain begins the chain of a segment; previous is the hex SHA-256 of the one before,
// empty for a stream's first.
func NewChain(previous string) (*Chain, error) {
	before, err := hex.DecodeString(previous)
	if err != nil || len(before) != 0 && len(before) != sha256.Size {
		return nil, fmt.Errorf("hash of the segment before: %q", previous)
	}
	c := &Chain{sum: sha256.New()}
	c.sum.Write(before)
	return c, nil
}

// Add takes in the next event.
func (c *Chain) Add(r *eventlog.Raw) {
	c.buf = appendEvent(c.buf[:0], r)
	c.sum.Write(c.buf)
}

// Sum returns the hex SHA-256 so far.
func (c *Chain) Sum() string { return hex.EncodeToString(c.sum.Sum(nil)) }
