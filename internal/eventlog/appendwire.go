package eventlog

import (
	"unicode/utf8"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// Marshal implements [encoding.CodecV2].
func (c wireCodec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(*api.AppendReq); ok {
		if wire, ok := encodeAppend(m); ok {
			return mem.BufferSlice{mem.SliceBuffer(wire)}, nil
		}
	}
	return c.CodecV2.Marshal(v)
}

// encodeAppend encodes a message of an append as the client makes them, for half of what
// reflection takes. False says that the message is none of these.
func encodeAppend(m *api.AppendReq) ([]byte, bool) {
	switch content := m.GetContent().(type) {
	case *api.AppendReq_Options_:
		return encodeOptions(content.Options)
	case *api.AppendReq_ProposedMessage_:
		return encodeProposed(content.ProposedMessage)
	}
	return nil, false
}

func encodeOptions(o *api.AppendReq_Options) ([]byte, bool) {
	stream := o.GetStreamIdentifier().GetStreamName()
	if len(stream) == 0 {
		return nil, false
	}
	var expects []byte
	switch e := o.GetExpectedStreamRevision().(type) {
	case *api.AppendReq_Options_Revision:
		expects = protowire.AppendVarint(protowire.AppendTag(make([]byte, 0, 12), 2, protowire.VarintType), e.Revision)
	case *api.AppendReq_Options_NoStream:
		expects = appendLength(make([]byte, 0, 2), 3, 0)
	default:
		return nil, false
	}
	name := 1 + protowire.SizeBytes(len(stream))
	sizeBytes := 1 + protowire.SizeBytes(name) + len(expects)
	out := make([]byte, 0, 1+protowire.SizeBytes(sizeBytes))
	out = appendLength(out, 1, sizeBytes)
	out = appendLength(out, 1, name)
	out = append(appendLength(out, 3, len(stream)), stream...)
	return append(out, expects...), true
}

// encodeProposed encodes an event.
func encodeProposed(p *api.AppendReq_ProposedMessage) ([]byte, bool) {
	id, ok := p.GetId().GetValue().(*shared.UUID_Structured_)
	if !ok {
		return nil, false
	}
	high, low := uint64(id.Structured.GetMostSignificantBits()), uint64(id.Structured.GetLeastSignificantBits()) //nolint:gosec // Bits.
	halves := 2 + protowire.SizeVarint(high) + protowire.SizeVarint(low)
	sizeBytes := 1 + protowire.SizeBytes(1+protowire.SizeBytes(halves))
	for key, value := range p.GetMetadata() {
		if !utf8.ValidString(key) || !utf8.ValidString(value) {
			return nil, false // The other codec says what is wrong.
		}
		sizeBytes += 1 + protowire.SizeBytes(entryBytes(key, value))
	}
	for _, b := range [][]byte{p.GetCustomMetadata(), p.GetData()} {
		if len(b) > 0 {
			sizeBytes += 1 + protowire.SizeBytes(len(b))
		}
	}
	out := make([]byte, 0, 1+protowire.SizeBytes(sizeBytes))
	out = appendLength(out, 2, sizeBytes)
	out = appendLength(out, 1, 1+protowire.SizeBytes(halves))
	out = appendLength(out, 1, halves)
	out = protowire.AppendVarint(protowire.AppendTag(out, 1, protowire.VarintType), high)
	out = protowire.AppendVarint(protowire.AppendTag(out, 2, protowire.VarintType), low)
	for key, value := range p.GetMetadata() {
		out = appendLength(out, 2, entryBytes(key, value))
		out = append(appendLength(out, 1, len(key)), key...)
		out = append(appendLength(out, 2, len(value)), value...)
	}
	if b := p.GetCustomMetadata(); len(b) > 0 {
		out = append(appendLength(out, 3, len(b)), b...)
	}
	if b := p.GetData(); len(b) > 0 {
		out = append(appendLength(out, 4, len(b)), b...)
	}
	return out, true
}

// entryBytes is how long an entry of a map of texts is.
func entryBytes(key, value string) int {
	return 2 + protowire.SizeBytes(len(key)) + protowire.SizeBytes(len(value))
}

// appendLength begins field num, which is n bytes long.
func appendLength(b []byte, num protowire.Number, n int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.BytesType), uint64(n)) //nolint:gosec // A length.
}
