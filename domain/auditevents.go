package domain

import (
	"encoding/json"
	"time"
)

// CommandRefused records commands that were not carried out. Equal refusals within
// a short time are folded into one event with a count.
type CommandRefused struct {
	// Action is the CADF action that was asked for, "iam-identity.user-apikey.update".
	Action  string    `json:"action"`
	Account AccountID `json:"account_id,omitempty"`
	// Target is the id of what the command was about (a key id, say) and TargetName
	// and TargetKind its name and kind at that moment, where they are known.
	Target     string `json:"target,omitempty"`
	TargetName string `json:"target_name,omitempty"`
	TargetKind string `json:"target_kind,omitempty"`
	Status     int    `json:"status"` // The HTTP status that was answered.
	Code       Code   `json:"code"`
	Reason     string `json:"reason"`
	// Locked marks a refusal because the target was locked.
	Locked bool `json:"locked,omitempty"`
	// Request is what was asked, without secrets.
	Request json.RawMessage `json:"request,omitempty"`
	Count   uint64          `json:"count"`
	First   time.Time       `json:"first"`
	Last    time.Time       `json:"last"`
}

// AuditAccessed records that audit data was exported or read, or that keys were.
type AuditAccessed struct {
	Action  string          `json:"action"` // "activity.export", "iam-identity.user-apikey.read" …
	Account AccountID       `json:"account_id,omitempty"`
	Request json.RawMessage `json:"request,omitempty"` // The filter, the range, the format.
	Count   uint64          `json:"count"`             // Records handed out.
	SHA256  string          `json:"sha256,omitempty"`  // Of the exported bytes.
	// Complete is false where the reader broke off.
	Complete bool `json:"complete"`
	// Target is the key that was read, with its name and kind then.
	Target     string  `json:"target,omitempty"`
	TargetName string  `json:"target_name,omitempty"`
	TargetKind KeyKind `json:"target_kind,omitempty"`
}

// Stored names of the audit events.
const (
	TypeCommandRefused = "command.refused.v1"
	TypeAuditAccessed  = "audit.accessed.v1"
)

// Type implements [Event].
func (CommandRefused) Type() string { return TypeCommandRefused }

// Type implements [Event].
func (AuditAccessed) Type() string { return TypeAuditAccessed }

func (CommandRefused) isEvent() {}
func (AuditAccessed) isEvent()  {}
