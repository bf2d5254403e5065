// Package domain holds the facts that keytrail records about API keys and the
// rules by which commands become facts.
//
// It imports the standard library only and does no I/O: no clock, no randomness,
// no logging. Times and identifiers arrive as arguments, so a decision repeated on
// the same history gives the same events.
//
// An [Event] is a past-tense fact with a hand-written, versioned name. Decide
// functions may refuse a command; Evolve functions cannot refuse history.
package domain
