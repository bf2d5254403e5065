package clickhouse_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.com/keytrail/internal/clickhouse/clickhousetest"
	embedded "example.com/keytrail/internal/embedded/clickhouse"
)

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func TestAKilledChildIsReplacedAndLosesNothingAcknowledged(t *testing.T) {
	s := start(t, embedded.Config{})
	c := client(t, s.Socket())
	must(t, c, "CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a SETTINGS fsync_after_insert = 1, fsync_part_directory = 1")
	var (
		acknowledged sync.Map
		refused      atomic.Int64
		kills        atomic.Int64
		writers      sync.WaitGroup
	)
	query := url.Values{"query": {"INSERT INTO t FORMAT TSV"}}.Encode()
	for w := range 3 {
		writers.Go(func() {
			for i := 0; kills.Load() < 4; i++ {
				block := uint64(w*1_000_000 + i)
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://engine/?"+query, strings.NewReader(strings.Repeat(fmt.Sprintf("%d\n", block), 50)))
				if err != nil {
					t.Error(err)
					return
				}
				res, err := c.Do(req)
				if err != nil {
					refused.Add(1)
					continue
				}
				if _, err := io.Copy(io.Discard, res.Body); err == nil && res.StatusCode == http.StatusOK {
					acknowledged.Store(block, true)
				}
				_ = res.Body.Close()
			}
		})
	}
	for kills.Load() < 4 {
		before := s.Status()
		if before.Ready {
			if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, "a new child serves", func() bool {
				now := s.Status()
				return now.Ready && now.PID != before.PID
			})
			kills.Add(1)
		}
	}
	writers.Wait()
	if got := s.Status().Restarts; got != 4 {
		t.Errorf("%d restarts, want 4", got)
	}
	stored := map[string]string{}
	for line := range strings.Lines(must(t, c, "SELECT a, count() FROM t GROUP BY a")) {
		block, rows, _ := strings.Cut(strings.TrimSpace(line), "\t")
		stored[block] = rows
		if rows != "50" {
			t.Errorf("block %s has %s rows of 50", block, rows)
		}
	}
	n := 0
	acknowledged.Range(func(block, _ any) bool {
		n++
		if stored[fmt.Sprint(block)] != "50" {
			t.Errorf("acknowledged block %v is not there", block)
		}
		return true
	})
	t.Logf("%d blocks acknowledged, %d stored, %d requests failed", n, len(stored), refused.Load())
	if n == 0 || refused.Load() == 0 {
		t.Error("the kills did not meet the inserts")
	}
}

func TestAHungChildIsKilledAndReplaced(t *testing.T) {
	s := start(t, embedded.Config{PingEvery: 50 * time.Millisecond, PingTimeout: time.Second})
	c := client(t, s.Socket())
	before := s.Status().PID
	if err := syscall.Kill(before, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a new child serves", func() bool {
		now := s.Status()
		return now.Ready && now.PID != before
	})
	if alive(before) {
		t.Errorf("the hung child %d is still there", before)
	}
	if got := must(t, c, "SELECT 1"); got != "1" {
		t.Errorf("the new child answers %q", got)
	}
}

func TestAKilledParentLeavesNoChild(t *testing.T) {
	library := clickhousetest.Library(t)
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	runtimeDir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), exe, helperParent, dir, library, runtimeDir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil || !alive(pid) {
		t.Fatalf("the parent reports child %d: %v", pid, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the parent was killed and ended well")
	}
	eventually(t, "the child ends itself", func() bool { return !alive(pid) || zombie(pid) })
	// The proof of it: the folder is free.
	s := start(t, embedded.Config{Dir: dir})
	if got := must(t, client(t, s.Socket()), "SELECT a FROM t"); got != "7" {
		t.Errorf("what the killed parent's child stored reads %q", got)
	}
}

// zombie reports a process that ended and that its new parent has not reaped.
func zombie(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, state, found := strings.Cut(string(text), ") ")
	return err == nil && found && strings.HasPrefix(state, "Z")
}

