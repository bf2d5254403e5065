package torture_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/keytrail/internal/client"
	"example.com/keytrail/internal/faults"
	"example.com/keytrail/internal/launch"
)

// startMax bounds how long a process may take to start on a busy machine.
const startMax = 2 * time.Minute

// site is the arrangement of processes that an episode runs.
type site struct {
	dir   string // Of all that the episode writes.
	data  string // The data folder, as the servers call it.
	log   *logFile
	disks *faults.Disks // nil without small disks.

	nodes  []*node
	stores []*store
}

// node is one keytrail server. Clients reach it through front, which stays where it is.
type node struct {
	site  *site
	name  string
	data  string
	args  []string
	env   []string // Of the next start.
	front *faults.Proxy
	clock *faults.Clock
	api   *client.Client // Through front.
	// worker says that the node does not serve clients.
	worker bool

	mu     sync.Mutex // Guards all below.
	srv    *launch.Server
	direct *client.Client
}

// logFile takes what all processes of a site print.
type logFile struct {
	mu sync.Mutex // Guards f.
	f  *os.File
}

// Write implements io.Writer.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Write(p)
}

// note writes a line of the test into the log.
func (l *logFile) note(format string, args ...any) {
	_, _ = fmt.Fprintf(l, "=== "+time.Now().UTC().Format("15:04:05.000")+" "+format+"\n", args...) // What cannot be noted is not worth a failure.
}

// siteOf makes a site that is ended and removed with the test.
func siteOf(t *testing.T) *site {
	t.Helper()
	s, err := newSite()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.close(), s.remove()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// newSite makes the folder of an episode; short, since socket paths are.
func newSite() (*site, error) {
	dir, err := os.MkdirTemp("", "torture-")
	if err != nil {
		return nil, err
	}
	f, err := os.Create(filepath.Join(dir, "log.txt"))
	if err != nil {
		return nil, err
	}
	return &site{dir: dir, data: filepath.Join(dir, "data"), log: &logFile{f: f}}, nil
}

// file is where this process finds a file of a server.
func (s *site) file(path string) string {
	if s.disks != nil {
		return s.disks.Path(path)
	}
	return path
}

// wrap is what a command line begins with to run in the site.
func (s *site) wrap() []string {
	if s.disks != nil {
		return s.disks.Wrap()
	}
	return nil
}

// addNode starts a server. Nodes of one site share one key store, the site's data folder.
func (s *site) addNode(ctx context.Context, name, data string, args ...string) (*node, error) {
	front, err := faults.NewProxy(ctx)
	if err != nil {
		return nil, err
	}
	n := &node{site: s, name: name, data: data, args: args, front: front, clock: faults.NewClock(filepath.Join(s.dir, "clock-"+name))}
	s.nodes = append(s.nodes, n)
	if err := n.start(ctx); err != nil {
		return nil, err
	}
	key, err := os.ReadFile(s.file(filepath.Join(s.data, "admin.key")))
	if err != nil {
		return nil, fmt.Errorf("read the administrator's key: %w", err)
	}
	n.api, err = client.New(client.Config{Server: "http://" + front.Address(), Key: strings.TrimSpace(string(key))})
	if err != nil {
		return nil, err
	}
	return n, n.reach()
}

func (n *node) config() launch.Config {
	return launch.Config{Binary: binary, Data: n.data, Args: n.args, Log: n.site.log, Env: append([]string{n.clock.Env()}, n.env...), Wrap: n.site.wrap()}
}

// start starts the server and lets clients through to it.
func (n *node) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startMax)
	defer cancel()
	srv, err := launch.Start(ctx, n.config())
	if err != nil {
		return fmt.Errorf("start %s: %w", n.name, err)
	}
	n.front.Target("tcp", strings.TrimPrefix(srv.Address, "http://"))
	n.mu.Lock()
	n.srv = srv
	n.mu.Unlock()
	if n.api == nil {
		return nil // The first start: addNode goes on.
	}
	return n.reach()
}

// reach makes the client that checks use, past the front.
func (n *node) reach() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	c, err := client.New(client.Config{Server: n.srv.Address, Key: n.api.Key()})
	if err != nil {
		return err
	}
	if n.direct != nil {
		n.direct.Close()
	}
	n.direct = c
	return nil
}

