package torture_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"example.com/keytrail/ingest/horizon"
	"example.com/keytrail/internal/client"
	"example.com/keytrail/internal/embedded/eventstore"
	"example.com/keytrail/projections"
)

// aged is a server whose clock runs through weeks, with usage of each day.
type aged struct {
	t    *testing.T
	node *node
	sent int
}

func (a *aged) ask(method, path string, in, out any) {
	a.t.Helper()
	if err := a.node.past().JSON(a.t.Context(), client.Request{Method: method, Path: path}, in, out); err != nil {
		a.t.Fatalf("%s %s: %v", method, path, err)
	}
}

// day moves the clock to that day and sends usage and an import.
func (a *aged) day(n int) {
	a.t.Helper()
	if err := a.node.clock.Set(time.Duration(n) * 24 * time.Hour); err != nil {
		a.t.Fatal(err)
	}
	for _, b := range []batch{usageBatch(n, 40, 20), importBatch(n)} {
		h := http.Header{"Keytrail-Batch-Id": {b.id}, "Content-Type": {"application/x-ndjson"}}
		req := client.Request{Method: http.MethodPost, Path: b.path, Header: h, Body: bytes.NewReader(b.body), Length: int64(len(b.body))}
		if err := a.node.past().JSON(a.t.Context(), req, nil, nil); err != nil {
			a.t.Fatalf("day %d: %v", n, err)
		}
		a.sent += len(b.ids)
	}
}

// verified compares the tables with archive and log, and returns the report.
func (a *aged) verified() projections.Report {
	a.t.Helper()
	var r projections.Report
	a.ask(http.MethodPost, verifyPath, nil, &r)
	if !r.OK() {
		a.t.Errorf("the tables differ from archive and log: %+v", r)
	}
	return r
}

// cut makes passes until one cuts and finds nothing left to do, and returns how many
// segments were cut.
func (a *aged) cut() (cut uint64, last horizon.Result) {
	a.t.Helper()
	for range 3 {
		last = horizon.Result{}
		a.ask(http.MethodPost, "/v1/horizon/seal", nil, &last)
		cut += last.Cut
	}
	return cut, last
}

