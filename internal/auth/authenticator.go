package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"net/netip"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/golang-jwt/jwt/v5"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/httpx"
	"example.com/keytrail/internal/keystore"
)

const (
	// basicUser is the user name that says: the password is an API key.
	basicUser          = "apikey"
	credentialBytesMax = 8 << 10
	agentBytesMax      = 512
)

// Freshness says whether the directory holds what is acknowledged. [Pulses] do.
type Freshness interface {
	// WaitFresh returns nil once the directory was complete not longer ago than a bound,
	// else [domain.Unavailable].
	WaitFresh(ctx context.Context) error
	// Fresh returns nil if that is so now.
	Fresh() error
}

// Authenticator turns credentials into callers. It never accepts one by a directory that is
// not known to be fresh. It is safe for concurrent use.
type Authenticator struct {
	dir   *Directory
	fresh Freshness
	store *keystore.Store
	now   func() time.Time
	kid   string
}

// NewAuthenticator returns an authenticator by what dir knows while fresh says that it is
// up to date. It reads the time from now.
func NewAuthenticator(dir *Directory, fresh Freshness, store *keystore.Store, now func() time.Time) *Authenticator {
	a := &Authenticator{dir: dir, fresh: fresh, store: store, now: now}
	sum := sha256.Sum256(a.public())
	a.kid = hex.EncodeToString(sum[:8])
	return a
}

func (a *Authenticator) public() ed25519.PublicKey {
	pub, ok := a.store.SigningKey().Public().(ed25519.PublicKey)
	if !ok {
		panic("auth: the signing key is not Ed25519") // The key store makes no other.
	}
	return pub
}

// Judge lets judge, which is given the time, go by what the directory knows. It is the one
// way by which a credential is judged: by a directory that is fresh before it is asked and
// still is when it has answered. A process that was stopped in between goes by nothing that
// it knew before: whatever judge said, Judge returns [domain.Unavailable] then.
func (a *Authenticator) Judge(ctx context.Context, judge func(now time.Time) error) error {
	if err := a.dir.Ready(); err != nil {
		return err
	}
	if err := a.fresh.WaitFresh(ctx); err != nil {
		return err
	}
	err := judge(a.now())
	if stale := a.fresh.Fresh(); stale != nil {
		return stale
	}
	return err
}

// judged is [Authenticator.Judge] with a result, which is nothing where nobody knows.
func judged[T any](ctx context.Context, a *Authenticator, judge func(now time.Time) (T, error)) (T, error) {
	var out T
	err := a.Judge(ctx, func(now time.Time) (err error) {
		out, err = judge(now)
		return err
	})
	if domain.CodeOf(err) == domain.Unavailable {
		var nothing T
		return nothing, err
	}
	return out, err
}

// Find returns the key that secret is the value of, valid or not; [domain.NotFound] if
// there is none.
func (a *Authenticator) Find(ctx context.Context, secret keystore.Secret) (domain.KeyState, error) {
	return judged(ctx, a, func(time.Time) (domain.KeyState, error) { return a.Lookup(secret) })
}

// Lookup is [Authenticator.Find] for those who ask within [Authenticator.Judge].
func (a *Authenticator) Lookup(secret keystore.Secret) (domain.KeyState, error) {
	fingerprint := a.store.FingerprintSecret(secret)
	s, ok := a.dir.KeyByFingerprint(fingerprint)
	if !ok || subtle.ConstantTimeCompare([]byte(s.SecretHash), []byte(fingerprint)) != 1 {
		return domain.KeyState{}, domain.Errorf(domain.NotFound, "no such API key").WithMessageCode("key_not_found")
	}
	return s, nil
}

// Key returns the key that secret is the value of, if it is valid now and may be used from
// that address. Where the key is known but refused, its state comes with the error.
func (a *Authenticator) Key(ctx context.Context, secret keystore.Secret, from netip.Addr) (domain.KeyState, error) {
	return judged(ctx, a, func(now time.Time) (domain.KeyState, error) {
		s, err := a.Lookup(secret)
		if err != nil {
			return domain.KeyState{}, refused("invalid_credential", "the API key is not known")
		}
		if err := a.dir.Check(s, now); err != nil {
			return s, err
		}
		return s, a.dir.CheckFrom(s, from)
	})
}

// Fingerprint returns the keyed fingerprint under which secret would be stored.
func (a *Authenticator) Fingerprint(secret keystore.Secret) string {
	return a.store.FingerprintSecret(secret)
}

// JWK is one public key of [Authenticator.KeySet], as RFC 8037 has it.
type JWK struct {
	KeyType   string `json:"kty"`
	Curve     string `json:"crv"`
	Use       string `json:"use"`
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
	X         string `json:"x"`
}

// KeySet returns the public keys that check our tokens.
func (a *Authenticator) KeySet() []JWK {
	return []JWK{{
		KeyType: "OKP", Curve: "Ed25519", Use: "sig", Algorithm: jwt.SigningMethodEdDSA.Alg(), KeyID: a.kid,
		X: base64.RawURLEncoding.EncodeToString(a.public()),
	}}
}

// Authenticate returns who sends c. With an error it still returns what is known of
// who tried: address and agent, and the identity where the key is known but refused.
func (a *Authenticator) Authenticate(c *gin.Context) (Caller, error) {
	tried := Tried{Initiator: Anonymous(c)}
	err := a.authenticate(c, &tried)
	if err != nil {
		return Caller{Initiator: tried.Initiator}, err
	}
	return NewCaller(tried.Initiator, a.dir), nil
}

