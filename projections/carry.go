package projections

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/usagebatch"
)

// Carrier gives rows of table usage that other tables hold: what stands in for events that
// were cut from the log and are in no archive. A method may fail and be repeated.
type Carrier interface {
	// Carry returns the uses of events at positions from first up to last, ordered by
	// position and index, but not more than limit, and the generation that they are of.
	// [ErrNotKept] says that there are no other tables.
	Carry(ctx context.Context, first, last uint64, limit int) (generation string, uses []CarriedUse, err error)
}

// CarriedUse is one row of table usage.
type CarriedUse struct {
	Position   uint64
	Index      uint32
	RecordedAt time.Time
	Use        domain.Use
}

// Carried is a range of events of one usage stream whose rows were not made from the
// events but carried over from another generation, since the log no longer had them. The
// revisions at both ends belong to it.
type Carried struct {
	Stream        string `json:"stream"`
	FirstRevision uint64 `json:"first_revision"`
	LastRevision  uint64 `json:"last_revision"`
	Rows          uint64 `json:"rows"`
	// From is the generation that the rows are of.
	From string `json:"from"`
}

// typeCarried names the stand-in for an event that is in neither log nor archive. No log
// ever holds one: it has no id, its data is a usage batch made of rows, its metadata the
// name of the generation that they are of.
const typeCarried = "usage.carried.v1"

// standsIn reports whether raw is a stand-in.
func standsIn(raw *eventlog.Raw) bool { return raw.Type == typeCarried && raw.ID == domain.EventID{} }

// carried makes the fact of a stand-in.
func (d *decoder) carried(f *fact) error {
	uses, err := d.batches.Decode(f.raw.Data)
	if err != nil {
		return fmt.Errorf("uses: %w", err)
	}
	f.uses, f.carriedFrom = uses, string(f.raw.Meta)
	f.rec = domain.Recorded{Stream: f.raw.Stream, Revision: f.raw.Revision, Position: f.raw.Position, RecordedAt: f.raw.RecordedAt}
	return nil
}

// carry notes that f stands in for an event.
func (b *block) carry(f *fact) {
	rows := uint64(len(f.uses))
	for i := range b.carried {
		c := &b.carried[i]
		if c.Stream == f.raw.Stream && c.LastRevision+1 == f.raw.Revision && c.From == f.carriedFrom {
			c.LastRevision, c.Rows = f.raw.Revision, c.Rows+rows
			return
		}
	}
	b.carried = append(b.carried, Carried{Stream: f.raw.Stream, FirstRevision: f.raw.Revision, LastRevision: f.raw.Revision, Rows: rows, From: f.carriedFrom})
}

// carriedSums returns how many events and rows the block carries.
func carriedSums(ranges []Carried) (events, rows uint64) {
	for _, c := range ranges {
		events += c.LastRevision - c.FirstRevision + 1
		rows += c.Rows
	}
	return events, rows
}

// unkeptSegment walks over the places of a sealed segment that is in no archive: events
// that the log may still have, or not.
type unkeptSegment struct {
	seal    domain.UsageSegmentSealed
	places  []domain.Place // What is left.
	next    uint64         // Revision of places[0].
	records uint64         // Of the event that was given last.
}

func newUnkeptSegment(seal domain.UsageSegmentSealed) (*unkeptSegment, error) {
	places, err := domain.UnpackPlaces(seal.Places)
	if err != nil {
		return nil, fmt.Errorf("segment %d of %s: %w", seal.Segment, seal.Stream, err)
	}
	if uint64(len(places)) != seal.Events {
		return nil, fmt.Errorf("segment %d of %s: %d places of %d events", seal.Segment, seal.Stream, len(places), seal.Events)
	}
	return &unkeptSegment{seal: seal, places: places, next: seal.FirstRevision}, nil
}

// Next returns a stand-in without rows for the next event; ok is false at the end.
func (u *unkeptSegment) Next() (raw eventlog.Raw, ok bool) {
	if len(u.places) == 0 {
		return eventlog.Raw{}, false
	}
	raw = eventlog.Raw{Stream: u.seal.Stream, Revision: u.next, Position: u.places[0].Position, Type: typeCarried}
	u.records = u.places[0].Records
	u.places, u.next = u.places[1:], u.next+1
	return raw, true
}

const (
	// carryMax is how many rows are read ahead: more than any event has, so that those of
	// one event always come together.
	carryMax = usagebatch.UsesMax + 1
	// carryStride is how many positions are asked for first. It grows while they hold few
	// rows.
	carryStride = 1 << 16
)

// carriedRows reads rows ahead, position by position.
type carriedRows struct {
	from    Carrier
	end     uint64 // No position beyond it is asked for.
	codec   *usagebatch.Codec
	of      string // Generation of what was read.
	uses    []CarriedUse
	through uint64 // The rows of every position up to it were read.
	stride  uint64
}

