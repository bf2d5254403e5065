package ingest

import (
	"context"
	"net/http"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/httpx"
)

// CreateServiceID makes a service ID in account.
func (s *Commands) CreateServiceID(ctx context.Context, o Order, account domain.AccountID, name, description string) (domain.ServiceIDState, uint64, error) {
	if account == "" {
		account = o.Caller.Initiator.Account
	}
	uuid, err := s.newUUID()
	if err != nil {
		return domain.ServiceIDState{}, 0, err
	}
	cmd := domain.CreateServiceID{ID: "ServiceId-" + uuid, Account: account, Name: name, Description: description}
	asked := domain.ServiceIDState{Account: account, Name: name}
	f, err := transact(ctx, s, s.services, o, domain.ServiceIDStream(cmd.ID), true, func(svc domain.ServiceID) (decision, error) {
		if err := domain.AuthorizeServiceID(o.Caller.Initiator, o.Caller.Standing(account), domain.VerbCreate, asked); err != nil {
			return decision{}, err //nolint:wrapcheck // The domain's words are the answer.
		}
		return s.decideServiceID(svc, account, cmd)
	})
	if err != nil {
		return asked, 0, s.refuse(ctx, o, serviceIDRefusal(domain.VerbCreate, asked, o), err)
	}
	return f.state.State(), f.position, nil
}

// DeleteServiceID ends a service ID; its keys are refused from then on.
func (s *Commands) DeleteServiceID(ctx context.Context, o Order, id string) (uint64, error) {
	target := domain.ServiceIDState{ID: id}
	if !domain.ValidID(id) {
		return 0, errNoServiceID()
	}
	f, err := transact(ctx, s, s.services, o, domain.ServiceIDStream(id), false, func(svc domain.ServiceID) (decision, error) {
		in := o.Caller.Standing(svc.State().Account)
		if svc.Exists() && in.Known() {
			target = svc.State()
		}
		if err := domain.AuthorizeServiceID(o.Caller.Initiator, in, domain.VerbDelete, svc.State()); err != nil {
			return decision{}, err //nolint:wrapcheck // The domain's words are the answer.
		}
		return s.decideServiceID(svc, svc.State().Account, domain.DeleteServiceID{})
	})
	if err != nil {
		return 0, s.refuse(ctx, o, serviceIDRefusal(domain.VerbDelete, target, o), err)
	}
	return f.position, nil
}

func (s *Commands) decideServiceID(svc domain.ServiceID, account domain.AccountID, cmd domain.ServiceIDCommand) (decision, error) {
	events, err := svc.Decide(cmd)
	return decision{account: account, events: events, at: svc.NextEffective(s.cfg.Now())}, err //nolint:wrapcheck // The domain's words.
}

func serviceIDRefusal(verb domain.Verb, s domain.ServiceIDState, o Order) domain.CommandRefused {
	e := domain.CommandRefused{
		Action: domain.ServiceIDAction(verb), Account: s.Account, Target: s.ID, TargetName: s.Name, TargetKind: "account-serviceid",
	}
	if !o.Caller.Standing(s.Account).Known() {
		e.Account = o.Caller.Initiator.Account
	}
	return e
}

func errNoServiceID() error {
	return domain.Errorf(domain.NotFound, "no such service ID").WithMessageCode("serviceid_not_found")
}

type serviceIDView struct {
	Context     httpx.RequestContext `json:"context"`
	ID          string               `json:"id"`
	IAMID       domain.IAMID         `json:"iam_id"`
	EntityTag   string               `json:"entity_tag"`
	CRN         string               `json:"crn"`
	Locked      bool                 `json:"locked"`
	CreatedAt   string               `json:"created_at"`
	ModifiedAt  string               `json:"modified_at"`
	AccountID   domain.AccountID     `json:"account_id"`
	Name        string               `json:"name"`
	Description string               `json:"description,omitempty"`
}

func serviceIDViewOf(c *gin.Context, s domain.ServiceIDState) serviceIDView {
	return serviceIDView{
		Context: httpx.Context(c), ID: s.ID, IAMID: s.IAMID, EntityTag: s.EntityTag(), CRN: domain.ServiceIDCRN(s.Account, s.ID),
		CreatedAt: showTime(s.CreatedAt), ModifiedAt: showTime(s.CreatedAt), AccountID: s.Account, Name: s.Name, Description: s.Description,
	}
}

type createServiceIDBody struct {
	AccountID   domain.AccountID `json:"account_id"`
	Name        string           `json:"name"`
	Description string           `json:"description"`
}

func (h *KeyAPI) createServiceID(c *gin.Context) {
	var b createServiceIDBody
	if err := httpx.BindJSON(c, &b); err != nil {
		httpx.Fail(c, err)
		return
	}
	s, pos, err := h.Commands.CreateServiceID(c.Request.Context(), orderOf(c), b.AccountID, b.Name, b.Description)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	httpx.Position(c, pos)
	c.JSON(http.StatusCreated, serviceIDViewOf(c, s))
}

func (h *KeyAPI) getServiceID(c *gin.Context) {
	s, pos, err := h.Commands.ReadServiceID(c.Request.Context(), orderOf(c), c.Param("id"))
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	httpx.Position(c, pos)
	c.JSON(http.StatusOK, serviceIDViewOf(c, s))
}

// ReadServiceID returns the fold of a service ID's stream.
func (s *Commands) ReadServiceID(ctx context.Context, o Order, id string) (domain.ServiceIDState, uint64, error) {
	if !domain.ValidID(id) {
		return domain.ServiceIDState{}, 0, errNoServiceID()
	}
	f, err := foldNow(ctx, s.cfg.Log, s.services, domain.ServiceIDStream(id))
	if err != nil {
		return domain.ServiceIDState{}, 0, err
	}
	state := f.state.State()
	if err := domain.AuthorizeServiceID(o.Caller.Initiator, o.Caller.Standing(state.Account), domain.VerbRead, state); err != nil {
		return domain.ServiceIDState{}, 0, s.refuseRead(ctx, o, serviceIDRefusal(domain.VerbRead, state, o), err)
	}
	if state.ID == "" || state.Deleted {
		return domain.ServiceIDState{}, 0, errNoServiceID()
	}
	return state, f.position, nil
}

func (h *KeyAPI) deleteServiceID(c *gin.Context) {
	pos, err := h.Commands.DeleteServiceID(c.Request.Context(), orderOf(c), c.Param("id"))
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	httpx.Position(c, pos)
	c.Status(http.StatusNoContent)
}
