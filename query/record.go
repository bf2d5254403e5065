package query

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
)

// The two tables that hold activity records, and the name of each one's event time.
const (
	tableActivity = "activity"
	tableUsage    = "usage"
)

// place is where a record stands in the order of all records: event time, position,
// place in its event.
type place struct {
	time     time.Time // To the millisecond.
	position uint64
	index    uint32
}

func (p place) compare(q place) int {
	return cmp.Or(p.time.Compare(q.time), cmp.Compare(p.position, q.position), cmp.Compare(p.index, q.index))
}

// record is one activity record, from whichever table.
type record struct {
	place
	activity domain.Activity
	ext      domain.Extension
}

// cadf returns r as JSON.
func (r record) cadf() (CADF, error) {
	b, err := domain.MarshalCADF(r.activity, r.ext)
	if err != nil {
		return nil, fmt.Errorf("record %s: %w", r.activity.ID, err)
	}
	return b, nil
}

// CADF is an activity record in JSON, as [domain.MarshalCADF] writes it.
type CADF []byte

// MarshalJSON implements [json.Marshaler].
func (c CADF) MarshalJSON() ([]byte, error) { return c, nil }

// UnmarshalJSON implements [json.Unmarshaler].
func (c *CADF) UnmarshalJSON(b []byte) error {
	*c = append((*c)[:0], b...)
	return nil
}

// JSONSchemaBytes describes the record where the API is described.
func (CADF) JSONSchemaBytes() ([]byte, error) {
	return []byte(`{"type":"object","description":"A CADF event (DMTF DSP0262) with the fields of IBM's Activity Tracker.","additionalProperties":true,` +
		`"required":["id","eventTime","action","outcome","severity"],"properties":{"id":{"type":"string"},"eventTime":{"type":"string"},` +
		`"action":{"type":"string"},"outcome":{"type":"string","enum":["success","failure","pending"]},` +
		`"severity":{"type":"string","enum":["normal","warning","critical"]},"message":{"type":"string"},"dataEvent":{"type":"boolean"},` +
		`"reason":{"type":"object"},"initiator":{"type":"object"},"target":{"type":"object"},"requestData":{"type":"object"},"keytrail":{"type":"object"}}}`), nil
}

var (
	_ json.Marshaler   = CADF(nil)
	_ json.Unmarshaler = (*CADF)(nil)
)

// activityColumns are what scanActivity reads, in its order.
func activityColumns() []string {
	return strings.Fields("event_time position idx account_id event_id stream revision event_type action outcome reason_code" +
		" reason severity initiator_id initiator_name initiator_authn_id initiator_authn_name initiator_type initiator_account" +
		" credential_type credential_id source user_agent target_id target_name target_type key_id correlation_id message request_data")
}

func scanActivity(rows clickhouse.Rows) (record, error) {
	var (
		r                                 record
		account, outcome, severity        string
		iam, actor, actorAccount          string
		credentialID, keyID, data, stream string
		code                              uint16
	)
	a, i := &r.activity, &r.activity.Initiator
	err := rows.Scan(&r.time, &r.position, &r.index, &account, &a.ID, &stream, &r.ext.Revision, &r.ext.EventType, &a.Action, &outcome, &code,
		&a.Reason, &severity, &iam, &i.Name, &i.AuthnID, &i.AuthnName, &actor, &actorAccount,
		&i.Credential, &credentialID, &i.Address, &i.Agent, &a.TargetID, &a.TargetName, &a.TargetType, &keyID, &a.CorrelationID, &a.Message, &data)
	if err != nil {
		return r, fmt.Errorf("read activity: %w", err)
	}
	a.EventTime, a.Account, a.KeyID = r.time, domain.AccountID(account), domain.KeyID(keyID)
	a.Outcome, a.Severity, a.ReasonCode = domain.Outcome(outcome), domain.Severity(severity), int(code)
	i.IAMID, i.Type, i.Account, i.CredentialID = domain.IAMID(iam), domain.ActorType(actor), domain.AccountID(actorAccount), domain.KeyID(credentialID)
	if data != "" {
		a.RequestData = json.RawMessage(data)
	}
	r.ext.Position, r.ext.Index, r.ext.Stream = r.position, r.index, stream
	return r, nil
}

// usageColumns are what scanUse reads, in its order.
func usageColumns() []string {
	return strings.Fields("time position idx account_id key_id use_id iam_id action access outcome status error_code source" +
		" user_agent region target request_id latency_ms bytes country asn key_fingerprint labels")
}

func scanUse(rows clickhouse.Rows) (record, error) {
	var (
		r                                  record
		u                                  domain.Use
		account, key, iam, access, outcome string
		status                             uint16
	)
	err := rows.Scan(&r.time, &r.position, &r.index, &account, &key, &u.ID, &iam, &u.Action, &access, &outcome, &status, &u.ErrorCode, &u.Source,
		&u.UserAgent, &u.Region, &u.Target, &u.RequestID, &u.LatencyMS, &u.Bytes, &u.Country, &u.ASN, &u.KeyFingerprint, &u.Labels)
	if err != nil {
		return r, fmt.Errorf("read use: %w", err)
	}
	u.Time, u.Account, u.KeyID, u.IAMID = r.time, domain.AccountID(account), domain.KeyID(key), domain.IAMID(iam)
	u.Access, u.Outcome, u.Status = domain.Access(access), domain.Outcome(outcome), int(status)
	r.activity = domain.ActivityOfUse(u, r.position, r.index)
	r.ext = domain.Extension{Position: r.position, Index: r.index, EventType: domain.TypeUsageRecorded}
	return r, nil
}
