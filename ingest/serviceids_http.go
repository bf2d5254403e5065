package ingest

import (
	"context"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/apidoc"
	"example.com/keytrail/internal/httpx"
)

// serviceIDView is a service ID as the API shows it; the field names are IBM's.
type serviceIDView struct {
	Context     *httpx.RequestContext `json:"context,omitempty"`
	ID          string                `json:"id"`
	IAMID       domain.IAMID          `json:"iam_id"`
	EntityTag   string                `json:"entity_tag"`
	CRN         string                `json:"crn"`
	Locked      bool                  `json:"locked"`
	CreatedAt   string                `json:"created_at"`
	CreatedBy   domain.IAMID          `json:"created_by,omitempty"` // Ours.
	ModifiedAt  string                `json:"modified_at"`
	AccountID   domain.AccountID      `json:"account_id"`
	Name        string                `json:"name"`
	Description string                `json:"description,omitempty"`
	Instances   []string              `json:"unique_instance_crns,omitempty"`
	History     []historyView         `json:"history,omitempty"`
	Key         *keyView              `json:"apikey,omitempty"` // Only at creation.
	Activity    *activityView         `json:"activity,omitempty"`
}

func serviceIDViewOf(s domain.ServiceIDState) serviceIDView {
	return serviceIDView{
		ID: s.ID, IAMID: s.IAMID, EntityTag: s.EntityTag(), CRN: domain.ServiceIDCRN(s.Account, s.ID), Locked: s.Locked,
		CreatedAt: showTime(s.CreatedAt), CreatedBy: s.CreatedBy, ModifiedAt: showTime(s.ModifiedAt), AccountID: s.Account,
		Name: s.Name, Description: s.Description, Instances: s.Instances,
	}
}

// createServiceIDBody is the body of POST /v1/serviceids.
type createServiceIDBody struct {
	AccountID   domain.AccountID `json:"account_id"`
	Name        string           `json:"name"`
	Description string           `json:"description,omitempty"`
	GroupID     string           `json:"group_id,omitempty" description:"There are no groups: it must be empty."`
	Instances   []string         `json:"unique_instance_crns,omitempty"`
	Key         *innerKeyBody    `json:"apikey,omitempty" description:"Make a key with it, in the same call."`
}

// innerKeyBody is a key within the body of POST /v1/serviceids.
type innerKeyBody struct {
	Name             string            `json:"name"`
	Description      string            `json:"description,omitempty"`
	APIKey           *string           `json:"apikey,omitempty"`
	StoreValue       *bool             `json:"store_value,omitempty"`
	ActionWhenLeaked domain.LeakAction `json:"action_when_leaked,omitempty"`
	ExpiresAt        string            `json:"expires_at,omitempty"`
}

type createServiceIDRequest struct {
	Lock bool `header:"Entity-Lock" description:"Create it locked."`
	createServiceIDBody
}

type getServiceIDRequest struct {
	ID       string `path:"id"`
	History  bool   `query:"include_history" description:"Show every change."`
	Activity bool   `query:"include_activity" description:"Count the sign-ins of its keys."`
}

// updateServiceIDBody is the body of PUT /v1/serviceids/{id}; what is absent stays as it is.
type updateServiceIDBody struct {
	Name        *string   `json:"name,omitempty"`
	Description *string   `json:"description,omitempty"`
	Instances   *[]string `json:"unique_instance_crns,omitempty"`
}

type updateServiceIDRequest struct {
	ID      string `path:"id" json:"-"`
	IfMatch string `header:"If-Match" required:"true" description:"The entity tag that was read, or *." json:"-"`
	updateServiceIDBody
}

// serviceIDRoutes are IBM's, whose SDKs end the path of the collection with a slash.
func (h *KeyAPI) serviceIDRoutes() apidoc.Table {
	created := []apidoc.Answer{{Status: http.StatusCreated, Body: serviceIDView{}, Description: "The key's value, if one was asked for, is shown this once."}}
	done := []apidoc.Answer{{Status: http.StatusNoContent}}
	table := apidoc.Table{ //nolint:prealloc // It is a literal with four rows more.
		{Method: http.MethodGet, Path: "/v1/serviceids/:id", Group: groupAccounts, Summary: "One service ID.", Request: getServiceIDRequest{}, Answers: apidoc.OK(serviceIDView{}), Handler: h.getServiceID},
		{Method: http.MethodPut, Path: "/v1/serviceids/:id", Group: groupAccounts, Summary: "Change the given fields.", Request: updateServiceIDRequest{}, Answers: apidoc.OK(serviceIDView{}), Handler: h.updateServiceID},
		{Method: http.MethodDelete, Path: "/v1/serviceids/:id", Group: groupAccounts, Summary: "Delete a service ID; its keys are refused from then on, and deleted.", Request: idRequest{}, Answers: done, Handler: h.changeServiceID(domain.DeleteServiceID{})},
		{Method: http.MethodPost, Path: "/v1/serviceids/:id/lock", Group: groupAccounts, Summary: "Refuse changes of a service ID; its keys work.", Request: idRequest{}, Answers: done, Handler: h.changeServiceID(domain.LockServiceID{})},
		{Method: http.MethodDelete, Path: "/v1/serviceids/:id/lock", Group: groupAccounts, Summary: "Allow changes of a service ID.", Request: idRequest{}, Answers: done, Handler: h.changeServiceID(domain.UnlockServiceID{})},
	}
	for _, path := range []string{"/v1/serviceids", "/v1/serviceids/"} {
		table = append(
			table,
			apidoc.Route{Method: http.MethodGet, Path: path, Group: groupAccounts, Summary: "List service IDs.", Request: listServiceIDsRequest{}, Answers: apidoc.OK(serviceIDListView{}), Handler: h.listServiceIDs},
			apidoc.Route{Method: http.MethodPost, Path: path, Group: groupAccounts, Summary: "Make a service ID, and a key with it.", Request: createServiceIDRequest{}, Answers: created, Handler: h.createServiceID},
		)
	}
	return table
}

