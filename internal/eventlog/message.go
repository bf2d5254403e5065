package eventlog

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"example.com/keytrail/domain"
)

// MessageType is the stored type of what a [Publisher] publishes.
const MessageType = "watermill.message.v1"

// Metadata keys under which a message carries the event it was made from.
const (
	metaStream     = "kt_stream"
	metaRevision   = "kt_revision"
	metaPosition   = "kt_position"
	metaType       = "kt_type"
	metaJSON       = "kt_json"
	metaRecordedAt = "kt_recorded_at"
	metaMeta       = "kt_meta"
)

// messageOf returns the watermill message of a stored event: the event's id, its
// data, and the rest as metadata. A published message has its own metadata too.
func messageOf(r Raw) *message.Message {
	m := message.NewMessage(r.ID.String(), r.Data)
	if r.Type == MessageType {
		// What is no metadata of ours stays readable under metaMeta.
		var own map[string]string
		if json.Unmarshal(r.Meta, &own) == nil {
			maps.Copy(m.Metadata, own)
		}
	}
	m.Metadata[metaStream] = r.Stream
	m.Metadata[metaRevision] = strconv.FormatUint(r.Revision, 10)
	m.Metadata[metaPosition] = strconv.FormatUint(r.Position, 10)
	m.Metadata[metaType] = r.Type
	m.Metadata[metaJSON] = strconv.FormatBool(r.JSON)
	m.Metadata[metaRecordedAt] = r.RecordedAt.Format(time.RFC3339Nano)
	m.Metadata[metaMeta] = string(r.Meta)
	return m
}

// FromMessage returns the stored event that a message of a [Subscriber] was made
// from.
func FromMessage(m *message.Message) (Raw, error) {
	id, err := domain.ParseEventID(m.UUID)
	if err != nil {
		return Raw{}, fmt.Errorf("message: %w", err)
	}
	r := Raw{
		ID: id, Stream: m.Metadata[metaStream], Type: m.Metadata[metaType],
		Data: m.Payload, Meta: []byte(m.Metadata[metaMeta]),
	}
	if r.Revision, err = strconv.ParseUint(m.Metadata[metaRevision], 10, 64); err != nil {
		return Raw{}, fmt.Errorf("message %s: revision: %w", m.UUID, err)
	}
	if r.Position, err = strconv.ParseUint(m.Metadata[metaPosition], 10, 64); err != nil {
		return Raw{}, fmt.Errorf("message %s: position: %w", m.UUID, err)
	}
	if r.JSON, err = strconv.ParseBool(m.Metadata[metaJSON]); err != nil {
		return Raw{}, fmt.Errorf("message %s: kind: %w", m.UUID, err)
	}
	if r.RecordedAt, err = time.Parse(time.RFC3339Nano, m.Metadata[metaRecordedAt]); err != nil {
		return Raw{}, fmt.Errorf("message %s: time: %w", m.UUID, err)
	}
	return r, nil
}

// proposedOf returns the event that stores m.
func proposedOf(m *message.Message) (Proposed, error) {
	id, err := domain.ParseEventID(m.UUID)
	if err != nil {
		return Proposed{}, fmt.Errorf("publish: %w", err)
	}
	meta, err := json.Marshal(m.Metadata)
	if err != nil {
		return Proposed{}, fmt.Errorf("publish %s: metadata: %w", m.UUID, err)
	}
	return Proposed{ID: id, Type: MessageType, Data: m.Payload, Meta: meta}, nil
}
