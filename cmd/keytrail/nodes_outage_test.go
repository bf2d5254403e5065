package main

import (
	"bufio"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/faults"
)

// metric returns a number that a node shows.
func (n *node) metric(name string) float64 {
	n.in.t.Helper()
	res, err := http.Get(n.Address + "/metrics") //nolint:bodyclose // Our own server; readAll closes it.
	if err != nil {
		n.in.t.Fatal(err)
	}
	scan := bufio.NewScanner(strings.NewReader(string(readAll(n.in.t, res.Body))))
	for scan.Scan() {
		if v, ok := strings.CutPrefix(scan.Text(), name+" "); ok {
			f, err := strconv.ParseFloat(v, 64)
			if err != nil {
				n.in.t.Fatal(err)
			}
			return f
		}
	}
	n.in.t.Fatalf("no metric %s", name)
	return 0
}

// ready is what /readyz says: its status code, its word, and the checks that do not hold.
func (n *node) ready() (code int, word string, failing []string) {
	n.in.t.Helper()
	var out struct {
		Status string
		Checks []struct {
			Name string
			OK   bool
		}
	}
	code, _ = n.ask(http.MethodGet, "/readyz", "", nil, &out)
	for _, c := range out.Checks {
		if !c.OK {
			failing = append(failing, c.Name)
		}
	}
	return code, out.Status, failing
}

// trailOf is n records of CloudTrail from number first on, all of one account.
func trailOf(first, n int) string {
	var b strings.Builder
	for i := first; i < first+n; i++ {
		fmt.Fprintf(&b, `{"eventID":"e%d","eventTime":"2026-04-30T10:%02d:00Z","eventSource":"s3.amazonaws.com","eventName":"GetObject","recipientAccountId":"111122223333","userIdentity":{"type":"IAMUser","arn":"arn:aws:iam::111122223333:user/bea","userName":"bea","accessKeyId":"AKIAX"}}`+"\n", i, i%60)
	}
	return b.String()
}

// works fails the test unless commands, uses and imports are taken in, each exactly and in
// time; round tells calls apart.
func (n *node) works(iam string, round int) (position string) {
	n.in.t.Helper()
	began := time.Now()
	_, position, status := n.create(iam, fmt.Sprint("key ", round))
	if status != http.StatusCreated {
		n.in.t.Errorf("round %d: create is answered %d", round, status)
	}
	uses := fmt.Sprintf(`{"id":"u%d","time":"2026-04-30T10:00:00Z","action":"x.y"}`+"\n", round)
	if status, _ := n.ask(http.MethodPost, "/v1/usage", "", uses, nil); status != http.StatusAccepted {
		n.in.t.Errorf("round %d: usage is answered %d", round, status)
	}
	var got struct{ Accepted, Repeated, Uses uint64 }
	status, h := n.ask(http.MethodPost, "/v1/imports/cloudtrail", "", trailOf(round*50, 100), &got)
	want := uint64(50) // Half of them came with the round before.
	if round == 0 {
		want = 100
	}
	if status != http.StatusAccepted || got.Accepted != 100 || got.Repeated != 100-want {
		n.in.t.Errorf("round %d: import is answered %d, %+v; want %d new of 100", round, status, got, want)
	}
	if took := time.Since(began); took > 20*time.Second {
		n.in.t.Errorf("round %d took %v", round, took)
	}
	if p := h.Get("Keytrail-Position"); p != "" {
		position = p
	}
	return position
}

// queryIsRefused fails the test unless a query is answered 503, soon and with all that a
// caller needs.
func (n *node) queryIsRefused(within time.Duration) {
	n.in.t.Helper()
	began := time.Now()
	status, h := n.ask(http.MethodGet, "/v1/events", "", nil, nil)
	if took := time.Since(began); status != http.StatusServiceUnavailable || h.Get("Retry-After") == "" || h.Get("Keytrail-Position") == "" || took > within {
		n.in.t.Errorf("a query is answered %d after %v, Retry-After %q, position %q", status, took, h.Get("Retry-After"), h.Get("Keytrail-Position"))
	}
}

