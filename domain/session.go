package domain

import "time"

// SessionLimits bound what a sign-in gives: an account's settings, or IBM's defaults.
type SessionLimits struct {
	AccessToken  time.Duration // How long an access token is good.
	RefreshToken time.Duration // How long a refresh token is.
	Session      time.Duration // How long a session lasts whatever is done.
	Idle         time.Duration // How long it lasts without being refreshed.
	SessionsMax  int           // How many an identity may have at a time.
}

// sessionsMaxDefault bounds what an identity can make a node remember where the account sets
// no number of sessions. IBM says none.
const sessionsMaxDefault = 1000

// SessionLimits returns what a sign-in in the account gives.
func (a Account) SessionLimits() SessionLimits {
	s := a.Settings()
	l := SessionLimits{
		AccessToken: s.AccessTokenLifetime(), RefreshToken: s.RefreshTokenLifetime(), Session: s.SessionLifetime(), Idle: s.SessionIdle(),
		SessionsMax: sessionsMaxDefault,
	}
	if n, set := s.SessionLimit(); set {
		l.SessionsMax = n
	}
	return l
}

// Session is one session: the fold of its stream. The zero Session has no history.
type Session struct {
	state SessionState
	last  time.Time
}

// Evolve returns s after rec; events that are not about a session change nothing.
func (s Session) Evolve(rec Recorded) Session {
	if e, ok := rec.Event.(SessionEvent); ok {
		s.state, s.last = e.State(), rec.Meta.EffectiveAt
	}
	return s
}

// Exists reports whether the session ever began.
func (s Session) Exists() bool { return s.state.ID != "" }

// State returns what is known now.
func (s Session) State() SessionState { return s.state }

// NextEffective returns the effective time of a fact that is decided now.
func (s Session) NextEffective(now time.Time) time.Time { return NextEffective(now, s.last) }

// Ended reports whether the session is over at t, by an event or by the clock.
func (s SessionState) Ended(t time.Time) bool { return s.Over || !t.Before(s.EndsAt) }

// extended returns s as it is after its refresh token was made at at.
func (s SessionState) extended(at time.Time, limits SessionLimits) SessionState {
	s.RefreshedAt, s.EndsAt = at, s.ExpiresAt
	for _, d := range []time.Duration{limits.Idle, limits.RefreshToken} {
		if end := at.Add(d); end.Before(s.EndsAt) {
			s.EndsAt = end
		}
	}
	return s
}

// SessionCommand is an order about one session. The set is closed.
//
//sumtype:decl
type SessionCommand interface {
	isSessionCommand()
}

// CreateSession begins a session.
type CreateSession struct {
	ID             string
	Key            KeyState // The key that was signed in with.
	Limits         SessionLimits
	Address, Agent string
	At             time.Time
}

// RefreshSession uses the refresh token of that generation and makes the next one.
type RefreshSession struct {
	Generation uint64
	Limits     SessionLimits
	At         time.Time
}

// RevokeSession ends a session at once.
type RevokeSession struct {
	Reason SessionReason
	At     time.Time
}

func (CreateSession) isSessionCommand()  {}
func (RefreshSession) isSessionCommand() {}
func (RevokeSession) isSessionCommand()  {}

// Decide returns the facts that cmd adds to the history of s. No facts and a nil error mean
// that cmd repeats what is already so. A refresh token that was used before is not refused
// but revokes the session: whoever asked must look at the state after it.
func (s Session) Decide(cmd SessionCommand) ([]Event, error) {
	switch c := cmd.(type) {
	case CreateSession:
		return s.create(c)
	case RefreshSession:
		return s.refresh(c)
	case RevokeSession:
		switch {
		case !s.Exists():
			return nil, errNoSession()
		case s.state.Ended(c.At):
			return nil, nil
		}
		return s.revoked(c.Reason), nil
	default:
		return nil, Errorf(Internal, "unexpected command %T", cmd)
	}
}

func (s Session) create(c CreateSession) ([]Event, error) {
	if s.Exists() {
		return nil, Errorf(Conflict, "session %s already exists", c.ID).WithMessageCode("session_exists")
	}
	if !c.Key.SupportSessions {
		return nil, Errorf(Conflict, "key %s has no sessions", c.Key.ID).WithMessageCode("no_sessions")
	}
	at := s.NextEffective(c.At)
	return []Event{SessionCreated{After: SessionState{
		ID: c.ID, Account: c.Key.Account, IAMID: c.Key.IAMID, KeyID: c.Key.ID, CreatedAt: at, ExpiresAt: at.Add(c.Limits.Session),
		Generation: 1, Address: c.Address, Agent: c.Agent,
	}.extended(at, c.Limits)}}, nil
}

func (s Session) refresh(c RefreshSession) ([]Event, error) {
	switch {
	case !s.Exists():
		return nil, errNoSession()
	case s.state.Over:
		return nil, Errorf(Unauthenticated, "the session was revoked; sign in again").WithMessageCode(MessageCodeSessionRevoked)
	case s.state.Ended(c.At):
		return nil, Errorf(Unauthenticated, "the session has ended; sign in again").WithMessageCode("session_ended")
	case c.Generation > s.state.Generation:
		return nil, Errorf(Unauthenticated, "the refresh token is not known").WithMessageCode("invalid_credential")
	case c.Generation < s.state.Generation:
		return s.revoked(SessionReused), nil
	}
	after := s.state.extended(s.NextEffective(c.At), c.Limits)
	after.Generation++
	return []Event{SessionRefreshed{After: after}}, nil
}

func (s Session) revoked(why SessionReason) []Event {
	after := s.state
	after.Over = true
	return []Event{SessionRevoked{Reason: why, After: after}}
}

// MessageCodeSessionRevoked marks refusals because a session is over before its time.
const MessageCodeSessionRevoked = "session_revoked"

func errNoSession() *Error {
	return Errorf(NotFound, "no such session").WithMessageCode("session_not_found")
}

// Names of what is done with sessions. IBM has a name only for the first.
const (
	ActionSessionRefresh = "iam-identity.user-refreshtoken.login"
	ActionSessionCreate  = "iam-identity.user-session.create"
	ActionSessionRevoke  = "iam-identity.user-session.revoke"
	ActionSessionList    = "iam-identity.user-session.list"
)

// ofSessionEvent makes a record of what became of a session.
func ofSessionEvent(a *Activity, e SessionEvent) {
	s := e.State()
	d := requestData{KeyID: s.KeyID, IAMID: s.IAMID}
	switch e := e.(type) {
	case SessionCreated:
		a.Action, a.ReasonCode = ActionSessionCreate, 201
	case SessionRefreshed:
		a.Action = ActionSessionRefresh
	case SessionRevoked:
		a.Action, a.ReasonCode, d.Cause = ActionSessionRevoke, 204, string(e.Reason)
	}
	a.Account, a.KeyID, a.TargetName = s.Account, s.KeyID, s.ID
	a.TargetID = crn(s.Account, "session", s.ID)
	a.RequestData = d.encode()
}
