package auth_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/golang-jwt/jwt/v5"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/keystore"
)

// bench is an authenticator over a directory that has caught up, with one key.
type bench struct {
	auth   *auth.Authenticator
	dir    *auth.Directory
	store  *keystore.Store
	secret keystore.Secret
	key    domain.KeyState
	now    time.Time
}

// anywhere is an address that nobody has forbidden.
var anywhere = netip.MustParseAddr("192.0.2.7")

// session is a session of the bench's key that began at at.
func (b *bench) session(at time.Time) domain.SessionState {
	return domain.SessionState{
		ID: "s1", Account: "acct1", IAMID: "User-1", KeyID: "k1", CreatedAt: at, ExpiresAt: at.Add(24 * time.Hour), EndsAt: at.Add(2 * time.Hour),
		RefreshedAt: at, Generation: 1,
	}
}

// alwaysFresh is a directory whose age is of no interest.
type alwaysFresh struct{}

func (alwaysFresh) WaitFresh(context.Context) error { return nil }
func (alwaysFresh) Fresh() error                    { return nil }

func newBench(tb testing.TB) *bench {
	tb.Helper()
	b := &bench{now: t0}
	var err error
	if b.store, err = keystore.Open(tb.Context(), tb.TempDir(), "", discard()); err != nil {
		tb.Fatal(err)
	}
	if b.secret, err = keystore.NewKeyValue(rand.Reader); err != nil {
		tb.Fatal(err)
	}
	f := newFeed()
	b.dir = auth.NewDirectory(f.follow, discard())
	ctx, cancel := context.WithCancel(tb.Context())
	done := make(chan error, 1)
	go func() { done <- b.dir.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
	b.dir.Apply(history()[0])
	b.key = keyState("k1", func(s *domain.KeyState) { s.SecretHash = b.store.FingerprintSecret(b.secret) })
	b.dir.Apply(at(domain.KeyStream("k1"), 0, 30, domain.KeyCreated{After: b.key}))
	f.deliveries <- eventlog.Delivery{CaughtUp: true}
	if err := b.dir.WaitReady(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	b.auth = auth.NewAuthenticator(b.dir, alwaysFresh{}, b.store, func() time.Time { return b.now })
	return b
}

func messageCode(err error) string {
	if e, ok := errors.AsType[*domain.Error](err); ok {
		return e.MessageCode
	}
	return ""
}

func TestATokenIsGoodAsLongAsItsKeyAndNoLonger(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	token, end, err := b.auth.Issue(b.key, nil, "id")
	if err != nil || !end.Equal(t0.Add(time.Hour)) {
		t.Fatalf("ends %s, %v", end, err)
	}
	if got, err := b.auth.Token(t.Context(), token, anywhere); err != nil || got.Key.ID != "k1" || got.ID != "id" || !got.ExpiresAt.Equal(end) || !got.IssuedAt.Equal(t0) {
		t.Fatalf("%+v, %v", got, err)
	}
	b.now = t0.Add(time.Hour)
	if _, err := b.auth.Token(t.Context(), token, anywhere); messageCode(err) != "token_expired" {
		t.Errorf("at its end: %v", err)
	}
	b.now = t0.Add(time.Minute)
	b.dir.Apply(at(domain.KeyStream("k1"), 1, 40, domain.KeyDisabled{After: keyState("k1", disabled)}))
	if got, err := b.auth.Token(t.Context(), token, anywhere); messageCode(err) != "key_disabled" || got.Key.ID != "k1" {
		t.Errorf("of a disabled key: %v, %v", got, err)
	}
	expiry := t0.Add(10 * time.Minute)
	b.key.ExpiresAt = &expiry
	if _, end, err := b.auth.Issue(b.key, nil, "id"); err != nil || !end.Equal(expiry) {
		t.Errorf("a token outlives its key: %s, %v", end, err)
	}
}

// sometimesFresh says what a test wants it to say.
type sometimesFresh struct{ before, after error }

func (f sometimesFresh) WaitFresh(context.Context) error { return f.before }
func (f sometimesFresh) Fresh() error                    { return f.after }

// TestNobodyIsAcceptedByAStaleDirectory, by whatever way a credential comes, nor by one
// that became stale while the credential was judged; and nobody is refused by it either.
func TestNobodyIsAcceptedByAStaleDirectory(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	token, _, err := b.auth.Issue(b.key, nil, "id")
	if err != nil {
		t.Fatal(err)
	}
	refresh, err := b.auth.IssueRefresh(b.session(t0), "id")
	if err != nil {
		t.Fatal(err)
	}
	old := domain.Errorf(domain.Unavailable, "old").WithMessageCode("directory_stale")
	request := func(a *auth.Authenticator, authorization string) error {
		c, _ := gin.CreateTestContext(httptest.NewRecorder())
		c.Request = httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		if authorization != "" {
			c.Request.Header.Set("Authorization", authorization)
		}
		_, err := a.Authenticate(c)
		return err
	}
	ways := []struct {
		name string
		ask  func(*auth.Authenticator) error
		ok   bool // Accepted where the directory is fresh.
	}{
		{"find", func(a *auth.Authenticator) error { _, err := a.Find(t.Context(), b.secret); return err }, true},
		{"find, unknown", func(a *auth.Authenticator) error { _, err := a.Find(t.Context(), keystore.NewSecret("x")); return err }, false},
		{"key", func(a *auth.Authenticator) error { _, err := a.Key(t.Context(), b.secret, anywhere); return err }, true},
		{"key, unknown", func(a *auth.Authenticator) error {
			_, err := a.Key(t.Context(), keystore.NewSecret("x"), anywhere)
			return err
		}, false},
		{"token", func(a *auth.Authenticator) error { _, err := a.Token(t.Context(), token, anywhere); return err }, true},
		{"introspection", func(a *auth.Authenticator) error { _, err := a.Introspect(t.Context(), token); return err }, true},
		{"refresh", func(a *auth.Authenticator) error { _, err := a.Refresh(t.Context(), refresh, anywhere); return err }, true},
		{"request with a key", func(a *auth.Authenticator) error { return request(a, "Bearer "+b.secret.Reveal()) }, true},
		{"request with a token", func(a *auth.Authenticator) error { return request(a, "Bearer "+token.Reveal()) }, true},
		{"request with a forged token", func(a *auth.Authenticator) error { return request(a, "Bearer eyJ.e.e") }, false},
	}
	for _, way := range ways {
		for _, tt := range []struct {
			name  string
			fresh sometimesFresh
			stale bool
		}{
			{name: "fresh"},
			{name: "stale before", fresh: sometimesFresh{before: old, after: old}, stale: true},
			{name: "stale after", fresh: sometimesFresh{after: old}, stale: true},
		} {
			err := way.ask(auth.NewAuthenticator(b.dir, tt.fresh, b.store, func() time.Time { return b.now }))
			switch {
			case tt.stale && domain.CodeOf(err) != domain.Unavailable:
				t.Errorf("%s, %s: %v, want that nobody knows", way.name, tt.name, err)
			case !tt.stale && (err == nil) != way.ok:
				t.Errorf("%s, %s: %v", way.name, tt.name, err)
			}
		}
	}
	if err := request(auth.NewAuthenticator(b.dir, sometimesFresh{before: old}, b.store, time.Now), ""); domain.CodeOf(err) != domain.Unavailable {
		t.Errorf("nobody named, and the log away: %v", err)
	}
}

// TestForgedTokensAreRefused, each with one thing wrong.
func TestForgedTokensAreRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, other, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	claims := func(change func(jwt.MapClaims)) jwt.MapClaims {
		c := jwt.MapClaims{"iss": "keytrail", "sub": "User-1", "iam_id": "User-1", "apikey_id": "k1", "exp": t0.Add(time.Hour).Unix()}
		change(c)
		return c
	}
	same := func(jwt.MapClaims) {}
	for _, tt := range []struct {
		name   string
		method jwt.SigningMethod
		key    any
		claims jwt.MapClaims
		ok     bool
	}{
		{"nothing wrong", jwt.SigningMethodEdDSA, b.store.SigningKey(), claims(same), true},
		{"another signing key", jwt.SigningMethodEdDSA, other, claims(same), false},
		{"no signature", jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims(same), false},
		{"the public key as an HMAC key", jwt.SigningMethodHS256, []byte(b.store.SigningKey().Public().(ed25519.PublicKey)), claims(same), false},
		{"another issuer", jwt.SigningMethodEdDSA, b.store.SigningKey(), claims(func(c jwt.MapClaims) { c["iss"] = "x" }), false},
		{"no end", jwt.SigningMethodEdDSA, b.store.SigningKey(), claims(func(c jwt.MapClaims) { delete(c, "exp") }), false},
		{"another identity than the key's", jwt.SigningMethodEdDSA, b.store.SigningKey(), claims(func(c jwt.MapClaims) { c["iam_id"] = "User-2" }), false},
		{"a key that is not there", jwt.SigningMethodEdDSA, b.store.SigningKey(), claims(func(c jwt.MapClaims) { c["apikey_id"] = "k9" }), false},
	} {
		signed, err := jwt.NewWithClaims(tt.method, tt.claims).SignedString(tt.key)
		if err != nil {
			t.Fatal(err)
		}
		_, err = b.auth.Token(t.Context(), keystore.NewSecret(signed), anywhere)
		if (err == nil) != tt.ok || (!tt.ok && domain.CodeOf(err) != domain.Unauthenticated) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestRequireTellsWhoAsksOrRefuses(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	token, _, err := b.auth.Issue(b.key, nil, "id")
	if err != nil {
		t.Fatal(err)
	}
	var refused []auth.Tried
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.Use(b.auth.Require(func(_ *gin.Context, tried auth.Tried, _ error) error {
		refused = append(refused, tried)
		return nil
	}))
	var got domain.Initiator
	engine.GET("/", func(c *gin.Context) { got = auth.CallerOf(c).Initiator })
	send := func(authorization string) int {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		req.RemoteAddr = "192.0.2.7:1234"
		req.Header.Set("User-Agent", strings.Repeat("a", 600)+"\xff")
		req.Header.Set("X-Forwarded-For", "203.0.113.1")
		if authorization != "" {
			req.Header.Set("Authorization", authorization)
		}
		rec := httptest.NewRecorder()
		if err := engine.SetTrustedProxies(nil); err != nil {
			t.Fatal(err)
		}
		engine.ServeHTTP(rec, req)
		return rec.Code
	}
	for _, tt := range []struct {
		name, header, credential string
		status                   int
	}{
		{"a key", "Bearer " + b.secret.Reveal(), "apikey", 200},
		{"a token", "bearer " + token.Reveal(), "token", 200},
		{"nothing", "", "", 401},
		{"an unknown key", "Bearer kt_x", "", 401},
		{"an unknown scheme", "Digest x", "", 401},
		{"an empty bearer", "Bearer ", "", 401},
		{"far too much", "Bearer " + strings.Repeat("x", 9000), "", 401},
		{"a broken token", "Bearer eyJ.x.y", "", 401},
	} {
		got, refused = domain.Initiator{}, nil
		if status := send(tt.header); status != tt.status {
			t.Errorf("%s: %d, want %d", tt.name, status, tt.status)
		}
		if tt.status == 200 && (got.IAMID != "User-1" || got.Name != "Ada" || got.Credential != tt.credential || got.CredentialID != "k1" || got.Address != "192.0.2.7" || got.Account != "acct1") {
			t.Errorf("%s: %+v", tt.name, got)
		}
		if tt.status == 401 && (len(refused) != 1 || refused[0].Initiator.Address != "192.0.2.7" || len(refused[0].Initiator.Agent) > 600 ||
			refused[0].Nothing != (tt.header == "") || (refused[0].Fingerprint != "") != (tt.name == "an unknown key")) {
			t.Errorf("%s: told of %+v", tt.name, refused)
		}
	}
	b.dir.Apply(at(domain.KeyStream("k1"), 1, 40, domain.KeyDisabled{After: keyState("k1", disabled, func(s *domain.KeyState) { s.SecretHash = b.key.SecretHash })}))
	refused = nil
	if status := send("Bearer " + b.secret.Reveal()); status != 401 || len(refused) != 1 || refused[0].Initiator.IAMID != "User-1" {
		t.Errorf("a disabled key: %d, told of %+v", status, refused)
	}
}
