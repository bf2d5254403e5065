package domain

import (
	"encoding/json"
	"fmt"
)

// requestData is the part of an activity record that says what was asked. IBM's field
// names where it has some.
type requestData struct {
	InstanceName     string          `json:"instance_name,omitempty"`
	PrevInstanceName string          `json:"prev_instance_name,omitempty"`
	ClientID         string          `json:"client_id,omitempty"`
	Lock             *bool           `json:"lock,omitempty"`
	Changes          []Change        `json:"changes,omitempty"`
	CompatAction     string          `json:"compatAction,omitempty"`
	KeyID            KeyID           `json:"key_id,omitempty"`
	KeyKind          KeyKind         `json:"key_kind,omitempty"`
	Fact             ObservedFact    `json:"fact,omitempty"`
	SourceEvent      string          `json:"source_event,omitempty"`
	Roles            []Role          `json:"roles,omitempty"`
	IAMID            IAMID           `json:"iam_id,omitempty"`
	Code             Code            `json:"code,omitempty"`
	Count            uint64          `json:"count,omitempty"`
	First            string          `json:"first,omitempty"`
	Last             string          `json:"last,omitempty"`
	Request          json.RawMessage `json:"request,omitempty"`
	Rule             string          `json:"rule_id,omitempty"`
	Level            FindingLevel    `json:"level,omitempty"`
	SHA256           string          `json:"sha256,omitempty"`
	Cause            string          `json:"cause,omitempty"`
	Complete         *bool           `json:"complete,omitempty"`
	Successor        KeyID           `json:"successor,omitempty"`
	Predecessor      KeyID           `json:"predecessor,omitempty"`
	EndsAt           string          `json:"ends_at,omitempty"`
}

// encode never fails on values that the codec has read; where it does all the same,
// the record says so and is kept.
func (d requestData) encode() json.RawMessage {
	b, err := json.Marshal(d)
	if err == nil {
		return b
	}
	d.Request = nil
	d.Code = Internal
	if b, err = json.Marshal(d); err != nil {
		return json.RawMessage(`{"code":"internal"}`)
	}
	return b
}

// ActivityOf returns the activity record of a recorded event. It is false only for
// usage batches, whose uses are records one by one (see [ActivityOfUse]), and for
// reservations, which say nothing that the events of their keys do not.
func ActivityOf(rec Recorded) (Activity, bool) {
	a := Activity{
		ID: rec.ID.String(), EventTime: rec.Meta.EffectiveAt, Initiator: rec.Meta.Initiator,
		CorrelationID: rec.Meta.CorrelationID, Outcome: OutcomeSuccess, ReasonCode: 200, Severity: SeverityNormal,
	}
	switch e := rec.Event.(type) {
	case KeyEvent:
		ofKey(&a, e)
	case AccountEvent:
		ofAccountEvent(&a, e)
	case ServiceIDEvent:
		ofServiceIDEvent(&a, e)
	case ReportEvent:
		ofReportEvent(&a, e)
	case SessionEvent:
		ofSessionEvent(&a, e)
	case CommandRefused:
		ofRefusal(&a, e)
	case AuditAccessed:
		ofAccess(&a, e)
	case FindingEvent:
		ofFindingEvent(&a, e)
	case HorizonEvent:
		ofHorizon(&a, e)
	case ReservationEvent:
		if !ofReservation(&a, e) {
			return Activity{}, false
		}
	case UsageRecorded:
		return Activity{}, false
	}
	a.TargetType = targetTypeOf(a.Action)
	a.Severity = worse(a.Severity, SeverityOf(a.Action, a.ReasonCode))
	a.Message = messageOf(a.Action, a.TargetName, a.Outcome)
	return a, true
}

func ofKey(a *Activity, key KeyEvent) {
	s := key.State()
	verb, status := VerbObserve, 200
	d := requestData{InstanceName: s.Name, KeyID: s.ID, KeyKind: s.Kind}
	switch e := key.(type) {
	case KeyCreated:
		verb, status = VerbCreate, 201
		d.ClientID = string(s.IAMID)
		d.Predecessor = s.Predecessor
		if s.Locked {
			d.Lock = &s.Locked
		}
	case KeyUpdated:
		verb = VerbUpdate
		d.Changes, d.PrevInstanceName = e.Changes, oldName(e.Changes)
	case KeyLocked:
		verb, status, d.Lock, d.Changes = VerbLock, 204, &s.Locked, flip("locked", s.Locked)
	case KeyUnlocked:
		verb, status, d.Lock, d.Changes = VerbUnlock, 204, &s.Locked, flip("locked", s.Locked)
	case KeyDisabled:
		verb, status, d.Changes = VerbDisable, 204, flip("disabled", s.Disabled)
	case KeyEnabled:
		verb, status, d.Changes = VerbEnable, 204, flip("disabled", s.Disabled)
	case KeyDeleted:
		verb, status = VerbDelete, 204
	case KeyCreationAbandoned:
		verb = VerbAbandon
	case KeyRotationAbandoned:
		verb, d.Successor = VerbAbandon, s.AbandonedSuccessor
	case KeyValueRead:
		verb = VerbReveal
	case KeyRotated:
		verb, status = VerbRotate, 201
		d.Successor, d.EndsAt = s.Successor, FormatExpiry(s.EndsAt)
	case KeyObserved:
		verb, d.Fact, d.SourceEvent = observedVerb(e.Fact), e.Fact, e.SourceEvent
	}
	a.Account, a.KeyID, a.ReasonCode = s.Account, s.ID, status
	a.Action = KeyAction(s.Kind, verb)
	a.TargetID, a.TargetName = KeyCRN(s.Account, s.ID), firstOf(s.Name, string(s.ID))
	d.CompatAction = compatAction(a.Action)
	a.RequestData = d.encode()
}

