// Package auth answers who sends a request and what they are in which account.
//
// [Directory] is a table in memory of accounts, members, service IDs, keys and sessions that
// follows the log. [Authenticator] turns a credential (an API key, or a token that we
// made from one) into a [Caller], by what the directory knows now: a key that is
// disabled, deleted or expired is refused at once, and so are the tokens made with it, with
// one whose user was removed, or in a session that was revoked; and whatever comes from an
// address that its account or its user does not allow.
//
// [Pulses] know how fresh the directory is: a node that cannot tell whether a key was
// disabled elsewhere a second ago answers that it cannot, and accepts nothing.
//
// It refuses to guess. While the directory is not running or has not caught up, every
// answer is [domain.Unavailable]; a key whose stream holds an event that cannot be read
// is refused until the stream is mended. What a caller may do is not decided here but
// in package domain.
package auth
