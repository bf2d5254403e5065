package eventstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// A block is what one row of the log holds: the frames of consecutive events. A
// frame is a fixed header and the event as the protocol's ReadResp message, so
// that reading it out costs no encoding:
//
//	offset size
//	0      4    length of the message
//	4      8    position
//	12     8    revision in the stream
//	20     8    created, in ticks of 100 ns since 1970
//	28     16   event id
//	44     2+2  where in the message the stream name lies, and its length
//	48     2+2  the same for the type
//	52          the message
//
// All integers are big-endian.
const frameHeaderBytes = 52

// nameBytesMax bounds stream names and types: their places in a frame are 16 bits.
const nameBytesMax = 4096

// errCorrupt says that stored bytes are not what was written.
var errCorrupt = errors.New("event log file is corrupt")

// frame is one stored event. Its slices share the block's memory and are never
// written to.
type frame struct {
	pos, rev uint64
	created  int64
	id       [16]byte
	stream   []byte
	typ      []byte
	wire     []byte
}

// proposed is one event of an append before it has a place.
type proposed struct {
	id         [16]byte
	typ        string
	json       bool
	data, meta []byte
}

// sizeBytes is how EventStoreDB counts an event against the append limit.
func (p *proposed) sizeBytes() int { return len(p.data) + len(p.meta) + 2*len(p.typ) }

// block is a row of the log: whole appends, in order.
type block struct {
	first, last uint64
	n           int
	body        []byte
}

// place is where the writer put an event.
type place struct {
	stream   string
	pos, rev uint64
	created  int64
}

func contentType(json bool) string {
	if json {
		return "application/json"
	}
	return "application/octet-stream"
}

// bytesField returns the encoded size of a length-delimited field with a one-byte tag.
func bytesField(n int) int { return 1 + protowire.SizeBytes(n) }

func varintField(v uint64) int { return 1 + protowire.SizeVarint(v) }

func appendEntry(b []byte, key, value string) []byte {
	b = protowire.AppendTag(b, 6, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(bytesField(len(key))+bytesField(len(value)))) //nolint:gosec // Lengths of short strings.
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendString(b, key)
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	return protowire.AppendString(b, value)
}

func entryField(key, value string) int {
	return bytesField(bytesField(len(key)) + bytesField(len(value)))
}

// appendFrame appends the frame of p at its place to b.
func appendFrame(b []byte, p *proposed, at place) []byte {
	created := strconv.FormatInt(at.created, 10)
	msb := binary.BigEndian.Uint64(p.id[:8])
	lsb := binary.BigEndian.Uint64(p.id[8:])
	structured := varintField(msb) + varintField(lsb)
	uuid := bytesField(structured)
	name := bytesField(len(at.stream))
	content := contentType(p.json)
	rec := bytesField(uuid) + bytesField(name) + varintField(at.rev) + 2*varintField(at.pos) +
		entryField("type", p.typ) + entryField("created", created) + entryField("content-type", content) +
		bytesField(len(p.meta)) + bytesField(len(p.data))
	inner := bytesField(rec) + varintField(at.pos)

	start := len(b)
	b = append(b, make([]byte, frameHeaderBytes)...)
	wire := len(b)
	b = appendLen(b, 1, inner) // ReadResp.event
	b = appendLen(b, 1, rec)   // ReadEvent.event
	b = appendLen(b, 1, uuid)  // RecordedEvent.id
	b = appendLen(b, 1, structured)
	b = appendVarint(b, 1, msb)
	b = appendVarint(b, 2, lsb)
	b = appendLen(b, 2, name) // RecordedEvent.stream_identifier
	b = appendLen(b, 3, len(at.stream))
	nameAt := len(b) - wire
	b = append(b, at.stream...)
	b = appendVarint(b, 3, at.rev)
	b = appendVarint(b, 4, at.pos)
	b = appendVarint(b, 5, at.pos)
	b = appendEntry(b, "type", p.typ)
	typAt := len(b) - wire - len(p.typ)
	b = appendEntry(b, "created", created)
	b = appendEntry(b, "content-type", content)
	b = appendLen(b, 7, len(p.meta))
	b = append(b, p.meta...)
	b = appendLen(b, 8, len(p.data))
	b = append(b, p.data...)
	b = appendVarint(b, 3, at.pos) // ReadEvent.commit_position

	putFrameHeader(b[start:wire], p, at, len(b)-wire, nameAt, typAt)
	return b
}

