package query_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/query"
)

// TestAPageBehindACursorIsOfTheTablesOfTheFirst swaps tables between two pages.
func TestAPageBehindACursorIsOfTheTablesOfTheFirst(t *testing.T) {
	old, other := newFixture(t), newFixture(t)
	for i := range 4 {
		old.addEvents(keyEvent(accountA, "K-old", now.Add(-time.Duration(i)*time.Minute), uint64(10+i)))
		other.addEvents(keyEvent(accountA, "K-new", now.Add(-time.Duration(i)*time.Minute), uint64(10+i)))
	}
	old.progress.set(1, 100)
	other.progress.set(7, 100)
	both := tables(old.store, old.progress)
	engine, _ := newEngine(t, old.store, old.progress, old.access, func(c *query.Config) { c.Tables = both })
	f := &fixture{t: t, engine: engine}
	type page struct {
		Events []struct {
			Target struct{ ID string } `json:"target"`
		}
		Next string
	}
	var first, second page
	f.get("/v1/events", url.Values{"limit": {"2"}}, &first)
	first2 := both.live
	both.live = query.Generation{Name: "2", Store: other.store, Progress: other.progress}
	both.others = map[string]query.Generation{"1": first2}
	f.get("/v1/events", url.Values{"limit": {"2"}, "cursor": {first.Next}}, &second)
	for _, e := range append(first.Events, second.Events...) {
		if e.Target.ID != domain.KeyCRN(accountA, "K-old") {
			t.Errorf("a page behind the cursor shows %s of other tables", e.Target.ID)
		}
	}
	var fresh page
	f.get("/v1/events", url.Values{"limit": {"2"}}, &fresh)
	if len(fresh.Events) != 2 || fresh.Events[0].Target.ID != domain.KeyCRN(accountA, "K-new") {
		t.Errorf("a new question is answered by %+v, want the new tables", fresh.Events)
	}
	both.others = nil
	rec := f.get("/v1/events", url.Values{"limit": {"2"}, "cursor": {first.Next}}, nil)
	if code, _ := refusal(t, rec); rec.Code != http.StatusConflict || code != "generation_gone" {
		t.Errorf("a cursor of tables that are gone: %d %s", rec.Code, rec.Body)
	}
}

// TestTablesThatMustNotBeReadAreNotRead has the tables refused.
func TestTablesThatMustNotBeReadAreNotRead(t *testing.T) {
	f := newFixture(t)
	refused := tables(f.store, f.progress)
	refused.err = domain.Errorf(domain.Unavailable, "not those of the log").WithMessageCode("tables_refused")
	engine, h := newEngine(t, f.store, f.progress, f.access, func(c *query.Config) { c.Tables = refused })
	for _, path := range []string{"/v1/events", "/v1/findings", "/v1/usage/series", "/v1/usage/top", "/v1/apikeys/K/timeline", "/v1/events/export"} {
		rec := ask(t, engine, path, nil)
		if code, _ := refusal(t, rec); rec.Code != http.StatusServiceUnavailable || code != "tables_refused" {
			t.Errorf("%s: %d %s", path, rec.Code, rec.Body)
		}
	}
	if _, err := h.Keys().ListKeys(t.Context(), domain.KeysQuery{PageSize: 1, Order: "asc"}); domain.CodeOf(err) != domain.Unavailable {
		t.Errorf("list of keys: %v", err)
	}
	if _, _, err := (query.KnownUses{Tables: refused}).Known(t.Context(), accountA, []string{"x"}, now, now); domain.CodeOf(err) != domain.Unavailable {
		t.Errorf("known uses: %v", err)
	}
}
