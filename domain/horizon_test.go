package domain_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"example.com/keytrail/domain"
)

func TestPlacesRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var places []domain.Place
		position := uint64(0)
		for range rapid.IntRange(0, 50).Draw(t, "n") {
			position += rapid.Uint64Range(1, 1<<50).Draw(t, "distance")
			places = append(places, domain.Place{Position: position, Records: rapid.Uint64().Draw(t, "records")})
		}
		got, err := domain.UnpackPlaces(domain.PackPlaces(places))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(places, got); d != "" {
			t.Error(d)
		}
	})
}

func FuzzUnpackPlaces(f *testing.F) {
	f.Add(domain.PackPlaces([]domain.Place{{Position: 100, Records: 30}, {Position: 300, Records: 0}}))
	f.Add([]byte{0, 1})
	f.Add([]byte{5})
	f.Fuzz(func(t *testing.T, b []byte) {
		places, err := domain.UnpackPlaces(b)
		if err != nil {
			return
		}
		again, err := domain.UnpackPlaces(domain.PackPlaces(places))
		if d := cmp.Diff(places, again); err != nil || d != "" {
			t.Errorf("packed again: %v %s", err, d)
		}
		for i, p := range places {
			if i > 0 && p.Position <= places[i-1].Position {
				t.Errorf("positions do not increase: %v", places)
			}
		}
	})
}

func TestASegmentFollowsTheOneBefore(t *testing.T) {
	t.Parallel()
	first := domain.UsageSegmentSealed{Stream: "kt.usage-a-00", Segment: 1, LastRevision: 4, Events: 5, SHA256: "aa"}
	second := domain.UsageSegmentSealed{Stream: "kt.usage-a-00", Segment: 2, FirstRevision: 5, LastRevision: 6, Events: 2, SHA256: "bb", Previous: "aa"}
	with := func(change func(*domain.UsageSegmentSealed)) domain.UsageSegmentSealed {
		s := second
		change(&s)
		return s
	}
	tests := []struct {
		name   string
		before *domain.UsageSegmentSealed
		e      domain.UsageSegmentSealed
		ok     bool
	}{
		{name: "the first", e: first, ok: true},
		{name: "the second", before: &first, e: second, ok: true},
		{name: "the second as the first", e: second},
		{name: "the first again", before: &first, e: first},
		{name: "a gap in numbers", before: &first, e: with(func(s *domain.UsageSegmentSealed) { s.Segment = 3 })},
		{name: "a gap in revisions", before: &first, e: with(func(s *domain.UsageSegmentSealed) { s.FirstRevision, s.Events = 6, 1 })},
		{name: "an overlap", before: &first, e: with(func(s *domain.UsageSegmentSealed) { s.FirstRevision, s.Events = 4, 3 })},
		{name: "another chain", before: &first, e: with(func(s *domain.UsageSegmentSealed) { s.Previous = "ab" })},
		{name: "a wrong count", before: &first, e: with(func(s *domain.UsageSegmentSealed) { s.Events = 1 })},
		{name: "bounds the wrong way round", before: &first, e: with(func(s *domain.UsageSegmentSealed) { s.LastRevision = 4 })},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := tt.e.Follows(tt.before); (err == nil) != tt.ok {
				t.Errorf("Follows: %v, want none: %t", err, tt.ok)
			}
		})
	}
}

func TestClassOfAUsageStream(t *testing.T) {
	t.Parallel()
	for stream, want := range map[string]string{
		domain.UsageSlotStream("client", 3):         "client",
		domain.UsageWriterStream("verify", "ab-cd"): "verify",
		"kt.usage-x":       "",
		"kt.usage--00":     "",
		"kt.account-a":     "",
		"kt.usage-client-": "",
	} {
		class, ok := domain.UsageClassOf(stream)
		if ok != (want != "") || ok && class != want {
			t.Errorf("class of %s: %q %t, want %q", stream, class, ok, want)
		}
	}
}

// holdHistory is a stream of legal holds.
func holdHistory(events ...domain.Event) []domain.Recorded {
	var out []domain.Recorded
	for i, e := range events {
		out = append(out, domain.Recorded{
			Stream: domain.LegalHoldStream, Revision: uint64(i), Type: e.Type(), Event: e,
			Meta: domain.Metadata{EffectiveAt: t0.Add(time.Duration(i) * time.Second), Initiator: domain.Initiator{IAMID: "User-1"}},
		})
	}
	return out
}

