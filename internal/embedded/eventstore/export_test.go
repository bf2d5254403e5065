package eventstore

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
