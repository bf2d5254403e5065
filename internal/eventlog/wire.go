package eventlog

import (
	"unicode/utf8"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"example.com/keytrail/internal/wirefield"
)

// The client takes neither a codec nor dial options, so what it decodes with is replaced
// where gRPC looks it up. All that is not an event as a read or a subscription answers it
// goes the way it went before.
//
//nolint:gochecknoinits // gRPC takes codecs during initialisation only.
func init() {
	encoding.RegisterCodecV2(wireCodec{encoding.GetCodecV2(grpcproto.Name)})
}

// wireCodec is gRPC's protobuf codec, except that it decodes events by hand: by
// reflection that is half of what catching up costs.
type wireCodec struct{ encoding.CodecV2 }

// Unmarshal implements [encoding.CodecV2].
func (c wireCodec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*api.ReadResp)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	// A copy, since gRPC takes its memory back. The event's byte slices share it.
	wire := data.Materialize()
	if content, ok := decodeEvent(wire); ok {
		m.Reset()
		m.Content = content
		return nil
	}
	return proto.Unmarshal(wire, m)
}

// wireEvent is all the messages that an event consists of, to be allocated at once.
type wireEvent struct {
	content  api.ReadResp_Event
	event    api.ReadResp_ReadEvent
	position api.ReadResp_ReadEvent_CommitPosition
	recorded api.ReadResp_ReadEvent_RecordedEvent
	id       shared.UUID
	value    shared.UUID_Structured_
	uuid     shared.UUID_Structured
	stream   shared.StreamIdentifier
}

// decodeEvent decodes a ReadResp that holds an event in the form in which servers send
// one. False says that the message is something else or has a form that is rarer: links,
// ids as text, unknown fields, and all that is wrong.
func decodeEvent(wire []byte) (*api.ReadResp_Event, bool) {
	num, body, rest, ok := wirefield.Next(wire)
	if !ok || num != 1 || len(rest) > 0 || body.Bytes == nil {
		return nil, false
	}
	var e wireEvent
	for b := body.Bytes; len(b) > 0; {
		if num, body, b, ok = wirefield.Next(b); !ok {
			return nil, false
		}
		switch {
		case num == 1 && body.Bytes != nil:
			if !e.record(body.Bytes) {
				return nil, false
			}
			e.event.Event = &e.recorded
		case num == 3 && body.Bytes == nil:
			e.position.CommitPosition = body.Varint
			e.event.Position = &e.position
		default:
			return nil, false
		}
	}
	e.content.Event = &e.event
	return &e.content, true
}

// record decodes a RecordedEvent.
func (e *wireEvent) record(b []byte) bool {
	r := &e.recorded
	for len(b) > 0 {
		num, v, rest, ok := wirefield.Next(b)
		if !ok || (v.Bytes != nil) != (num < 3 || num > 5) {
			return false
		}
		b = rest
		switch num {
		case 1:
			ok = e.identify(v.Bytes)
			r.Id = &e.id
		case 2:
			ok = e.name(v.Bytes)
			r.StreamIdentifier = &e.stream
		case 3:
			r.StreamRevision = v.Varint
		case 4:
			r.PreparePosition = v.Varint
		case 5:
			r.CommitPosition = v.Varint
		case 6:
			ok = e.metadata(v.Bytes)
		case 7:
			r.CustomMetadata = wirefield.NoneIfEmpty(v.Bytes)
		case 8:
			r.Data = wirefield.NoneIfEmpty(v.Bytes)
		default:
			return false
		}
		if !ok {
			return false
		}
	}
	return true
}

// identify decodes a UUID of two numbers.
func (e *wireEvent) identify(b []byte) bool {
	num, v, rest, ok := wirefield.Next(b)
	if !ok || num != 1 || v.Bytes == nil || len(rest) > 0 {
		return false
	}
	for b = v.Bytes; len(b) > 0; {
		if num, v, b, ok = wirefield.Next(b); !ok || v.Bytes != nil {
			return false
		}
		switch num {
		case 1:
			e.uuid.MostSignificantBits = int64(v.Varint) //nolint:gosec // Bits.
		case 2:
			e.uuid.LeastSignificantBits = int64(v.Varint) //nolint:gosec // Bits.
		default:
			return false
		}
	}
	e.value.Structured = &e.uuid
	e.id.Value = &e.value
	return true
}

// name decodes a StreamIdentifier.
func (e *wireEvent) name(b []byte) bool {
	num, v, rest, ok := wirefield.Next(b)
	if !ok || num != 3 || v.Bytes == nil || len(rest) > 0 {
		return false
	}
	e.stream.StreamName = wirefield.NoneIfEmpty(v.Bytes)
	return true
}

// metadata decodes an entry of a RecordedEvent's metadata.
func (e *wireEvent) metadata(b []byte) bool {
	num, key, b, ok := wirefield.Next(b)
	if !ok || num != 1 || key.Bytes == nil || !utf8.Valid(key.Bytes) {
		return false
	}
	num, value, b, ok := wirefield.Next(b)
	if !ok || num != 2 || value.Bytes == nil || !utf8.Valid(value.Bytes) || len(b) > 0 {
		return false
	}
	if e.recorded.Metadata == nil {
		e.recorded.Metadata = make(map[string]string, 3)
	}
	e.recorded.Metadata[wireText(key.Bytes)] = wireText(value.Bytes)
	return true
}

// wireText returns b as text, without allocating what is in every event.
func wireText(b []byte) string {
	switch string(b) {
	case "type":
		return "type"
	case "created":
		return "created"
	case "content-type":
		return "content-type"
	case "application/json":
		return "application/json"
	case "application/octet-stream":
		return "application/octet-stream"
	}
	return string(b)
}
