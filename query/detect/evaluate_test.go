package detect_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"example.com/keytrail/domain"
	"example.com/keytrail/query/detect"
)

var epoch = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

// record is a use of key, n seconds after the epoch.
func record(key string, n int, action string) detect.Record {
	return detect.Record{
		Source: detect.Usage, Group: detect.Group{Account: "a", Key: domain.KeyID(key)},
		ID: fmt.Sprintf("%s-%d-%s", key, n, action), Position: uint64(n) + 100, Time: epoch.Add(time.Duration(n) * time.Second),
		Action: action, Outcome: "success",
	}
}

// burst returns a rule with two windows: 3 within 10 s, 5 within 60 s.
func burst(t interface{ Fatal(...any) }, shape string) *detect.Rule {
	text := strings.NewReplacer(
		"shape: count", "shape: "+shape,
		`{threshold: "${n}", within: 1m}`, `{threshold: 3, within: 10s}, {threshold: 5, within: 60s}`,
		"join: 2m", "join: 90s", "span: 1h", "span: 10m", `'action = "x"'`, `'action != "ignored"'`,
	).Replace(plain)
	if shape == "distinct" {
		text = strings.Replace(text, "shape: distinct", "shape: distinct\ndistinct: action", 1)
	}
	r, err := detect.ParseRule([]byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEvaluateFindsExactlyTheRecordsInMetWindows(t *testing.T) {
	at := func(seconds ...int) []detect.Record {
		out := make([]detect.Record, 0, len(seconds))
		for _, n := range seconds {
			out = append(out, record("K", n, fmt.Sprintf("act-%d", n)))
		}
		return out
	}
	tests := []struct {
		name    string
		shape   string
		records []detect.Record
		want    string // first-last:count of each finding.
	}{
		{name: "nothing", shape: "count", want: ""},
		{name: "a window's both ends count", shape: "count", records: at(0, 5, 10), want: "0-10:3"},
		{name: "one second too long", shape: "count", records: at(0, 5, 11), want: ""},
		{name: "records outside every met window stay out", shape: "count", records: at(0, 100, 101, 102, 200), want: "100-102:3"},
		{name: "the wide window takes in what came before", shape: "count", records: at(0, 20, 40, 50, 51, 52), want: "0-52:6"},
		{name: "two bursts within the join time are one", shape: "count", records: at(0, 1, 2, 85, 86, 87), want: "0-87:6"},
		{name: "the join time itself joins", shape: "count", records: at(0, 1, 2, 90, 91, 92), want: "0-92:6"},
		{name: "a wide window fills the hole between two bursts", shape: "count", records: at(0, 1, 2, 45, 61, 62, 63, 64), want: "0-64:8"},
		{name: "two bursts beyond it are two", shape: "count", records: at(0, 1, 2, 95, 96, 97), want: "0-2:3 95-97:3"},
		{name: "a case ends with its span", shape: "count", records: at(590, 595, 598, 601), want: "590-598:3 595-601:3"},
		{name: "the ignored are ignored", shape: "count", records: append(at(0, 1), record("K", 2, "ignored")), want: ""},
		{name: "repeats of one value are one", shape: "distinct", records: []detect.Record{record("K", 0, "a"), record("K", 1, "a"), record("K", 2, "b")}, want: ""},
		{name: "repeats within a met window are evidence", shape: "distinct", records: []detect.Record{record("K", 0, "a"), record("K", 1, "a"), record("K", 2, "b"), record("K", 3, "c")}, want: "0-3:4"},
		{name: "a value that left the window counts no more", shape: "distinct", records: []detect.Record{record("K", 0, "a"), record("K", 9, "b"), record("K", 70, "c")}, want: ""},
		{name: "keys are not added up", shape: "count", records: []detect.Record{record("A", 0, "a"), record("A", 1, "a"), record("B", 2, "a")}, want: ""},
		{name: "without key and identity there is nobody", shape: "count", records: []detect.Record{record("", 0, "a"), record("", 1, "a"), record("", 2, "a")}, want: ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			found, err := burst(t, tt.shape).Evaluate(tt.records)
			if err != nil {
				t.Fatal(err)
			}
			if got := summary(found); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func summary(found []domain.Finding) string {
	out := make([]string, 0, len(found))
	for _, f := range found {
		out = append(out, fmt.Sprintf("%d-%d:%d", int(f.FirstSeen.Sub(epoch).Seconds()), int(f.LastSeen.Sub(epoch).Seconds()), f.Count))
	}
	return strings.Join(out, " ")
}

// The id names the earliest record of the window that opened the case, and nothing
// that came after it.
func TestFindingIsNamedForTheWindowThatOpenedIt(t *testing.T) {
	seconds := []int{0, 20, 40, 41, 42, 50}
	records := make([]detect.Record, 0, len(seconds))
	for _, n := range seconds { // At 42 both windows are met; the wide one reaches back to 0.
		records = append(records, record("K", n, "a"))
	}
	found, err := burst(t, "count").Evaluate(records)
	if err != nil || len(found) != 1 {
		t.Fatalf("got %d findings and %v, want 1", len(found), err)
	}
	f := found[0]
	first := domain.Evidence{EventID: records[0].ID}
	if f.ID != domain.FindingID("plain", 1, f.DedupeKey, first) {
		t.Errorf("the id %s is not that of the opening window's first record", f.ID)
	}
	if want := `["a","K","","2026-03-01T10:00:00Z"]`; f.DedupeKey != want {
		t.Errorf("got dedupe key %s, want %s", f.DedupeKey, want)
	}
}

func TestFindingListsTheFirstEvidenceAndCountsAll(t *testing.T) {
	records := make([]detect.Record, 500)
	for i := range records {
		records[i] = record("K", i, "a")
	}
	found, err := burst(t, "count").Evaluate(records)
	if err != nil || len(found) != 1 {
		t.Fatalf("got %d findings and %v, want 1", len(found), err)
	}
	f := found[0]
	if f.Count != 500 || len(f.Evidence) != domain.EvidenceMax || f.Evidence[0].EventID != records[0].ID || f.Evidence[99].EventID != records[99].ID {
		t.Errorf("got %d records, %d listed, want 500 and the first %d", f.Count, len(f.Evidence), domain.EvidenceMax)
	}
}

// drawRecords draws uses of a few keys, close enough in time to make bursts.
func drawRecords(t *rapid.T) []detect.Record {
	n := rapid.IntRange(0, 80).Draw(t, "records")
	out := make([]detect.Record, n)
	for i := range out {
		key := rapid.SampledFrom([]string{"A", "B"}).Draw(t, "key")
		second := rapid.IntRange(0, 900).Draw(t, "second")
		if rapid.Bool().Draw(t, "near") {
			second = 600 + second%40
		}
		out[i] = record(key, second, rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "ignored"}).Draw(t, "action"))
		out[i].ID, out[i].Position = fmt.Sprint("use-", i), uint64(i)
	}
	return out
}

// The findings are a function of the set of records, not of their order.
func TestEvaluationDoesNotDependOnTheOrderOfArrival(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := burst(t, rapid.SampledFrom([]string{"count", "distinct"}).Draw(t, "shape"))
		records := drawRecords(t)
		want, err := r.Evaluate(records)
		if err != nil {
			t.Fatal(err)
		}
		shuffled := slices.Clone(records)
		seed := rapid.Uint64().Draw(t, "seed")
		rand.New(rand.NewPCG(seed, 1)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		got, err := r.Evaluate(shuffled)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("another order gives other findings:\n%s", diff)
		}
	})
}

// The evidence is every record in at least one stretch of time that meets a threshold,
// by the plain definition, which looks at every pair of ends.
func TestEvidenceIsWhatThePlainDefinitionSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := rapid.SampledFrom([]string{"count", "distinct"}).Draw(t, "shape")
		records := drawRecords(t)
		found, err := burst(t, shape).Evaluate(records)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]bool{}
		for _, f := range found {
			if f.Count != uint64(len(f.Evidence)) {
				t.Fatalf("a finding counts %d and lists %d", f.Count, len(f.Evidence))
			}
			for _, e := range f.Evidence {
				got[e.EventID] = true
			}
		}
		if diff := cmp.Diff(plainEvidence(records, shape), got); diff != "" {
			t.Fatalf("evidence (-definition +evaluator):\n%s", diff)
		}
	})
}

