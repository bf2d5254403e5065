// Package clickhousetest gives tests a real ClickHouse engine: one child process
// a test binary, one database a test. A package that uses it must hand its
// TestMain to [Main], since the child is the test binary itself.
//
// It is for tests only.
package clickhousetest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"example.com/keytrail/internal/clickhouse"
	embedded "example.com/keytrail/internal/embedded/clickhouse"
	"example.com/keytrail/internal/embedded/enginelib"
)

// Main runs the tests, or the engine's child when the binary was started as one,
// and returns the exit code. after, if not nil, runs when the shared engine is
// stopped (for goleak) and its code is returned if the tests passed.
func Main(m *testing.M, after func() int) int {
	if len(os.Args) > 1 && os.Args[1] == embedded.Subcommand {
		return embedded.RunChild(os.Args[2:])
	}
	code := m.Run()
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop the shared engine:", err)
		code = max(code, 1)
	}
	if code == 0 && after != nil {
		code = after()
	}
	return code
}

// Library returns the path of the engine library, fetched if need be. Without it
// the test fails when CI is set and is skipped elsewhere.
func Library(tb testing.TB) string {
	tb.Helper()
	if path := os.Getenv("KEYTRAIL_ENGINE_LIBRARY"); path != "" {
		return path
	}
	path, err := enginelib.Ensure(tb.Context(), enginelib.Config{})
	if err != nil {
		if os.Getenv("CI") == "true" {
			tb.Fatalf("the engine library is needed: %v", err)
		}
		tb.Skipf("the engine library is needed: %v", err)
	}
	return path
}

// Server returns the engine that all tests of the binary share. Do not close or
// kill it; start your own for that.
func Server(tb testing.TB) *embedded.Server {
	tb.Helper()
	server, err := shared.start(Library(tb))
	if err != nil {
		tb.Fatalf("start the shared engine: %v", err)
	}
	return server
}

// Store returns a store in an empty database of the shared engine, dropped and
// closed when the test ends.
func Store(tb testing.TB) *clickhouse.Store {
	tb.Helper()
	database := fmt.Sprintf("test_%d", shared.databases.Add(1))
	store, err := clickhouse.Open(tb.Context(), clickhouse.Config{
		Socket: Server(tb).Socket(), Database: database, Logger: Logger(tb),
	})
	if err != nil {
		tb.Fatalf("open store: %v", err)
	}
	tb.Cleanup(func() {
		ctx := context.WithoutCancel(tb.Context())
		if err := store.Exec(ctx, "DROP DATABASE `"+database+"` SYNC"); err != nil {
			tb.Errorf("drop database: %v", err)
		}
		if err := store.Close(); err != nil {
			tb.Errorf("close store: %v", err)
		}
	})
	return store
}

// Logger logs to the test's log.
func Logger(tb testing.TB) *slog.Logger {
	tb.Helper()
	return slog.New(slog.NewTextHandler(&logWriter{tb: tb}, nil))
}

// logWriter keeps quiet once the test is over: its children may speak longer.
type logWriter struct{ tb testing.TB }

// Write implements io.Writer.
func (w *logWriter) Write(p []byte) (int, error) {
	if w.tb.Context().Err() == nil {
		w.tb.Log(strings.TrimRight(string(p), "\n"))
	}
	return len(p), nil
}

// engine is the one that tests share. A test binary has no constructor that could
// own it.
type engine struct {
	databases atomic.Int64

	// mu guards the rest.
	mu     sync.Mutex
	server *embedded.Server
	dir    string
}

var shared engine //nolint:gochecknoglobals // One engine a test binary.

func (e *engine) start(library string) (*embedded.Server, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.server != nil {
		return e.server, nil
	}
	dir, err := os.MkdirTemp("", "kt-engine-")
	if err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	e.dir = dir
	e.server, err = embedded.Start(context.Background(), embedded.Config{
		Dir: dir, Library: library, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	return e.server, nil
}

func (e *engine) stop() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.server != nil {
		if err := e.server.Close(); err != nil {
			return fmt.Errorf("stop: %w", err)
		}
	}
	if e.dir == "" {
		return nil
	}
	if err := os.RemoveAll(e.dir); err != nil {
		return fmt.Errorf("remove data folder: %w", err)
	}
	return nil
}
