package projections

import (
	"context"
	"errors"
	"fmt"

	"example.com/keytrail/domain"
)

// logFor returns the log that the tables t are made from. What is in neither log nor
// archive is carried over from the live tables, as long as t are not those.
func (n *Node) logFor(t *Tables) Log {
	archives, ok := n.cfg.Log.(*ArchiveLog)
	if !ok {
		return n.cfg.Log
	}
	return archives.carrying(liveCarrier{node: n, to: t.Name})
}

// liveCarrier gives rows of whichever tables are live.
type liveCarrier struct {
	node *Node
	to   string
}

// Carry implements [Carrier].
func (c liveCarrier) Carry(ctx context.Context, first, last uint64, limit int) (string, []CarriedUse, error) {
	state, _ := c.node.book.now()
	if state.live == c.to {
		return "", nil, fmt.Errorf("%w, and no other tables hold them", ErrNotKept)
	}
	live, err := c.node.tablesOf(state.live)
	if err != nil {
		return "", nil, err
	}
	if refused := live.Refused(); refused != nil {
		return "", nil, fmt.Errorf("%w: %w, and the live tables that hold their rows are not to be read: %w", errFatal, ErrNotKept, refused)
	}
	store, err := live.Store()
	if err != nil {
		return "", nil, err
	}
	return NewCarrier(live.Name, store).Carry(ctx, first, last, limit)
}

// carriableFor is carriable where name is new.
func (n *Node) carriableFor(ctx context.Context, name string) error {
	if err := n.book.load(ctx); err != nil {
		return err
	}
	if state, _ := n.book.now(); state.named[name] != nil {
		return nil
	}
	return n.carriable(ctx)
}

// carriable returns a conflict if events were cut and are in no archive, so that new tables
// must take their rows from the live ones, and those do not hold them whole.
func (n *Node) carriable(ctx context.Context) error {
	archives, ok := n.cfg.Log.(*ArchiveLog)
	if !ok {
		return nil
	}
	to, err := archives.lost(ctx)
	if err != nil || to == 0 {
		return err
	}
	refuse := func(format string, args ...any) error {
		return conflict("tables_incomplete", "events up to position %d were cut and are in no archive, so that their rows can only be carried over from the live tables, and %s", to, fmt.Sprintf(format, args...))
	}
	state, _ := n.book.now()
	live, err := n.tablesOf(state.live)
	if err != nil {
		return err
	}
	if refused := live.Refused(); refused != nil {
		return refuse("those are not to be read: %v", refused)
	}
	store, err := live.Store()
	if err != nil {
		return errors.Join(domain.Errorf(domain.Unavailable, "the live tables cannot be read; try again").WithMessageCode("tables_unavailable"), err)
	}
	l, err := readLedger(ctx, n.cfg.Log, LedgerStream(live.Name))
	if err != nil {
		return err
	}
	if l.done.To < to {
		return refuse("those are complete up to position %d only; wait until they are, or restore a copy of them", l.done.To)
	}
	have, err := NewSink(store).Totals(ctx, l.done.Block)
	if err != nil {
		return err
	}
	if reason := differsFrom(l.done, have); reason != "" {
		return refuse("%s; restore a copy of them", reason)
	}
	return nil
}

// lost returns the position of the newest event that was cut and is in no archive, 0 if
// there is none.
func (l *ArchiveLog) lost(ctx context.Context) (uint64, error) {
	seals, err := l.NotKept(ctx)
	if err != nil {
		return 0, err
	}
	begin := map[string]uint64{} // The first revision that each stream still has.
	newest := uint64(0)
	for _, seal := range seals {
		first, known := begin[seal.Stream]
		if !known {
			events, err := l.ReadStream(ctx, seal.Stream, 0, 1)
			if err != nil {
				return 0, fmt.Errorf("read where %s begins: %w", seal.Stream, err)
			}
			if len(events) > 0 {
				first = events[0].Revision
			}
			begin[seal.Stream] = first
		}
		if seal.FirstRevision < first {
			newest = max(newest, seal.LastPosition)
		}
	}
	return newest, nil
}
