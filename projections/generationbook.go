package projections

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"example.com/keytrail/internal/eventlog"
)

// generationPage is how many events of [GenerationsStream] are read at a time.
const generationPage = 64

// generationTries bounds the repeats of a decision that lost to another node's.
const generationTries = 16

// book is this node's copy of [GenerationsStream].
type book struct {
	log Log

	mu      sync.Mutex // Guards what follows.
	state   *generations
	changed chan struct{} // Closed and replaced when state changes.
}

func newBook(log Log) *book {
	return &book{log: log, state: newGenerations(), changed: make(chan struct{})}
}

// now returns the state, which is never changed, and a channel that is closed when
// there is a newer one.
func (b *book) now() (*generations, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state, b.changed
}

// take adds an event that follows the state; one that is known already is nothing.
func (b *book) take(raw eventlog.Raw) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if raw.Revision < b.state.revision.Next() {
		return nil
	}
	next, err := b.state.with(raw)
	if err != nil {
		return err
	}
	b.state = next
	close(b.changed)
	b.changed = make(chan struct{})
	return nil
}

// load reads what the stream holds beyond the state.
func (b *book) load(ctx context.Context) error {
	for {
		state, _ := b.now()
		events, err := b.log.ReadStream(ctx, GenerationsStream, state.revision.Next(), generationPage)
		if err != nil {
			return fmt.Errorf("read generations: %w", err)
		}
		for _, raw := range events {
			if err := b.take(raw); err != nil {
				return err
			}
		}
		if len(events) == 0 {
			return nil
		}
	}
}

// follow takes in each event of the stream until ctx ends or the log refuses.
func (b *book) follow(ctx context.Context) error {
	state, _ := b.now()
	sub, err := b.log.Subscribe(ctx, eventlog.SubscribeOptions{
		Prefixes: []string{GenerationsStream}, After: state.position, FromStart: state.position == 0,
	})
	if err != nil {
		return fmt.Errorf("follow generations: %w", err)
	}
	defer sub.Close()
	for {
		d, err := sub.Next(ctx)
		if err != nil {
			return fmt.Errorf("follow generations: %w", err)
		}
		if d.Event == nil || d.Event.Stream != GenerationsStream {
			continue
		}
		if err := b.take(*d.Event); err != nil {
			return err
		}
	}
}

// decide appends the event that f makes of the newest state, again if another node was
// faster, and takes it in. Without an event it does nothing.
func (b *book) decide(ctx context.Context, f func(*generations) (typ string, event any, err error)) error {
	for range generationTries {
		if err := b.load(ctx); err != nil {
			return err
		}
		state, _ := b.now()
		typ, event, err := f(state)
		if err != nil || event == nil {
			return err
		}
		p, err := propose(typ, GenerationsStream, state.revision, event)
		if err != nil {
			return err
		}
		_, err = b.log.Append(ctx, GenerationsStream, state.revision, p)
		if _, lost := errors.AsType[*eventlog.WrongRevision](err); lost {
			continue
		}
		if err != nil {
			return fmt.Errorf("append %s: %w", typ, err)
		}
		return b.load(ctx)
	}
	return fmt.Errorf("append to %s: other nodes were faster each time", GenerationsStream)
}

// LiveGeneration returns the generation that answers, as the log has it.
func LiveGeneration(ctx context.Context, log Log) (string, error) {
	b := newBook(log)
	if err := b.load(ctx); err != nil {
		return "", err
	}
	state, _ := b.now()
	if state.live == "" {
		return FirstGeneration, nil
	}
	return state.live, nil
}

// found makes the log's first event of generations, if it has none.
func (b *book) found(ctx context.Context) error {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return fmt.Errorf("make log id: %w", err)
	}
	return b.decide(ctx, func(g *generations) (string, any, error) {
		if g.live != "" {
			return "", nil, nil
		}
		return typeLogFounded, LogFounded{LogID: hex.EncodeToString(id[:]), Generation: FirstGeneration}, nil
	})
}
