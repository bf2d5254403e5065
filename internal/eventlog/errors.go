package eventlog

import (
	"errors"
	"fmt"
)

var (
	// ErrUnavailable is the root of every refusal that may pass by itself: no
	// connection, no answer in time, a leader election. Nothing was stored unless
	// the error is also [ErrOutcomeUnknown].
	ErrUnavailable = errors.New("event log unavailable")

	// ErrOutcomeUnknown says that the append may have been stored. Repeating it
	// with the same ids and the same expected revision is safe and changes nothing
	// if it was. It is under [ErrUnavailable].
	ErrOutcomeUnknown = fmt.Errorf("append outcome unknown: %w", ErrUnavailable)

	// ErrTooLarge says that the events of one append exceed what the server takes
	// in one append. Nothing was stored; sending it again cannot help.
	ErrTooLarge = errors.New("append too large for the event log")

	// ErrStreamDeleted says that the stream was tombstoned: it can never be read or
	// written again.
	ErrStreamDeleted = errors.New("stream is deleted")

	// ErrClosed says that the log or the subscription was closed by its owner.
	ErrClosed = errors.New("event log closed")
)

// WrongRevision says that the stream was not at the expected revision, so nothing
// was stored, and that the events of this append are not what stands there.
type WrongRevision struct { //nolint:errname // It carries an answer, the actual revision, as much as an error.
	// Stream is the stream that was appended to.
	Stream string
	// Expected is what the caller named.
	Expected Expected
	// Actual is the stream's last revision as read right after the refusal; a
	// concurrent writer may have moved it on since.
	Actual Expected
}

// Error implements error.
func (e *WrongRevision) Error() string {
	return fmt.Sprintf("append to %s: expected revision %s, stream is at %s", e.Stream, e.Expected, e.Actual)
}
