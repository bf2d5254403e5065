package eventlog

import (
	"strconv"
	"time"

	"example.com/keytrail/domain"
)

// Expected is the revision that an append requires of its stream. The zero value
// is [NoStream]. There is no 'any' on purpose: see the package comment.
type Expected struct {
	exists   bool
	revision uint64
}

// NoStream requires that the stream holds no event.
func NoStream() Expected { return Expected{} }

// Exactly requires that the stream's last event has revision rev.
func Exactly(rev uint64) Expected { return Expected{exists: true, revision: rev} }

// Revision returns the last revision and true, or false for [NoStream].
func (e Expected) Revision() (uint64, bool) { return e.revision, e.exists }

// Next returns the revision that the first appended event gets.
func (e Expected) Next() uint64 {
	if !e.exists {
		return 0
	}
	return e.revision + 1
}

// String returns the revision in decimal, or "none".
func (e Expected) String() string {
	if !e.exists {
		return "none"
	}
	return strconv.FormatUint(e.revision, 10)
}

// Proposed is an event that is to be appended. The caller must not change Data
// and Meta until Append returned.
type Proposed struct {
	// ID must be deterministic: a repeat with the same id at the same place is no
	// second event. The zero id is refused.
	ID domain.EventID
	// Type is the stored, versioned name. Required.
	Type string
	// JSON says that Data is JSON text.
	JSON bool
	// Data and Meta are the stored bytes.
	Data, Meta []byte
}

// Appended says where the last event of an append stands.
type Appended struct{ Revision, Position uint64 }

// Raw is one stored event. Its receiver owns Data and Meta.
type Raw struct {
	// Stream and Revision name the event for ever.
	Stream   string
	Revision uint64
	// Position orders all events of the log. Positions increase strictly and are
	// not dense.
	Position uint64
	// ID is what the writer proposed.
	ID domain.EventID
	// Type is the stored name.
	Type string
	// JSON says that Data is JSON text.
	JSON bool
	// Data and Meta are the stored bytes.
	Data, Meta []byte
	// RecordedAt is the server's time of the append, UTC.
	RecordedAt time.Time
}

// SubscribeOptions says what a subscription delivers and where it begins.
type SubscribeOptions struct {
	// Prefixes are the stream name prefixes to deliver. At least one, or Types.
	Prefixes []string
	// Types are the prefixes of event types to deliver, from whatever stream: on a shared
	// log also others'. Instead of Prefixes.
	Types []string
	// After is the position of the last event already known: delivery begins with
	// the next one.
	After uint64
	// FromStart delivers from the beginning of the log; After must then be 0.
	FromStart bool
}

// Delivery is one step of a subscription: an event, the news that everything
// stored so far was delivered, or a checkpoint.
type Delivery struct {
	// Event is nil for a caught-up notice and for a checkpoint.
	Event *Raw
	// CaughtUp says that all that was stored when the subscription (or its
	// resubscription after a break) reached the end has been delivered.
	CaughtUp bool
	// Position is the newest position known to be considered. Resume from the
	// position of an event: a checkpoint's is for showing progress only.
	Position uint64
}
