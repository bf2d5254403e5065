package filter

import (
	"encoding/json"
	"maps"
	"time"

	"example.com/keytrail/domain"
)

// An activity record comes from one of two tables: activity holds what the log's
// events say, usage holds uses, whose records are made on reading. The two maps below
// know the same names, so one filter goes to both; a field that a table lacks is a
// constant there. The expressions for uses repeat domain.ActivityOfUse; a test
// compares the two over random uses.

const (
	useOutcome = "multiIf(outcome != '', outcome, status >= 400 OR error_code != '', 'failure', 'success')"
	useAction  = "if(action = '', 'iam-identity.user-apikey.use', action)"
	useService = "(startsWith(iam_id, 'iam-ServiceId-'))"
	useTarget  = "multiIf(target != '', target, key_id != '', key_id, '')"
	useDenied  = "(position(error_code, 'AccessDenied') > 0 OR position(error_code, 'UnauthorizedOperation') > 0" +
		" OR position(error_code, 'Forbidden') > 0 OR position(error_code, 'Unauthorized') > 0)"

	crnHead    = "'crn:v1:" + domain.CName + ":public:iam-identity::', if(account_id = '', '', concat('a/', account_id))"
	actionPart = "splitByChar('.', "
)

// Activity returns the fields of a log event's record, in table activity. now is what
// relative times count from.
func Activity(now time.Time) FieldMap {
	fields := map[string]Field{
		"id":        {Kind: Text, Expr: "event_id"},
		"eventTime": {Kind: Time, Expr: "event_time"},
		"action":    {Kind: Text, Expr: "action"},
		"outcome":   {Kind: Text, Expr: "outcome"},
		"severity":  {Kind: Text, Expr: "severity"},
		"message":   {Kind: Text, Expr: "message"},

		"reason.reasonCode":       {Kind: Number, Expr: "reason_code"},
		"reason.reasonType":       {lazy: func() Field { return statusText("reason_code") }},
		"reason.reasonForFailure": {Kind: Text, Expr: "if(outcome = 'failure', reason, '')"},

		"initiator.id":        {Kind: Text, Expr: "initiator_id"},
		"initiator.name":      {Kind: Text, Expr: "initiator_name"},
		"initiator.authnId":   {Kind: Text, Expr: "initiator_authn_id"},
		"initiator.authnName": {Kind: Text, Expr: "initiator_authn_name"},
		"initiator.typeURI": {Kind: Text, Expr: "concat('service/security/account/'," +
			" multiIf(initiator_type IN ('serviceid', 'clientid'), initiator_type, initiator_type = 'system', 'clientid', 'user'))"},
		"initiator.credential.type": {Kind: Text, Expr: "credential_type"},
		"initiator.credential.id":   {Kind: Text, Expr: "credential_id"},
		"initiator.host.agent":      {Kind: Text, Expr: "user_agent"},

		"target.id":      {Kind: Text, Expr: "target_id"},
		"target.name":    {Kind: Text, Expr: "target_name"},
		"target.typeURI": {Kind: Text, Expr: "target_type"},

		"correlationId": {Kind: Text, Expr: "correlation_id"},
		"dataEvent":     {Kind: Bool, Expr: "false"},
		"requestData":   {Kind: JSON, Expr: "request_data"},

		"keytrail.stream":     {Kind: Text, Expr: "stream"},
		"keytrail.revision":   {Kind: Number, Expr: "revision"},
		"keytrail.event_type": {Kind: Text, Expr: "event_type"},

		"network": {Kind: Text, Expr: "''"},
		"country": {Kind: Text, Expr: "''"},
		"region":  {Kind: Text, Expr: "''"},
		"access":  {Kind: Text, Expr: "''"},
		"asn":     {Kind: Number, Expr: "0"},
		"labels":  {Kind: JSON, Expr: "''"},
		"reason":  {Kind: Text, Expr: "reason"},
	}
	fields["requestData.keyId"] = Field{Kind: Text, Expr: "key_id"}
	maps.Copy(fields, common("event_time"))
	addShortNames(fields)
	return FieldMap{
		Fields: fields, Now: now,
		Texts: []string{
			"event_id", "action", "message", "initiator_id", "initiator_name", "source", "user_agent", "target_id",
			"target_name", "key_id", "reason", "correlation_id", "request_data",
		},
	}
}

