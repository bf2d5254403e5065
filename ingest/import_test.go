package ingest_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
	"example.com/keytrail/ingest"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/eventlog"
)

// ownAccounts lets everybody have every account but theirs.
type ownAccounts struct {
	mu   sync.Mutex
	made map[domain.AccountID]int
}

func (a *ownAccounts) EnsureAccount(_ context.Context, _ ingest.Order, account domain.AccountID, _ string) (uint64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if account == theirs {
		return 0, domain.Errorf(domain.NotFound, "no such account")
	}
	a.made[account]++
	return 1, nil
}

type importWorld struct {
	log   *memLog
	known *table
	imp   *ingest.Importer
}

func newImportWorld(tb testing.TB) *importWorld {
	tb.Helper()
	w := &importWorld{log: newMemLog()}
	w.known = &table{log: w.log, class: "import"}
	w.restart(tb)
	return w
}

func (w *importWorld) restart(tb testing.TB) {
	tb.Helper()
	w.imp = newImporter(tb, w.log, w.known)
}

func newImporter(tb testing.TB, log ingest.UsageLog, known ingest.KnownUses) *ingest.Importer {
	tb.Helper()
	u := newUsage(tb, log, func(c *ingest.UsageConfig) { c.Known = known })
	i, err := ingest.NewImporter(u, &ownAccounts{made: map[domain.AccountID]int{}})
	if err != nil {
		tb.Fatal(err)
	}
	return i
}

func (w *importWorld) load(tb testing.TB, text string) ingest.ImportResult {
	tb.Helper()
	res, err := w.imp.CloudTrail(tb.Context(), order(), ingest.UploadRequest{Body: body(text)})
	if err != nil {
		tb.Fatalf("import: %v", err)
	}
	return res
}

// observed returns the facts about a key of account 111122223333 in effective order, as "fact@minute".
func (w *importWorld) observed(tb testing.TB, key domain.KeyID) []string {
	tb.Helper()
	var recs []domain.Recorded
	for _, raw := range w.log.streams[domain.ExternalKeyStream("111122223333", key)] {
		rec, err := eventlog.Decode(raw)
		if err != nil {
			tb.Fatal(err)
		}
		recs = append(recs, rec)
	}
	slices.SortFunc(recs, func(a, b domain.Recorded) int { return a.Meta.EffectiveAt.Compare(b.Meta.EffectiveAt) })
	var out []string
	for _, r := range recs {
		e := r.Event.(domain.KeyObserved)
		out = append(out, fmt.Sprintf("%s@%d", e.Fact, r.Meta.EffectiveAt.Minute()))
	}
	return out
}

// trail builds a record: minute, event name, key, and what else it says.
func trail(id string, minute int, name, key, more string) string {
	return fmt.Sprintf(`{"eventID":"%s","eventTime":"2026-04-30T10:%02d:00Z","eventSource":"iam.amazonaws.com","eventName":"%s","recipientAccountId":"111122223333",`+
		`"userIdentity":{"type":"IAMUser","arn":"arn:aws:iam::111122223333:user/bea","userName":"bea","accessKeyId":"%s"}%s}`+"\n", id, minute, name, key, more)
}

func history() string {
	return trail("e1", 1, "CreateAccessKey", "AKIAROOT", `,"responseElements":{"accessKey":{"accessKeyId":"AKIANEW","status":"Active","userName":"eve"}}`) +
		trail("e2", 2, "ListUsers", "AKIANEW", "") +
		trail("e3", 3, "UpdateAccessKey", "AKIAROOT", `,"requestParameters":{"accessKeyId":"AKIANEW","status":"Inactive","userName":"eve"}`) +
		trail("e4", 4, "ListUsers", "AKIANEW", `,"errorCode":"AccessDenied"`) +
		trail("e5", 5, "DeleteAccessKey", "AKIAROOT", `,"requestParameters":{"accessKeyId":"AKIANEW","userName":"eve"}`)
}

func TestAnImportRecordsUsesAndFactsAboutKeys(t *testing.T) {
	w := newImportWorld(t)
	res := w.load(t, history())
	if res.Uses != 5 || res.Accepted != 5 || res.Facts != 4 || res.Repeated != 0 || res.RejectedCount != 0 || res.Position != w.log.position {
		t.Errorf("got %+v at %d", res, w.log.position)
	}
	if diff := cmp.Diff([]string{"created@1", "disabled@3", "deleted@5"}, w.observed(t, "AKIANEW")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"first-use@1"}, w.observed(t, "AKIAROOT")); diff != "" {
		t.Error(diff)
	}
	if n := len(usesIn(t, w.log, "import")); n != 5 {
		t.Errorf("%d uses", n)
	}
}

