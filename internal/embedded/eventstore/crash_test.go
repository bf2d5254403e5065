package eventstore_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/internal/embedded/eventstore"
)

const (
	crashDir    = "KEYTRAIL_TEST_CRASH_DIR"
	crashSocket = "KEYTRAIL_TEST_CRASH_SOCKET"
	// crashScavenge, if set, lets the child scavenge as soon as it serves.
	crashScavenge = "KEYTRAIL_TEST_CRASH_SCAVENGE"
	// crashMidway is its value that also lets the child kill itself once events are gone.
	crashMidway = "midway"
)

// crashChild serves until it is killed; it returns only what keeps it from that.
func crashChild(dir, socket string) error {
	s, err := eventstore.Open(eventstore.Config{Dir: dir, Socket: socket, ScavengeEvery: -1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	fmt.Println("serving", s.Address())
	if how := os.Getenv(crashScavenge); how != "" {
		if how == crashMidway {
			if err := killMidway(dir); err != nil {
				return err
			}
		}
		if _, err := s.Scavenge(context.Background()); err != nil {
			return err
		}
		fmt.Println("scavenged")
	}
	select {}
}

// killMidway has this process killed as soon as the tables hold fewer events than now.
func killMidway(dir string) error {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "events.db")+"?mode=ro")
	if err != nil {
		return err
	}
	count := func() (n int, err error) {
		return n, db.QueryRowContext(context.Background(), `SELECT sum(events) FROM blocks`).Scan(&n)
	}
	before, err := count()
	if err != nil {
		return err
	}
	go func() {
		for {
			if n, err := count(); err == nil && n < before {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // It does not return.
			}
		}
	}()
	return nil
}

// startCrashChild starts a child and returns once it serves, with what it prints then.
func startCrashChild(t *testing.T, dir, socket string, env ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(append(os.Environ(), crashDir+"="+dir, crashSocket+"="+socket), env...)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewReader(out)
	if line, err := said.ReadString('\n'); err != nil {
		t.Fatalf("child said %q: %v", line, err)
	}
	return cmd, said
}

func killChild(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the killed child ended well")
	}
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
		cmd, _ := startCrashChild(t, dir, socket)
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
		killChild(t, cmd)
		wg.Wait()
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

// limitedLog makes a log of many blocks in dir, most of whose events limits of every kind
// hide, none scavenged, and returns its streams.
func limitedLog(t *testing.T, dir string) (streams []string) {
	t.Helper()
	s, stop := open(t, eventstore.Config{Dir: dir, ScavengeEvery: -1})
	defer stop()
	c := dial(t, s)
	const perAppend, appends = 10, 10
	for i := range appends {
		for n := range 40 {
			var ids []uint64
			for e := range perAppend {
				ids = append(ids, number((n*appends+i)*perAppend+e))
			}
			a, err := c.append(t.Context(), fmt.Sprintf("kt.limited-%d", n), int64(i*perAppend)-1, "t", make([]byte, 700), ids...)
			if err != nil || !a.ok {
				t.Fatalf("append: %+v, %v", a, err)
			}
		}
	}
	for n := range 40 {
		name := fmt.Sprintf("kt.limited-%d", n)
		streams = append(streams, name)
		metadata := []string{`{"$maxCount":7}`, `{"$tb":93}`, `{"$tb":9223372036854775807}`, `{}`}[n%4]
		if a, err := c.append(t.Context(), "$$"+name, noStream, "$metadata", []byte(metadata), number(1e6+n)); err != nil || !a.ok {
			t.Fatalf("metadata: %+v, %v", a, err)
		}
	}
	return streams
}

// A server that is killed in the midst of a scavenge, again and again until one is done,
// leaves a log that is whole each time; nothing is gone that limits do not hide, and nothing
// that was acknowledged meanwhile.
func TestKilledScavengeTakesOnlyWhatIsHidden(t *testing.T) {
	midway := 0
	for tries := 0; midway == 0 && tries < 2; tries++ {
		midway = killScavenges(t)
	}
	if midway == 0 {
		t.Error("no kill came while a scavenge was under way")
	}
	t.Logf("%d kills came while a scavenge was under way", midway)
}

// scavengeKillsMax bounds the kills of one log: then a scavenge is let through.
const scavengeKillsMax = 6

// killScavenges returns how many kills came while a scavenge was under way.
func killScavenges(t *testing.T) int {
	t.Helper()
	dir, socketDir := t.TempDir(), shortDir(t)
	streams := limitedLog(t, dir)
	show := func(dir string) (map[string][]seen, []seen) {
		s, stop := open(t, eventstore.Config{Dir: dir, ScavengeEvery: -1})
		defer stop()
		c := dial(t, s)
		live, _, err := c.readStream(t.Context(), "kt.live", false, nil, 1<<40)
		if err != nil {
			t.Fatal(err)
		}
		return reads(t, c, streams), live
	}
	want, _ := show(dir)
	random := rand.New(rand.NewPCG(7, 8))
	midway, acked := 0, 0
	for round, done := 0, false; !done; round++ {
		before := len(scan(t, dir))
		socket := filepath.Join(socketDir, fmt.Sprint(round))
		how := "1"
		if round%2 == 1 && round < scavengeKillsMax {
			how = crashMidway
		}
		cmd, said := startCrashChild(t, dir, socket, crashScavenge+"="+how)
		scavenged := make(chan bool, 1)
		go func() {
			line, _ := said.ReadString('\n') // Nothing is said by one that is killed before.
			scavenged <- line == "scavenged\n"
		}()
		c := dialAddress(t, "unix://"+socket)
		written := make(chan int, 1)
		go func() {
			for n := acked; ; n++ {
				if a, err := c.append(t.Context(), "kt.live", int64(n)-1, "t", nil, number(2e6+n)); err != nil || !a.ok {
					written <- n
					return
				}
			}
		}()
		var kill <-chan time.Time // Later and later: a slow machine gets as far as a fast one.
		if round < scavengeKillsMax && how != crashMidway {
			kill = time.After(time.Duration(random.Int64N(int64(round+1) * int64(40*time.Millisecond))))
		}
		select {
		case done = <-scavenged:
		case <-kill:
		}
		killChild(t, cmd)
		told := <-written
		if r, err := eventstore.Verify(t.Context(), dir); err != nil {
			t.Fatalf("round %d: %+v, %v", round, r, err)
		}
		got, live := show(dir)
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("round %d (-want +got):\n%.2000s", round, d)
		}
		if len(live) != told && len(live) != told+1 { // One may have been stored unanswered.
			t.Fatalf("round %d: %d events are there, %d were acknowledged", round, len(live), told)
		}
		if left := len(scan(t, dir)) - (len(live) - acked); !done && left < before {
			midway++
		}
		acked = len(live)
	}
	return midway
}
