package projections

import (
	"context"
	"fmt"
	"sort"

	"example.com/keytrail/internal/eventlog"
)

// ledgerIndex finds blocks in a ledger that may be long. Every event of a ledger names
// its block, and the numbers never fall along the stream.
type ledgerIndex struct {
	log    Log
	stream string
	end    uint64 // Number of events to look at.
}

// indexOf returns the index of a ledger as it is now.
func indexOf(ctx context.Context, log Log, generation string) (ledgerIndex, error) {
	x := ledgerIndex{log: log, stream: LedgerStream(generation)}
	last, ok, err := log.Last(ctx, x.stream)
	if err != nil {
		return x, fmt.Errorf("read ledger: %w", err)
	}
	if ok {
		x.end = last.Revision + 1
	}
	return x, nil
}

// events returns some events from a revision on, at least one.
func (x ledgerIndex) events(ctx context.Context, revision uint64, n int) ([]eventlog.Raw, error) {
	events, err := x.log.ReadStream(ctx, x.stream, revision, n)
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	if len(events) == 0 {
		return nil, fmt.Errorf("%w: ledger %s has no event %d", errFatal, x.stream, revision)
	}
	return events, nil
}

// of returns the events about a block.
func (x ledgerIndex) of(ctx context.Context, block uint64) ([]eventlog.Raw, error) {
	var fault error
	first := sort.Search(int(x.end), func(i int) bool { //nolint:gosec // A stream is shorter.
		if fault != nil {
			return true
		}
		events, err := x.events(ctx, uint64(i), 1) //nolint:gosec // Not negative.
		if err != nil {
			fault = err
			return true
		}
		n, err := blockOf(events[0])
		fault = err
		return n >= block
	})
	if fault != nil {
		return nil, fault
	}
	var out []eventlog.Raw
	for next := uint64(first); next < x.end; { //nolint:gosec // Not negative.
		events, err := x.events(ctx, next, ledgerPage)
		if err != nil {
			return nil, err
		}
		for _, raw := range events {
			n, err := blockOf(raw)
			if err != nil {
				return nil, err
			}
			if n > block {
				return out, nil
			}
			out = append(out, raw)
			next = raw.Revision + 1
		}
	}
	return out, nil
}

// blockOf returns the block that an event of a ledger is about.
func blockOf(raw eventlog.Raw) (uint64, error) {
	var e struct {
		Block uint64 `json:"block"`
	}
	err := decodeLedger(raw, &e)
	return e.Block, err
}

// plan returns the plan of a block, nil for a rewinding's number.
func (x ledgerIndex) plan(ctx context.Context, block uint64) (*BlockPlanned, error) {
	events, err := x.of(ctx, block)
	if err != nil {
		return nil, err
	}
	for _, raw := range events {
		if raw.Type == typeBlockPlanned {
			p := &BlockPlanned{}
			return p, decodeLedger(raw, p)
		}
	}
	return nil, nil //nolint:nilnil // A rewinding has no plan.
}

// completion returns what the ledger says once block is completed, as a rewinding where
// it is one; the zero value for block 0.
func (x ledgerIndex) completion(ctx context.Context, block uint64) (LedgerRewound, error) {
	if block == 0 {
		return LedgerRewound{}, nil
	}
	events, err := x.of(ctx, block)
	if err != nil {
		return LedgerRewound{}, err
	}
	for _, raw := range events {
		if raw.Type == typeBlockCompleted || raw.Type == typeLedgerRewound {
			var e LedgerRewound
			return e, decodeLedger(raw, &e)
		}
	}
	return LedgerRewound{}, fmt.Errorf("%w: ledger %s: block %d was never completed", errFatal, x.stream, block)
}

// holding returns the plan of the block that holds a position, of those that led to done.
func (x ledgerIndex) holding(ctx context.Context, done BlockCompleted, position uint64) (*BlockPlanned, error) {
	low, high := uint64(0), done.Block // Ends before position; ends there or after.
	for done.LastRewind > 0 {
		rewound, err := x.completion(ctx, done.LastRewind)
		if err != nil {
			return nil, err
		}
		if rewound.To < position {
			low = rewound.Block
			break
		}
		high = rewound.Kept
		kept, err := x.completion(ctx, rewound.Kept)
		if err != nil {
			return nil, err
		}
		done = kept.BlockCompleted
	}
	for high-low > 1 {
		mid := low + (high-low)/2
		c, err := x.completion(ctx, mid)
		if err != nil {
			return nil, err
		}
		if c.To < position {
			low = mid
		} else {
			high = mid
		}
	}
	return x.plan(ctx, high)
}
