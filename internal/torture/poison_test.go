package torture_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/keytrail/internal/client"
)

// cli runs a command against the server and returns what it printed and its exit code.
func (a *aged) cli(args ...string) (string, int) {
	a.t.Helper()
	args = append(args, "--server", a.node.srv.Address, "--key-file", filepath.Join(a.node.site.data, "admin.key"))
	out, err := exec.CommandContext(a.t.Context(), binary, args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		a.t.Fatalf("keytrail %v: %v", args, err)
	}
	if exit == nil {
		return string(out), 0
	}
	return string(out), exit.ExitCode()
}

// holdsIn returns how many records of holds being set the tables show, and what the answer
// says of being incomplete.
func (a *aged) holdsIn(position string) (n int, incomplete string) {
	a.t.Helper()
	resp, err := a.node.past().Do(a.t.Context(), client.Request{Method: http.MethodGet, Path: "/v1/events", Query: map[string][]string{"limit": {"1000"}}, Header: http.Header{"Keytrail-Wait-Position": {position}}})
	if err != nil {
		a.t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		a.t.Fatal(err)
	}
	return bytes.Count(body, []byte(`"a letter `)), resp.Header.Get("Keytrail-Incomplete")
}

// figure returns a metric's value.
func (a *aged) figure(name string) float64 {
	a.t.Helper()
	resp, err := http.Get(a.node.srv.Address + "/metrics")
	if err != nil {
		a.t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		a.t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindSubmatch(body)
	if m == nil {
		a.t.Fatalf("no figure %s in\n%s", name, body)
	}
	v, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		a.t.Fatal(err)
	}
	return v
}

// figureBecomes waits until a metric has a value: figures are taken now and then.
func (a *aged) figureBecomes(name string, want float64) {
	a.t.Helper()
	deadline := time.After(startMax)
	for {
		got := a.figure(name)
		if got == want {
			return
		}
		select {
		case <-deadline:
			a.t.Fatalf("%s is %v, want %v", name, got, want)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// tablesState is what /v1/projections tells of the tables.
type tablesState struct {
	Name, Position, Head, State, Generation, Holder, Runner string
	Poisoned, Events                                        uint64
	Rows                                                    map[string]uint64
}

// complete waits until the tables hold all of the log, and returns what is told of them.
func (a *aged) complete() tablesState {
	a.t.Helper()
	deadline := time.After(startMax)
	for {
		var list struct{ Projections []tablesState }
		a.ask(http.MethodGet, "/v1/projections", nil, &list)
		for _, p := range list.Projections {
			if p.Name == "tables" && p.State == "complete" && p.Runner == "active" {
				return p
			}
		}
		select {
		case <-deadline:
			a.t.Fatalf("the tables are not complete: %+v", list)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// TestWhatAnOlderProgramSetAsideIsReplayedByACommand runs a server that cannot read one kind
// of event, looks with 'poison list' and at the figures, and has a server that can read it
// take it in with 'poison replay': once, though it is killed meanwhile.
func TestWhatAnOlderProgramSetAsideIsReplayedByACommand(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the whole program; run without -short")
	}
	s := siteOf(t)
	n, err := s.addNode(t.Context(), "server", s.data)
	if err != nil {
		t.Fatal(err)
	}
	a := &aged{t: t, node: n}
	n.env = []string{"KEYTRAIL_FAULT_BLIND=legalhold.set.v1"}
	if err := n.kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	const holds = 3
	for i := range holds {
		a.ask(http.MethodPost, "/v1/legal-holds", map[string]string{"id": "case" + strconv.Itoa(i), "reason": "a letter " + strconv.Itoa(i)}, nil)
	}
	state := a.complete()
	if state.Poisoned != holds || state.Position != state.Head || state.Generation != "1" || state.Holder == "" || state.Events == 0 || state.Rows["activity"] == 0 {
		t.Errorf("the tables: %+v", state)
	}
	if shown, incomplete := a.holdsIn(state.Head); shown != 0 || incomplete != strconv.Itoa(holds) {
		t.Errorf("%d holds are shown, and the answer is incomplete by %q; want none, by %d", shown, incomplete, holds)
	}
	position, err := strconv.ParseFloat(state.Position, 64)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]float64{"poisoned": holds, "position": position, "held": 1, "lag_seconds": 0, "events_per_second": 0, "attempt": 0} {
		a.figureBecomes(`keytrail_projection_`+name+`{generation="1"}`, want)
	}
	if r := a.verified(); r.Poisoned != holds {
		t.Errorf("verified with %d events aside", r.Poisoned)
	}
	if out, code := a.cli("poison", "list"); code != 0 || strings.Count(out, "legalhold.set.v1") < holds || !strings.Contains(out, "kt.legalholds") || !strings.Contains(out, "unknown event") {
		t.Errorf("poison list: %d\n%s", code, out)
	}
	if out, code := a.cli("poison", "replay"); code != 2 || strings.Count(out, "kt.legalholds") != holds {
		t.Errorf("poison replay by a program that cannot read them: %d\n%s", code, out)
	}
	n.env = nil
	if err := n.kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := a.complete(); got.Poisoned != holds {
		t.Errorf("%d events are aside before the replay, want %d: what is aside stays there", got.Poisoned, holds)
	}
	a.ask(http.MethodPost, "/v1/projections/poison/replay", nil, nil)
	if err := n.kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, code := a.cli("poison", "replay"); code != 0 || !strings.Contains(out, "nothing is set aside any more") {
		t.Errorf("poison replay: %d\n%s", code, out)
	}
	state = a.complete()
	if shown, incomplete := a.holdsIn(state.Head); shown != holds || incomplete != "" || state.Poisoned != 0 {
		t.Errorf("%d holds are shown, incomplete by %q; want %d: %+v", shown, incomplete, holds, state)
	}
	if r := a.verified(); r.Poisoned != 0 {
		t.Errorf("verified with %d events aside", r.Poisoned)
	}
}
