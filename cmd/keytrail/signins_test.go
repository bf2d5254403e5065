package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// form posts a form without a credential and decodes the answer.
func (s *system) form(path string, form url.Values, out any) int {
	s.t.Helper()
	resp, err := http.PostForm(s.srv.Address+path, form) //nolint:bodyclose // readAll closes it.
	if err != nil {
		s.t.Fatal(err)
	}
	b := readAll(s.t, resp.Body)
	if out != nil && resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(b, out); err != nil {
			s.t.Fatalf("%v: %s", err, b)
		}
	}
	return resp.StatusCode
}

// countedInLog counts the successful sign-ins with a key and the verifications of it straight
// from the stored events, and says when the last one was.
func (s *system) countedInLog(key string) (count uint64, last time.Time) {
	s.t.Helper()
	var out, errOut bytes.Buffer
	if code := run(s.t.Context(), []string{"log", "cat", "--all", "--uses", "-o", "json", "--data", s.data}, &out, &errOut); code != 0 {
		s.t.Fatalf("log cat: %s", &errOut)
	}
	for line := range strings.Lines(out.String()) {
		var e catLine
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			s.t.Fatalf("%v: %s", err, line)
		}
		if u := e.Use; u != nil && u.KeyID == key && u.Outcome == "success" && (strings.HasSuffix(u.Action, ".login") || u.Labels["keytrail.verified"] != "") {
			count++
			if u.Time.After(last) {
				last = u.Time
			}
		}
	}
	return count, last
}

// TestTheActivityOfAKeyIsWhatTheLogCounts: sign-ins and verifications, good and refused, with
// a session that is refreshed and revoked between them; and no token is anywhere in the files.
func TestTheActivityOfAKeyIsWhatTheLogCounts(t *testing.T) {
	s := newSystem(t)
	iam, _ := s.me()
	var key madeKey
	if err := s.post(http.MethodPost, "/v1/apikeys", map[string]any{"name": "k", "iam_id": iam, "support_sessions": true}, &key); err != nil {
		t.Fatal(err)
	}
	type tokens struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
		Session string `json:"session_id"`
	}
	secrets := []string{key.APIKey}
	signIn := func(value string, want int) (in tokens) {
		t.Helper()
		form := url.Values{"grant_type": {"urn:ibm:params:oauth:grant-type:apikey"}, "apikey": {value}}
		if got := s.form("/identity/token", form, &in); got != want {
			t.Fatalf("sign in: %d, want %d", got, want)
		}
		if want == http.StatusOK {
			secrets = append(secrets, strings.Split(in.Access, ".")[2], strings.Split(in.Refresh, ".")[2])
		}
		return in
	}
	verify := func(want string, more ...string) {
		t.Helper()
		body := map[string]string{"apikey": key.APIKey}
		for i := 0; i+1 < len(more); i += 2 {
			body[more[i]] = more[i+1]
		}
		var v struct{ Code string }
		if err := s.post(http.MethodPost, "/v1/apikeys/verify", body, &v); err != nil || v.Code != want {
			t.Fatalf("verify: %+v, %v, want %s", v, err, want)
		}
	}
	act := func(method, path string) {
		t.Helper()
		if err := s.post(method, path, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	first := signIn(key.APIKey, http.StatusOK)
	signIn(key.APIKey, http.StatusOK)
	signIn(key.APIKey+"x", http.StatusBadRequest)
	var second tokens
	if got := s.form("/identity/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {first.Refresh}}, &second); got != http.StatusOK {
		t.Fatalf("refresh: %d", got)
	}
	secrets = append(secrets, strings.Split(second.Refresh, ".")[2])
	act(http.MethodDelete, "/v1/sessions/"+first.Session)
	verify("VALID")
	verify("VALID", "action", "cos.object.get", "source_ip", "192.0.2.1")
	act(http.MethodPost, "/v1/apikeys/"+key.ID+"/disable")
	verify("DISABLED")
	signIn(key.APIKey, http.StatusBadRequest)
	act(http.MethodDelete, "/v1/apikeys/"+key.ID+"/disable")
	signIn(key.APIKey, http.StatusOK)
	got := get[struct {
		Activity struct {
			LastAuthn  string `json:"last_authn"`
			AuthnCount uint64 `json:"authn_count"`
		}
	}](s, "/v1/apikeys/"+key.ID, url.Values{"include_activity": {"true"}})
	count, last := s.countedInLog(key.ID)
	if shown := last.UTC().Format("2006-01-02T15:04:05.000-0700"); count != 5 || got.Activity.AuthnCount != count || got.Activity.LastAuthn != shown {
		t.Errorf("activity %+v; the log counts %d, the last at %s", got.Activity, count, shown)
	}
	s.verified()
	s.searchFolder(secrets)
}
