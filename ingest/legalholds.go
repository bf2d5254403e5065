package ingest

import (
	"context"
	"net/http"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/apidoc"
	"example.com/keytrail/internal/httpx"
)

// ChangeHolds sets or releases a legal hold. Administrators of the operator's account may.
// It returns the holds in force after it and the position of the newest fact about them.
// A cut that was decided before the hold is not undone.
func (s *Commands) ChangeHolds(ctx context.Context, o Order, cmd domain.HoldCommand) ([]domain.LegalHold, uint64, error) {
	var refusal domain.CommandRefused
	switch c := cmd.(type) {
	case domain.SetLegalHold:
		refusal = domain.CommandRefused{Action: domain.ActionHoldSet, Account: c.Account, Target: c.Hold, Request: requestOf(setHoldBody{ID: c.Hold, Account: c.Account, Reason: c.Reason})}
	case domain.ReleaseLegalHold:
		refusal = domain.CommandRefused{Action: domain.ActionHoldRelease, Target: c.Hold, Request: requestOf(releaseHoldBody{Reason: c.Reason})}
	}
	if err := s.mayHold(o); err != nil {
		refusal.Account = o.Caller.Initiator.Account // A stranger writes nothing into another account's records.
		return nil, 0, s.refuse(ctx, o, refusal, err)
	}
	f, err := transact(ctx, s, s.holds, o, domain.LegalHoldStream, false, func(h domain.LegalHolds) (decision, error) {
		events, err := h.Decide(cmd)
		return decision{account: s.cfg.Directory.Home(), events: events, at: h.NextEffective(s.cfg.Now())}, err //nolint:wrapcheck // The domain's words.
	})
	if err != nil {
		return nil, 0, s.refuse(ctx, o, refusal, err)
	}
	return f.state.InForce(), f.position, nil
}

// Holds returns the legal holds in force, as the log has them now.
func (s *Commands) Holds(ctx context.Context, o Order) ([]domain.LegalHold, error) {
	if err := s.mayHold(o); err != nil {
		return nil, err
	}
	f, err := foldNow(ctx, s.cfg.Log, s.holds, domain.LegalHoldStream)
	if err != nil {
		return nil, err
	}
	return f.state.InForce(), nil
}

func (s *Commands) mayHold(o Order) error {
	home := s.cfg.Directory.Home()
	return domain.AuthorizeOperator(o.Caller.Initiator, o.Caller.Standing(home), "see or change legal holds") //nolint:wrapcheck // The domain's words are the answer.
}

// setHoldBody is the body of POST /v1/legal-holds.
type setHoldBody struct {
	ID      string           `json:"id,omitempty" maxLength:"128" description:"Names the hold for ever; a repeat with the same words changes nothing. Default: one is made."`
	Account domain.AccountID `json:"account_id,omitempty" maxLength:"128" description:"The account whose usage must stay; default: everybody's."`
	Reason  string           `json:"reason" required:"true" minLength:"1" maxLength:"1024" description:"Why."`
}

type releaseHoldBody struct {
	Reason string `json:"reason" required:"true" minLength:"1" maxLength:"1024" description:"Why the hold is over."`
}

type releaseHoldRequest struct {
	idRequest
	releaseHoldBody
}

type holdsView struct {
	Holds []domain.LegalHold `json:"holds"`
}

func (h *KeyAPI) holdRoutes() apidoc.Table {
	return apidoc.Table{
		{
			Method: http.MethodGet, Path: "/v1/legal-holds", Group: groupHorizon, Summary: "The legal holds in force.",
			Answers: apidoc.OK(holdsView{}), Handler: h.listHolds,
		},
		{
			Method: http.MethodPost, Path: "/v1/legal-holds", Group: groupHorizon, Summary: "Forbid to cut an account's usage, or everybody's.",
			Description: "From the answer on nothing that the hold covers is cut from the log. What was decided to be cut before is not brought back: see /v1/horizon.",
			Request:     setHoldBody{}, Answers: []apidoc.Answer{{Status: http.StatusCreated, Body: holdsView{}, Description: "All holds in force."}}, Handler: h.setHold,
		},
		{
			Method: http.MethodPost, Path: "/v1/legal-holds/:id/release", Group: groupHorizon, Summary: "End a legal hold.",
			Request: releaseHoldRequest{}, Answers: apidoc.OK(holdsView{}), Handler: h.releaseHold,
		},
	}
}

func (h *KeyAPI) listHolds(c *gin.Context) {
	holds, err := h.Commands.Holds(c.Request.Context(), orderOf(c))
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	c.JSON(http.StatusOK, holdsView{Holds: holds})
}

// setHold answers 201 only when the hold is durable.
func (h *KeyAPI) setHold(c *gin.Context) {
	var b setHoldBody
	if err := httpx.BindJSON(c, &b); err != nil {
		httpx.Fail(c, err)
		return
	}
	if b.ID == "" {
		id, err := h.Commands.newUUID()
		if err != nil {
			httpx.Fail(c, err)
			return
		}
		b.ID = id
	}
	h.answerHolds(c, http.StatusCreated, domain.SetLegalHold{Hold: b.ID, Account: b.Account, Reason: b.Reason})
}

func (h *KeyAPI) releaseHold(c *gin.Context) {
	var b releaseHoldBody
	if err := httpx.BindJSON(c, &b); err != nil {
		httpx.Fail(c, err)
		return
	}
	h.answerHolds(c, http.StatusOK, domain.ReleaseLegalHold{Hold: c.Param("id"), Reason: b.Reason})
}

func (h *KeyAPI) answerHolds(c *gin.Context, status int, cmd domain.HoldCommand) {
	holds, position, err := h.Commands.ChangeHolds(c.Request.Context(), orderOf(c), cmd)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	httpx.Position(c, position)
	c.JSON(status, holdsView{Holds: holds})
}
