// Package wirefield takes messages of protocol buffers apart field by field, for the few
// that are decoded by hand because reflection costs too much
// (https://protobuf.dev/programming-guides/encoding/).
package wirefield

import (
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// Value is a number, or bytes that are then not nil.
type Value struct {
	Varint uint64
	// Bytes share the message's memory and have no room to grow into it.
	Bytes []byte
}

// Next takes the first field off b. It returns false at the end of b, for what is no field,
// and for fields of other types than varint and length-delimited.
func Next(b []byte) (num int, v Value, rest []byte, ok bool) {
	tag, typ, n := protowire.ConsumeTag(b)
	if n < 0 {
		return 0, v, nil, false
	}
	b = b[n:]
	n = -1
	if typ == protowire.VarintType {
		v.Varint, n = protowire.ConsumeVarint(b)
	}
	if typ == protowire.BytesType {
		v.Bytes, n = protowire.ConsumeBytes(b)
		v.Bytes = slices.Clip(v.Bytes)
	}
	if n < 0 {
		return 0, v, nil, false
	}
	return int(tag), v, b[n:], true
}

// NoneIfEmpty returns nil for no bytes, as the decoder by reflection does.
func NoneIfEmpty(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}