// past returns the client that goes past the front.
func (n *node) past() *client.Client {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.direct
}

// pid is the server's process id.
func (n *node) pid() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.srv.PID()
}

// engine is the process id of the server's engine; an error if it has none now.
func (n *node) engine() (int, error) { return only(n.pid()) }

func only(pid int) (int, error) {
	children, err := faults.Children(pid)
	if err != nil {
		return 0, err
	}
	if len(children) != 1 {
		return 0, fmt.Errorf("process %d has children %v, want one engine", pid, children)
	}
	return children[0], nil
}

// kill ends the server at once and starts it again.
func (n *node) kill(ctx context.Context) error {
	if err := n.end(); err != nil {
		return err
	}
	return n.start(ctx)
}

// end ends the server at once.
func (n *node) end() error {
	n.mu.Lock()
	srv := n.srv
	n.mu.Unlock()
	return srv.Kill()
}

// killEngine ends the server's engine, waiting for one if it is just being started.
func (n *node) killEngine(ctx context.Context) error { return killChild(ctx, n.pid()) }

func killChild(ctx context.Context, parent int) error {
	for {
		pid, err := only(parent)
		if err == nil {
			return faults.Signal(syscall.SIGKILL, pid)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// close stops everything in good order: servers first.
func (s *site) close() error {
	var errs []error
	for _, n := range s.nodes {
		n.mu.Lock()
		srv := n.srv
		n.mu.Unlock()
		if srv != nil {
			if err := srv.Stop(); err != nil {
				errs = append(errs, fmt.Errorf("stop %s: %w", n.name, err))
			}
		}
		if n.api != nil {
			n.api.Close()
		}
		errs = append(errs, n.front.Close())
	}
	for _, st := range s.stores {
		errs = append(errs, st.stop(), st.link.Close())
	}
	return errors.Join(errs...)
}

// remove deletes what is left of a site that was closed.
func (s *site) remove() error {
	var err error
	if s.disks != nil {
		err = s.disks.Close()
	}
	return errors.Join(err, s.log.f.Close(), os.RemoveAll(s.dir))
}

// keep returns where the data of a failed episode stay.
func (s *site) keep() (string, error) {
	if s.disks == nil {
		return s.dir, nil
	}
	to := filepath.Join(s.dir, "kept") // The disks go with this process.
	if out, err := exec.Command("cp", "-a", s.disks.Path(s.data), to).CombinedOutput(); err != nil {
		return to, fmt.Errorf("keep data: %w: %s", err, out)
	}
	return to, nil
}

// store is an event store or a ClickHouse engine of its own, behind a link.
type store struct {
	site *site
	args []string
	mark string // Opens what it prints when it serves; its address follows.
	link *faults.Proxy

	mu   sync.Mutex // Guards proc.
	proc *launch.Process
}

// addStore starts 'keytrail dev ARGS…', which prints mark and its address.
func (s *site) addStore(ctx context.Context, mark string, args ...string) (*store, error) {
	link, err := faults.NewProxy(ctx)
	if err != nil {
		return nil, err
	}
	st := &store{site: s, args: append([]string{"dev"}, args...), mark: mark, link: link}
	s.stores = append(s.stores, st)
	return st, st.start(ctx)
}

func (st *store) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startMax)
	defer cancel()
	proc, address, err := launch.StartCommand(ctx, launch.Command{Binary: binary, Args: st.args, Mark: st.mark, Log: st.site.log})
	if err != nil {
		return fmt.Errorf("start keytrail %s: %w", strings.Join(st.args, " "), err)
	}
	address, _, _ = strings.Cut(address, "?")
	st.link.Target("tcp", address)
	st.mu.Lock()
	defer st.mu.Unlock()
	st.proc = proc
	return nil
}

func (st *store) process() *launch.Process {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.proc
}

// kill ends the store at once and starts it again after some time.
func (st *store) kill(ctx context.Context, down time.Duration) error {
	if err := st.process().Kill(); err != nil {
		return err
	}
	pause(down)
	return st.start(ctx)
}

func (st *store) stop() error {
	proc := st.process()
	if proc == nil {
		return nil // It never started.
	}
	if err := proc.Stop(); err != nil {
		return fmt.Errorf("stop keytrail %s: %w", strings.Join(st.args, " "), err)
	}
	return nil
}
