package domain

import "time"

// UsageSegmentSealed records that a range of a usage stream will never change again
// and may be cut from the log: what it held, in counts and by its hash, and where its
// bytes are kept. Segments of one stream follow each other without a gap from revision 0.
type UsageSegmentSealed struct {
	// Stream is the usage stream and Segment the range's number in it, from 1.
	Stream  string `json:"stream"`
	Segment uint64 `json:"segment"`
	// The events at both bounds belong to the segment. Positions are those of the log;
	// events of other streams lie between them.
	FirstRevision   uint64    `json:"first_revision"`
	LastRevision    uint64    `json:"last_revision"`
	FirstPosition   uint64    `json:"first_position"`
	LastPosition    uint64    `json:"last_position"`
	FirstRecordedAt time.Time `json:"first_recorded_at"`
	LastRecordedAt  time.Time `json:"last_recorded_at"`
	Events          uint64    `json:"events"`
	Records         uint64    `json:"records"`
	// Places are the position and the number of records of each event; see [PackPlaces].
	Places []byte `json:"places"`
	// Accounts are sums for each account, in the order of their names. Where there are
	// more than [SegmentAccountsMax], none is listed and AccountsOmitted counts them: any
	// account may then have records here.
	Accounts        []SegmentAccount `json:"accounts,omitempty"`
	AccountsOmitted uint64           `json:"accounts_omitted,omitempty"`
	// SHA256 is over Previous and every event of the segment; see docs/formats.md.
	// Previous is the SHA256 of the segment before, empty for the first.
	SHA256   string `json:"sha256"`
	Previous string `json:"previous"`
	// Archive is where the bytes are kept, nil where the class keeps none.
	Archive *SegmentArchive `json:"archive,omitempty"`
}

// SegmentAccount are sums over one account's records in a segment.
type SegmentAccount struct {
	Account  AccountID `json:"account_id"`
	Records  uint64    `json:"records"`
	Failures uint64    `json:"failures"`
	Bytes    uint64    `json:"bytes"` // Transferred, as the sources told.
}

// SegmentArchive names an archive file.
type SegmentArchive struct {
	Name   string `json:"name"`   // Below the archive's folder.
	SHA256 string `json:"sha256"` // Of the whole file.
	Bytes  uint64 `json:"bytes"`
}

// UsageRangeCut records the decision to cut a usage stream behind a sealed segment. It
// stands in the stream of the legal holds, so that of a cut and a hold one came first.
type UsageRangeCut struct {
	Stream  string `json:"stream"`
	Segment uint64 `json:"segment"` // The last one that is cut.
	Before  uint64 `json:"before"`  // The first revision that stays.
}

// LegalHoldSet records that nothing of an account, or of anybody, may be cut.
type LegalHoldSet struct {
	Hold string `json:"hold"`
	// Account is empty for a hold on everything.
	Account AccountID `json:"account_id,omitempty"`
	Reason  string    `json:"reason"`
}

// LegalHoldReleased records that a hold is over.
type LegalHoldReleased struct {
	Hold    string    `json:"hold"`
	Account AccountID `json:"account_id,omitempty"`
	Reason  string    `json:"reason"`
}

// Stored names of the horizon's events.
const (
	TypeUsageSegmentSealed = "usage.segment.sealed.v1"
	TypeUsageRangeCut      = "usage.range.cut.v1"
	TypeLegalHoldSet       = "legalhold.set.v1"
	TypeLegalHoldReleased  = "legalhold.released.v1"
)

// Type implements [Event].
func (UsageSegmentSealed) Type() string { return TypeUsageSegmentSealed }

// Type implements [Event].
func (UsageRangeCut) Type() string { return TypeUsageRangeCut }

// Type implements [Event].
func (LegalHoldSet) Type() string { return TypeLegalHoldSet }

// Type implements [Event].
func (LegalHoldReleased) Type() string { return TypeLegalHoldReleased }

func (UsageSegmentSealed) isEvent() {}
func (UsageRangeCut) isEvent()      {}
func (LegalHoldSet) isEvent()       {}
func (LegalHoldReleased) isEvent()  {}

func (UsageSegmentSealed) isHorizonEvent() {}
func (UsageRangeCut) isHorizonEvent()      {}
func (LegalHoldSet) isHorizonEvent()       {}
func (LegalHoldReleased) isHorizonEvent()  {}