func TestLegalHoldCommands(t *testing.T) {
	t.Parallel()
	set := domain.LegalHoldSet{Hold: "h", Account: "a1", Reason: "why"}
	over := domain.LegalHoldReleased{Hold: "h", Account: "a1", Reason: "done"}
	tests := []struct {
		name  string
		given []domain.Event
		when  domain.HoldCommand
		then  []domain.Event
		code  domain.Code
	}{
		{name: "an account is held", when: domain.SetLegalHold{Hold: "h", Account: "a1", Reason: "why"}, then: []domain.Event{set}},
		{name: "everything is held", when: domain.SetLegalHold{Hold: "h", Reason: "why"}, then: []domain.Event{domain.LegalHoldSet{Hold: "h", Reason: "why"}}},
		{name: "a repeat changes nothing", given: []domain.Event{set}, when: domain.SetLegalHold{Hold: "h", Account: "a1", Reason: "why"}},
		{name: "the same id for another account", given: []domain.Event{set}, when: domain.SetLegalHold{Hold: "h", Account: "a2", Reason: "why"}, code: domain.Conflict},
		{name: "the id of a released hold", given: []domain.Event{set, over}, when: domain.SetLegalHold{Hold: "h", Account: "a1", Reason: "why"}, code: domain.Conflict},
		{name: "no reason", when: domain.SetLegalHold{Hold: "h", Reason: " "}, code: domain.Invalid},
		{name: "a reason too long", when: domain.SetLegalHold{Hold: "h", Reason: strings.Repeat("x", 1025)}, code: domain.Invalid},
		{name: "no id", when: domain.SetLegalHold{Reason: "why"}, code: domain.Invalid},
		{name: "no account id", when: domain.SetLegalHold{Hold: "h", Account: "a/1", Reason: "why"}, code: domain.Invalid},
		{name: "a hold is released", given: []domain.Event{set}, when: domain.ReleaseLegalHold{Hold: "h", Reason: "done"}, then: []domain.Event{over}},
		{name: "a release repeated changes nothing", given: []domain.Event{set, over}, when: domain.ReleaseLegalHold{Hold: "h", Reason: "done"}},
		{name: "a hold that nobody set", when: domain.ReleaseLegalHold{Hold: "h", Reason: "done"}, code: domain.NotFound},
		{name: "a release without a reason", given: []domain.Event{set}, when: domain.ReleaseLegalHold{Hold: "h"}, code: domain.Invalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := domain.FoldLegalHolds(holdHistory(tt.given...)).Decide(tt.when)
			if (err != nil) != (tt.code != "") || err != nil && domain.CodeOf(err) != tt.code {
				t.Fatalf("error %v, want %q", err, tt.code)
			}
			if d := cmp.Diff(tt.then, got); d != "" {
				t.Errorf("events (-want +got):\n%s", d)
			}
		})
	}
}

func TestAHoldForbidsToCutWhatItCovers(t *testing.T) {
	t.Parallel()
	seal := domain.UsageSegmentSealed{Accounts: []domain.SegmentAccount{{Account: "a1"}, {Account: "a2"}}}
	many := domain.UsageSegmentSealed{AccountsOmitted: 3000}
	tests := []struct {
		name  string
		given []domain.Event
		seal  domain.UsageSegmentSealed
		held  bool
	}{
		{name: "none", seal: seal},
		{name: "an account in it", given: []domain.Event{domain.LegalHoldSet{Hold: "h", Account: "a2"}}, seal: seal, held: true},
		{name: "another account", given: []domain.Event{domain.LegalHoldSet{Hold: "h", Account: "a3"}}, seal: seal},
		{name: "any account, where accounts are not listed", given: []domain.Event{domain.LegalHoldSet{Hold: "h", Account: "a3"}}, seal: many, held: true},
		{name: "everything", given: []domain.Event{domain.LegalHoldSet{Hold: "h"}}, seal: seal, held: true},
		{name: "released", given: []domain.Event{domain.LegalHoldSet{Hold: "h"}, domain.LegalHoldReleased{Hold: "h"}}, seal: seal},
		{name: "one of two released", given: []domain.Event{domain.LegalHoldSet{Hold: "h"}, domain.LegalHoldSet{Hold: "i"}, domain.LegalHoldReleased{Hold: "h"}}, seal: seal, held: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if hold, held := domain.FoldLegalHolds(holdHistory(tt.given...)).Holding(tt.seal); held != tt.held {
				t.Errorf("held %t by %+v, want %t", held, hold, tt.held)
			}
		})
	}
}

func TestCutsAreRemembered(t *testing.T) {
	t.Parallel()
	h := domain.FoldLegalHolds(holdHistory(
		domain.UsageRangeCut{Stream: "s", Segment: 1, Before: 5}, domain.UsageRangeCut{Stream: "s", Segment: 2, Before: 9}, domain.UsageRangeCut{Stream: "s", Segment: 1, Before: 5},
	))
	if got := h.Cut("s"); got.Before != 9 || h.Cut("other").Before != 0 {
		t.Errorf("cuts %+v and %+v", got, h.Cut("other"))
	}
	if at := h.NextEffective(t0); !at.After(t0.Add(2 * time.Second)) {
		t.Errorf("the next fact is true from %v, not after the last", at)
	}
}

// TestAuditorsSeeTheHorizon: what was cut and held, and why, is in the activity records.
func TestAuditorsSeeTheHorizon(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		e     domain.Event
		shows []string
	}{
		{sampleSeal(), []string{"usage.segment.seal", "kt.usage-client-07", `"records":70`, `"sha256":"ab"`, "usage-client-07.00000002.ab.kta"}},
		{domain.UsageRangeCut{Stream: "kt.usage-client-07", Segment: 2, Before: 10}, []string{"usage.range.cut", `"before":10`}},
		{domain.LegalHoldSet{Hold: "case-7", Account: "acct1", Reason: "litigation"}, []string{"legal-hold.hold.set", "case-7", "litigation", `"severity":"warning"`}},
		{domain.LegalHoldReleased{Hold: "case-7", Reason: "settled"}, []string{"legal-hold.hold.release", "settled", `"everything":true`}},
	} {
		a, ok := domain.ActivityOf(recorded(tt.e))
		if !ok {
			t.Errorf("%s is no activity", tt.e.Type())
			continue
		}
		b, err := domain.MarshalCADF(a, domain.Extension{})
		if err != nil || !json.Valid(b) {
			t.Fatalf("%s: %v", b, err)
		}
		for _, s := range tt.shows {
			if !strings.Contains(string(b), s) {
				t.Errorf("the record of %s does not say %q:\n%s", tt.e.Type(), s, b)
			}
		}
	}
}
