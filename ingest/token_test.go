package ingest_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"example.com/keytrail/domain"
	"example.com/keytrail/ingest"
)

const grant = "urn:ibm:params:oauth:grant-type:apikey"

// ed25519Key types the bytes for the JWT library.
func ed25519Key(x []byte) ed25519.PublicKey { return x }

func uintText(v uint64) string { return strconv.FormatUint(v, 10) }

func newKeyIn(account string, iam domain.IAMID) ingest.NewKey {
	return ingest.NewKey{Account: domain.AccountID(account), IAMID: iam, Name: "key of " + string(iam)}
}

// signIn posts form to the token call.
func (n *node) signIn(form url.Values) reply {
	n.tb.Helper()
	req, err := http.NewRequestWithContext(n.tb.Context(), http.MethodPost, n.srv.URL+"/identity/token", strings.NewReader(form.Encode()))
	if err != nil {
		n.tb.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("User-Agent", "test-agent")
	return n.send(req)
}

// TestEverySignInIsAUse: the good and the refused ones, with address and agent.
func TestEverySignInIsAUse(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	id, value := n.createKey(n.admin, n.boot.Owner, "k")
	n.must(200, n.signIn(url.Values{"grant_type": {grant}, "apikey": {value}}))
	n.must(204, n.call(n.admin, "POST", "/v1/apikeys/"+id+"/disable", nil))
	n.must(400, n.signIn(url.Values{"grant_type": {grant}, "apikey": {value}}))
	uses := n.uses.all()
	if len(uses) != 2 {
		t.Fatalf("%d uses, want 2", len(uses))
	}
	good, bad := uses[0], uses[1]
	if good.Outcome != domain.OutcomeSuccess || good.Action != "iam-identity.user-apikey.login" || good.KeyID != domain.KeyID(id) ||
		good.Account != n.boot.Account || good.Source != "127.0.0.1" || good.UserAgent != "test-agent" || good.ID == "" {
		t.Errorf("sign-in: %+v", good)
	}
	if bad.Outcome != domain.OutcomeFailure || bad.Status != 400 || bad.ErrorCode != "key_disabled" || bad.ID == good.ID {
		t.Errorf("refused sign-in: %+v", bad)
	}
}

func TestASignInWithAnUnknownKeyIsRecordedByItsFingerprint(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	r := n.must(400, n.signIn(url.Values{"grant_type": {grant}, "apikey": {"kt_unknown"}}))
	if r.field("errorCode") != "BXNIM0415E" || r.field("errorMessage") == "" {
		t.Errorf("answer %s", r.raw)
	}
	list := n.refused()
	if len(list) != 1 || list[0].Account != n.boot.Account || list[0].Action != "iam-identity.user-apikey.login" ||
		list[0].Code != domain.Unauthenticated || !strings.Contains(string(list[0].Request), "hmac-sha256:") {
		t.Errorf("recorded %+v", list)
	}
	if len(n.uses.all()) != 0 {
		t.Error("a use of no key was recorded")
	}
}

func TestTokenRequestsThatAreNone(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for _, tt := range []struct {
		name string
		form url.Values
		code string
	}{
		{"no grant", url.Values{"apikey": {n.admin}}, "unsupported_grant_type"},
		{"another grant", url.Values{"grant_type": {"password"}, "apikey": {n.admin}}, "unsupported_grant_type"},
		{"no key", url.Values{"grant_type": {grant}}, "missing_apikey"},
	} {
		if r := n.signIn(tt.form); r.status != 400 || r.field("errorCode") != tt.code {
			t.Errorf("%s: %d %s, want 400 %s", tt.name, r.status, r.raw, tt.code)
		}
	}
	if len(n.uses.all())+len(n.refused()) != 0 {
		t.Error("what is no sign-in was recorded")
	}
}

func TestTokensAreCheckedWithThePublishedKey(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	r := n.must(200, n.signIn(url.Values{"grant_type": {grant}, "apikey": {n.admin}}))
	if r.field("token_type") != "Bearer" || r.body["expires_in"] != float64(3600) && r.body["expires_in"] != float64(3599) {
		t.Errorf("answer %s", r.raw)
	}
	set := n.must(200, n.call("", "GET", "/identity/keys", nil))
	jwk := set.body["keys"].([]any)[0].(map[string]any)
	x, err := base64.RawURLEncoding.DecodeString(jwk["x"].(string))
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Parse(r.field("access_token"), func(*jwt.Token) (any, error) { return ed25519Key(x), nil }, jwt.WithValidMethods([]string{"EdDSA"}))
	if err != nil || token.Header["kid"] != jwk["kid"] {
		t.Errorf("token does not verify with the published key: %v", err)
	}
}

func TestBasicAuthenticationTakesTheKeyAsPassword(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for _, tt := range []struct {
		name, user, password string
		status               int
	}{
		{"the key of the user apikey", "apikey", n.admin, 200},
		{"another user", "admin", n.admin, 401},
		{"no password", "apikey", "", 401},
		{"a wrong key", "apikey", "kt_wrong", 401},
	} {
		basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(tt.user+":"+tt.password))
		if r := n.call("", "GET", "/v1/apikeys", nil, "Authorization", basic); r.status != tt.status {
			t.Errorf("%s: %d, want %d", tt.name, r.status, tt.status)
		}
	}
}
