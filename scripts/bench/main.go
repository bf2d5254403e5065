// Command bench measures a keytrail binary from outside, over HTTP, on the embedded
// stores: durable commands, usage until queryable, search, disk, memory, start-up and
// replay. It starts the server itself in a folder that it removes afterwards.
//
// Machines differ and drift, so it also measures in the same run what the processors can do
// (reading small JSON documents) and what the disk can do (fsyncs of a small write, one after
// the other): quote ratios.
//
// Figures that have a goal are measured in several rounds; the table at the end shows the
// median of each beside its goal.
//
//	make bench
//	go run ./scripts/bench -binary bin/keytrail -uses 1000000
//	go run ./scripts/bench -parts log,commands -rounds 3 -time 5s
//	go run ./scripts/bench -parts memory -events 10000000
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/keytrail/internal/client"
	"example.com/keytrail/internal/launch"
)

// options are the command's flags.
type options struct {
	binary  string
	parts   string
	rounds  int
	uses    int
	seconds time.Duration
	clients int // Connections that send usage.
	strict  bool
	events  int    // Of the part memory.
	profile string // Where the processor profile goes.
}

// allParts are the parts of a run, in their order; memoryPart takes minutes and is only run
// where it is named.
const (
	allParts   = "log,start,commands,usage,search,disk,replay"
	memoryPart = "memory"
)

// garbagePercent is what keytrail sets for itself where little lives, as here.
const garbagePercent = 400

func main() {
	var o options
	flag.StringVar(&o.binary, "binary", "bin/keytrail", "the keytrail binary")
	flag.StringVar(&o.parts, "parts", allParts, "what to measure, separated by commas; memory too")
	flag.IntVar(&o.rounds, "rounds", 3, "how often to measure what has a goal: the median counts")
	flag.BoolVar(&o.strict, "strict", false, "fail if a goal is missed")
	flag.IntVar(&o.uses, "uses", 1_000_000, "how many usage records to send")
	flag.DurationVar(&o.seconds, "time", 5*time.Second, "how long to send commands")
	flag.IntVar(&o.clients, "clients", 4, "connections that send usage")
	flag.IntVar(&o.events, "events", 10_000_000, "how many events the part memory stores")
	flag.StringVar(&o.profile, "cpuprofile", "", "write a processor profile of this process to this file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := profiled(o.profile, func() error { return run(ctx, o, os.Stdout) })
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// profiled runs f under the processor profiler, if a file is named.
func profiled(file string, f func() error) (err error) {
	if file == "" {
		return f()
	}
	out, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("write profile: %w", err)
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := pprof.StartCPUProfile(out); err != nil {
		return fmt.Errorf("write profile: %w", err)
	}
	defer pprof.StopCPUProfile()
	return f()
}

// bench is one run: the folder, the server that is up, and where to print.
type bench struct {
	options
	out   io.Writer
	dir   string
	srv   *launch.Server // Up from the first part that needs it.
	http  *client.Client
	found figures
}

func run(ctx context.Context, o options, out io.Writer) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
	dir, err := os.MkdirTemp("", "keytrail-bench-")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	b := &bench{options: o, out: out, dir: dir}
	defer b.close()
	asked := strings.Split(o.parts, ",")
	for _, part := range asked {
		if !slices.Contains(strings.Split(allParts+","+memoryPart, ","), part) {
			return fmt.Errorf("no part %q: choose from %s,%s", part, allParts, memoryPart)
		}
	}
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"log", b.logFigures},
		{memoryPart, b.memory},
		{"start", b.startUp},
		{"commands", b.commands},
		{"usage", b.usage},
		{"search", b.search},
		{"disk", b.diskUse},
		{"replay", b.replay},
	} {
		if !slices.Contains(asked, part.name) {
			continue
		}
		if err := b.ensureServer(ctx, part.name); err != nil {
			return err
		}
		if err := part.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return b.report()
}

