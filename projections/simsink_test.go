package projections_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"example.com/keytrail/projections"
)

var errSink = errors.New("the simulated store does not answer")

// simSink is an analytics store in memory. It fails before and after it stored, can
// be killed in the middle of inserts (which may then be there by half, with their
// tokens forgotten or kept), and inserts may arrive long after they were sent.
type simSink struct {
	mu     sync.Mutex
	tables map[string][]simRow
	tokens map[string]bool
	parts  int
	// removing counts the removals under way.
	removing int
	// hold is how long the next removal is on its way.
	hold   time.Duration
	kills  int
	judged map[uint64]int

	rng *rand.Rand // Guarded by mu.
	// faulty is whether anything fails, slow whether counting and deleting take time.
	faulty, slow bool
}

// dawdle takes less time than a lease lasts.
func (s *simSink) dawdle() {
	s.mu.Lock()
	var d time.Duration
	if s.slow && s.chanceLocked(2) {
		d = time.Duration(s.rng.IntN(2500)) * time.Millisecond
	}
	s.mu.Unlock()
	pass(d)
}

// countedTables are those whose rows the ledger counts.
var countedTables = []string{"usage", "activity", "key_states"}

type simRow struct {
	block  uint64
	part   int
	values []any
}

func newSimSink(seed uint64) *simSink {
	return &simSink{
		tables: map[string][]simRow{}, tokens: map[string]bool{}, judged: map[uint64]int{},
		rng: rand.New(rand.NewPCG(seed, 1)),
	}
}

// chance is true in one of n cases while faults are on.
func (s *simSink) chanceLocked(n int) bool { return s.faulty && s.rng.IntN(n) == 0 }

func rowsOf(rows projections.Rows) []simRow {
	out := make([]simRow, rows.Len())
	at := slices.IndexFunc(rows.Columns, func(c projections.Column) bool { return c.Name == "block" || c.Name == "dirty" })
	for i := range out {
		out[i].values = rows.Row(i)
		out[i].block, _ = out[i].values[at].(uint64)
	}
	return out
}

func (s *simSink) Insert(ctx context.Context, rows projections.Rows, token string) error {
	incoming := rowsOf(rows) // The caller may reuse its block once it gave up.
	s.mu.Lock()
	kills := s.kills
	var delay time.Duration
	if s.chanceLocked(12) {
		delay = time.Duration(s.rng.IntN(8000)) * time.Millisecond
	}
	s.mu.Unlock()
	if delay == 0 {
		return s.land(rows.Table, incoming, token, kills)
	}
	// The insert is on its way, whether or not its sender still waits.
	landed := make(chan error, 1)
	go func() {
		pass(delay)
		landed <- s.land(rows.Table, incoming, token, kills)
	}()
	select {
	case err := <-landed:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errSink, ctx.Err())
	}
}

// land is the arrival of an insert that was sent when the store had been killed
// kills times: it died with the store if that was killed since.
func (s *simSink) land(table string, incoming []simRow, token string, kills int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kills != kills || s.chanceLocked(15) {
		return errSink
	}
	if s.chanceLocked(15) && !s.tokens[table+token] {
		s.killLocked()
		if s.rng.IntN(2) == 0 {
			half := incoming[:s.rng.IntN(len(incoming)+1)]
			s.addLocked(table, half)
		} else {
			s.storeLocked(table, incoming, token)
			if s.rng.IntN(2) == 0 {
				delete(s.tokens, table+token) // The part was written, its token was not.
			}
			if s.rng.IntN(4) == 0 {
				clear(s.tokens) // The window was lost as a whole.
			}
		}
		return errSink
	}
	s.storeLocked(table, incoming, token)
	if s.chanceLocked(15) {
		return errSink // Failed, but persisted.
	}
	return nil
}

func (s *simSink) storeLocked(table string, rows []simRow, token string) {
	if s.tokens[table+token] {
		return
	}
	s.tokens[table+token] = true
	s.addLocked(table, rows)
}

// addLocked adds rows as a part of their own, which may be merged with others at once.
func (s *simSink) addLocked(table string, rows []simRow) {
	s.parts++
	for _, r := range rows {
		r.part = s.parts
		s.tables[table] = append(s.tables[table], r)
	}
	if s.chanceLocked(10) {
		s.mergeLocked(table)
	}
}

// killLocked kills the store: what is on its way is lost.
func (s *simSink) killLocked() { s.kills++ }