// TestWithoutClickHouseAllButQueriesGoesOn: it is away at the start, comes, hangs, and comes
// again; what was taken in meanwhile is in the tables, once.
func TestWithoutClickHouseAllButQueriesGoesOn(t *testing.T) {
	in := newInstallation(t, true)
	way := link(t, in.chAddress)
	way.Set(faults.Link{Refuse: true})
	n := in.node("n", "api,worker", "", way.Address())
	if t.Failed() {
		t.FailNow()
	}
	iam := n.identity()
	n.works(iam, 0)
	n.queryIsRefused(5 * time.Second)
	n.works(iam, 1)
	until(t, 30*time.Second, "told which store is away", func() bool {
		code, word, failing := n.ready()
		return code == http.StatusOK && word == "degraded" && strings.Contains(strings.Join(failing, ","), "ClickHouse")
	})
	if n.metric(`keytrail_store_up{store="ClickHouse"}`) != 0 || n.metric(`keytrail_store_up{store="event log"}`) != 1 {
		t.Error("the metrics do not say which store is away")
	}
	way.Set(faults.Link{})
	t.Logf("after it came, the tables held everything in %v", n.tablesHold(n.works(iam, 2)))
	n.verified()
	way.Set(faults.Link{Deaf: true, Mute: true})
	n.works(iam, 3)
	n.queryIsRefused(30 * time.Second)
	position := n.works(iam, 4)
	n.queryIsRefused(time.Second) // By now it is known.
	way.Set(faults.Link{})
	way.Cut()
	until(t, 30*time.Second, "ready again", func() bool { // Until then a query may meet a connection that was cut.
		code, word, _ := n.ready()
		return code == http.StatusOK && word == "ok"
	})
	t.Logf("after it hung, the tables held everything in %v", n.tablesHold(position))
	n.verified()
}

// refused asks in every way at once, and fails the test unless each is answered 503 within
// a bound, or, where the outage may have just begun, that the key is not known.
func (n *node) refused(iam string, within time.Duration, early bool) int {
	n.in.t.Helper()
	ways := []func() (int, http.Header){
		func() (int, http.Header) {
			return n.ask(http.MethodPost, "/v1/apikeys", "", map[string]string{"name": "x", "iam_id": iam}, nil)
		},
		func() (int, http.Header) {
			return n.ask(http.MethodPost, "/v1/usage", "", `{"id":"x","time":"2026-04-30T10:00:00Z"}`, nil)
		},
		func() (int, http.Header) { return n.ask(http.MethodGet, "/v1/apikeys/x", "kt_unknown", nil, nil) },
		func() (int, http.Header) { return n.ask(http.MethodGet, "/v1/events", "", nil, nil) },
	}
	fs := make([]func(), len(ways))
	for i, ask := range ways {
		fs[i] = func() {
			asked := time.Now()
			status, h := ask()
			took := time.Since(asked)
			known := early && status == http.StatusUnauthorized
			if !known && (status != http.StatusServiceUnavailable || h.Get("Retry-After") == "") || took > within {
				n.in.t.Errorf("way %d is answered %d after %v, want 503 within %v", i, status, took, within)
			}
		}
	}
	atOnce(fs...)
	return len(fs)
}

// TestWithoutTheEventStoreNothingIsTakenAndNothingIsLost: every request is answered 503
// within a bound, nothing piles up, and when the log is back the same process goes on.
func TestWithoutTheEventStoreNothingIsTakenAndNothingIsLost(t *testing.T) {
	in := newInstallation(t, false)
	way := link(t, in.eventstore)
	n := in.node("n", "api", way.Address(), "")
	if t.Failed() {
		t.FailNow()
	}
	iam := n.identity()
	n.works(iam, 0)
	before, told := n.metric("go_goroutines"), len(in.log.String())
	for i, l := range []faults.Link{{Refuse: true}, {Deaf: true, Mute: true}} {
		way.Set(l)
		if l.Refuse {
			way.Cut()
		}
		// What is under way when the log goes waits for it, within a bound; what comes when it
		// is known to be gone does not.
		firstWave := make(chan struct{})
		go func() {
			defer close(firstWave)
			n.refused(iam, commandMax+4*time.Second, true)
		}()
		<-time.After(3 * auth.FreshnessBound)
		began, most, requests := time.Now(), before, 0
		for time.Since(began) < 5*time.Second {
			requests += n.refused(iam, 2*auth.FreshnessBound, false)
			most = max(most, n.metric("go_goroutines"))
		}
		<-firstWave
		t.Logf("outage %d: %d requests, %.0f goroutines before, at most %.0f meanwhile", i, requests, before, most)
		if most > before+100 {
			t.Errorf("%.0f goroutines grew to %.0f", before, most)
		}
		if code, word, _ := n.ready(); code != http.StatusServiceUnavailable || word == "ok" {
			t.Errorf("ready: %d %s", code, word)
		}
		way.Set(faults.Link{})
		way.Cut()
		until(t, 20*time.Second, "well again", func() bool {
			status, _ := n.ask(http.MethodGet, "/v1/apikeys", "", nil, nil)
			code, _, failing := n.ready()
			return status != 0 && code == http.StatusOK && !strings.Contains(strings.Join(failing, ","), "event log")
		})
		n.works(iam, i+1)
	}
	said := strings.Count(in.log.String()[told:], "level=ERROR")
	if said > 40 {
		t.Errorf("two outages were told in %d lines at ERROR", said)
	}
	until(t, 10*time.Second, "without the goroutines of the outages", func() bool { return n.metric("go_goroutines") < before+30 })
}
