package projections

import (
	"net/netip"
	"strings"

	"example.com/keytrail/domain"
)

const tableUsage = "usage"

// place is what a source text says: its address and network.
type place struct {
	address netip.Addr
	network string
}

// usageRows are the rows of table usage: one for each use, in the order of its
// batch.
type usageRows struct {
	account, iamID, action, access, outcome, errorCode, source dict
	network, country, userAgent, region, fingerprint           dict
	keyID, useID, target, requestID                            []string
	time, recordedAt                                           []int64
	position, block, bytes                                     []uint64
	idx, asn, latency                                          []uint32
	status                                                     []uint16
	address                                                    []netip.Addr
	labels                                                     []map[string]string

	// resolved are the addresses of source texts seen, kept from block to block.
	resolved map[string]place
}

// append adds the uses of one batch as rows of block and returns their size in
// bytes, roughly.
func (r *usageRows) append(f *fact, block uint64) int {
	size := 0
	recorded := f.rec.RecordedAt.UnixMilli()
	for i := range f.uses {
		u := &f.uses[i]
		r.position = append(r.position, f.rec.Position)
		r.idx = append(r.idx, uint32(i))
		r.block = append(r.block, block)
		r.recordedAt = append(r.recordedAt, recorded)
		size += r.add(u)
	}
	return size
}

func (r *usageRows) add(u *domain.Use) int {
	r.account.add(string(u.Account))
	r.iamID.add(string(u.IAMID))
	r.action.add(u.Action)
	r.access.add(string(u.Access))
	r.outcome.add(string(u.Outcome))
	r.errorCode.add(u.ErrorCode)
	r.source.add(u.Source)
	r.country.add(u.Country)
	r.userAgent.add(u.UserAgent)
	r.region.add(u.Region)
	r.fingerprint.add(u.KeyFingerprint)
	r.addAddress(u)
	r.keyID = append(r.keyID, string(u.KeyID))
	r.useID = append(r.useID, u.ID)
	r.target = append(r.target, u.Target)
	r.requestID = append(r.requestID, u.RequestID)
	r.time = append(r.time, u.Time.UnixMilli())
	r.bytes = append(r.bytes, u.Bytes)
	r.asn = append(r.asn, u.ASN)
	r.latency = append(r.latency, u.LatencyMS)
	r.status = append(r.status, uint16(u.Status)) //nolint:gosec // decoder.uses checked it.
	r.labels = append(r.labels, u.Labels)
	size := usageRowBytes + len(u.KeyID) + len(u.ID) + len(u.Target) + len(u.RequestID)
	for k, v := range u.Labels {
		size += len(k) + len(v)
	}
	return size
}

// usageRowBytes is what a row takes beside its texts.
const usageRowBytes = 27 * 16

func (r *usageRows) addAddress(u *domain.Use) {
	p, ok := r.resolved[u.Source]
	if !ok {
		if r.resolved == nil || len(r.resolved) >= dictMax {
			r.resolved = make(map[string]place)
		}
		p = place{address: address(u.Source), network: u.Network()}
		r.resolved[strings.Clone(u.Source)] = p
	}
	r.address = append(r.address, p.address)
	r.network.add(p.network)
}

func (r *usageRows) rows() Rows {
	return Rows{Table: tableUsage, Columns: []Column{
		{"account_id", r.account.values},
		{"key_id", r.keyID},
		{"time", r.time},
		{"position", r.position},
		{"idx", r.idx},
		{"block", r.block},
		{"recorded_at", r.recordedAt},
		{"use_id", r.useID},
		{"iam_id", r.iamID.values},
		{"action", r.action.values},
		{"access", r.access.values},
		{"outcome", r.outcome.values},
		{"status", r.status},
		{"error_code", r.errorCode.values},
		{"source", r.source.values},
		{"address", r.address},
		{"network", r.network.values},
		{"country", r.country.values},
		{"asn", r.asn},
		{"user_agent", r.userAgent.values},
		{"region", r.region.values},
		{"target", r.target},
		{"request_id", r.requestID},
		{"latency_ms", r.latency},
		{"bytes", r.bytes},
		{"key_fingerprint", r.fingerprint.values},
		{"labels", r.labels},
	}}
}

func (r *usageRows) reset() {
	for _, d := range []*dict{
		&r.account, &r.iamID, &r.action, &r.access, &r.outcome, &r.errorCode, &r.source,
		&r.network, &r.country, &r.userAgent, &r.region, &r.fingerprint,
	} {
		d.reset()
	}
	for _, s := range []*[]string{&r.keyID, &r.useID, &r.target, &r.requestID} {
		*s = truncated(*s)
	}
	r.labels = truncated(r.labels)
	r.time, r.recordedAt = r.time[:0], r.recordedAt[:0]
	r.position, r.block, r.bytes = r.position[:0], r.block[:0], r.bytes[:0]
	r.idx, r.asn, r.latency = r.idx[:0], r.asn[:0], r.latency[:0]
	r.status, r.address = r.status[:0], r.address[:0]
}
