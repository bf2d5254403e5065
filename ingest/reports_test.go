package ingest_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

// logActivity says who there was by reading the log, and who signed in as a test says.
type logActivity struct {
	log *eventlog.Log

	mu    sync.Mutex // Guards all below.
	lasts map[domain.KeyID]time.Time
	hold  chan struct{} // Where not nil: answers wait for it to close.
	fail  error
	asked int
}

func (l *logActivity) set(hold chan struct{}, fail error, lasts map[domain.KeyID]time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hold, l.fail, l.lasts = hold, fail, lasts
}

func (l *logActivity) AccountActivity(ctx context.Context, account domain.AccountID, position uint64, _ time.Time) (domain.AccountActivity, error) {
	l.mu.Lock()
	hold, fail, lasts := l.hold, l.fail, l.lasts
	l.asked++
	l.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return domain.AccountActivity{}, ctx.Err()
		}
	}
	out := domain.AccountActivity{KeyLast: lasts, IdentityLast: map[domain.IAMID]time.Time{}}
	events, err := readLog(ctx, l.log, domain.EvidencePrefix)
	if err = errors.Join(err, fail); err != nil {
		return out, err
	}
	keys := map[domain.KeyID]domain.KeyState{}
	for _, rec := range events {
		if rec.Position > position {
			break
		}
		if e, ok := rec.Event.(domain.KeyEvent); ok {
			keys[e.State().ID] = e.State()
		}
		if e, ok := rec.Event.(domain.ServiceIDCreated); ok {
			out.ServiceIDs = append(out.ServiceIDs, domain.InactiveServiceID{ID: e.ID, Name: e.Name})
		}
	}
	for _, k := range keys {
		if k.Account == account && !k.Deleted {
			out.Keys = append(out.Keys, k)
			if last, ok := lasts[k.ID]; ok && last.After(out.IdentityLast[k.IAMID]) {
				out.IdentityLast[k.IAMID] = last
			}
		}
	}
	return out, nil
}

// report asks until the report is there.
func (n *node) report(reference string) reply {
	n.tb.Helper()
	for {
		r := n.call(n.admin, "GET", n.reportPath(reference), nil)
		if r.status != 204 {
			return n.must(200, r)
		}
		if n.tb.Context().Err() != nil {
			n.tb.Fatal("the report never came")
		}
	}
}

func (n *node) reportPath(rest string) string {
	return "/v1/activity/accounts/" + string(n.boot.Account) + "/report" + strings.TrimSuffix("/"+rest, "/")
}

func TestAReportIsMadeOfTheLogUpToTheQuestionAndKept(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	active, _ := n.createKey(n.admin, n.boot.Owner, "active")
	idle, _ := n.createKey(n.admin, n.boot.Owner, "idle")
	service := n.must(201, n.call(n.admin, "POST", "/v1/serviceids", map[string]any{"name": "ci"})).field("id")
	n.member("User-idle")
	hold := make(chan struct{})
	now := n.clock.Now()
	lasts := map[domain.KeyID]time.Time{domain.KeyID(active): now.Add(-time.Hour), domain.KeyID(idle): now.Add(-100 * time.Hour)}
	n.seen.set(hold, nil, lasts)
	asked := n.must(202, n.call(n.admin, "POST", n.reportPath("")+"?type=inactive&duration=48", nil, "Transaction-Id", "tx-report"))
	reference := asked.field("reference")
	n.must(204, n.call(n.admin, "GET", n.reportPath(reference), nil))
	n.must(204, n.call(n.admin, "GET", n.reportPath("latest"), nil))
	n.createKey(n.admin, n.boot.Owner, "after the question")
	n.member("User-late")
	close(hold)

	r := n.report(reference)
	var got struct {
		CreatedBy string `json:"created_by"`
		Duration  string `json:"report_duration"`
		Users     []struct {
			ID string `json:"iam_id"`
		}
		Apikeys []struct {
			Name, Type string
			Last       string `json:"last_authn"`
			User       struct{ Name string }
		}
		Serviceids []struct{ ID, Name string }
		Profiles   []any
	}
	if err := json.Unmarshal([]byte(r.raw), &got); err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, k := range got.Apikeys {
		names = append(names, k.Name)
		if (k.Last != "") != (k.Name == "idle") {
			t.Errorf("%s: last sign-in %q", k.Name, k.Last)
		}
	}
	slices.Sort(names)
	if diff := cmp.Diff([]string{"administrator", "idle", "key of User-idle"}, names); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	if len(got.Users) != 1 || got.Users[0].ID != "User-idle" || len(got.Serviceids) != 1 || got.Serviceids[0].ID != service || got.Profiles == nil {
		t.Errorf("users %v, service IDs %v, profiles %v", got.Users, got.Serviceids, got.Profiles)
	}
	if got.CreatedBy != string(n.boot.Owner) || got.Duration != "48" {
		t.Errorf("by %q for %q hours", got.CreatedBy, got.Duration)
	}

	second := n.must(202, n.call(n.admin, "POST", n.reportPath(""), nil)).field("reference")
	if later := n.report(second); !strings.Contains(later.raw, "after the question") || later.field("report_duration") != "720" {
		t.Errorf("a new report: %s", later.raw)
	}
	if again := n.report(reference); again.raw != r.raw {
		t.Errorf("the old report changed:\n%s\n%s", r.raw, again.raw)
	}
	if latest := n.report("latest"); latest.field("reference") != second {
		t.Errorf("latest is %s, want %s", latest.field("reference"), second)
	}
	n.pairedRecords(reference, "tx-report")
}

