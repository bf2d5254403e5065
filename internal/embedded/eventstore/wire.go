package eventstore

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// codec is gRPC's protobuf codec, except that a stored frame goes out as the
// bytes it was stored in, and that appends are decoded by hand.
type codec struct{ encoding.CodecV2 }

// Marshal implements [encoding.CodecV2].
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(*frame); ok {
		return mem.BufferSlice{mem.SliceBuffer(f.wire)}, nil
	}
	return c.CodecV2.Marshal(v)
}

// Unmarshal implements [encoding.CodecV2].
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if m, ok := v.(*appendMessage); ok {
		return m.unmarshal(data)
	}
	return c.CodecV2.Unmarshal(data, v)
}

// message decodes the frame's message, for the few uses that look inside.
func (f frame) message() (*api.ReadResp, error) {
	var m api.ReadResp
	if err := proto.Unmarshal(f.wire, &m); err != nil {
		return nil, fmt.Errorf("%w: event at position %d: %w", errCorrupt, f.pos, err)
	}
	return &m, nil
}

func (f frame) data() ([]byte, error) {
	m, err := f.message()
	if err != nil {
		return nil, err
	}
	return m.GetEvent().GetEvent().GetData(), nil
}

// fail returns a gRPC error with the trailers by which the client tells errors apart.
func fail(ctx context.Context, code codes.Code, text string, trailers ...string) error {
	if err := grpc.SetTrailer(ctx, metadata.Pairs(trailers...)); err != nil {
		return status.Errorf(codes.Internal, "set trailers: %v", err)
	}
	return status.Error(code, text)
}

func failDeleted(ctx context.Context, stream string) error {
	return fail(ctx, codes.FailedPrecondition, "Event stream '"+stream+"' is deleted.",
		"exception", "stream-deleted", "stream-name", stream)
}

// failUnstored answers an append that did not commit. Aborted says that nothing
// was stored, Unknown that it may have been.
func failUnstored(err error, stored bool) error {
	if stored {
		return status.Errorf(codes.Unknown, "event store: %v", err)
	}
	return status.Errorf(codes.Aborted, "event store: %v", err)
}

// uuidOf reads an event id. An id that is none is refused: a made-up one would
// break the idempotence of the append.
func uuidOf(id *shared.UUID) (out [16]byte, err error) {
	switch v := id.GetValue().(type) {
	case *shared.UUID_Structured_:
		binary.BigEndian.PutUint64(out[:8], uint64(v.Structured.GetMostSignificantBits()))  //nolint:gosec // Bits.
		binary.BigEndian.PutUint64(out[8:], uint64(v.Structured.GetLeastSignificantBits())) //nolint:gosec // Bits.
		return out, nil
	case *shared.UUID_String_:
		return parseUUID(v.String_)
	}
	return out, status.Error(codes.InvalidArgument, "event id missing")
}

func readStreamName(id *shared.StreamIdentifier) (string, error) {
	name := string(id.GetStreamName())
	return name, checkStreamName(name)
}

func checkStreamName(name string) error {
	switch {
	case name == "":
		return status.Error(codes.InvalidArgument, "stream name missing")
	case name == "$all":
		return status.Error(codes.InvalidArgument, "$all is not a stream that can be named here")
	case len(name) > nameBytesMax:
		return status.Errorf(codes.InvalidArgument, "stream name of %d bytes is longer than %d", len(name), nameBytesMax)
	}
	return nil
}
