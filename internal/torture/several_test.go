package torture_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"example.com/keytrail/internal/faults"
)

// Places of the stores in a site of several nodes.
const (
	logStore = iota
	tableStore
)

// several is keytrail on three nodes, with both stores in processes of their own, every
// connection behind a proxy. Each node has a clock of its own.
func several() arrangement {
	down := func(*episode) faults.Link { return faults.Link{Refuse: true, Deaf: true} }
	mute := func(*episode) faults.Link { return faults.Link{Mute: true} }
	deaf := func(*episode) faults.Link { return faults.Link{Deaf: true} }
	slow := func(e *episode) faults.Link {
		return faults.Link{Delay: e.between(5*time.Millisecond, 100*time.Millisecond)}
	}
	midway := func(e *episode) faults.Link {
		return faults.Link{CutRequest: 1 + e.rng.Int64N(20_000), CutAnswer: 1 + e.rng.Int64N(20_000)}
	}
	return arrangement{
		name: "three nodes", build: buildSeveral,
		faults: []fault{
			{name: "kill one of three nodes", kills: 1, odds: 5, do: func(ctx context.Context, e *episode) error { return e.node().kill(ctx) }},
			{name: "kill all three nodes", kills: 3, do: killAll},
			{name: "kill event store", kills: 1, odds: 3, do: killStore(logStore)},
			{name: "kill ClickHouse", kills: 1, odds: 2, do: killStore(tableStore)},
			{name: "kill ClickHouse's engine", kills: 1, odds: 2, do: func(ctx context.Context, e *episode) error {
				return killChild(ctx, e.stores[tableStore].process().PID())
			}},
			{name: "kill a node while another hangs", kills: 1, odds: 3, do: killWhileHung},
			{name: "hung node", odds: 3, do: func(_ context.Context, e *episode) error {
				return hang(e.node().pid(), e.between(time.Second, 9*time.Second))
			}},
			{name: "hung event store", do: hangStore(logStore)},
			{name: "hung ClickHouse", do: hangStore(tableStore)},
			{name: "clock of one node jumps", odds: 2, do: jumpClock},
			{name: "way to the event store cut", odds: 2, do: cutLink(logStore)},
			{name: "way to the event store cut in the middle", odds: 3, do: spoilLink(logStore, midway, time.Second, 3*time.Second)},
			{name: "event store's answers lost", odds: 2, do: spoilLink(logStore, mute, 500*time.Millisecond, 3*time.Second)},
			{name: "event store half open", do: spoilLink(logStore, deaf, 500*time.Millisecond, 3*time.Second)},
			{name: "event store slow", do: spoilLink(logStore, slow, time.Second, 3*time.Second)},
			{name: "event store down for long", slow: true, do: spoilLink(logStore, down, 12*time.Second, 20*time.Second)},
			{name: "way to ClickHouse cut", odds: 2, do: cutLink(tableStore)},
			{name: "way to ClickHouse cut in the middle", odds: 3, do: spoilLink(tableStore, midway, time.Second, 3*time.Second)},
			{name: "ClickHouse's answers lost", odds: 2, do: spoilLink(tableStore, mute, 500*time.Millisecond, 3*time.Second)},
			{name: "ClickHouse half open", do: spoilLink(tableStore, deaf, 500*time.Millisecond, 3*time.Second)},
			{name: "ClickHouse slow", do: spoilLink(tableStore, slow, time.Second, 3*time.Second)},
			{name: "ClickHouse down for long", slow: true, do: spoilLink(tableStore, down, 12*time.Second, 20*time.Second)},
		},
	}
}

func buildSeveral(ctx context.Context, s *site) error {
	es, err := s.addStore(ctx, "event store on esdb://", "eventstore", "--data", filepath.Join(s.dir, "es"), "--listen", "127.0.0.1:0", "--insecure")
	if err != nil {
		return err
	}
	folder := filepath.Join(s.dir, "ch")
	ch, err := s.addStore(ctx, "ClickHouse listening on ", "clickhouse", "--data", folder, "--listen", "127.0.0.1:0")
	if err != nil {
		return err
	}
	password, err := os.ReadFile(filepath.Join(folder, "password"))
	if err != nil {
		return err
	}
	for _, n := range []struct{ name, roles string }{{"both", "api,worker"}, {"api", "api"}, {"worker", "worker"}} {
		node, err := s.addNode(ctx, n.name, filepath.Join(s.dir, n.name), "--roles", n.roles, "--keystore", s.data,
			"--eventstore", fmt.Sprintf("esdb://%s?tls=false", es.link.Address()),
			"--clickhouse", fmt.Sprintf("http://keytrail:%s@%s/", strings.TrimSpace(string(password)), ch.link.Address()))
		if err != nil {
			return err
		}
		node.worker = n.roles == "worker"
	}
	return nil
}

func killAll(ctx context.Context, e *episode) error {
	for _, n := range e.nodes {
		if err := n.end(); err != nil {
			return err
		}
	}
	for _, n := range e.nodes {
		if err := n.start(ctx); err != nil {
			return err
		}
	}
	return nil
}

func killStore(which int) func(context.Context, *episode) error {
	return func(ctx context.Context, e *episode) error {
		return e.stores[which].kill(ctx, e.between(0, 2*time.Second))
	}
}

// killWhileHung pauses one node past its lease, so that another takes over, and kills that
// or the third one.
func killWhileHung(ctx context.Context, e *episode) error {
	first := e.rng.IntN(len(e.nodes))
	second := (first + 1 + e.rng.IntN(len(e.nodes)-1)) % len(e.nodes)
	pid := e.nodes[first].pid()
	if err := faults.Signal(syscall.SIGSTOP, pid); err != nil {
		return err
	}
	pause(e.between(time.Second, 5*time.Second))
	if err := e.nodes[second].kill(ctx); err != nil {
		return err
	}
	pause(e.between(0, time.Second))
	return faults.Signal(syscall.SIGCONT, pid)
}

// hangStore pauses a store's process, and with it the engine, if it has one.
func hangStore(which int) func(context.Context, *episode) error {
	return func(_ context.Context, e *episode) error {
		pid := e.stores[which].process().PID()
		all, err := faults.Children(pid)
		if err != nil {
			return err
		}
		all = append(all, pid)
		if err := faults.Signal(syscall.SIGSTOP, all...); err != nil {
			return err
		}
		pause(e.between(500*time.Millisecond, 6*time.Second))
		return faults.Signal(syscall.SIGCONT, all...)
	}
}

func cutLink(which int) func(context.Context, *episode) error {
	return func(_ context.Context, e *episode) error {
		for range 1 + e.rng.IntN(5) {
			e.stores[which].link.Cut()
			pause(e.between(5*time.Millisecond, 300*time.Millisecond))
		}
		return nil
	}
}

// spoilLink spoils the way to a store for a while.
func spoilLink(which int, link func(e *episode) faults.Link, low, high time.Duration) func(context.Context, *episode) error {
	return func(_ context.Context, e *episode) error {
		way := e.stores[which].link
		l := link(e)
		way.Set(l)
		if l.Refuse {
			way.Cut()
		}
		pause(e.between(low, high))
		way.Set(faults.Link{})
		if l.Mute || l.Deaf {
			way.Cut() // What was swallowed never comes; a kernel would say so at last.
		}
		return nil
	}
}
