package eventstore

import (
	"context"
	"fmt"

	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// Bounds of memory.
const (
	RecentBytesMax = recentBytesMax
	ChunkBytes     = chunkBytes
	BatchOpenMax   = batchOpenMax
)

// RecentBytes returns the bytes of blocks kept for live readers.
func (s *Server) RecentBytes() int {
	s.store.recent.mu.RLock()
	defer s.store.recent.mu.RUnlock()
	return s.store.recent.bytes
}

// Proposed is an event before it has a place.
type Proposed struct {
	ID         [16]byte
	Type       string
	JSON       bool
	Data, Meta []byte
}

// EncodeFrame returns a block body of one frame.
func EncodeFrame(p Proposed, stream string, pos, rev uint64, created int64) []byte {
	return appendFrame(nil, &proposed{id: p.ID, typ: p.Type, json: p.JSON, data: p.Data, meta: p.Meta},
		place{stream: stream, pos: pos, rev: rev, created: created})
}

// DecodeFrame returns what the first frame of a block body says, and its message.
func DecodeFrame(body []byte) (stream, typ string, pos, rev uint64, wire []byte, err error) {
	f, _, err := frameAt(body, 0)
	return string(f.stream), string(f.typ), f.pos, f.rev, f.wire, err
}

// WalkFrames reads a whole block body.
func WalkFrames(body []byte, n int) error {
	_, err := (&block{body: body, n: n}).frames(nil)
	return err
}

// ParseUsers reads a users file.
func ParseUsers(data []byte) error {
	_, err := parseUsers(data)
	return err
}

// ReadRoles returns who may read a stream with this metadata, where that is said.
func ReadRoles(metadata []byte) ([]string, error) {
	list, err := parseACL(metadata)
	return list[actRead], err
}

// CompileFilter compiles an expression as a filter does and matches it.
func CompileFilter(expression string, name []byte) (bool, error) {
	x, err := compileFilter(expression)
	return err == nil && x.Match(name), err
}

// ParseLimits reads stream metadata.
func ParseLimits(data []byte) (maxCount, maxAgeS, trimBelow int64) {
	l := parseLimits(data)
	return l.maxCount.Int64, l.maxAgeS.Int64, l.trimBelow.Int64
}

// ReadAppend reads a message of an append, by hand or as the protocol's own decoder does,
// and returns what it asks for, or how it is refused: as the first message, and as another.
func ReadAppend(ctx context.Context, wire []byte, byHand bool) (first, other string, err error) {
	m := appendMessage{other: new(api.AppendReq)}
	if byHand {
		m = appendMessage{}
		err = m.unmarshal(mem.BufferSlice{mem.SliceBuffer(wire)})
	} else {
		err = proto.Unmarshal(wire, m.other)
	}
	if err != nil {
		return "", "", err
	}
	r, err := requestOf(&m)
	if err != nil {
		first = err.Error()
	} else {
		first = fmt.Sprintf("%s %+v", r.stream, r.expect)
	}
	e, err := eventOf(ctx, &m)
	return first, fmt.Sprintf("%+v %v", e, err), nil
}
