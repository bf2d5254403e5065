package detect_test

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/cloudtrail"
	"example.com/keytrail/query/detect"
)

// logsFolder holds real logs that are no part of the project.
const logsFolder = "../../../shared/data/cloudtrail"

// openLog skips the test where the folder of real logs is missing; in CI it is there.
func openLog(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Open(filepath.Join(logsFolder, name))
	if os.IsNotExist(err) && os.Getenv("CI") == "" {
		t.Skipf("real logs are not here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func realRecords(t *testing.T, log string) []detect.Record {
	t.Helper()
	var out []detect.Record
	seen := map[string]bool{}
	parser := cloudtrail.Parser{Default: "unknown"}
	for raw, err := range cloudtrail.Records(openLog(t, log+".ndjson.gz")) {
		if err != nil {
			t.Fatal(err)
		}
		o, err := parser.Parse(raw.JSON)
		if err != nil {
			t.Fatal(err)
		}
		if seen[o.Use.ID] {
			continue
		}
		seen[o.Use.ID] = true
		out = append(out, detect.FromUse(o.Use, raw.Ordinal, 0))
	}
	return out
}

// labels returns what each record of log was, by its id.
func labels(t *testing.T, log string) map[string]string {
	t.Helper()
	z, err := gzip.NewReader(openLog(t, log+".labels.jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for lines := bufio.NewScanner(z); lines.Scan(); {
		var l struct{ EventID, Label, Technique string }
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		out[l.EventID] = l.Label
	}
	return out
}

// The rules find the attacks in a real attack log and stay quiet on the background of
// two real accounts, but for what a person would have to look at too.
func TestRulesOnRealLogs(t *testing.T) {
	rules, err := detect.Load(detect.Builtin())
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		log  string
		want map[string]int
	}{
		// The attacker shares the key with the set-up, whose infrastructure tool also
		// reads around; four of the six bursts are console pages that the log does not
		// mark as such, one is a scanner.
		{log: "invictus", want: map[string]int{"audit-tamper": 1, "denied-burst": 2, "key-makes-keys": 1, "recon-burst": 6}},
		{log: "opensearch", want: map[string]int{}},
		{log: "boogy", want: map[string]int{"recon-burst": 2}},
		{log: "otrf", want: map[string]int{"recon-burst": 1}},
	}
	for _, tt := range tests {
		t.Run(tt.log, func(t *testing.T) {
			records := realRecords(t, tt.log)
			label := labels(t, tt.log)
			got := map[string]int{}
			for _, r := range rules {
				found, err := r.Evaluate(records)
				if err != nil {
					t.Fatal(err)
				}
				if len(found) > 0 {
					got[r.ID] = len(found)
				}
				for _, f := range found {
					t.Logf("%s %s %s: %s %s", r.ID, f.KeyID, f.IAMID, f.Reason, labelsOf(f, label))
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("findings of %d records by rule (-want +got):\n%s", len(records), diff)
			}
		})
	}
}

func labelsOf(f domain.Finding, label map[string]string) string {
	n := map[string]int{}
	for _, e := range f.Evidence {
		n[label[e.EventID]]++
	}
	out := make([]string, 0, len(n))
	for l, c := range n {
		out = append(out, fmt.Sprintf("%s=%d", l, c))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// Over the tables, block by block, each rule finds in a real log what it finds in
// memory.
func TestTablesGiveWhatMemoryGivesOnARealLog(t *testing.T) {
	rules, err := detect.Load(detect.Builtin())
	if err != nil {
		t.Fatal(err)
	}
	records := realRecords(t, "invictus")
	tb := newTables(t)
	e := detect.NewEngine(tb.store, rules)
	var got []domain.Finding
	block := uint64(0)
	for part := range slices.Chunk(records, 500) {
		block++
		tb.add(block, part...)
		found, err := e.EvaluateBlocks(t.Context(), block, block)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range found {
			if i := slices.IndexFunc(got, func(f domain.Finding) bool { return f.SameCase(c) }); i >= 0 {
				got[i], _ = got[i].Extend(c)
			} else {
				got = append(got, c)
			}
		}
	}
	var want []domain.Finding
	for _, r := range rules {
		found, err := r.Evaluate(records)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, found...)
	}
	byID := func(a, b domain.Finding) int { return strings.Compare(a.ID.String(), b.ID.String()) }
	slices.SortFunc(got, byID)
	slices.SortFunc(want, byID)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("findings (-memory +tables):\n%s", diff)
	}
}
