package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"
)

const (
	backoffFirst = 100 * time.Millisecond
	backoffMax   = 15 * time.Second
	// steady is how long a child must live for the pause to start over.
	steady = time.Minute
)

// Server is a running, supervised engine. It is safe for concurrent use.
type Server struct {
	cfg    Config
	socket string
	remove string
	cancel context.CancelFunc
	done   chan struct{}

	// mu guards status.
	mu     sync.Mutex
	status Status
}

// Status is what the supervisor knows of its child.
type Status struct {
	// Ready says that a child serves; between two children it is false.
	Ready bool
	// PID is the present child's process id, 0 if there is none.
	PID int
	// Restarts counts the children that died or were killed for not answering.
	Restarts int
}

// Start makes the folders, starts the child and returns when it serves. It fails
// with [ErrLibrary], [ErrInUse] or [ErrUnconfined] where the text says what to
// do. ctx bounds the start only; the child lives until Close.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("embedded clickhouse: config: %w", err)
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("embedded clickhouse: %w", err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("embedded clickhouse: make data folder: %w", err)
	}
	socket, remove, err := prepareRuntime(cfg.RuntimeDir)
	s := &Server{cfg: cfg, socket: socket, remove: remove, done: make(chan struct{})}
	if err != nil {
		return nil, fmt.Errorf("embedded clickhouse: %w", errors.Join(err, s.cleanUp()))
	}
	p, err := startProcess(ctx, cfg, socket)
	if err != nil {
		return nil, fmt.Errorf("embedded clickhouse: %w", errors.Join(err, s.cleanUp()))
	}
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel = cancel
	s.set(p)
	go s.supervise(background, p)
	return s, nil
}

// Socket is the path of the unix socket that the engine serves HTTP on.
func (s *Server) Socket() string { return s.socket }

// Status tells how the child is.
func (s *Server) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Close lets the child finish the statements under way, up to 10 s, ends it, and
// removes the socket. It may be called again.
func (s *Server) Close() error {
	s.cancel()
	<-s.done
	if err := s.cleanUp(); err != nil {
		return fmt.Errorf("embedded clickhouse: close: %w", err)
	}
	return nil
}

func (s *Server) cleanUp() error {
	if err := os.Remove(s.socket); s.socket != "" && err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove socket: %w", err)
	}
	if s.remove == "" {
		return nil
	}
	return os.RemoveAll(s.remove) //nolint:wrapcheck // The path is in it.
}

// supervise keeps a child running until ctx ends.
func (s *Server) supervise(ctx context.Context, p *process) {
	defer close(s.done)
	for pause := backoffFirst; ; {
		began := time.Now()
		cause := s.watch(ctx, p)
		s.set(nil)
		if cause == nil {
			return
		}
		s.died()
		if time.Since(began) > steady {
			pause = backoffFirst
		}
		s.cfg.Logger.ErrorContext(ctx, "engine_died", slog.Int("pid", p.cmd.Process.Pid), slog.Any("error", cause))
		if p = s.restart(ctx, &pause); p == nil {
			return
		}
		s.set(p)
		s.cfg.Logger.InfoContext(ctx, "engine_restarted", slog.Int("pid", p.cmd.Process.Pid))
	}
}

// watch returns why the child is gone; nil if it was stopped because ctx ended.
func (s *Server) watch(ctx context.Context, p *process) error {
	client := pinger(s.socket)
	tick := time.NewTicker(s.cfg.PingEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.exited:
			return fmt.Errorf("the engine ended: %w", errors.Join(p.exitErr, errors.New("by itself")))
		case <-ctx.Done():
			p.stop(defaultStopTimeout)
			return nil
		case <-tick.C:
			if err := ping(ctx, client, s.cfg.PingTimeout); err != nil && ctx.Err() == nil {
				p.kill()
				return fmt.Errorf("the engine was killed: it did not answer: %w", err)
			}
		}
	}
}

// restart starts children until one serves, pausing longer each time; nil when
// ctx ended.
func (s *Server) restart(ctx context.Context, pause *time.Duration) *process {
	for {
		wait := time.NewTimer(*pause)
		select {
		case <-ctx.Done():
			wait.Stop()
			return nil
		case <-wait.C:
		}
		*pause = min(2**pause, backoffMax)
		p, err := startProcess(ctx, s.cfg, s.socket)
		if err == nil {
			return p
		}
		if ctx.Err() == nil {
			s.cfg.Logger.ErrorContext(ctx, "engine_restart_failed", slog.Any("error", err), slog.Duration("next_in", *pause))
		}
	}
}

// set notes the present child, nil for none.
func (s *Server) set(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Ready = p != nil
	if p == nil {
		s.status.PID = 0
		return
	}
	s.status.PID = p.cmd.Process.Pid
}

// died counts a child that nobody asked to end.
func (s *Server) died() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Restarts++
}
