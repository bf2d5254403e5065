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
}

// Server is a running keytrail server. Its methods may be called from any goroutine.
type Server struct {
	// Address is the server's URL, KeyFile the file with the administrator key.
	Address, KeyFile string
	cmd              *exec.Cmd
	done             chan struct{}
	// mu guards err, which is set before done is closed.
	mu  sync.Mutex
	err error
}

// Start runs 'keytrail serve' on a free port of the loopback address and returns once it
// answers. If the server ends before that, the error holds the end of what it printed.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	args := append([]string{"serve", "--data", cfg.Data, "--listen", "127.0.0.1:0"}, cfg.Args...)
	cmd := exec.Command(cfg.Binary, args...) //nolint:gosec,noctx // The caller names the binary and ends it with Stop or Kill.
	cmd.Env = append(cmd.Environ(), cfg.Env...)
	if cfg.Log == nil {
		cfg.Log = io.Discard
	}
	tail := &tailWriter{}
	cmd.Stderr = io.MultiWriter(cfg.Log, tail)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start server: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start server: %w", err)
	}
	s := &Server{cmd: cmd, done: make(chan struct{}), KeyFile: filepath.Join(cfg.Data, "admin.key")}
	address := make(chan string, 1)
	go s.watch(stdout, cfg.Log, address)
	select {
	case s.Address = <-address:
		return s, nil
	case <-s.done:
		return nil, fmt.Errorf("server ended before it served: %w\n%s", s.Err(), tail.String())
	case <-ctx.Done():
		return nil, errors.Join(fmt.Errorf("wait for server: %w\n%s", ctx.Err(), tail.String()), s.Kill())
	}
}

// watch copies standard output until it ends, then reaps the process.
func (s *Server) watch(out io.Reader, log io.Writer, address chan<- string) {
	scan := bufio.NewScanner(out)
	scan.Buffer(nil, 1<<20)
	var logErr error
	for scan.Scan() {
		line := scan.Text()
		if logErr == nil {
			_, logErr = io.WriteString(log, line+"\n")
		}
		if _, rest, ok := strings.Cut(line, addressMark); ok {
			select {
			case address <- strings.Fields(rest)[0]:
			default:
			}
		}
	}
	err := errors.Join(scan.Err(), logErr, s.cmd.Wait())
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
	close(s.done)
}

// PID is the server's process id.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Err returns how the process ended, nil while it runs or if it ended well.
func (s *Server) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Stop asks the server to end and waits for it; the error says how it ended.
func (s *Server) Stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop server: %w", err)
	}
	<-s.done
	return s.Err()
}

// Kill ends the server at once (SIGKILL), as a power cut would, and waits until it is gone.
func (s *Server) Kill() error {
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill server: %w", err)
	}
	<-s.done
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
