package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/keystore"
)

const (
	// Issuer is who issues our access tokens.
	Issuer = "keytrail"
	// refreshIssuer tells refresh tokens from access tokens: neither is taken for the other.
	refreshIssuer = "keytrail/refresh"

	grantAPIKey  = "urn:ibm:params:oauth:grant-type:apikey" //nolint:gosec // A name from a standard, no credential.
	grantRefresh = "refresh_token"
)

// claims are what an access token says.
type claims struct {
	jwt.RegisteredClaims
	IAMID   domain.IAMID `json:"iam_id"`
	KeyID   domain.KeyID `json:"apikey_id"`
	Account accountClaim `json:"account"`
	Grant   string       `json:"grant_type"`
	Session string       `json:"session_id,omitempty"`
}

type accountClaim struct {
	ID domain.AccountID `json:"bss"`
}

// refreshClaims are what a refresh token says.
type refreshClaims struct {
	jwt.RegisteredClaims
	KeyID      domain.KeyID `json:"apikey_id"`
	Session    string       `json:"session_id"`
	Generation uint64       `json:"generation"`
}

// Token is an access token of ours that is good.
type Token struct {
	ID, Grant           string
	IssuedAt, ExpiresAt time.Time
	// Key is what it was made with, Session the id of the session that it belongs to or "".
	Key     domain.KeyState
	Session string
}

// RefreshToken is what a refresh token says. Whether its generation is the one that is good,
// only the session's stream knows.
type RefreshToken struct {
	Session    string
	Generation uint64
	Key        domain.KeyState
}

// Issue returns an access token for the identity of key, and when it ends: after the time
// that the account sets, with the key, or with the session. id names the token. session is
// nil where the key has none.
func (a *Authenticator) Issue(key domain.KeyState, session *domain.SessionState, id string) (keystore.Secret, time.Time, error) {
	now := a.now().Truncate(time.Second)
	end := now.Add(a.dir.SessionLimits(key.Account).AccessToken)
	c := claims{IAMID: key.IAMID, KeyID: key.ID, Account: accountClaim{ID: key.Account}, Grant: grantAPIKey}
	if key.ExpiresAt != nil {
		end = earlier(end, *key.ExpiresAt)
	}
	if session != nil {
		end, c.Session = earlier(end, session.EndsAt), session.ID
		if session.Generation > 1 {
			c.Grant = grantRefresh
		}
	}
	c.RegisteredClaims = jwt.RegisteredClaims{
		Issuer: Issuer, Subject: string(key.IAMID), ID: id, IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(end),
	}
	signed, err := a.sign(c)
	return signed, end, err
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// IssueRefresh returns the refresh token of a session's generation. id names the token.
func (a *Authenticator) IssueRefresh(s domain.SessionState, id string) (keystore.Secret, error) {
	return a.sign(refreshClaims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: refreshIssuer, Subject: string(s.IAMID), ID: id, IssuedAt: jwt.NewNumericDate(s.RefreshedAt), ExpiresAt: jwt.NewNumericDate(s.EndsAt),
		},
		KeyID: s.KeyID, Session: s.ID, Generation: s.Generation,
	})
}

func (a *Authenticator) sign(c jwt.Claims) (keystore.Secret, error) {
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, c)
	token.Header["kid"] = a.kid
	signed, err := token.SignedString(a.store.SigningKey())
	if err != nil {
		return keystore.Secret{}, fmt.Errorf("sign token: %w", err)
	}
	return keystore.NewSecret(signed), nil
}

// parse reads a token of ours that is not over at now.
func (a *Authenticator) parse(token keystore.Secret, c jwt.Claims, issuer string, now time.Time) error {
	_, err := jwt.ParseWithClaims(token.Reveal(), c, func(*jwt.Token) (any, error) { return a.public(), nil },
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}), jwt.WithIssuer(issuer),
		jwt.WithExpirationRequired(), jwt.WithTimeFunc(func() time.Time { return now }))
	switch {
	case errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return refused("token_expired", "the token has expired")
	case err != nil:
		return refused("invalid_credential", "the token is not valid")
	}
	return nil
}

// Token returns what an access token of ours says, if it, its key and its session are valid
// now and it may be used from that address. Where the key is known but refused, it comes with the
// error.
func (a *Authenticator) Token(ctx context.Context, token keystore.Secret, from netip.Addr) (Token, error) {
	return judged(ctx, a, func(now time.Time) (Token, error) {
		t, err := a.token(token, now)
		if err == nil {
			err = a.dir.CheckFrom(t.Key, from)
		}
		return t, err
	})
}

// Introspect is [Authenticator.Token] for those to whom a token was shown: from where, they
// do not say.
func (a *Authenticator) Introspect(ctx context.Context, token keystore.Secret) (Token, error) {
	return judged(ctx, a, func(now time.Time) (Token, error) { return a.token(token, now) })
}

func (a *Authenticator) token(token keystore.Secret, now time.Time) (Token, error) {
	var c claims
	if err := a.parse(token, &c, Issuer, now); err != nil {
		return Token{}, err
	}
	t := Token{ID: c.ID, Grant: c.Grant, ExpiresAt: c.ExpiresAt.Time, Session: c.Session}
	if c.IssuedAt != nil {
		t.IssuedAt = c.IssuedAt.Time
	}
	var ok bool
	if t.Key, ok = a.dir.Key(c.KeyID); !ok || t.Key.IAMID != c.IAMID {
		return Token{}, refused("invalid_credential", "the key of the token is not known")
	}
	if err := a.dir.Check(t.Key, now); err != nil {
		return t, err
	}
	return t, a.dir.checkSession(c.Session)
}

// Refresh returns what a refresh token says, if its key is valid now, its session is not
// known to be over, and it may be used from that address. Where the key is known but
// refused, it comes with the error.
func (a *Authenticator) Refresh(ctx context.Context, token keystore.Secret, from netip.Addr) (RefreshToken, error) {
	return judged(ctx, a, func(now time.Time) (RefreshToken, error) {
		var c refreshClaims
		if err := a.parse(token, &c, refreshIssuer, now); err != nil {
			return RefreshToken{}, err
		}
		key, ok := a.dir.Key(c.KeyID)
		if !ok || string(key.IAMID) != c.Subject || !domain.ValidID(c.Session) {
			return RefreshToken{}, refused("invalid_credential", "the key of the token is not known")
		}
		t := RefreshToken{Session: c.Session, Generation: c.Generation, Key: key}
		for _, check := range []func() error{
			func() error { return a.dir.Check(key, now) },
			func() error { return a.dir.CheckFrom(key, from) },
			func() error { return a.dir.checkSession(c.Session) },
		} {
			if err := check(); err != nil {
				return t, err
			}
		}
		return t, nil
	})
}
