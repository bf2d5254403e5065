package query_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
)

// shown is where a record of an answer stands.
type shown struct {
	ID       string
	Keytrail struct {
		Position    string
		Index       uint32
		Account     string    `json:"account_id"`
		EffectiveAt time.Time `json:"effective_at"`
	}
}

type eventsPage struct {
	Events []json.RawMessage
	Next   string
}

func (p eventsPage) ids(t *testing.T) []string {
	t.Helper()
	out := make([]string, 0, len(p.Events))
	for _, text := range p.Events {
		var e shown
		if err := json.Unmarshal(text, &e); err != nil {
			t.Fatal(err)
		}
		out = append(out, e.ID)
	}
	return out
}

// pages asks for page after page and returns all ids. between runs after each page.
func (f *fixture) pages(t *testing.T, params url.Values, between func()) []string {
	t.Helper()
	var all []string
	for {
		var page eventsPage
		f.get("/v1/events", params, &page)
		all = append(all, page.ids(t)...)
		if page.Next == "" {
			return all
		}
		if len(all) > 1000 {
			t.Fatal("the pages do not end")
		}
		if between != nil {
			between()
		}
		params.Set("cursor", page.Next)
	}
}

// placed is a record of the model: what the answer must hold, in which order.
type placed struct {
	id       string
	account  domain.AccountID
	at       time.Time
	position uint64
	index    uint32
}

func comparePlaced(a, b placed) int {
	if c := a.at.Compare(b.at); c != 0 {
		return c
	}
	if a.position != b.position {
		return int(int64(a.position) - int64(b.position))
	}
	return int(a.index) - int(b.index)
}

// fill puts n random records into both tables, many of them at one time.
func (f *fixture) fill(r *rand.Rand, n int) []placed {
	var (
		events []event
		uses   []use
		model  []placed
	)
	accounts := []domain.AccountID{accountA, accountB, accountX}
	for i := range n {
		at := now.Add(-time.Duration(r.IntN(20)) * time.Second)
		account := accounts[r.IntN(len(accounts))]
		position := uint64(i+1) * 7
		if r.IntN(2) == 0 {
			e := keyEvent(account, "ApiKey-1", at, position)
			events = append(events, e)
			model = append(model, placed{e.ID, account, at, position, 0})
			continue
		}
		for index := range uint32(1 + r.IntN(3)) {
			u := keyUse(account, "ApiKey-1", at, position, index)
			uses = append(uses, u)
			model = append(model, placed{u.ID, account, at, position, index})
		}
	}
	f.addEvents(events...)
	f.addUses(uses...)
	slices.SortFunc(model, comparePlaced)
	return model
}

func TestPagesShowEveryRecordOfBothTablesOnceAndInOrder(t *testing.T) {
	f := newFixture(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	model := f.fill(r, 120)
	f.progress.set(1, 1_000_000)
	for _, limit := range []int{1, 7, 1000} {
		for _, sort := range []string{"asc", "desc"} {
			for _, account := range []domain.AccountID{"", accountB} {
				name := fmt.Sprintf("limit=%d sort=%s account=%s", limit, sort, account)
				from, to := now.Add(-15*time.Second), now.Add(-2*time.Second)
				var want []string
				for _, p := range model {
					if p.account != accountX && (account == "" || p.account == account) && !p.at.Before(from) && p.at.Before(to) {
						want = append(want, p.id)
					}
				}
				if sort == "desc" {
					slices.Reverse(want)
				}
				got := f.pages(t, url.Values{
					"limit": {strconv.Itoa(limit)}, "sort": {sort}, "account_id": {string(account)},
					"from": {from.Format(time.RFC3339Nano)}, "to": {"-2s"},
				}, nil)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", name, diff)
				}
			}
		}
	}
}

