package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"example.com/keytrail/internal/clickhouse"
	engine "example.com/keytrail/internal/embedded/clickhouse"
	"example.com/keytrail/internal/embedded/eventstore"
	"example.com/keytrail/internal/eventlog"
)

// closeMax bounds how long a store may take to end in good order.
const closeMax = 20 * time.Second

// statementsMax bounds the statements that ClickHouse works on at once. A verification holds
// ten open; the block runner, the detector and readers must not wait for it.
const statementsMax = 16

// engineConnections is how many statements the embedded engine runs at once: all of them,
// and one that asks whether it is well.
const engineConnections = statementsMax + 1

// storeFlags say where the two stores are.
type storeFlags struct {
	data       string
	eventstore string
	clickhouse string
	engine     engineFlags
}

// register adds the flags of the stores to a command.
func (f *storeFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.data, "data", "data", "data folder: log, tables, key store, administrator key")
	fs.StringVar(&f.eventstore, "eventstore", "", "EventStoreDB to use instead of the embedded log: esdb://user:password@host:2113?tls=true")
	fs.StringVar(&f.clickhouse, "clickhouse", "", "ClickHouse to use instead of the embedded engine: clickhouse://user:password@host:9000/ or https://host:8443/")
	f.engine.register(fs)
}

// stores are the two open stores and what serves them.
type stores struct {
	log    *eventlog.Log
	tables clickhouse.Config // Of any generation; see [stores.open].
	server *clickhouse.Store // Its server, whatever the database.
	conns  *clickhouse.Connections
	engine *engine.Server // nil where a server is used.
	close  []func() error
}

// databaseOf names the database of a generation's tables.
func databaseOf(generation string) string { return "keytrail_" + generation }

// open returns the store of a generation's tables.
func (s *stores) open(generation string) (*clickhouse.Store, error) {
	cfg := s.tables
	cfg.Database = databaseOf(generation)
	return clickhouse.New(cfg)
}

// Close ends the stores, the last opened first.
func (s *stores) Close() error {
	var errs []error
	for _, end := range slices.Backward(s.close) {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}

// openStores starts the embedded stores, or connects to the servers that f names. The
// caller closes what it gets.
func openStores(ctx context.Context, f storeFlags, ui progress, log *slog.Logger) (_ *stores, err error) {
	s, err := connectStores(ctx, f, ui, log)
	if err != nil {
		return nil, err
	}
	if err := s.server.Ping(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open ClickHouse: %w (check --clickhouse and that the server is up)", err), s.Close())
	}
	return s, nil
}

// connectStores is openStores, but ClickHouse, where it is a server, may be down: then its
// database may be missing too.
func connectStores(ctx context.Context, f storeFlags, ui progress, log *slog.Logger) (_ *stores, err error) {
	s := &stores{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := makePrivate(f.data); err != nil {
		return nil, err
	}
	run, err := runtimeDir(f.data)
	if err != nil {
		return nil, err
	}
	if err := s.openLog(ctx, f, run, log); err != nil {
		return nil, err
	}
	if err := s.openTables(ctx, f, run, ui, log); err != nil {
		return nil, err
	}
	return s, nil
}

// openLog connects to the event log, after starting the embedded one if none is named.
func (s *stores) openLog(ctx context.Context, f storeFlags, run string, log *slog.Logger) error {
	cfg := eventlog.Config{Connection: f.eventstore, Logger: log.With(slog.String("component", "eventlog"))}
	if f.eventstore == "" {
		tuneProcessors()
		srv, err := eventstore.Open(eventstore.Config{
			Dir: filepath.Join(f.data, "eventstore"), Socket: filepath.Join(run, "es.sock"), Clock: clock(), Logger: log.With(slog.String("component", "eventstore")),
		})
		if err != nil {
			return fmt.Errorf("open embedded event store: %w", err)
		}
		s.close = append(s.close, func() error {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeMax)
			defer cancel()
			return srv.Close(ctx)
		})
		cfg.Socket = srv.Address()
	}
	l, err := eventlog.Open(ctx, cfg)
	if err != nil {
		return fmt.Errorf("%w (check --eventstore and that the server is up)", err)
	}
	s.log = l
	s.close = append(s.close, l.Close)
	return nil
}

// openTables connects to ClickHouse, after starting the embedded engine if none is named.
func (s *stores) openTables(ctx context.Context, f storeFlags, run string, ui progress, log *slog.Logger) error {
	cfg := clickhouse.Config{DSN: f.clickhouse, MaxConns: statementsMax, Logger: log.With(slog.String("component", "clickhouse"))}
	if f.clickhouse == "" {
		lib, err := f.engine.ensure(ctx, ui)
		if err != nil {
			return err
		}
		srv, err := engine.Start(ctx, engine.Config{
			Dir: filepath.Join(f.data, "clickhouse"), Library: lib, RuntimeDir: run, Connections: engineConnections,
			AllowUnconfined: f.engine.allowUnconfined, Logger: log.With(slog.String("component", "engine")),
		})
		if err != nil {
			return fmt.Errorf("start embedded ClickHouse engine: %w", err)
		}
		s.engine = srv
		s.close = append(s.close, srv.Close)
		cfg.Socket = srv.Socket()
	}
	server := cfg
	server.Database, server.MaxConns = "system", 1
	t, err := clickhouse.New(server)
	if err != nil {
		return fmt.Errorf("open ClickHouse: %w (check --clickhouse)", err)
	}
	cfg.Connections = &clickhouse.Connections{}
	s.tables, s.server, s.conns = cfg, t, cfg.Connections
	s.close = append(s.close, t.Close)
	return nil
}

// makePrivate makes dir, for its owner only.
func makePrivate(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make folder %s: %w (name another with --data)", dir, err)
	}
	return nil
}

// runtimeDir returns a short folder for the sockets that belong to a data folder: socket
// paths are bounded to some 100 bytes, data folders are not. The same data folder always
// has the same one, so that a killed process leaves nothing that is not used again.
func runtimeDir(data string) (string, error) {
	abs, err := filepath.Abs(data)
	if err != nil {
		return "", fmt.Errorf("find data folder: %w", err)
	}
	base := os.Getenv("XDG_RUNTIME_DIR")
	if base == "" {
		base = filepath.Join(os.TempDir(), "keytrail-"+strconv.Itoa(os.Getuid()))
	}
	sum := sha256.Sum256([]byte(abs))
	dir := filepath.Join(base, "kt-"+hex.EncodeToString(sum[:6]))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make folder for sockets: %w (name a short one of your own with XDG_RUNTIME_DIR)", err)
	}
	for _, d := range []string{base, dir} {
		if err := ownPrivate(d); err != nil {
			return "", err
		}
	}
	return dir, nil
}
