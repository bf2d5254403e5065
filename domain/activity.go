package domain

import (
	"encoding/json"
	"time"
)

// Severity is CADF/IBM's severity of an activity record.
type Severity string

// The severities.
const (
	SeverityNormal   Severity = "normal"
	SeverityWarning  Severity = "warning"
	SeverityCritical Severity = "critical"
)

// Activity is one activity record: a CADF event with the fields of IBM's Activity
// Tracker (events.md). Every evidence event but a usage batch is one; every use is one.
type Activity struct {
	ID        string // Event id, or the use's id.
	EventTime time.Time
	Account   AccountID
	Action    string
	Outcome   Outcome
	// ReasonCode is the HTTP status; Reason says why, on failures.
	ReasonCode int
	Reason     string
	Severity   Severity
	Initiator  Initiator
	// TargetID is a CRN; TargetType such as "iam-identity/user-apikey".
	TargetID, TargetName, TargetType string
	KeyID                            KeyID // The key that it is about, if any.
	CorrelationID                    string
	DataEvent                        bool // true: a use of a key.
	Message                          string
	// RequestData is a JSON object: what was asked, old and new values.
	RequestData json.RawMessage
}