// Tried is what is known of a request that was refused.
type Tried struct {
	// Initiator is who it was, as far as that is known.
	Initiator domain.Initiator
	// Key is the key that was shown, or whose token was, if it is known.
	Key domain.KeyState
	// Fingerprint is that of a key that nobody knows, if one was shown.
	Fingerprint string
	// Nothing says that no credential was shown at all.
	Nothing bool
}

// authenticate fills in what c says of who sends it.
func (a *Authenticator) authenticate(c *gin.Context, tried *Tried) error {
	credential, err := credentialOf(c)
	if err != nil {
		tried.Nothing = c.GetHeader("Authorization") == ""
		// That nobody was named is recorded: where the log is away, that is said at once.
		if stale := a.fresh.WaitFresh(c.Request.Context()); stale != nil {
			err = stale
		}
		return err
	}
	var key domain.KeyState
	kind := "apikey"
	if looksLikeToken(credential) {
		var t Token
		t, err = a.Token(c.Request.Context(), credential, AddressOf(c))
		key, kind = t.Key, "token"
	} else if key, err = a.Key(c.Request.Context(), credential, AddressOf(c)); err != nil && key.ID == "" {
		tried.Fingerprint = a.Fingerprint(credential)
	}
	if key.ID != "" {
		tried.Key, tried.Initiator = key, a.initiator(tried.Initiator, key, kind)
	}
	return err
}

// AddressOf returns the address that c came from, as far as our proxies are trusted to say;
// the zero Addr where nobody knows.
func AddressOf(c *gin.Context) netip.Addr {
	from, err := netip.ParseAddr(c.ClientIP())
	if err != nil {
		return netip.Addr{}
	}
	return from.Unmap()
}

// looksLikeToken tells a token of ours from a key: a JWT begins with '{"' in base64 and
// has three parts.
func looksLikeToken(s keystore.Secret) bool {
	text := s.Reveal()
	return strings.HasPrefix(text, "eyJ") && strings.Count(text, ".") == 2
}

// InitiatorOf returns the identity of key as the one who sends c.
func (a *Authenticator) InitiatorOf(c *gin.Context, key domain.KeyState) domain.Initiator {
	return a.initiator(Anonymous(c), key, "apikey")
}

// initiator fills in the identity of key. credential is how it came: apikey or token.
func (a *Authenticator) initiator(who domain.Initiator, key domain.KeyState, credential string) domain.Initiator {
	who.IAMID, who.Account, who.CredentialID = key.IAMID, key.Account, key.ID
	who.Name = a.dir.NameOf(key.IAMID)
	who.AuthnID, who.AuthnName = string(key.IAMID), who.Name
	who.Type, who.Credential = domain.ActorUser, credential
	if key.Kind.OfService() {
		who.Type = domain.ActorServiceID
		if credential == "apikey" {
			who.Credential = "apikey-serviceid"
		}
	}
	return who
}

// Anonymous returns what is known of a sender without a credential.
func Anonymous(c *gin.Context) domain.Initiator {
	agent := strings.ToValidUTF8(c.Request.UserAgent(), "�")
	if len(agent) > agentBytesMax {
		agent = strings.ToValidUTF8(agent[:agentBytesMax], "") + "…"
	}
	return domain.Initiator{Address: c.ClientIP(), Agent: agent}
}

// credentialOf returns what Authorization carries: a token, or a key as bearer or as
// the password of the user "apikey".
func credentialOf(c *gin.Context) (keystore.Secret, error) {
	header := c.GetHeader("Authorization")
	if header == "" {
		return keystore.Secret{}, refused("missing_credential", "a token or an API key is required in Authorization")
	}
	if len(header) > credentialBytesMax {
		return keystore.Secret{}, refused("malformed_credential", "Authorization is too long")
	}
	if user, password, ok := c.Request.BasicAuth(); ok {
		if user != basicUser || password == "" {
			return keystore.Secret{}, refused("malformed_credential", "the user name must be apikey, and the password the key")
		}
		return keystore.NewSecret(password), nil
	}
	scheme, value, _ := strings.Cut(header, " ")
	if value = strings.TrimSpace(value); !strings.EqualFold(scheme, "Bearer") || value == "" {
		return keystore.Secret{}, refused("malformed_credential", "Authorization must be Bearer or Basic")
	}
	return keystore.NewSecret(value), nil
}

// Refused is told of a request without a credential that is good here, before the answer.
// Its error, if any, is answered instead.
type Refused func(c *gin.Context, tried Tried, reason error) error

// Require lets only requests with a valid credential through, and tells handlers who
// sends them: see [CallerOf]. onRefused may be nil.
func (a *Authenticator) Require(onRefused Refused) gin.HandlerFunc {
	return func(c *gin.Context) {
		tried := Tried{Initiator: Anonymous(c)}
		err := a.authenticate(c, &tried)
		if err == nil {
			WithCaller(c, NewCaller(tried.Initiator, a.dir))
			c.Next()
			return
		}
		if code := domain.CodeOf(err); onRefused != nil && (code == domain.Unauthenticated || code == domain.Forbidden) {
			if recordErr := onRefused(c, tried, err); recordErr != nil {
				err = recordErr
			}
		}
		httpx.Fail(c, err)
	}
}