func TestLaterPagesShowOnlyWhatTheFirstCould(t *testing.T) {
	f := newFixture(t)
	for i := range uint64(6) {
		f.addEvents(keyEvent(accountA, "ApiKey-1", now.Add(-time.Duration(i)*time.Hour), 100+i))
	}
	f.progress.set(1, 105)
	want := make([]string, 0, 6)
	for i := range uint64(6) {
		want = append(want, keyEvent(accountA, "", now, 100+i).ID)
	}
	added := uint64(0)
	got := f.pages(t, url.Values{"limit": {"2"}}, func() {
		added++
		f.addEvents(keyEvent(accountA, "ApiKey-1", now.Add(-10*time.Hour), 200+added))
		f.addUses(keyUse(accountA, "ApiKey-1", now.Add(-4*time.Hour), 300+added, 0))
		f.progress.set(2, 1000)
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("records of the first page's position (-want +got):\n%s", diff)
	}
	if got := f.pages(t, url.Values{}, nil); len(got) != 6+2*int(added) {
		t.Errorf("a new search shows %d records, want %d", len(got), 6+2*added)
	}
}

func TestRowsBeyondTheCompletedPositionAreNotShown(t *testing.T) {
	f := newFixture(t)
	f.addEvents(keyEvent(accountA, "ApiKey-1", now, 10), keyEvent(accountA, "ApiKey-1", now, 11))
	f.addUses(keyUse(accountA, "ApiKey-1", now, 10, 1), keyUse(accountA, "ApiKey-1", now, 12, 0))
	f.progress.set(1, 10)
	if got := f.pages(t, url.Values{}, nil); len(got) != 2 {
		t.Errorf("shown %v, want the two records at position 10", got)
	}
}

func TestEveryAnswerStatesPositionAndLag(t *testing.T) {
	f := newFixture(t)
	f.progress.set(3, 42)
	for _, path := range []string{
		"/v1/events", "/v1/usage/series", "/v1/usage/top?by=key", "/v1/usage/heatmap", "/v1/findings", "/v1/projections", "/v1/events/export", "/v1/events/none",
	} {
		u, err := url.Parse(path)
		if err != nil {
			t.Fatal(err)
		}
		rec := f.get(u.Path, u.Query(), nil)
		if got := rec.Header().Get("Keytrail-Position"); got != "42" {
			t.Errorf("%s: Keytrail-Position = %q, want 42", path, got)
		}
		if got := rec.Header().Get("Keytrail-Lag"); got != "1.500s" {
			t.Errorf("%s: Keytrail-Lag = %q, want 1.500s", path, got)
		}
	}
}

func TestACallMayWaitForAPosition(t *testing.T) {
	f := newFixture(t)
	f.progress.set(1, 10)
	f.addEvents(keyEvent(accountA, "ApiKey-1", now, 20))
	done := make(chan *httptest.ResponseRecorder)
	go func() {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/events", nil)
		req.Header.Set("Keytrail-Wait-Position", "20")
		rec := httptest.NewRecorder()
		f.engine.ServeHTTP(rec, req)
		done <- rec
	}()
	f.progress.set(2, 20)
	rec := <-done
	var page eventsPage
	if err := json.Unmarshal(rec.Body.Bytes(), &page); err != nil || len(page.Events) != 1 || rec.Header().Get("Keytrail-Position") != "20" {
		t.Errorf("answer %d at %s: %s, want the record at 20", rec.Code, rec.Header().Get("Keytrail-Position"), rec.Body)
	}
}

// TestAMemberWithoutTheRightHearsWhichRoleItNeeds, which is recorded before the answer;
// where that cannot be, it is not answered so.
func TestAMemberWithoutTheRightHearsWhichRoleItNeeds(t *testing.T) {
	f := newFixture(t)
	f.progress.set(1, 10)
	actions := map[string]string{
		"/v1/events": "activity.search", "/v1/findings": "activity.search", "/v1/events/export": "activity.export",
		"/v1/usage/series": "activity.read", "/v1/usage/top": "activity.read", "/v1/apikeys/ApiKey-2/timeline": "activity.read",
	}
	for path, action := range actions {
		f.refused.events = nil
		params := url.Values{"account_id": {string(accountM)}}
		if path == "/v1/usage/top" {
			params.Set("by", "key")
		}
		rec := f.get(path, params, nil)
		code, _ := refusal(t, rec)
		if rec.Code != http.StatusForbidden || code != "missing_role" || !strings.Contains(rec.Body.String(), "needs the role Viewer, Operator, Editor or Administrator on IAM Identity or the role Auditor") {
			t.Errorf("%s: %d %s, want 403 and the roles", path, rec.Code, rec.Body)
		}
		if len(f.refused.events) != 1 {
			t.Errorf("%s: %d refusals recorded, want 1", path, len(f.refused.events))
			continue
		}
		if e := f.refused.events[0]; e.Action != action || e.Account != accountM || e.Status != 403 || e.Code != domain.Forbidden {
			t.Errorf("%s: recorded %+v", path, e)
		}
	}
	f.refused.err = domain.Errorf(domain.Unavailable, "away")
	if rec := f.get("/v1/events", url.Values{"account_id": {string(accountM)}}, nil); rec.Code != http.StatusServiceUnavailable {
		t.Errorf("a refusal that cannot be recorded is answered %d", rec.Code)
	}
}

func TestAnotherAccountsThingsDoNotExist(t *testing.T) {
	f := newFixture(t)
	mine, theirs := keyEvent(accountA, "ApiKey-1", now, 1), keyEvent(accountX, "ApiKey-2", now, 2)
	f.addEvents(mine, theirs)
	f.addUses(keyUse(accountX, "ApiKey-2", now, 3, 0))
	f.progress.set(1, 10)
	for _, path := range []string{
		"/v1/events?account_id=acct-x", "/v1/events?account_id=unheard-of", "/v1/events?account_id=a%20b", "/v1/events/" + theirs.ID,
		"/v1/events/use-3-0", "/v1/apikeys/ApiKey-2/timeline", "/v1/usage/series?account_id=acct-x", "/v1/usage/top?by=key&account_id=acct-x",
		"/v1/findings?account_id=acct-x", "/v1/events/export?account_id=acct-x",
	} {
		u, err := url.Parse(path)
		if err != nil {
			t.Fatal(err)
		}
		if rec := f.get(u.Path, u.Query(), nil); rec.Code != http.StatusNotFound {
			t.Errorf("%s: %d %s, want 404", path, rec.Code, rec.Body)
		}
	}
	if rec := f.get("/v1/events/"+mine.ID, nil, nil); rec.Code != http.StatusOK {
		t.Errorf("my event: %d %s", rec.Code, rec.Body)
	}
}

func TestACursorIsOfItsOwnQuestionOnly(t *testing.T) {
	f := newFixture(t)
	f.fill(rand.New(rand.NewPCG(1, 1)), 20)
	f.progress.set(1, 1000)
	var first eventsPage
	f.get("/v1/events", url.Values{"limit": {"2"}, "from": {"-1h"}}, &first)
	tests := []struct {
		name   string
		path   string
		params url.Values
		cursor string
	}{
		{name: "another filter", path: "/v1/events", params: url.Values{"from": {"-1h"}, "filter": {"outcome=success"}}, cursor: first.Next},
		{name: "another range", path: "/v1/events", params: url.Values{"from": {"-2h"}}, cursor: first.Next},
		{name: "another order", path: "/v1/events", params: url.Values{"from": {"-1h"}, "sort": {"asc"}}, cursor: first.Next},
		{name: "another account", path: "/v1/events", params: url.Values{"from": {"-1h"}, "account_id": {"acct-a"}}, cursor: first.Next},
		{name: "another list", path: "/v1/findings", params: url.Values{}, cursor: first.Next},
		{name: "a changed byte", path: "/v1/events", params: url.Values{"from": {"-1h"}}, cursor: "A" + first.Next[1:]},
		{name: "a changed body", path: "/v1/events", params: url.Values{"from": {"-1h"}}, cursor: first.Next[:len(first.Next)-2] + "AA"},
		{name: "cut short", path: "/v1/events", params: url.Values{"from": {"-1h"}}, cursor: first.Next[:10]},
		{name: "none of ours", path: "/v1/events", params: url.Values{"from": {"-1h"}}, cursor: "hello"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.params.Set("cursor", tt.cursor)
			rec := f.get(tt.path, tt.params, nil)
			if rec.Code != http.StatusBadRequest {
				t.Fatalf("%d %s, want 400", rec.Code, rec.Body)
			}
			if code, field := refusal(t, rec); code != "invalid_cursor" || field != "cursor" {
				t.Errorf("refusal %s %s, want invalid_cursor cursor", code, field)
			}
		})
	}
	if rec := f.get("/v1/events", url.Values{"from": {"-1h"}, "limit": {"5"}, "cursor": {first.Next}}, nil); rec.Code != http.StatusOK {
		t.Errorf("another limit: %d %s, want it allowed", rec.Code, rec.Body)
	}
}

