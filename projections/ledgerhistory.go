package projections

import (
	"context"
	"fmt"
)

// ledgerHistory is what a ledger says of the blocks that do not simply follow the log.
type ledgerHistory struct {
	rewinds []LedgerRewound
	// replays are the blocks that stand and hold events that were set aside before.
	replays []uint64
}

// readHistory reads a whole ledger.
func readHistory(ctx context.Context, log Log, generation string) (ledgerHistory, error) {
	var (
		h   ledgerHistory
		all []uint64
	)
	for next := uint64(0); ; {
		events, err := log.ReadStream(ctx, LedgerStream(generation), next, verifyPage)
		if err != nil {
			return h, fmt.Errorf("read ledger: %w", err)
		}
		if len(events) == 0 {
			break
		}
		for _, raw := range events {
			next = raw.Revision + 1
			switch raw.Type {
			case typeBlockPlanned:
				var p struct {
					Block    uint64   `json:"block"`
					Replayed []uint64 `json:"replayed"`
				}
				if err := decodeLedger(raw, &p); err != nil {
					return h, err
				}
				if len(p.Replayed) > 0 {
					all = append(all, p.Block)
				}
			case typeLedgerRewound:
				var w LedgerRewound
				if err := decodeLedger(raw, &w); err != nil {
					return h, err
				}
				h.rewinds = append(h.rewinds, w)
			}
		}
	}
	for _, n := range all {
		if !h.givenUp(n) {
			h.replays = append(h.replays, n)
		}
	}
	return h, nil
}

// givenUp reports whether a block, or a rewinding of that number, was undone later.
func (h ledgerHistory) givenUp(block uint64) bool {
	for _, w := range h.rewinds {
		if w.Kept < block && block < w.Block {
			return true
		}
	}
	return false
}

// marked reports whether a number is that of a rewinding, by which hours are marked.
func (h ledgerHistory) marked(block uint64) bool {
	for _, w := range h.rewinds {
		if w.Block == block {
			return true
		}
	}
	return false
}
