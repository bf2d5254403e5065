package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

const said = `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA/One","Output":"one fails here\n"}
{"Action":"fail","Package":"p","Test":"TestA/One"}
{"Action":"pass","Package":"p","Test":"TestA/Two"}
{"Action":"output","Package":"p","Test":"TestA/Three","Output":"    x_test.go:12: needs 26.1\n"}
{"Action":"skip","Package":"p","Test":"TestA/Three"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestB/One"}
{"Action":"pass","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Output":"FAIL\n"}
`

func TestTestsAreCountedAndSuitesAreNot(t *testing.T) {
	got, err := parse([]byte(said))
	if err != nil {
		t.Fatal(err)
	}
	for _, check := range []struct {
		what      string
		got, want []string
	}{
		{"passed", got.passed, []string{"TestA/Two", "TestB/One"}},
		{"failed", got.failed, []string{"TestA", "TestA/One"}}, // The suite's own failure may be its set-up's.
		{"skipped", got.skipped, []string{"TestA/Three"}},
	} {
		if !slices.Equal(check.got, check.want) {
			t.Errorf("%s: got %q, want %q", check.what, check.got, check.want)
		}
	}
	report := got.report(true)
	for _, want := range []string{"one fails here", "needs 26.1", "2 passed, 2 failed, 1 skipped", "left out TestClusterSuite"} {
		if !strings.Contains(report, want) {
			t.Errorf("the report does not say %q:\n%s", want, report)
		}
	}
}

func TestOnlyAWholeRunIsASuccess(t *testing.T) {
	enough := make([]string, passedMin)
	for _, test := range []struct {
		name  string
		tally tally
		want  string
	}{
		{"all passed", tally{passed: enough}, ""},
		{"one failed", tally{passed: enough, failed: []string{"x"}}, "1 tests"},
		{"a crash after the last", tally{passed: enough, exit: errors.New("exit status 2")}, "did not end well"},
		{"one was lost", tally{passed: enough[1:]}, "was one lost"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.tally.verdict()
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}
