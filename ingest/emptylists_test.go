package ingest_test

import (
	"encoding/json"
	"testing"
)

func TestWhatKeytrailDoesNotHaveIsAnEmptyListForItsMembersAlone(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	other := n.must(201, n.call(n.admin, "POST", "/v1/accounts", map[string]any{"name": "Other", "owner_iam_id": "User-stranger"}))
	for path, field := range map[string]string{
		"/v1/profiles": "profiles", "/v1/profile_templates": "profile_templates", "/v1/account_settings_templates": "account_settings_templates",
	} {
		for _, query := range []string{"", "?account_id=" + string(n.boot.Account)} {
			r := n.must(200, n.call(n.admin, "GET", path+query, nil))
			var body map[string]json.RawMessage
			if err := json.Unmarshal([]byte(r.raw), &body); err != nil || string(body[field]) != "[]" {
				t.Errorf("%s%s: %s (%v), want an empty list %s", path, query, r.raw, err, field)
			}
			if r.header.Get("Keytrail-Position") == "" {
				t.Errorf("%s does not say its position", path)
			}
		}
		n.must(404, n.call(n.admin, "GET", path+"?account_id="+other.field("id"), nil))
		n.must(401, n.call("", "GET", path, nil))
	}
}