// pairedRecords demands a pending and a final record of the report with one correlation.
func (n *node) pairedRecords(reference, correlation string) {
	n.tb.Helper()
	var got []string
	for _, rec := range n.events(domain.ReportStreams) {
		if a, ok := domain.ActivityOf(rec); ok && a.TargetName == reference {
			got = append(got, strings.Join([]string{a.Action, string(a.Outcome), a.CorrelationID}, " "))
		}
	}
	want := []string{domain.ActionReportCreate + " pending " + correlation, domain.ActionReportCreate + " success " + correlation}
	if diff := cmp.Diff(want, got); diff != "" {
		n.tb.Errorf("records (-want +got):\n%s", diff)
	}
}

// TestAReportThatWasNotMadeIsMadeByWhoeverIsAskedForIt: a node that was ended while it made
// one, or whose tables failed, leaves nothing half done.
func TestAReportThatWasNotMadeIsMadeByWhoeverIsAskedForIt(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.seen.set(nil, errors.New("the tables are away"), nil)
	failed := n.must(202, n.call(n.admin, "POST", n.reportPath(""), nil)).field("reference")
	n.must(204, n.call(n.admin, "GET", n.reportPath(failed), nil))
	n.seen.set(nil, nil, nil)
	n.report(failed)

	n.seen.set(make(chan struct{}), nil, nil) // Nobody lets it go on.
	killed := n.must(202, n.call(n.admin, "POST", n.reportPath(""), nil)).field("reference")
	n.stop()
	n.srv.Close()
	next := startNode(t, n.log, n.dir)
	next.report(killed)
	next.report(failed)
	completed := 0
	for _, rec := range next.events(domain.ReportStreams) {
		if _, ok := rec.Event.(domain.ReportCompleted); ok {
			completed++
		}
	}
	if completed != 2 {
		t.Errorf("%d completions of 2 reports", completed)
	}
}

func TestReportsAreForWhoMayReadTheAccount(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	reference := n.must(202, n.call(n.admin, "POST", n.reportPath(""), nil)).field("reference")
	n.report(reference)
	plain, auditor := n.member("User-plain"), n.member("User-auditor", domain.RoleAuditor)
	other := n.must(201, n.call(n.admin, "POST", "/v1/accounts", map[string]any{"name": "Other", "owner_iam_id": "User-stranger"})).field("id")
	foreign := "/v1/activity/accounts/" + other + "/report"
	tests := []struct {
		name, key, method, path string
		status                  int
		code, field             string
		refusals                int
	}{
		{name: "an auditor reads", key: auditor, method: "GET", path: n.reportPath(reference), status: 200},
		{name: "an auditor asks", key: auditor, method: "POST", path: n.reportPath(""), status: 202},
		{name: "a member without roles asks", key: plain, method: "POST", path: n.reportPath(""), status: 403, code: "missing_role", refusals: 1},
		{name: "a member without roles reads", key: plain, method: "GET", path: n.reportPath(reference), status: 403, code: "missing_role", refusals: 1},
		{name: "another account, asked", key: n.admin, method: "POST", path: foreign, status: 404, code: "account_not_found", refusals: 1},
		{name: "another account, read", key: n.admin, method: "GET", path: foreign + "/latest", status: 404, code: "account_not_found"},
		{name: "an unknown reference", key: n.admin, method: "GET", path: n.reportPath("1234567890"), status: 404, code: "report_not_found"},
		{name: "an unknown kind", key: n.admin, method: "POST", path: n.reportPath("") + "?type=active", status: 400, code: "invalid_type", field: "type"},
		{name: "no number", key: n.admin, method: "POST", path: n.reportPath("") + "?duration=P30D", status: 400, code: "invalid_duration", field: "duration"},
		{name: "no hour", key: n.admin, method: "POST", path: n.reportPath("") + "?duration=0", status: 400, code: "invalid_duration", field: "duration"},
		{name: "too many hours", key: n.admin, method: "POST", path: n.reportPath("") + "?duration=87601", status: 400, code: "invalid_duration", field: "duration"},
		{name: "nobody", method: "POST", path: n.reportPath(""), status: 401, refusals: 1, code: "missing_credential"},
	}
	for _, tt := range tests {
		before := len(n.refused())
		r := n.call(tt.key, tt.method, tt.path, nil)
		code, field := r.failure()
		if r.status != tt.status || code != tt.code || field != tt.field || len(n.refused())-before != tt.refusals {
			t.Errorf("%s: %d %q %q, %d refusals; want %d %q %q, %d", tt.name, r.status, code, field, len(n.refused())-before, tt.status, tt.code, tt.field, tt.refusals)
		}
	}
}
