// Package launch runs a keytrail binary as a child process and waits until it serves. The
// end-to-end tests, the torture test and the benchmark use it, so that they see the
// program as its users do.
package launch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// addressMark opens the line of standard output that names the server's address.
const addressMark = "listening on "

// Config says what to run.
type Config struct {
	Binary string
	Data   string   // The data folder.
	Args   []string // More flags of 'keytrail serve'.
	// Log gets all that the server prints; nil drops it.
	Log io.Writer
	// Env is added to this process's environment.
	Env []string
	// Wrap is a command line that runs the server by replacing itself with it, such as
	// nsenter's; empty for none.
	Wrap []string
}

// Server is a running keytrail server. Its methods may be called from any goroutine.
type Server struct {
	*Process
	// Address is the server's URL, KeyFile the file with the administrator key.
	Address, KeyFile string
}

// Start runs 'keytrail serve' on a free port of the loopback address and returns once it
// answers. If the server ends before that, the error holds the end of what it printed.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	args := append([]string{"serve", "--data", cfg.Data, "--listen", "127.0.0.1:0"}, cfg.Args...)
	line := append(append(slices.Clone(cfg.Wrap), cfg.Binary), args...)
	p, address, err := StartCommand(ctx, Command{Binary: line[0], Args: line[1:], Mark: addressMark, Log: cfg.Log, Env: cfg.Env})
	if err != nil {
		return nil, err
	}
	return &Server{Process: p, Address: address, KeyFile: filepath.Join(cfg.Data, "admin.key")}, nil
}

// Command is a keytrail command that goes on until it is ended.
type Command struct {
	Binary string
	Args   []string
	// Mark is what stands before the word of standard output by which the command says
	// where it serves.
	Mark string
	// Log gets all that the command prints; nil drops it.
	Log io.Writer
	// Env is added to this process's environment.
	Env []string
}

// Process is a running command. Its methods may be called from any goroutine.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	// mu guards err, which is set before done is closed.
	mu  sync.Mutex
	err error
}

// StartCommand runs c and returns once it has printed the mark, with the word after it. If
// the command ends before that, the error holds the end of what it printed.
func StartCommand(ctx context.Context, c Command) (*Process, string, error) {
	cmd := exec.Command(c.Binary, c.Args...) //nolint:gosec,noctx // The caller names the binary and ends it with Stop or Kill.
	cmd.Env = append(cmd.Environ(), c.Env...)
	if c.Log == nil {
		c.Log = io.Discard
	}
	tail := &tailWriter{}
	cmd.Stderr = io.MultiWriter(c.Log, tail)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, "", fmt.Errorf("start server: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, "", fmt.Errorf("start server: %w", err)
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	word := make(chan string, 1)
	go p.watch(stdout, c, word)
	select {
	case said := <-word:
		return p, said, nil
	case <-p.done:
		return nil, "", fmt.Errorf("server ended before it served: %w\n%s", p.Err(), tail.String())
	case <-ctx.Done():
		return nil, "", errors.Join(fmt.Errorf("wait for server: %w\n%s", ctx.Err(), tail.String()), p.Kill())
	}
}

// watch copies standard output until it ends, then reaps the process.
func (p *Process) watch(out io.Reader, c Command, word chan<- string) {
	scan := bufio.NewScanner(out)
	scan.Buffer(nil, 1<<20)
	var logErr error
	for scan.Scan() {
		line := scan.Text()
		if logErr == nil {
			_, logErr = io.WriteString(c.Log, line+"\n")
		}
		if _, rest, ok := strings.Cut(line, c.Mark); ok {
			select {
			case word <- strings.Fields(rest + " -")[0]:
			default:
			}
		}
	}
	err := errors.Join(scan.Err(), logErr, p.cmd.Wait())
	p.mu.Lock()
	p.err = err
	p.mu.Unlock()
	close(p.done)
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process is gone.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how the process ended, nil while it runs or if it ended well.
func (p *Process) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Signal sends the process a signal: SIGSTOP pauses it, SIGCONT lets it go on.
func (p *Process) Signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("signal server: %w", err)
	}
	return nil
}

// Stop asks the process to end and waits for it; the error says how it ended.
func (p *Process) Stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop server: %w", err)
	}
	<-p.done
	return p.Err()
}

// Kill ends the process at once (SIGKILL), as a power cut would, and waits until it is gone.
func (p *Process) Kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill server: %w", err)
	}
	<-p.done
	return nil
}

// tailWriter keeps the last bytes written to it.
type tailWriter struct {
	mu  sync.Mutex // Guards buf.
	buf []byte
}

// tailBytesMax bounds what an error repeats of the server's output.
const tailBytesMax = 4 << 10

// Write implements [io.Writer]; it never fails.
func (w *tailWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf, p...)
	if n := len(w.buf) - tailBytesMax; n > 0 {
		w.buf = append(w.buf[:0], w.buf[n:]...)
	}
	return len(p), nil
}

// String returns what is kept.
func (w *tailWriter) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.buf)
}
