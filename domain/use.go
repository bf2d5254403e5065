package domain

import (
	"net/netip"
	"time"
)

// Outcome is how an act ended, in CADF's words.
type Outcome string

// The outcomes.
const (
	OutcomeSuccess Outcome = "success"
	OutcomeFailure Outcome = "failure"
	OutcomePending Outcome = "pending"
)

const (
	// LabelsReserved begins the names of labels that only keytrail gives a use; intake refuses
	// them.
	LabelsReserved = "keytrail."
	// LabelVerified marks a use that is a verification: its value is who asked.
	LabelVerified = LabelsReserved + "verified"
)

// Access says whether a use read or changed something; empty where nobody knows.
type Access string

// The kinds of access.
const (
	AccessRead  Access = "read"
	AccessWrite Access = "write"
)

// Use is one use of one key. It holds what the source said, normalised, and never
// what the key's state was: that is judged on reading, as of Time.
type Use struct {
	// ID is the source's identifier of the record, unique within the account; where
	// the source gave none, one derived from the batch and the line.
	ID      string
	Time    time.Time // When it happened, UTC, to the millisecond.
	Account AccountID
	KeyID   KeyID // Empty: kept under no key.
	// KeyFingerprint is "hmac-sha256:<hex>" of a secret's hash that matched no key.
	KeyFingerprint string
	IAMID          IAMID
	Action         string // "service.objectType.verb", or "service:Operation" for AWS.
	Access         Access
	Outcome        Outcome
	Status         int    // HTTP status or equivalent; 0 = not said.
	ErrorCode      string // The source's own code, such as AccessDenied.
	// Source is the caller's address exactly as the record gave it: mostly an IP
	// address, sometimes a host name or a malformed one. See [Use.Address].
	Source    string
	UserAgent string
	Region    string
	Target    string
	RequestID string
	LatencyMS uint32
	Bytes     uint64
	Country   string // ISO 3166-1 alpha-2, empty without a database at intake.
	ASN       uint32 // 0 without a database at intake.
	Labels    map[string]string
}

// Address returns the address that Source spells, and whether it spells one.
// IPv4-mapped addresses are returned as IPv4.
func (u Use) Address() (netip.Addr, bool) {
	a, err := netip.ParseAddr(u.Source)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

// Network returns the /24 (IPv4) or /48 (IPv6) of the address, or "" without one.
func (u Use) Network() string {
	a, ok := u.Address()
	if !ok {
		return ""
	}
	bits := 48
	if a.Is4() {
		bits = 24
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return ""
	}
	return p.String()
}

// UsageBatch is the header of a stored chunk of uses. The uses themselves are
// columns, in internal/usagebatch's format, in Columns.
type UsageBatch struct {
	// Batch is the caller's batch id and Caller who sent it; together they name the
	// batch for ever.
	Batch  string `json:"batch"`
	Caller string `json:"caller"`
	// BodyHash is the hex SHA-256 of the whole request body as sent, so that the same
	// batch id with other bytes is seen.
	BodyHash string `json:"body_sha256"`
	// First is the line (from 0) of the first record that this chunk covers and Lines
	// how many lines it covers, rejected and already known ones among them.
	First uint64 `json:"first"`
	Lines uint64 `json:"lines"`
	// Last marks the chunk that ends the batch: only then is the batch whole.
	Last  bool   `json:"last,omitempty"`
	Count uint32 `json:"count"` // Uses in Columns.
	// Rejected and Repeated count the lines left out so far, over the whole batch.
	Rejected uint64    `json:"rejected,omitempty"`
	Repeated uint64    `json:"repeated,omitempty"`
	From     time.Time `json:"from"` // Earliest use.
	To       time.Time `json:"to"`   // Latest use.
	// NetworkDB is the build of the address database that resolved countries and ASNs.
	NetworkDB string `json:"network_db,omitempty"`
	Columns   []byte `json:"-"`
}

// UsageRecorded records uses, many at a time.
type UsageRecorded struct {
	Batch UsageBatch
}

// TypeUsageRecorded is the stored name of [UsageRecorded].
const TypeUsageRecorded = "usage.recorded.v1"

// Type implements [Event].
func (UsageRecorded) Type() string { return TypeUsageRecorded }

func (UsageRecorded) isEvent() {}
