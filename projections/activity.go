package projections

import "net/netip"

const tableActivity = "activity"

// activityRows are the rows of table activity: one for each event that is an
// activity record.
type activityRows struct {
	account, eventType, action, outcome, severity          dict
	initiatorID, initiatorName, authnID, authnName         dict
	initiatorType, initiatorAccount, credential, source    dict
	userAgent, targetType                                  dict
	eventID, stream, reason, credentialID, targetID        []string
	targetName, keyID, correlationID, message, requestData []string
	eventTime, recordedAt                                  []int64
	position, block, revision                              []uint64
	idx                                                    []uint32
	reasonCode                                             []uint16
	address                                                []netip.Addr
}

// activityRowBytes is what a row takes beside its texts.
const activityRowBytes = 33 * 16

func (r *activityRows) append(f *fact, block uint64) int {
	if !f.hasActivity {
		return 0
	}
	a, rec := f.activity, f.rec
	r.account.add(string(a.Account))
	r.eventTime = append(r.eventTime, a.EventTime.UnixMilli())
	r.position = append(r.position, rec.Position)
	r.idx = append(r.idx, 0)
	r.block = append(r.block, block)
	r.recordedAt = append(r.recordedAt, rec.RecordedAt.UnixMilli())
	r.eventID = append(r.eventID, rec.ID.String())
	r.stream = append(r.stream, rec.Stream)
	r.revision = append(r.revision, rec.Revision)
	r.eventType.add(rec.Type)
	r.action.add(a.Action)
	r.outcome.add(string(a.Outcome))
	r.reasonCode = append(r.reasonCode, uint16(a.ReasonCode)) //nolint:gosec // checkActivity checked it.
	r.reason = append(r.reason, a.Reason)
	r.severity.add(string(a.Severity))
	r.appendInitiator(f)
	r.targetID = append(r.targetID, a.TargetID)
	r.targetName = append(r.targetName, a.TargetName)
	r.targetType.add(a.TargetType)
	r.keyID = append(r.keyID, string(a.KeyID))
	r.correlationID = append(r.correlationID, a.CorrelationID)
	r.message = append(r.message, a.Message)
	r.requestData = append(r.requestData, string(a.RequestData))
	return activityRowBytes + len(rec.Stream) + len(a.Reason) + len(a.TargetID) + len(a.TargetName) +
		len(a.Message) + len(a.RequestData)
}

func (r *activityRows) appendInitiator(f *fact) {
	i := f.activity.Initiator
	r.initiatorID.add(string(i.IAMID))
	r.initiatorName.add(i.Name)
	r.authnID.add(i.AuthnID)
	r.authnName.add(i.AuthnName)
	r.initiatorType.add(string(i.Type))
	r.initiatorAccount.add(string(i.Account))
	r.credential.add(i.Credential)
	r.credentialID = append(r.credentialID, string(i.CredentialID))
	r.source.add(i.Address)
	r.address = append(r.address, address(i.Address))
	r.userAgent.add(i.Agent)
}

func (r *activityRows) rows() Rows {
	return Rows{Table: tableActivity, Columns: []Column{
		{"account_id", r.account.values},
		{"event_time", r.eventTime},
		{"position", r.position},
		{"idx", r.idx},
		{"block", r.block},
		{"recorded_at", r.recordedAt},
		{"event_id", r.eventID},
		{"stream", r.stream},
		{"revision", r.revision},
		{"event_type", r.eventType.values},
		{"action", r.action.values},
		{"outcome", r.outcome.values},
		{"reason_code", r.reasonCode},
		{"reason", r.reason},
		{"severity", r.severity.values},
		{"initiator_id", r.initiatorID.values},
		{"initiator_name", r.initiatorName.values},
		{"initiator_authn_id", r.authnID.values},
		{"initiator_authn_name", r.authnName.values},
		{"initiator_type", r.initiatorType.values},
		{"initiator_account", r.initiatorAccount.values},
		{"credential_type", r.credential.values},
		{"credential_id", r.credentialID},
		{"source", r.source.values},
		{"address", r.address},
		{"user_agent", r.userAgent.values},
		{"target_id", r.targetID},
		{"target_name", r.targetName},
		{"target_type", r.targetType.values},
		{"key_id", r.keyID},
		{"correlation_id", r.correlationID},
		{"message", r.message},
		{"request_data", r.requestData},
	}}
}

func (r *activityRows) reset() {
	for _, d := range []*dict{
		&r.account, &r.eventType, &r.action, &r.outcome, &r.severity, &r.initiatorID, &r.initiatorName,
		&r.authnID, &r.authnName, &r.initiatorType, &r.initiatorAccount, &r.credential, &r.source,
		&r.userAgent, &r.targetType,
	} {
		d.reset()
	}
	for _, s := range []*[]string{
		&r.eventID, &r.stream, &r.reason, &r.credentialID, &r.targetID, &r.targetName, &r.keyID,
		&r.correlationID, &r.message, &r.requestData,
	} {
		*s = truncated(*s)
	}
	r.eventTime, r.recordedAt = r.eventTime[:0], r.recordedAt[:0]
	r.position, r.block, r.revision = r.position[:0], r.block[:0], r.revision[:0]
	r.idx, r.reasonCode, r.address = r.idx[:0], r.reasonCode[:0], r.address[:0]
}
