package projections

import (
	"context"
	"fmt"

	"example.com/keytrail/domain"
)

// NeededFrom returns the position from which on this package's tables still need the log,
// whoever writes them: the events behind the last completed block of every generation that
// is live or being made, and the usage events that those have ever set aside: one that was
// replayed is verified from its stream. Nothing at or behind it may be cut.
func NeededFrom(ctx context.Context, log Log) (uint64, error) {
	b := newBook(log)
	if err := b.load(ctx); err != nil {
		return 0, err
	}
	state, _ := b.now()
	needed := ^uint64(0)
	if len(state.named) == 0 {
		return 0, nil // No tables yet: they need everything.
	}
	for name, g := range state.named {
		switch g.State {
		case GenerationRetired, GenerationGone:
			continue
		case GenerationLive, GenerationBuilding, GenerationDiffers:
		}
		l, err := readLedger(ctx, log, LedgerStream(name))
		if err != nil {
			return 0, err
		}
		aside, err := firstAside(ctx, log, name)
		if err != nil {
			return 0, err
		}
		needed = min(needed, l.done.To+1, aside)
	}
	return needed, nil
}

// firstAside returns the position of the first usage event that a generation has set
// aside.
func firstAside(ctx context.Context, log Log, generation string) (uint64, error) {
	first := ^uint64(0)
	for next := uint64(0); ; {
		events, err := log.ReadStream(ctx, PoisonStream(generation), next, poisonPage)
		if err != nil {
			return 0, fmt.Errorf("read poison stream: %w", err)
		}
		for _, raw := range events {
			next = raw.Revision + 1
			var p EventPoisoned
			if err := decodeLedger(raw, &p); err != nil {
				return 0, err
			}
			if _, usage := domain.UsageClassOf(p.Stream); usage {
				first = min(first, p.Position)
			}
		}
		if len(events) == 0 {
			return first, nil
		}
	}
}
