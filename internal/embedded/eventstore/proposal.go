package eventstore

import (
	"encoding/binary"
	"slices"
	"unicode/utf8"

	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// appendMessage is a message of an append, decoded by hand where it has the form in which
// clients send it: reflection takes four times as long and allocates a dozen objects.
type appendMessage struct {
	// other is the message if it has a rarer form, or is wrong. All below is then unset.
	other *api.AppendReq

	options bool // It carries the options; else an event.
	stream  string
	expect  expected
	event   proposed
}

// unmarshal decodes data, which it does not keep.
func (m *appendMessage) unmarshal(data mem.BufferSlice) error {
	wire := data.Materialize() // A copy, since gRPC takes its memory back. The event shares it.
	if m.decode(wire) {
		return nil
	}
	*m = appendMessage{other: new(api.AppendReq)}
	return proto.Unmarshal(wire, m.other)
}

// decode reports whether wire is what it knows: one options message or one event, every
// field at most once, nothing missing.
func (m *appendMessage) decode(wire []byte) bool {
	num, v, rest, ok := fieldOf(wire)
	switch {
	case !ok || len(rest) > 0 || v.bytes == nil:
		return false
	case num == 1:
		m.options = true
		return m.decodeOptions(v.bytes)
	case num == 2:
		return m.decodeEvent(v.bytes)
	}
	return false
}

func (m *appendMessage) decodeOptions(b []byte) bool {
	named, expects := false, false
	for len(b) > 0 {
		num, v, rest, ok := fieldOf(b)
		if !ok || (v.bytes == nil) != (num == 2) || num > 2 && len(v.bytes) > 0 || num > 5 || num == 1 && named || num > 1 && expects {
			return false
		}
		b = rest
		if num == 1 {
			named = true
			if num, v, rest, ok = fieldOf(v.bytes); !ok || num != 3 || v.bytes == nil || len(rest) > 0 {
				return false
			}
			m.stream = string(v.bytes)
			continue
		}
		expects = true
		m.expect = expected{kind: [...]expectation{2: expectExactly, 3: expectNoStream, 4: expectAny, 5: expectExists}[num], rev: v.varint}
	}
	return named && expects
}

func (m *appendMessage) decodeEvent(b []byte) bool {
	p := &m.event
	var content []byte
	seen := [5]bool{}
	for len(b) > 0 {
		num, v, rest, ok := fieldOf(b)
		if !ok || v.bytes == nil || num > 4 || num != 2 && seen[num] {
			return false
		}
		b = rest
		seen[num] = true
		switch num {
		case 1:
			ok = p.identify(v.bytes)
		case 2:
			var key, value []byte
			if key, value, ok = entryOf(v.bytes); ok {
				switch string(key) {
				case "type":
					p.typ, ok = string(value), p.typ == "" && len(value) > 0 && len(value) <= nameBytesMax
				case "content-type":
					content, ok = value, content == nil
				}
			}
		case 3:
			p.meta = noneIfEmpty(v.bytes)
		case 4:
			p.data = noneIfEmpty(v.bytes)
		}
		if !ok {
			return false
		}
	}
	p.json = string(content) == "application/json"
	return seen[1] && p.typ != "" && content != nil
}

// identify decodes an id of two numbers.
func (p *proposed) identify(b []byte) bool {
	num, v, rest, ok := fieldOf(b)
	if !ok || num != 1 || v.bytes == nil || len(rest) > 0 {
		return false
	}
	for b = v.bytes; len(b) > 0; {
		if num, v, b, ok = fieldOf(b); !ok || v.bytes != nil || num > 2 {
			return false
		}
		binary.BigEndian.PutUint64(p.id[8*(num-1):], v.varint)
	}
	return true
}

// entryOf decodes an entry of a map of texts that has a key and a value.
func entryOf(b []byte) (key, value []byte, ok bool) {
	num, k, b, ok := fieldOf(b)
	if !ok || num != 1 || k.bytes == nil || !utf8.Valid(k.bytes) {
		return nil, nil, false
	}
	num, v, b, ok := fieldOf(b)
	if !ok || num != 2 || v.bytes == nil || !utf8.Valid(v.bytes) || len(b) > 0 {
		return nil, nil, false
	}
	return k.bytes, v.bytes, true
}

// fieldValue is a number, or bytes that are then not nil.
type fieldValue struct {
	varint uint64
	bytes  []byte
}

// fieldOf takes the first field off b, unless its type is none of ours.
func fieldOf(b []byte) (num int, v fieldValue, rest []byte, ok bool) {
	tag, typ, n := protowire.ConsumeTag(b)
	if n < 0 {
		return 0, v, nil, false
	}
	b = b[n:]
	n = -1
	if typ == protowire.VarintType {
		v.varint, n = protowire.ConsumeVarint(b)
	}
	if typ == protowire.BytesType {
		v.bytes, n = protowire.ConsumeBytes(b)
	}
	if n < 0 {
		return 0, v, nil, false
	}
	v.bytes = slices.Clip(v.bytes)
	return int(tag), v, b[n:], true
}

// noneIfEmpty returns nil for no bytes, as the decoder by reflection does.
func noneIfEmpty(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}
