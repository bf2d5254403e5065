package horizon

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/archive"
	"example.com/keytrail/internal/eventlog"
)

// readPage is how many events are read at a time: each may have 1 MiB.
const readPage = 16

// sealAll seals every segment of stream that is complete and old enough, and returns how
// many.
func (k *Keeper) sealAll(ctx context.Context, stream string, class Class) (sealed uint64, err error) {
	for tries := 0; tries < triesMax; {
		have := k.cfg.Seals.Of(stream)
		events, err := k.segment(ctx, stream, have)
		if err != nil {
			return sealed, err
		}
		if len(events) == 0 || k.cfg.Now().Sub(events[len(events)-1].RecordedAt) < class.Horizon {
			return sealed, nil
		}
		seal, err := k.sealOf(stream, have, events)
		if err != nil {
			return sealed, err
		}
		if class.Archive != nil {
			if err := store(class.Archive, &seal, events); err != nil {
				return sealed, err
			}
		}
		err = k.append(ctx, seal)
		if _, raced := errors.AsType[*eventlog.WrongRevision](err); raced {
			tries++ // Another keeper sealed: perhaps this very segment.
			if err := k.cfg.Seals.Refresh(ctx); err != nil {
				return sealed, err
			}
			continue
		}
		if err != nil {
			return sealed, err
		}
		sealed++
		if err := k.cfg.Seals.Refresh(ctx); err != nil {
			return sealed, err
		}
	}
	return sealed, errors.New("others seal at the same time, going on later")
}

// segment returns the events of the segment after the sealed ones, none if it is not
// complete. Where it ends depends on the stream's events alone, never on when or by whom
// they are read: at the end of the first event's day of arrival (UTC), or when it is full.
// A segment is complete only if an event follows it: a stream's newest event is never part
// of one.
func (k *Keeper) segment(ctx context.Context, stream string, sealed []domain.UsageSegmentSealed) ([]eventlog.Raw, error) {
	next := uint64(0)
	if len(sealed) > 0 {
		next = sealed[len(sealed)-1].LastRevision + 1
	}
	var (
		events []eventlog.Raw
		size   int
	)
	for {
		page, err := k.cfg.Log.ReadStream(ctx, stream, next, readPage)
		if err != nil {
			return nil, err
		}
		for _, raw := range page {
			if raw.Revision != next {
				return nil, fmt.Errorf("revision %d is due, the log gives %d: the stream was cut beyond what is sealed", next, raw.Revision)
			}
			full := len(events) == domain.SegmentEventsMax || size+len(raw.Data) > domain.SegmentBytesMax
			if len(events) > 0 && (full || dayOf(raw.RecordedAt) != dayOf(events[0].RecordedAt)) {
				return events, nil
			}
			events = append(events, raw)
			size += len(raw.Data)
			next++
		}
		if len(page) < readPage {
			return nil, nil
		}
	}
}

func dayOf(t time.Time) int64 { return t.Unix() / (24 * 3600) }

// sealOf counts and hashes a segment's events. An event that cannot be read cannot be
// counted, so it is an error, and the stream stays whole from there on.
func (k *Keeper) sealOf(stream string, before []domain.UsageSegmentSealed, events []eventlog.Raw) (domain.UsageSegmentSealed, error) {
	first, last := events[0], events[len(events)-1]
	seal := domain.UsageSegmentSealed{
		Stream: stream, Segment: uint64(len(before)) + 1, FirstRevision: first.Revision, LastRevision: last.Revision,
		FirstPosition: first.Position, LastPosition: last.Position, FirstRecordedAt: first.RecordedAt.UTC(), LastRecordedAt: last.RecordedAt.UTC(),
		Events: uint64(len(events)),
	}
	if len(before) > 0 {
		seal.Previous = before[len(before)-1].SHA256
	}
	chain, err := archive.NewChain(seal.Previous)
	if err != nil {
		return seal, err
	}
	sums := map[domain.AccountID]*domain.SegmentAccount{}
	places := make([]domain.Place, len(events))
	for i := range events {
		chain.Add(&events[i])
		n, err := k.count(&events[i], sums)
		if err != nil {
			return seal, fmt.Errorf("cannot be sealed: %w", err)
		}
		places[i] = domain.Place{Position: events[i].Position, Records: n}
		seal.Records += n
	}
	seal.SHA256, seal.Places = chain.Sum(), domain.PackPlaces(places)
	seal.Accounts, seal.AccountsOmitted = listed(sums)
	return seal, nil
}

