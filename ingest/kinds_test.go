package ingest_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
	"example.com/keytrail/ingest"
)

// change carries out a command about the first account as keytrail itself, and waits until
// this node knows.
func (n *node) change(cmd domain.AccountCommand) {
	n.tb.Helper()
	_, position, err := n.commands.ChangeAccount(n.tb.Context(), systemOrder(), n.boot.Account, cmd)
	if err != nil {
		n.tb.Fatal(err)
	}
	if err := n.dirs.WaitFor(n.tb.Context(), position); err != nil {
		n.tb.Fatal(err)
	}
}

// serviceID makes a service ID of the first account.
func (n *node) serviceID(body map[string]any) reply {
	n.tb.Helper()
	body["account_id"] = n.boot.Account
	if body["name"] == nil {
		body["name"] = "ci"
	}
	return n.must(http.StatusCreated, n.call(n.admin, "POST", "/v1/serviceids/", body))
}

// actions are the activity records of what has a prefix, as action and severity.
func (n *node) actions(prefix string) []string {
	var out []string
	for _, rec := range n.events(prefix) {
		if a, ok := domain.ActivityOf(rec); ok {
			out = append(out, strings.TrimPrefix(a.Action, "iam-identity.")+" "+string(a.Severity))
		}
	}
	return out
}

func TestAStoredValueIsReadAgainAndEachReadIsAnEvent(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	iam := n.serviceID(map[string]any{}).field("iam_id")
	made := n.must(201, n.call(n.admin, "POST", "/v1/apikeys", map[string]any{"name": "stored", "iam_id": iam, "store_value": true}))
	path, value := "/v1/apikeys/"+made.field("id"), made.field("apikey")
	tag := made.field("entity_tag")
	for range 2 {
		r := n.must(200, n.call(n.admin, "GET", path, nil))
		if r.field("apikey") != value || r.field("entity_tag") != tag || r.field("modified_at") != made.field("modified_at") {
			t.Errorf("read again: %s", r.raw)
		}
	}
	viewer := n.member("User-v", domain.RoleViewer)
	if r := n.must(200, n.call(viewer, "GET", path, nil)); r.field("apikey") != "" || r.field("name") != "stored" {
		t.Errorf("a viewer reads %s", r.raw)
	}
	if r := n.must(200, n.call(n.admin, "GET", "/v1/apikeys/details", nil, "IAM-ApiKey", value)); r.field("apikey") != "" {
		t.Errorf("found by its value, it is echoed: %s", r.raw)
	}
	want := []string{"serviceid-apikey.create normal", "serviceid-apikey.reveal warning", "serviceid-apikey.reveal warning"}
	if diff := cmp.Diff(want, n.actions(domain.KeyStream(domain.KeyID(made.field("id"))))); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	n.must(204, n.call(n.admin, "DELETE", path, nil))
	if left, err := filepath.Glob(filepath.Join(n.dir, "values", "*")); err != nil || len(left) != 0 {
		t.Errorf("a deleted key leaves %v in the key store: %v", left, err)
	}
	r := n.must(400, n.call(n.admin, "POST", "/v1/apikeys", map[string]any{"name": "x", "iam_id": n.boot.Owner, "store_value": true}))
	if code, field := r.failure(); code != "store_value_not_taken" || field != "store_value" {
		t.Errorf("a user's key: %s", r.raw)
	}
	n.nowhere(value)
}

// nowhere fails the test if a secret is in the log, or readable in the node's folder.
func (n *node) nowhere(secrets ...string) {
	n.tb.Helper()
	raws := n.events(domain.EvidencePrefix)
	for _, rec := range raws {
		data, _, err := domain.EncodeEvent(rec.Event)
		if err != nil {
			n.tb.Fatal(err)
		}
		for _, secret := range secrets {
			if strings.Contains(string(data)+rec.Stream+fmt.Sprint(rec.Meta), secret) {
				n.tb.Errorf("%s@%d holds a secret", rec.Stream, rec.Revision)
			}
		}
	}
	err := filepath.WalkDir(n.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == ingest.AdminKeyFile {
			return err
		}
		data, err := os.ReadFile(path)
		for _, secret := range secrets {
			if strings.Contains(string(data), secret) {
				n.tb.Errorf("%s holds a secret", path)
			}
		}
		return err
	})
	if err != nil {
		n.tb.Fatal(err)
	}
}

