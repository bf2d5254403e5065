package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
)

// role is one of the two things that a node may do.
type role string

const (
	roleAPI    role = "api"    // Serves people and programs: commands, intake, queries, the console.
	roleWorker role = "worker" // Turns the log into tables and findings; any number may run, one is active.
)

// roles are those of this node. They implement [pflag.Value].
type roles []role

// String implements [pflag.Value].
func (r *roles) String() string {
	words := make([]string, len(*r))
	for i, one := range *r {
		words[i] = string(one)
	}
	return strings.Join(words, ",")
}

// Set implements [pflag.Value].
func (r *roles) Set(text string) error {
	var out roles
	for word := range strings.SplitSeq(text, ",") {
		one := role(strings.TrimSpace(word))
		if one != roleAPI && one != roleWorker {
			return fmt.Errorf("%q is no role: choose api, worker or both, as in api,worker", word)
		}
		if !slices.Contains(out, one) {
			out = append(out, one)
		}
	}
	*r = out
	return nil
}

// Type implements [pflag.Value].
func (r *roles) Type() string { return "roles" }

// has reports whether the node has any of some.
func (r *roles) has(some ...role) bool {
	return slices.ContainsFunc(some, func(one role) bool { return slices.Contains(*r, one) })
}

// part is something of the program that runs as long as it does.
type part struct {
	name  string
	roles []role // The node runs it if it has one of them.
	// essential says that without it the node is of no use: its fault ends the program.
	// The fault of another part is logged and shown by /readyz; the rest goes on.
	essential bool
	run       func(ctx context.Context) error
	// check, if set, says whether the part does its work, for /readyz.
	check func() error
}

// parts lists everything that runs. A new part is one more line.
func (a *app) parts() []part {
	both, api, worker := []role{roleAPI, roleWorker}, []role{roleAPI}, []role{roleWorker}
	return []part{
		{name: "directory", roles: api, essential: true, run: a.directory.Run, check: a.directory.Ready},
		{name: "pulses", roles: api, essential: true, run: a.pulses.Run},
		{name: "refusals", roles: api, essential: true, run: a.refusals.Run},
		{name: "reconciler", roles: api, run: a.reconcile.Run},
		{name: "reports", roles: api, run: a.reports.Run},
		{name: "event log", roles: both, run: a.logUp.Run},
		{name: "ClickHouse", roles: both, run: a.tablesUp.Run},
		{name: "outages", roles: both, run: a.outages.Run},
		{name: "tables", roles: both, run: a.tables.Run, check: a.tablesReady},
		{name: "horizon", roles: both, run: a.horizon.Run},
		{name: "detector", roles: worker, run: a.detectors.run},
		{name: "garbage", roles: both, run: tuneGarbage},
	}
}

// start runs this node's parts in g until ctx ends.
func (a *app) start(ctx context.Context, g *errgroup.Group) {
	for _, p := range a.parts() {
		if a.cfg.roles.has(p.roles...) {
			g.Go(func() error { return a.runPart(ctx, p) })
		}
	}
}

func (a *app) runPart(ctx context.Context, p part) error {
	err := p.run(ctx)
	if err == nil || ctx.Err() != nil {
		return nil //nolint:nilerr // What it says while it is being ended is of no interest.
	}
	err = fmt.Errorf("%s: %w", p.name, err)
	if p.essential || !a.cfg.roles.has(roleAPI) {
		return err
	}
	a.stopped.add(p.name, err)
	a.log.ErrorContext(ctx, "a part has stopped; commands and intake go on; see to it and restart", slog.String("part", p.name), slog.Any("error", err))
	return nil
}

// stoppedParts are the parts that have stopped, and why.
type stoppedParts struct {
	mu      sync.Mutex // Guards stopped.
	stopped map[string]error
}

func (f *stoppedParts) add(name string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped == nil {
		f.stopped = map[string]error{}
	}
	f.stopped[name] = err
}

// of returns why a part has stopped, nil if it has not.
func (f *stoppedParts) of(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stopped[name]
}
