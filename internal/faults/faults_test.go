package faults_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/keytrail/internal/faults"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo serves one line back for each line it is sent.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c) // Until it is cut.
				_ = c.Close()
			}()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().String()
}

func newProxy(t *testing.T) *faults.Proxy {
	t.Helper()
	p, err := faults.NewProxy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.Target("tcp", echo(t))
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// exchange sends text on a new connection and returns what comes back until it is cut or
// whole, and whether it was cut.
func exchange(t *testing.T, p *faults.Proxy, text string, patience time.Duration) (string, error) {
	t.Helper()
	c, err := net.Dial("tcp", p.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	got := make([]byte, len(text))
	n, err := io.ReadFull(c, got)
	return string(got[:n]), err
}

func TestAProxySpoilsConnectionsAsItIsTold(t *testing.T) {
	const patience, short = 20 * time.Second, 100 * time.Millisecond
	text := strings.Repeat("0123456789", 1000)
	for _, test := range []struct {
		name     string
		link     faults.Link
		patience time.Duration
		want     int // Bytes that come back.
		cut      bool
		hangs    bool
	}{
		{"passes on", faults.Link{}, patience, len(text), false, false},
		{"refuses", faults.Link{Refuse: true}, patience, 0, true, false},
		{"cuts a request", faults.Link{CutRequest: 1234}, patience, -1, true, false},
		{"cuts an answer", faults.Link{CutAnswer: 1234}, patience, 1234, true, false},
		{"is mute", faults.Link{Mute: true}, short, 0, false, true},
		{"is deaf", faults.Link{Deaf: true}, short, 0, false, true},
		{"is slow", faults.Link{Delay: 10 * time.Millisecond}, patience, len(text), false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newProxy(t)
			p.Set(test.link)
			began := time.Now()
			got, err := exchange(t, p, text, test.patience)
			if test.want >= 0 && got != text[:test.want] {
				t.Errorf("%d bytes came back, want %d", len(got), test.want)
			}
			if hangs := errors.Is(err, os.ErrDeadlineExceeded); hangs != test.hangs {
				t.Errorf("hangs: %v (%v), want %v", hangs, err, test.hangs)
			}
			if cut := err != nil && !errors.Is(err, os.ErrDeadlineExceeded); cut != test.cut {
				t.Errorf("cut: %v (%v), want %v", cut, err, test.cut)
			}
			if took := time.Since(began); took < 2*test.link.Delay {
				t.Errorf("took %v, want at least %v", took, 2*test.link.Delay)
			}
		})
	}
}

func TestAProxyCutsWhatIsOpenAndServesTheNext(t *testing.T) {
	p := newProxy(t)
	c, err := net.Dial("tcp", p.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, "a\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	p.Cut()
	if _, err := r.ReadString('\n'); err == nil {
		t.Error("the connection is not cut")
	}
	if got, err := exchange(t, p, "next", 20*time.Second); got != "next" {
		t.Errorf("after the cut: %q, %v", got, err)
	}
}

// unsupported skips the test where this machine cannot make the fault, and says so loudly.
func unsupported(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, faults.ErrUnsupported) {
		t.Skipf("NOT TRIED HERE: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestAFullDiskIsFullUntilItIsEmptied(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "disk")
	inner := filepath.Join(dir, "inner")
	d, err := faults.NewDisks(t.Context(), faults.Disk{Path: dir, SizeBytes: 1 << 20}, faults.Disk{Path: inner, SizeBytes: 1 << 20})
	unsupported(t, err)
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	write := func(path string, n int) (string, error) {
		args := append(d.Wrap(), "sh", "-c", "head -c $1 /dev/zero > $0", filepath.Join(path, "file"))
		args = append(args, strconv.Itoa(n))
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		return string(out), err
	}
	if out, err := write(dir, 200<<10); err != nil {
		t.Fatalf("write to an empty disk: %v: %s", err, out)
	}
	if err := d.Fill(dir, 8<<10); err != nil {
		t.Fatal(err)
	}
	if out, err := write(dir, 500<<10); err == nil || !strings.Contains(out, "space") {
		t.Errorf("write to a full disk: %v: %s", err, out)
	}
	if out, err := write(inner, 500<<10); err != nil {
		t.Errorf("write to the other disk: %v: %s", err, out)
	}
	if err := d.Empty(dir); err != nil {
		t.Fatal(err)
	}
	if out, err := write(dir, 500<<10); err != nil {
		t.Errorf("write to an emptied disk: %v: %s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "file")); err == nil {
		t.Error("the disk is seen outside its namespace")
	}
}

func TestATracedProcessSeesTheFaultAndThenNone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	cmd := exec.Command("sh", "-c", `while read -r _; do if sync "$0" 2>/dev/null; then echo stored; else echo failed; fi; done`, file)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	ask := func() string {
		if _, err := io.WriteString(in, "\n"); err != nil {
			t.Fatal(err)
		}
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(line)
	}
	defer func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	if got := ask(); got != "stored" {
		t.Fatalf("before the fault: %s", got)
	}
	tr, err := faults.StartTrace(t.Context(), cmd.Process.Pid, faults.Spoil{Calls: []string{"fsync", "fdatasync"}, Inject: "error=EIO"})
	unsupported(t, err)
	if got := ask(); got != "failed" {
		t.Errorf("during the fault: %s", got)
	}
	if spoilt, err := tr.Stop(); err != nil || spoilt != 1 {
		t.Fatalf("%d calls were spoilt (%v), want 1", spoilt, err)
	}
	if got := ask(); got != "stored" {
		t.Errorf("after the fault: %s", got)
	}
}

func TestSignalsReachChildrenAndForgiveTheDead(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 1000 & echo started; wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	children, err := faults.Children(cmd.Process.Pid)
	if err != nil || len(children) != 1 {
		t.Fatalf("children: %v, %v, want one", children, err)
	}
	if err := faults.Signal(syscall.SIGKILL, append(children, cmd.Process.Pid)...); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the killed process ended well")
	}
	if err := faults.Signal(syscall.SIGKILL, cmd.Process.Pid); err != nil {
		t.Errorf("signal to the dead: %v", err)
	}
	if gone, err := faults.Children(cmd.Process.Pid); err != nil || len(gone) != 0 {
		t.Errorf("children of the dead: %v, %v", gone, err)
	}
}

func TestAClockIsReadWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clock")
	c := faults.NewClock(path)
	for _, offset := range []time.Duration{time.Hour, -48 * time.Hour, 0} {
		if err := c.Set(offset); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil || string(b) != strconv.Itoa(int(offset/time.Second)) {
			t.Errorf("the file says %q, %v", b, err)
		}
	}
	if got, want := c.Env(), faults.ClockEnv+"="+path; got != want {
		t.Errorf("environment %q, want %q", got, want)
	}
}
