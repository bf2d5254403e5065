package faults

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// traceStartMax bounds how long strace may take to seize a process.
const traceStartMax = 20 * time.Second

// Trace is strace at work on a process: it makes the named system calls fail or wait.
type Trace struct {
	cmd  *exec.Cmd
	out  string // The file that strace lists the spoilt calls in.
	done chan struct{}
	err  error // How strace ended; valid once done is closed.
}

// Spoil says which system calls on which files go wrong, and how.
type Spoil struct {
	// Calls are names as strace takes them: "fsync", "pwrite64".
	Calls []string
	// Inject is strace's word for what happens: "error=EIO", "delay_enter=50000".
	Inject string
	// Paths limits the fault to calls on these files, where there are any.
	Paths []string
}

// StartTrace attaches strace to pid and all its threads and returns once it holds them.
// Stop, or the end of ctx, lets the process go on untouched.
func StartTrace(ctx context.Context, pid int, s Spoil) (*Trace, error) {
	path, err := exec.LookPath("strace")
	if err != nil {
		return nil, fmt.Errorf("%w: strace is not installed: %w", ErrUnsupported, err)
	}
	out, err := os.CreateTemp("", "keytrail-trace-")
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	if err := out.Close(); err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	calls := strings.Join(s.Calls, ",")
	args := []string{"-f", "-p", strconv.Itoa(pid), "-e", "trace=" + calls, "-e", "inject=" + calls + ":" + s.Inject, "-e", "signal=none", "-o", out.Name()}
	for _, p := range s.Paths {
		args = append(args, "-P", p)
	}
	t := &Trace{cmd: exec.CommandContext(ctx, path, args...), out: out.Name(), done: make(chan struct{})} //nolint:gosec // A test's own words.
	// Killed, it would leave the process stopped: it must let go by itself.
	t.cmd.Cancel = func() error { return t.cmd.Process.Signal(syscall.SIGINT) }
	t.cmd.WaitDelay = traceStartMax
	stderr, err := t.cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	if err := t.cmd.Start(); err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	said := make(chan string, 1)
	go t.watch(stderr, said)
	late := time.NewTimer(traceStartMax)
	defer late.Stop()
	select {
	case line := <-said:
		if strings.Contains(line, "attached") {
			return t, nil
		}
		_, err = t.Stop()
		return nil, errors.Join(fmt.Errorf("%w: strace says: %s", ErrUnsupported, line), err)
	case <-late.C:
		_, err = t.Stop()
		return nil, errors.Join(errors.New("trace: strace does not attach"), err)
	}
}

// watch hands over what strace says when it has attached or failed, and reads the rest.
func (t *Trace) watch(stderr io.Reader, said chan<- string) {
	lines := bufio.NewScanner(stderr)
	text := "nothing"
	for lines.Scan() {
		text = lines.Text()
		select {
		case said <- text:
		default:
		}
	}
	t.err = errors.Join(lines.Err(), t.cmd.Wait())
	select {
	case said <- text:
	default:
	}
	close(t.done)
}

// Stop lets the process go, waits until strace has ended, and says how many calls were
// spoilt. A process that ended under the trace is no error.
func (t *Trace) Stop() (spoilt int, err error) {
	if err := t.cmd.Process.Signal(syscall.SIGINT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return 0, fmt.Errorf("stop trace: %w", err)
	}
	<-t.done
	list, err := os.ReadFile(t.out)
	if err = errors.Join(err, os.Remove(t.out)); err != nil {
		return 0, fmt.Errorf("stop trace: %w", err)
	}
	return bytes.Count(list, []byte("INJECTED")) + bytes.Count(list, []byte("DELAYED")), nil
}
