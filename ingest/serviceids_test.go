package ingest_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
	"example.com/keytrail/ingest"
)

// TestAServiceIDsLife: created with its key, locked, refused, unlocked, changed, deleted.
func TestAServiceIDsLife(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	r := n.serviceID(map[string]any{"name": "deploy", "unique_instance_crns": []string{"crn:v1:x"}, "apikey": map[string]any{"name": "its key", "store_value": true}})
	key, _ := r.body["apikey"].(map[string]any)
	value, _ := key["apikey"].(string)
	path, tag := "/v1/serviceids/"+r.field("id"), r.field("entity_tag")
	if key["kind"] != "service-credential" || key["iam_id"] != r.field("iam_id") || value == "" {
		t.Fatalf("made: %s", r.raw)
	}
	n.must(200, n.call(value, "GET", path, nil))
	n.must(204, n.call(n.admin, "POST", path+"/lock", nil))
	n.must(409, n.call(n.admin, "PUT", path, map[string]any{"name": "x"}, "If-Match", "*"))
	n.must(409, n.call(n.admin, "DELETE", path, nil))
	n.must(204, n.call(n.admin, "DELETE", path+"/lock", nil))
	n.must(409, n.call(n.admin, "PUT", path, map[string]any{"name": "x"}, "If-Match", tag))
	n.must(400, n.call(n.admin, "PUT", path, map[string]any{"name": "x"}))
	changed := n.must(200, n.call(n.admin, "PUT", path, map[string]any{"description": "new"}, "If-Match", "*"))
	if changed.field("name") != "deploy" || changed.field("description") != "new" || changed.header.Get("Etag") != changed.field("entity_tag") {
		t.Errorf("changed: %s", changed.raw)
	}
	n.must(200, n.call(n.admin, "PUT", path, map[string]any{"name": "deploy 2"}, "If-Match", changed.field("entity_tag")))
	shown := n.must(200, n.call(n.admin, "GET", path+"?include_history=true&include_activity=true", nil))
	if history, _ := shown.body["history"].([]any); len(history) != 5 || !strings.Contains(shown.raw, `"authn_count":3`) || shown.body["apikey"] != nil {
		t.Errorf("shown: %s", shown.raw)
	}
	n.must(204, n.call(n.admin, "DELETE", path, nil))
	n.must(401, n.call(value, "GET", "/v1/apikeys", nil)) // At once.
	n.must(404, n.call(n.admin, "GET", path, nil))
	if err := n.reconciler(n.commands, 0).Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{"service-credential.create normal", "service-credential.delete critical"}
	id, _ := key["id"].(string)
	if diff := cmp.Diff(want, n.actions(domain.KeyStream(domain.KeyID(id)))); diff != "" {
		t.Errorf("its key's records (-want +got):\n%s", diff)
	}
	events := n.events(domain.KeyStream(domain.KeyID(id)))
	ended, cause := events[len(events)-1], n.events(domain.ServiceIDStream(r.field("id")))
	if ended.Meta.Initiator.IAMID != domain.SystemIAMID || ended.Meta.CausationID != cause[len(cause)-1].ID.String() {
		t.Errorf("its key ended by %+v", ended.Meta)
	}
	want = []string{
		"account-serviceid.create normal", "account-serviceid.lock warning", "account-serviceid.unlock warning",
		"account-serviceid.update warning", "account-serviceid.update warning", "account-serviceid.delete critical",
	}
	if diff := cmp.Diff(want, n.actions(domain.ServiceIDStreams)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	n.soundSlots("after its end", domain.KeyLimitDefault)
	n.nowhere(value)
}

// TestAServiceIDAndItsKeyAreMadeBothOrNone: what is wrong with the key is found before.
func TestAServiceIDAndItsKeyAreMadeBothOrNone(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	creator := n.member("User-c", domain.RoleServiceIDCreator)
	taken := "a value that another key has already"
	n.must(201, n.call(n.admin, "POST", "/v1/apikeys", map[string]any{"name": "k", "iam_id": n.boot.Owner, "apikey": taken}))
	before := len(n.events(domain.ServiceIDStreams))
	for _, tt := range []struct {
		name, who string
		key       map[string]any
		status    int
		field     string
	}{
		{"a key without a name", n.admin, map[string]any{}, 400, "apikey.name"},
		{"an expiry in the past", n.admin, map[string]any{"name": "k", "expires_at": "2020-01-01T00:00+0000"}, 400, "apikey.expires_at"},
		{"a value that is another's", n.admin, map[string]any{"name": "k", "apikey": taken}, 409, "apikey"},
		{"no right to make the key", creator, map[string]any{"name": "k"}, 403, ""},
	} {
		r := n.call(tt.who, "POST", "/v1/serviceids", map[string]any{"name": "s", "account_id": n.boot.Account, "apikey": tt.key})
		if _, field := r.failure(); r.status != tt.status || field != tt.field {
			t.Errorf("%s: %d, field %q: %s", tt.name, r.status, field, r.raw)
		}
	}
	if after := len(n.events(domain.ServiceIDStreams)); after != before {
		t.Errorf("%d events about service IDs that were refused", after-before)
	}
}

// TestACredentialThatBreaksOffLeavesNeither: the process dies before or after each append.
func TestACredentialThatBreaksOffLeavesNeither(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for left := range 4 {
		for _, stored := range []bool{false, true} {
			name := fmt.Sprintf("%d appends, then one is stored %t", left, stored)
			mortal := n.process(&mortalLog{CommandLog: n.log, left: left, stored: stored})
			_, told := mortal.CreateServiceID(t.Context(), systemOrder(), ingest.NewServiceID{Account: n.boot.Account, Name: name, Locked: true, Key: &ingest.NewKey{Name: "its key"}})
			if told != nil && !errors.Is(told, errDied) {
				t.Fatalf("%s: %v", name, told)
			}
			survivor := n.reconciler(n.process(n.log), 0)
			for range 2 {
				if err := survivor.Reconcile(t.Context()); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			n.soundSlots(name, domain.KeyLimitDefault)
			there, keys := n.credential(name)
			if there != (keys == 1) || told == nil && !there {
				t.Errorf("%s: the service ID is there %t, with %d keys; told %v", name, there, keys, told)
			}
		}
	}
}

// credential reports whether a service ID of that name is there, and how many keys it has.
func (n *node) credential(name string) (there bool, keys int) {
	services := map[string]domain.ServiceID{}
	for _, rec := range n.events(domain.ServiceIDStreams) {
		services[rec.Stream] = services[rec.Stream].Evolve(rec)
	}
	var iam domain.IAMID
	for _, s := range services {
		if s.State().Name == name {
			iam, there = s.State().IAMID, !s.State().Deleted
		}
	}
	living := map[domain.KeyID]bool{}
	for _, rec := range n.events(domain.KeyStreams) {
		if s := rec.Event.(domain.KeyEvent).State(); s.IAMID == iam {
			living[s.ID] = !s.Deleted
		}
	}
	for _, lives := range living {
		if lives {
			keys++
		}
	}
	return there, keys
}

// TestServiceIDsPageWithoutGapOrRepeat, in every order, while others come and go.
func TestServiceIDsPageWithoutGapOrRepeat(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	var names, ids []string
	for i := range 23 {
		name := fmt.Sprintf("svc %02d", (i*7)%23)
		names, ids = append(names, name), append(ids, n.serviceID(map[string]any{"name": name}).field("id"))
	}
	slices.Sort(names)
	base := "/v1/serviceids?pagesize=5&account_id=" + string(n.boot.Account)
	for _, query := range []string{"", "&sort=name", "&sort=name&order=desc", "&sort=created_at", "&sort=modified_at&order=desc", "&sort=description"} {
		var got []string
		next, pages := base+query, 0
		for ; next != ""; pages++ {
			r := n.must(200, n.call(n.admin, "GET", next, nil))
			list, _ := r.body["serviceids"].([]any)
			for _, one := range list {
				entry, _ := one.(map[string]any)
				name, _ := entry["name"].(string)
				got = append(got, name)
			}
			next = strings.TrimPrefix(r.field("next"), n.srv.URL)
			if pages == 1 && !strings.HasPrefix(r.field("previous"), n.srv.URL) {
				t.Errorf("%s: the second page has no previous one", query)
			}
		}
		ordered := slices.IsSorted(got)
		if strings.Contains(query, "name&order=desc") {
			slices.Reverse(got)
			ordered = slices.IsSorted(got)
		}
		if strings.Contains(query, "name") && !ordered {
			t.Errorf("%s: not in order: %v", query, got)
		}
		slices.Sort(got)
		if diff := cmp.Diff(names, got); diff != "" || pages != 5 {
			t.Errorf("%s: %d pages (-want +got):\n%s", query, pages, diff)
		}
	}
	second := strings.TrimPrefix(n.must(200, n.call(n.admin, "GET", base+"&sort=name", nil)).field("next"), n.srv.URL)
	n.must(204, n.call(n.admin, "DELETE", "/v1/serviceids/"+ids[0], nil)) // "svc 00", of the first page.
	if r := n.must(200, n.call(n.admin, "GET", second, nil)); !strings.Contains(r.raw, `"svc 05"`) {
		t.Errorf("the second page moved: %s", r.raw)
	}
	for query, want := range map[string]int{"&name=svc 07": 1, "&name=svc": 0, `&filter=name co "svc 1"`: 10, `&filter=not (name sw "svc 0")`: 13} {
		r := n.must(200, n.call(n.admin, "GET", "/v1/serviceids/?pagesize=100&account_id="+string(n.boot.Account)+strings.NewReplacer(" ", "%20", `"`, "%22").Replace(query), nil))
		if list, _ := r.body["serviceids"].([]any); len(list) != want {
			t.Errorf("%s: %d, want %d", query, len(list), want)
		}
	}
	for query, field := range map[string]string{"&pagetoken=zz": "pagetoken", "&filter=x": "filter", "&sort=iam_id": "sort", "&pagesize=0": "pagesize"} {
		if _, got := n.must(400, n.call(n.admin, "GET", "/v1/serviceids?a=b"+query, nil)).failure(); got != field {
			t.Errorf("%s: names %q, want %q", query, got, field)
		}
	}
	member := n.member("User-m")
	n.must(403, n.call(member, "GET", base, nil))
}
