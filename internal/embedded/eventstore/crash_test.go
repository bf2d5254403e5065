package eventstore_test

import (
	"bufio"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"example.com/keytrail/internal/embedded/eventstore"
)

const (
	crashDir    = "KEYTRAIL_TEST_CRASH_DIR"
	crashSocket = "KEYTRAIL_TEST_CRASH_SOCKET"
)

// crashChild serves until it is killed.
func crashChild(dir, socket string) int {
	s, err := eventstore.Open(eventstore.Config{Dir: dir, Socket: socket, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("serving", s.Address())
	select {}
}

// acks are the appends that were acknowledged, by stream: how many events.
type acks struct {
	mu     sync.Mutex // Guards all below.
	events map[string]int
	total  int
	enough chan struct{}
	limit  int
}

func (a *acks) add(stream string, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.events[stream] += n
	a.total += n
	if a.total >= a.limit && a.total-n < a.limit {
		close(a.enough)
	}
}

// A server that is killed in mid-append keeps every acknowledged append once, and
// of the others all or nothing.
func TestKilledServerKeepsWhatItAcknowledged(t *testing.T) {
	dir, socketDir := t.TempDir(), shortDir(t)
	const perAppend = 3
	want := map[string]int{}
	for round := range 4 {
		socket := filepath.Join(socketDir, fmt.Sprint(round))
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), crashDir+"="+dir, crashSocket+"="+socket)
		cmd.Stderr = t.Output()
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatalf("child said %q: %v", line, err)
		}
		got := &acks{events: map[string]int{}, enough: make(chan struct{}), limit: 300 + 200*round}
		c := dialAddress(t, "unix://"+socket)
		var wg sync.WaitGroup
		for w := range 8 {
			stream := fmt.Sprintf("kt.crash-%d-%d", round, w)
			wg.Go(func() {
				for rev := int64(noStream); ; rev += perAppend {
					first := number(int(rev) + 1)
					a, err := c.append(t.Context(), stream, rev, "t", []byte("{}"), first, first+number(1), first+number(2))
					if err != nil {
						return // Killed.
					}
					if !a.ok {
						t.Errorf("append to %s at %d: %+v", stream, rev, a)
						return
					}
					got.add(stream, perAppend)
				}
			})
		}
		<-got.enough
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if err := cmd.Wait(); err == nil {
			t.Error("the killed child ended well")
		}
		maps.Copy(want, got.events)
		checkAfterCrash(t, dir, want, perAppend)
	}
}

func checkAfterCrash(t *testing.T, dir string, want map[string]int, perAppend int) {
	t.Helper()
	s, stop := open(t, eventstore.Config{Dir: dir})
	c := dial(t, s)
	for stream, n := range want {
		events, _, err := c.readStream(t.Context(), stream, false, nil, 1<<40)
		if err != nil {
			t.Fatal(err)
		}
		if len(events) < n || len(events)%perAppend != 0 || len(events) > n+perAppend {
			t.Errorf("%s holds %d events, %d were acknowledged", stream, len(events), n)
		}
		for i, e := range events {
			if e.ID != number(i) || e.Rev != uint64(i) {
				t.Errorf("%s: event %d is %+v", stream, i, e)
			}
		}
	}
	stop()
	verify(t, dir, -1)
	if _, err := os.Stat(s.Address()); err == nil {
		t.Error("the closed server left its socket behind")
	}
}