// runHelperParent starts an engine, stores a row, says the child's id and waits
// to be killed.
func runHelperParent(dir, library, runtimeDir string) error {
	s, err := embedded.Start(context.Background(), embedded.Config{
		Dir: dir, Library: library, RuntimeDir: runtimeDir, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	c := &http.Client{Transport: unixTransport(s.Socket())}
	for _, sql := range []string{"CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a", "INSERT INTO t VALUES (7)"} {
		res, err := c.Post("http://engine/", "", strings.NewReader(sql))
		if err != nil || res.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %w", sql, err)
		}
		_ = res.Body.Close()
	}
	fmt.Println(s.Status().PID)
	select {}
}

func TestASecondEngineOnTheFolderIsRefused(t *testing.T) {
	dir := t.TempDir()
	start(t, embedded.Config{Dir: dir})
	_, err := embedded.Start(t.Context(), embedded.Config{Dir: dir, Library: clickhousetest.Library(t), Logger: clickhousetest.Logger(t)})
	if !errors.Is(err, embedded.ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v, want ErrInUse with the folder's name", err)
	}
}

func TestAnUnusableLibraryIsToldWithWhatToDo(t *testing.T) {
	good, err := os.Open(clickhousetest.Library(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := good.Close(); err != nil {
			t.Error(err)
		}
	}()
	head := make([]byte, 1<<20)
	if _, err := io.ReadFull(good, head); err != nil {
		t.Fatal(err)
	}
	noSections := append([]byte{}, head...) // As if cut by a tool that fixed the header.
	clear(noSections[40:48])
	clear(noSections[60:64])
	otherMachine := append([]byte{}, noSections...)
	otherMachine[18], otherMachine[19] = 0xb7, 0 // AArch64 in ELF's header.
	tests := []struct {
		name    string
		content []byte
		want    string
	}{
		{name: "missing", want: "no such file"},
		{name: "cut short", content: head, want: "no shared library"},
		{name: "cut short in its segments", content: noSections, want: "cut short"},
		{name: "for another machine", content: otherMachine, want: "EM_AARCH64"},
		{name: "no library at all", content: []byte("<html>not found</html>"), want: "no shared library"},
		{name: "empty", content: []byte{}, want: "no shared library"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "libchdb.so")
			if tt.content != nil {
				if err := os.WriteFile(path, tt.content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Library: path, Logger: clickhousetest.Logger(t)})
			if !errors.Is(err, embedded.ErrLibrary) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "--engine-library") {
				t.Errorf("got %v, want ErrLibrary with %q and what to do", err, tt.want)
			}
		})
	}
	t.Run("another library", func(t *testing.T) {
		libc, err := filepath.Glob("/usr/lib/*/libm.so.6")
		if err != nil || len(libc) == 0 {
			t.Skip("no other library of this machine is known to this test")
		}
		_, err = embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Library: libc[0], Logger: clickhousetest.Logger(t)})
		if !errors.Is(err, embedded.ErrLibrary) || !strings.Contains(err.Error(), "chdb_") {
			t.Errorf("got %v, want ErrLibrary that names the missing symbol", err)
		}
	})
}

func TestConfigIsCheckedBeforeAnythingStarts(t *testing.T) {
	_, err := embedded.Start(t.Context(), embedded.Config{Connections: -1, PingEvery: -1})
	for _, want := range []string{"data folder", "library", "connections", "duration", "logger"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not tell of the %s", err, want)
		}
	}
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 100))
	_, err = embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Library: "x", RuntimeDir: long, Logger: clickhousetest.Logger(t)})
	if err == nil || !strings.Contains(err.Error(), "shorter runtime folder") {
		t.Errorf("a long runtime folder: %v", err)
	}
}

func TestCloseFinishesWhatIsUnderWayAndLeavesNothing(t *testing.T) {
	s, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Library: clickhousetest.Library(t), Logger: clickhousetest.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	c := client(t, s.Socket())
	pid := s.Status().PID
	got := make(chan answer, 1)
	go func() { got <- ask(t, c, "SELECT 'done' AS marker, sleep(1)") }()
	eventually(t, "the statement runs", func() bool {
		return must(t, c, "SELECT count() FROM system.processes WHERE query LIKE '%AS marker, sleep%' AND query NOT LIKE '%processes%'") == "1"
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if a := <-got; a.status != http.StatusOK || a.err != nil || !strings.HasPrefix(a.body, "done") {
		t.Errorf("the statement under way got %+v", a)
	}
	if alive(pid) {
		t.Errorf("child %d outlives Close", pid)
	}
	if _, err := os.Stat(filepath.Dir(s.Socket())); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the runtime folder is still there: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

func TestTheSocketIsForItsOwnerOnly(t *testing.T) {
	s := start(t, embedded.Config{})
	for path, want := range map[string]os.FileMode{s.Socket(): 0o600, filepath.Dir(s.Socket()): 0o700} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %o", path, info.Mode().Perm(), err, want)
		}
	}
}
