package ingest

import (
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/httpx"
	"example.com/keytrail/internal/keystore"
)

// The grants that we know.
const (
	grantAPIKey  = "urn:ibm:params:oauth:grant-type:apikey" //nolint:gosec // A name from a standard, no credential.
	grantRefresh = "refresh_token"
)

// tokenScope is IBM's: what a token allows is decided where it is shown.
const tokenScope = "ibm openid"

// noRefreshToken is what IBM says where there is none.
const noRefreshToken = "not_supported"

// codeUnknownKey is IBM's code for a key that it does not know.
const codeUnknownKey = "BXNIM0415E"

type tokenView struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"` // Or noRefreshToken.
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"`
	Expiration   int64  `json:"expiration"`
	Scope        string `json:"scope"`
	SessionID    string `json:"session_id,omitempty"`
}

// keySetView is the answer to GET /identity/keys, a JWK set (RFC 7517).
type keySetView struct {
	Keys []auth.JWK `json:"keys"`
}

// tokenError is the body of a refused sign-in, as IBM's IAM words it.
type tokenError struct {
	Context      httpx.RequestContext `json:"context"`
	ErrorCode    string               `json:"errorCode"`
	ErrorMessage string               `json:"errorMessage"`
	Trace        string               `json:"trace"`
}

// token signs in with a key or a refresh token. The tokens are answered only when the
// sign-in is durable; one that is refused is recorded too, before the answer.
func (h *KeyAPI) token(c *gin.Context) {
	if err := c.Request.ParseForm(); err != nil {
		failToken(c, domain.Errorf(domain.Invalid, "the body is no form").WithMessageCode("invalid_form"))
		return
	}
	switch c.Request.PostForm.Get("grant_type") {
	case grantAPIKey:
		h.signIn(c)
	case grantRefresh:
		h.refresh(c)
	default:
		failToken(c, domain.Errorf(domain.Invalid, "must be %s or %s", grantAPIKey, grantRefresh).
			WithField("grant_type").WithMessageCode("unsupported_grant_type"))
	}
}

// signIn signs in with a key, which is a use of it.
func (h *KeyAPI) signIn(c *gin.Context) {
	secret, err := keyOfForm(c)
	if err != nil {
		failToken(c, err)
		return
	}
	key, err := h.Auth.Key(c.Request.Context(), secret, auth.AddressOf(c))
	switch {
	case err == nil:
	case !refusedSignIn(err): // Nobody can tell whether the key is good.
		httpx.Fail(c, err)
		return
	case key.ID == "":
		failToken(c, h.unknownKey(c, domain.KeyAction(domain.KindUser, domain.VerbLogin), secret, err))
		return
	}
	who := h.Auth.InitiatorOf(c, key)
	var session *domain.SessionState
	if err == nil && key.SupportSessions {
		s, _, err := h.Commands.BeginSession(c.Request.Context(), h.signedIn(c, who), key, h.Directory.SessionLimits(key.Account))
		if err != nil {
			httpx.Fail(c, err)
			return
		}
		session = &s
	}
	pos, recordErr := h.Uses.RecordUse(c.Request.Context(), h.loginOf(c, domain.KeyAction(key.Kind, domain.VerbLogin), key, who, err))
	if recordErr != nil {
		httpx.Fail(c, recordErr)
		return
	}
	if err != nil {
		failToken(c, err)
		return
	}
	h.answerTokens(c, key, session, pos)
}

// refresh replaces the tokens of a session. That is no use of its key, which is not shown.
func (h *KeyAPI) refresh(c *gin.Context) {
	secret := keystore.NewSecret(c.Request.PostForm.Get("refresh_token"))
	if secret.Empty() {
		failToken(c, domain.Errorf(domain.Invalid, "is required").WithField("refresh_token").WithMessageCode("missing_refresh_token"))
		return
	}
	token, err := h.Auth.Refresh(c.Request.Context(), secret, auth.AddressOf(c))
	if err != nil && !refusedSignIn(err) {
		httpx.Fail(c, err)
		return
	}
	if token.Key.ID == "" {
		failToken(c, h.unknownKey(c, domain.ActionSessionRefresh, secret, err))
		return
	}
	key, who := token.Key, h.Auth.InitiatorOf(c, token.Key)
	var (
		session domain.SessionState
		pos     uint64
	)
	if err == nil {
		session, pos, err = h.Commands.RefreshSession(c.Request.Context(), h.signedIn(c, who), token.Session, token.Generation, h.Directory.SessionLimits(key.Account))
	}
	switch {
	case err == nil:
		h.answerTokens(c, key, &session, pos)
	case !refusedSignIn(err):
		httpx.Fail(c, err)
	default:
		e := keyRefusal(domain.VerbLogin, key, map[string]string{"session_id": token.Session})
		e.Action, e.Status = domain.ActionSessionRefresh, signInStatus(err)
		failToken(c, recordRefusal(c.Request.Context(), h.Refusals, who, httpx.Trace(c), e, err))
	}
}

