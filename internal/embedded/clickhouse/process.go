package clickhouse

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// outputLineMax bounds a line of the engine's output in our log.
const outputLineMax = 2000

// process is one child from its start to its end.
type process struct {
	cmd   *exec.Cmd
	leash io.WriteCloser
	// exited is closed when the child is gone and all its output was read;
	// exitErr is how it went, valid from then on.
	exited  chan struct{}
	exitErr error
}

// startProcess starts a child and waits until it serves. A child that does not
// get there is gone when this returns.
func startProcess(ctx context.Context, cfg Config, socket string) (*process, error) {
	args := append(append([]string{}, cfg.Command[1:]...),
		"-dir", cfg.Dir, "-library", cfg.Library, "-socket", socket, "-connections", strconv.Itoa(cfg.Connections))
	if cfg.AllowUnconfined {
		args = append(args, "-allow-unconfined")
	}
	cmd := exec.Command(cfg.Command[0], args...) //nolint:gosec,noctx // Ourselves; its end is process.stop's business.
	cmd.Env = []string{"TZ=UTC", "LC_ALL=C.UTF-8"}
	// Its own group: a terminal's interrupt is for the parent to handle.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	leash, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start engine: %w", err)
	}
	p := &process{cmd: cmd, leash: leash, exited: make(chan struct{})}
	first := make(chan string, 1)
	var readers sync.WaitGroup
	readers.Go(func() { readOutput(ctx, stdout, first, cfg.Logger) })
	readers.Go(func() { logLines(ctx, stderr, cfg.Logger) })
	go func() {
		readers.Wait()
		p.exitErr = cmd.Wait()
		close(p.exited)
	}()
	if err := p.ready(ctx, first, cfg.StartTimeout); err != nil {
		p.kill()
		return nil, err
	}
	return p, nil
}

// ready waits for the child's report.
func (p *process) ready(ctx context.Context, first <-chan string, timeout time.Duration) error {
	late := time.NewTimer(timeout)
	defer late.Stop()
	select {
	case line := <-first:
		if line == "" {
			<-p.exited
			return fmt.Errorf("the engine ended while starting: %w", errors.Join(p.exitErr, errors.New("its output is in the log")))
		}
		return readyFrom(line)
	case <-late.C:
		return fmt.Errorf("the engine did not start within %s", timeout)
	case <-ctx.Done():
		return fmt.Errorf("start engine: %w", ctx.Err())
	}
}

func readyFrom(line string) error {
	var r report
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		return fmt.Errorf("the engine's report is no report: %w", err)
	}
	if r.Ready {
		return nil
	}
	return &startError{kind: kinds()[r.Kind], text: r.Text}
}

// startError is what a child said about why it cannot start.
type startError struct {
	kind error
	text string
}

// Error implements error.
func (e *startError) Error() string { return e.text }

// Unwrap gives ErrLibrary, ErrInUse, ErrUnconfined or nil.
func (e *startError) Unwrap() error { return e.kind }

// readOutput hands over the child's first line and logs the rest until the child
// is gone.
func readOutput(ctx context.Context, r io.Reader, first chan<- string, logger *slog.Logger) {
	lines := bufio.NewReader(r)
	line, err := lines.ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		logger.WarnContext(ctx, "engine_output_unreadable", slog.Any("error", err))
	}
	first <- line
	logLines(ctx, lines, logger)
}

// logLines passes the child's output on to the log, long lines cut.
func logLines(ctx context.Context, r io.Reader, logger *slog.Logger) {
	lines := bufio.NewReaderSize(r, outputLineMax)
	for {
		line, more, err := lines.ReadLine()
		if err != nil {
			return // The child is gone.
		}
		logger.WarnContext(ctx, "engine_output", slog.String("line", string(line)))
		for more && err == nil {
			_, more, err = lines.ReadLine()
		}
	}
}

// kill ends the child at once and waits until it is gone.
func (p *process) kill() {
	// It may be gone already, which is what we want.
	_ = p.cmd.Process.Kill()
	<-p.exited
	_ = p.leash.Close()
}

// stop lets the child finish what it is doing, within a bound.
func (p *process) stop(timeout time.Duration) {
	if _, err := io.WriteString(p.leash, stopWord); err != nil {
		p.kill()
		return
	}
	late := time.NewTimer(timeout)
	defer late.Stop()
	select {
	case <-p.exited:
		_ = p.leash.Close()
	case <-late.C:
		p.kill()
	}
}

// pinger asks a socket whether its engine answers, on a fresh connection each
// time.
func pinger(socket string) *http.Client {
	t := socketTransport(socket)
	t.DisableKeepAlives = true
	return &http.Client{Transport: t}
}

// socketTransport sends every request to a socket.
func socketTransport(socket string) *http.Transport {
	return &http.Transport{
		DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}
}

func ping(ctx context.Context, client *http.Client, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/ping", http.NoBody)
	if err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	defer func() { _ = res.Body.Close() }() // Read to its end or not, it is done.
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("ping: status %d", res.StatusCode)
	}
	return nil
}

// prepareRuntime gives the socket's path and what to remove at the end.
func prepareRuntime(dir string) (socket, remove string, err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "keytrail-"); err != nil {
			return "", "", fmt.Errorf("make runtime folder: %w", err)
		}
		remove = dir
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", "", fmt.Errorf("make runtime folder: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // A folder needs its x bit.
		return "", remove, fmt.Errorf("close the runtime folder to others: %w", err)
	}
	socket = dir + "/clickhouse.sock"
	if len(socket) > socketPathMax {
		return "", remove, fmt.Errorf("the socket path %s is longer than %d bytes: choose a shorter runtime folder", socket, socketPathMax)
	}
	return socket, remove, nil
}
