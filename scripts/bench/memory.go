package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/launch"
)

const (
	memoryClients = 4
	memoryAppend  = 500
	// memoryStream is how many appends a client gives one stream before it begins the next.
	memoryStream = 20
	// settle is how long a server is left alone before its idle memory is read.
	settle = 3 * time.Second
)

// memory measures what an event log costs as it grows: resident memory after a tenth, a
// fifth, half and all of the events, disk, opening it again and one catch-up over all. The
// server is a process of its own.
func (b *bench) memory(ctx context.Context) (err error) {
	if b.events <= 0 || b.events%(10*memoryAppend) != 0 {
		return fmt.Errorf("%d events: it has to be a multiple of %d", b.events, 10*memoryAppend)
	}
	dir := filepath.Join(b.dir, "memory")
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := b.fillLog(ctx, dir); err != nil {
		return err
	}
	bytes, err := folderBytes(dir)
	if err != nil {
		return err
	}
	b.found.add(figure{name: "memory: disk, an event", unit: "bytes"}, float64(bytes)/float64(b.events))
	return b.followLog(ctx, dir)
}

// withLog runs f against a server process on dir.
func (b *bench) withLog(ctx context.Context, dir string, f func(pid int, l *eventlog.Log) error) (opened time.Duration, err error) {
	t0 := time.Now()
	srv, address, err := launch.StartCommand(ctx, launch.Command{
		Binary: b.binary, Args: []string{"dev", "eventstore", "--data", dir, "--listen", "127.0.0.1:0", "--insecure"},
		Mark: "event store on ",
	})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, srv.Stop()) }()
	opened = time.Since(t0)
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	l, err := eventlog.Open(ctx, eventlog.Config{Connection: address, Logger: logger})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	return opened, f(srv.PID(), l)
}

// fillLog appends the events and looks at the server on the way.
func (b *bench) fillLog(ctx context.Context, dir string) error {
	_, err := b.withLog(ctx, dir, func(pid int, l *eventlog.Log) error {
		var stored atomic.Int64 // Appends given, of all clients.
		writers := make([]memoryWriter, memoryClients)
		var busy time.Duration
		for _, share := range []int{10, 5, 2, 1} {
			target := b.events / share
			if err := resetPeak(pid); err != nil {
				return err
			}
			t0 := time.Now()
			g, gctx := errgroup.WithContext(ctx)
			for i := range writers {
				g.Go(func() error {
					for stored.Add(1)*memoryAppend <= int64(target) {
						if err := writers[i].append(gctx, l, i); err != nil {
							return err
						}
					}
					stored.Add(-1)
					return nil
				})
			}
			if err := g.Wait(); err != nil {
				return err
			}
			busy += time.Since(t0)
			if err := b.resident(ctx, pid, grouped(strconv.Itoa(target))+" events"); err != nil {
				return err
			}
		}
		b.found.add(figure{name: "memory: appends of 500, 4 clients", unit: "events/s"}, float64(b.events)/busy.Seconds())
		return nil
	})
	return err
}

// memoryWriter is where a client's appends stand.
type memoryWriter struct {
	appends int
	exp     eventlog.Expected
}

func (w *memoryWriter) append(ctx context.Context, l *eventlog.Log, client int) error {
	if w.appends%memoryStream == 0 {
		w.exp = eventlog.NoStream()
	}
	stream := fmt.Sprintf("kt.memory-%d-%d", client, w.appends/memoryStream)
	at, err := l.Append(ctx, stream, w.exp, benchEvents(stream, w.exp.Next(), memoryAppend)...)
	if err != nil {
		return err
	}
	w.exp = eventlog.Exactly(at.Revision)
	w.appends++
	return nil
}

// resident reports what a server holds now, idle, and held at most since the last time.
func (b *bench) resident(ctx context.Context, pid int, when string) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(settle):
	}
	idle, err := statusBytes(pid, "VmRSS:")
	if err != nil {
		return err
	}
	peak, err := statusBytes(pid, "VmHWM:")
	if err != nil {
		return err
	}
	b.found.add(figure{name: "memory: after " + when + ", idle", unit: "MB"}, mb(idle))
	b.found.add(figure{name: "memory: after " + when + ", peak before", unit: "MB"}, mb(peak))
	return nil
}

// followLog opens the log again and catches up over all of it.
func (b *bench) followLog(ctx context.Context, dir string) error {
	opened, err := b.withLog(ctx, dir, func(pid int, l *eventlog.Log) error {
		if err := b.resident(ctx, pid, "opening again"); err != nil {
			return err
		}
		if err := resetPeak(pid); err != nil {
			return err
		}
		seen, took, err := readWhole(ctx, l)
		if err != nil {
			return err
		}
		if seen != b.events {
			return fmt.Errorf("stored %d events, read %d", b.events, seen)
		}
		b.found.add(figure{name: "memory: catch-up, two processes over TCP", unit: "events/s"}, float64(seen)/took.Seconds())
		return b.resident(ctx, pid, "the catch-up")
	})
	if err != nil {
		return err
	}
	b.found.add(figure{name: "memory: opening again", unit: "ms"}, ms(opened))
	return nil
}
