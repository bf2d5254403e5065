package projections

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/keytrail/internal/clickhouse"
)

// DifferencesMax is how many differences a [Report] lists; it counts all.
const DifferencesMax = 20

// VerifyStatementsMax is how many statements [Verify] holds open at once.
const VerifyStatementsMax = 10

// Difference is one way in which the tables or the ledger are not what the log says.
type Difference struct {
	// Where is the table's name, "ledger" or "log".
	Where string `json:"where"`
	// Stream and Revision name the event, where it is known.
	Stream   string `json:"stream,omitempty"`
	Revision uint64 `json:"revision,omitempty"`
	// Position and Index name the row; 0 where it has none.
	Position uint64 `json:"position,omitempty"`
	Index    uint32 `json:"index,omitempty"`
	Block    uint64 `json:"block,omitempty"`
	// What says what is wrong.
	What string `json:"what"`
}

// Report is what [Verify] found.
type Report struct {
	Generation string `json:"generation"`
	// Block and Position are the last completed block and its end: what was compared.
	Block    uint64 `json:"block"`
	Position uint64 `json:"position"`
	Events   uint64 `json:"events"`
	Poisoned uint64 `json:"poisoned"`
	// Rows counts, for each table, the rows that the log gives.
	Rows map[string]uint64 `json:"rows"`
	// Hours counts the hours whose rollup was compared; HoursDirty those that readers
	// take from the base table.
	Hours      uint64 `json:"hours"`
	HoursDirty uint64 `json:"hours_dirty"`
	// SealedEvents and SealedRecords were cut and are in no archive: they are compared by
	// the counts in their seals only.
	SealedEvents  uint64 `json:"checked_by_seal_only_events,omitempty"`
	SealedRecords uint64 `json:"checked_by_seal_only_records,omitempty"`
	// CarriedEvents and CarriedRecords are those of them whose rows were not made from the
	// events either, but carried over from other tables when these were made anew.
	CarriedEvents  uint64 `json:"carried_not_rederived_events,omitempty"`
	CarriedRecords uint64 `json:"carried_not_rederived_records,omitempty"`
	// Dropped counts rows of table usage that are older than it keeps them, and gone.
	Dropped uint64 `json:"rows_dropped,omitempty"`
	// Differences counts them all; First are the first [DifferencesMax].
	Differences uint64       `json:"differences"`
	First       []Difference `json:"first,omitempty"`
}

// OK reports whether the tables are the log.
func (r Report) OK() bool { return r.Differences == 0 }

// VerifyProgress says how far [Verify] is.
type VerifyProgress struct {
	// Phase is "events", "keys" or "findings".
	Phase string
	// Done is the block, or the number of keys or findings, that was compared last.
	Done uint64
	// Of is where Done ends, 0 where nobody knows.
	Of uint64
}

// VerifyOptions says what [Verify] compares.
type VerifyOptions struct {
	Generation string
	// KeptSince is the time of arrival before which rows of table usage may have been
	// dropped (TTL). Such a row that is missing is counted, and is no difference; one that
	// is there is compared. Rollups that it went into must be there and hold at least what
	// is left. The zero time says that nothing is ever dropped.
	KeptSince time.Time
	// Decode reads events. Default [eventlog.Decode].
	Decode Decode
	// Progress, if set, is called now and then, by one goroutine at a time.
	Progress func(VerifyProgress)
}

// Verify makes every row again from the log, up to the last completed block, and
// compares all tables with it column by column. It checks that the ledger is one
// chain, judges uses by its own code and sums rollups itself. It may run beside a
// runner: what was written after the last completed block is left out. Every table is
// read once, in the order of the log or of the keys, the two side by side. Memory is
// bounded by one block, one account's hours and a few bytes a finding; up to
// [VerifyStatementsMax] statements are under way at once.
//
// Differences are in the report. An error means that the comparison did not end.
func Verify(ctx context.Context, log Log, store *clickhouse.Store, opt VerifyOptions) (Report, error) {
	l, err := readLedger(ctx, log, LedgerStream(opt.Generation))
	if err != nil {
		return Report{}, err
	}
	if opt.Progress == nil {
		opt.Progress = func(VerifyProgress) {}
	}
	history, err := readHistory(ctx, log, opt.Generation)
	if err != nil {
		return Report{}, err
	}
	archives, _ := log.(*ArchiveLog)
	if archives != nil {
		log = archives.allowingGaps() // What is missing is compared by its seal.
	}
	v := &verifier{
		archives: archives, blocks: history,
		log: log, store: store, opt: opt, last: l.done.Block,
		report:   Report{Generation: opt.Generation, Block: l.done.Block, Position: l.done.To, Rows: map[string]uint64{}},
		findings: map[string]findingHash{},
	}
	// What is computed from the tables does not need the log: the two wait for the store
	// and for the log, each in its turn, so they go side by side.
	g, both := errgroup.WithContext(ctx)
	g.Go(func() error { return v.inTurn(both, v.events, v.allFindings) })
	g.Go(func() error { return v.keys(both) })
	err = g.Wait()
	if err == nil {
		err = v.beyond(ctx)
	}
	if err != nil {
		return v.report, fmt.Errorf("verify: %w", err)
	}
	return v.report, nil
}

func (v *verifier) inTurn(ctx context.Context, phases ...func(context.Context) error) error {
	for _, phase := range phases {
		if err := phase(ctx); err != nil {
			return err
		}
	}
	return nil
}

// verifier is the state of one [Verify].
type verifier struct {
	archives *ArchiveLog // nil where the log is all there is.
	log      Log
	store    *clickhouse.Store
	opt      VerifyOptions
	last     uint64 // The last completed block.
	// blocks is what the ledger says of blocks that are not as others.
	blocks ledgerHistory
	// findings holds the newest state of each finding in the log.
	findings map[string]findingHash

	mu sync.Mutex // Guards the differences in report and calls of opt.Progress.
	// report's other counts belong each to one of the two walks.
	report Report
}

func (v *verifier) progress(p VerifyProgress) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.opt.Progress(p)
}

func (v *verifier) differ(d Difference) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Differences++
	if len(v.report.First) < DifferencesMax {
		v.report.First = append(v.report.First, d)
	}
}

// upTo is the condition that a row belongs to what is compared.
func (v *verifier) upTo() clickhouse.Cond { return clickhouse.Le("block", v.last) }

// beyond looks for rows of blocks that nobody planned.
func (v *verifier) beyond(ctx context.Context) error {
	newest := map[string]uint64{}
	for _, table := range []string{tableUsage, tableActivity, tableKeyStates, tableAPIKeys, tableFindings, tableViolations} {
		var n uint64
		err := v.store.Row(ctx, clickhouse.Select{Table: table, Scope: clickhouse.ScopeAll(), Columns: []string{"max(block)"}}, &n)
		if err != nil {
			return fmt.Errorf("newest block in %s: %w", table, err)
		}
		newest[table] = n
	}
	l, err := readLedger(ctx, v.log, LedgerStream(v.opt.Generation))
	if err != nil {
		return err
	}
	planned := l.done.Block
	if l.plan != nil {
		planned = l.plan.Block
	}
	for table, n := range newest {
		if n > planned {
			v.differ(Difference{Where: table, Block: n, What: fmt.Sprintf("rows of block %d, but only %d were planned", n, planned)})
		}
	}
	return nil
}
