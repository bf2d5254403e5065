package domain

import "time"

// SessionState is all that is known of a session at one moment: of what began with a
// sign-in, is kept alive by refresh tokens, and can be revoked.
type SessionState struct {
	ID      string    `json:"id"`
	Account AccountID `json:"account_id"`
	IAMID   IAMID     `json:"iam_id"`
	// KeyID is the key that was signed in with; the session is worth nothing without it.
	KeyID     KeyID     `json:"key_id"`
	CreatedAt time.Time `json:"created_at"`
	// ExpiresAt is when it ends whatever is done, EndsAt when it ends if nobody refreshes it.
	ExpiresAt time.Time `json:"expires_at"`
	EndsAt    time.Time `json:"ends_at"`
	// RefreshedAt and Generation say when its newest refresh token was made, and the how
	// manieth it is, from 1. No other is good.
	RefreshedAt time.Time `json:"refreshed_at"`
	Generation  uint64    `json:"generation"`
	// Address and Agent are those of the sign-in.
	Address string `json:"address,omitempty"`
	Agent   string `json:"agent,omitempty"`
	// Over says that it was revoked or ended before its time.
	Over bool `json:"over,omitempty"`
}

// SessionReason says why a session is over before its time.
type SessionReason string

// The reasons.
const (
	SessionByCommand SessionReason = "command"  // Somebody said so.
	SessionReused    SessionReason = "reused"   // A refresh token was shown that was used before: one of the two who had it stole it.
	SessionTooMany   SessionReason = "too_many" // The identity has newer sessions, as many as it may have.
)

// SessionCreated records a new session.
type SessionCreated struct {
	After SessionState `json:"after"`
}

// SessionRefreshed records that the refresh token of a session was used and replaced.
type SessionRefreshed struct {
	After SessionState `json:"after"`
}

// SessionRevoked records that a session is over: its tokens are refused from then on.
type SessionRevoked struct {
	Reason SessionReason `json:"reason"`
	After  SessionState  `json:"after"`
}

// Stored names of the session events.
const (
	TypeSessionCreated   = "session.created.v1"
	TypeSessionRefreshed = "session.refreshed.v1"
	TypeSessionRevoked   = "session.revoked.v1"
)

// Type implements [Event].
func (SessionCreated) Type() string { return TypeSessionCreated }

// Type implements [Event].
func (SessionRefreshed) Type() string { return TypeSessionRefreshed }

// Type implements [Event].
func (SessionRevoked) Type() string { return TypeSessionRevoked }

// State implements [SessionEvent].
func (e SessionCreated) State() SessionState { return e.After }

// State implements [SessionEvent].
func (e SessionRefreshed) State() SessionState { return e.After }

// State implements [SessionEvent].
func (e SessionRevoked) State() SessionState { return e.After }

func (SessionCreated) isEvent()   {}
func (SessionRefreshed) isEvent() {}
func (SessionRevoked) isEvent()   {}

func (SessionCreated) isSessionEvent()   {}
func (SessionRefreshed) isSessionEvent() {}
func (SessionRevoked) isSessionEvent()   {}

// decodeSession returns nil for what is no [SessionEvent].
func decodeSession(typ string, data []byte) (Event, error) {
	switch typ {
	case TypeSessionCreated:
		return decode[SessionCreated](data)
	case TypeSessionRefreshed:
		return decode[SessionRefreshed](data)
	case TypeSessionRevoked:
		return decode[SessionRevoked](data)
	}
	return nil, nil //nolint:nilnil // It is another family's.
}
