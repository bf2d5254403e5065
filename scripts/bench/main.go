// Command bench measures a keytrail binary from outside, over HTTP, on the embedded
// stores: durable commands, usage until queryable, search, disk, memory, start-up and
// replay. It starts the server itself in a folder that it removes afterwards.
//
// Machines differ and drift, so it also measures what the disk can do (fsyncs of a small
// write, one after the other) in the same run: quote ratios.
//
//	make bench
//	go run ./scripts/bench -binary bin/keytrail -uses 1000000
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"time"

	"example.com/keytrail/internal/client"
	"example.com/keytrail/internal/launch"
)

// options are the command's flags.
type options struct {
	binary  string
	uses    int
	seconds time.Duration
	clients int // Connections that send usage.
}

func main() {
	var o options
	flag.StringVar(&o.binary, "binary", "bin/keytrail", "the keytrail binary")
	flag.IntVar(&o.uses, "uses", 1_000_000, "how many usage records to send")
	flag.DurationVar(&o.seconds, "time", 5*time.Second, "how long to send commands")
	flag.IntVar(&o.clients, "clients", 4, "connections that send usage")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run: the folder, the server that is up, and where to print.
type bench struct {
	options
	out  io.Writer
	dir  string
	srv  *launch.Server
	http *client.Client
}

func run(ctx context.Context, o options, out io.Writer) error {
	dir, err := os.MkdirTemp("", "keytrail-bench-")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	b := &bench{options: o, out: out, dir: dir}
	defer b.close()
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"disk", b.fsyncs},
		{"start-up", b.startUp},
		{"idle memory", b.idle},
		{"key commands", b.commands},
		{"usage", b.usage},
		{"search", b.search},
		{"disk use", b.diskUse},
		{"replay", b.replay},
	} {
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
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

// fsyncs measures the floor under every durable write: append 512 bytes, fsync.
func (b *bench) fsyncs(context.Context) (err error) {
	f, err := os.Create(filepath.Join(b.dir, "fsync"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	block, n := make([]byte, 512), 0
	t0 := time.Now()
	for ; time.Since(t0) < 2*time.Second; n++ {
		if _, err := f.Write(block); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	b.say("fsyncs of this disk, one by one", "%.0f/s", float64(n)/time.Since(t0).Seconds())
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
	b.say("start-up, empty folder / again", "%v / %v", first.Round(time.Millisecond), again.Round(time.Millisecond))
	return nil
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
	b.say("idle memory, process / engine", "%.0f MB / %.0f MB", mb(own), mb(children))
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
		b.say(fmt.Sprintf("%s, of %d uses: p50 / p99", q.name, b.uses), "%s / %s", quantile(took, 0.5), quantile(took, 0.99))
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
		b.say("disk, "+part, "%.1f MB, %.1f bytes a use", mb(n), float64(n)/float64(b.uses))
	}
	return nil
}

// replay starts a new generation of tables beside the first and waits until it is whole.
func (b *bench) replay(ctx context.Context) error {
	last, err := b.position(ctx)
	if err != nil {
		return err
	}
	if err := b.stop(); err != nil {
		return err
	}
	t0 := time.Now()
	if _, err := b.start(ctx, "--generation=bench2"); err != nil {
		return err
	}
	if err := b.waitFor(ctx, last); err != nil {
		return err
	}
	took := time.Since(t0)
	b.say("replay of the log into empty tables", "%.0f uses/s (%v with start-up)", float64(b.uses)/took.Seconds(), took.Round(time.Millisecond))
	return nil
}

// quantile returns the q-quantile of took, rounded for reading.
func quantile(took []time.Duration, q float64) time.Duration {
	slices.Sort(took)
	return took[min(len(took)-1, int(q*float64(len(took))))].Round(10 * time.Microsecond)
}

func mb(n int64) float64 { return float64(n) / (1 << 20) }
