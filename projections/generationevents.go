package projections

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"time"

	"example.com/keytrail/internal/eventlog"
)

// GenerationsStream says which generations of tables there are and which one answers.
// Every node follows it, so that all of them change over by one event.
const GenerationsStream = "ktx.generations"

// FirstGeneration is the live one of a log that nobody wrote tables for before.
const FirstGeneration = "1"

// Stored names of the events of [GenerationsStream].
const (
	typeLogFounded         = "log.founded.v1"
	typeGenerationStarted  = "generation.started.v1"
	typeGenerationAccepted = "generation.accepted.v1"
	typeGenerationCompared = "generation.compared.v1"
	typeGenerationSwapped  = "generation.swapped.v1"
	typeGenerationDropped  = "generation.dropped.v1"
	typeReplayRequested    = "poison.replay-requested.v1"
	typeReplayDone         = "poison.replayed.v1"
)

// generationName is the form of a generation's name: it becomes part of the name of a
// database and of streams.
var generationName = regexp.MustCompile(`^[a-z0-9][a-z0-9_]{0,31}$`)

// LogFounded is the event "log.founded.v1", the first of [GenerationsStream]: this log
// is LogID, and its tables are those of Generation until another is swapped in.
type LogFounded struct {
	// LogID is random. Tables keep it, so that they are never taken for another log's.
	LogID      string `json:"log_id"`
	Generation string `json:"generation"`
}

// GenerationStarted is the event "generation.started.v1": tables of this name are to
// be made from the log beside the live ones.
type GenerationStarted struct {
	Generation string `json:"generation"`
	By         string `json:"by"`
}

// GenerationAccepted is the event "generation.accepted.v1": the new tables may take
// over whatever the comparison finds.
type GenerationAccepted struct {
	Generation string `json:"generation"`
	By         string `json:"by"`
}

// GenerationCompared is the event "generation.compared.v1".
type GenerationCompared struct {
	Generation string     `json:"generation"`
	Comparison Comparison `json:"comparison"`
}

// GenerationSwapped is the event "generation.swapped.v1": from it on, Generation
// answers. Its tables held at least Position, which is all that those of From held.
type GenerationSwapped struct {
	Generation string `json:"generation"`
	From       string `json:"from"`
	Position   uint64 `json:"position"`
	// Differences is what the comparison counted; more than 0 only if they were
	// accepted.
	Differences uint64 `json:"differences"`
}

// GenerationDropped is the event "generation.dropped.v1": the generation's tables are
// removed, and its name is never used again.
type GenerationDropped struct {
	Generation string `json:"generation"`
	By         string `json:"by"`
}

// ReplayRequested is the event "poison.replay-requested.v1": the runner of Generation
// is to try the events that were set aside once more. Request is its number.
type ReplayRequested struct {
	Generation string `json:"generation"`
	Request    uint64 `json:"request"`
	By         string `json:"by"`
}

// ReplayDone is the event "poison.replayed.v1": every event that was set aside was tried
// again, and Left still are.
type ReplayDone struct {
	Generation string `json:"generation"`
	Request    uint64 `json:"request"`
	Left       uint64 `json:"left"`
}

// GenerationState is where a generation stands.
type GenerationState string

// The states of a generation.
const (
	GenerationBuilding GenerationState = "building"
	GenerationDiffers  GenerationState = "differs" // Compared; its differences were not accepted.
	GenerationLive     GenerationState = "live"
	GenerationRetired  GenerationState = "retired" // Was live; kept for the cursors that name it.
	GenerationGone     GenerationState = "dropped"
)

// Generation is one generation as [GenerationsStream] tells it.
type Generation struct {
	Name  string
	State GenerationState
	// Accepted says that differences do not stand in the way.
	Accepted bool
	// Compared is the newest comparison with the live tables; nil before the first.
	Compared *Comparison
	// From is the generation that this one took over from, at SwappedAt; empty before
	// that and for the first.
	From      string
	SwappedAt time.Time
	// RetiredAt is when another took over.
	RetiredAt time.Time
	// Replay is the newest request to replay poison, Replayed the newest done.
	Replay   uint64
	Replayed *ReplayDone
}

// generations is the fold of [GenerationsStream].
type generations struct {
	revision eventlog.Expected
	position uint64
	logID    string
	live     string
	order    []string
	named    map[string]*Generation
}

