package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/keytrail/internal/client"
	"example.com/keytrail/internal/faults"
	"example.com/keytrail/internal/launch"
)

// installation is a pair of stores that run as processes of their own, and the nodes on it.
type installation struct {
	t          *testing.T
	dir        string
	log        *syncBuffer
	eventstore string // esdb address, host:port.
	chAddress  string // Host and port of ClickHouse, where there is one.
	password   string
}

// newInstallation starts an event store and, if tables says so, a ClickHouse.
func newInstallation(t *testing.T, tables bool) *installation {
	t.Helper()
	if testing.Short() {
		t.Skip("starts the whole program; run without -short")
	}
	dir, err := os.MkdirTemp("", "kt-")
	if err != nil {
		t.Fatal(err)
	}
	i := &installation{t: t, dir: dir, log: &syncBuffer{}, chAddress: "127.0.0.1:1"}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			said := i.log.String()
			t.Logf("the processes said at last:\n%s", said[max(0, len(said)-12<<10):])
		}
	})
	said := i.command("esdb://", "dev", "eventstore", "--data", filepath.Join(dir, "es"), "--listen", "127.0.0.1:0", "--insecure")
	i.eventstore, _, _ = strings.Cut(said, "?")
	if !tables {
		return i
	}
	i.chAddress = i.command("ClickHouse listening on ", "dev", "clickhouse", "--data", filepath.Join(dir, "ch"), "--listen", "127.0.0.1:0")
	b, err := os.ReadFile(filepath.Join(dir, "ch", "password"))
	if err != nil {
		t.Fatal(err)
	}
	i.password = strings.TrimSpace(string(b))
	return i
}

// command starts a store and ends it with the test.
func (i *installation) command(mark string, args ...string) string {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(i.t.Context(), startMax)
	defer cancel()
	p, said, err := launch.StartCommand(ctx, launch.Command{Binary: binary, Args: args, Mark: mark, Log: i.log})
	if err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			i.t.Errorf("stop %s: %v", args[1], err)
		}
	})
	return said
}

// node is one keytrail process and a client with the administrator's key.
type node struct {
	in   *installation
	name string
	args []string
	*launch.Server
	api *client.Client
}

// node starts a node that reaches the stores at the given addresses; "" means directly.
func (i *installation) node(name, roles, eventstore, clickhouse string) *node {
	i.t.Helper()
	if eventstore == "" {
		eventstore = i.eventstore
	}
	if clickhouse == "" {
		clickhouse = i.chAddress
	}
	n := &node{in: i, name: name, args: []string{
		"--roles", roles, "--keystore", filepath.Join(i.dir, "shared"),
		"--eventstore", "esdb://" + eventstore + "?tls=false",
		"--clickhouse", fmt.Sprintf("http://keytrail:%s@%s/", i.password, clickhouse),
	}}
	n.start()
	i.t.Cleanup(func() {
		if n.Server == nil {
			return
		}
		if err := n.Stop(); err != nil {
			i.t.Errorf("stop %s: %v", name, err)
		}
	})
	return n
}

func (n *node) start() {
	n.in.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startMax)
	defer cancel()
	srv, err := launch.Start(ctx, launch.Config{Binary: binary, Data: filepath.Join(n.in.dir, n.name), Args: n.args, Log: n.in.log})
	if err != nil {
		n.in.t.Error(err)
		return
	}
	n.Server = srv
	if n.api, err = client.New(client.Config{Server: srv.Address, KeyFile: filepath.Join(n.in.dir, "shared", "admin.key")}); err != nil {
		n.in.t.Error(err)
	}
}

// kill ends a node as a power cut would.
func (n *node) kill() {
	n.in.t.Helper()
	if err := n.Kill(); err != nil {
		n.in.t.Fatal(err)
	}
	n.Server = nil
}

// ask sends one request with a key, "" for the administrator's, and returns status and
// headers; status 0 means no answer.
func (n *node) ask(method, path, key string, body any, out any) (int, http.Header) {
	n.in.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(b)
	default:
		text, err := json.Marshal(b)
		if err != nil {
			n.in.t.Error(err)
			return 0, nil
		}
		in = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, n.Address+path, in)
	if err != nil {
		n.in.t.Error(err)
		return 0, nil
	}
	if key == "" {
		key = n.api.Key()
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil
	}
	answer, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return 0, nil
	}
	if out != nil && res.StatusCode < 300 {
		if err := json.Unmarshal(answer, out); err != nil {
			n.in.t.Errorf("%s %s: %v in %s", method, path, err, answer)
		}
	}
	return res.StatusCode, res.Header
}

// identity is the administrator's, for new keys: as many as a test makes.
func (n *node) identity() string {
	n.in.t.Helper()
	s := system{t: n.in.t, api: n.api}
	iam, _ := s.me()
	s.manyKeys()
	return iam
}

type madeKey struct {
	ID     string `json:"id"`
	APIKey string `json:"apikey"`
}

// create makes a key; its position is where the tables must come to hold it.
func (n *node) create(iam, name string) (madeKey, string, int) {
	n.in.t.Helper()
	var k madeKey
	status, h := n.ask(http.MethodPost, "/v1/apikeys", "", map[string]string{"name": name, "iam_id": iam}, &k)
	return k, h.Get("Keytrail-Position"), status
}

// tablesHold waits until n's tables hold a position and returns how long that took.
func (n *node) tablesHold(position string) time.Duration {
	n.in.t.Helper()
	began := time.Now()
	req := httpRequest(http.MethodGet, "/v1/findings")
	req.Header.Set("Keytrail-Wait-Position", position)
	if err := n.api.JSON(n.in.t.Context(), req, nil, nil); err != nil {
		n.in.t.Errorf("the tables of %s do not reach %s: %v", n.name, position, err)
	}
	return time.Since(began)
}

// verified fails the test unless the tables are what the log says.
func (n *node) verified() {
	n.in.t.Helper()
	s := system{t: n.in.t, api: n.api, srv: &launch.Server{Address: n.Address, KeyFile: filepath.Join(n.in.dir, "shared", "admin.key")}}
	s.verified()
}

// until asks again until ok, at most for limit.
func until(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	late := time.After(limit)
	for !ok() {
		select {
		case <-late:
			t.Fatalf("after %v: not %s", limit, what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// link is a spoilable way to address.
func link(t *testing.T, address string) *faults.Proxy {
	t.Helper()
	p, err := faults.NewProxy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.Target("tcp", address)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// atOnce runs all of f and waits for them.
func atOnce(f ...func()) {
	var wg sync.WaitGroup
	for _, one := range f {
		wg.Go(one)
	}
	wg.Wait()
}