// ensureServer starts the server for the parts that talk to one and do not start it.
func (b *bench) ensureServer(ctx context.Context, part string) error {
	if b.srv != nil || part == "log" || part == memoryPart || part == "start" {
		return nil
	}
	_, err := b.start(ctx)
	return err
}

// report prints the table.
func (b *bench) report() error {
	if err := b.found.print(b.out); err != nil {
		return err
	}
	if missed := b.found.missed(); b.strict && len(missed) > 0 {
		return fmt.Errorf("not reached: %s", strings.Join(missed, "; "))
	}
	return nil
}

// close ends what runs and removes the folder; what fails here is only said.
func (b *bench) close() {
	if b.srv != nil {
		if err := b.srv.Stop(); err != nil {
			b.say("stop server", "%v", err)
		}
	}
	if err := os.RemoveAll(b.dir); err != nil {
		b.say("remove folder", "%v", err)
	}
}

// say prints one figure.
func (b *bench) say(what, format string, args ...any) {
	if _, err := fmt.Fprintf(b.out, "%-44s %s\n", what, fmt.Sprintf(format, args...)); err != nil {
		panic(err) // Nobody can read the figures: there is no point in measuring on.
	}
}

// start runs the server on the bench's folder with more flags, and returns how long it
// took to answer.
func (b *bench) start(ctx context.Context, args ...string) (time.Duration, error) {
	t0 := time.Now()
	srv, err := launch.Start(ctx, launch.Config{Binary: b.binary, Data: filepath.Join(b.dir, "data"), Args: append(args, "--log-level=warn"), Log: os.Stderr})
	if err != nil {
		return 0, err
	}
	took := time.Since(t0)
	b.srv = srv
	b.http, err = client.New(client.Config{Server: srv.Address, KeyFile: srv.KeyFile})
	return took, err
}

func (b *bench) stop() error {
	err := b.srv.Stop()
	b.srv = nil
	return err
}

// machine measures what the machine gives at the moment: what all figures after it are to be
// compared with.
func (b *bench) machine(ctx context.Context) error {
	if err := b.decodes(ctx); err != nil {
		return err
	}
	return b.fsyncs(ctx)
}

// decodes measures the processors, with work like a server's: reading small documents.
func (b *bench) decodes(ctx context.Context) error {
	const lasts = 500 * time.Millisecond
	document := []byte(`{"id":"ApiKey-42","name":"bench","tags":["a","b"],"limits":{"day":7,"hour":1},"pad":"` + strings.Repeat("x", 200) + `"}`)
	var n atomic.Int64
	g, _ := errgroup.WithContext(ctx)
	t0 := time.Now()
	for range runtime.NumCPU() {
		g.Go(func() error {
			for time.Since(t0) < lasts {
				var into map[string]any
				if err := json.Unmarshal(document, &into); err != nil {
					return err
				}
				n.Add(1)
			}
			return nil
		})
	}
	err := g.Wait()
	b.found.add(figure{name: "JSON documents of 290 bytes read by all processors", unit: "/s"}, float64(n.Load())/time.Since(t0).Seconds())
	return err
}

