package domain

import "encoding/json"

// horizonData is the part of a record about the horizon that says what was done.
type horizonData struct {
	Stream        string          `json:"stream,omitempty"`
	Segment       uint64          `json:"segment,omitempty"`
	FirstRevision *uint64         `json:"first_revision,omitempty"`
	LastRevision  *uint64         `json:"last_revision,omitempty"`
	Before        uint64          `json:"before,omitempty"`
	Events        uint64          `json:"events,omitempty"`
	Records       uint64          `json:"records,omitempty"`
	SHA256        string          `json:"sha256,omitempty"`
	Archive       *SegmentArchive `json:"archive,omitempty"`
	Hold          string          `json:"hold,omitempty"`
	HeldAccount   AccountID       `json:"account_id,omitempty"`
	Everything    bool            `json:"everything,omitempty"`
	Reason        string          `json:"reason,omitempty"`
}

func (d horizonData) encode() json.RawMessage {
	b, err := json.Marshal(d)
	if err != nil {
		panic(err) // Strings and numbers always marshal.
	}
	return b
}

func ofHorizon(a *Activity, e HorizonEvent) {
	switch e := e.(type) {
	case UsageSegmentSealed:
		ofSeal(a, e)
	case UsageRangeCut:
		a.Action, a.Account = ActionRangeCut, a.Initiator.Account
		a.TargetID, a.TargetName = crn(a.Account, "usage-stream", e.Stream), e.Stream
		a.RequestData = horizonData{Stream: e.Stream, Segment: e.Segment, Before: e.Before}.encode()
	case LegalHoldSet:
		ofHold(a, ActionHoldSet, e.Hold, e.Account, e.Reason)
		a.ReasonCode = 201
	case LegalHoldReleased:
		ofHold(a, ActionHoldRelease, e.Hold, e.Account, e.Reason)
	}
}

// ofSeal makes a record of a sealed segment. It belongs to the account of who sealed it:
// a stream holds many accounts' records.
func ofSeal(a *Activity, e UsageSegmentSealed) {
	a.Action, a.Account = ActionSegmentSeal, a.Initiator.Account
	a.TargetID, a.TargetName = crn(a.Account, "usage-stream", e.Stream), e.Stream
	a.RequestData = horizonData{
		Stream: e.Stream, Segment: e.Segment, FirstRevision: &e.FirstRevision, LastRevision: &e.LastRevision,
		Events: e.Events, Records: e.Records, SHA256: e.SHA256, Archive: e.Archive,
	}.encode()
}

// ofHold makes a record of a hold, for the account that it is about.
func ofHold(a *Activity, action, hold string, account AccountID, reason string) {
	a.Action, a.Account, a.Severity = action, account, SeverityWarning
	if account == "" {
		a.Account = a.Initiator.Account
	}
	a.TargetID, a.TargetName = crn(a.Account, "legal-hold", hold), hold
	a.RequestData = horizonData{Hold: hold, HeldAccount: account, Everything: account == "", Reason: reason}.encode()
}
