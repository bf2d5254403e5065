package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/embedded/eventstore"
	"example.com/keytrail/internal/eventlog"
)

const (
	logClients = 32
	// syncThreads is by how many goroutines more may run in a program with the event store,
	// as in keytrail: some of its threads wait for the disk.
	syncThreads = 2
	// catchUpEvents is how many events the log holds at least when catching up is measured.
	catchUpEvents = 200_000
	// liveEvents is how many appends the latency to a live subscriber is measured with.
	liveEvents = 2000
)

// logFigures measures the embedded event store alone, through the official client on its
// socket, in this process, which is tuned as the program is: each round in a folder of its
// own.
func (b *bench) logFigures(ctx context.Context) error {
	if os.Getenv("GOMAXPROCS") == "" {
		before := runtime.GOMAXPROCS(0)
		defer runtime.GOMAXPROCS(before)
		runtime.GOMAXPROCS(before + syncThreads)
	}
	for i := range b.rounds {
		if err := b.machine(ctx); err != nil {
			return err
		}
		if err := b.logRound(ctx, filepath.Join(b.dir, "log-"+strconv.Itoa(i))); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) logRound(ctx context.Context, dir string) (err error) {
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	srv, err := eventstore.Open(eventstore.Config{Dir: dir, Socket: filepath.Join(b.dir, "log.sock"), Logger: logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.Close(context.WithoutCancel(ctx)), os.RemoveAll(dir)) }()
	l, err := eventlog.Open(ctx, eventlog.Config{Socket: srv.Address(), Logger: logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	for _, load := range []struct {
		name    string
		clients int
		events  int
		goal    float64
	}{
		{"log: single appends, 1 client", 1, 1, 0},
		{"log: single appends, 32 clients", logClients, 1, 15_000},
		{"log: events in appends of 100, 32 clients", logClients, 100, 100_000},
	} {
		rate, err := b.appends(ctx, l, load.clients, load.events)
		if err != nil {
			return fmt.Errorf("%s: %w", load.name, err)
		}
		b.found.add(figure{name: load.name, unit: "events/s", goal: load.goal}, rate)
	}
	if err := b.live(ctx, l); err != nil {
		return err
	}
	return b.catchUp(ctx, l)
}

var benchData = []byte(`{"pad":"` + strings.Repeat("x", 290) + `"}`) //nolint:gochecknoglobals // It is not changed.

// appends lets clients append to a stream each and returns events per second.
func (b *bench) appends(ctx context.Context, l *eventlog.Log, clients, events int) (float64, error) {
	var stored atomic.Uint64
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for i := range clients {
		g.Go(func() error {
			stream := fmt.Sprintf("kt.bench-%d-%d-%d", clients, events, i)
			exp := eventlog.NoStream()
			for time.Since(began) < b.seconds {
				at, err := l.Append(ctx, stream, exp, benchEvents(stream, exp.Next(), events)...)
				if err != nil {
					return err
				}
				exp = eventlog.Exactly(at.Revision)
				stored.Add(uint64(events)) //nolint:gosec // A small constant.
			}
			return nil
		})
	}
	err := g.Wait()
	return float64(stored.Load()) / time.Since(began).Seconds(), err
}

func benchEvents(stream string, from uint64, n int) []eventlog.Proposed {
	seed := domain.DeriveID("bench", stream)
	out := make([]eventlog.Proposed, n)
	for i := range out {
		id := seed
		binary.BigEndian.PutUint32(id[12:], uint32(from)+uint32(i)) //nolint:gosec // They only have to differ.
		out[i] = eventlog.Proposed{ID: id, Type: "bench.v1", JSON: true, Data: benchData}
	}
	return out
}

// live measures from the beginning of an append until a subscriber has its event.
func (b *bench) live(ctx context.Context, l *eventlog.Log) error {
	head, err := l.Head(ctx, []string{"kt."})
	if err != nil {
		return err
	}
	s, err := l.Subscribe(ctx, eventlog.SubscribeOptions{Prefixes: []string{"kt."}, After: head})
	if err != nil {
		return err
	}
	defer s.Close()
	took := make([]time.Duration, 0, liveEvents)
	exp := eventlog.NoStream()
	for range liveEvents {
		t0 := time.Now()
		at, err := l.Append(ctx, "kt.live", exp, benchEvents("kt.live", exp.Next(), 1)...)
		if err != nil {
			return err
		}
		exp = eventlog.Exactly(at.Revision)
		for {
			d, err := s.Next(ctx)
			if err != nil {
				return err
			}
			if d.Event != nil && d.Event.Position == at.Position {
				break
			}
		}
		took = append(took, time.Since(t0))
	}
	b.found.add(figure{name: "log: append to live subscriber, p50", unit: "ms"}, ms(quantile(took, 0.5)))
	b.found.add(figure{name: "log: append to live subscriber, p99", unit: "ms", goal: 5, less: true}, ms(quantile(took, 0.99)))
	return nil
}

// catchUp measures reading the whole log through a subscription.
func (b *bench) catchUp(ctx context.Context, l *eventlog.Log) error {
	seen, elapsed, err := readWhole(ctx, l)
	if err != nil {
		return err
	}
	for n := 0; seen+n < catchUpEvents; n += 500 {
		stream := fmt.Sprintf("kt.more-%d", n)
		if _, err := l.Append(ctx, stream, eventlog.NoStream(), benchEvents(stream, 0, 500)...); err != nil {
			return err
		}
	}
	if seen < catchUpEvents {
		if seen, elapsed, err = readWhole(ctx, l); err != nil {
			return err
		}
	}
	b.found.add(figure{name: "log: catch-up over $all", unit: "events/s", goal: 200_000}, float64(seen)/elapsed.Seconds())
	return nil
}

// readWhole follows the log from its start until it has caught up.
func readWhole(ctx context.Context, l *eventlog.Log) (events int, took time.Duration, err error) {
	t0 := time.Now()
	s, err := l.Subscribe(ctx, eventlog.SubscribeOptions{Prefixes: []string{"kt."}, FromStart: true})
	if err != nil {
		return 0, 0, err
	}
	defer s.Close()
	for {
		d, err := s.Next(ctx)
		if err != nil {
			return 0, 0, err
		}
		if d.Event != nil {
			events++
		}
		if d.CaughtUp {
			return events, time.Since(t0), nil
		}
	}
}