// Usage returns the fields of a use's record, in table usage. now is what relative
// times count from.
func Usage(now time.Time) FieldMap {
	const parts = actionPart + useAction + ")"
	fields := map[string]Field{
		"id":        {Kind: Text, Expr: "if(use_id = '', concat(toString(position), '-', toString(idx)), use_id)"},
		"eventTime": {Kind: Time, Expr: "time"},
		"action":    {Kind: Text, Expr: useAction},
		"outcome":   {Kind: Text, Expr: useOutcome},
		"severity": {Kind: Text, Expr: "multiIf(" + useOutcome + " = 'failure' AND " + useDenied + ", 'critical', " +
			useOutcome + " = 'failure' AND status = 0, 'warning', status IN (401, 403, 503, 507), 'critical'," +
			" status IN (400, 409, 424, 500, 502, 504, 505), 'warning', 'normal')"},
		"message": {Kind: Text, Expr: "concat(if(startsWith(" + useAction + ", 'iam-identity.')," +
			" concat('IAM Identity Service: ', " + parts + "[-1], ' ', " + parts + "[-2], if(" + useTarget + " = '', '', concat(' ', " + useTarget + ")))," +
			" concat('use of ', if(key_id = '', 'an unknown key', key_id), ': ', " + useAction + "))," +
			" if(" + useOutcome + " = 'failure', ' -failure', ''))"},

		"reason.reasonCode":       {Kind: Number, Expr: "status"},
		"reason.reasonType":       {lazy: func() Field { return statusText("status") }},
		"reason.reasonForFailure": {Kind: Text, Expr: "if(" + useOutcome + " = 'failure', error_code, '')"},

		"initiator.id":        {Kind: Text, Expr: "iam_id"},
		"initiator.name":      {Kind: Text, Expr: "''"},
		"initiator.authnId":   {Kind: Text, Expr: "''"},
		"initiator.authnName": {Kind: Text, Expr: "''"},
		"initiator.typeURI": {Kind: Text, Expr: "concat('service/security/account/', multiIf(" + useService +
			", 'serviceid', iam_id = 'system', 'clientid', 'user'))"},
		"initiator.credential.type": {Kind: Text, Expr: "if(" + useService + ", 'apikey-serviceid', 'apikey')"},
		"initiator.credential.id":   {Kind: Text, Expr: "key_id"},
		"initiator.host.agent":      {Kind: Text, Expr: "user_agent"},

		"target.id":   {Kind: Text, Expr: "multiIf(target != '', target, key_id != '', concat(" + crnHead + ", '::apikey:', key_id), '')"},
		"target.name": {Kind: Text, Expr: useTarget},
		"target.typeURI": {Kind: Text, Expr: "concat(" + parts + "[1], if(length(" + parts + ") < 3 OR " + parts + "[-2] = " + parts +
			"[1], '', concat('/', " + parts + "[-2])))"},

		"correlationId": {Kind: Text, Expr: "request_id"},
		"dataEvent":     {Kind: Bool, Expr: "true"},

		"keytrail.stream":     {Kind: Text, Expr: "''"},
		"keytrail.revision":   {Kind: Number, Expr: "0"},
		"keytrail.event_type": {Kind: Text, Expr: "'" + domain.TypeUsageRecorded + "'"},

		"network": {Kind: Text, Expr: "network"},
		"country": {Kind: Text, Expr: "country"},
		"region":  {Kind: Text, Expr: "region"},
		"access":  {Kind: Text, Expr: "access"},
		"asn":     {Kind: Number, Expr: "asn"},
		"labels":  {Kind: Map, Expr: "labels"},
		"reason":  {Kind: Text, Expr: "error_code"},
	}
	addRequestData(fields)
	maps.Copy(fields, common("time"))
	addShortNames(fields)
	return FieldMap{
		Fields: fields, Now: now,
		Texts: []string{"use_id", "action", "iam_id", "source", "user_agent", "target", "key_id", "error_code", "request_id", "region"},
	}
}