// serviceIDActionOf is actionOf for these routes; "" for others.
func serviceIDActionOf(route string) string {
	switch route {
	case "POST /v1/serviceids", "POST /v1/serviceids/":
		return domain.ServiceIDAction(domain.VerbCreate)
	case "PUT /v1/serviceids/:id":
		return domain.ServiceIDAction(domain.VerbUpdate)
	case "POST /v1/serviceids/:id/lock":
		return domain.ServiceIDAction(domain.VerbLock)
	case "DELETE /v1/serviceids/:id/lock":
		return domain.ServiceIDAction(domain.VerbUnlock)
	case "DELETE /v1/serviceids/:id":
		return domain.ServiceIDAction(domain.VerbDelete)
	}
	return ""
}

func (h *KeyAPI) createServiceID(c *gin.Context) {
	n, err := bindNewServiceID(c)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	made, err := h.Commands.CreateServiceID(c.Request.Context(), orderOf(c), n)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	httpx.Position(c, made.Position)
	h.answerServiceID(c, http.StatusCreated, made.State, func(v *serviceIDView) {
		if made.Key != nil {
			key := h.viewOf(*made.Key)
			key.APIKey = made.Secret.Reveal()
			v.Key = &key
		}
	})
}

func bindNewServiceID(c *gin.Context) (NewServiceID, error) {
	var b createServiceIDBody
	if err := httpx.BindJSON(c, &b); err != nil {
		return NewServiceID{}, err //nolint:wrapcheck // Worded for the caller.
	}
	if b.GroupID != "" {
		return NewServiceID{}, domain.Errorf(domain.Invalid, "there are no groups of service IDs").WithField("group_id").WithMessageCode("no_groups")
	}
	locked, err := boolHeader(c, "Entity-Lock")
	if err != nil {
		return NewServiceID{}, err
	}
	n := NewServiceID{Account: b.AccountID, Name: b.Name, Description: b.Description, Instances: b.Instances, Locked: locked}
	if b.Key == nil {
		return n, nil
	}
	value, err := chosenValue(b.Key.APIKey)
	if err != nil {
		return n, err
	}
	n.Key = &NewKey{
		Name: b.Key.Name, Description: b.Key.Description, ExpiresAt: b.Key.ExpiresAt, ActionOnLeak: b.Key.ActionWhenLeaked,
		StoreValue: b.Key.StoreValue != nil && *b.Key.StoreValue, Value: value,
	}
	return n, nil
}

func (h *KeyAPI) getServiceID(c *gin.Context) {
	opt, err := showOptionsOf(c, h.Now())
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	s, history, pos, err := h.Commands.ReadServiceID(c.Request.Context(), orderOf(c), c.Param("id"), opt.history)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	var activity *activityView
	if opt.activity {
		if activity, err = h.serviceIDActivity(c.Request.Context(), s); err != nil {
			httpx.Fail(c, err)
			return
		}
	}
	httpx.Position(c, pos)
	h.answerServiceID(c, http.StatusOK, s, func(v *serviceIDView) { v.History, v.Activity = historiesOf(history), activity })
}

// serviceIDActivity sums the sign-ins of all keys that the service ID ever had.
func (h *KeyAPI) serviceIDActivity(ctx context.Context, s domain.ServiceIDState) (*activityView, error) {
	var count uint64
	var last *time.Time
	for _, id := range h.Directory.KeyIDsOf(s.Account, s.IAMID) {
		a, err := h.Activity.KeyActivity(ctx, s.Account, id)
		if err != nil {
			return nil, err //nolint:wrapcheck // The read side words it.
		}
		count += a.AuthnCount
		if a.LastAuthn != nil && (last == nil || a.LastAuthn.After(*last)) {
			last = a.LastAuthn
		}
	}
	v := &activityView{AuthnCount: count}
	if last != nil {
		v.LastAuthn = showTime(*last)
	}
	return v, nil
}

// updateServiceID answers 200 with the service ID after the change. A stale entity tag is
// 409, as with IBM, and so is a locked service ID.
func (h *KeyAPI) updateServiceID(c *gin.Context) {
	var b updateServiceIDBody
	if err := httpx.BindJSON(c, &b); err != nil {
		httpx.Fail(c, err)
		return
	}
	cmd := domain.UpdateServiceID{IfMatch: c.GetHeader("If-Match"), Name: b.Name, Description: b.Description, Instances: b.Instances}
	s, pos, err := h.Commands.ChangeServiceID(c.Request.Context(), orderOf(c), c.Param("id"), cmd, b)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	httpx.Position(c, pos)
	h.answerServiceID(c, http.StatusOK, s, nil)
}

// changeServiceID returns the handler of a command without a body and without an answer.
func (h *KeyAPI) changeServiceID(cmd domain.ServiceIDCommand) gin.HandlerFunc {
	return func(c *gin.Context) {
		_, pos, err := h.Commands.ChangeServiceID(c.Request.Context(), orderOf(c), c.Param("id"), cmd, nil)
		if err != nil {
			httpx.Fail(c, err)
			return
		}
		httpx.Position(c, pos)
		c.Status(http.StatusNoContent)
	}
}

func (h *KeyAPI) answerServiceID(c *gin.Context, status int, s domain.ServiceIDState, add func(*serviceIDView)) {
	v := serviceIDViewOf(s)
	if add != nil {
		add(&v)
	}
	context := httpx.Context(c)
	v.Context = &context
	c.Header("Etag", v.EntityTag)
	c.JSON(status, v)
}
