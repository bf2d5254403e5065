package ingest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/cloudtrail"
	"example.com/keytrail/internal/eventlog"
)

const (
	factWriters = 8
	factTries   = 8
	// factsPerAppend keeps one append far below what the log takes: a fact has about
	// 1 KiB.
	factsPerAppend = 200
	// factKeysMax bounds the keys whose history is kept in memory.
	factKeysMax = 20000
)

// factSet gathers what a block says about keys.
type factSet struct {
	stated []domain.ObserveKey
	// first is the earliest use of each key: by time, then record id, so that the order
	// of the records does not matter.
	first map[useKey]domain.ObserveKey
}

func newFactSet() *factSet { return &factSet{first: make(map[useKey]domain.ObserveKey)} }

func (s *factSet) add(o cloudtrail.Observed) {
	s.stated = append(s.stated, o.Facts...)
	use, ok := o.FirstUse()
	if !ok {
		return
	}
	k := useKey{account: use.Account, id: string(use.ID)}
	if old, ok := s.first[k]; !ok || factOrder(use, old) < 0 {
		s.first[k] = use
	}
}

// list returns the facts by key, each key's by time. A stated fact comes before a
// mere use at the same time.
func (s *factSet) list() []domain.ObserveKey {
	all := slices.AppendSeq(s.stated, maps.Values(s.first))
	slices.SortStableFunc(all, func(a, b domain.ObserveKey) int {
		return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.ID, b.ID), factOrder(a, b))
	})
	return all
}

func factOrder(a, b domain.ObserveKey) int {
	rank := func(f domain.ObservedFact) int {
		if f == domain.ObservedUse {
			return 1
		}
		return 0
	}
	return cmp.Or(a.At.Compare(b.At), cmp.Compare(rank(a.Fact), rank(b.Fact)), cmp.Compare(a.SourceEvent, b.SourceEvent))
}

// keyFacts records what imported records state about keys, each fact once.
type keyFacts struct {
	log CommandLog

	mu   sync.Mutex // Guards keys.
	keys map[string]cachedKey
}

// cachedKey is a key as it was last seen. It may be older than the log: an append at
// its revision is refused then, and a fact that it holds is in the log for certain.
type cachedKey struct {
	key  domain.Key
	last eventlog.Expected
	at   uint64 // Position of its newest event.
}

func newKeyFacts(log CommandLog) *keyFacts {
	return &keyFacts{log: log, keys: make(map[string]cachedKey)}
}

// record writes those of facts, sorted by key, that the log does not hold. It returns
// how many it wrote and the position of the newest of all. Facts are never refused.
func (k *keyFacts) record(ctx context.Context, o Order, facts []domain.ObserveKey) (uint64, uint64, error) {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(factWriters)
	var mu sync.Mutex
	var written, position uint64
	for len(facts) > 0 {
		n := 1
		for n < len(facts) && n < factsPerAppend && facts[n].ID == facts[0].ID && facts[n].Account == facts[0].Account {
			n++
		}
		same := facts[:n]
		facts = facts[n:]
		g.Go(func() error {
			n, at, err := k.recordKey(ctx, o, same)
			mu.Lock()
			defer mu.Unlock()
			written, position = written+n, max(position, at)
			return err
		})
	}
	err := g.Wait()
	return written, position, err //nolint:wrapcheck // recordKey's own.
}

// recordKey writes facts about one key.
func (k *keyFacts) recordKey(ctx context.Context, o Order, facts []domain.ObserveKey) (uint64, uint64, error) {
	stream := domain.ExternalKeyStream(facts[0].Account, facts[0].ID)
	for range factTries {
		cached, err := k.load(ctx, stream)
		if err != nil {
			return 0, 0, err
		}
		events, key, err := decideFacts(o, stream, cached, facts)
		if err != nil {
			return 0, 0, err
		}
		if len(events) == 0 {
			return 0, cached.at, nil
		}
		done, err := k.log.Append(ctx, stream, cached.last, events...)
		if _, wrong := errors.AsType[*eventlog.WrongRevision](err); wrong {
			k.drop(stream)
			continue
		}
		if err != nil {
			k.drop(stream)
			return 0, 0, logError("append facts about a key", err)
		}
		k.keep(stream, cachedKey{key: key, last: eventlog.Exactly(done.Revision), at: done.Position})
		return uint64(len(events)), done.Position, nil
	}
	return 0, 0, domain.Errorf(domain.Unavailable, "too many writers at once, try again").WithMessageCode("key_contended")
}

// decideFacts returns the events that facts add to a key, and the key after them.
func decideFacts(o Order, stream string, cached cachedKey, facts []domain.ObserveKey) ([]eventlog.Proposed, domain.Key, error) {
	key := cached.key
	var out []eventlog.Proposed
	for _, f := range facts {
		events, err := key.Decide(f)
		if err != nil {
			return nil, key, fmt.Errorf("observe key: %w", err)
		}
		for _, e := range events {
			rec := domain.Recorded{
				Stream: stream, Revision: cached.last.Next() + uint64(len(out)), Type: e.Type(), Event: e,
				ID: domain.DeriveID("observed", string(f.Account), f.SourceEvent, string(f.Fact), string(f.ID)),
				Meta: domain.Metadata{
					Schema: domain.MetadataSchema, EffectiveAt: f.At, Initiator: o.Caller.Initiator,
					CorrelationID: o.CorrelationID, CausationID: f.SourceEvent,
				},
			}
			p, err := eventlog.Propose(rec.ID, e, rec.Meta)
			if err != nil {
				return nil, key, fmt.Errorf("propose fact: %w", err)
			}
			out, key = append(out, p), key.Evolve(rec)
		}
	}
	return out, key, nil
}

func (k *keyFacts) load(ctx context.Context, stream string) (cachedKey, error) {
	k.mu.Lock()
	cached, ok := k.keys[stream]
	k.mu.Unlock()
	if ok {
		return cached, nil
	}
	history, err := readAll(ctx, k.log, stream)
	if err != nil {
		return cachedKey{}, err
	}
	cached = cachedKey{key: domain.FoldKey(history)}
	if n := len(history); n > 0 {
		cached.last, cached.at = eventlog.Exactly(history[n-1].Revision), history[n-1].Position
	}
	k.keep(stream, cached)
	return cached, nil
}

// keep remembers a key; when there are too many, an eighth of them, whichever they
// are, is forgotten.
func (k *keyFacts) keep(stream string, c cachedKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.keys) >= factKeysMax {
		left := factKeysMax / 8
		for s := range k.keys {
			if left--; left < 0 {
				break
			}
			delete(k.keys, s)
		}
	}
	k.keys[stream] = c
}

func (k *keyFacts) drop(stream string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.keys, stream)
}
