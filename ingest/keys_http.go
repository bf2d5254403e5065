package ingest

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/httpx"
	"example.com/keytrail/internal/keystore"
)

const keyBodyBytesMax = 64 << 10

// KeyActivity is how often, and when last, a key was signed in with.
type KeyActivity struct {
	LastAuthn  *time.Time
	AuthnCount uint64
}

// ActivityReader counts sign-ins; the read side does.
type ActivityReader interface {
	KeyActivity(ctx context.Context, account domain.AccountID, id domain.KeyID) (KeyActivity, error)
}

// UseRecorder records one use durably before it returns, with its position.
type UseRecorder interface {
	RecordUse(ctx context.Context, u domain.Use) (position uint64, err error)
}

// KeyAPIConfig is what [NewKeyAPI] needs; every field is required.
type KeyAPIConfig struct {
	Commands  *Commands
	Auth      *auth.Authenticator
	Directory *auth.Directory
	Refusals  *Refusals
	Uses      UseRecorder
	Lister    KeyLister
	Waiter    Waiter
	Activity  ActivityReader
	Reports   *Reports
	Reads     ReadRecorder
	Used      UsedReader
	Now       func() time.Time
}

// KeyAPI is the HTTP surface of keys, service IDs, accounts and sign-in, in the shape
// of IBM's IAM Identity API.
type KeyAPI struct{ KeyAPIConfig }

// NewKeyAPI returns the surface; Register puts it on a router.
func NewKeyAPI(cfg KeyAPIConfig) *KeyAPI { return &KeyAPI{KeyAPIConfig: cfg} }

// orderOf returns who asks, in which request.
func orderOf(c *gin.Context) Order {
	return Order{Caller: auth.CallerOf(c), CorrelationID: httpx.Trace(c), RequestID: httpx.RequestID(c)}
}

// refOf returns the key that the path names.
func refOf(c *gin.Context) KeyRef {
	return KeyRef{ID: domain.KeyID(c.Param("id")), Account: domain.AccountID(c.Query("account_id"))}
}

// createKeyBody is the body of POST /v1/apikeys.
type createKeyBody struct {
	Name             string            `json:"name"`
	IAMID            domain.IAMID      `json:"iam_id"`
	Description      string            `json:"description"`
	AccountID        domain.AccountID  `json:"account_id"`
	APIKey           *string           `json:"apikey"`
	StoreValue       *bool             `json:"store_value"`
	SupportSessions  bool              `json:"support_sessions"`
	ActionWhenLeaked domain.LeakAction `json:"action_when_leaked"`
	ExpiresAt        string            `json:"expires_at"`
	Type             domain.KeyKind    `json:"type" enum:"user,serviceid,classic" description:"Ours: classic makes a classic infrastructure key. Default: what the identity's keys are."`
}

// createKey answers 201 with the key's value, which is shown this once.
func (h *KeyAPI) createKey(c *gin.Context) {
	n, err := bindNewKey(c)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	key, secret, pos, err := h.Commands.CreateKey(c.Request.Context(), orderOf(c), n)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	httpx.Position(c, pos)
	h.answerKey(c, http.StatusCreated, key.State(), func(v *keyView) { v.APIKey = secret.Reveal() })
}

func bindNewKey(c *gin.Context) (NewKey, error) {
	var b createKeyBody
	if err := httpx.BindJSON(c, &b); err != nil {
		return NewKey{}, err //nolint:wrapcheck // Worded for the caller.
	}
	value, err := chosenValue(b.APIKey)
	if err != nil {
		return NewKey{}, err
	}
	if b.Type == domain.KindServiceCredential {
		return NewKey{}, domain.Errorf(domain.Invalid, "is made with its service ID: POST /v1/serviceids with apikey").WithField("type").WithMessageCode("invalid_type")
	}
	locked, err := boolHeader(c, "Entity-Lock")
	if err != nil {
		return NewKey{}, err
	}
	disabled, err := boolHeader(c, "Entity-Disable")
	if err != nil {
		return NewKey{}, err
	}
	return NewKey{
		Account: b.AccountID, IAMID: b.IAMID, Name: b.Name, Description: b.Description, ExpiresAt: b.ExpiresAt,
		ActionOnLeak: b.ActionWhenLeaked, SupportSessions: b.SupportSessions, Locked: locked, Disabled: disabled, Value: value, Type: b.Type, StoreValue: b.StoreValue != nil && *b.StoreValue,
	}, nil
}

// chosenValue returns the value that a caller chose, or none.
func chosenValue(text *string) (keystore.Secret, error) {
	if text == nil {
		return keystore.Secret{}, nil
	}
	return keystore.NewSecret(*text), domain.CheckChosenValue(*text) //nolint:wrapcheck // The domain's words are the answer.
}

