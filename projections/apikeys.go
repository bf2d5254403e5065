package projections

import (
	"encoding/binary"
	"time"

	"example.com/keytrail/domain"
)

const tableAPIKeys = "api_keys"

// apiKeyRows are the rows of table api_keys: one for each key event, of which the
// table keeps the newest by version.
type apiKeyRows struct {
	account, kind, iamID, createdBy            dict
	id, name, description, state               []string
	version, position, block                   []uint64
	recordedAt, effectiveAt, created, modified []int64
	locked, disabled, deleted                  []bool
	expiresAt                                  []*int64
}

// stateVersion orders the states of a key as the domain does, by effective time and
// then event id: milliseconds since 1970, shifted by 22 bits, and the first 22 bits
// of the id.
func stateVersion(effectiveAt time.Time, id domain.EventID) uint64 {
	return uint64(effectiveAt.UnixMilli())<<22 | uint64(binary.BigEndian.Uint32(id[:4])>>10)
}

func (r *apiKeyRows) append(f *fact, block uint64) int {
	if f.key == nil {
		return 0
	}
	s, rec := f.key, f.rec
	r.account.add(string(s.Account))
	r.id = append(r.id, string(s.ID))
	r.version = append(r.version, stateVersion(rec.Meta.EffectiveAt, rec.ID))
	r.position = append(r.position, rec.Position)
	r.block = append(r.block, block)
	r.recordedAt = append(r.recordedAt, rec.RecordedAt.UnixMilli())
	r.effectiveAt = append(r.effectiveAt, rec.Meta.EffectiveAt.UnixMilli())
	r.kind.add(string(s.Kind))
	r.iamID.add(string(s.IAMID))
	r.name = append(r.name, s.Name)
	r.description = append(r.description, s.Description)
	r.locked = append(r.locked, s.Locked)
	r.disabled = append(r.disabled, s.Disabled)
	r.deleted = append(r.deleted, s.Deleted)
	r.expiresAt = append(r.expiresAt, wideMSPointer(s.ExpiresAt))
	r.created = append(r.created, wideMS(s.CreatedAt))
	r.createdBy.add(string(s.CreatedBy))
	r.modified = append(r.modified, wideMS(s.ModifiedAt))
	r.state = append(r.state, f.text)
	return 19*16 + len(s.Name) + len(s.Description) + len(f.text)
}

func (r *apiKeyRows) rows() Rows {
	return Rows{Table: tableAPIKeys, Columns: []Column{
		{"account_id", r.account.values},
		{"id", r.id},
		{"version", r.version},
		{"position", r.position},
		{"block", r.block},
		{"recorded_at", r.recordedAt},
		{"effective_at", r.effectiveAt},
		{"kind", r.kind.values},
		{"iam_id", r.iamID.values},
		{"name", r.name},
		{"description", r.description},
		{"locked", r.locked},
		{"disabled", r.disabled},
		{"deleted", r.deleted},
		{"expires_at", r.expiresAt},
		{"created_at", r.created},
		{"created_by", r.createdBy.values},
		{"modified_at", r.modified},
		{"state", r.state},
	}}
}

func (r *apiKeyRows) reset() {
	for _, d := range []*dict{&r.account, &r.kind, &r.iamID, &r.createdBy} {
		d.reset()
	}
	for _, s := range []*[]string{&r.id, &r.name, &r.description, &r.state} {
		*s = truncated(*s)
	}
	r.expiresAt = truncated(r.expiresAt)
	r.version, r.position, r.block = r.version[:0], r.position[:0], r.block[:0]
	r.recordedAt, r.effectiveAt = r.recordedAt[:0], r.effectiveAt[:0]
	r.created, r.modified = r.created[:0], r.modified[:0]
	r.locked, r.disabled, r.deleted = r.locked[:0], r.disabled[:0], r.deleted[:0]
}
