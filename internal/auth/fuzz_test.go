package auth_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/keystore"
)

// FuzzToken: no text crashes whoever reads a token, and none but ours is one. It is taken for
// what it was made as, or refused in words for the caller.
func FuzzToken(f *testing.F) {
	b := newBench(f)
	s := b.session(t0)
	access, _, err := b.auth.Issue(b.key, &s, "id")
	if err != nil {
		f.Fatal(err)
	}
	refresh, err := b.auth.IssueRefresh(s, "id")
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{access.Reveal(), refresh.Reveal(), b.secret.Reveal(), "", "eyJ.e30.", "..", "eyJhbGciOiJub25lIn0.e30.", access.Reveal() + ".x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		secret := keystore.NewSecret(text)
		token, errAccess := b.auth.Token(t.Context(), secret, anywhere)
		_, errIntrospect := b.auth.Introspect(t.Context(), secret)
		renewal, errRefresh := b.auth.Refresh(t.Context(), secret, anywhere)
		for _, err := range []error{errAccess, errIntrospect, errRefresh} {
			if err != nil && domain.CodeOf(err) != domain.Unauthenticated {
				t.Errorf("%q: %v", text, err)
			}
		}
		switch {
		case errAccess == nil && errRefresh == nil, (errAccess == nil) != (errIntrospect == nil):
			t.Errorf("%q is taken for both", text)
		case errAccess == nil && (token.Key.ID != "k1" || token.Session != "s1"), errRefresh == nil && (renewal.Key.ID != "k1" || renewal.Generation != 1):
			t.Errorf("%q is taken for %+v, %+v", text, token, renewal)
		}
	})
}

// FuzzAuthorization: no header crashes the authenticator, and none but the key lets anybody in.
func FuzzAuthorization(f *testing.F) {
	b := newBench(f)
	for _, seed := range []string{"", "Bearer " + b.secret.Reveal(), "Basic YXBpa2V5OmE=", "Basic ====", "Bearer", " ", "Digest a", "bearer eyJ.a.b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		c, _ := gin.CreateTestContext(httptest.NewRecorder())
		c.Request = httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		c.Request.Header["Authorization"] = []string{header}
		caller, err := b.auth.Authenticate(c)
		switch {
		case err == nil && (caller.Initiator.IAMID != "User-1" || caller.Initiator.CredentialID != "k1"):
			t.Errorf("%q is %+v", header, caller.Initiator)
		case err != nil && (domain.CodeOf(err) != domain.Unauthenticated || caller.Initiator != auth.Anonymous(c)):
			t.Errorf("%q: %+v, %v", header, caller.Initiator, err)
		}
	})
}
