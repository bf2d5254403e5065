package clickhouse_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"example.com/keytrail/internal/clickhouse/clickhousetest"
	embedded "example.com/keytrail/internal/embedded/clickhouse"
)

// runWithoutLandlock is the engine's child as on a kernel that has no Landlock.
func runWithoutLandlock(args []string) int {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_LANDLOCK_CREATE_RULESET, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		fmt.Fprintln(os.Stderr, errno)
		return 1
	}
	return embedded.RunChild(args)
}

func TestWithoutLandlockTheEngineStartsOnlyIfAllowed(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cfg := embedded.Config{
		Dir: t.TempDir(), Library: clickhousetest.Library(t), Logger: clickhousetest.Logger(t),
		Command: []string{exe, helperNoLandlock},
	}
	_, err = embedded.Start(t.Context(), cfg)
	if !errors.Is(err, embedded.ErrUnconfined) || !strings.Contains(err.Error(), "Landlock") {
		t.Fatalf("got %v, want ErrUnconfined that names Landlock", err)
	}
	cfg.AllowUnconfined = true
	s := start(t, cfg)
	if got := must(t, client(t, s.Socket()), "SELECT 1"); got != "1" {
		t.Errorf("unconfined, 1 is %q", got)
	}
}

// TestEveryThreadOfTheChildIsConfined looks at what the kernel says of each
// thread, the engine's own included.
func TestEveryThreadOfTheChildIsConfined(t *testing.T) {
	s := start(t, embedded.Config{})
	c := client(t, s.Socket())
	must(t, c, "SELECT count() FROM numbers_mt(10000000) WHERE sipHash64(number) = 1")
	tasks := fmt.Sprintf("/proc/%d/task", s.Status().PID)
	entries, err := os.ReadDir(tasks)
	if err != nil || len(entries) < 10 {
		t.Fatalf("%d threads, %v", len(entries), err)
	}
	for _, e := range entries {
		text, err := os.ReadFile(tasks + "/" + e.Name() + "/status")
		if err != nil {
			continue // The thread ended.
		}
		for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2"} {
			if !strings.Contains(string(text), want) {
				t.Errorf("thread %s has not %q", e.Name(), want)
			}
		}
	}
}
