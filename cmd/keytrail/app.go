package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"example.com/keytrail/ingest"
	"example.com/keytrail/ingest/horizon"
	"example.com/keytrail/internal/archive"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/httpx"
	"example.com/keytrail/internal/keystore"
	"example.com/keytrail/internal/obs"
	"example.com/keytrail/projections"
	"example.com/keytrail/query/detect"
)

const (
	// shutdownMax bounds how long requests under way may take to end.
	shutdownMax = 30 * time.Second
	// uploadsInFlightBytesMax bounds the bodies of each of the two kinds of upload that are
	// worked on at a time.
	uploadsInFlightBytesMax = 128 << 20
	// spoolFolder, below the data folder, holds large uploads while they are received.
	spoolFolder = "spool"
)

// serverConfig is everything that 'keytrail serve' is told.
type serverConfig struct {
	stores        storeFlags
	roles         roles
	listen        string
	keystore      string // The folder of the key store; "" is the data folder.
	masterKeyFile string
	rules         string
	horizon       horizonFlags
}

// keystoreDir is the folder that all nodes share: key store and administrator key.
func (c serverConfig) keystoreDir() string {
	if c.keystore == "" {
		return c.stores.data
	}
	return c.keystore
}

// app is a running keytrail: the stores, the parts that follow the log, and what serves.
type app struct {
	cfg    serverConfig
	log    *slog.Logger
	stores *stores
	keys   *keystore.Store
	node   string // This node's name; its streams have one writer.
	nonce  string // Unique to this process.
	now    func() time.Time

	stopped  stoppedParts
	logUp    *obs.Watch
	tablesUp *obs.Watch
	outages  *obs.Outages

	directory *auth.Directory
	pulses    *auth.Pulses
	auth      *auth.Authenticator
	refusals  *ingest.Refusals
	access    *ingest.AccessLog
	commands  *ingest.Commands
	reconcile *ingest.Reconciler
	usage     *ingest.Usage
	recorder  *ingest.UsageRecorder
	reports   *ingest.Reports
	importer  *ingest.Importer
	tables    *projections.Node
	detectors *detectors
	classes   map[string]horizon.Class
	seals     *archive.Seals
	whole     *projections.ArchiveLog // The log with what was cut from it.
	horizon   *horizon.Keeper
	metrics   *prometheus.Registry
	rules     []*detect.Rule

	listener net.Listener
	server   *http.Server
	first    ingest.Bootstrapped
}

// newApp opens everything and listens, so that a fault shows before the first request.
// The caller runs or closes what it gets.
func newApp(ctx context.Context, cfg serverConfig, ui progress, log *slog.Logger) (_ *app, err error) {
	a := &app{cfg: cfg, log: log, metrics: obs.NewRegistry(), now: clock()}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	if a.nonce, err = newNonce(); err != nil {
		return nil, err
	}
	// The cheapest faults are found before the dearest work.
	if err := a.loadRules(); err != nil {
		return nil, err
	}
	if a.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.listen); err != nil {
		return nil, fmt.Errorf("listen on %s: %w (choose another with --listen)", cfg.listen, err)
	}
	if a.stores, err = connectStores(ctx, cfg.stores, ui, log); err != nil {
		return nil, err
	}
	if err := a.openKeys(ctx); err != nil {
		return nil, err
	}
	if err := a.buildHealth(); err != nil {
		return nil, err
	}
	if err := a.buildArchives(); err != nil {
		return nil, err
	}
	if err := a.buildProjections(ctx); err != nil {
		return nil, err
	}
	a.first, err = ingest.Bootstrap(ctx, ingest.BootstrapConfig{
		Dir: cfg.keystoreDir(), Log: a.stores.log, Store: a.keys, Now: a.now, Random: rand.Reader,
		Logger: log, CreateFile: keystore.CreateFile,
	})
	if err != nil {
		return nil, err
	}
	a.detectors = newDetectors(a)
	for _, build := range []func() error{a.buildIngest, a.buildHorizon, a.buildHTTP} {
		if err := build(); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// openKeys opens the key store, which nodes share, and this node's name, which they do not.
func (a *app) openKeys(ctx context.Context) error {
	dir := a.cfg.keystoreDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make folder %s: %w (name another with --keystore)", dir, err)
	}
	var err error
	if a.keys, err = keystore.Open(ctx, dir, a.cfg.masterKeyFile, a.log); err != nil {
		return fmt.Errorf("open key store: %w", err)
	}
	// A node from before nodes had names goes on under the name that it wrote under.
	first := ""
	if a.cfg.keystore == "" && !a.keys.Fresh() {
		first = a.keys.InstallationID()
	}
	a.node, err = keystore.NodeID(a.cfg.stores.data, first)
	return err
}

