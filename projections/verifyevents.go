package projections

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/internal/eventlog"
)

// verifyPage is how many ledger events are read at a time.
const verifyPage = 512

// events compares the tables that hold one row for each record (usage, activity,
// key_states) and the ledger with the log, block by block.
func (v *verifier) events(ctx context.Context) (err error) {
	dec, err := newDecoder(v.opt.Decode)
	if err != nil {
		return err
	}
	e := &eventVerifier{verifier: v, decoder: dec, block: &block{}, aside: map[uint64]bool{}}
	defer func() { err = errors.Join(err, closeAll(e.cursors...)) }()
	if err := e.openCursors(ctx); err != nil {
		return err
	}
	if e.sealed = (&sealedPlaces{}); v.archives != nil {
		if e.sealed, err = newSealedPlaces(ctx, v.archives); err != nil {
			return err
		}
	}
	if e.sub, err = v.log.Subscribe(ctx, eventlog.SubscribeOptions{Prefixes: []string{domain.EvidencePrefix}, FromStart: true}); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	defer e.sub.Close()
	if err := e.walk(ctx); err != nil {
		return err
	}
	for _, c := range e.cursors {
		if err := e.extra(c, func() bool { return true }); err != nil {
			return err
		}
	}
	return e.poisonStream(ctx)
}

// eventVerifier is the state of [verifier.events].
type eventVerifier struct {
	*verifier

	decoder *decoder
	sub     Subscription
	ahead   *eventlog.Raw // Read, but after the block.
	block   *block
	places  map[uint64]eventlog.Raw // Streams and revisions of the block's events, by position.
	cursors []*cursor               // In the order of comparedTables.
	chain   chain
	sealed  *sealedPlaces
	missing map[uint64]*sealedRow // The block's events that are in neither log nor archive.
	aside   map[uint64]bool       // Positions that blocks set aside and that were not replayed.
	asides  uint64                // How many were ever set aside.
}

// chain is how far the ledger was followed.
type chain struct {
	plan      *BlockPlanned // Not completed yet.
	previous  BlockPlanned
	completed BlockCompleted
	attempt   uint64
}

// comparedTables returns the rows of the tables that are read in log order.
func comparedTables(b *block) []Rows {
	return []Rows{b.usage.rows(), b.activity.rows(), b.states.rows()}
}

