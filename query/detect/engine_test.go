package detect_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/internal/clickhouse/clickhousetest"
	"example.com/keytrail/internal/filter"
	"example.com/keytrail/projections"
	"example.com/keytrail/query/detect"
)

// tables is a database with the real schema.
type tables struct {
	t     testing.TB
	store *clickhouse.Store
}

func newTables(tb testing.TB) *tables {
	tb.Helper()
	store := clickhousetest.Store(tb)
	if err := store.Migrate(tb.Context(), projections.Schema()); err != nil {
		tb.Fatal(err)
	}
	return &tables{t: tb, store: store}
}

func (tb *tables) insert(table string, columns []string, rows [][]any) {
	tb.t.Helper()
	_, err := tb.store.Insert(tb.t.Context(), table, columns, clickhouse.InsertOptions{}, func(b clickhouse.Batch) error {
		for _, r := range rows {
			if err := b.Append(r...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		tb.t.Fatal(err)
	}
}

// add writes records to their tables as block wrote them.
func (tb *tables) add(block uint64, records ...detect.Record) {
	tb.t.Helper()
	rows := map[detect.Source][][]any{}
	for _, r := range records {
		g := r.Group
		var row []any
		switch r.Source {
		case detect.Usage:
			row = []any{
				string(g.Account), string(g.Key), r.Time, r.Position, r.Index, block, r.ID, string(g.Identity), r.Action, r.Access, r.Outcome,
				uint16(r.Status), r.Error, r.Address, netip.IPv6Unspecified(), r.Agent, r.Region, r.Target, r.Labels,
			}
		case detect.Violations:
			row = []any{
				string(g.Account), string(g.Key), r.Time, r.Position, r.Index, block, uint8(0), r.ID, string(g.Identity), r.Action, r.Outcome,
				r.Address, r.Agent, r.KeyStatus, r.KeySince,
			}
		case detect.Activity:
			row = []any{
				string(g.Account), r.Time, r.Position, r.Index, block, r.ID, r.Action, r.Outcome, uint16(r.Status), r.Error, string(g.Identity),
				r.CredentialType, string(g.Key), r.Address, r.Agent, r.Target,
			}
		}
		rows[r.Source] = append(rows[r.Source], row)
	}
	columns := map[detect.Source]string{
		detect.Usage:      "usage account_id key_id time position idx block use_id iam_id action access outcome status error_code source address user_agent region target labels",
		detect.Violations: "use_violations account_id key_id time position idx block retracted use_id iam_id action outcome source user_agent status state_since",
		detect.Activity:   "activity account_id event_time position idx block event_id action outcome reason_code reason initiator_id credential_type credential_id source user_agent target_id",
	}
	for source, all := range rows {
		names := strings.Fields(columns[source])
		tb.insert(names[0], names[1:], all)
	}
}

func mustParse(t interface{ Fatal(...any) }, text string) *detect.Rule {
	r, err := detect.ParseRule([]byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Rows in the tables and records in memory are judged alike, by every kind of
// condition.
func TestFiltersJudgeRowsAndRecordsAlike(t *testing.T) {
	tb := newTables(t)
	records := []detect.Record{
		{Action: "s3:GetObject", Access: "read", Outcome: "success", Status: 200, Target: "arn:aws:s3:::Trail_1"},
		{Action: "s3:PutObject", Access: "write", Outcome: "failure", Status: 403, Error: "AccessDenied"},
		{Action: "iam.key.create", Outcome: "", Status: 404},
		{Action: "iam.key.list", Outcome: "", Error: "Nope"},
		{Action: "iam.key.list", Outcome: "", Labels: map[string]string{"invoked_by": "svc", "a.b": "x"}},
		{Action: `odd "quoted" \ 100% _x`, Agent: "Größe ABC", Address: "10.0.0.1", Region: "eu"},
		{Action: "", Labels: map[string]string{"invoked_by": ""}},
	}
	for i := range records {
		r := &records[i]
		r.Source, r.Group = detect.Usage, detect.Group{Account: "a", Key: domain.KeyID(fmt.Sprint("key-", i)), Identity: "me"}
		r.ID, r.Position, r.Time = fmt.Sprint("use-", i), uint64(i+1), epoch
	}
	tb.add(1, records...)
	tests := []string{
		`action = "s3:GetObject"`, `action != "s3:GetObject"`, `action = s3*`, `action = "*Object"`, `action = "s3:*Obj*t"`, `action != "s3*"`,
		`action:object`, `action:"GETOBJECT"`, `action:*`, `NOT action:*`, `action > "iam" AND action < "s4"`, `action >= "s3:PutObject"`, `action <= ""`,
		`action = ("s3:GetObject" OR "iam*")`, `action != ("s3:GetObject" OR "iam*")`, `action:("put" OR "list")`,
		`outcome = "failure"`, `outcome = "success"`, `outcome != "failure"`, `outcome = ""`,
		`reason.reasonCode = 403`, `reason.reasonCode >= 400 AND reason.reasonCode < 404`, `reason.reasonCode != 0`, `reason.reasonCode = (403 OR 404)`,
		`reason.reasonForFailure:*`, `access = read OR access = write`, `labels.invoked_by = ""`, `labels.invoked_by:*`, `labels.a.b = x`, `labels.none != x`,
		`target.id = "*Trail_*"`, `target.id = "*Trai__1"`, `action = "odd*100% _x"`, `action = "odd \"quoted\" \\ 100% _x"`, `initiator.host.agent:abc`,
		`initiator.host.address = 10.0.0.1`, `region = eu`, `initiator.id = me AND initiator.credential.id = ("key-1" OR "key-2")`,
		`access = read AND outcome = success OR outcome = failure`, `NOT (access = read AND outcome = success)`,
	}
	for _, text := range tests {
		t.Run(text, func(t *testing.T) {
			r := mustParse(t, strings.NewReplacer(
				`'action = "x"'`, "'"+strings.ReplaceAll(text, "'", "''")+"'", "shape: count", "shape: each",
				`windows: [{threshold: "${n}", within: 1m}]`, "",
			).Replace(plain))
			want, err := r.Evaluate(records)
			if err != nil {
				t.Fatal(err)
			}
			got, err := detect.NewEngine(tb.store, []*detect.Rule{r}).EvaluateBlocks(t.Context(), 1, 1)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-memory +tables):\n%s", diff)
			}
		})
	}
}

// A name in a rule means what it means in search.
func TestFieldsMeanWhatTheyMeanInSearch(t *testing.T) {
	for source, m := range map[detect.Source]filter.FieldMap{detect.Usage: filter.Usage(epoch), detect.Activity: filter.Activity(epoch)} {
		for name, expr := range detect.Columns(source) {
			f, ok := m.Fields[name]
			if !ok {
				t.Errorf("search has no field %s in %s", name, source)
			}
			want := f.Expr
			switch {
			case name == "initiator.host.address":
				want = f.TextExpr
			case strings.HasSuffix(want, ", '')"): // Failures only, or a link where there is none.
				continue
			}
			if expr != want {
				t.Errorf("%s in %s: got %s, search has %s", name, source, expr, want)
			}
		}
	}
}

// Block by block over the tables, whatever their cut and order, gives what the
// evaluator gives over the whole set in memory; and so does a backtest.
func TestTablesBlockByBlockGiveWhatTheWholeSetGives(t *testing.T) {
	tb := newTables(t)
	account := 0
	block := uint64(0)
	rapid.Check(t, func(t *rapid.T) {
		account++ // A fresh account is a fresh set of records.
		r := burst(t, rapid.SampledFrom([]string{"count", "distinct"}).Draw(t, "shape"))
		e := detect.NewEngine(tb.store, []*detect.Rule{r})
		records := drawRecords(t)
		for i := range records {
			records[i].Group.Account = domain.AccountID(fmt.Sprint("account-", account))
		}
		var have []domain.Finding
		for _, part := range cut(t, records, 12) {
			block++
			tb.add(block, part...)
			found, err := e.EvaluateBlocks(tb.t.Context(), block, block)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range found {
				if i := slices.IndexFunc(have, func(f domain.Finding) bool { return f.SameCase(c) }); i >= 0 {
					have[i], _ = have[i].Extend(c)
				} else {
					have = append(have, c)
				}
			}
		}
		want, err := r.Evaluate(records)
		if err != nil {
			t.Fatal(err)
		}
		back, err := e.Backtest(tb.t.Context(), r, clickhouse.ScopeAccounts(fmt.Sprint("account-", account)), epoch, epoch.Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, back); diff != "" {
			t.Fatalf("backtest (-memory +tables):\n%s", diff)
		}
		for _, w := range want {
			if !slices.ContainsFunc(have, func(f domain.Finding) bool {
				return f.DedupeKey == w.DedupeKey && f.Count == w.Count && cmp.Equal(f.Evidence, w.Evidence)
			}) {
				t.Fatalf("live lacks %s, has %s", summary([]domain.Finding{w}), summary(have))
			}
		}
	})
}

// A use after the end of its key is found; when a late fact shows that the key was
// still good, a new evaluation no longer gives it.
func TestViolationsAreReadAsTheyAreJudgedNow(t *testing.T) {
	tb := newTables(t)
	rules, err := detect.Load(detect.Builtin())
	if err != nil {
		t.Fatal(err)
	}
	e := detect.NewEngine(tb.store, rules)
	rec := record("K", 5, "s3:GetObject")
	rec.Source, rec.KeyStatus, rec.KeySince = detect.Violations, "deleted", epoch
	tb.add(1, rec)
	found, err := e.EvaluateBlocks(t.Context(), 1, 1)
	if err != nil || len(found) != 1 || found[0].Rule != "key-use-after-delete" || found[0].Evidence[0].EventID != rec.ID {
		t.Fatalf("got %v and %v, want one finding of key-use-after-delete", found, err)
	}
	if want := "The key was used 1 time after it was deleted (2026-03-01 10:00:00 UTC), of which 1 succeeded; " +
		"first 2026-03-01 10:00:05 UTC, last 2026-03-01 10:00:05 UTC: s3:GetObject."; found[0].Reason != want {
		t.Errorf("got reason %q, want %q", found[0].Reason, want)
	}
	tb.insert("use_violations", strings.Fields("account_id key_id time position idx block retracted use_id action status"),
		[][]any{{"a", "K", rec.Time, rec.Position, rec.Index, uint64(2), uint8(1), rec.ID, rec.Action, "deleted"}})
	if found, err = e.EvaluateBlocks(t.Context(), 2, 2); err != nil || len(found) != 0 {
		t.Errorf("after the retraction: got %v and %v, want nothing", found, err)
	}
}

// What a block that is not complete has written so far is not looked at.
func TestLaterBlocksAreNotLookedAt(t *testing.T) {
	tb := newTables(t)
	r := burst(t, "count")
	e := detect.NewEngine(tb.store, []*detect.Rule{r})
	tb.add(1, record("K", 1, "a"), record("K", 2, "a"))
	tb.add(2, record("K", 3, "a"))
	if found, err := e.EvaluateBlocks(t.Context(), 1, 1); err != nil || len(found) != 0 {
		t.Errorf("block 1 alone: got %v and %v, want nothing", found, err)
	}
	if found, err := e.EvaluateBlocks(t.Context(), 2, 2); err != nil || summary(found) != "1-3:3" {
		t.Errorf("block 2: got %q and %v, want 1-3:3", summary(found), err)
	}
}

// A window reaches back over the beginning of a span into records of older blocks.
func TestWindowReachesBackOverTheBeginningOfItsSpan(t *testing.T) {
	tb := newTables(t)
	e := detect.NewEngine(tb.store, []*detect.Rule{burst(t, "count")})
	tb.add(1, record("K", 595, "a"), record("K", 598, "a"))
	tb.add(2, record("K", 601, "a"))
	if found, err := e.EvaluateBlocks(t.Context(), 2, 2); err != nil || summary(found) != "595-601:3" {
		t.Errorf("got %q and %v, want 595-601:3", summary(found), err)
	}
}

// A rule over several sources sees them as one set.
func TestSourcesAreOneSet(t *testing.T) {
	tb := newTables(t)
	rules, err := detect.Load(detect.Builtin())
	if err != nil {
		t.Fatal(err)
	}
	use, command := record("K", 1, "iam:CreateUser"), record("K", 2, "iam-identity.user-apikey.create")
	command.Source = detect.Activity
	tb.add(1, use, command)
	found, err := detect.NewEngine(tb.store, rules).EvaluateBlocks(t.Context(), 1, 1)
	if err != nil || len(found) != 1 || found[0].Rule != "key-makes-keys" || found[0].Count != 2 {
		t.Fatalf("got %v and %v, want one finding of key-makes-keys with both", found, err)
	}
}

// A finding of a block is there well within a second, beside a large table.
func BenchmarkEvaluateBlocks(b *testing.B) {
	// go test -run=- -bench=EvaluateBlocks -count=6 ./query/detect | benchstat -col /block -
	tb := newTables(b)
	rules, err := detect.Load(detect.Builtin())
	if err != nil {
		b.Fatal(err)
	}
	e := detect.NewEngine(tb.store, rules)
	fill := func(block uint64, n, keys int, spread time.Duration) {
		records := make([]detect.Record, n)
		for i := range records {
			r := record(fmt.Sprint("key-", i%keys), 0, fmt.Sprint("svc:List", i%60))
			r.Time, r.Access, r.Position = epoch.Add(spread*time.Duration(i)/time.Duration(n)), "read", block*1_000_000+uint64(i)
			if i%10 == 0 {
				r.Status, r.Outcome = 403, "failure"
			}
			records[i] = r
		}
		tb.add(block, records...)
	}
	for i := range uint64(10) {
		fill(i+1, 100_000, 1000, 24*time.Hour)
	}
	fill(100, 500, 50, time.Second)
	fill(101, 100_000, 5000, 90*24*time.Hour)
	for _, block := range []uint64{100, 101} {
		b.Run(fmt.Sprintf("block=%d", block), func(b *testing.B) {
			for b.Loop() {
				found, err := e.EvaluateBlocks(b.Context(), block, block)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(len(found)), "findings")
			}
		})
	}
}