func (s *simSink) Count(_ context.Context, table string, block uint64) (uint64, error) {
	s.settle()
	s.dawdle()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chanceLocked(20) {
		return 0, errSink
	}
	return s.countLocked(table, block), nil
}

// firstUses returns how many uses of the first block there are, whatever the store would say.
func (s *simSink) firstUses() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.countLocked("usage", 1)
}

func (s *simSink) countLocked(table string, block uint64) uint64 {
	var n uint64
	for _, r := range s.tables[table] {
		if r.block == block {
			n++
		}
	}
	return n
}

// Delete removes the rows that are there when it is told to, some time later, as
// ClickHouse's does: what was merged since is in other parts.
func (s *simSink) Delete(_ context.Context, table string, block uint64) error {
	return s.remove(table, func(r simRow) bool { return r.block == block })
}

func (s *simSink) remove(table string, gone func(simRow) bool) error {
	s.mu.Lock()
	parts := map[int]bool{}
	for _, r := range s.tables[table] {
		if gone(r) {
			parts[r.part] = true
		}
	}
	hold := s.hold
	s.hold = 0
	s.mu.Unlock()
	pass(hold)
	s.dawdle()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chanceLocked(20) {
		return errSink
	}
	if s.chanceLocked(8) {
		s.mergeLocked(table)
	}
	s.removing++ // From here on the store knows of it, and does it part by part.
	for _, part := range slices.Sorted(maps.Keys(parts)) {
		s.mu.Unlock()
		s.dawdle()
		s.mu.Lock()
		s.tables[table] = slices.DeleteFunc(s.tables[table], func(r simRow) bool { return gone(r) && r.part == part })
	}
	s.removing--
	if s.chanceLocked(20) {
		return errSink
	}
	return nil
}

// settle waits until nothing is being removed.
func (s *simSink) settle() {
	for {
		s.mu.Lock()
		n := s.removing
		s.mu.Unlock()
		if n == 0 {
			return
		}
		pass(20 * time.Millisecond)
	}
}

// mergeLocked makes one part of a table's parts.
func (s *simSink) mergeLocked(table string) {
	s.parts++
	for i := range s.tables[table] {
		s.tables[table][i].part = s.parts
	}
}

func (s *simSink) Totals(_ context.Context, block uint64) (map[string]uint64, error) {
	s.settle()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chanceLocked(20) {
		return nil, errSink
	}
	out := map[string]uint64{}
	for _, table := range countedTables {
		for _, r := range s.tables[table] {
			if r.block <= block {
				out[table]++
			}
		}
	}
	return out, nil
}

func (s *simSink) Newest(context.Context) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chanceLocked(20) {
		return 0, errSink
	}
	var newest uint64
	for table, rows := range s.tables {
		for _, r := range rows {
			if table != "usage_buckets" {
				newest = max(newest, r.block)
			}
		}
	}
	return newest, nil
}

func (s *simSink) Rewind(_ context.Context, w projections.Rewinding) error {
	for _, table := range countedTables {
		if err := s.remove(table, func(r simRow) bool { return r.block > w.Kept }); err != nil {
			return err
		}
	}
	return nil
}

// losePower takes rows that were acknowledged: of some tables those of the newest blocks,
// from a block on that is drawn. The tables that are not counted lose what they got after
// the first row that is gone.
func (s *simSink) losePower(draw func(n int) int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.killLocked()
	var newest uint64
	for _, table := range countedTables {
		for _, r := range s.tables[table] {
			newest = max(newest, r.block)
		}
	}
	if newest == 0 {
		return
	}
	from := newest - uint64(draw(int(min(newest, 6))))
	lost := uint64(0)
	for _, table := range countedTables {
		if draw(2) == 0 {
			continue
		}
		s.tables[table] = slices.DeleteFunc(s.tables[table], func(r simRow) bool {
			if r.block < from {
				return false
			}
			if lost == 0 || r.block < lost {
				lost = r.block
			}
			return true
		})
	}
	for _, table := range []string{"api_keys", "findings", "usage_buckets"} {
		if lost > 0 && draw(2) == 0 {
			s.tables[table] = slices.DeleteFunc(s.tables[table], func(r simRow) bool { return r.block >= lost })
		}
	}
	if draw(2) == 0 {
		clear(s.tokens)
	}
}

func (s *simSink) Judge(_ context.Context, j projections.Judgement) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chanceLocked(20) {
		return errSink
	}
	s.judged[j.Block]++
	return nil
}
