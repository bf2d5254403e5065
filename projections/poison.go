package projections

import (
	"context"
	"errors"
	"fmt"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

// poisonPage is how many events of the poison stream are read at a time.
const poisonPage = 64

// reasonBytesMax bounds the reason kept in a poison event.
const reasonBytesMax = 1024

// setAside appends the poisoned events of a block to the poison stream, each once:
// their ids are derived from the events', and what an earlier attempt at the block
// appended is found by its position, which increases along the stream.
func setAside(ctx context.Context, log Log, generation string, poison []poisoned) error {
	stream := PoisonStream(generation)
	for len(poison) > 0 {
		known, end, err := knownPoison(ctx, log, stream, poison[0].raw.Position)
		if err != nil {
			return err
		}
		var proposed []eventlog.Proposed
		for _, p := range poison {
			id := poisonID(generation, p.raw.ID, p.raw.Position)
			if known[id] {
				continue
			}
			e, err := propose(typePoisoned, stream, end, poisonEvent(p))
			if err != nil {
				return err
			}
			e.ID = id
			proposed = append(proposed, e)
		}
		if len(proposed) == 0 {
			return nil
		}
		batch := proposed[:min(len(proposed), poisonPage)]
		_, err = log.Append(ctx, stream, end, batch...)
		if _, lost := errors.AsType[*eventlog.WrongRevision](err); lost {
			continue // Another runner sets the same events aside: look again.
		}
		if err != nil {
			return fmt.Errorf("append poison: %w", err)
		}
		if len(batch) == len(proposed) {
			return nil
		}
	}
	return nil
}

func poisonID(generation string, id domain.EventID, position uint64) domain.EventID {
	return domain.DeriveID("poison", generation, id.String(), fmt.Sprint(position))
}

func poisonEvent(p poisoned) EventPoisoned {
	reason := p.err.Error()
	return EventPoisoned{
		Stream: p.raw.Stream, Revision: p.raw.Revision, Position: p.raw.Position,
		EventID: p.raw.ID.String(), Type: p.raw.Type, Reason: reason[:min(len(reason), reasonBytesMax)],
	}
}

// knownPoison returns the ids of the poison events whose events stand at position
// from or later, and where the stream ends.
func knownPoison(ctx context.Context, log Log, stream string, from uint64) (map[domain.EventID]bool, eventlog.Expected, error) {
	known := map[domain.EventID]bool{}
	end := eventlog.NoStream()
	var at *uint64
	for {
		events, err := log.ReadStreamBackwards(ctx, stream, at, poisonPage)
		if err != nil {
			return nil, end, fmt.Errorf("read poison stream: %w", err)
		}
		for _, raw := range events {
			if at == nil {
				end = eventlog.Exactly(raw.Revision)
			}
			var e EventPoisoned
			if err := decodeLedger(raw, &e); err != nil {
				return nil, end, err
			}
			if e.Position < from || raw.Revision == 0 {
				known[raw.ID] = true
				return known, end, nil
			}
			known[raw.ID] = true
			at = new(raw.Revision - 1)
		}
		if len(events) == 0 {
			return known, end, nil
		}
	}
}
