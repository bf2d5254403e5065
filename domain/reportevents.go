package domain

import "time"

// ReportEvent is a fact about the reports of one account.
//
//sumtype:decl
type ReportEvent interface {
	Event
	isReportEvent()
}

// ReportRequested records that somebody asked who did not sign in between From and Until.
// The report holds what the log held up to this event, and nothing after it.
type ReportRequested struct {
	Account   AccountID `json:"account_id"`
	Reference string    `json:"reference"`
	Kind      string    `json:"type"` // [ReportInactive].
	Hours     uint64    `json:"duration_hours"`
	From      time.Time `json:"from"`
	Until     time.Time `json:"until"`
}

// ReportCompleted records a part of a report; the last one ends it. One part is enough for
// a few thousand entries.
type ReportCompleted struct {
	Account   AccountID `json:"account_id"`
	Reference string    `json:"reference"`
	Part      uint64    `json:"part"` // From 1.
	Parts     uint64    `json:"parts"`
	ReportContent
}

// ReportContent are the identities and keys that did not sign in.
type ReportContent struct {
	Users      []InactiveUser      `json:"users,omitempty"`
	ServiceIDs []InactiveServiceID `json:"serviceids,omitempty"`
	Keys       []InactiveKey       `json:"apikeys,omitempty"`
}

// InactiveUser is a user without a sign-in; LastAuthn is nil if there never was one.
type InactiveUser struct {
	IAMID     IAMID      `json:"iam_id"`
	Name      string     `json:"name,omitempty"`
	LastAuthn *time.Time `json:"last_authn,omitempty"`
}

// InactiveServiceID is a service ID without a sign-in.
type InactiveServiceID struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	LastAuthn *time.Time `json:"last_authn,omitempty"`
}

// InactiveKey is a key without a sign-in. Of an external key every successful use counts:
// keytrail sees no sign-in with it.
type InactiveKey struct {
	ID        KeyID      `json:"id"`
	Name      string     `json:"name"`
	Kind      KeyKind    `json:"kind"`
	IAMID     IAMID      `json:"iam_id,omitempty"`
	OwnerName string     `json:"owner_name,omitempty"`
	LastAuthn *time.Time `json:"last_authn,omitempty"`
}

// Stored names of the events of reports.
const (
	TypeReportRequested = "report.requested.v1"
	TypeReportCompleted = "report.completed.v1"
)

// Type implements [Event].
func (ReportRequested) Type() string { return TypeReportRequested }

// Type implements [Event].
func (ReportCompleted) Type() string { return TypeReportCompleted }

func (ReportRequested) isEvent() {}
func (ReportCompleted) isEvent() {}

func (ReportRequested) isReportEvent() {}
func (ReportCompleted) isReportEvent() {}
