package eventlog

import (
	"fmt"

	"example.com/keytrail/domain"
)

// Propose encodes e and m as the bytes that Append stores.
func Propose(id domain.EventID, e domain.Event, m domain.Metadata) (Proposed, error) {
	data, isJSON, err := domain.EncodeEvent(e)
	if err != nil {
		return Proposed{}, fmt.Errorf("encode event %s: %w", e.Type(), err)
	}
	meta, err := domain.EncodeMetadata(m)
	if err != nil {
		return Proposed{}, fmt.Errorf("encode metadata of %s: %w", e.Type(), err)
	}
	return Proposed{ID: id, Type: e.Type(), JSON: isJSON, Data: data, Meta: meta}, nil
}

// Decode returns the fact that r holds. Its error names stream and revision, so
// that the event can be set aside.
func Decode(r Raw) (domain.Recorded, error) {
	e, err := domain.DecodeEvent(r.Type, r.Data)
	if err != nil {
		return domain.Recorded{}, fmt.Errorf("decode %s at %s@%d: %w", r.Type, r.Stream, r.Revision, err)
	}
	m, err := domain.DecodeMetadata(r.Meta)
	if err != nil {
		return domain.Recorded{}, fmt.Errorf("decode metadata of %s at %s@%d: %w", r.Type, r.Stream, r.Revision, err)
	}
	return domain.Recorded{
		Stream: r.Stream, Revision: r.Revision, Position: r.Position, ID: r.ID,
		Type: r.Type, RecordedAt: r.RecordedAt, Meta: m, Event: e,
	}, nil
}
