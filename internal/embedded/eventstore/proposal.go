package eventstore

import (
	"encoding/binary"
	"unicode/utf8"

	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"example.com/keytrail/internal/wirefield"
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
	num, v, rest, ok := wirefield.Next(wire)
	switch {
	case !ok || len(rest) > 0 || v.Bytes == nil:
		return false
	case num == 1:
		m.options = true
		return m.decodeOptions(v.Bytes)
	case num == 2:
		return m.decodeEvent(v.Bytes)
	}
	return false
}

func (m *appendMessage) decodeOptions(b []byte) bool {
	named, expects := false, false
	for len(b) > 0 {
		num, v, rest, ok := wirefield.Next(b)
		if !ok || (v.Bytes == nil) != (num == 2) || num > 2 && len(v.Bytes) > 0 || num > 5 || num == 1 && named || num > 1 && expects {
			return false
		}
		b = rest
		if num == 1 {
			named = true
			if num, v, rest, ok = wirefield.Next(v.Bytes); !ok || num != 3 || v.Bytes == nil || len(rest) > 0 {
				return false
			}
			m.stream = string(v.Bytes)
			continue
		}
		expects = true
		m.expect = expected{kind: [...]expectation{2: expectExactly, 3: expectNoStream, 4: expectAny, 5: expectExists}[num], rev: v.Varint}
	}
	return named && expects
}

func (m *appendMessage) decodeEvent(b []byte) bool {
	p := &m.event
	var content []byte
	seen := [5]bool{}
	for len(b) > 0 {
		num, v, rest, ok := wirefield.Next(b)
		if !ok || v.Bytes == nil || num > 4 || num != 2 && seen[num] {
			return false
		}
		b = rest
		seen[num] = true
		switch num {
		case 1:
			ok = p.identify(v.Bytes)
		case 2:
			var key, value []byte
			if key, value, ok = entryOf(v.Bytes); ok {
				switch string(key) {
				case "type":
					p.typ, ok = string(value), p.typ == "" && len(value) > 0 && len(value) <= nameBytesMax
				case "content-type":
					content, ok = value, content == nil
				}
			}
		case 3:
			p.meta = wirefield.NoneIfEmpty(v.Bytes)
		case 4:
			p.data = wirefield.NoneIfEmpty(v.Bytes)
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
	num, v, rest, ok := wirefield.Next(b)
	if !ok || num != 1 || v.Bytes == nil || len(rest) > 0 {
		return false
	}
	for b = v.Bytes; len(b) > 0; {
		if num, v, b, ok = wirefield.Next(b); !ok || v.Bytes != nil || num > 2 {
			return false
		}
		binary.BigEndian.PutUint64(p.id[8*(num-1):], v.Varint)
	}
	return true
}

// entryOf decodes an entry of a map of texts that has a key and a value.
func entryOf(b []byte) (key, value []byte, ok bool) {
	num, k, b, ok := wirefield.Next(b)
	if !ok || num != 1 || k.Bytes == nil || !utf8.Valid(k.Bytes) {
		return nil, nil, false
	}
	num, v, b, ok := wirefield.Next(b)
	if !ok || num != 2 || v.Bytes == nil || !utf8.Valid(v.Bytes) || len(b) > 0 {
		return nil, nil, false
	}
	return k.Bytes, v.Bytes, true
}