func plainEvidence(records []detect.Record, shape string) map[string]bool {
	out := map[string]bool{}
	for _, start := range records {
		for _, w := range []detect.Window{{Threshold: 3, Within: 10 * time.Second}, {Threshold: 5, Within: time.Minute}} {
			var in []string
			values := map[string]bool{}
			for _, r := range records {
				if r.Group == start.Group && r.Action != "ignored" && !r.Time.Before(start.Time) && r.Time.Sub(start.Time) <= w.Within {
					in, values[r.Action] = append(in, r.ID), true
				}
			}
			if shape == "count" && len(in) >= w.Threshold || shape == "distinct" && len(values) >= w.Threshold {
				for _, id := range in {
					out[id] = true
				}
			}
		}
	}
	return out
}

// live keeps findings as the detector does, block by block.
func live(t *rapid.T, r *detect.Rule, blocks [][]detect.Record) []domain.Finding {
	var all []detect.Record
	var have []domain.Finding
	for _, block := range blocks {
		all = append(all, block...)
		found, err := r.Evaluate(all)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range found {
			i := slices.IndexFunc(have, func(f domain.Finding) bool { return f.SameCase(c) })
			if i < 0 {
				have = append(have, c)
				continue
			}
			before := have[i]
			have[i], _ = have[i].Extend(c)
			if have[i].ID != before.ID || have[i].Count < before.Count || have[i].FirstSeen.After(before.FirstSeen) {
				t.Fatalf("a finding was rewritten:\n%s", cmp.Diff(before, have[i]))
			}
		}
	}
	return have
}