func boolHeader(c *gin.Context, name string) (bool, error) {
	return parseBool(name, c.GetHeader(name))
}

func boolQuery(c *gin.Context, name string) (bool, error) {
	return parseBool(name, c.Query(name))
}

func parseBool(field, text string) (bool, error) {
	if text == "" {
		return false, nil
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		return false, domain.Errorf(domain.Invalid, "must be true or false").WithField(field).WithMessageCode("not_boolean")
	}
	return v, nil
}

// updateKeyBody is the body of PUT /v1/apikeys/{id}; what is absent stays as it is.
type updateKeyBody struct {
	Name             *string            `json:"name,omitempty"`
	Description      *string            `json:"description,omitempty"`
	SupportSessions  *bool              `json:"support_sessions,omitempty"`
	ActionWhenLeaked *domain.LeakAction `json:"action_when_leaked,omitempty"`
	ExpiresAt        *string            `json:"expires_at,omitempty"`
}

// updateKey answers 200 with the key after the change. A stale entity tag is 409, as
// with IBM, and so is a locked key.
func (h *KeyAPI) updateKey(c *gin.Context) {
	var b updateKeyBody
	if err := httpx.BindJSON(c, &b); err != nil {
		httpx.Fail(c, err)
		return
	}
	o := orderOf(c)
	cmd := domain.UpdateKey{
		IfMatch: c.GetHeader("If-Match"), Name: b.Name, Description: b.Description, ExpiresAt: b.ExpiresAt,
		ActionOnLeak: b.ActionWhenLeaked, SupportSessions: b.SupportSessions, By: o.Caller.Initiator, At: h.Now(),
	}
	key, pos, err := h.Commands.ChangeKey(c.Request.Context(), o, refOf(c), cmd, b)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	httpx.Position(c, pos)
	h.answerKey(c, http.StatusOK, key.State())
}

// change returns the handler of a command without a body. It answers 204 only when the
// change is durable; a repeat changes nothing and is 204 too.
func (h *KeyAPI) change(command func(Order, time.Time) domain.KeyCommand) gin.HandlerFunc {
	return func(c *gin.Context) {
		o := orderOf(c)
		_, pos, err := h.Commands.ChangeKey(c.Request.Context(), o, refOf(c), command(o, h.Now()), nil)
		if err != nil {
			httpx.Fail(c, err)
			return
		}
		httpx.Position(c, pos)
		c.Status(http.StatusNoContent)
	}
}

// getKey answers from the fold of the key's stream. With as_of it answers what was true
// then, also of a key that is deleted since.
func (h *KeyAPI) getKey(c *gin.Context) {
	h.showKey(c, refOf(c), true)
}

// keyByValue finds a key by the value in the header IAM-ApiKey, and never echoes it.
func (h *KeyAPI) keyByValue(c *gin.Context) {
	value := c.GetHeader("IAM-ApiKey")
	if value == "" {
		httpx.Fail(c, domain.Errorf(domain.Invalid, "the header is required").WithField("IAM-ApiKey").WithMessageCode("missing_apikey"))
		return
	}
	state, err := h.Auth.Find(c.Request.Context(), keystore.NewSecret(value))
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	h.showKey(c, KeyRef{ID: state.ID}, false)
}

// showKey answers with what the query asks of the key that ref names, with reveal also with
// the value, where it is kept and the caller may read it.
func (h *KeyAPI) showKey(c *gin.Context, ref KeyRef, reveal bool) {
	read := h.Commands.ReadKeyState
	if c.Query("as_of") != "" || c.Query("include_history") != "" {
		read = h.Commands.ReadKey
	}
	key, position, err := read(c.Request.Context(), orderOf(c), ref)
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	opt, err := showOptionsOf(c, h.Now())
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	state, ok := key.State(), !key.State().Deleted
	if opt.asOf != nil {
		state, ok = domain.StateAt(key.History(), *opt.asOf)
	}
	if !ok {
		httpx.Fail(c, domain.Errorf(domain.NotFound, "no such API key at that time; as_of reads earlier times").WithMessageCode("key_not_found"))
		return
	}
	var extra []func(*keyView)
	if reveal && opt.asOf == nil && h.Commands.MayReveal(orderOf(c), state) {
		again, value, at, err := h.Commands.RevealKey(c.Request.Context(), orderOf(c), ref)
		if err != nil {
			httpx.Fail(c, err)
			return
		}
		state, position = again.State(), at
		extra = append(extra, func(v *keyView) { v.APIKey = value.Reveal() })
	}
	if opt.asOf != nil {
		extra = append(extra, asOf(*opt.asOf, state))
	}
	if opt.history {
		extra = append(extra, withHistory(key.History(), opt.asOf))
	}
	if opt.activity {
		activity, err := h.activityOf(c, state)
		if err != nil {
			httpx.Fail(c, err)
			return
		}
		extra = append(extra, withActivity(activity))
	}
	if err := h.recordRead(c, state); err != nil {
		httpx.Fail(c, err)
		return
	}
	httpx.Position(c, position)
	h.answerKey(c, http.StatusOK, state, extra...)
}

