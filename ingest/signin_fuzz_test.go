package ingest_test

import (
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// hostileForms are bodies from which both the fuzzer and the test below begin.
func hostileForms() []string {
	return []string{
		"", "grant_type=" + url.QueryEscape(grant) + "&apikey=x", "grant_type=refresh_token&refresh_token=eyJ.e30.x", "token=eyJhbGciOiJub25lIn0.e30.", "%zz=1;&&=",
		`{"apikey":"x","action":"a","source_ip":"::1","user_agent":"u","target":"crn:v1:::::a/b::"}`, `{"apikey":null}`, "token=%00%ff&token=2",
	}
}

// refusesWell sends a body to everything that judges credentials and fails the test where an
// answer is a fault of ours, or a success that it cannot be.
func (n *node) refusesWell(t *testing.T, body, authorization, kind string) {
	t.Helper()
	for _, path := range []string{"/identity/token", "/identity/introspect", "/v1/apikeys/verify", "/v1/authorize"} {
		for _, header := range []string{"Bearer " + n.admin, authorization} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.srv.URL+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header["Authorization"], req.Header["Content-Type"] = []string{header}, []string{kind}
			resp, err := n.srv.Client().Do(req)
			if err != nil {
				continue // No header that can be sent.
			}
			cleanup(t, resp.Body.Close())
			if resp.StatusCode >= 500 || path == "/identity/token" && resp.StatusCode < 400 {
				t.Errorf("%s: %d for %q, Authorization %q, Content-Type %q", path, resp.StatusCode, body, header, kind)
			}
		}
	}
}

// FuzzSignIn: no form, body or header makes a server fail, or signs anybody in.
func FuzzSignIn(f *testing.F) {
	for i, form := range hostileForms() {
		f.Add(form, []string{"Basic YXBpa2V5Og==", "Bearer eyJ.e30.x", "Basic", "Bearer kt_x"}[i%4], []string{"application/x-www-form-urlencoded", "application/json", "multipart/form-data; boundary=x"}[i%3])
	}
	n := newNode(f)
	f.Fuzz(func(t *testing.T, body, authorization, kind string) { n.refusesWell(t, body, authorization, kind) })
}

// TestNothingStrangeSignsIn is the same on random damage.
func TestNothingStrangeSignsIn(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	pieces := []string{"&", "=", "%", "%00", "\xff", "{", "}", `"`, "apikey", "grant_type", "refresh_token", "token", "eyJ", ".", "kt_", ";", "a/b", ":", "\n", strings.Repeat("x", 9000)}
	damaged := func(s string) string {
		for range 1 + rng.IntN(4) {
			from := rng.IntN(len(s) + 1)
			to := min(len(s), from+rng.IntN(6))
			s = s[:from] + pieces[rng.IntN(len(pieces))] + s[to:]
		}
		return s
	}
	forms := hostileForms()
	headers := []string{"Basic YXBpa2V5OnNlY3JldA==", "Bearer eyJhbGciOiJFZERTQSJ9.e30.x", "Bearer kt_x", "basic", ""}
	kinds := []string{"application/x-www-form-urlencoded", "application/json", "multipart/form-data; boundary=x", "", "text/plain; charset=\x80"}
	for range 60 {
		n.refusesWell(t, damaged(forms[rng.IntN(len(forms))]), damaged(headers[rng.IntN(len(headers))]), slices.Concat(kinds, kinds[:2])[rng.IntN(7)])
	}
}
