package ingest_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"example.com/keytrail/domain"
)

// holdIDs are the holds that an answer lists.
func holdIDs(t *testing.T, r reply) []string {
	t.Helper()
	var v struct {
		Holds []domain.LegalHold `json:"holds"`
	}
	if err := json.Unmarshal([]byte(r.raw), &v); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, h := range v.Holds {
		ids = append(ids, h.ID)
	}
	return ids
}

// TestLegalHoldsAreRecordedCommands sets, repeats and releases holds, and looks at what
// stands in the log, refusals included.
func TestLegalHoldsAreRecordedCommands(t *testing.T) {
	n := newNode(t)
	const path = "/v1/legal-holds"
	hold := map[string]any{"id": "case-7", "account_id": "acct9", "reason": "letter of 3 March"}
	if ids := holdIDs(t, n.must(http.StatusOK, n.call(n.admin, "GET", path, nil))); len(ids) != 0 {
		t.Errorf("holds before any was set: %v", ids)
	}
	for range 2 { // A repeat is no second hold.
		if ids := holdIDs(t, n.must(http.StatusCreated, n.call(n.admin, "POST", path, hold))); len(ids) != 1 || ids[0] != "case-7" {
			t.Errorf("holds %v", ids)
		}
	}
	if ids := holdIDs(t, n.must(http.StatusCreated, n.call(n.admin, "POST", path, map[string]any{"reason": "audit"}))); len(ids) != 2 {
		t.Errorf("holds %v", ids)
	}
	n.must(http.StatusConflict, n.call(n.admin, "POST", path, map[string]any{"id": "case-7", "account_id": "acct8", "reason": "x"}))
	n.must(http.StatusBadRequest, n.call(n.admin, "POST", path, map[string]any{"id": "case-8"}))
	n.must(http.StatusNotFound, n.call(n.admin, "POST", path+"/other/release", map[string]any{"reason": "x"}))
	for range 2 {
		if ids := holdIDs(t, n.must(http.StatusOK, n.call(n.admin, "POST", path+"/case-7/release", map[string]any{"reason": "settled"}))); len(ids) != 1 || ids[0] == "case-7" {
			t.Errorf("holds %v", ids)
		}
	}
	reader := n.member("User-reader", domain.RoleAuditor)
	n.must(http.StatusForbidden, n.call(reader, "GET", path, nil))
	n.must(http.StatusForbidden, n.call(reader, "POST", path, hold))
	n.must(http.StatusForbidden, n.call(reader, "POST", path+"/case-7/release", map[string]any{"reason": "x"}))

	var got []string
	for _, rec := range n.events(domain.LegalHoldStream) {
		got = append(got, rec.Type)
		if rec.Meta.Initiator.IAMID == "" {
			t.Errorf("nobody gave %s", rec.Type)
		}
	}
	want := []string{domain.TypeLegalHoldSet, domain.TypeLegalHoldSet, domain.TypeLegalHoldReleased}
	if len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("events %v, want %v", got, want)
	}
	refused := map[domain.Code]int{}
	for _, r := range n.refused() {
		if r.Action == domain.ActionHoldSet || r.Action == domain.ActionHoldRelease {
			refused[r.Code]++
		}
	}
	if refused[domain.Conflict] != 1 || refused[domain.NotFound] != 1 || refused[domain.Forbidden] != 2 {
		t.Errorf("refusals recorded: %v", refused)
	}
}
