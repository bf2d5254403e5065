package main

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"slices"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"example.com/keytrail/ingest"
	"example.com/keytrail/internal/apidoc"
	"example.com/keytrail/internal/httpx"
	"example.com/keytrail/query"
)

// buildHTTP puts every room's routes on one engine.
func (a *app) buildHTTP() error {
	tables := &keyLister{}
	a.reports = ingest.NewReports(a.commands, tables, waiter{a.tables}, a.log.With(slog.String("component", "reports")))
	keys := ingest.NewKeyAPI(ingest.KeyAPIConfig{
		Commands: a.commands, Auth: a.auth, Directory: a.directory, Refusals: a.refusals, Uses: a.recorder,
		Lister: tables, Waiter: waiter{a.tables}, Activity: tables, Reports: a.reports, Reads: a.access, Used: tables, Now: a.now,
	})
	uploads, check := ingest.UploadRoutes(a.usage, a.importer), slices.Concat(apidoc.Table{a.verifyRoute()}, a.generationRoutes(), a.poisonRoutes(), a.horizonRoutes())
	reads, err := query.New(query.Config{
		Tables: answering{a.tables, a.tablesUp}, Projections: positions{a}, Access: a.access, Refusals: a.refusals,
		CursorKey: a.cursorKey(), Checks: a.checks(), Metrics: promhttp.HandlerFor(a.metrics, promhttp.HandlerOpts{}),
		Others: []apidoc.Table{keys.PublicRoutes(), keys.Routes(), uploads, check}, Version: version(), Now: a.now, Logger: a.log.With(slog.String("component", "query")),
	})
	if err != nil {
		return err
	}
	tables.query = reads
	engine := httpx.NewEngine(a.log)
	engine.Use(httpx.TellOutages(a.outages))
	reads.RegisterPublic(engine)
	a.server = newHTTPServer(engine, a.log)
	if !a.cfg.roles.has(roleAPI) {
		return nil
	}
	keys.Register(engine.Group("", httpx.Deadline(commandMax)))
	signedIn := engine.Group("", keys.Require())
	reads.Register(signedIn)
	uploads.Register(signedIn)
	check.Register(signedIn)
	page(engine)
	return nil
}

// cursorKey keys the authenticators of cursors. It is derived from the key store, so that
// it is the same after a restart and on every node that shares the key store.
func (a *app) cursorKey() []byte {
	sum := sha256.Sum256([]byte("keytrail cursors"))
	return []byte(a.keys.Fingerprint(sum))
}

// checks decide whether this node is ready. Without ClickHouse an API node records commands
// and uses all the same: its queries say that the tables are away.
func (a *app) checks() []query.Check {
	serves := a.cfg.roles.has(roleAPI)
	out := []query.Check{
		{Name: "event log", Run: func(context.Context) error { return a.logUp.Err() }},
		{Name: "ClickHouse", Degrades: serves, Run: func(context.Context) error { return a.tablesUp.Err() }},
	}
	for _, p := range a.parts() {
		if !a.cfg.roles.has(p.roles...) {
			continue
		}
		out = append(out, query.Check{Name: p.name, Degrades: serves && !p.essential, Run: func(context.Context) error {
			if err := a.stopped.of(p.name); err != nil || p.check == nil {
				return err
			}
			return p.check()
		}})
	}
	return out
}