// addRequestData adds what a use's requestData holds, field by field: the object
// itself is not stored.
func addRequestData(fields map[string]Field) {
	fields["requestData"] = Field{Kind: JSON, Expr: "''", Whole: "concat(key_id, ' ', key_fingerprint, ' ', error_code, ' ', region, ' '," +
		" request_id, ' ', country, ' ', access, ' ', arrayStringConcat(mapKeys(labels), ' '), ' ', arrayStringConcat(mapValues(labels), ' '))"}
	for name, expr := range map[string]string{
		"key_id": "key_id", "keyId": "key_id", "key_fingerprint": "key_fingerprint", "error_code": "error_code", "region": "region",
		"request_id": "request_id", "country": "country", "access": "access",
	} {
		fields["requestData."+name] = Field{Kind: Text, Expr: expr}
	}
	for name, expr := range map[string]string{"latency_ms": "latency_ms", "bytes": "bytes", "asn": "asn", "index": "idx"} {
		fields["requestData."+name] = Field{Kind: Number, Expr: expr}
	}
	fields["requestData.labels"] = Field{Kind: Map, Expr: "labels"}
}

// common returns the fields that both tables have under one name, or that are the
// same constant for both.
func common(timeColumn string) map[string]Field {
	return map[string]Field{
		"typeURI":                    {Kind: Text, Expr: "'http://schemas.dmtf.org/cloud/audit/1.0/event'"},
		"eventType":                  {Kind: Text, Expr: "'activity'"},
		"observer.name":              {Kind: Text, Expr: "'ActivityTracker'"},
		"saveServiceCopy":            {Kind: Bool, Expr: "true"},
		"logSourceCRN":               {Kind: Text, Expr: "concat(" + crnHead + ", ':::')"},
		"target.resourceGroupId":     {Kind: Text, Expr: "''"},
		"target.host.address":        {Kind: Text, Expr: "''"},
		"initiator.host.address":     {Kind: Address, Expr: "address", TextExpr: "source"},
		"initiator.host.addressType": {Kind: Text, Expr: "multiIf(address = toIPv6('::'), '', startsWith(toString(address), '::ffff:'), 'IPv4', 'IPv6')"},
		"keytrail.position":          {Kind: Number, Expr: "position"},
		"keytrail.index":             {Kind: Number, Expr: "idx"},
		"keytrail.account_id":        {Kind: Text, Expr: "account_id"},
		"keytrail.key_id":            {Kind: Text, Expr: "key_id"},
		"keytrail.effective_at":      {Kind: Time, Expr: timeColumn},
		"recorded_at":                {Kind: Time, Expr: "recorded_at"},
	}
}

// addShortNames adds the names that people type.
func addShortNames(fields map[string]Field) {
	for short, long := range map[string]string{
		"key_id": "keytrail.key_id", "account_id": "keytrail.account_id", "iam_id": "initiator.id", "identity": "initiator.id",
		"address": "initiator.host.address", "agent": "initiator.host.agent", "time": "eventTime", "status": "reason.reasonCode",
		"target": "target.name", "position": "keytrail.position", "stream": "keytrail.stream", "event_type": "keytrail.event_type",
		"correlation_id": "correlationId", "credential": "initiator.credential.id",
	} {
		fields[short] = fields[long]
	}
}

// statusText is the text of the HTTP status in column, as a record shows it.
func statusText(column string) Field {
	var (
		codes []int
		texts []string
	)
	for code := 100; code < 600; code++ {
		var record struct {
			Reason struct{ ReasonType string }
		}
		text, err := domain.MarshalCADF(domain.Activity{ReasonCode: code}, domain.Extension{})
		if err != nil || json.Unmarshal(text, &record) != nil {
			panic("filter: an empty record has no JSON") // domain's own tests hold it to that.
		}
		if record.Reason.ReasonType != "" {
			codes, texts = append(codes, code), append(texts, record.Reason.ReasonType)
		}
	}
	return Field{Kind: Text, Expr: "transform(toInt64(" + column + "), ?, ?, '')", Args: []any{codes, texts}}
}
