package main

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"example.com/keytrail/internal/faults"
)

const (
	// slowSync is how long every sync of the server takes: a disk in trouble.
	slowSync = 100 * time.Millisecond
	// slowAnswerMax bounds every answer then. A command appends twice, one after the other,
	// and each append waits for at most two syncs, whoever else is writing; the rest is room
	// for a busy machine, whose server is traced.
	slowAnswerMax = 2 * time.Second
)

// TestASlowDiskMakesAnswersSlowWithinABound: every sync of the server waits. Writers by the
// dozen are each answered within what a few syncs take, and readers at once.
func TestASlowDiskMakesAnswersSlowWithinABound(t *testing.T) {
	s := newSystem(t)
	iam, _ := s.me()
	s.manyKeys()
	n := &node{in: &installation{t: t}, name: "n", Server: s.srv, api: s.api}
	first, _, status := n.create(iam, "first")
	if status != http.StatusCreated {
		t.Fatalf("create: %d", status)
	}
	trace, err := faults.StartTrace(t.Context(), s.srv.PID(), faults.Spoil{
		Calls: []string{"fsync", "fdatasync", "sync_file_range"}, Inject: fmt.Sprintf("delay_enter=%d", slowSync.Microseconds()),
	})
	if errors.Is(err, faults.ErrUnsupported) {
		t.Skipf("NOT TRIED HERE: a slow disk under a server: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		said = map[string]*latencies{}
	)
	timed := func(what string, want int, ask func() int) {
		began := time.Now()
		status := ask()
		took := time.Since(began)
		if status != want || took > slowAnswerMax {
			t.Errorf("%s is answered %d after %v, want %d within %v", what, status, took, want, slowAnswerMax)
		}
		mu.Lock()
		defer mu.Unlock()
		if said[what] == nil {
			said[what] = &latencies{}
		}
		said[what].add(took)
	}
	const rounds = 4
	for w := range 32 {
		wg.Go(func() {
			for i := range rounds {
				timed("create", http.StatusCreated, func() int {
					_, _, status := n.create(iam, fmt.Sprintf("slow %d %d", w, i))
					return status
				})
				timed("read", http.StatusOK, func() int {
					status, _ := n.ask(http.MethodGet, "/v1/apikeys/"+first.ID, "", nil, nil)
					return status
				})
			}
		})
	}
	for w := range 4 { // One caller's batches are written one after the other.
		wg.Go(func() {
			for i := range rounds {
				timed("usage", http.StatusAccepted, func() int {
					use := fmt.Sprintf(`{"id":"slow-%d-%d","time":"2026-04-30T10:00:00Z","action":"x.y"}`+"\n", w, i)
					status, _ := n.ask(http.MethodPost, "/v1/usage", "", use, nil)
					return status
				})
			}
		})
	}
	wg.Wait()
	spoilt, err := trace.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if spoilt == 0 {
		t.Error("no sync was slow")
	}
	t.Logf("%d syncs took %v more each", spoilt, slowSync)
	for what, l := range said {
		t.Logf("%s: %d answers, %v on average, %v at most", what, l.n, l.sum/time.Duration(l.n), l.max)
	}
	s.verified()
}

// latencies are how long answers took.
type latencies struct {
	n        int
	sum, max time.Duration
}

func (l *latencies) add(d time.Duration) {
	l.n++
	l.sum += d
	l.max = max(l.max, d)
}