// fsyncs measures the floor under every durable write: append 512 bytes, fsync.
func (b *bench) fsyncs(context.Context) (err error) {
	f, err := os.Create(filepath.Join(b.dir, "fsync"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	block, n := make([]byte, 512), 0
	t0 := time.Now()
	for ; time.Since(t0) < time.Second; n++ {
		if _, err := f.Write(block); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	b.found.add(figure{name: "fsyncs of this disk, one by one", unit: "/s"}, float64(n)/time.Since(t0).Seconds())
	return nil
}

func (b *bench) startUp(ctx context.Context) error {
	first, err := b.start(ctx)
	if err != nil {
		return err
	}
	if err := b.stop(); err != nil {
		return err
	}
	again, err := b.start(ctx)
	if err != nil {
		return err
	}
	b.found.add(figure{name: "start-up, empty folder", unit: "ms"}, ms(first))
	b.found.add(figure{name: "start-up again", unit: "ms"}, ms(again))
	return b.idle(ctx)
}

func (b *bench) idle(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(3 * time.Second):
	}
	own, children, err := residentBytes(b.srv.PID())
	if err != nil {
		return err
	}
	b.found.add(figure{name: "idle memory of the process", unit: "MB"}, mb(own))
	b.found.add(figure{name: "idle memory of the engine", unit: "MB"}, mb(children))
	return nil
}

// search measures the answer times of the questions that people ask most.
func (b *bench) search(ctx context.Context) error {
	for _, q := range []struct{ name, path, query string }{
		{"newest 100 records of one key", "/v1/events", `filter=key_id%3D%22AKIABENCH0000000042%22&limit=100`},
		{"newest 50 failures", "/v1/events", `filter=outcome%3D%22failure%22&limit=50`},
		{"top keys", "/v1/usage/top", "by=key"},
		{"hourly series", "/v1/usage/series", "from=-7d&to=now&step=hour"},
	} {
		const runs = 100
		took := make([]time.Duration, 0, runs)
		for range runs {
			t0 := time.Now()
			if err := b.get(ctx, q.path+"?"+q.query, nil); err != nil {
				return fmt.Errorf("%s: %w", q.name, err)
			}
			took = append(took, time.Since(t0))
		}
		b.found.add(figure{name: q.name + ", p50", unit: "ms"}, ms(quantile(took, 0.5)))
		b.found.add(figure{name: q.name + ", p99", unit: "ms"}, ms(quantile(took, 0.99)))
	}
	return nil
}

// get asks for one path and drops the answer.
func (b *bench) get(ctx context.Context, pathQuery string, header http.Header) error {
	path, query := split(pathQuery)
	resp, err := b.http.Do(ctx, client.Request{Method: http.MethodGet, Path: path, Query: query, Header: header})
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	return resp.Body.Close()
}

func (b *bench) diskUse(context.Context) error {
	for _, part := range []string{"eventstore", "clickhouse"} {
		n, err := folderBytes(filepath.Join(b.dir, "data", part))
		if err != nil {
			return err
		}
		b.found.add(figure{name: "disk, " + part + ", a use", unit: "bytes"}, float64(n)/float64(b.uses))
	}
	// The journal and SQLite's write-ahead log have a bounded size, not so much a use.
	info, err := os.Stat(filepath.Join(b.dir, "data", "eventstore", "events.db"))
	if err != nil {
		return err
	}
	b.found.add(figure{name: "disk, eventstore without its journals, a use", unit: "bytes"}, float64(info.Size())/float64(b.uses))
	return nil
}

// replay has all tables made anew beside the live ones and waits until they hold the log.
func (b *bench) replay(ctx context.Context) error {
	const path = "/v1/projections/generations"
	t0 := time.Now()
	if err := b.http.JSON(ctx, client.Request{Method: http.MethodPost, Path: path}, map[string]any{"name": "bench2"}, nil); err != nil {
		return err
	}
	for {
		var list struct {
			Generations []struct{ Name, State, Position, Head string }
		}
		if err := b.http.JSON(ctx, client.Request{Method: http.MethodGet, Path: path}, nil, &list); err != nil {
			return err
		}
		g := list.Generations[len(list.Generations)-1]
		if g.Name == "bench2" && g.Position == g.Head && g.Head != "0" {
			b.found.add(figure{name: "replay of the log into new tables, while serving", unit: "uses/s"}, float64(b.uses)/time.Since(t0).Seconds())
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(replayEvery):
		}
	}
}

// replayEvery is how often a replay is looked at.
const replayEvery = 50 * time.Millisecond

// quantile returns the q-quantile of took, which is not empty.
func quantile(took []time.Duration, q float64) time.Duration {
	slices.Sort(took)
	return took[min(len(took)-1, int(q*float64(len(took))))]
}

func mb(n int64) float64 { return float64(n) / (1 << 20) }
