package domain_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"example.com/keytrail/domain"
)

func TestInactiveIsWhoDidNotSignInSince(t *testing.T) {
	t.Parallel()
	account := domain.FoldAccount([]domain.Recorded{
		{Event: domain.AccountCreated{Account: "a", Owner: "User-owner", OwnerName: "Olga"}},
		{Event: domain.MemberAdded{Account: "a", IAMID: "User-idle", Name: "Ida"}},
		{Event: domain.RolesSet{Account: "a", IAMID: "iam-ServiceId-1", New: []domain.Role{domain.RoleIngester}}},
	})
	since, before, after := t0, t0.Add(-time.Millisecond), t0.Add(time.Hour)
	seen := domain.AccountActivity{
		Keys: []domain.KeyState{
			{ID: "k4", Name: "at the bound", IAMID: "User-owner", Kind: domain.KindUser},
			{ID: "k3", Name: "just before", IAMID: "User-owner", Kind: domain.KindUser},
			{ID: "k2", Name: "never", IAMID: "iam-ServiceId-1", Kind: domain.KindServiceID},
			{ID: "k1", Name: "used, not signed in with", IAMID: "User-idle", Kind: domain.KindUser},
			{ID: "x1", Name: "external, used", Kind: domain.KindExternal},
			{ID: "x2", Name: "external, idle", Kind: domain.KindExternal},
		},
		ServiceIDs:   []domain.InactiveServiceID{{ID: "ServiceId-2", Name: "two"}, {ID: "ServiceId-1", Name: "one"}},
		KeyLast:      map[domain.KeyID]time.Time{"k4": since, "k3": before},
		KeyLastUse:   map[domain.KeyID]time.Time{"k1": after, "x1": after, "x2": before},
		IdentityLast: map[domain.IAMID]time.Time{"User-owner": after, "iam-ServiceId-2": after, "iam-ServiceId-1": before},
	}
	want := domain.ReportContent{
		Users:      []domain.InactiveUser{{IAMID: "User-idle", Name: "Ida"}},
		ServiceIDs: []domain.InactiveServiceID{{ID: "ServiceId-1", Name: "one", LastAuthn: &before}},
		Keys: []domain.InactiveKey{
			{ID: "k1", Name: "used, not signed in with", Kind: domain.KindUser, IAMID: "User-idle", OwnerName: "Ida"},
			{ID: "k2", Name: "never", Kind: domain.KindServiceID, IAMID: "iam-ServiceId-1", OwnerName: "one"},
			{ID: "k3", Name: "just before", Kind: domain.KindUser, IAMID: "User-owner", OwnerName: "Olga", LastAuthn: &before},
			{ID: "x2", Name: "external, idle", Kind: domain.KindExternal, LastAuthn: &before},
		},
	}
	if diff := cmp.Diff(want, domain.InactiveSince(account, seen, since)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAReportsPartsAreWholeTogetherAndSmallAlone(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const bytesMax = 2000
		var whole, joined domain.ReportContent
		name := rapid.StringN(0, 100, 300)
		for i := range rapid.IntRange(0, 20).Draw(t, "users") {
			whole.Users = append(whole.Users, domain.InactiveUser{IAMID: domain.IAMID(fmt.Sprint(i)), Name: name.Draw(t, "name")})
		}
		for i := range rapid.IntRange(0, 20).Draw(t, "service IDs") {
			whole.ServiceIDs = append(whole.ServiceIDs, domain.InactiveServiceID{ID: fmt.Sprint(i), Name: name.Draw(t, "name")})
		}
		for i := range rapid.IntRange(0, 20).Draw(t, "keys") {
			whole.Keys = append(whole.Keys, domain.InactiveKey{ID: domain.KeyID(fmt.Sprint(i)), Name: name.Draw(t, "name"), LastAuthn: &t0})
		}
		parts, err := whole.Cut(bytesMax)
		if err != nil || len(parts) == 0 {
			t.Fatalf("%d parts, %v", len(parts), err)
		}
		for _, p := range parts {
			text, err := json.Marshal(p)
			entries := len(p.Users) + len(p.ServiceIDs) + len(p.Keys)
			if err != nil || entries > 1 && len(text) > bytesMax+100 || entries == 0 && len(parts) > 1 {
				t.Fatalf("a part of %d bytes with %d entries (%v)", len(text), entries, err)
			}
			joined.Users = append(joined.Users, p.Users...)
			joined.ServiceIDs = append(joined.ServiceIDs, p.ServiceIDs...)
			joined.Keys = append(joined.Keys, p.Keys...)
		}
		if diff := cmp.Diff(whole, joined); diff != "" {
			t.Fatalf("(-whole +parts):\n%s", diff)
		}
	})
}

func TestPartsOfAReportComeOnceAndInOrder(t *testing.T) {
	t.Parallel()
	asked := domain.Reports{}.Evolve(domain.Recorded{Position: 7, Event: domain.ReportRequested{Account: "a", Reference: "r", Hours: 1}})
	part := func(n, of uint64) domain.CompleteReport {
		return domain.CompleteReport{Account: "a", Reference: "r", Part: n, Parts: of}
	}
	one := asked.Evolve(domain.Recorded{Revision: 3, Event: domain.ReportCompleted{Reference: "r", Part: 1, Parts: 2}})
	tests := []struct {
		name   string
		given  domain.Reports
		when   domain.ReportCommand
		events int
		code   domain.Code
	}{
		{name: "the first part", given: asked, when: part(1, 2), events: 1},
		{name: "the first part again", given: one, when: part(1, 2)},
		{name: "the second part", given: one, when: part(2, 2), events: 1},
		{name: "a part too early", given: asked, when: part(2, 2), code: domain.Internal},
		{name: "another number of parts", given: one, when: part(2, 3), code: domain.Internal},
		{name: "a part beyond the last", given: one, when: part(3, 2), code: domain.Internal},
		{name: "a report that nobody asked for", when: part(1, 1), code: domain.NotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			events, err := tt.given.Decide(tt.when)
			code := domain.Code("")
			if e, ok := errors.AsType[*domain.Error](err); ok {
				code = e.Code
			}
			if len(events) != tt.events || code != tt.code {
				t.Errorf("%d events, %v; want %d, %q", len(events), err, tt.events, tt.code)
			}
		})
	}
	done, _ := one.Evolve(domain.Recorded{Revision: 9, Event: domain.ReportCompleted{Reference: "r", Part: 2, Parts: 2}}).Find("r")
	if !done.Complete() || done.First != 3 || done.Position != 7 {
		t.Errorf("%+v, want it complete, from revision 3, of position 7", done)
	}
}

func TestAnAccountHasFewReportsUnderWay(t *testing.T) {
	t.Parallel()
	var r domain.Reports
	for i := range 10 {
		r = r.Evolve(domain.Recorded{Event: domain.ReportRequested{Account: "a", Reference: fmt.Sprint(i), Hours: 1}})
	}
	ask := domain.RequestReport{Account: "a", Reference: "x", Kind: domain.ReportInactive, Hours: 1, At: t0}
	if _, err := r.Decide(ask); domain.CodeOf(err) != domain.Conflict {
		t.Errorf("the eleventh: %v, want a conflict", err)
	}
	r = r.Evolve(domain.Recorded{Event: domain.ReportCompleted{Account: "a", Reference: "3", Part: 1, Parts: 1}})
	if events, err := r.Decide(ask); err != nil || len(events) != 1 {
		t.Errorf("after one is complete: %v, %v", events, err)
	}
	if latest, ok := r.Latest(); !ok || latest.Reference != "3" {
		t.Errorf("latest %+v, want the one that is complete", latest)
	}
}