// cut cuts records into blocks of at least low, where there are as many.
func cut(t *rapid.T, records []detect.Record, low int) [][]detect.Record {
	var out [][]detect.Record
	for len(records) > 0 {
		n := rapid.IntRange(min(low, len(records)), len(records)).Draw(t, "block")
		out, records = append(out, records[:n]), records[n:]
	}
	return out
}

// Live, block by block, gives what a backtest over the whole gives: the same findings,
// id for id, when records arrive in the order of their times.
func TestLiveEqualsBacktestHoweverTheLogIsCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := burst(t, rapid.SampledFrom([]string{"count", "distinct"}).Draw(t, "shape"))
		records := drawRecords(t)
		slices.SortStableFunc(records, func(a, b detect.Record) int { return a.Time.Compare(b.Time) })
		for i := range records {
			records[i].Position = uint64(i)
		}
		want, err := r.Evaluate(records)
		if err != nil {
			t.Fatal(err)
		}
		got := live(t, r, cut(t, records, 1))
		byID := func(a, b domain.Finding) int { return strings.Compare(a.ID.String(), b.ID.String()) }
		slices.SortFunc(want, byID)
		slices.SortFunc(got, byID)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("live differs (-backtest +live):\n%s", diff)
		}
	})
}

// Whatever the order of arrival, each finding of a backtest has one live finding with
// just its evidence, and every other live finding lies inside one of these.
func TestLateRecordsExtendAndNeverLoseAFinding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := burst(t, rapid.SampledFrom([]string{"count", "distinct"}).Draw(t, "shape"))
		records := drawRecords(t)
		want, err := r.Evaluate(records)
		if err != nil {
			t.Fatal(err)
		}
		got := live(t, r, cut(t, records, 1))
		for _, w := range want {
			same := func(f domain.Finding) bool {
				return f.DedupeKey == w.DedupeKey && f.Count == w.Count && f.Reason == w.Reason &&
					f.FirstSeen.Equal(w.FirstSeen) && f.LastSeen.Equal(w.LastSeen) && cmp.Equal(f.Evidence, w.Evidence)
			}
			if !slices.ContainsFunc(got, same) {
				t.Fatalf("no live finding has the evidence of %s", summary([]domain.Finding{w}))
			}
		}
		for _, f := range got {
			within := func(w domain.Finding) bool {
				return f.DedupeKey == w.DedupeKey && !f.FirstSeen.Before(w.FirstSeen) && !f.LastSeen.After(w.LastSeen)
			}
			if !slices.ContainsFunc(want, within) {
				t.Fatalf("the live finding %s lies in none of the backtest's", summary([]domain.Finding{f}))
			}
		}
	})
}

func BenchmarkEvaluate(b *testing.B) {
	// go test -run=- -bench=Evaluate -count=6 ./query/detect | benchstat -col /shape -
	for _, shape := range []string{"count", "distinct"} {
		b.Run("shape="+shape+"/records=100000", func(b *testing.B) {
			r := burst(b, shape)
			records := make([]detect.Record, 100_000)
			for i := range records {
				records[i] = record("K", i/50, fmt.Sprint("act-", i%40))
				records[i].Position = uint64(i)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Evaluate(records); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
