package torture_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// binary is the program under torture, built once with the tag 'faults', which adds a
// clock that can be moved and nothing else.
var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		if testing.Short() {
			return m.Run()
		}
		dir, err := os.MkdirTemp("", "keytrail-torture-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() {
			if err := os.RemoveAll(dir); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}()
		binary = filepath.Join(dir, "keytrail")
		out, err := exec.Command("go", "build", "-tags", "faults", "-o", binary, "../../cmd/keytrail").CombinedOutput()
		if err != nil {
			fmt.Fprintf(os.Stderr, "build keytrail: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// setting reads a number from the environment.
func setting(t *testing.T, name string, otherwise int64) int64 {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// pause lets d pass: the writers are to be at work meanwhile.
func pause(d time.Duration) { <-time.After(d) }
