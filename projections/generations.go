package projections

import (
	"context"

	"example.com/keytrail/domain"
)

// Rebuild asks for a generation of tables named name: made from the log beside the live
// ones, compared, and swapped in by whichever worker holds its ledger. Asked again it
// changes nothing, except that accept, once given, stays. It returns when the wish is
// durable.
func (n *Node) Rebuild(ctx context.Context, name, by string, accept bool) error {
	if !generationName.MatchString(name) {
		return domain.Errorf(domain.Invalid, "must be 1 to 32 of a-z, 0-9 and _, and not begin with _").WithField("name").WithMessageCode("invalid_generation")
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

func conflict(code, format string, args ...any) error {
	return domain.Errorf(domain.Conflict, format, args...).WithMessageCode(code)
}
