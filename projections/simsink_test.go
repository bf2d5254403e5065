package projections_test

import (
	"context"
	"errors"
	"fmt"
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

type simRow struct {
	block  uint64
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
			s.tables[table] = append(s.tables[table], half...)
		} else {
			s.storeLocked(table, incoming, token)
			if s.rng.IntN(2) == 0 {
				delete(s.tokens, table+token) // The part was written, its token was not.
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
	s.tables[table] = append(s.tables[table], rows...)
}

// killLocked kills the store: what is on its way is lost.
func (s *simSink) killLocked() { s.kills++ }

func (s *simSink) Count(_ context.Context, table string, block uint64) (uint64, error) {
	s.dawdle()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chanceLocked(20) {
		return 0, errSink
	}
	return s.countLocked(table, block), nil
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

func (s *simSink) Delete(_ context.Context, table string, block uint64) error {
	s.dawdle()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chanceLocked(20) {
		return errSink
	}
	s.tables[table] = slices.DeleteFunc(s.tables[table], func(r simRow) bool { return r.block == block })
	if s.chanceLocked(20) {
		return errSink
	}
	return nil
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
