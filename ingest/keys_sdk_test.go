package ingest_test

import (
	"testing"

	"github.com/IBM/go-sdk-core/v5/core"
	"github.com/IBM/platform-services-go-sdk/iamidentityv1"

	"example.com/keytrail/domain"
)

// sdk returns IBM's client, signed in through the token call as its IAM authenticator
// does it.
func (n *node) sdk() *iamidentityv1.IamIdentityV1 {
	n.tb.Helper()
	authenticator := &core.IamAuthenticator{ApiKey: n.admin, URL: n.srv.URL, Client: n.srv.Client()}
	client, err := iamidentityv1.NewIamIdentityV1(&iamidentityv1.IamIdentityV1Options{URL: n.srv.URL, Authenticator: authenticator})
	if err != nil {
		n.tb.Fatal(err)
	}
	client.Service.SetHTTPClient(n.srv.Client())
	return client
}

// wantStatus fails the test where the SDK's call ended otherwise.
func wantStatus(t *testing.T, what string, want int, resp *core.DetailedResponse, err error) {
	t.Helper()
	if resp == nil {
		t.Fatalf("%s: no answer: %v", what, err)
	}
	if resp.StatusCode != want || (err != nil) != (want >= 400) {
		t.Fatalf("%s: status %d (%v), want %d", what, resp.StatusCode, err, want)
	}
}

