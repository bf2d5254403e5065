package main

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"example.com/keytrail/internal/client"
)

// demoFindings is how many findings the demonstration raises.
const demoFindings = 8

// TestTablesAreMadeAnewWhileServing rebuilds through the command line, follows a page
// across the change, and kills the server in the middle of a second rebuild.
func TestTablesAreMadeAnewWhileServing(t *testing.T) {
	s := newSystem(t, "--demo", "--demo-uses", "4000")
	type page struct {
		Events []struct{ ID string }
		Next   string
	}
	type found struct{ Findings []struct{ ID string } }
	late := time.After(time.Minute)
	findings := get[found](s, "/v1/findings", nil)
	for ; len(findings.Findings) < demoFindings; findings = get[found](s, "/v1/findings", nil) {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-late:
			t.Fatalf("%d findings of the demonstration, want %d", len(findings.Findings), demoFindings)
		}
	}
	before := get[page](s, "/v1/events", url.Values{"limit": {"3"}})
	if before.Next == "" {
		t.Fatal("no second page of events")
	}
	if out := s.cli("rebuild", "two"); !strings.Contains(out, "the tables two answer; 0 differences") {
		t.Fatalf("rebuild:\n%s", out)
	}
	s.verified()
	after := get[page](s, "/v1/events", url.Values{"limit": {"3"}, "cursor": {before.Next}})
	if len(after.Events) != 3 {
		t.Errorf("the page behind the cursor has %d records", len(after.Events))
	}
	if again := get[found](s, "/v1/findings", nil); len(again.Findings) != len(findings.Findings) {
		t.Errorf("%d findings before, %d after", len(findings.Findings), len(again.Findings))
	}
	s.cli("rebuild", "--drop", "1")
	err := s.api.JSON(t.Context(), client.Request{Method: http.MethodGet, Path: "/v1/events", Query: url.Values{"limit": {"3"}, "cursor": {before.Next}}}, nil, nil)
	if status(err) != http.StatusConflict {
		t.Errorf("a cursor of tables that are gone: %v", err)
	}
	if err := s.post(http.MethodPost, generationsPath, rebuildRequest{Name: "three"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.srv.Kill(); err != nil {
		t.Fatal(err)
	}
	s.start()
	if out := s.cli("rebuild", "three"); !strings.Contains(out, "the tables three answer; 0 differences") {
		t.Fatalf("rebuild taken up again:\n%s", out)
	}
	s.verified()
	if out := s.cli("rebuild", "--list"); !strings.Contains(out, "three") || !strings.Contains(out, "dropped") {
		t.Errorf("rebuild --list:\n%s", out)
	}
}
