package domain

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
)

// ErrUnknownType is returned by [DecodeEvent] for a stored name that this version
// does not know.
var ErrUnknownType = errors.New("unknown event type")

// usageMagic opens the bytes of a usage batch: four bytes, then a big-endian uint32
// with the length of the JSON header, the header, and the columns.
const usageMagic = "KTU1"

// EventTypes returns the stored name of every event that this version reads.
func EventTypes() []string {
	return []string{
		TypeAccountCreated, TypeMemberAdded, TypeRolesSet, TypeAccountSettings, TypeAccountLimits, TypeServiceIDCreated, TypeServiceIDUpdated, TypeServiceIDLocked, TypeServiceIDUnlocked, TypeServiceIDDeleted,
		TypeMemberUpdated, TypeMemberRemoved, TypeParentSet, TypeFunctionalSet, TypeMemberSettingsSet,
		TypeAccessSettings, TypeContactsSet, TypeContactsConfirmed, TypeGrantsSet,
		TypeKeyCreated, TypeKeyUpdated, TypeKeyLocked, TypeKeyUnlocked, TypeKeyDisabled, TypeKeyEnabled,
		TypeKeyDeleted, TypeKeyObserved, TypeKeyAbandoned, TypeKeyRotated, TypeKeyRotationAbandoned, TypeKeyValueRead,
		TypeKeySlotTaken, TypeKeySlotFreed, TypeKeySlotsAdopted, TypeKeyLimitNeared, TypeKeyLimitReached, TypeKeyValueReserved, TypeKeyValueReleased,
		TypeUsageRecorded, TypeCommandRefused, TypeAuditAccessed,
		TypeFindingOpened, TypeFindingExtended, TypeUsageSegmentSealed, TypeUsageRangeCut, TypeLegalHoldSet, TypeLegalHoldReleased,
		TypeReportRequested, TypeReportCompleted,
		TypeSessionCreated, TypeSessionRefreshed, TypeSessionRevoked,
	}
}

// EncodeEvent returns the stored bytes of e and whether they are JSON. Only usage
// batches are not. What looks like a key's value is struck out of JSON; uses are refused
// at intake if they hold one.
func EncodeEvent(e Event) (data []byte, isJSON bool, err error) {
	u, ok := e.(UsageRecorded)
	if !ok {
		data, err = json.Marshal(e)
		if err != nil {
			return nil, false, fmt.Errorf("encode %s: %w", e.Type(), err)
		}
		return redactKeyValues(data), true, nil
	}
	head, err := json.Marshal(u.Batch)
	if err != nil {
		return nil, false, fmt.Errorf("encode %s: %w", e.Type(), err)
	}
	data = make([]byte, 0, len(usageMagic)+4+len(head)+len(u.Batch.Columns))
	data = append(data, usageMagic...)
	data = binary.BigEndian.AppendUint32(data, uint32(len(head))) //nolint:gosec // A header is a few hundred bytes.
	data = append(data, head...)
	return append(data, u.Batch.Columns...), false, nil
}

// DecodeEvent returns the event that was stored under name typ. Bytes that are not
// exactly one event of that type are an error; fields that this version does not
// know are ignored, since a later version may have added them.
func DecodeEvent(typ string, data []byte) (Event, error) {
	switch typ {
	case TypeKeyCreated:
		return decode[KeyCreated](data)
	case TypeKeyUpdated:
		return decode[KeyUpdated](data)
	case TypeKeyLocked:
		return decode[KeyLocked](data)
	case TypeKeyUnlocked:
		return decode[KeyUnlocked](data)
	case TypeKeyDisabled:
		return decode[KeyDisabled](data)
	case TypeKeyEnabled:
		return decode[KeyEnabled](data)
	case TypeKeyDeleted:
		return decode[KeyDeleted](data)
	case TypeKeyObserved:
		return decode[KeyObserved](data)
	case TypeKeySlotTaken:
		return decode[KeySlotTaken](data)
	case TypeKeySlotFreed:
		return decode[KeySlotFreed](data)
	case TypeUsageRecorded:
		return decodeUsage(data)
	case TypeCommandRefused:
		return decode[CommandRefused](data)
	case TypeAuditAccessed:
		return decode[AuditAccessed](data)
	}
	return decodeRare(typ, data)
}

// decodeRare is DecodeEvent for what there is little of.
func decodeRare(typ string, data []byte) (Event, error) {
	for _, family := range []func(string, []byte) (Event, error){decodeAccount, decodeServiceID, decodeKeyEnd, decodeReservation, decodeFinding, decodeHorizon, decodeSession, decodeReport} {
		if e, err := family(typ, data); e != nil || err != nil {
			return e, err
		}
	}
	return nil, fmt.Errorf("%w: %q", ErrUnknownType, typ)
}

// decodeAccount returns nil for what is no [AccountEvent].
func decodeAccount(typ string, data []byte) (Event, error) {
	switch typ {
	case TypeAccountCreated:
		return decode[AccountCreated](data)
	case TypeMemberAdded:
		return decode[MemberAdded](data)
	case TypeRolesSet:
		return decode[RolesSet](data)
	case TypeAccountSettings:
		return decode[AccountSettingsSet](data)
	case TypeMemberUpdated:
		return decode[MemberUpdated](data)
	case TypeMemberRemoved:
		return decode[MemberRemoved](data)
	case TypeParentSet:
		return decode[ParentSet](data)
	case TypeFunctionalSet:
		return decode[FunctionalSet](data)
	case TypeMemberSettingsSet:
		return decode[MemberSettingsSet](data)
	case TypeAccountLimits:
		return decode[AccountLimitsSet](data)
	case TypeAccessSettings:
		return decode[AccessSettingsSet](data)
	case TypeContactsSet:
		return decode[SecurityContactsSet](data)
	case TypeContactsConfirmed:
		return decode[SecurityContactsConfirmed](data)
	case TypeGrantsSet:
		return decode[GrantsSet](data)
	}
	return nil, nil //nolint:nilnil // It is another family's.
}