// settle waits until the tables hold what was sent.
func (a *aged) settle() {
	a.t.Helper()
	deadline := time.After(startMax)
	for {
		if r := a.verified(); r.Rows["usage"]+r.SealedRecords >= uint64(a.sent) || a.t.Failed() {
			return
		}
		select {
		case <-deadline:
			a.t.Fatal("the tables never held what was sent")
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// rebuilt makes the tables anew and returns when the new ones answer.
func (a *aged) rebuilt(name string) {
	a.t.Helper()
	a.ask(http.MethodPost, "/v1/projections/generations", map[string]string{"name": name}, nil)
	deadline := time.After(startMax)
	for {
		var list struct {
			Generations []struct{ Name, State, Fault string }
		}
		a.ask(http.MethodGet, "/v1/projections/generations", nil, &list)
		for _, g := range list.Generations {
			switch {
			case g.Name != name:
			case g.State == string(projections.GenerationLive):
				return
			case g.State == string(projections.GenerationDiffers):
				a.t.Fatalf("the tables made from archive and log differ: %+v", g)
			}
		}
		select {
		case <-deadline:
			a.t.Fatalf("new tables are not live: %+v", list)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// TestUsageAgesOutOfTheLogAndTablesStayExact lets weeks pass for one server: usage is
// archived, sealed and cut, through a kill, a rebuild and a legal hold, and after each step
// the tables are what archive and log say.
func TestUsageAgesOutOfTheLogAndTablesStayExact(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the whole program; run without -short")
	}
	s := siteOf(t)
	n, err := s.addNode(t.Context(), "server", s.data, "--usage-horizon", "192h", "--usage-archive-of", "verify=none")
	if err != nil {
		t.Fatal(err)
	}
	a := &aged{t: t, node: n}
	for day := range 4 {
		a.day(day)
	}
	a.day(14)
	a.settle()
	cut, res := a.cut()
	if cut < 8 {
		t.Errorf("%d segments were cut, want those of four days of two streams: %+v", cut, res)
	}
	files, err := os.ReadDir(filepath.Join(s.data, "archive"))
	if err != nil || uint64(len(files)) < 8 {
		t.Errorf("%d archives: %v", len(files), err)
	}
	a.verified()
	a.rebuilt("anew")
	if r := a.verified(); r.Generation != "anew" || r.Rows["usage"] < uint64(a.sent) {
		t.Errorf("made anew: %+v", r)
	}
	if err := n.kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.settle()
	a.held(cut)
	var check horizon.Report
	a.ask(http.MethodPost, "/v1/horizon/check", nil, &check)
	if !check.OK() || check.Archived < 8 {
		t.Errorf("check: %+v", check)
	}
	t.Logf("%d records, %d segments, %d archives", a.sent, check.Segments, check.Archived)
}

// scavenge frees what was cut from the log of a server that is not running.
func scavenge(t *testing.T, data string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "kt")
	if err != nil {
		t.Fatal(err)
	}
	srv, err := eventstore.Open(eventstore.Config{Dir: filepath.Join(data, "eventstore"), Socket: filepath.Join(dir, "s"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	report, err := srv.Scavenge(t.Context())
	if err := errors.Join(err, srv.Close(context.WithoutCancel(t.Context())), os.RemoveAll(dir)); err != nil {
		t.Fatal(err)
	}
	if report.Events == 0 {
		t.Error("nothing was scavenged")
	}
}

// TestUsageThatWasArchivedNowhereSurvivesARebuild cuts usage for good, makes the tables anew
// with the server killed in the middle, removes the old ones, and makes them anew again: the
// rows of what was cut are carried over, and every report says so.
func TestUsageThatWasArchivedNowhereSurvivesARebuild(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the whole program; run without -short")
	}
	s := siteOf(t)
	n, err := s.addNode(t.Context(), "server", s.data, "--usage-horizon", "192h", "--usage-archive", "none")
	if err != nil {
		t.Fatal(err)
	}
	a := &aged{t: t, node: n}
	for day := range 4 {
		a.day(day)
	}
	a.day(14)
	a.settle()
	if cut, res := a.cut(); cut < 8 {
		t.Errorf("%d segments were cut, want those of four days of two streams: %+v", cut, res)
	}
	if err := n.end(); err != nil {
		t.Fatal(err)
	}
	scavenge(t, s.data)
	if err := n.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := a.verified()
	if before.SealedRecords == 0 || before.CarriedRecords != 0 {
		t.Fatalf("nothing was cut, or something carried over before any rebuild: %+v", before)
	}
	a.ask(http.MethodPost, "/v1/projections/generations", map[string]string{"name": "two"}, nil)
	if err := n.kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.rebuilt("two")
	check := func(generation string) {
		t.Helper()
		r := a.verified()
		if r.Generation != generation || r.CarriedRecords != before.SealedRecords || r.CarriedEvents != before.SealedEvents || r.SealedRecords != before.SealedRecords {
			t.Errorf("%d records of %d events were cut; the tables %s: %+v", before.SealedRecords, before.SealedEvents, generation, r)
		}
	}
	check("two")
	a.ask(http.MethodDelete, "/v1/projections/generations/1", nil, nil)
	a.rebuilt("three")
	check("three")
	a.day(15)
	a.settle()
	check("three")
	t.Logf("%d records of %d events carried over", before.SealedRecords, before.SealedEvents)
}

// held sets a hold, lets more usage age, and releases it.
func (a *aged) held(before uint64) {
	a.t.Helper()
	hold := map[string]string{"id": "case", "reason": "a letter"}
	a.ask(http.MethodPost, "/v1/legal-holds", hold, nil)
	a.day(15)
	a.day(30)
	a.settle()
	cut, res := a.cut()
	if cut != 0 || len(res.Waiting) == 0 {
		a.t.Errorf("%d segments cut under a hold, %d before; waiting: %v", cut, before, res.Waiting)
	}
	for stream, why := range res.Waiting {
		if why != "legal hold case" {
			a.t.Errorf("%s waits for %q", stream, why)
		}
	}
	a.ask(http.MethodPost, "/v1/legal-holds/case/release", map[string]string{"reason": "settled"}, nil)
	if cut, res = a.cut(); cut == 0 {
		a.t.Errorf("nothing was cut after the hold: %+v", res)
	}
	a.verified()
	var status struct {
		Sealed uint64 `json:"segments_sealed"`
		Error  string `json:"error"`
	}
	a.ask(http.MethodGet, "/v1/horizon", nil, &status)
	if status.Error != "" || status.Sealed == 0 {
		a.t.Errorf("status %+v", status)
	}
}
