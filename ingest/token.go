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

// grantAPIKey is the one grant that we know.
const grantAPIKey = "urn:ibm:params:oauth:grant-type:apikey" //nolint:gosec // A name from a standard, no credential.

// codeUnknownKey is IBM's code for a key that it does not know.
const codeUnknownKey = "BXNIM0415E"

type tokenView struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"` // There is none; IBM says so with this word.
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"`
	Expiration   int64  `json:"expiration"`
	Scope        string `json:"scope"`
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

// token signs in with a key. The token is answered only when the sign-in is durable as
// a use of the key; a sign-in that is refused is recorded too, before the answer.
func (h *KeyAPI) token(c *gin.Context) {
	secret, err := keyOfForm(c)
	if err != nil {
		failToken(c, err)
		return
	}
	key, err := h.Auth.Key(c.Request.Context(), secret)
	switch {
	case err == nil:
	case domain.CodeOf(err) != domain.Unauthenticated: // Nobody can tell whether the key is good.
		httpx.Fail(c, err)
		return
	case key.ID == "":
		failToken(c, h.unknownKey(c, secret, err))
		return
	}
	who := h.Auth.InitiatorOf(c, key)
	pos, recordErr := h.Uses.RecordUse(c.Request.Context(), h.loginOf(c, key, who, err))
	if recordErr != nil {
		httpx.Fail(c, recordErr)
		return
	}
	if err != nil {
		failToken(c, err)
		return
	}
	token, end, err := h.Auth.Issue(key, httpx.RequestID(c))
	if err != nil {
		httpx.Fail(c, err)
		return
	}
	httpx.Position(c, pos)
	c.Header("Cache-Control", "no-store")
	c.JSON(http.StatusOK, tokenView{
		AccessToken: token.Reveal(), RefreshToken: "not_supported", TokenType: "Bearer",
		ExpiresIn: int64(end.Sub(h.Now()).Seconds()), Expiration: end.Unix(), Scope: "ibm openid",
	})
}

// keyOfForm returns the key that a sign-in gives, in the form or as the password of the
// user "apikey". Any other user name is that of an OAuth client, which we do not need.
func keyOfForm(c *gin.Context) (keystore.Secret, error) {
	if err := c.Request.ParseForm(); err != nil {
		return keystore.Secret{}, domain.Errorf(domain.Invalid, "the body is no form").WithMessageCode("invalid_form")
	}
	if grant := c.Request.PostForm.Get("grant_type"); grant != grantAPIKey {
		return keystore.Secret{}, domain.Errorf(domain.Invalid, "must be %s", grantAPIKey).
			WithField("grant_type").WithMessageCode("unsupported_grant_type")
	}
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
func (h *KeyAPI) loginOf(c *gin.Context, key domain.KeyState, who domain.Initiator, refused error) domain.Use {
	u := domain.Use{
		ID: domain.DeriveID("login", httpx.RequestID(c)).String(), Time: h.Now().UTC(), Account: key.Account, KeyID: key.ID,
		IAMID: key.IAMID, Action: domain.KeyAction(key.Kind, domain.VerbLogin), Outcome: domain.OutcomeSuccess,
		Status: http.StatusOK, Source: who.Address, UserAgent: who.Agent, RequestID: httpx.Trace(c),
	}
	if refused != nil {
		u.Outcome, u.Status, u.ErrorCode = domain.OutcomeFailure, http.StatusBadRequest, messageCodeOf(refused)
	}
	return u
}

// unknownKey records a sign-in with a key that nobody knows, under the operator's
// account, with the fingerprint of what was tried. Floods from one address fold.
func (h *KeyAPI) unknownKey(c *gin.Context, secret keystore.Secret, err error) error {
	e := domain.CommandRefused{
		Action: domain.KeyAction(domain.KindUser, domain.VerbLogin), Account: h.Directory.Home(), Status: http.StatusBadRequest,
		Request: requestOf(map[string]string{"key_fingerprint": h.Auth.Fingerprint(secret)}),
	}
	return recordRefusal(c.Request.Context(), h.Refusals, auth.Anonymous(c), httpx.Trace(c), e, err)
}

// failToken answers a refused sign-in in IBM's words; what is no refusal goes the
// common way.
func failToken(c *gin.Context, err error) {
	switch domain.CodeOf(err) {
	case domain.Invalid, domain.Unauthenticated:
	case domain.Forbidden, domain.NotFound, domain.Conflict, domain.PreconditionFailed, domain.TooLarge,
		domain.Unavailable, domain.Internal:
		httpx.Fail(c, err)
		return
	}
	code := messageCodeOf(err)
	if code == "invalid_credential" {
		code = codeUnknownKey
	}
	c.AbortWithStatusJSON(http.StatusBadRequest, tokenError{
		Context: httpx.Context(c), ErrorCode: code, ErrorMessage: strings.TrimSpace(err.Error()), Trace: httpx.Trace(c),
	})
}

// keySet answers the public keys that check our tokens.
func (h *KeyAPI) keySet(c *gin.Context) {
	c.JSON(http.StatusOK, keySetView{Keys: h.Auth.KeySet()})
}