// count adds the uses of one event to sums and returns how many those are.
func (k *Keeper) count(raw *eventlog.Raw, sums map[domain.AccountID]*domain.SegmentAccount) (uint64, error) {
	rec, err := eventlog.Decode(*raw)
	if err != nil {
		return 0, err
	}
	e, ok := rec.Event.(domain.UsageRecorded)
	if !ok {
		return 0, fmt.Errorf("a %s stands at %s@%d", raw.Type, raw.Stream, raw.Revision)
	}
	uses, err := k.codec.Decode(e.Batch.Columns)
	if err != nil {
		return 0, fmt.Errorf("%s@%d: %w", raw.Stream, raw.Revision, err)
	}
	for i := range uses {
		u := &uses[i]
		sum := sums[u.Account]
		if sum == nil {
			account := domain.AccountID(strings.Clone(string(u.Account)))
			sum = &domain.SegmentAccount{Account: account}
			sums[account] = sum
		}
		sum.Records++
		sum.Bytes += u.Bytes
		if u.Outcome == domain.OutcomeFailure {
			sum.Failures++
		}
	}
	return uint64(len(uses)), nil
}

func listed(sums map[domain.AccountID]*domain.SegmentAccount) ([]domain.SegmentAccount, uint64) {
	if len(sums) > domain.SegmentAccountsMax {
		return nil, uint64(len(sums))
	}
	out := make([]domain.SegmentAccount, 0, len(sums))
	for _, sum := range sums {
		out = append(out, *sum)
	}
	slices.SortFunc(out, func(a, b domain.SegmentAccount) int { return strings.Compare(string(a.Account), string(b.Account)) })
	return out, 0
}

// store writes the archive of a segment and names it in the seal.
func store(dir *archive.Dir, seal *domain.UsageSegmentSealed, events []eventlog.Raw) error {
	a, chain, err := dir.Store(archive.Header{
		Stream: seal.Stream, Segment: seal.Segment, FirstRevision: seal.FirstRevision, LastRevision: seal.LastRevision, Previous: seal.Previous,
	}, each(events))
	if err != nil {
		return err
	}
	if chain != seal.SHA256 {
		return fmt.Errorf("archive %s has another hash over its events than the seal", a.Name)
	}
	seal.Archive = &a
	return nil
}

func each(events []eventlog.Raw) iter.Seq2[eventlog.Raw, error] {
	return func(yield func(eventlog.Raw, error) bool) {
		for _, e := range events {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// append records a seal at the exact place where this keeper saw the seals end. The id
// is derived from what is sealed, so that a repeat is no second seal.
func (k *Keeper) append(ctx context.Context, seal domain.UsageSegmentSealed) error {
	end, last := k.cfg.Seals.End()
	id := domain.DeriveID("usage-seal", seal.Stream, strconv.FormatUint(seal.Segment, 10), seal.SHA256)
	p, err := eventlog.Propose(id, seal, domain.Metadata{EffectiveAt: domain.NextEffective(k.cfg.Now(), last), Initiator: k.initiator()})
	if err != nil {
		return err
	}
	if _, err := k.cfg.Log.Append(ctx, domain.HorizonStream, end, p); err != nil {
		return fmt.Errorf("append seal of segment %d: %w", seal.Segment, err)
	}
	return nil
}
