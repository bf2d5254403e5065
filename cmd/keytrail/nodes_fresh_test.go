package main

import (
	"fmt"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/faults"
)

// needsNoLog is a path that is answered by what the directory knows: only freshness stands
// between a stale node and a 200.
const needsNoLog = "/v1/accounts"

// accepted asks with a key until stop is closed, many times at once, and returns the latest
// moment at which a request began that was accepted, and what the others were answered.
func accepted(n *node, k madeKey, stop <-chan struct{}) (last time.Time, others map[int]int) {
	var (
		wg sync.WaitGroup
		mu sync.Mutex
	)
	others = map[int]int{}
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				began := time.Now()
				status, h := n.ask(http.MethodGet, needsNoLog, k.APIKey, nil, nil)
				mu.Lock()
				if status != http.StatusOK {
					others[status]++
				} else if began.After(last) {
					last = began
				}
				if status == http.StatusServiceUnavailable && h.Get("Retry-After") == "" {
					n.in.t.Error("503 without Retry-After")
				}
				if took := time.Since(began); status == http.StatusServiceUnavailable && took > 3*auth.FreshnessBound {
					n.in.t.Errorf("503 came after %v", took)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return last, others
}

// TestAKeyDisabledElsewhereIsRefusedHere: two nodes, and the second is well, cut off from
// the log, or stopped. No request that begins later than the bound after the
// acknowledgement is accepted. There is no ClickHouse: nothing of this needs one.
func TestAKeyDisabledElsewhereIsRefusedHere(t *testing.T) {
	in := newInstallation(t, false)
	way := link(t, in.eventstore)
	var a, b *node
	atOnce(func() { a = in.node("a", "api", "", "") }, func() { b = in.node("b", "api", way.Address(), "") })
	if t.Failed() {
		t.FailNow()
	}
	iam := a.identity()
	disable := func(k madeKey) time.Time {
		if status, _ := a.ask(http.MethodPost, "/v1/apikeys/"+k.ID+"/disable", "", nil, nil); status != http.StatusNoContent {
			t.Fatalf("disable: %d", status)
		}
		return time.Now()
	}
	usable := func(name string) madeKey {
		k, _, status := a.create(iam, name)
		if status != http.StatusCreated {
			t.Fatalf("create: %d", status)
		}
		until(t, 10*time.Second, "accepted by b", func() bool {
			status, _ := b.ask(http.MethodGet, needsNoLog, k.APIKey, nil, nil)
			return status == http.StatusOK
		})
		return k
	}
	for i := range 5 {
		k, stop := usable(fmt.Sprint("well ", i)), make(chan struct{})
		done := make(chan time.Time, 1)
		go func() {
			last, _ := accepted(b, k, stop)
			done <- last
		}()
		<-time.After(100 * time.Millisecond)
		at := disable(k)
		<-time.After(300 * time.Millisecond)
		close(stop)
		lag := (<-done).Sub(at)
		t.Logf("well: the last request that was accepted began %v after the acknowledgement", lag)
		if lag > auth.FreshnessBound/4 {
			t.Errorf("accepted %v after it was disabled, both nodes well", lag)
		}
	}
	away := map[string]faults.Link{"mute": {Mute: true}, "deaf and mute": {Deaf: true, Mute: true}, "slow": {Delay: 3 * time.Second}}
	for name, l := range away {
		k, stop := usable(name), make(chan struct{})
		type result struct {
			last   time.Time
			others map[int]int
		}
		done := make(chan result, 1)
		go func() {
			last, others := accepted(b, k, stop)
			done <- result{last, others}
		}()
		way.Set(l)
		at := disable(k)
		<-time.After(3 * auth.FreshnessBound)
		close(stop)
		got := <-done
		t.Logf("%s: last accepted %v after the acknowledgement, then %v", name, got.last.Sub(at), got.others)
		if got.last.Sub(at) > auth.FreshnessBound || got.others[http.StatusServiceUnavailable] == 0 {
			t.Errorf("%s: accepted %v after it was disabled, others %v", name, got.last.Sub(at), got.others)
		}
		way.Set(faults.Link{})
		way.Cut()
		until(t, 20*time.Second, "b well again", func() bool {
			status, _ := b.ask(http.MethodGet, needsNoLog, "", nil, nil)
			return status == http.StatusOK
		})
		if status, _ := b.ask(http.MethodGet, needsNoLog, k.APIKey, nil, nil); status != http.StatusUnauthorized {
			t.Errorf("%s: after it, the disabled key is answered %d", name, status)
		}
	}
	k := usable("stopped")
	if err := b.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	disable(k)
	answers := make(chan int, 8)
	for range cap(answers) { // They reach a process that stands still.
		go func() {
			status, _ := b.ask(http.MethodGet, needsNoLog, k.APIKey, nil, nil)
			answers <- status
		}()
	}
	<-time.After(2 * auth.FreshnessBound)
	if err := b.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for range cap(answers) {
		if status := <-answers; status != http.StatusUnauthorized && status != http.StatusServiceUnavailable {
			t.Errorf("after it was stopped it answers %d for a key disabled meanwhile", status)
		}
	}
}
