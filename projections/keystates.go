package projections

import "example.com/keytrail/domain"

const tableKeyStates = "key_states"

// keyStateRows are the rows of table key_states: one for each key event.
type keyStateRows struct {
	account, eventType, kind, iamID dict
	keyID, eventID, name, state     []string
	effectiveAt, recordedAt         []int64
	position, block                 []uint64
	locked, disabled, deleted       []bool
	expiresAt                       []*int64
	// made says that the key was made here by the event: it has no earlier state. It is no
	// column.
	made []bool
}

func (r *keyStateRows) append(f *fact, block uint64) int {
	if f.key == nil {
		return 0
	}
	s, rec := f.key, f.rec
	r.account.add(string(s.Account))
	r.keyID = append(r.keyID, string(s.ID))
	r.effectiveAt = append(r.effectiveAt, rec.Meta.EffectiveAt.UnixMilli())
	r.eventID = append(r.eventID, rec.ID.String())
	r.position = append(r.position, rec.Position)
	r.block = append(r.block, block)
	r.recordedAt = append(r.recordedAt, rec.RecordedAt.UnixMilli())
	r.eventType.add(rec.Type)
	r.kind.add(string(s.Kind))
	r.iamID.add(string(s.IAMID))
	r.name = append(r.name, s.Name)
	r.locked = append(r.locked, s.Locked)
	r.disabled = append(r.disabled, s.Disabled)
	r.deleted = append(r.deleted, s.Deleted)
	r.expiresAt = append(r.expiresAt, wideMSPointer(s.ExpiresAt))
	r.state = append(r.state, f.text)
	r.made = append(r.made, rec.Revision == 0 && s.Kind != domain.KindExternal)
	return 16*16 + len(s.Name) + len(f.text)
}

func (r *keyStateRows) rows() Rows {
	return Rows{Table: tableKeyStates, Columns: []Column{
		{"account_id", r.account.values},
		{"key_id", r.keyID},
		{"effective_at", r.effectiveAt},
		{"event_id", r.eventID},
		{"position", r.position},
		{"block", r.block},
		{"recorded_at", r.recordedAt},
		{"event_type", r.eventType.values},
		{"kind", r.kind.values},
		{"iam_id", r.iamID.values},
		{"name", r.name},
		{"locked", r.locked},
		{"disabled", r.disabled},
		{"deleted", r.deleted},
		{"expires_at", r.expiresAt},
		{"state", r.state},
	}}
}

func (r *keyStateRows) reset() {
	for _, d := range []*dict{&r.account, &r.eventType, &r.kind, &r.iamID} {
		d.reset()
	}
	for _, s := range []*[]string{&r.keyID, &r.eventID, &r.name, &r.state} {
		*s = truncated(*s)
	}
	r.expiresAt = truncated(r.expiresAt)
	r.effectiveAt, r.recordedAt = r.effectiveAt[:0], r.recordedAt[:0]
	r.position, r.block = r.position[:0], r.block[:0]
	r.locked, r.disabled, r.deleted = r.locked[:0], r.disabled[:0], r.deleted[:0]
	r.made = r.made[:0]
}
