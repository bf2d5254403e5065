package domain_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
)

var findingEpoch = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)

// findingOver returns a finding with a use in each of seconds.
func findingOver(seconds ...int) domain.Finding {
	f := domain.Finding{
		Rule: "r", RuleVersion: 1, DedupeKey: "k", Count: uint64(len(seconds)), Status: domain.FindingOpen,
		Reason: fmt.Sprint(len(seconds), " uses"),
	}
	for _, n := range seconds {
		f.Evidence = append(f.Evidence, domain.Evidence{EventID: fmt.Sprint(n), Position: uint64(n), Time: findingEpoch.Add(time.Duration(n) * time.Second)})
	}
	f.FirstSeen, f.LastSeen = f.Evidence[0].Time, f.Evidence[len(seconds)-1].Time
	f.ID = domain.FindingID(f.Rule, f.RuleVersion, f.DedupeKey, f.Evidence[0])
	return f
}

func TestFindingIsExtendedAndNeverRewritten(t *testing.T) {
	id := findingOver(10).ID
	as := func(f domain.Finding, change func(*domain.Finding)) domain.Finding {
		f.ID = id
		change(&f)
		return f
	}
	same := func(*domain.Finding) {}
	tests := []struct {
		name            string
		have, candidate domain.Finding
		want            domain.Finding
		wantChanged     bool
	}{
		{name: "the same adds nothing", have: findingOver(10, 11), candidate: findingOver(10, 11), want: findingOver(10, 11)},
		{name: "new evidence after", have: findingOver(10, 11), candidate: findingOver(10, 11, 12), want: findingOver(10, 11, 12), wantChanged: true},
		{name: "late evidence before keeps the id", have: findingOver(10, 11), candidate: findingOver(9, 10, 11), want: as(findingOver(9, 10, 11), same), wantChanged: true},
		{name: "late evidence between", have: findingOver(10, 12), candidate: findingOver(10, 11, 12), want: findingOver(10, 11, 12), wantChanged: true},
		{name: "what was retracted stays", have: findingOver(10, 11, 12), candidate: findingOver(10, 12), want: findingOver(10, 11, 12)},
		{
			name: "retracted and added at once", have: findingOver(10, 11, 12), candidate: findingOver(10, 13),
			want: as(findingOver(10, 11, 12, 13), func(f *domain.Finding) { f.Reason = "3 uses" }), wantChanged: true,
		},
		{
			name: "triage stays", have: as(findingOver(10), func(f *domain.Finding) { f.Status = "acknowledged" }), candidate: findingOver(10, 11),
			want: as(findingOver(10, 11), func(f *domain.Finding) { f.Status = "acknowledged" }), wantChanged: true,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := tt.have
			got, changed := tt.have.Extend(tt.candidate)
			if changed != tt.wantChanged {
				t.Errorf("got changed %t, want %t", changed, tt.wantChanged)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, tt.have); diff != "" {
				t.Errorf("the finding itself was changed:\n%s", diff)
			}
		})
	}
}

// Listed evidence stays listed, also where earlier evidence would fill the list.
func TestListedEvidenceStaysListed(t *testing.T) {
	seconds := func(from, n int) []int {
		out := make([]int, n)
		for i := range out {
			out[i] = from + i
		}
		return out
	}
	have := findingOver(seconds(100, domain.EvidenceMax)...)
	have.Count = 500 // Of which the list holds the first.
	got, changed := have.Extend(findingOver(seconds(50, domain.EvidenceMax)...))
	if got.Count != 500 {
		t.Errorf("the count fell from 500 to %d", got.Count)
	}
	if !changed || !cmp.Equal(got.Evidence, have.Evidence) || !got.FirstSeen.Equal(findingEpoch.Add(50*time.Second)) {
		t.Errorf("changed %t, first seen %s, evidence:\n%s", changed, got.FirstSeen, cmp.Diff(have.Evidence, got.Evidence))
	}
}

func TestFindingsOfOneCaseAreKnown(t *testing.T) {
	with := func(f domain.Finding, change func(*domain.Finding)) domain.Finding {
		change(&f)
		return f
	}
	have := findingOver(10, 20)
	tests := []struct {
		name      string
		candidate domain.Finding
		want      bool
	}{
		{name: "the same id", candidate: with(findingOver(10), func(f *domain.Finding) { f.FirstSeen = findingEpoch.Add(time.Hour); f.LastSeen = f.FirstSeen }), want: true},
		{name: "around it", candidate: findingOver(5, 25), want: true},
		{name: "its end is the other's beginning", candidate: findingOver(20, 30), want: true},
		{name: "its beginning is the other's end", candidate: findingOver(5, 10), want: true},
		{name: "after it", candidate: findingOver(21, 30)},
		{name: "before it", candidate: findingOver(5, 9)},
		{name: "another rule", candidate: with(findingOver(5, 25), func(f *domain.Finding) { f.Rule = "other" })},
		{name: "another version", candidate: with(findingOver(5, 25), func(f *domain.Finding) { f.RuleVersion = 2 })},
		{name: "another key", candidate: with(findingOver(5, 25), func(f *domain.Finding) { f.DedupeKey = "other" })},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := have.SameCase(tt.candidate); got != tt.want {
				t.Errorf("got %t, want %t", got, tt.want)
			}
		})
	}
}
