package main

import (
	"fmt"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"
)

// takeoverMax is how soon a second worker must go on: three seconds of standing still, the
// look at the ledger, and a busy machine.
const takeoverMax = 5 * time.Second

// steady creates keys at a node until stop is closed and counts what is acknowledged. Every
// request must be answered 201: nobody disturbs this node.
func steady(n *node, iam, name string, stop <-chan struct{}, acked *sync.Map) int {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return i
		case <-time.After(20 * time.Millisecond):
		}
		k, _, status := n.create(iam, fmt.Sprint(name, " ", i))
		if status != http.StatusCreated {
			n.in.t.Errorf("%s: key %d is answered %d while another node is disturbed", name, i, status)
			return i
		}
		acked.Store(k.ID, true)
	}
}

// TestNodesAreKilledAndPausedInTurn: three nodes start at once on empty stores, and two of
// them are workers. While one is killed or stopped the API of the others answers every
// request, and the tables go on by the other worker. In the end nothing is missing, nothing
// doubled, and the tables are what the log says.
func TestNodesAreKilledAndPausedInTurn(t *testing.T) {
	in := newInstallation(t, true)
	var a, b, c *node
	atOnce(
		func() { a = in.node("a", "api", "", "") },
		func() { b = in.node("b", "api,worker", "", "") },
		func() { c = in.node("c", "worker", "", "") },
	)
	if t.Failed() {
		t.FailNow()
	}
	iam := a.identity()
	if other := b.identity(); other != iam {
		t.Fatalf("nodes that started at once have administrators %s and %s", iam, other)
	}
	if status, _ := c.ask(http.MethodGet, "/v1/accounts", "", nil, nil); status != http.StatusNotFound {
		t.Errorf("a worker answers %d to API requests", status)
	}
	var acked sync.Map
	total := 0
	during := func(what string, at *node, disturb, mend func()) {
		t.Helper()
		stop, done := make(chan struct{}), make(chan int, 1)
		_, position, _ := at.create(iam, what)
		at.tablesHold(position) // Somebody writes the tables.
		go func() { done <- steady(at, iam, what, stop, &acked) }()
		disturb()
		_, position, _ = at.create(iam, what+", after")
		took := at.tablesHold(position)
		t.Logf("%s: the tables went on after %v", what, took)
		if took > takeoverMax {
			t.Errorf("%s: the tables went on only after %v", what, took)
		}
		mend()
		close(stop)
		total += <-done
	}
	signal := func(n *node, s syscall.Signal) func() {
		return func() {
			if err := n.Signal(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	during("b killed", a, b.kill, b.start)
	during("c stopped", b, signal(c, syscall.SIGSTOP), signal(c, syscall.SIGCONT))
	during("b stopped", a, signal(b, syscall.SIGSTOP), signal(b, syscall.SIGCONT))
	during("c killed", b, c.kill, c.start)
	during("a killed", b, a.kill, a.start)
	if t.Failed() {
		t.FailNow()
	}
	_, position, _ := a.create(iam, "the last")
	a.tablesHold(position)
	missing := 0
	acked.Range(func(id, _ any) bool {
		if status, _ := b.ask(http.MethodGet, fmt.Sprint("/v1/apikeys/", id), "", nil, nil); status != http.StatusOK {
			missing++
		}
		return true
	})
	t.Logf("%d keys were acknowledged meanwhile, %d are missing", total, missing)
	if missing != 0 || total == 0 {
		t.Errorf("%d of %d acknowledged keys are missing", missing, total)
	}
	a.verified()
}