func TestAChosenValueWorksIsUniqueAndIsNeverEchoed(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	value := "my own value: it is long enough {}"
	ask := func(name string) reply {
		return n.call(n.admin, "POST", "/v1/apikeys", map[string]any{"name": name, "iam_id": n.boot.Owner, "apikey": value})
	}
	made := n.must(201, ask("own"))
	if made.field("apikey") != value {
		t.Errorf("answered %q", made.field("apikey"))
	}
	n.must(200, n.call(value, "GET", "/v1/apikeys/"+made.field("id"), nil))
	r := n.must(409, ask("again"))
	if code, field := r.failure(); code != "duplicate_value" || field != "apikey" || strings.Contains(r.raw, "own value") {
		t.Errorf("again: %s", r.raw)
	}
	n.must(204, n.call(n.admin, "DELETE", "/v1/apikeys/"+made.field("id"), nil))
	n.must(409, ask("after its end"))
	short := n.must(400, n.call(n.admin, "POST", "/v1/apikeys", map[string]any{"name": "x", "iam_id": n.boot.Owner, "apikey": value[:31]}))
	if strings.Contains(short.raw, "own value") {
		t.Errorf("a refusal echoes: %s", short.raw)
	}
	named := n.must(400, n.call(n.admin, "POST", "/v1/apikeys", map[string]any{"name": "is " + value + "2", "iam_id": n.boot.Owner, "apikey": value + "2"}))
	if _, field := named.failure(); field != "name" || strings.Contains(named.raw, "own value") {
		t.Errorf("a value in the name: %s", named.raw)
	}
	n.nowhere(value)
	n.soundSlots("in the end", domain.KeyLimitDefault)
}

func TestAClassicKeyIsOneReadByItsOwnerAndSeenFromAbove(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	below, beside := n.member("User-below"), n.member("User-beside", domain.RoleAdministrator)
	above := n.member("User-above")
	n.change(domain.SetParent{IAMID: "User-below", Parent: "User-above"})
	ask := map[string]any{"name": "classic", "iam_id": "User-below", "type": "classic", "account_id": n.boot.Account}
	made := n.must(201, n.call(below, "POST", "/v1/apikeys", ask))
	path := "/v1/apikeys/" + made.field("id")
	if code, _ := n.must(409, n.call(below, "POST", "/v1/apikeys", ask)).failure(); code != "classic_key_exists" {
		t.Errorf("a second one: %q", code)
	}
	n.must(403, n.call(above, "POST", "/v1/apikeys", ask))
	n.must(403, n.call(beside, "POST", "/v1/apikeys", ask))
	if r := n.must(200, n.call(below, "GET", path, nil)); r.field("apikey") != made.field("apikey") || r.field("kind") != "classic" {
		t.Errorf("its owner reads %s", r.raw)
	}
	if r := n.must(200, n.call(above, "GET", path, nil)); r.field("apikey") != "" || r.field("name") != "classic" {
		t.Errorf("who stands above reads %s", r.raw)
	}
	n.must(403, n.call(beside, "GET", path, nil))
	n.must(403, n.call(above, "PUT", path, map[string]any{"name": "x"}, "If-Match", "*"))
	n.must(403, n.call(above, "POST", path+"/disable", nil))
	for who, want := range map[string]int{below: 1, above: 1, beside: 0, n.admin: 1} {
		r := n.must(200, n.call(who, "GET", "/v1/apikeys?scope=account&type=classic&account_id="+string(n.boot.Account), nil))
		if got := strings.Count(r.raw, `"kind":"classic"`); got != want {
			t.Errorf("lists %d, want %d: %s", got, want, r.raw)
		}
	}
	n.must(204, n.call(above, "DELETE", path, nil))
	n.must(201, n.call(below, "POST", "/v1/apikeys", ask))
	n.nowhere(made.field("apikey"))
	n.soundSlots("in the end", domain.KeyLimitDefault)
}

func TestKeysOfFunctionalIDsAreShownAndListedAsSuch(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	robot := n.member("User-robot")
	n.member("User-person")
	n.change(domain.SetFunctional{IAMID: "User-robot", Functional: true})
	r := n.must(200, n.call(n.admin, "GET", "/v1/apikeys?scope=account&type=functional&account_id="+string(n.boot.Account), nil))
	if strings.Count(r.raw, `"kind":"functional"`) != 1 || strings.Contains(r.raw, "User-person") {
		t.Errorf("listed: %s", r.raw)
	}
	if r := n.must(200, n.call(robot, "GET", "/v1/apikeys/details", nil, "IAM-ApiKey", robot)); r.field("kind") != "functional" {
		t.Errorf("shown: %s", r.raw)
	}
}