// refusedSignIn reports whether err says that the credential is not good here.
func refusedSignIn(err error) bool {
	code := domain.CodeOf(err)
	return code == domain.Unauthenticated || code == domain.Forbidden
}

// answerTokens answers a sign-in that is recorded.
func (h *KeyAPI) answerTokens(c *gin.Context, key domain.KeyState, session *domain.SessionState, pos uint64) {
	token, end, err := h.Auth.Issue(key, session, httpx.RequestID(c))
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	v := tokenView{
		AccessToken: token.Reveal(), RefreshToken: noRefreshToken, TokenType: "Bearer",
		ExpiresIn: max(end.Unix()-h.Now().Unix(), 0), Expiration: end.Unix(), Scope: tokenScope,
	}
	if session != nil {
		refresh, err := h.Auth.IssueRefresh(*session, httpx.RequestID(c))
		if err != nil {
			httpx.Fail(c, err)
			return
		}
		v.RefreshToken, v.SessionID = refresh.Reveal(), session.ID
	}
	httpx.Position(c, pos)
	c.Header("Cache-Control", "no-store")
	c.JSON(http.StatusOK, v)
}

// keyOfForm returns the key that a sign-in gives, in the form or as the password of the
// user "apikey". Any other user name is that of an OAuth client, which we do not need.
func keyOfForm(c *gin.Context) (keystore.Secret, error) {
	value := c.Request.PostForm.Get("apikey")
	if user, password, ok := c.Request.BasicAuth(); value == "" && ok && user == "apikey" {
		value = password
	}
	if value == "" {
		return keystore.Secret{}, domain.Errorf(domain.Invalid, "is required").WithField("apikey").WithMessageCode("missing_apikey")
	}
	return keystore.NewSecret(value), nil
}

// loginOf is the use that a sign-in with key is; refused says why it failed, if it did.
func (h *KeyAPI) loginOf(c *gin.Context, action string, key domain.KeyState, who domain.Initiator, refused error) domain.Use {
	u := domain.Use{
		ID: domain.DeriveID("login", httpx.RequestID(c)).String(), Time: h.Now().UTC(), Account: key.Account, KeyID: key.ID,
		IAMID: key.IAMID, Action: action, Outcome: domain.OutcomeSuccess,
		Status: http.StatusOK, Source: who.Address, UserAgent: who.Agent, RequestID: httpx.Trace(c),
	}
	if refused != nil {
		u.Outcome, u.Status, u.ErrorCode = domain.OutcomeFailure, signInStatus(refused), messageCodeOf(refused)
	}
	return u
}

// signInStatus is what a sign-in that is refused is answered, as IBM does.
func signInStatus(err error) int {
	if domain.CodeOf(err) == domain.Forbidden {
		return http.StatusForbidden
	}
	return http.StatusBadRequest
}

// unknownKey records a sign-in with a credential that nobody knows, under the operator's
// account, with the fingerprint of what was tried. Floods from one address fold.
func (h *KeyAPI) unknownKey(c *gin.Context, action string, secret keystore.Secret, err error) error {
	e := domain.CommandRefused{
		Action: action, Account: h.Directory.Home(), Status: http.StatusBadRequest,
		Request: requestOf(map[string]string{"key_fingerprint": h.Auth.Fingerprint(secret)}),
	}
	return recordRefusal(c.Request.Context(), h.Refusals, auth.Anonymous(c), httpx.Trace(c), e, err)
}

// failToken answers a refused sign-in in IBM's words; what is no refusal goes the
// common way.
func failToken(c *gin.Context, err error) {
	switch domain.CodeOf(err) {
	case domain.Invalid, domain.Unauthenticated, domain.Forbidden:
	case domain.NotFound, domain.Conflict, domain.PreconditionFailed, domain.TooLarge,
		domain.Unavailable, domain.Internal:
		httpx.Fail(c, err)
		return
	}
	code := messageCodeOf(err)
	if code == "invalid_credential" {
		code = codeUnknownKey
	}
	c.AbortWithStatusJSON(signInStatus(err), tokenError{
		Context: httpx.Context(c), ErrorCode: code, ErrorMessage: strings.TrimSpace(err.Error()), Trace: httpx.Trace(c),
	})
}

// keySet answers the public keys that check our tokens.
func (h *KeyAPI) keySet(c *gin.Context) {
	c.JSON(http.StatusOK, keySetView{Keys: h.Auth.KeySet()})
}
