package main

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/IBM/go-sdk-core/v5/core"
	"github.com/IBM/platform-services-go-sdk/iamidentityv1"
)

// me returns the identity and account of the administrator key.
func (s *system) me() (iamID, account string) {
	s.t.Helper()
	var out struct {
		IAMID     string `json:"iam_id"`
		AccountID string `json:"account_id"`
	}
	req := httpRequest(http.MethodGet, "/v1/apikeys/details")
	req.Header.Set("IAM-ApiKey", s.api.Key())
	if err := s.api.JSON(s.t.Context(), req, nil, &out); err != nil {
		s.t.Fatal(err)
	}
	return out.IAMID, out.AccountID
}

// manyKeys lets identities have more keys than anybody makes by hand.
func (s *system) manyKeys() {
	s.t.Helper()
	_, account := s.me()
	if err := s.post(http.MethodPut, "/v1/accounts/"+account+"/limits/identity", map[string]int{"apikeys_per_identity": 100_000}, nil); err != nil {
		s.t.Fatal(err)
	}
}

func TestTheGoldenRunLeavesItsSevenRecords(t *testing.T) {
	s := newSystem(t)
	iam, _ := s.me()
	var key struct {
		ID string `json:"id"`
	}
	if err := s.post(http.MethodPost, "/v1/apikeys", map[string]string{"name": "demo-key", "iam_id": iam}, &key); err != nil {
		t.Fatal(err)
	}
	path := "/v1/apikeys/" + key.ID
	update := func(in map[string]string) error {
		req := httpRequest(http.MethodPut, path)
		req.Header.Set("If-Match", "*")
		return s.api.JSON(t.Context(), req, in, nil)
	}
	steps := []struct {
		name string
		do   func() error
		want int
	}{
		{name: "lock", do: func() error { return s.post(http.MethodPost, path+"/lock", nil, nil) }},
		{name: "rename", do: func() error { return update(map[string]string{"name": "other"}) }, want: 409},
		{name: "change", do: func() error { return update(map[string]string{"description": "x"}) }, want: 409},
		{name: "delete", do: func() error { return s.post(http.MethodDelete, path, nil, nil) }, want: 409},
		{name: "unlock", do: func() error { return s.post(http.MethodDelete, path+"/lock", nil, nil) }},
		{name: "delete again", do: func() error { return s.post(http.MethodDelete, path, nil, nil) }},
	}
	for _, step := range steps {
		if err := step.do(); status(err) != step.want {
			t.Fatalf("%s: %v, want status %d", step.name, err, step.want)
		}
	}
	got := get[struct {
		Events []struct {
			Message, Severity, Outcome string
			Initiator                  struct{ ID, Name string }
		}
	}](s, "/v1/events", url.Values{"filter": {`key_id="` + key.ID + `"`}, "sort": {"asc"}})
	want := []string{
		"create user-apikey demo-key", "lock user-apikey demo-key", "update user-apikey demo-key -failure", "update user-apikey demo-key -failure",
		"delete user-apikey demo-key -failure", "unlock user-apikey demo-key", "delete user-apikey demo-key",
	}
	if len(got.Events) != len(want) {
		t.Fatalf("%d records, want %d: %+v", len(got.Events), len(want), got.Events)
	}
	for i, e := range got.Events {
		if e.Message != "IAM Identity Service: "+want[i] {
			t.Errorf("record %d says %q, want %q", i, e.Message, want[i])
		}
		if refused := strings.HasSuffix(want[i], "-failure"); refused != (e.Outcome == "failure") || refused && e.Severity != "critical" {
			t.Errorf("record %d is %s and %s, refused: %v", i, e.Outcome, e.Severity, refused)
		}
		if e.Initiator.ID != iam || e.Initiator.Name == "" {
			t.Errorf("record %d names %+v as initiator, want %s with a name", i, e.Initiator, iam)
		}
	}
	s.verified()
}