func TestImportingTwiceChangesNothingHoweverItIsCut(t *testing.T) {
	w := newImportWorld(t)
	w.load(t, history())
	before := w.log.position
	records := strings.SplitAfter(history(), "\n")
	slices.Reverse(records)
	for name, step := range map[string]func(){
		"at once":            func() {},
		"restarted":          func() { w.restart(t) },
		"projected":          w.known.project,
		"restarted later on": func() { w.restart(t) },
	} {
		step()
		for _, text := range []string{history(), strings.Join(records, ""), history() + history(), records[2]} {
			res := w.load(t, text)
			if want := uint64(strings.Count(text, "\n")); w.log.position != before || res.Repeated != want || res.Uses != 0 || res.Facts != 0 {
				t.Fatalf("%s: position %d → %d, got %+v", name, before, w.log.position, res)
			}
		}
	}
}

// TestOtherBytesUnderABatchIdAreRefusedByEveryNode: also by one that has not read what the
// other wrote, and has nothing to write itself because all the records are known.
func TestOtherBytesUnderABatchIdAreRefusedByEveryNode(t *testing.T) {
	w := newImportWorld(t)
	other := newImporter(t, w.log, w.known)
	w.load(t, history()) // From here on this node knows the slot, up to here.
	records := trail("e6", 6, "ListUsers", "AKIANEW", "")
	send := func(imp *ingest.Importer, text string) error {
		_, err := imp.CloudTrail(t.Context(), order(), ingest.UploadRequest{Batch: "b", Body: body(text)})
		return err
	}
	if err := send(other, records); err != nil {
		t.Fatal(err)
	}
	w.known.project()
	if err := send(w.imp, records+"\n"); domain.CodeOf(err) != domain.Conflict {
		t.Errorf("other bytes: %v", err)
	}
	if err := send(w.imp, records); err != nil {
		t.Errorf("the same bytes: %v", err)
	}
}

func TestFactsDoNotDependOnTheOrderOfImports(t *testing.T) {
	records := strings.SplitAfter(strings.TrimSuffix(history(), "\n"), "\n")
	for _, order := range [][]int{{4, 3, 2, 1, 0}, {1, 4, 0, 3, 2}} {
		w := newImportWorld(t)
		for _, i := range order {
			w.load(t, records[i])
		}
		got := w.observed(t, "AKIANEW")
		got = slices.DeleteFunc(got, func(s string) bool { return strings.HasPrefix(s, "first-use") })
		if diff := cmp.Diff([]string{"created@1", "disabled@3", "deleted@5"}, got); diff != "" {
			t.Error(diff)
		}
		root := w.observed(t, "AKIAROOT")
		if len(root) == 0 || root[0] != "first-use@1" {
			t.Errorf("the earliest use of a key is not known: %v", root)
		}
	}
}

func TestAnImportThatBreaksAnywhereIsMendedByARetry(t *testing.T) {
	for name, f := range map[string]fault{"not stored": lost, "stored but not answered": stored, "refused": refused} {
		for n := 1; ; n++ {
			w := newImportWorld(t)
			w.log.fault = func(_ string, at int) fault {
				if at == n {
					return f
				}
				return fine
			}
			_, err := w.imp.CloudTrail(t.Context(), order(), ingest.UploadRequest{Body: body(history())})
			if err == nil {
				if n < 3 {
					t.Errorf("%s: only %d appends", name, n)
				}
				break
			}
			if domain.CodeOf(err) != domain.Unavailable {
				t.Fatalf("%s, append %d: %v", name, n, err)
			}
			w.log.fault = nil
			if n%2 == 0 {
				w.restart(t)
			}
			w.load(t, history())
			if n := len(usesIn(t, w.log, "import")); n != 5 {
				t.Errorf("%s, append %d: %d uses", name, n, n)
			}
			if diff := cmp.Diff([]string{"created@1", "disabled@3", "deleted@5"}, w.observed(t, "AKIANEW")); diff != "" {
				t.Errorf("%s, append %d: %s", name, n, diff)
			}
		}
	}
}

