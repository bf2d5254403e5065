package ingest

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/apidoc"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/httpx"
)

// sessionsPageMax is how many sessions one answer lists.
const sessionsPageMax = 100

// BeginSession makes the session of a sign-in with key and ends the oldest of the identity
// that are too many. limits are the account's.
func (s *Commands) BeginSession(ctx context.Context, o Order, key domain.KeyState, limits domain.SessionLimits) (domain.SessionState, uint64, error) {
	id, err := s.newUUID()
	if err != nil {
		return domain.SessionState{}, 0, err
	}
	who := o.Caller.Initiator
	f, err := s.changeSession(ctx, o, id, true, func(domain.Session) (domain.SessionCommand, error) {
		return domain.CreateSession{ID: id, Key: key, Limits: limits, Address: who.Address, Agent: recordable(who.Agent), At: s.cfg.Now()}, nil
	})
	if err != nil {
		return domain.SessionState{}, 0, err
	}
	return f.state.State(), f.position, s.endOldest(ctx, o, f.state.State(), f.position, limits.SessionsMax)
}

// endOldest ends the sessions of an identity beyond the newest few. Where several nodes begin
// some at once, each sees those that stand before its own in the log, so that of all none
// too many is left.
func (s *Commands) endOldest(ctx context.Context, o Order, mine domain.SessionState, position uint64, sessionsMax int) error {
	d := s.cfg.Directory
	if len(d.SessionsOf(mine.IAMID, s.cfg.Now())) < sessionsMax/2 {
		return nil // Far from it: no need to wait for what the others did just now.
	}
	if err := d.WaitFor(ctx, position); err != nil {
		return logError("follow sessions", err)
	}
	live := slices.DeleteFunc(d.SessionsOf(mine.IAMID, s.cfg.Now()), func(other domain.SessionState) bool { return other.Account != mine.Account })
	for _, old := range live[:max(len(live)-sessionsMax, 0)] {
		_, err := s.changeSession(ctx, o, old.ID, false, func(domain.Session) (domain.SessionCommand, error) {
			return domain.RevokeSession{Reason: domain.SessionTooMany, At: s.cfg.Now()}, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// RefreshSession uses the refresh token of one generation and returns the session after it.
// One that was used before revokes the session, and is refused as everything else that is
// not good.
func (s *Commands) RefreshSession(ctx context.Context, o Order, id string, generation uint64, limits domain.SessionLimits) (domain.SessionState, uint64, error) {
	f, err := s.changeSession(ctx, o, id, false, func(domain.Session) (domain.SessionCommand, error) {
		return domain.RefreshSession{Generation: generation, Limits: limits, At: s.cfg.Now()}, nil
	})
	if err != nil {
		return domain.SessionState{}, 0, err
	}
	if f.state.State().Over {
		return domain.SessionState{}, f.position, domain.Errorf(domain.Unauthenticated, "the refresh token was used before; its session is revoked").
			WithMessageCode("refresh_token_reused")
	}
	return f.state.State(), f.position, nil
}

// RevokeSession ends a session: its tokens are refused from then on. A refusal is recorded.
func (s *Commands) RevokeSession(ctx context.Context, o Order, id string) (uint64, error) {
	refusal := domain.CommandRefused{Action: domain.ActionSessionRevoke, Account: o.Caller.Initiator.Account}
	if !domain.ValidID(id) {
		return 0, s.refuse(ctx, o, refusal, domain.Errorf(domain.NotFound, "no such session").WithMessageCode("session_not_found"))
	}
	refusal.Target = id
	f, err := s.changeSession(ctx, o, id, false, func(session domain.Session) (domain.SessionCommand, error) {
		state := session.State()
		err := domain.AuthorizeSession(o.Caller.Initiator, o.Caller.Standing(state.Account), domain.VerbDelete, state)
		if err == nil {
			refusal.Account = state.Account
		}
		return domain.RevokeSession{Reason: domain.SessionByCommand, At: s.cfg.Now()}, err
	})
	if err != nil {
		return 0, s.refuse(ctx, o, refusal, err)
	}
	return f.position, nil
}

// changeSession carries out the command that decide makes of a session as it is.
func (s *Commands) changeSession(ctx context.Context, o Order, id string, fresh bool, decide func(domain.Session) (domain.SessionCommand, error)) (folded[domain.Session], error) {
	return transact(ctx, s, s.sessions, o, domain.SessionStream(id), fresh, func(session domain.Session) (decision, error) {
		cmd, err := decide(session)
		if err != nil {
			return decision{}, err
		}
		events, err := session.Decide(cmd)
		d := decision{events: events, at: session.NextEffective(s.cfg.Now())}
		if len(events) > 0 {
			if e, ok := events[0].(domain.SessionEvent); ok {
				d.account = e.State().Account
			}
		}
		return d, err //nolint:wrapcheck // The domain's words are the answer.
	})
}

// sessionView is one session.
type sessionView struct {
	ID          string           `json:"id"`
	AccountID   domain.AccountID `json:"account_id"`
	IAMID       domain.IAMID     `json:"iam_id"`
	KeyID       domain.KeyID     `json:"apikey_id"`
	CreatedAt   string           `json:"created_at"`
	RefreshedAt string           `json:"refreshed_at"`
	EndsAt      string           `json:"ends_at" description:"When it ends if nobody refreshes it."`
	ExpiresAt   string           `json:"expires_at" description:"When it ends whatever is done."`
	SourceIP    string           `json:"source_ip,omitempty"`
	UserAgent   string           `json:"user_agent,omitempty"`
}

type sessionsView struct {
	Sessions []sessionView `json:"sessions"`
	Next     string        `json:"next,omitempty" description:"The pagetoken of the next page."`
}

type listSessionsRequest struct {
	Account string `query:"account_id" description:"Of everybody in that account; default: the caller's own, everywhere."`
	IAMID   string `query:"iam_id"`
	Size    int    `query:"pagesize" minimum:"1" maximum:"100" default:"100"`
	Token   string `query:"pagetoken"`
}

// sessionRoutes list and revoke sessions.
func (h *KeyAPI) sessionRoutes() apidoc.Table {
	return apidoc.Table{
		{Method: http.MethodGet, Path: "/v1/sessions", Group: groupSignIn, Summary: "List the sessions that are not over.", Request: listSessionsRequest{}, Answers: apidoc.OK(sessionsView{}), Handler: h.listSessions},
		{Method: http.MethodDelete, Path: "/v1/sessions/:id", Group: groupSignIn, Summary: "End a session; its tokens are refused from then on.", Request: idRequest{}, Answers: []apidoc.Answer{{Status: http.StatusNoContent}}, Handler: h.revokeSession},
	}
}

// listSessions answers the caller's own sessions, or those of others to administrators.
func (h *KeyAPI) listSessions(c *gin.Context) {
	o := orderOf(c)
	account, iam := domain.AccountID(c.Query("account_id")), domain.IAMID(c.Query("iam_id"))
	size, err := sessionPageSize(c.Query("pagesize"))
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	if account == "" && iam == "" {
		iam = o.Caller.Initiator.IAMID
	}
	own := iam == o.Caller.Initiator.IAMID
	if account == "" && !own {
		account = o.Caller.Initiator.Account
	}
	if account != "" {
		err := domain.AuthorizeSession(o.Caller.Initiator, o.Caller.Standing(account), domain.VerbList, domain.SessionState{IAMID: iam})
		if err != nil {
			e := domain.CommandRefused{Action: domain.ActionSessionList, Account: o.Caller.Initiator.Account}
			httpx.Fail(c, h.Commands.refuseRead(c.Request.Context(), o, e, err))
			return
		}
	}
	httpx.Position(c, h.Directory.Reached())
	c.JSON(http.StatusOK, pageOfSessions(h.sessionsOf(account, iam), c.Query("pagetoken"), size))
}

func sessionPageSize(text string) (int, error) {
	if text == "" {
		return sessionsPageMax, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > sessionsPageMax {
		return 0, domain.Errorf(domain.Invalid, "must be a number from 1 to %d", sessionsPageMax).WithField("pagesize").WithMessageCode("invalid_pagesize")
	}
	return n, nil
}

// sessionsOf returns the sessions of an account, of an identity, or of one in the other.
func (h *KeyAPI) sessionsOf(account domain.AccountID, iam domain.IAMID) []domain.SessionState {
	if iam == "" {
		return h.Directory.SessionsIn(account, h.Now())
	}
	return slices.DeleteFunc(h.Directory.SessionsOf(iam, h.Now()), func(s domain.SessionState) bool {
		return account != "" && s.Account != account
	})
}

// pageOfSessions returns the sessions whose ids follow after, in the order of their ids: so a
// page stays the same while others begin and end.
func pageOfSessions(all []domain.SessionState, after string, size int) sessionsView {
	slices.SortFunc(all, func(a, b domain.SessionState) int { return strings.Compare(a.ID, b.ID) })
	from, found := slices.BinarySearchFunc(all, after, func(s domain.SessionState, id string) int { return strings.Compare(s.ID, id) })
	if found {
		from++
	}
	v := sessionsView{Sessions: []sessionView{}}
	for _, s := range all[from:] {
		if len(v.Sessions) == size {
			v.Next = v.Sessions[size-1].ID
			break
		}
		v.Sessions = append(v.Sessions, sessionView{
			ID: s.ID, AccountID: s.Account, IAMID: s.IAMID, KeyID: s.KeyID, CreatedAt: showTime(s.CreatedAt), RefreshedAt: showTime(s.RefreshedAt),
			EndsAt: showTime(s.EndsAt), ExpiresAt: showTime(s.ExpiresAt), SourceIP: s.Address, UserAgent: s.Agent,
		})
	}
	return v
}

func (h *KeyAPI) revokeSession(c *gin.Context) {
	pos, err := h.Commands.RevokeSession(c.Request.Context(), orderOf(c), c.Param("id"))
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	httpx.Position(c, pos)
	c.Status(http.StatusNoContent)
}

// signedIn is the order of whoever signs in with key.
func (h *KeyAPI) signedIn(c *gin.Context, who domain.Initiator) Order {
	return Order{Caller: auth.NewCaller(who, h.Directory), CorrelationID: httpx.Trace(c), RequestID: httpx.RequestID(c)}
}