func newNonce() (string, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("make process id: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}

// buildIngest makes the write side.
func (a *app) buildIngest() error {
	writer, events := a.node, a.stores.log
	a.directory = auth.NewDirectory(auth.FollowLog(events), a.log.With(slog.String("component", "directory")))
	var err error
	a.pulses, err = auth.NewPulses(auth.PulsesConfig{
		Log: events, Node: writer, Nonce: a.nonce, Clock: auth.SinceBoot, Logger: a.log.With(slog.String("component", "pulses")),
	}, a.directory)
	if err != nil {
		return err
	}
	if err := a.measurePulses(); err != nil {
		return err
	}
	a.auth = auth.NewAuthenticator(a.directory, a.pulses, a.keys, a.now)
	a.refusals = ingest.NewRefusals(events, writer, a.nonce, a.now, a.log)
	a.access = ingest.NewAccessLog(events, writer, a.nonce, a.now)
	a.commands = ingest.NewCommands(ingest.CommandsConfig{
		Log: events, Directory: a.directory, Store: a.keys, Refusals: a.refusals, Now: a.now, Random: rand.Reader,
	})
	a.reconcile = ingest.NewReconciler(ingest.ReconcilerConfig{
		Commands: a.commands, Directory: a.directory, Follow: auth.FollowLog(events), Now: a.now,
		Logger: a.log.With(slog.String("component", "reconciler")), Grace: ingest.DefaultGrace,
	})
	a.recorder, err = ingest.NewUsageRecorder(ingest.UsageRecorderConfig{Log: events, Writer: writer, Nonce: a.nonce, Now: a.now, Logger: a.log})
	if err != nil {
		return err
	}
	spool := filepath.Join(a.cfg.stores.data, spoolFolder)
	if err := os.MkdirAll(spool, 0o700); err != nil {
		return fmt.Errorf("make folder for uploads: %w", err)
	}
	cfg := ingest.UsageConfig{
		Log: events, Keys: keyLookup{a.directory, a.keys}, SpoolDir: spool, InFlightBytesMax: uploadsInFlightBytesMax,
		Now: a.now, Logger: a.log.With(slog.String("component", "usage")),
	}
	if a.usage, err = ingest.NewUsage(cfg); err != nil {
		return err
	}
	// Only imports compare single records with the tables: they alone come from sources that
	// overlap, and what clients report must not wait for ClickHouse.
	cfg.Known = a.knownUses()
	imports, err := ingest.NewUsage(cfg)
	if err != nil {
		return err
	}
	a.importer, err = ingest.NewImporter(imports, a.commands)
	return err
}

// run serves until ctx ends, then lets requests end, then what follows the log, then the
// stores. ready is called once everything answers.
func (a *app) run(ctx context.Context, ready func(ctx context.Context) error) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, work := errgroup.WithContext(work)
	a.start(work, g)
	g.Go(func() error {
		if err := a.server.Serve(a.listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve: %w", err)
		}
		return nil
	})
	err := a.announce(ctx, work, ready)
	if err == nil {
		select {
		case <-ctx.Done():
			a.log.InfoContext(work, "stopping")
		case <-work.Done():
		}
	}
	err = errors.Join(err, a.shutdown(work))
	stop()
	return errors.Join(err, g.Wait(), a.close())
}

// announce waits until keys can be judged, then calls ready.
func (a *app) announce(ctx, work context.Context, ready func(context.Context) error) error {
	if !a.cfg.roles.has(roleAPI) {
		return ready(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(work, cancel)()
	if err := a.directory.WaitReady(ctx); err != nil {
		if work.Err() != nil || errors.Is(err, context.Canceled) {
			return nil // The fault of the part that ended, or the wish to stop, is told by run.
		}
		return fmt.Errorf("wait for the directory of keys: %w", err)
	}
	return ready(ctx)
}

// shutdown lets requests under way end.
func (a *app) shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownMax)
	defer cancel()
	if err := a.server.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("requests under way were cut off: %w", err), a.server.Close())
	}
	return nil
}

// close frees what newApp opened.
func (a *app) close() error {
	var errs []error
	if a.listener != nil {
		if err := a.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if a.tables != nil {
		errs = append(errs, a.tables.Close())
	}
	if a.stores != nil {
		errs = append(errs, a.stores.Close())
	}
	return errors.Join(errs...)
}

// address is where people reach the server.
func (a *app) address() string { return "http://" + a.listener.Addr().String() }

// newHTTPServer puts a handler behind our timeouts.
func newHTTPServer(h http.Handler, log *slog.Logger) *http.Server { return httpx.NewServer(h, log) }
