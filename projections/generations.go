package projections

import (
	"context"

	"example.com/keytrail/domain"
)

// Rebuild asks for a generation of tables named name: made from the log beside the live
// ones, compared, and swapped in by whichever worker holds its ledger. Asked again it
// changes nothing, except that accept, once given, stays. It returns when the wish is
// durable. Where events were cut and are in no archive, their rows are carried over from
// the live tables; it refuses if those do not hold them whole.
func (n *Node) Rebuild(ctx context.Context, name, by string, accept bool) error {
	if !generationName.MatchString(name) {
		return domain.Errorf(domain.Invalid, "must be 1 to 32 of a-z, 0-9 and _, and not begin with _").WithField("name").WithMessageCode("invalid_generation")
	}
	if err := n.carriableFor(ctx, name); err != nil {
		return err
	}
	err := n.book.decide(ctx, func(g *generations) (string, any, error) {
		gen := g.named[name]
		if gen == nil {
			return typeGenerationStarted, GenerationStarted{Generation: name, By: by}, nil
		}
		switch gen.State {
		case GenerationBuilding, GenerationDiffers:
			return "", nil, nil
		case GenerationLive:
			return "", nil, conflict("generation_live", "generation %s answers already; choose a new name", name)
		case GenerationRetired, GenerationGone:
			return "", nil, conflict("generation_used", "generation %s was used before; choose a new name", name)
		}
		return "", nil, nil
	})
	if err != nil || !accept {
		return err
	}
	return n.book.decide(ctx, func(g *generations) (string, any, error) {
		gen := g.named[name]
		if gen == nil || gen.Accepted || gen.State != GenerationBuilding && gen.State != GenerationDiffers {
			return "", nil, nil
		}
		return typeGenerationAccepted, GenerationAccepted{Generation: name, By: by}, nil
	})
}

// Drop gives up a generation that is being made, or removes one that was live. It
// returns when that is durable; the tables go soon after.
func (n *Node) Drop(ctx context.Context, name, by string) error {
	return n.book.decide(ctx, func(g *generations) (string, any, error) {
		gen := g.named[name]
		if gen == nil {
			return "", nil, domain.Errorf(domain.NotFound, "there is no generation %s", name).WithMessageCode("no_such_generation")
		}
		switch gen.State {
		case GenerationLive:
			return "", nil, conflict("generation_live", "generation %s answers; it cannot be dropped", name)
		case GenerationGone:
			return "", nil, nil
		case GenerationBuilding, GenerationDiffers, GenerationRetired:
		}
		return typeGenerationDropped, GenerationDropped{Generation: name, By: by}, nil
	})
}

// RequestReplay asks for the events that the live tables set aside to be tried again, by
// the worker that writes them. It returns the request's number when it is durable: it is
// done when [Generation.Replayed] says so.
func (n *Node) RequestReplay(ctx context.Context, by string) (generation string, request uint64, err error) {
	err = n.book.decide(ctx, func(g *generations) (string, any, error) {
		generation, request = g.live, g.named[g.live].Replay+1
		return typeReplayRequested, ReplayRequested{Generation: generation, Request: request, By: by}, nil
	})
	return generation, request, err
}

// Poison returns the events that the live tables set aside, in log order.
func (n *Node) Poison(ctx context.Context) (generation string, events []EventPoisoned, err error) {
	generation = n.Live().Name
	l, err := readLedger(ctx, n.cfg.Log, LedgerStream(generation))
	if err != nil {
		return generation, nil, err
	}
	events, err = asideNow(ctx, n.cfg.Log, generation, l.done)
	return generation, events, err
}

// replayed records what came of a request to replay.
func (n *Node) replayed(ctx context.Context, done ReplayDone) error {
	return n.book.decide(ctx, func(g *generations) (string, any, error) {
		if before := g.named[done.Generation].Replayed; before != nil && before.Request >= done.Request {
			return "", nil, nil
		}
		return typeReplayDone, done, nil
	})
}

// passOnReplays tells the runner of t what is asked of it.
func (n *Node) passOnReplays(ctx context.Context, t *Tables) error {
	for {
		state, changed := n.book.now()
		if gen := state.named[t.Name]; gen.Replay > 0 && (gen.Replayed == nil || gen.Replayed.Request < gen.Replay) {
			t.runner.Replay(gen.Replay)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func conflict(code, format string, args ...any) error {
	return domain.Errorf(domain.Conflict, format, args...).WithMessageCode(code)
}
