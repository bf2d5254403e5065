package main

import (
	"encoding/json"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/keytrail/internal/client"
)

// uses counts the uses in the tables over all time, from the rollups and the base table as
// a reader gets them.
func (s *system) uses() int {
	s.t.Helper()
	out := get[struct{ Series []struct{ Count int } }](s, "/v1/usage/series", url.Values{"from": {"2000-01-01"}, "to": {"2099-01-01"}, "step": {"month"}})
	n := 0
	for _, p := range out.Series {
		n += p.Count
	}
	return n
}

type finding struct {
	ID       string `json:"id"`
	RuleID   string `json:"rule_id"`
	Severity string `json:"severity"`
	KeyID    string `json:"key_id"`
	Reason   string `json:"reason"`
	Evidence []struct {
		EventID  string `json:"event_id"`
		Position uint64 `json:"position"`
	} `json:"evidence"`
}

func (s *system) findings() []finding {
	s.t.Helper()
	return get[struct{ Findings []finding }](s, "/v1/findings", url.Values{"limit": {"500"}}).Findings
}

func TestEachCloudTrailRecordIsOneUseHoweverOftenItIsImported(t *testing.T) {
	path := dataFile(t, "cloudtrail/invictus.ndjson.gz")
	s := newSystem(t)
	s.cli("import", "cloudtrail", path)
	if n := s.uses(); n != 2900 {
		t.Fatalf("%d uses after the import, want 2,900", n)
	}
	s.verified()
	found := s.settledFindings()
	out := s.cli("import", "cloudtrail", path)
	if n := s.uses(); n != 2900 {
		t.Errorf("%d uses after the second import, want 2,900 still:\n%s", n, out)
	}
	again := s.settledFindings()
	if len(found) == 0 || len(again) != len(found) {
		t.Errorf("%d findings after the first import, %d after the second", len(found), len(again))
	}
	for _, f := range found {
		if f.KeyID == "" && f.Reason == "" || len(f.Evidence) == 0 || f.Evidence[0].Position == 0 {
			t.Errorf("finding %s (%s) has no key, reason or evidence: %+v", f.ID, f.RuleID, f)
		}
	}
	rules := map[string]bool{}
	for _, f := range found {
		rules[f.RuleID] = true
	}
	for _, r := range []string{"key-makes-keys", "audit-tamper", "denied-burst"} {
		if !rules[r] {
			t.Errorf("the attacks in the log raised no %s; raised: %v", r, rules)
		}
	}
	s.verified()
}

// settledFindings waits until the detector has judged all that is in the tables.
func (s *system) settledFindings() []finding {
	s.t.Helper()
	for {
		p := s.projections()
		if p["tables"].Position == p["tables"].Head && p["detector"].Block == p["tables"].Block {
			return s.findings()
		}
	}
}

func TestNoSecretIsFoundAnywhere(t *testing.T) {
	s := newSystem(t)
	iam, _ := s.me()
	secrets := []string{s.api.Key()}
	for _, name := range []string{"one", "two"} {
		var key struct {
			ID     string `json:"id"`
			Apikey string `json:"apikey"`
		}
		if err := s.post(http.MethodPost, "/v1/apikeys", map[string]string{"name": name, "iam_id": iam}, &key); err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, key.Apikey)
		s.login(key.Apikey)
		// A caller who mistakes the secret for the id, the name or a label is refused.
		for _, line := range []string{
			`{"time":"2026-01-01T00:00:00Z","key_id":"` + key.Apikey + `"}`,
			`{"time":"2026-01-01T00:00:00Z","key_id":"k","target":"https://x/?apikey=` + key.Apikey + `"}`,
			`{"time":"2026-01-01T00:00:00Z","key_id":"k","note":"` + key.Apikey + `"}`,
		} {
			resp, err := s.api.Do(t.Context(), client.Request{Method: http.MethodPost, Path: "/v1/usage", Body: strings.NewReader(line)}) //nolint:bodyclose // readAll closes it.
			if err != nil && strings.Contains(err.Error(), key.Apikey) {
				t.Errorf("the refusal %v holds the secret", err)
			}
			if resp != nil {
				b := readAll(t, resp.Body)
				if strings.Contains(string(b), key.Apikey) {
					t.Errorf("the answer %s holds the secret", b)
				}
			}
		}
		err := s.post(http.MethodPost, "/v1/apikeys/"+url.PathEscape(key.Apikey)+"/lock", nil, nil)
		if err == nil || strings.Contains(err.Error(), key.Apikey) {
			t.Errorf("locking a secret: %v, want a refusal that does not repeat it", err)
		}
		if err := s.post(http.MethodPost, "/v1/apikeys", map[string]string{"name": key.Apikey, "iam_id": iam}, nil); status(err) != 400 || strings.Contains(err.Error(), key.Apikey) {
			t.Errorf("naming a key by a secret: %v, want 400 without it", err)
		}
		req := httpRequest(http.MethodGet, "/v1/events/export")
		req.Header.Set("Transaction-Id", key.Apikey)
		req.Header.Set("User-Agent", key.Apikey)
		req.Query = url.Values{"filter": {`message:"` + key.Apikey + `"`}}
		if resp, err := s.api.Do(t.Context(), req); err != nil { //nolint:bodyclose // readAll closes it.
			t.Error(err)
		} else {
			readAll(t, resp.Body)
		}
		if err := s.post(http.MethodDelete, "/v1/apikeys/"+key.ID, nil, nil); err != nil {
			t.Fatal(err)
		}
		s.login(key.Apikey) // Refused; the attempt must not keep it either.
	}
	s.login("kt_nobodysecret0123456789abcdefghijklmnopqrstuv")
	secrets = append(secrets, "kt_nobodysecret0123456789abcdefghijklmnopqrstuv")
	records, err := json.Marshal(s.exported())
	if err != nil {
		t.Fatal(err)
	}
	s.verified()
	s.stop()
	search(t, secrets, "the export", records)
	search(t, secrets, "the server's output", []byte(s.log.String()))
	s.searchFolder(secrets)
}

// login asks for a token with key; whether it is given is not the point here.
func (s *system) login(key string) {
	s.t.Helper()
	form := url.Values{"grant_type": {"urn:ibm:params:oauth:grant-type:apikey"}, "apikey": {key}}
	resp, err := http.PostForm(s.srv.Address+"/identity/token", form) //nolint:bodyclose // readAll closes it.
	if err != nil {
		s.t.Fatal(err)
	}
	if b := readAll(s.t, resp.Body); strings.Contains(string(b), key) {
		s.t.Errorf("the answer to a login holds the key: %s", b)
	}
}

// searchFolder looks into every file of the data folder but the two that hold secrets by
// design, named here.
func (s *system) searchFolder(secrets []string) {
	s.t.Helper()
	files := 0
	err := filepath.WalkDir(s.data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "admin.key" || d.Name() == "keystore" || d.Name() == "master.key" || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		files++
		search(s.t, secrets, path, b)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if files < 10 {
		s.t.Errorf("searched %d files only", files)
	}
}

func search(t *testing.T, secrets []string, where string, b []byte) {
	t.Helper()
	for i, secret := range secrets {
		if secret == "" {
			t.Fatal("an empty secret would be found everywhere")
		}
		// The distinctive middle, so that a secret cut at an edge is found too.
		if strings.Contains(string(b), secret[8:len(secret)-8]) {
			t.Errorf("secret %d is in %s", i, where)
		}
	}
}