// putFrameHeader writes what comes before the wire form of p: the form's length, and
// where in it the two names stand.
func putFrameHeader(h []byte, p *proposed, at place, wireBytes, nameAt, typAt int) {
	binary.BigEndian.PutUint32(h, uint32(wireBytes)) //nolint:gosec // Bounded by the append limit.
	binary.BigEndian.PutUint64(h[4:], at.pos)
	binary.BigEndian.PutUint64(h[12:], at.rev)
	binary.BigEndian.PutUint64(h[20:], uint64(at.created)) //nolint:gosec // Ticks since 1970.
	copy(h[28:], p.id[:])
	binary.BigEndian.PutUint16(h[44:], uint16(nameAt))         //nolint:gosec // Bounded by nameBytesMax.
	binary.BigEndian.PutUint16(h[46:], uint16(len(at.stream))) //nolint:gosec // Bounded by nameBytesMax.
	binary.BigEndian.PutUint16(h[48:], uint16(typAt))          //nolint:gosec // Bounded by nameBytesMax.
	binary.BigEndian.PutUint16(h[50:], uint16(len(p.typ)))     //nolint:gosec // Bounded by nameBytesMax.
}

func appendLen(b []byte, field protowire.Number, n int) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendVarint(b, uint64(n)) //nolint:gosec // A length.
}

func appendVarint(b []byte, field protowire.Number, v uint64) []byte {
	b = protowire.AppendTag(b, field, protowire.VarintType)
	return protowire.AppendVarint(b, v)
}

// frameAt returns the frame at off and the offset of the next one.
func frameAt(body []byte, off int) (frame, int, error) {
	if off < 0 || off > len(body) || len(body)-off < frameHeaderBytes {
		return frame{}, 0, fmt.Errorf("%w: a frame begins at %d of %d bytes", errCorrupt, off, len(body))
	}
	h := body[off : off+frameHeaderBytes]
	n := uint64(binary.BigEndian.Uint32(h))
	rest := body[off+frameHeaderBytes:]
	if n > uint64(len(rest)) {
		return frame{}, 0, fmt.Errorf("%w: a frame of %d bytes at %d of %d", errCorrupt, n, off, len(body))
	}
	wire := rest[:n:n]
	f := frame{
		pos:     binary.BigEndian.Uint64(h[4:]),
		rev:     binary.BigEndian.Uint64(h[12:]),
		created: int64(binary.BigEndian.Uint64(h[20:])), //nolint:gosec // Written from an int64.
		id:      [16]byte(h[28:44]),
		wire:    wire,
	}
	var ok1, ok2 bool
	f.stream, ok1 = within(wire, h[44:48])
	f.typ, ok2 = within(wire, h[48:52])
	if !ok1 || !ok2 {
		return frame{}, 0, fmt.Errorf("%w: a name outside of its frame at %d", errCorrupt, off)
	}
	return f, off + frameHeaderBytes + int(n), nil //nolint:gosec // n <= len(rest).
}

func within(wire, place []byte) ([]byte, bool) {
	at, n := int(binary.BigEndian.Uint16(place)), int(binary.BigEndian.Uint16(place[2:]))
	if at+n > len(wire) {
		return nil, false
	}
	return wire[at : at+n : at+n], true
}

// frames returns all frames of b in order.
func (b *block) frames(into []frame) ([]frame, error) {
	into = into[:0]
	for off := 0; off < len(b.body); {
		f, next, err := frameAt(b.body, off)
		if err != nil {
			return nil, fmt.Errorf("block at position %d: %w", b.first, err)
		}
		into = append(into, f)
		off = next
	}
	if len(into) != b.n {
		return nil, fmt.Errorf("block at position %d: %w: %d events instead of %d", b.first, errCorrupt, len(into), b.n)
	}
	return into, nil
}

// of returns the frames of run x of a stream, all of which must be in b.
func (b *block) of(stream string, x run, into []frame) ([]frame, error) {
	into = into[:0]
	for off := 0; off < len(b.body) && len(into) < x.events; {
		f, next, err := frameAt(b.body, off)
		if err != nil {
			return nil, fmt.Errorf("block at position %d: %w", b.first, err)
		}
		if f.rev == x.first+uint64(len(into)) && string(f.stream) == stream {
			into = append(into, f)
		}
		off = next
	}
	if len(into) < x.events {
		return nil, fmt.Errorf("block at position %d: %w: %d of the %d events from revision %d of %s", b.first, errCorrupt, len(into), x.events, x.first, stream)
	}
	return into, nil
}

// says checks what the row says of b against its frames, which have the checksum. A
// scavenged block may begin later than its row.
func (b *block) says() error {
	var first, last uint64
	n := 0
	for off := 0; off < len(b.body); n++ {
		f, next, err := frameAt(b.body, off)
		if err != nil {
			return fmt.Errorf("block at position %d: %w", b.first, err)
		}
		if n == 0 {
			first = f.pos
		}
		last, off = f.pos, next
	}
	if n == 0 || n != b.n || first < b.first || last != b.last {
		return fmt.Errorf("block at position %d: %w: it holds %d events from position %d to %d instead of %d to %d", b.first, errCorrupt, n, first, last, b.n, b.last)
	}
	return nil
}

func (b *block) checksum() uint32 { return crc32.Checksum(b.body, castagnoli()) }

// revisionMax is the revision of a tombstone, EventStoreDB's own value.
const revisionMax = math.MaxInt64
