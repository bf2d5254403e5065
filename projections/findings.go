package projections

const tableFindings = "findings"

// findingRows are the rows of table findings: one for each finding event, of which
// the table keeps the newest by revision.
type findingRows struct {
	account, rule, severity, technique, status     dict
	id, keyID, iamID, title, reason, advice, state []string
	version, position, block, count                []uint64
	recordedAt, firstSeen, lastSeen                []int64
	ruleVersion                                    []uint32
}

func (r *findingRows) append(f *fact, block uint64) int {
	if f.finding == nil {
		return 0
	}
	v := f.finding
	r.account.add(string(v.Account))
	r.id = append(r.id, v.ID.String())
	r.version = append(r.version, f.rec.Revision)
	r.position = append(r.position, f.rec.Position)
	r.block = append(r.block, block)
	r.recordedAt = append(r.recordedAt, f.rec.RecordedAt.UnixMilli())
	r.rule.add(v.Rule)
	r.ruleVersion = append(r.ruleVersion, uint32(v.RuleVersion)) //nolint:gosec // fact.states checked it.
	r.severity.add(string(v.Level))
	r.technique.add(v.Technique)
	r.keyID = append(r.keyID, string(v.KeyID))
	r.iamID = append(r.iamID, string(v.IAMID))
	r.title = append(r.title, v.Title)
	r.reason = append(r.reason, v.Reason)
	r.advice = append(r.advice, v.Advice)
	r.firstSeen = append(r.firstSeen, wideMS(v.FirstSeen))
	r.lastSeen = append(r.lastSeen, wideMS(v.LastSeen))
	r.count = append(r.count, v.Count)
	r.status.add(string(v.Status))
	r.state = append(r.state, f.text)
	return 20*16 + len(f.text)
}

func (r *findingRows) rows() Rows {
	return Rows{Table: tableFindings, Columns: []Column{
		{"account_id", r.account.values},
		{"id", r.id},
		{"version", r.version},
		{"position", r.position},
		{"block", r.block},
		{"recorded_at", r.recordedAt},
		{"rule_id", r.rule.values},
		{"rule_version", r.ruleVersion},
		{"severity", r.severity.values},
		{"technique", r.technique.values},
		{"key_id", r.keyID},
		{"iam_id", r.iamID},
		{"title", r.title},
		{"reason", r.reason},
		{"advice", r.advice},
		{"first_seen", r.firstSeen},
		{"last_seen", r.lastSeen},
		{"count", r.count},
		{"status", r.status.values},
		{"finding", r.state},
	}}
}

func (r *findingRows) reset() {
	for _, d := range []*dict{&r.account, &r.rule, &r.severity, &r.technique, &r.status} {
		d.reset()
	}
	for _, s := range []*[]string{&r.id, &r.keyID, &r.iamID, &r.title, &r.reason, &r.advice, &r.state} {
		*s = truncated(*s)
	}
	r.version, r.position, r.block, r.count = r.version[:0], r.position[:0], r.block[:0], r.count[:0]
	r.recordedAt, r.firstSeen, r.lastSeen = r.recordedAt[:0], r.firstSeen[:0], r.lastSeen[:0]
	r.ruleVersion = r.ruleVersion[:0]
}