// activityOf counts the sign-ins of a key, once the tables hold what the caller asks for.
func (h *KeyAPI) activityOf(c *gin.Context, s domain.KeyState) (KeyActivity, error) {
	if err := h.waitWritten(c, domain.KeysQuery{Accounts: []domain.AccountID{s.Account}}); err != nil {
		return KeyActivity{}, err
	}
	return h.Activity.KeyActivity(c.Request.Context(), s.Account, s.ID) //nolint:wrapcheck // It says what was attempted.
}

// answerKey answers one key.
func (h *KeyAPI) answerKey(c *gin.Context, status int, s domain.KeyState, extra ...func(*keyView)) {
	v := h.viewOf(s)
	for _, add := range extra {
		add(&v)
	}
	context := httpx.Context(c)
	v.Context = &context
	c.Header("Etag", v.EntityTag)
	c.JSON(status, v)
}

// refused records a request whose credential is not good here: a command as what it would
// have done, a read as the failed sign-in that it is. A read without any credential is
// neither; it is counted by the server's metrics only.
func (h *KeyAPI) refused(c *gin.Context, tried auth.Tried, reason error) error {
	who := tried.Initiator
	e := domain.CommandRefused{Action: actionOf(c), Account: who.Account}
	if id := c.Param("id"); domain.ValidID(id) {
		e.Target = id
	}
	switch {
	case c.Request.Method != http.MethodGet:
	case tried.Nothing:
		return nil
	default:
		e = keyRefusal(domain.VerbLogin, tried.Key, nil)
	}
	if tried.Fingerprint != "" {
		e.Request = requestOf(map[string]string{"key_fingerprint": tried.Fingerprint})
	}
	if e.Account == "" {
		e.Account = h.Directory.Home()
	}
	err := recordRefusal(c.Request.Context(), h.Refusals, who, httpx.Trace(c), e, reason)
	if refusedSignIn(err) {
		return nil
	}
	return err
}

// actionOf names what a route would have done, for callers whom nobody knows.
func actionOf(c *gin.Context) string {
	route := c.Request.Method + " " + c.FullPath()
	switch route {
	case "POST /v1/activity/accounts/:id/report":
		return domain.ActionReportCreate
	case "POST /v1/apikeys":
		return domain.KeyAction(domain.KindUser, domain.VerbCreate)
	case "PUT /v1/apikeys/:id":
		return domain.KeyAction(domain.KindUser, domain.VerbUpdate)
	case "DELETE /v1/apikeys/:id":
		return domain.KeyAction(domain.KindUser, domain.VerbDelete)
	case "POST /v1/apikeys/:id/rotate":
		return domain.KeyAction(domain.KindUser, domain.VerbRotate)
	case "POST /v1/apikeys/:id/lock":
		return domain.KeyAction(domain.KindUser, domain.VerbLock)
	case "DELETE /v1/apikeys/:id/lock":
		return domain.KeyAction(domain.KindUser, domain.VerbUnlock)
	case "POST /v1/apikeys/:id/disable":
		return domain.KeyAction(domain.KindUser, domain.VerbDisable)
	case "DELETE /v1/apikeys/:id/disable":
		return domain.KeyAction(domain.KindUser, domain.VerbEnable)
	case "POST /v1/apikeys/verify", "POST /v1/authorize":
		return domain.ActionKeyVerify
	case "POST /identity/introspect":
		return domain.ActionTokenIntrospect
	case "DELETE /v1/sessions/:id":
		return domain.ActionSessionRevoke
	case "POST /v1/accounts":
		return domain.ActionAccountCreate
	case "PUT /v1/accounts/:id/limits/identity":
		return domain.ActionLimitsUpdate
	case "POST /v1/accounts/:id/limits/identity":
		return domain.ActionLimitsRead
	case "POST /v1/usage", "POST /v1/imports/cloudtrail":
		return domain.ActionUsageRecord
	}
	if action := serviceIDActionOf(route); action != "" {
		return action
	}
	return accountActionOf(route)
}