// oldName returns the name before changes, "" where they do not change it.
func oldName(changes []Change) string {
	for _, c := range changes {
		if c.Field == "name" {
			return c.Old
		}
	}
	return ""
}

func flip(field string, now bool) []Change {
	return []Change{{Field: field, Old: fmt.Sprint(!now), New: fmt.Sprint(now)}}
}

func observedVerb(f ObservedFact) Verb {
	switch f {
	case ObservedCreated, ObservedIssued:
		return VerbCreate
	case ObservedEnabled:
		return VerbEnable
	case ObservedDisabled:
		return VerbDisable
	case ObservedDeleted:
		return VerbDelete
	case ObservedUse:
		return VerbObserve
	}
	return VerbObserve
}

func ofServiceIDEvent(a *Activity, e ServiceIDEvent) {
	switch e := e.(type) {
	case ServiceIDCreated:
		d := requestData{}
		if e.Locked {
			d.Lock = &e.Locked
		}
		ofServiceID(a, VerbCreate, e.Account, serviceIDRef{e.ID, e.IAMID, e.Account, e.Name}, d)
		a.ReasonCode = 201
	case ServiceIDUpdated:
		d := requestData{Changes: e.Changes, PrevInstanceName: oldName(e.Changes)}
		ofServiceID(a, VerbUpdate, e.Account, serviceIDRef{e.ID, e.IAMID, e.Account, e.Name}, d)
	case ServiceIDLocked:
		locked := true
		ofServiceID(a, VerbLock, e.Account, serviceIDRef(e), requestData{Lock: &locked, Changes: flip("locked", true)})
		a.ReasonCode = 204
	case ServiceIDUnlocked:
		locked := false
		ofServiceID(a, VerbUnlock, e.Account, serviceIDRef(e), requestData{Lock: &locked, Changes: flip("locked", false)})
		a.ReasonCode = 204
	case ServiceIDDeleted:
		ofServiceID(a, VerbDelete, e.Account, serviceIDRef(e), requestData{})
		a.ReasonCode = 204
	}
}

func ofServiceID(a *Activity, verb Verb, account AccountID, s serviceIDRef, d requestData) {
	a.Action, a.Account, a.TargetName = ServiceIDAction(verb), account, s.Name
	a.TargetID = ServiceIDCRN(account, s.ID)
	d.InstanceName, d.IAMID, d.CompatAction = s.Name, s.IAMID, compatAction(a.Action)
	a.RequestData = d.encode()
}

// ofRefusal makes a record of a command that was not carried out. To change a locked
// thing is critical whatever the status says.
func ofRefusal(a *Activity, e CommandRefused) {
	a.Action, a.Outcome, a.ReasonCode, a.Reason = e.Action, OutcomeFailure, e.Status, e.Reason
	a.Account = e.Account
	if a.Account == "" {
		a.Account = a.Initiator.Account
	}
	a.TargetName = firstOf(e.TargetName, e.Target)
	d := requestData{
		InstanceName: e.TargetName, CompatAction: compatAction(e.Action), Code: e.Code, Request: e.Request,
	}
	switch {
	case isKeyKind(KeyKind(e.TargetKind)):
		a.KeyID = KeyID(e.Target)
		a.TargetID = KeyCRN(a.Account, a.KeyID)
		d.KeyID, d.KeyKind = a.KeyID, KeyKind(e.TargetKind)
	case e.Target != "":
		a.TargetID = crn(a.Account, objectOf(e.Action), e.Target)
	}
	if e.Count > 1 {
		d.Count = e.Count
		d.First, d.Last = e.First.UTC().Format(cadfTime), e.Last.UTC().Format(cadfTime)
	}
	if e.Locked {
		locked := true
		d.Lock = &locked
		a.Severity = SeverityCritical
	}
	if e.Code == Forbidden || e.Code == Unauthenticated {
		a.Severity = SeverityCritical
	}
	a.RequestData = d.encode()
}

func ofAccess(a *Activity, e AuditAccessed) {
	a.Action, a.Account = e.Action, e.Account
	a.TargetID, a.TargetName = crn(e.Account, "account", string(e.Account)), string(e.Account)
	d := requestData{Request: e.Request, Count: e.Count, SHA256: e.SHA256, Complete: &e.Complete}
	if e.Target != "" {
		a.KeyID, a.TargetName = KeyID(e.Target), firstOf(e.TargetName, e.Target)
		a.TargetID = KeyCRN(e.Account, a.KeyID)
		d.InstanceName, d.KeyID, d.KeyKind = e.TargetName, a.KeyID, e.TargetKind
	}
	a.RequestData = d.encode()
}

func ofFindingEvent(a *Activity, e FindingEvent) {
	switch e := e.(type) {
	case FindingOpened:
		ofFinding(a, ActionFindingOpen, e.After)
	case FindingExtended:
		ofFinding(a, ActionFindingExtend, e.After)
	}
}

func ofFinding(a *Activity, action string, f Finding) {
	a.Action, a.Account, a.KeyID = action, f.Account, f.KeyID
	a.TargetID, a.TargetName = crn(f.Account, "finding", f.ID.String()), f.Title
	a.Reason = f.Reason
	switch f.Level {
	case LevelCritical, LevelHigh:
		a.Severity = SeverityCritical
	case LevelMedium:
		a.Severity = SeverityWarning
	case LevelLow:
	}
	a.RequestData = requestData{KeyID: f.KeyID, Rule: f.Rule, Level: f.Level, Count: f.Count, IAMID: f.IAMID}.encode()
}