func newGenerations() *generations { return &generations{named: map[string]*Generation{}} }

// clone returns a copy that shares nothing that changes.
func (g *generations) clone() *generations {
	c := *g
	c.order = slices.Clone(g.order)
	c.named = make(map[string]*Generation, len(g.named))
	for name, gen := range g.named {
		copied := *gen
		c.named[name] = &copied
	}
	return &c
}

// all returns every generation in the order of their beginning.
func (g *generations) all() []Generation {
	out := make([]Generation, 0, len(g.order))
	for _, name := range g.order {
		out = append(out, *g.named[name])
	}
	return out
}

// with returns the generations after an event, g itself being left as it is. An event
// that does not follow from what was before means that somebody else wrote the stream.
func (g *generations) with(raw eventlog.Raw) (*generations, error) {
	if next := g.revision.Next(); raw.Revision != next {
		return nil, fmt.Errorf("%s: event %d comes where %d is expected", GenerationsStream, raw.Revision, next)
	}
	c := g.clone()
	if err := c.take(raw); err != nil {
		return nil, fmt.Errorf("%s@%d: %w", GenerationsStream, raw.Revision, err)
	}
	c.revision, c.position = eventlog.Exactly(raw.Revision), raw.Position
	return c, nil
}

func (g *generations) take(raw eventlog.Raw) error {
	switch raw.Type {
	case typeLogFounded:
		var e LogFounded
		if err := json.Unmarshal(raw.Data, &e); err != nil {
			return fmt.Errorf("decode %s: %w", raw.Type, err)
		}
		g.logID, g.live = e.LogID, e.Generation
		g.add(e.Generation).State = GenerationLive
		return nil
	case typeGenerationStarted:
		var e GenerationStarted
		if err := json.Unmarshal(raw.Data, &e); err != nil {
			return fmt.Errorf("decode %s: %w", raw.Type, err)
		}
		g.add(e.Generation).State = GenerationBuilding
		return nil
	case typeGenerationCompared:
		var e GenerationCompared
		return g.about(raw, &e, func() string { return e.Generation }, func(gen *Generation) {
			gen.Compared = &e.Comparison
			if e.Comparison.Differences > 0 && !gen.Accepted {
				gen.State = GenerationDiffers
			}
		})
	case typeGenerationAccepted:
		var e GenerationAccepted
		return g.about(raw, &e, func() string { return e.Generation }, func(gen *Generation) {
			gen.Accepted = true
			if gen.State == GenerationDiffers {
				gen.State = GenerationBuilding
			}
		})
	}
	return g.takeLater(raw)
}

// takeLater is take for what happens to a generation that was compared.
func (g *generations) takeLater(raw eventlog.Raw) error {
	switch raw.Type {
	case typeGenerationSwapped:
		var e GenerationSwapped
		return g.about(raw, &e, func() string { return e.Generation }, func(gen *Generation) {
			if old := g.named[e.From]; old != nil {
				old.State, old.RetiredAt = GenerationRetired, raw.RecordedAt
			}
			gen.State, gen.From, gen.SwappedAt, g.live = GenerationLive, e.From, raw.RecordedAt, gen.Name
		})
	case typeGenerationDropped:
		var e GenerationDropped
		return g.about(raw, &e, func() string { return e.Generation }, func(gen *Generation) { gen.State = GenerationGone })
	case typeReplayRequested:
		var e ReplayRequested
		return g.about(raw, &e, func() string { return e.Generation }, func(gen *Generation) { gen.Replay = e.Request })
	case typeReplayDone:
		var e ReplayDone
		return g.about(raw, &e, func() string { return e.Generation }, func(gen *Generation) { gen.Replayed = &e })
	}
	return fmt.Errorf("unknown event %q: a newer program wrote it", raw.Type)
}

func (g *generations) add(name string) *Generation {
	gen := &Generation{Name: name}
	g.named[name] = gen
	g.order = append(g.order, name)
	return gen
}

// about decodes an event into e and changes the generation that it is about.
func (g *generations) about(raw eventlog.Raw, e any, name func() string, change func(*Generation)) error {
	if err := json.Unmarshal(raw.Data, e); err != nil {
		return fmt.Errorf("decode %s: %w", raw.Type, err)
	}
	gen := g.named[name()]
	if gen == nil {
		return fmt.Errorf("%s of generation %q, which never began", raw.Type, name())
	}
	change(gen)
	return nil
}
