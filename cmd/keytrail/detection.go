package main

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"example.com/keytrail/ingest"
	"example.com/keytrail/projections"
	"example.com/keytrail/query/detect"
)

// loadRules reads the built-in rules and the operator's own.
func (a *app) loadRules() error {
	var own []fs.FS
	if a.cfg.rules != "" {
		own = append(own, os.DirFS(a.cfg.rules))
	}
	var err error
	if a.rules, err = detect.Load(detect.Builtin(), own...); err != nil {
		return fmt.Errorf("load detection rules (built in and of --rules %q): %w", a.cfg.rules, err)
	}
	return nil
}

// detectors applies the rules to every new block of the live tables: one detector for each
// generation that is live, one after the other, on the worker that writes the tables.
type detectors struct {
	app *app

	mu      sync.Mutex // Guards current.
	current *ingest.Detector
}

func newDetectors(a *app) *detectors { return &detectors{app: a} }

const (
	// holdingEvery is how often a worker looks whether it is the one that writes.
	holdingEvery = 250 * time.Millisecond
)

// run runs the detector of the live tables for as long as this worker writes them. Several
// at once would do no harm, and no good.
func (d *detectors) run(ctx context.Context) error {
	tick := time.NewTicker(holdingEvery)
	defer tick.Stop()
	for {
		if live := d.app.tables.Live(); live.Holding() {
			if err := d.runOn(ctx, live); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// runOn runs a detector until other tables are live or another worker writes them.
func (d *detectors) runOn(ctx context.Context, live *projections.Tables) error {
	one, err := ingest.NewDetector(ingest.DetectorConfig{
		Log: ingest.NewDetectorLog(d.app.stores.log), Blocks: live.Tracker, Evaluator: detect.NewEngine(generation{live, d.app.tablesUp}, d.app.rules),
		Generation: live.Name, First: func(ctx context.Context) (uint64, error) { return d.first(ctx, live.Name) },
		Now: d.app.now, Logger: d.app.log.With(slog.String("component", "detector")),
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.current = one
	d.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		tick := time.NewTicker(holdingEvery)
		defer tick.Stop()
		for d.app.tables.Live() == live && live.Holding() {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
		cancel()
	}()
	err = one.Run(ctx)
	cancel()
	<-watched
	return err
}

// first returns the block of a generation that holds all that the rules saw in the one
// before it: what they found there they need not find again.
func (d *detectors) first(ctx context.Context, name string) (uint64, error) {
	for _, g := range d.app.tables.Generations() {
		if g.Name != name || g.From == "" {
			continue
		}
		block, err := ingest.DetectorProgress(ctx, d.app.stores.log, g.From)
		if err != nil {
			return 0, err
		}
		return projections.SameBlock(ctx, projections.NewLog(d.app.stores.log), g.From, block, name)
	}
	return 0, nil
}

// evaluated returns the newest block that the rules have seen here.
func (d *detectors) evaluated() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.current == nil {
		return 0
	}
	return d.current.Evaluated()
}

// evaluatedAnywhere is evaluated where the rules are applied here, and elsewhere what was
// written down about it.
func (a *app) evaluatedAnywhere(ctx context.Context) (uint64, error) {
	live := a.tables.Live()
	if live.Holding() {
		return a.detectors.evaluated(), nil
	}
	return ingest.DetectorProgress(ctx, a.stores.log, live.Name)
}