func TestIBMsGoSDKManagesKeys(t *testing.T) {
	s := newSystem(t)
	iam, account := s.me()
	sdk, err := iamidentityv1.NewIamIdentityV1(&iamidentityv1.IamIdentityV1Options{
		URL:           s.srv.Address,
		Authenticator: &core.IamAuthenticator{ApiKey: s.api.Key(), URL: s.srv.Address},
	})
	if err != nil {
		t.Fatal(err)
	}
	created, resp, err := sdk.CreateAPIKey(&iamidentityv1.CreateAPIKeyOptions{Name: new("sdk-key"), IamID: &iam, AccountID: &account, Description: new("from the SDK")})
	if err != nil || resp.StatusCode != http.StatusCreated || created.Apikey == nil || *created.Apikey == "" {
		t.Fatalf("create: %v %v, want 201 with the secret", resp, err)
	}
	list, _, err := sdk.ListAPIKeys(&iamidentityv1.ListAPIKeysOptions{AccountID: &account, IamID: &iam, Pagesize: core.Int64Ptr(100)})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(list.Apikeys, func(k iamidentityv1.APIKey) bool { return *k.ID == *created.ID }) {
		t.Error("list straight after create does not hold the new key")
	}
	got, _, err := sdk.GetAPIKey(&iamidentityv1.GetAPIKeyOptions{ID: created.ID, IncludeHistory: new(true)})
	if err != nil || *got.Name != "sdk-key" || (got.Apikey != nil && *got.Apikey != "") || len(got.History) != 1 {
		t.Errorf("get = %+v, %v, want the key without its secret and one line of history", got, err)
	}
	stale := *created.EntityTag
	fresh, _, err := sdk.UpdateAPIKey(&iamidentityv1.UpdateAPIKeyOptions{ID: created.ID, IfMatch: &stale, Name: new("renamed")})
	if err != nil || *fresh.Name != "renamed" || *fresh.Description != "from the SDK" {
		t.Fatalf("update with the fresh tag: %+v, %v", fresh, err)
	}
	if _, resp, err := sdk.UpdateAPIKey(&iamidentityv1.UpdateAPIKeyOptions{ID: created.ID, IfMatch: &stale, Name: new("lost")}); err == nil || (resp.StatusCode != 409 && resp.StatusCode != 412) {
		t.Errorf("update with a stale tag: %v %v, want a refusal", resp, err)
	}
	if _, err := sdk.LockAPIKey(&iamidentityv1.LockAPIKeyOptions{ID: created.ID}); err != nil {
		t.Errorf("lock: %v", err)
	}
	if _, err := sdk.DeleteAPIKey(&iamidentityv1.DeleteAPIKeyOptions{ID: created.ID}); err == nil {
		t.Error("a locked key was deleted")
	}
	if _, err := sdk.UnlockAPIKey(&iamidentityv1.UnlockAPIKeyOptions{ID: created.ID}); err != nil {
		t.Errorf("unlock: %v", err)
	}
	if _, err := sdk.DisableAPIKey(&iamidentityv1.DisableAPIKeyOptions{ID: created.ID}); err != nil {
		t.Errorf("disable: %v", err)
	}
	if _, err := (&core.IamAuthenticator{ApiKey: *created.Apikey, URL: s.srv.Address}).RequestToken(); err == nil {
		t.Error("a disabled key logged in")
	}
	if _, err := sdk.DeleteAPIKey(&iamidentityv1.DeleteAPIKeyOptions{ID: created.ID}); err != nil {
		t.Errorf("delete: %v", err)
	}
	if _, resp, err := sdk.GetAPIKey(&iamidentityv1.GetAPIKeyOptions{ID: created.ID}); err == nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("get after delete: %v %v, want 404", resp, err)
	}
	s.verified()
}

func TestAKeyIsShownAsItWas(t *testing.T) {
	s := newSystem(t)
	iam, _ := s.me()
	var key struct {
		ID        string `json:"id"`
		CreatedAt string `json:"created_at"`
	}
	if err := s.post(http.MethodPost, "/v1/apikeys", map[string]string{"name": "before", "iam_id": iam}, &key); err != nil {
		t.Fatal(err)
	}
	created, err := time.Parse("2006-01-02T15:04:05.000-0700", key.CreatedAt)
	if err != nil {
		t.Fatal(err)
	}
	req := httpRequest(http.MethodPut, "/v1/apikeys/"+key.ID)
	req.Header.Set("If-Match", "*")
	if err := s.api.JSON(t.Context(), req, map[string]string{"name": "after"}, nil); err != nil {
		t.Fatal(err)
	}
	type named struct {
		Name string `json:"name"`
	}
	if got := get[named](s, "/v1/apikeys/"+key.ID, nil); got.Name != "after" {
		t.Errorf("now it is called %q", got.Name)
	}
	if got := get[named](s, "/v1/apikeys/"+key.ID, url.Values{"as_of": {created.UTC().Format(time.RFC3339Nano)}}); got.Name != "before" {
		t.Errorf("as of %v it is called %q, want before", created, got.Name)
	}
}