// standIn fills a stand-in for an event that has records uses, all of which must be there.
func (c *carriedRows) standIn(ctx context.Context, u *unkeptSegment, raw eventlog.Raw) (eventlog.Raw, error) {
	uses, err := c.at(ctx, raw.Position)
	if errors.Is(err, ErrNotKept) {
		return raw, fmt.Errorf("%w: %s from revision %d, sealed as segment %d: %d records of %s to %s", err, raw.Stream, raw.Revision, u.seal.Segment, u.seal.Records,
			u.seal.FirstRecordedAt.Format(time.DateOnly), u.seal.LastRecordedAt.Format(time.DateOnly))
	}
	if err != nil {
		return raw, fmt.Errorf("carry the rows of %s@%d over: %w", raw.Stream, raw.Revision, err)
	}
	whole := uint64(len(uses)) == u.records
	plain := make([]domain.Use, len(uses))
	raw.RecordedAt = u.seal.FirstRecordedAt // Where it has no row, nobody knows better.
	for i := range uses {
		whole = whole && int(uses[i].Index) == i && uses[i].RecordedAt.Equal(uses[0].RecordedAt)
		plain[i], raw.RecordedAt = uses[i].Use, uses[0].RecordedAt
	}
	if !whole {
		return raw, fmt.Errorf("%w: the tables %s hold %d rows of %s@%d (position %d), which was cut and is in no archive, and its seal says %d: they cannot be carried over; restore a copy of those tables",
			errFatal, c.of, len(uses), raw.Stream, raw.Revision, raw.Position, u.records)
	}
	if c.codec == nil {
		if c.codec, err = usagebatch.New(); err != nil {
			return raw, fmt.Errorf("carry rows over: %w", err)
		}
	}
	if raw.Data, err = c.codec.Encode(plain); err != nil {
		return raw, fmt.Errorf("%w: carry the rows of %s@%d over: %w", errFatal, raw.Stream, raw.Revision, err)
	}
	raw.Meta = []byte(c.of)
	return raw, nil
}

// at returns the rows at position, which is after that of the call before.
func (c *carriedRows) at(ctx context.Context, position uint64) ([]CarriedUse, error) {
	if position > c.through {
		if err := c.read(ctx, position); err != nil {
			return nil, err
		}
	}
	for len(c.uses) > 0 && c.uses[0].Position < position {
		c.uses = c.uses[1:]
	}
	n := 0
	for n < len(c.uses) && c.uses[n].Position == position {
		n++
	}
	out := c.uses[:n]
	c.uses = c.uses[n:]
	return out, nil
}

// read reads the rows of positions from position on.
func (c *carriedRows) read(ctx context.Context, position uint64) error {
	if c.stride == 0 {
		c.stride = carryStride
	}
	last := position + min(c.stride-1, max(c.end, position)-position)
	of, uses, err := c.from.Carry(ctx, position, last, carryMax)
	if err != nil {
		return err
	}
	c.of, c.uses, c.through = of, uses, last
	switch newest := len(uses) - 1; {
	case newest+1 < carryMax/4:
		c.stride *= 2
	case newest+1 >= carryMax:
		// More rows at one position than an event can have stay as they are, to be refused.
		c.stride = max(c.stride/2, 1)
		if at := uses[newest].Position; at > position {
			c.through = at - 1
			for newest >= 0 && uses[newest].Position == at {
				newest--
			}
			c.uses = uses[:newest+1]
		}
	}
	return nil
}

// NewCarrier returns the [Carrier] of the tables of a generation.
func NewCarrier(generation string, store *clickhouse.Store) Carrier {
	return storeCarrier{generation: generation, store: store}
}

type storeCarrier struct {
	generation string
	store      *clickhouse.Store
}

// Carry implements [Carrier].
func (s storeCarrier) Carry(ctx context.Context, first, last uint64, limit int) (string, []CarriedUse, error) {
	var like usageRows
	c, err := openCursor(ctx, s.store, clickhouse.Select{
		Table: tableUsage, Where: []clickhouse.Cond{clickhouse.Ge("position", first), clickhouse.Le("position", last)},
		OrderBy: []string{"position", "idx"}, Limit: limit,
	}, like.rows().Columns)
	if err != nil {
		return s.generation, nil, errors.Join(err, c.close())
	}
	var out []CarriedUse
	for c.valid {
		out = append(out, carriedUse(c))
		if err := c.next(); err != nil {
			return s.generation, nil, errors.Join(err, c.close())
		}
	}
	return s.generation, out, c.close()
}

// carriedUse returns the current row of a cursor over table usage.
func carriedUse(c *cursor) CarriedUse {
	text := func(name string) string { return value[string](c, name) }
	u := domain.Use{
		ID: text("use_id"), Time: time.UnixMilli(value[int64](c, "time")).UTC(), Account: domain.AccountID(text("account_id")),
		KeyID: domain.KeyID(text("key_id")), KeyFingerprint: text("key_fingerprint"), IAMID: domain.IAMID(text("iam_id")),
		Action: text("action"), Access: domain.Access(text("access")), Outcome: domain.Outcome(text("outcome")),
		Status: int(value[uint16](c, "status")), ErrorCode: text("error_code"), Source: text("source"), UserAgent: text("user_agent"),
		Region: text("region"), Target: text("target"), RequestID: text("request_id"), LatencyMS: value[uint32](c, "latency_ms"),
		Bytes: value[uint64](c, "bytes"), Country: text("country"), ASN: value[uint32](c, "asn"),
	}
	if labels := value[map[string]string](c, "labels"); len(labels) > 0 {
		u.Labels = labels
	}
	return CarriedUse{
		Position: value[uint64](c, "position"), Index: value[uint32](c, "idx"), RecordedAt: time.UnixMilli(value[int64](c, "recorded_at")).UTC(), Use: u,
	}
}
