package horizon

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

// holdsPage is how many events of the holds' stream are read at a time.
const holdsPage = 512

// ReadHolds folds the stream of legal holds and returns where it ends.
func ReadHolds(ctx context.Context, log interface {
	ReadStream(ctx context.Context, stream string, from uint64, limit int) ([]eventlog.Raw, error)
},
) (domain.LegalHolds, eventlog.Expected, error) {
	var history []domain.Recorded
	end := eventlog.NoStream()
	for {
		page, err := log.ReadStream(ctx, domain.LegalHoldStream, end.Next(), holdsPage)
		if err != nil {
			return domain.LegalHolds{}, end, fmt.Errorf("read legal holds: %w", err)
		}
		for _, raw := range page {
			if raw.Revision != end.Next() {
				return domain.LegalHolds{}, end, fmt.Errorf("read legal holds: revision %d is due, the log gives %d", end.Next(), raw.Revision)
			}
			rec, err := eventlog.Decode(raw)
			if err != nil {
				return domain.LegalHolds{}, end, fmt.Errorf("read legal holds: %w", err)
			}
			history = append(history, rec)
			end = eventlog.Exactly(raw.Revision)
		}
		if len(page) < holdsPage {
			return domain.FoldLegalHolds(history), end, nil
		}
	}
}

// cut cuts stream behind the newest segment that may go, and returns how many segments
// went and why the next one stays. The decision is an event in the stream of the holds, at
// the exact revision at which no hold forbade it: of a cut and a hold one comes first, and
// a hold that comes first is seen. Only then is the stream cut. A decision that nobody came
// to carry out is looked at again: a hold that was set since wins.
func (k *Keeper) cut(ctx context.Context, stream string, class Class, below uint64, guard string) (uint64, string, error) {
	for range triesMax {
		holds, end, err := ReadHolds(ctx, k.cfg.Log)
		if err != nil {
			return 0, "", err
		}
		at, err := k.cfg.Log.TruncateBefore(ctx, stream)
		if err != nil {
			return 0, "", err
		}
		cut, n, why, err := k.behind(holds, stream, class, at, below, guard)
		if err != nil || n == 0 {
			return 0, why, err
		}
		if cut.Before > holds.Cut(stream).Before {
			err := k.decide(ctx, holds, end, cut)
			if _, raced := errors.AsType[*eventlog.WrongRevision](err); raced {
				continue
			}
			if err != nil {
				return 0, why, err
			}
		}
		if err := k.cfg.Log.SetTruncateBefore(ctx, stream, cut.Before); err != nil {
			return 0, why, err
		}
		return n, why, nil
	}
	return 0, "", errors.New("legal holds change too fast, going on later")
}

// behind returns the cut behind the newest segment of stream that may go, where the stream
// is cut before revision at; the number of segments that go; and why the next one stays.
func (k *Keeper) behind(holds domain.LegalHolds, stream string, class Class, at, below uint64, guard string) (cut domain.UsageRangeCut, n uint64, why string, err error) {
	for _, seal := range k.cfg.Seals.Of(stream) {
		if seal.LastRevision < at {
			continue
		}
		if why = k.stays(holds, seal, class, below, guard); why != "" {
			return cut, n, why, nil
		}
		if seal.Archive != nil {
			// The file is read again, to its end: it is all that will be left.
			if err := class.Archive.Check(seal); err != nil {
				return cut, 0, "its archive cannot be read", err
			}
		}
		cut = domain.UsageRangeCut{Stream: stream, Segment: seal.Segment, Before: seal.LastRevision + 1}
		n++
	}
	return cut, n, "", nil
}

// stays says why a sealed segment must not be cut, "" if it may.
func (k *Keeper) stays(holds domain.LegalHolds, seal domain.UsageSegmentSealed, class Class, below uint64, guard string) string {
	if hold, held := holds.Holding(seal); held {
		return "legal hold " + hold.ID
	}
	switch {
	case k.cfg.Now().Sub(seal.LastRecordedAt) < class.Horizon:
		return "younger than the horizon"
	case seal.LastPosition >= below:
		return guard
	case seal.Archive == nil && class.Archive != nil:
		return "it was sealed without an archive, which its class keeps now"
	case seal.Archive != nil && class.Archive == nil:
		return "it was archived, and its class names no archive now: the file cannot be checked"
	}
	return ""
}

// decide records the cut.
func (k *Keeper) decide(ctx context.Context, holds domain.LegalHolds, end eventlog.Expected, cut domain.UsageRangeCut) error {
	id := domain.DeriveID("usage-cut", cut.Stream, strconv.FormatUint(cut.Before, 10))
	p, err := eventlog.Propose(id, cut, domain.Metadata{EffectiveAt: holds.NextEffective(k.cfg.Now()), Initiator: k.initiator()})
	if err != nil {
		return err
	}
	if _, err := k.cfg.Log.Append(ctx, domain.LegalHoldStream, end, p); err != nil {
		return fmt.Errorf("record the cut before %d: %w", cut.Before, err)
	}
	return nil
}
