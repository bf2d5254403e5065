package domain

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

// cadfTime is how an activity record writes a time: UTC, hundredths of a second.
const cadfTime = "2006-01-02T15:04:05.00-0700"

// Extension is what an activity record says beyond CADF: where in the log it stands.
type Extension struct {
	Position  uint64
	Index     uint32 // Place in a usage batch.
	Stream    string
	Revision  uint64
	EventType string // Stored, versioned name.
}

type cadfEvent struct {
	TypeURI         string          `json:"typeURI"`
	EventType       string          `json:"eventType"`
	ID              string          `json:"id"`
	EventTime       string          `json:"eventTime"`
	Action          string          `json:"action"`
	Outcome         Outcome         `json:"outcome"`
	Reason          cadfReason      `json:"reason"`
	Severity        Severity        `json:"severity"`
	Initiator       cadfInitiator   `json:"initiator"`
	Target          cadfTarget      `json:"target"`
	Observer        cadfObserver    `json:"observer"`
	CorrelationID   string          `json:"correlationId,omitempty"`
	DataEvent       bool            `json:"dataEvent"`
	LogSourceCRN    string          `json:"logSourceCRN"`
	SaveServiceCopy bool            `json:"saveServiceCopy"`
	Message         string          `json:"message"`
	RequestData     json.RawMessage `json:"requestData,omitempty"`
	Keytrail        cadfExtension   `json:"keytrail"`
}

type cadfReason struct {
	Code   int    `json:"reasonCode,omitempty"`
	Type   string `json:"reasonType,omitempty"`
	Reason string `json:"reasonForFailure,omitempty"`
}

type cadfInitiator struct {
	ID         string         `json:"id"`
	Name       string         `json:"name,omitempty"`
	AuthnID    string         `json:"authnId,omitempty"`
	AuthnName  string         `json:"authnName,omitempty"`
	TypeURI    string         `json:"typeURI"`
	Credential cadfCredential `json:"credential"`
	Host       cadfHost       `json:"host"`
}

type cadfCredential struct {
	Type string `json:"type,omitempty"`
	ID   string `json:"id,omitempty"`
}

type cadfHost struct {
	Address     string `json:"address,omitempty"`
	AddressType string `json:"addressType,omitempty"`
	Agent       string `json:"agent,omitempty"`
}

type cadfTarget struct {
	ID              string   `json:"id"`
	Name            string   `json:"name,omitempty"`
	TypeURI         string   `json:"typeURI"`
	ResourceGroupID string   `json:"resourceGroupId,omitempty"`
	Host            cadfHost `json:"host"`
}

type cadfObserver struct {
	Name string `json:"name"`
}

type cadfExtension struct {
	Position  string `json:"position,omitempty"` // Decimal: JSON numbers lose digits beyond 2^53.
	Index     uint32 `json:"index,omitempty"`
	Stream    string `json:"stream,omitempty"`
	Revision  uint64 `json:"revision"`
	EventType string `json:"event_type,omitempty"`
	Account   string `json:"account_id,omitempty"`
	KeyID     string `json:"key_id,omitempty"`
	// EffectiveAt is eventTime without loss: to the millisecond.
	EffectiveAt time.Time `json:"effective_at"`
}

// MarshalCADF returns a as one CADF event (DMTF DSP0262) in JSON, with the fields of
// IBM's Activity Tracker and, under "keytrail", where in the log it stands.
func MarshalCADF(a Activity, ext Extension) ([]byte, error) {
	e := cadfEvent{
		TypeURI: "http://schemas.dmtf.org/cloud/audit/1.0/event", EventType: "activity",
		ID: a.ID, EventTime: a.EventTime.UTC().Format(cadfTime), Action: a.Action, Outcome: a.Outcome,
		Reason:   cadfReason{Code: a.ReasonCode, Type: reasonType(a.ReasonCode)},
		Severity: a.Severity, Initiator: cadfInitiatorOf(a.Initiator),
		Target:   cadfTarget{ID: a.TargetID, Name: a.TargetName, TypeURI: a.TargetType},
		Observer: cadfObserver{Name: "ActivityTracker"}, CorrelationID: a.CorrelationID, DataEvent: a.DataEvent,
		LogSourceCRN: crn(a.Account, "", ""), SaveServiceCopy: true, Message: a.Message, RequestData: a.RequestData,
		Keytrail: cadfExtension{
			Index: ext.Index, Stream: ext.Stream, Revision: ext.Revision, EventType: ext.EventType,
			Account: string(a.Account), KeyID: string(a.KeyID), EffectiveAt: a.EventTime.UTC(),
		},
	}
	if a.Outcome == OutcomeFailure {
		e.Reason.Reason = a.Reason
	}
	if ext.Position != 0 {
		e.Keytrail.Position = strconv.FormatUint(ext.Position, 10)
	}
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode activity %s: %w", a.ID, err)
	}
	return b, nil
}

func cadfInitiatorOf(i Initiator) cadfInitiator {
	return cadfInitiator{
		ID: string(i.IAMID), Name: i.Name, AuthnID: i.AuthnID, AuthnName: i.AuthnName,
		TypeURI:    "service/security/account/" + string(actorType(i)),
		Credential: cadfCredential{Type: i.Credential, ID: string(i.CredentialID)},
		Host:       cadfHost{Address: i.Address, AddressType: addressType(i.Address), Agent: i.Agent},
	}
}

// actorType returns the CADF type of an initiator; our own acts are a client's.
func actorType(i Initiator) ActorType {
	switch i.Type {
	case ActorServiceID, ActorClientID:
		return i.Type
	case ActorSystem:
		return ActorClientID
	case ActorUser:
	}
	return ActorUser
}

func addressType(s string) string {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return ""
	case a.Unmap().Is4():
		return "IPv4"
	}
	return "IPv6"
}

// reasonType returns the text of an HTTP status, as RFC 9110 has it.
func reasonType(status int) string {
	switch status {
	case 200:
		return "OK"
	case 201:
		return "Created"
	case 202:
		return "Accepted"
	case 204:
		return "No Content"
	case 206:
		return "Partial Content"
	case 301:
		return "Moved Permanently"
	case 302:
		return "Found"
	case 304:
		return "Not Modified"
	case 307:
		return "Temporary Redirect"
	}
	return refusalType(status)
}

func refusalType(status int) string {
	if status >= 500 {
		return failureType(status)
	}
	switch status {
	case 400:
		return "Bad Request"
	case 401:
		return "Unauthorized"
	case 403:
		return "Forbidden"
	case 404:
		return "Not Found"
	case 405:
		return "Method Not Allowed"
	case 408:
		return "Request Timeout"
	case 409:
		return "Conflict"
	case 410:
		return "Gone"
	case 412:
		return "Precondition Failed"
	case 413:
		return "Content Too Large"
	case 415:
		return "Unsupported Media Type"
	case 422:
		return "Unprocessable Content"
	case 424:
		return "Failed Dependency"
	case 429:
		return "Too Many Requests"
	}
	return ""
}

func failureType(status int) string {
	switch status {
	case 500:
		return "Internal Server Error"
	case 501:
		return "Not Implemented"
	case 502:
		return "Bad Gateway"
	case 503:
		return "Service Unavailable"
	case 504:
		return "Gateway Timeout"
	case 505:
		return "HTTP Version Not Supported"
	case 507:
		return "Insufficient Storage"
	}
	return ""
}
