package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
)

// suites returns the suites that are run.
func suites() []string {
	return []string{
		"TestAppendEventsSuite", "TestReadStreamSuite", "TestReadAllSuite", "TestSubscriptionSuite", "TestDeleteSuite",
		"TestConnectionSuite", "TestMultiAppendEventsSuite", "TestAppendRecordsSuite", "TestTLS",
		"TestConnectionStringSuite", "TestPositionParsingSuite", "TestUUIDParsingSuite", "TestVersionParsingWithPrerelease", "TestTypes",
	}
}

// passedMin is how many tests have to pass: fewer means that some were lost on the way.
const passedMin = 68

// leftOut is what is not run, and why.
type leftOut struct{ name, why string }

func leftOuts() []leftOut {
	return []leftOut{
		{"TestPersistentSubscriptionSuite", "persistent subscriptions are EventStoreDB's"},
		{"TestPersistentSubscriptionReadSuite", "persistent subscriptions are EventStoreDB's"},
		{"TestInsecureAuthenticationSuite", "it logs in by creating persistent subscriptions"},
		{"TestSecureAuthenticationSuite", "it logs in by creating persistent subscriptions"},
		{"TestProjectionSuite", "server-side projections are EventStoreDB's"},
		{"TestClusterSuite", "it wants a cluster that elects a new leader"},
		{"TestTLS/WithCertificateFromRelativeFile", "it waits for the $users stream of EventStoreDB's user management"},
		{"TestStreams", "it runs the suites above again"},
		{"TestPersistentSubscriptions", "it runs the suites above again"},
		{"TestMisc", "it runs the suites above again"},
	}
}

// event is a line of go test -json.
type event struct {
	Action string
	Test   string
	Output string
}

// tally is what came of the tests. Suites are not counted, only the tests in them.
type tally struct {
	passed, failed, skipped []string
	reasons                 map[string]string // Why a test skipped itself.
	output                  map[string]string
	rest                    string // What belongs to no test.
	exit                    error
}

// runTests runs the suites. The error is about the run, not about the tests.
func runTests(ctx context.Context, module string) (*tally, error) {
	cmd := exec.CommandContext(ctx, "go", "test", //nolint:gosec // The words are those of suites.
		"-json", "-count=1", "-timeout=4m",
		"-run", "^("+strings.Join(suites(), "|")+")$", "-skip", "^TestTLS$/^WithCertificateFromRelativeFile$", suiteModule+"/test")
	if err := inModule(cmd, module); err != nil {
		return nil, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		return nil, fmt.Errorf("run the suite: %w", err)
	}
	t, bad := parse(out)
	if bad != nil {
		return nil, fmt.Errorf("read what go test says: %w: %s", bad, stderr.String())
	}
	t.rest += stderr.String()
	t.exit = err
	return t, nil
}

// parse reads the output of go test -json.
func parse(out []byte) (*tally, error) {
	t := &tally{reasons: map[string]string{}, output: map[string]string{}}
	ended := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, err
		}
		switch {
		case e.Test == "":
			t.rest += e.Output
		case e.Action == "output":
			t.output[e.Test] += e.Output
		case e.Action == "pass" || e.Action == "fail" || e.Action == "skip":
			ended[e.Test] = e.Action
		}
	}
	for name, action := range ended {
		if action != "fail" && hasChildren(ended, name) {
			continue
		}
		switch action {
		case "pass":
			t.passed = append(t.passed, name)
		case "fail":
			t.failed = append(t.failed, name)
		case "skip":
			t.skipped = append(t.skipped, name)
			t.reasons[name] = reason(t.output[name])
		}
	}
	slices.Sort(t.passed)
	slices.Sort(t.failed)
	slices.Sort(t.skipped)
	return t, lines.Err()
}

func hasChildren(tests map[string]string, name string) bool {
	for other := range tests {
		if strings.HasPrefix(other, name+"/") {
			return true
		}
	}
	return false
}

// reason returns what a test said when it skipped itself.
func reason(output string) string {
	for line := range strings.Lines(output) {
		if _, why, ok := strings.Cut(line, "_test.go:"); ok {
			if _, why, ok = strings.Cut(why, ": "); ok {
				return strings.TrimSpace(why)
			}
		}
	}
	return "it gives no reason"
}

// report is what people read.
func (t *tally) report(verbose bool) string {
	var b strings.Builder
	for _, name := range t.failed {
		fmt.Fprintf(&b, "FAILED %s\n%s", name, t.output[name])
	}
	if verbose {
		for _, name := range t.passed {
			fmt.Fprintf(&b, "passed %s\n", name)
		}
	}
	because := map[string]int{}
	for _, name := range t.skipped {
		because[t.reasons[name]]++
		if verbose {
			fmt.Fprintf(&b, "skipped %s: %s\n", name, t.reasons[name])
		}
	}
	fmt.Fprintf(&b, "%s: %d passed, %d failed, %d skipped themselves\n", suiteModule+"/test", len(t.passed), len(t.failed), len(t.skipped))
	for _, why := range slices.Sorted(maps.Keys(because)) {
		fmt.Fprintf(&b, "  skipped %d: %s\n", because[why], why)
	}
	for _, l := range leftOuts() {
		fmt.Fprintf(&b, "  left out %s: %s\n", l.name, l.why)
	}
	return b.String()
}

// verdict is an error if anything failed, or too little was tried.
func (t *tally) verdict() error {
	switch {
	case len(t.failed) > 0:
		return fmt.Errorf("%d tests of the client's suite failed", len(t.failed))
	case t.exit != nil:
		return fmt.Errorf("the client's suite did not end well: %w\n%s", t.exit, t.rest)
	case len(t.passed) < passedMin:
		return fmt.Errorf("only %d tests passed, at least %d have to: was one lost?", len(t.passed), passedMin)
	}
	return nil
}