func (e *eventVerifier) openCursors(ctx context.Context) error {
	for _, rows := range comparedTables(e.block) {
		order := []string{"position", "idx"}
		if rows.Table == tableKeyStates {
			order = order[:1]
		}
		where := []clickhouse.Cond{e.upTo()}
		if len(e.blocks.replays) > 0 { // Their rows stand out of the order.
			where = append(where, clickhouse.Not(clickhouse.In("block", e.blocks.replays)))
		}
		c, err := openCursor(ctx, e.store, clickhouse.Select{Table: rows.Table, Where: where, OrderBy: order}, rows.Columns)
		if c != nil {
			e.cursors = append(e.cursors, c)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// walk follows the ledger from its first event to the last completed block.
func (e *eventVerifier) walk(ctx context.Context) error {
	stream := LedgerStream(e.opt.Generation)
	next := uint64(0)
	for e.chain.completed.Block < e.last {
		events, err := e.log.ReadStream(ctx, stream, next, verifyPage)
		if err != nil {
			return fmt.Errorf("read ledger: %w", err)
		}
		if len(events) == 0 {
			e.differ(Difference{Where: "ledger", Stream: stream, Revision: next, What: fmt.Sprintf("ends at block %d of %d", e.chain.completed.Block, e.last)})
			return nil
		}
		for _, raw := range events {
			if raw.Revision != next {
				e.differ(Difference{Where: "ledger", Stream: stream, Revision: next, What: "event is missing"})
			}
			next = raw.Revision + 1
			n, err := blockOf(raw)
			if err != nil {
				return err
			}
			if e.blocks.givenUp(n) {
				continue
			}
			if err := e.ledgerEvent(ctx, raw); err != nil {
				return err
			}
			if e.chain.completed.Block >= e.last {
				return nil
			}
		}
	}
	return nil
}

func (e *eventVerifier) ledgerEvent(ctx context.Context, raw eventlog.Raw) error {
	wrong := func(format string, args ...any) {
		e.differ(Difference{Where: "ledger", Stream: raw.Stream, Revision: raw.Revision, Position: raw.Position, What: fmt.Sprintf(format, args...)})
	}
	c := &e.chain
	switch raw.Type {
	case typeBlockPlanned:
		var p BlockPlanned
		if err := decodeLedger(raw, &p); err != nil {
			return err
		}
		if c.plan != nil || p.Block != c.previous.Block+1 || p.From != c.previous.To || p.Previous != c.previous.SHA256 {
			wrong("plan of block %d from %d does not follow block %d to %d", p.Block, p.From, c.previous.Block, c.previous.To)
		}
		c.plan, c.previous, c.attempt = &p, p, 0
		if len(p.Replayed) > 0 {
			return e.verifyReplay(ctx, &p, wrong)
		}
		return e.verifyBlock(ctx, &p, wrong)
	case typeBlockRetaken:
		var r BlockRetaken
		if err := decodeLedger(raw, &r); err != nil {
			return err
		}
		if c.plan == nil || r.Block != c.plan.Block || r.Attempt != c.attempt+1 {
			wrong("attempt %d at block %d does not follow", r.Attempt, r.Block)
		}
		c.attempt = r.Attempt
	case typeBlockCompleted:
		var done BlockCompleted
		if err := decodeLedger(raw, &done); err != nil {
			return err
		}
		l := ledger{done: c.completed, plan: c.plan, attempt: c.attempt}
		if c.plan == nil {
			wrong("block %d is completed without a plan", done.Block)
		} else if want := l.completionOf(done.Holder); !sameCompletion(want, done) {
			wrong("completion of block %d is not its plan's", done.Block)
		}
		c.completed, c.plan = done, nil
	case typeLedgerRewound:
		var w LedgerRewound
		if err := decodeLedger(raw, &w); err != nil {
			return err
		}
		if want := c.completed; w.To != want.To || w.SHA256 != want.SHA256 || w.Events != want.Events || w.Poisoned != want.Poisoned || !maps.Equal(w.Rows, want.Rows) ||
			w.CarriedEvents != want.CarriedEvents || w.CarriedRows != want.CarriedRows {
			wrong("the ledger is rewound to block %d, but not to what was completed there", w.Kept)
		}
		c.completed, c.plan = w.BlockCompleted, nil
		c.previous = BlockPlanned{Block: w.Block, To: w.To, SHA256: w.SHA256}
	default:
		wrong("unknown event %q", raw.Type)
	}
	return nil
}

func sameCompletion(a, b BlockCompleted) bool {
	return a.Block == b.Block && a.To == b.To && a.LastRecordedAt.Equal(b.LastRecordedAt) && a.SHA256 == b.SHA256 &&
		a.Attempt == b.Attempt && a.Events == b.Events && a.Poisoned == b.Poisoned && maps.Equal(a.Rows, b.Rows) &&
		a.CarriedEvents == b.CarriedEvents && a.CarriedRows == b.CarriedRows
}

// verifyBlock makes a planned block again and compares its rows.
func (e *eventVerifier) verifyBlock(ctx context.Context, p *BlockPlanned, wrong func(string, ...any)) error {
	e.block.start(p.Block, p.From)
	e.places = map[uint64]eventlog.Raw{}
	if err := e.read(ctx, p); err != nil {
		return err
	}
	for _, position := range p.Aside {
		e.aside[position], e.asides = true, e.asides+1
	}
	missing, ended, err := e.sealed.upTo(p.To, e.places)
	if err != nil {
		return err
	}
	e.compareCarried(p, missing, wrong)
	if e.missing = missing; len(missing) > 0 || len(p.Carried) > 0 {
		err = p.matchesWithout(e.block, missing)
	} else {
		err = p.matches(e.block)
	}
	if err != nil {
		wrong("%v", err)
	}
	e.report.Events += e.block.events
	e.report.Poisoned += uint64(len(e.block.poison))
	for table, n := range e.block.rowsPerTable() {
		e.report.Rows[table] += n
	}
	for i, rows := range comparedTables(e.block) {
		if err := e.compare(e.cursors[i], rows); err != nil {
			return err
		}
	}
	if len(missing) > 0 { // Their rows may be the block's last.
		uses := e.cursors[0]
		if err := e.extra(uses, func() bool { return keyOf(uses).position <= p.To }); err != nil {
			return err
		}
	}
	e.compareSealed(ended)
	e.keepFindings(e.block.findings.rows())
	e.progress(VerifyProgress{Phase: "events", Done: p.Block, Of: e.last})
	return nil
}

// verifyReplay makes a block of events that were set aside before again and compares its
// rows.
func (e *eventVerifier) verifyReplay(ctx context.Context, p *BlockPlanned, wrong func(string, ...any)) (err error) {
	b := &block{}
	b.start(p.Block, p.From)
	b.replayed = p.Replayed
	for _, position := range p.Replayed {
		if !e.aside[position] {
			wrong("block %d replays the event at %d, which is not set aside", p.Block, position)
		}
		delete(e.aside, position)
	}
	e.places = map[uint64]eventlog.Raw{}
	err = readAside(ctx, e.log, e.opt.Generation, p.Replayed, func(raw eventlog.Raw) {
		f := e.decoder.fact(raw)
		b.append(&f)
		e.places[raw.Position] = eventlog.Raw{Stream: raw.Stream, Revision: raw.Revision}
	})
	if err != nil {
		return err
	}
	if err := p.matches(b); err != nil {
		wrong("%v", err)
	}
	e.report.Poisoned -= min(e.report.Poisoned, b.events)
	for table, n := range b.rowsPerTable() {
		e.report.Rows[table] += n
	}
	for _, rows := range comparedTables(b) {
		if err := e.compareReplay(ctx, b, rows); err != nil {
			return err
		}
	}
	e.keepFindings(b.findings.rows())
	return nil
}

// compareReplay compares the rows of one table of a replayed block.
func (e *eventVerifier) compareReplay(ctx context.Context, b *block, rows Rows) (err error) {
	order := []string{"position", "idx"}
	if rows.Table == tableKeyStates {
		order = order[:1]
	}
	c, err := openCursor(ctx, e.store, clickhouse.Select{Table: rows.Table, Where: []clickhouse.Cond{clickhouse.Eq("block", b.number)}, OrderBy: order}, rows.Columns)
	if c != nil {
		defer func() { err = errors.Join(err, c.close()) }()
	}
	if err != nil {
		return err
	}
	if err := e.compare(c, rows); err != nil {
		return err
	}
	return e.extra(c, func() bool { return true })
}

// read takes the events of a plan into the block.
func (e *eventVerifier) read(ctx context.Context, plan *BlockPlanned) error {
	to := plan.To
	for {
		raw := e.ahead
		if e.ahead = nil; raw == nil {
			d, err := e.sub.Next(ctx)
			if err != nil {
				return fmt.Errorf("read the log: %w", err)
			}
			if raw = d.Event; raw == nil {
				if d.CaughtUp && d.Position >= to {
					return nil
				}
				continue
			}
		}
		if raw.Position > to {
			e.ahead = raw
			return nil
		}
		f := e.decoder.planned(*raw, plan)
		e.block.append(&f)
		e.places[raw.Position] = eventlog.Raw{Stream: raw.Stream, Revision: raw.Revision}
		if raw.Position == to {
			return nil
		}
	}
}

// compare runs through rows, which are in the cursor's order, and the cursor side by
// side.
func (e *eventVerifier) compare(c *cursor, rows Rows) error {
	position, ok := rows.Columns[columnAt(rows, "position")].Values.([]uint64)
	if !ok {
		return fmt.Errorf("table %s has no position", rows.Table)
	}
	recorded, _ := rows.Columns[columnAt(rows, "recorded_at")].Values.([]int64)
	var idx []uint32
	if at := columnAt(rows, "idx"); at >= 0 {
		idx, _ = rows.Columns[at].Values.([]uint32)
	}
	for i := range rows.Len() {
		key := rowKey{position: position[i]}
		if idx != nil {
			key.idx = idx[i]
		}
		if err := e.extra(c, func() bool { return keyOf(c).before(key) }); err != nil {
			return err
		}
		at := e.places[key.position]
		d := Difference{Where: rows.Table, Stream: at.Stream, Revision: at.Revision, Position: key.position, Index: key.idx, Block: e.block.number}
		if !c.valid || keyOf(c) != key {
			if rows.Table == tableUsage && e.dropped(time.UnixMilli(recorded[i])) {
				e.report.Dropped++
				continue
			}
			d.What = "row is missing"
			e.differ(d)
			continue
		}
		if d.What = c.differs(rows, i); d.What != "" {
			e.differ(d)
		}
		if err := c.next(); err != nil {
			return err
		}
	}
	return nil
}

// extra reports the cursor's rows as long as are is true: the log does not have
// them, or has them once.
func (e *eventVerifier) extra(c *cursor, are func() bool) error {
	for c.valid && are() {
		if e.bySeal(c) {
			if err := c.next(); err != nil {
				return err
			}
			continue
		}
		key := keyOf(c)
		at := e.places[key.position]
		e.differ(Difference{
			Where: c.table, Stream: at.Stream, Revision: at.Revision, Position: key.position, Index: key.idx,
			Block: value[uint64](c, "block"), What: "row is there once more than the log gives",
		})
		if err := c.next(); err != nil {
			return err
		}
	}
	return nil
}

func columnAt(rows Rows, name string) int {
	for i, c := range rows.Columns {
		if c.Name == name {
			return i
		}
	}
	return -1
}

// rowKey names a row in log order.
type rowKey struct {
	position uint64
	idx      uint32
}

func (k rowKey) before(o rowKey) bool {
	return k.position < o.position || k.position == o.position && k.idx < o.idx
}

func keyOf(c *cursor) rowKey {
	k := rowKey{position: value[uint64](c, "position")}
	if _, ok := c.at["idx"]; ok {
		k.idx = value[uint32](c, "idx")
	}
	return k
}

// poisonStream checks that each event that a block set aside is in the poison stream. One
// that is there and stands in no block was set aside by a runner that lost the block to a
// program that could read it.
func (e *eventVerifier) poisonStream(ctx context.Context) error {
	if e.asides == 0 {
		return nil
	}
	events, err := poisonEvents(ctx, e.log, e.opt.Generation)
	if err != nil {
		return err
	}
	for _, p := range events {
		delete(e.aside, p.Position)
	}
	for position := range e.aside {
		e.differ(Difference{Where: "log", Stream: PoisonStream(e.opt.Generation), Position: position, What: "an event is set aside in the ledger only"})
	}
	return nil
}

// findingHash is the newest state of a finding as the log has it.
type findingHash struct {
	version uint64
	row     [sha256.Size]byte
}

func (v *verifier) keepFindings(rows Rows) {
	id, version := columnAt(rows, "id"), columnAt(rows, "version")
	for i := range rows.Len() {
		name, _ := columnValue(rows.Columns[id].Values, i).(string)
		n, _ := columnValue(rows.Columns[version].Values, i).(uint64)
		if have, ok := v.findings[name]; ok && have.version > n {
			continue
		}
		v.findings[name] = findingHash{version: n, row: hashRow(rows.Row(i))}
	}
}

// allFindings compares the table of findings with the newest states in the log.
func (v *verifier) allFindings(ctx context.Context) (err error) {
	var empty findingRows
	c, err := openCursor(ctx, v.store, clickhouse.Select{Table: tableFindings, Final: true, OrderBy: []string{"account_id", "id"}}, empty.rows().Columns)
	defer func() { err = errors.Join(err, c.close()) }()
	if err != nil {
		return err
	}
	done := uint64(0)
	for c.valid {
		id := value[string](c, "id")
		want, ok := v.findings[id]
		delete(v.findings, id)
		have := make([]any, len(c.row))
		for i, p := range c.row {
			have[i] = pointed(p)
		}
		switch {
		case value[uint64](c, "block") > v.last: // Changed since.
		case !ok:
			v.differ(Difference{Where: tableFindings, Position: value[uint64](c, "position"), What: "finding " + id + " is not in the log, or is there twice"})
		case want.row != hashRow(have):
			v.differ(Difference{
				Where: tableFindings, Stream: domain.FindingStreams + id, Revision: want.version, Position: value[uint64](c, "position"),
				What: fmt.Sprintf("finding %s at version %d is not the log's at %d", id, value[uint64](c, "version"), want.version),
			})
		}
		if done++; done%1000 == 0 {
			v.progress(VerifyProgress{Phase: "findings", Done: done})
		}
		if err := c.next(); err != nil {
			return err
		}
	}
	for id, want := range v.findings {
		v.differ(Difference{Where: tableFindings, Stream: domain.FindingStreams + id, Revision: want.version, What: "finding " + id + " is missing"})
	}
	return nil
}

// hashRow returns the hash of a row's values, each with its length.
func hashRow(values []any) [sha256.Size]byte {
	var text []byte
	for _, v := range values {
		one := fmt.Sprint(v)
		text = binary.BigEndian.AppendUint64(text, uint64(len(one)))
		text = append(text, one...)
	}
	return sha256.Sum256(text)
}

// pointed returns what was scanned.
func pointed(p any) any {
	switch p := p.(type) {
	case *string:
		return *p
	case *int64:
		return *p
	case *uint32:
		return *p
	case *uint64:
		return *p
	}
	return p
}
