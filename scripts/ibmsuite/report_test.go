package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// said is what ginkgo's reporter writes, cut short.
const said = `<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="IamIdentityV1 Suite" tests="4" failures="3" errors="0" time="1.2">
  <testcase name="IamIdentityV1 Integration Tests CreateAPIKey1 - Create API key #1 CreateAPIKey(x)" classname="s" time="0.1"></testcase>
  <testcase name="IamIdentityV1 Integration Tests GetAPIKey - Get details of an API key GetAPIKey(x)" classname="s" time="0.1">
    <failure type="Failure">expected 200</failure><system-out>GET /v1/apikeys/x</system-out>
  </testcase>
  <testcase name="IamIdentityV1 Integration Tests ListAPIKeys - Get API keys ListAPIKeys(x)" classname="s" time="0"><skipped>no configuration</skipped></testcase>
  <testcase name="IamIdentityV1 Integration Tests CreateProfile1 - Create trusted profile #1 CreateProfile(x)" classname="s" time="0.1"><failure type="Failure">404</failure></testcase>
  <testcase name="IamIdentityV1 Integration Tests GetProfileNotFound GetProfileNotFound(x)" classname="s" time="0.1"></testcase>
  <testcase name="IamIdentityV1 Invokes something with a server of its own" classname="s" time="0"><skipped></skipped></testcase>
  <testcase name="AfterSuite" classname="s" time="0.1"><failure type="Panicked">nil</failure></testcase>
</testsuite>`

func TestOnlyTestsOfWhatKeytrailHasAreCounted(t *testing.T) {
	got, err := parse([]byte(said))
	if err != nil {
		t.Fatal(err)
	}
	want := map[state][]string{
		statePassed:  {"CreateAPIKey1 - Create API key #1 CreateAPIKey(x)"},
		stateFailed:  {"GetAPIKey - Get details of an API key GetAPIKey(x)", "AfterSuite"},
		stateSkipped: {"ListAPIKeys - Get API keys ListAPIKeys(x)"},
	}
	for s, names := range want {
		if diff := cmp.Diff(names, got.named(s)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s, diff)
		}
	}
	report := got.report(false)
	for _, line := range []string{
		"1 of 4 about what keytrail has pass; 2 of all 6 are about something else", "  2: keytrail has no trusted profiles",
		"FAILED GetAPIKey", "expected 200", "GET /v1/apikeys/x", "SKIPPED ListAPIKeys",
	} {
		if !strings.Contains(report, line) {
			t.Errorf("the report does not say %q:\n%s", line, report)
		}
	}
}

func TestATestThatPassedBeforeMustPass(t *testing.T) {
	whole, err := parse([]byte(said))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		must []string
		want string
	}{
		{name: "all that must pass", must: whole.named(statePassed)},
		{name: "one failed", must: whole.named(stateFailed)[:1], want: "GetAPIKey"},
		{name: "one was skipped", must: whole.named(stateSkipped), want: "ListAPIKeys"},
		{name: "one was lost", must: []string{"CreateServiceID"}, want: "CreateServiceID"},
		{name: "one passes because it wants a refusal", must: []string{"GetProfileNotFound GetProfileNotFound(x)"}, want: "GetProfileNotFound"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := whole.verdict(tt.must)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
