package ingest

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/apidoc"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/httpx"
	"example.com/keytrail/internal/keystore"
)

// introspectRequest describes the form of POST /identity/introspect.
type introspectRequest struct {
	Token string `formData:"token" required:"true"`
}

// introspectView is the answer, as RFC 7662 has it, with the fields of IBM's tokens. Of a token
// that is not good, or not the caller's to know of, it says only that.
type introspectView struct {
	Active    bool              `json:"active"`
	IAMID     domain.IAMID      `json:"iam_id,omitempty"`
	Subject   string            `json:"sub,omitempty"`
	Account   *introspectedAcct `json:"account,omitempty"`
	KeyID     domain.KeyID      `json:"apikey_id,omitempty"`
	SessionID string            `json:"session_id,omitempty"`
	TokenID   string            `json:"jti,omitempty"`
	Issuer    string            `json:"iss,omitempty"`
	IssuedAt  int64             `json:"iat,omitempty"`
	ExpiresAt int64             `json:"exp,omitempty"`
	Grant     string            `json:"grant_type,omitempty"`
	Scope     string            `json:"scope,omitempty"`
	TokenType string            `json:"token_type,omitempty"`
}

type introspectedAcct struct {
	ID domain.AccountID `json:"bss"`
}

func (h *KeyAPI) introspectRoutes() apidoc.Table {
	return apidoc.Table{{
		Method: http.MethodPost, Path: "/identity/introspect", Group: groupSignIn, Summary: "Say whether a token is good now.",
		Description: "For the caller's own tokens, and with the role Verifier for those of its accounts. A token ends at once with its key, its identity or its session.",
		Request:     introspectRequest{}, Answers: apidoc.OK(introspectView{}), Handler: h.introspect,
	}}
}

// introspect says what a token is worth. To whom it is no business, none is good.
func (h *KeyAPI) introspect(c *gin.Context) {
	if err := c.Request.ParseForm(); err != nil {
		httpx.Fail(c, domain.Errorf(domain.Invalid, "the body is no form").WithMessageCode("invalid_form"))
		return
	}
	secret := keystore.NewSecret(c.Request.PostForm.Get("token"))
	if secret.Empty() {
		httpx.Fail(c, domain.Errorf(domain.Invalid, "is required").WithField("token").WithMessageCode("missing_token"))
		return
	}
	token, err := h.Auth.Introspect(c.Request.Context(), secret)
	if err != nil && domain.CodeOf(err) != domain.Unauthenticated {
		httpx.Fail(c, err)
		return
	}
	httpx.Position(c, h.Directory.Reached())
	c.Header("Cache-Control", "no-store")
	if err != nil || !h.mayIntrospect(auth.CallerOf(c), token.Key) {
		c.JSON(http.StatusOK, introspectView{})
		return
	}
	c.JSON(http.StatusOK, introspectView{
		Active: true, IAMID: token.Key.IAMID, Subject: string(token.Key.IAMID), Account: &introspectedAcct{ID: token.Key.Account},
		KeyID: token.Key.ID, SessionID: token.Session, TokenID: token.ID, Issuer: auth.Issuer,
		IssuedAt: token.IssuedAt.Unix(), ExpiresAt: token.ExpiresAt.Unix(), Grant: token.Grant, Scope: tokenScope, TokenType: "Bearer",
	})
}

// mayIntrospect reports whether the caller may know what the tokens of key are worth: it acts
// as the same identity, or may verify keys where that identity is anything.
func (h *KeyAPI) mayIntrospect(caller auth.Caller, key domain.KeyState) bool {
	if caller.Initiator.IAMID == key.IAMID || caller.Can(domain.RightVerify, key.Account) {
		return true
	}
	for _, account := range h.Directory.AccountsOf(key.IAMID) {
		if h.Directory.Standing(key.IAMID, account).Known() && caller.Can(domain.RightVerify, account) {
			return true
		}
	}
	return false
}
