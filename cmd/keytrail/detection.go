package main

import (
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"example.com/keytrail/ingest"
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

// buildDetector makes what applies the rules to every new block.
func (a *app) buildDetector() error {
	var err error
	a.detector, err = ingest.NewDetector(ingest.DetectorConfig{
		Log: ingest.NewDetectorLog(a.stores.log), Blocks: a.tracker, Evaluator: detect.NewEngine(a.stores.tables, a.rules),
		Generation: a.cfg.stores.generation, Now: a.now, Logger: a.log.With(slog.String("component", "detector")),
	})
	return err
}
