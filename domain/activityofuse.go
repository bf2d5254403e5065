package domain

import (
	"encoding/json"
	"fmt"
	"strings"
)

// useData is the part of a use's record that the source told.
type useData struct {
	KeyID          KeyID             `json:"key_id,omitempty"`
	KeyFingerprint string            `json:"key_fingerprint,omitempty"`
	ErrorCode      string            `json:"error_code,omitempty"`
	Region         string            `json:"region,omitempty"`
	RequestID      string            `json:"request_id,omitempty"`
	LatencyMS      uint32            `json:"latency_ms,omitempty"`
	Bytes          uint64            `json:"bytes,omitempty"`
	Country        string            `json:"country,omitempty"`
	ASN            uint32            `json:"asn,omitempty"`
	Access         Access            `json:"access,omitempty"`
	Labels         map[string]string `json:"labels,omitempty"`
	Decision       string            `json:"decision,omitempty"`
	IsEnforced     *bool             `json:"isEnforced,omitempty"`
	Index          uint32            `json:"index"`
}

// ActivityOfUse returns the activity record of one use: the one at index of the batch
// at position. A use that its source gave no id is named by those two.
func ActivityOfUse(u Use, position uint64, index uint32) Activity {
	a := Activity{
		ID: u.ID, EventTime: u.Time, Account: u.Account, Action: u.Action,
		Outcome: u.Outcome, ReasonCode: u.Status, Reason: u.ErrorCode, KeyID: u.KeyID,
		CorrelationID: u.RequestID, DataEvent: true,
		Initiator: Initiator{
			IAMID: u.IAMID, Type: actorOf(u.IAMID), Account: u.Account, Credential: credentialOf(u.IAMID), CredentialID: u.KeyID,
			Address: u.Source, Agent: u.UserAgent,
		},
	}
	if a.ID == "" {
		a.ID = fmt.Sprintf("%d-%d", position, index)
	}
	if a.Action == "" {
		a.Action = "iam-identity.user-apikey.use"
	}
	if a.Outcome == "" {
		a.Outcome = OutcomeSuccess
		if u.Status >= 400 || u.ErrorCode != "" {
			a.Outcome = OutcomeFailure
		}
	}
	switch {
	case u.Target != "":
		a.TargetID, a.TargetName = u.Target, u.Target
	case u.KeyID != "":
		a.TargetID, a.TargetName = KeyCRN(u.Account, u.KeyID), string(u.KeyID)
	}
	a.TargetType = targetTypeOf(a.Action)
	a.Severity = severityOfUse(a, u)
	a.Message = messageOfUse(a)
	d := useData{
		KeyID: u.KeyID, KeyFingerprint: u.KeyFingerprint, ErrorCode: u.ErrorCode, Region: u.Region, RequestID: u.RequestID,
		LatencyMS: u.LatencyMS, Bytes: u.Bytes, Country: u.Country, ASN: u.ASN, Access: u.Access, Labels: u.Labels, Index: index,
	}
	if u.Action == ActionAccessEval {
		enforced := u.Labels[LabelEnforced] == "true"
		d.Decision, d.IsEnforced = u.Labels[LabelDecision], &enforced
	}
	b, err := json.Marshal(d)
	if err != nil {
		panic(err) // Strings, numbers and a map of strings always marshal.
	}
	a.RequestData = b
	return a
}

// severityOfUse goes by the status, or, where the source gave none, by whether the use
// was refused for lack of rights. What the use did elsewhere is not ours to grade.
func severityOfUse(a Activity, u Use) Severity {
	switch {
	case a.Outcome == OutcomeFailure && deniedCode(u.ErrorCode):
		return SeverityCritical
	case a.Outcome == OutcomeFailure && u.Status == 0:
		return SeverityWarning
	}
	return severityOfStatus(u.Status)
}

// deniedCode reports whether a source's error code says that a right was missing.
func deniedCode(code string) bool {
	for _, s := range []string{"AccessDenied", "UnauthorizedOperation", "Forbidden", "Unauthorized"} {
		if strings.Contains(code, s) {
			return true
		}
	}
	return false
}

func messageOfUse(a Activity) string {
	if strings.HasPrefix(a.Action, "iam-identity.") {
		return messageOf(a.Action, a.TargetName, a.Outcome)
	}
	m := "use of " + firstOf(string(a.KeyID), "an unknown key") + ": " + a.Action
	if a.Outcome == OutcomeFailure {
		m += " -failure"
	}
	return m
}

func actorOf(id IAMID) ActorType {
	if id == SystemIAMID {
		return ActorSystem
	}
	if _, ok := ServiceIDOf(id); ok {
		return ActorServiceID
	}
	return ActorUser
}

func credentialOf(id IAMID) string {
	if _, ok := ServiceIDOf(id); ok {
		return "apikey-serviceid"
	}
	return "apikey"
}