// decodeKeyEnd returns nil for what is none of the rare events of a key.
func decodeKeyEnd(typ string, data []byte) (Event, error) {
	switch typ {
	case TypeKeyAbandoned:
		return decode[KeyCreationAbandoned](data)
	case TypeKeyRotated:
		return decode[KeyRotated](data)
	case TypeKeyRotationAbandoned:
		return decode[KeyRotationAbandoned](data)
	case TypeKeyValueRead:
		return decode[KeyValueRead](data)
	}
	return nil, nil //nolint:nilnil // It is another family's.
}

// decodeReservation returns nil for what is none of the rare ones of [ReservationEvent].
func decodeReservation(typ string, data []byte) (Event, error) {
	switch typ {
	case TypeKeySlotsAdopted:
		return decode[KeySlotsAdopted](data)
	case TypeKeyLimitNeared:
		return decode[KeyLimitNeared](data)
	case TypeKeyLimitReached:
		return decode[KeyLimitReached](data)
	case TypeKeyValueReserved:
		return decode[KeyValueReserved](data)
	case TypeKeyValueReleased:
		return decode[KeyValueReleased](data)
	}
	return nil, nil //nolint:nilnil // It is another family's.
}

// decodeServiceID returns nil for what is no [ServiceIDEvent].
func decodeServiceID(typ string, data []byte) (Event, error) {
	switch typ {
	case TypeServiceIDCreated:
		return decode[ServiceIDCreated](data)
	case TypeServiceIDUpdated:
		return decode[ServiceIDUpdated](data)
	case TypeServiceIDLocked:
		return decode[ServiceIDLocked](data)
	case TypeServiceIDUnlocked:
		return decode[ServiceIDUnlocked](data)
	case TypeServiceIDDeleted:
		return decode[ServiceIDDeleted](data)
	}
	return nil, nil //nolint:nilnil // It is another family's.
}

// decodeFinding returns nil for what is no [FindingEvent].
func decodeFinding(typ string, data []byte) (Event, error) {
	switch typ {
	case TypeFindingOpened:
		return decode[FindingOpened](data)
	case TypeFindingExtended:
		return decode[FindingExtended](data)
	}
	return nil, nil //nolint:nilnil // It is another family's.
}

// decodeHorizon returns nil for what is no [HorizonEvent].
func decodeHorizon(typ string, data []byte) (Event, error) {
	switch typ {
	case TypeUsageSegmentSealed:
		return decode[UsageSegmentSealed](data)
	case TypeUsageRangeCut:
		return decode[UsageRangeCut](data)
	case TypeLegalHoldSet:
		return decode[LegalHoldSet](data)
	case TypeLegalHoldReleased:
		return decode[LegalHoldReleased](data)
	}
	return nil, nil //nolint:nilnil // It is another family's.
}

// decodeReport returns nil for what is no [ReportEvent].
func decodeReport(typ string, data []byte) (Event, error) {
	switch typ {
	case TypeReportRequested:
		return decode[ReportRequested](data)
	case TypeReportCompleted:
		return decode[ReportCompleted](data)
	}
	return nil, nil //nolint:nilnil // It is another family's.
}

func decode[E Event](data []byte) (Event, error) {
	var e E
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, fmt.Errorf("decode %s: %w", e.Type(), err)
	}
	return e, nil
}

func decodeUsage(data []byte) (Event, error) {
	rest, ok := bytes.CutPrefix(data, []byte(usageMagic))
	if !ok || len(rest) < 4 {
		return nil, fmt.Errorf("decode %s: not a usage batch", TypeUsageRecorded)
	}
	n := uint64(binary.BigEndian.Uint32(rest))
	rest = rest[4:]
	if n > uint64(len(rest)) {
		return nil, fmt.Errorf("decode %s: header of %d bytes in %d", TypeUsageRecorded, n, len(rest))
	}
	var b UsageBatch
	if err := json.Unmarshal(rest[:n], &b); err != nil {
		return nil, fmt.Errorf("decode %s: header: %w", TypeUsageRecorded, err)
	}
	b.Columns = rest[n:]
	return UsageRecorded{Batch: b}, nil
}

// EncodeMetadata returns the stored bytes of m, always JSON, with what looks like a key's
// value struck out.
func EncodeMetadata(m Metadata) ([]byte, error) {
	m.Schema = MetadataSchema
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode metadata: %w", err)
	}
	return redactKeyValues(b), nil
}

// DecodeMetadata reads what [EncodeMetadata] wrote.
func DecodeMetadata(b []byte) (Metadata, error) {
	var m Metadata
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("decode metadata: %w", err)
	}
	if m.Schema != MetadataSchema {
		return m, fmt.Errorf("decode metadata: schema %d, this version reads %d", m.Schema, MetadataSchema)
	}
	return m, nil
}