func TestAWrongParameterIsNamed(t *testing.T) {
	f := newFixture(t)
	tests := []struct {
		name, path, query, field, code string
	}{
		{name: "unknown", path: "/v1/events", query: "form=-7d", field: "form", code: "unknown_parameter"},
		{name: "twice", path: "/v1/events", query: "from=-7d&from=-8d", field: "from", code: "duplicate_parameter"},
		{name: "limit too large", path: "/v1/events", query: "limit=1001", field: "limit", code: "out_of_bounds"},
		{name: "limit zero", path: "/v1/events", query: "limit=0", field: "limit", code: "out_of_bounds"},
		{name: "limit no number", path: "/v1/events", query: "limit=ten", field: "limit", code: "out_of_bounds"},
		{name: "sort", path: "/v1/events", query: "sort=up", field: "sort", code: "unknown_value"},
		{name: "time", path: "/v1/events", query: "from=yesterday", field: "from", code: "invalid_time"},
		{name: "range", path: "/v1/events", query: "from=-1d&to=-2d", field: "to", code: "invalid_range"},
		{name: "filter", path: "/v1/events", query: "filter=nope%3D1", field: "filter", code: "invalid_filter"},
		{name: "malformed", path: "/v1/events", query: "a=%zz", field: "", code: "invalid_query"},
		{name: "not UTF-8", path: "/v1/events", query: "filter=%ff", field: "filter", code: "not_text"},
		{name: "missing", path: "/v1/usage/top", query: "", field: "by", code: "missing_parameter"},
		{name: "dimension", path: "/v1/usage/top", query: "by=moon", field: "by", code: "unknown_value"},
		{name: "points", path: "/v1/usage/series", query: "step=minute&from=-30d", field: "step", code: "too_many_points"},
		{name: "format", path: "/v1/events/export", query: "format=xml", field: "format", code: "unknown_value"},
		{name: "severity", path: "/v1/findings", query: "severity=bad", field: "severity", code: "unknown_value"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rec := httptest.NewRecorder()
			f.engine.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, tt.path+"?"+tt.query, nil))
			if rec.Code != http.StatusBadRequest {
				t.Fatalf("%d %s, want 400", rec.Code, rec.Body)
			}
			if code, field := refusal(t, rec); code != tt.code || field != tt.field {
				t.Errorf("refusal %q %q, want %q %q", code, field, tt.code, tt.field)
			}
		})
	}
}
