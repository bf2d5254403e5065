package eventstore

// commit is one group of appends that is durable in the journal. It is not changed
// any more.
type commit struct {
	seq    uint64
	blocks []*block
	runs   []run
	heads  map[string]head // Every stream that it changed, as it left them.
	// streams are the names that got their number in it.
	streams []newStream
	// limits are the streams whose limits it set.
	limits map[int64]limits
	// begins are the revisions at which streams begin that were restored scavenged.
	begins map[int64]uint64
	// bytes is what it holds in memory, journal what it takes there.
	bytes, journal int64
}

// run is one append in a stream: consecutive revisions, together in one block.
type run struct {
	sid     int64
	stream  string
	first   uint64
	events  int
	created int64
	block   uint64 // Where in.first is.
	in      *block // Nil in what was read from the tables.
}

// end is the revision after the run's last.
func (x run) end() uint64 { return x.first + uint64(x.events) } //nolint:gosec // A count.

type newStream struct {
	sid  int64
	name string
}

// overheadBytes is what an append costs in memory beside its frames, roughly.
const overheadBytes = 512

// size returns what holding c costs.
func (c *commit) size() int64 {
	n := int64(len(c.runs)+len(c.heads)) * overheadBytes
	for _, b := range c.blocks {
		n += int64(len(b.body))
	}
	return n
}
