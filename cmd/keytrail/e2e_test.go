package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/keytrail/internal/client"
	engine "example.com/keytrail/internal/embedded/clickhouse"
	"example.com/keytrail/internal/launch"
)

// startMax bounds how long a server may take to answer on a busy machine.
const startMax = 2 * time.Minute

// binary is the keytrail program that the end-to-end tests drive, built once by TestMain.
var binary string

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == engine.Subcommand {
		os.Exit(engine.RunChild(os.Args[2:])) // A server in this process starts this binary as its engine.
	}
	flag.Parse()
	os.Exit(func() int {
		if testing.Short() {
			return m.Run()
		}
		var remove func() error
		var err error
		if binary, remove, err = launch.Build(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() {
			if err := remove(); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}()
		return m.Run()
	}())
}

// syncBuffer is a buffer that several goroutines may write to.
type syncBuffer struct {
	mu sync.Mutex // Guards b.
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// system is a server under test with a client that holds the administrator key.
type system struct {
	t    *testing.T
	data string
	log  *syncBuffer
	srv  *launch.Server
	api  *client.Client
}

// newSystem starts a server in a folder of its own and stops it when the test ends; it
// must end well.
func newSystem(t *testing.T, args ...string) *system {
	t.Helper()
	if testing.Short() {
		t.Skip("starts the whole program; run without -short")
	}
	data, err := os.MkdirTemp("", "kt-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(data); err != nil {
			t.Error(err)
		}
	})
	s := &system{t: t, data: data, log: &syncBuffer{}}
	s.start(args...)
	t.Cleanup(func() {
		if s.srv != nil {
			s.stop()
		}
		if t.Failed() {
			said := s.log.String()
			t.Logf("the server said at last:\n%s", said[max(0, len(said)-8<<10):])
		}
	})
	return s
}

func (s *system) start(args ...string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startMax)
	defer cancel()
	srv, err := launch.Start(ctx, launch.Config{Binary: binary, Data: s.data, Args: args, Log: s.log})
	if err != nil {
		s.t.Fatal(err)
	}
	s.srv = srv
	if s.api, err = client.New(client.Config{Server: srv.Address, KeyFile: srv.KeyFile}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *system) stop() {
	s.t.Helper()
	s.api.Close()
	if err := s.srv.Stop(); err != nil {
		s.t.Errorf("stop: %v", err)
	}
	s.srv = nil
}

// cli runs a client command against the server and returns what it printed.
func (s *system) cli(args ...string) string {
	s.t.Helper()
	var out, errOut bytes.Buffer
	args = append(args, "--server", s.srv.Address, "--key-file", s.srv.KeyFile)
	if code := run(s.t.Context(), args, &out, &errOut); code != 0 {
		s.t.Fatalf("keytrail %s: exit code %d\n%s%s", strings.Join(args, " "), code, &out, &errOut)
	}
	return out.String() + errOut.String()
}

// verified fails the test unless the tables are what the log says.
func (s *system) verified() {
	s.t.Helper()
	if out := s.cli("verify", "projections"); !strings.Contains(out, "no differences") {
		s.t.Errorf("verify projections:\n%s", out)
	}
}

// get asks for path and decodes the answer; it waits until all that was written so far is
// in the tables.
func get[T any](s *system, path string, q url.Values) T {
	s.t.Helper()
	var out T
	h := http.Header{"Keytrail-Wait-Position": {s.projections()["tables"].Head}}
	if err := s.api.JSON(s.t.Context(), client.Request{Method: http.MethodGet, Path: path, Query: q, Header: h}, nil, &out); err != nil {
		s.t.Fatal(err)
	}
	return out
}

// projection is what /v1/projections says of one.
type projection struct{ Name, Block, Position, Head string }

func (s *system) projections() map[string]projection {
	s.t.Helper()
	var list struct{ Projections []projection }
	if err := s.api.JSON(s.t.Context(), httpRequest(http.MethodGet, "/v1/projections"), nil, &list); err != nil {
		s.t.Fatal(err)
	}
	all := map[string]projection{}
	for _, p := range list.Projections {
		all[p.Name] = p
	}
	return all
}

// post sends in and decodes the answer; an answer that is not 2xx is returned.
func (s *system) post(method, path string, in, out any) error {
	s.t.Helper()
	return s.api.JSON(s.t.Context(), client.Request{Method: method, Path: path, Header: http.Header{}}, in, out)
}

// status is the HTTP status of an error of the client, 0 for none.
func status(err error) int {
	if e, ok := errors.AsType[*client.Error](err); ok {
		return e.Status
	}
	return 0
}

// exported returns every activity record that the administrator may see.
func (s *system) exported() []map[string]any {
	s.t.Helper()
	get[json.RawMessage](s, "/v1/findings", nil) // Waits for the tables.
	resp, err := s.api.Do(s.t.Context(), client.Request{Method: http.MethodGet, Path: "/v1/events/export", Query: url.Values{"format": {"ndjson"}}})
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() {
		if err := resp.Body.Close(); err != nil {
			s.t.Error(err)
		}
	}()
	var all []map[string]any
	dec := json.NewDecoder(resp.Body)
	for {
		var e map[string]any
		err := dec.Decode(&e)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			s.t.Fatalf("read export: %v", err)
		}
		if _, ok := e["trailer"]; !ok {
			all = append(all, e)
		}
	}
}

// dataFile returns the path of one of the shared real logs, or skips with the reason.
func dataFile(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join("..", "..", "..", "shared", "data", filepath.FromSlash(name))
	if _, err := os.Stat(path); err != nil {
		t.Skipf("the real logs are not beside this checkout: %v", err)
	}
	return path
}

// httpRequest is a request with headers to be set.
func httpRequest(method, path string) client.Request {
	return client.Request{Method: method, Path: path, Header: http.Header{}}
}

func readAll(t *testing.T, r io.ReadCloser) []byte {
	t.Helper()
	b, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return b
}
