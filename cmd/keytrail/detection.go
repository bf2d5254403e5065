package main

import (
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"example.com/keytrail/ingest"
	"example.com/keytrail/query/detect"
)

// buildDetector loads the rules and makes what applies them to every new block.
func (a *app) buildDetector() error {
	var own []fs.FS
	if a.cfg.rules != "" {
		own = append(own, os.DirFS(a.cfg.rules))
	}
	rules, err := detect.Load(detect.Builtin(), own...)
	if err != nil {
		return fmt.Errorf("load detection rules: %w", err)
	}
	a.detector, err = ingest.NewDetector(ingest.DetectorConfig{
		Log: ingest.NewDetectorLog(a.stores.log), Blocks: a.tracker, Evaluator: detect.NewEngine(a.stores.tables, rules),
		Generation: a.cfg.stores.generation, Now: time.Now, Logger: a.log.With(slog.String("component", "detector")),
	})
	return err
}