func TestImportsOfTheSameRecordsAtOnceRecordEachOnce(t *testing.T) {
	w := newImportWorld(t)
	var text strings.Builder
	for i := range 3000 {
		text.WriteString(trail(fmt.Sprint("e", i), i%60, "ListUsers", fmt.Sprint("AKIA", i%20), ""))
	}
	records := strings.SplitAfter(strings.TrimSuffix(text.String(), "\n"), "\n")
	nodes := []*ingest.Importer{w.imp, newImporter(t, w.log, w.known)}
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			mine := append(slices.Clone(records[i*500:]), records[:i*500]...)
			for from := 0; from < len(mine); from += 700 {
				part := strings.Join(mine[from:min(from+700, len(mine))], "\n")
				for {
					_, err := nodes[i%2].CloudTrail(t.Context(), order(), ingest.UploadRequest{Body: body(part)})
					if err == nil {
						break
					}
					if domain.CodeOf(err) != domain.Unavailable {
						t.Error(err)
						return
					}
				}
				if i == 3 {
					w.known.project()
				}
			}
		})
	}
	wg.Wait()
	if n := len(usesIn(t, w.log, "import")); n != 3000 {
		t.Errorf("%d uses", n)
	}
	for i := range 20 {
		if got := w.observed(t, domain.KeyID(fmt.Sprint("AKIA", i))); len(got) == 0 || got[0] != fmt.Sprintf("first-use@%d", i) {
			t.Errorf("AKIA%d: %v", i, got)
		}
	}
}

func TestRecordsThatCannotBeImportedAreReportedByLine(t *testing.T) {
	w := newImportWorld(t)
	text := "{bad\n" + trail("e1", 1, "ListUsers", "AKIA1", "") + strings.Replace(trail("e2", 1, "ListUsers", "AKIA1", ""), "111122223333", string(theirs), 1) + `{"eventName":"x"}`
	res := w.load(t, text)
	want := []ingest.RejectedLine{
		{Line: 1, Error: "not valid JSON after byte 1"},
		{Line: 3, Error: "recipientAccountId: no right to record uses in this account"},
		{Line: 4, Error: "eventTime is missing"},
	}
	if diff := cmp.Diff(want, res.Rejected); diff != "" || res.Uses != 1 {
		t.Errorf("%s\n%+v", diff, res)
	}
}

func TestImportNeedsTheRightInTheCallersAccount(t *testing.T) {
	w := newImportWorld(t)
	who := domain.Initiator{IAMID: "IBMid-1", Account: mine}
	for _, tt := range []struct {
		name string
		in   domain.Standing
		want domain.Code
	}{
		{"a member", domain.Standing{Member: true, Roles: []domain.Role{domain.RoleEditor}}, domain.Forbidden},
		{"a stranger", domain.Standing{}, domain.NotFound},
	} {
		o := order()
		o.Caller = auth.NewCaller(who, auth.FixedStandings{mine: tt.in})
		if _, err := w.imp.CloudTrail(t.Context(), o, ingest.UploadRequest{Body: body(history())}); domain.CodeOf(err) != tt.want {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}

func TestTheRealLogsGiveExactlyTheirRecords(t *testing.T) {
	for file, want := range map[string]int{"invictus": 2900, "opensearch": 841, "boogy": 1685, "otrf": 103, "traildiscover": 313} {
		t.Run(file, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("..", "..", "shared", "data", "cloudtrail", file+".ndjson.gz"))
			if err != nil {
				t.Skip("the shared real logs are not here: ", err)
			}
			w := newImportWorld(t)
			start := time.Now()
			for n := range 2 {
				res, err := w.imp.CloudTrail(t.Context(), order(), ingest.UploadRequest{Encoding: "gzip", Body: strings.NewReader(string(data))})
				if err != nil || res.RejectedCount != 0 || res.Accepted != uint64(want) || n == 1 && (res.Uses != 0 || res.Facts != 0) {
					t.Fatalf("got %+v, %v", res, err)
				}
				t.Logf("%d uses, %d facts in %s", res.Uses, res.Facts, time.Since(start))
			}
			if n := len(usesIn(t, w.log, "import")); n != want {
				t.Errorf("%d uses in the log, want %d", n, want)
			}
		})
	}
}

func TestANodeWhoseViewOfAKeyIsOldStillRecordsItsFacts(t *testing.T) {
	w := newImportWorld(t)
	records := strings.SplitAfter(strings.TrimSuffix(history(), "\n"), "\n")
	other := newImporter(t, w.log, w.known)
	for i, text := range records {
		imp := w.imp
		if i%2 == 1 || i == 2 {
			imp = other
		}
		if _, err := imp.CloudTrail(t.Context(), order(), ingest.UploadRequest{Body: body(text)}); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"created@1", "disabled@3", "deleted@5"}, w.observed(t, "AKIANEW")); diff != "" {
		t.Error(diff)
	}
}
