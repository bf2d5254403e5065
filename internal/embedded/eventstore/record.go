package eventstore

import (
	"encoding/binary"
	"hash/crc32"
)

// A record of the journal is one group commit: a header, the frames of its events
// as a block has them, and zeros up to the next page.
//
//	offset size
//	0      4    "KTJ1"
//	4      4    bytes of frames
//	8      8    salt: which run of the journal it belongs to; 4 count runs, 4 are random
//	16     8    sequence number
//	24     8    position of the newest event before it
//	32     4    events
//	36     4    CRC-32C of the 36 bytes above and the frames
//	40          the frames
//
// All integers are big-endian. A record begins on a page of its own, so that no
// byte that was acknowledged is ever written to again before it is folded away.
const (
	recordHeaderBytes = 40
	recordMagic       = "KTJ1"
	pageBytes         = 4096
)

// record is a record as it was read back.
type record struct {
	salt       uint64
	seq, after uint64
	events     int
	body       []byte
}

// castagnoli returns the table of CRC-32C; it is made once by the library.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// padded returns n rounded up to whole pages.
func padded(n int) int { return (n + pageBytes - 1) / pageBytes * pageBytes }

// sealRecord writes the header of the record in buf, whose frames follow the
// header's place, and pads it to whole pages.
func sealRecord(buf []byte, salt, seq, after uint64, events int) []byte {
	copy(buf, recordMagic)
	binary.BigEndian.PutUint32(buf[4:], uint32(len(buf)-recordHeaderBytes)) //nolint:gosec // Bounded by the group.
	binary.BigEndian.PutUint64(buf[8:], salt)
	binary.BigEndian.PutUint64(buf[16:], seq)
	binary.BigEndian.PutUint64(buf[24:], after)
	binary.BigEndian.PutUint32(buf[32:], uint32(events)) //nolint:gosec // Bounded by the group.
	binary.BigEndian.PutUint32(buf[36:], recordChecksum(buf))
	for n := padded(len(buf)) - len(buf); n > 0; n-- {
		buf = append(buf, 0)
	}
	return buf
}

func recordChecksum(buf []byte) uint32 {
	crc := crc32.Update(0, castagnoli(), buf[:36])
	return crc32.Update(crc, castagnoli(), buf[recordHeaderBytes:])
}

// recordAt returns the record at the beginning of buf, if one is there whole. Its body
// shares buf's memory.
func recordAt(buf []byte) (record, bool) {
	if len(buf) < recordHeaderBytes || string(buf[:4]) != recordMagic {
		return record{}, false
	}
	n := uint64(binary.BigEndian.Uint32(buf[4:]))
	if n > uint64(len(buf)-recordHeaderBytes) { //nolint:gosec // len(buf) >= recordHeaderBytes.
		return record{}, false
	}
	buf = buf[:recordHeaderBytes+int(n)] //nolint:gosec // n <= len(buf).
	if recordChecksum(buf) != binary.BigEndian.Uint32(buf[36:]) {
		return record{}, false
	}
	return record{
		salt: binary.BigEndian.Uint64(buf[8:]), seq: binary.BigEndian.Uint64(buf[16:]), after: binary.BigEndian.Uint64(buf[24:]),
		events: int(binary.BigEndian.Uint32(buf[32:])), body: buf[recordHeaderBytes:len(buf):len(buf)],
	}, true
}