// TestIBMsSDKWorks: a program written for IBM Cloud works when its URL points here.
func TestIBMsSDKWorks(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	client := n.sdk()
	owner, account := string(n.boot.Owner), string(n.boot.Account)

	created, resp, err := client.CreateAPIKeyWithContext(t.Context(), &iamidentityv1.CreateAPIKeyOptions{
		Name: new("sdk-key"), IamID: &owner, AccountID: &account, Description: new("made by the SDK"),
		ActionWhenLeaked: new("delete"), ExpiresAt: new("2099-01-31T23:59+0000"), SupportSessions: new(true),
		EntityLock: new("false"), EntityDisable: new("false"), StoreValue: new(false),
	})
	wantStatus(t, "create", 201, resp, err)
	if *created.Apikey == "" || *created.Locked || *created.Disabled || *created.ExpiresAt != "2099-01-31T23:59+0000" ||
		*created.ActionWhenLeaked != "delete" || !*created.SupportSessions || *created.CreatedBy != owner || created.CreatedAt == nil ||
		*created.CRN != "crn:v1:keytrail:public:iam-identity::a/"+account+"::apikey:"+*created.ID {
		t.Errorf("created %+v", created)
	}
	if *created.Context.TransactionID == "" {
		t.Error("no context")
	}

	got, resp, err := client.GetAPIKeyWithContext(t.Context(), &iamidentityv1.GetAPIKeyOptions{
		ID: created.ID, IncludeHistory: new(true), IncludeActivity: new(true),
	})
	wantStatus(t, "get", 200, resp, err)
	if *got.Apikey != "" || *got.EntityTag != *created.EntityTag || len(got.History) != 1 || *got.Activity.AuthnCount != 3 {
		t.Errorf("got %+v", got)
	}
	if h := got.History[0]; *h.Action != "iam-identity.user-apikey.create" || *h.IamID != owner || *h.IamIDAccount != account || h.Params == nil {
		t.Errorf("history %+v", h)
	}

	list, resp, err := client.ListAPIKeysWithContext(t.Context(), &iamidentityv1.ListAPIKeysOptions{AccountID: &account, Pagesize: core.Int64Ptr(100)})
	wantStatus(t, "list", 200, resp, err)
	found := false
	for _, key := range list.Apikeys {
		found = found || *key.ID == *created.ID
	}
	if !found || *list.Limit != 100 {
		t.Errorf("the list straight after the creation lacks the key: %+v", list)
	}

	update := func(tag, name string) (*iamidentityv1.APIKey, *core.DetailedResponse, error) {
		return client.UpdateAPIKeyWithContext(t.Context(), &iamidentityv1.UpdateAPIKeyOptions{ID: created.ID, IfMatch: &tag, Name: &name, Description: new("")})
	}
	updated, resp, err := update(*created.EntityTag, "renamed")
	wantStatus(t, "update with the tag of now", 200, resp, err)
	if *updated.Name != "renamed" || updated.Description != nil || *updated.EntityTag == *created.EntityTag {
		t.Errorf("updated %+v", updated)
	}
	_, resp, err = update(*created.EntityTag, "stale")
	wantStatus(t, "update with a stale tag", 409, resp, err)
	_, resp, err = update("*", "any")
	wantStatus(t, "update of any version", 200, resp, err)

	resp, err = client.LockAPIKeyWithContext(t.Context(), &iamidentityv1.LockAPIKeyOptions{ID: created.ID})
	wantStatus(t, "lock", 204, resp, err)
	resp, err = client.DeleteAPIKeyWithContext(t.Context(), &iamidentityv1.DeleteAPIKeyOptions{ID: created.ID})
	wantStatus(t, "delete of a locked key", 409, resp, err)
	resp, err = client.UnlockAPIKeyWithContext(t.Context(), &iamidentityv1.UnlockAPIKeyOptions{ID: created.ID})
	wantStatus(t, "unlock", 204, resp, err)
	resp, err = client.DisableAPIKeyWithContext(t.Context(), &iamidentityv1.DisableAPIKeyOptions{ID: created.ID})
	wantStatus(t, "disable", 204, resp, err)
	details, resp, err := client.GetAPIKeysDetailsWithContext(t.Context(), &iamidentityv1.GetAPIKeysDetailsOptions{IamAPIKey: created.Apikey})
	wantStatus(t, "details of a disabled key", 200, resp, err)
	if !*details.Disabled || *details.ID != *created.ID {
		t.Errorf("details %+v", details)
	}
	resp, err = client.EnableAPIKeyWithContext(t.Context(), &iamidentityv1.EnableAPIKeyOptions{ID: created.ID})
	wantStatus(t, "enable", 204, resp, err)
	resp, err = client.DeleteAPIKeyWithContext(t.Context(), &iamidentityv1.DeleteAPIKeyOptions{ID: created.ID})
	wantStatus(t, "delete", 204, resp, err)
	_, resp, err = client.GetAPIKeyWithContext(t.Context(), &iamidentityv1.GetAPIKeyOptions{ID: created.ID})
	wantStatus(t, "get of a deleted key", 404, resp, err)

	if uses := n.uses.all(); len(uses) != 1 || uses[0].Action != domain.KeyAction(domain.KindUser, domain.VerbLogin) {
		t.Errorf("the SDK's one sign-in left %+v", uses)
	}
}

func TestIBMsSDKMakesServiceIDsAndTheirKeys(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	client := n.sdk()
	account := string(n.boot.Account)
	svc, resp, err := client.CreateServiceIDWithContext(t.Context(), &iamidentityv1.CreateServiceIDOptions{
		AccountID: &account, Name: new("ci"), Description: new("builds"),
	})
	wantStatus(t, "create", 201, resp, err)
	got, resp, err := client.GetServiceIDWithContext(t.Context(), &iamidentityv1.GetServiceIDOptions{ID: svc.ID})
	wantStatus(t, "get", 200, resp, err)
	if *got.Name != "ci" || *got.IamID != "iam-"+*svc.ID || *got.AccountID != account {
		t.Errorf("got %+v", got)
	}
	key, resp, err := client.CreateAPIKeyWithContext(t.Context(), &iamidentityv1.CreateAPIKeyOptions{Name: new("ci-key"), IamID: svc.IamID})
	wantStatus(t, "create a key", 201, resp, err)
	if *key.IamID != *svc.IamID || *key.AccountID != account {
		t.Errorf("key %+v", key)
	}
	resp, err = client.DeleteServiceIDWithContext(t.Context(), &iamidentityv1.DeleteServiceIDOptions{ID: svc.ID})
	wantStatus(t, "delete", 204, resp, err)
}
