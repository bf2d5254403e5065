package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/spf13/pflag"

	"example.com/keytrail/domain"
	"example.com/keytrail/ingest"
	"example.com/keytrail/ingest/horizon"
	"example.com/keytrail/internal/apidoc"
	"example.com/keytrail/internal/archive"
	"example.com/keytrail/projections"
)

const (
	// horizonPath is the resource that tells what is sealed, archived and cut.
	horizonPath = "/v1/horizon"
	// noArchive is the word for giving up the bytes of what is cut.
	noArchive = "none"
	// archiveFolder, below the data folder, holds archives where no other folder is named.
	archiveFolder = "archive"
)

// horizonFlags say when usage is cut and what becomes of its bytes.
type horizonFlags struct {
	all       time.Duration
	of        map[string]string
	archive   string
	archiveOf map[string]string
}

func (f *horizonFlags) register(fs *pflag.FlagSet) {
	fs.DurationVar(&f.all, "usage-horizon", 0, "age from which usage is archived and cut from the log, such as 720h, at least 192h; 0 is never")
	fs.StringToStringVar(&f.of, "usage-horizon-of", nil, "the same for single classes (client, import, verify): import=2160h,verify=0")
	f.registerArchive(fs)
}

func (f *horizonFlags) registerArchive(fs *pflag.FlagSet) {
	fs.StringVar(&f.archive, "usage-archive", "", "folder for what is cut, the same on all nodes, or none to give it up (default: archive in the data folder)")
	fs.StringToStringVar(&f.archiveOf, "usage-archive-of", nil, "the same for single classes: verify=none")
}

// classes returns what the flags say of every class. It makes the folders of archives that
// will be written to.
func (f *horizonFlags) classes(data string) (map[string]horizon.Class, error) {
	names := ingest.UsageClasses()
	for _, of := range []map[string]string{f.of, f.archiveOf} {
		for name := range of {
			if !slices.Contains(names, name) {
				return nil, fmt.Errorf("%q is no class of usage: choose of %v", name, names)
			}
		}
	}
	out := map[string]horizon.Class{}
	for _, name := range names {
		class := horizon.Class{Horizon: f.all}
		if text, ok := f.of[name]; ok {
			d, err := time.ParseDuration(text)
			if err != nil {
				return nil, fmt.Errorf("--usage-horizon-of %s: %w", name, err)
			}
			class.Horizon = d
		}
		path := f.archive
		if of, ok := f.archiveOf[name]; ok {
			path = of
		}
		if path == "" {
			path = filepath.Join(data, archiveFolder)
		}
		switch {
		case path == noArchive:
		case class.Horizon == 0:
			class.Archive = archive.At(path) // To read what was cut under other settings.
		default:
			dir, err := archive.OpenDir(path) // Its faults show at the start.
			if err != nil {
				return nil, fmt.Errorf("%w (name another with --usage-archive)", err)
			}
			class.Archive = dir
		}
		out[name] = class
	}
	return out, nil
}

// withArchives returns log with what was cut from it.
func withArchives(log projections.Log, seals *archive.Seals, classes map[string]horizon.Class) *projections.ArchiveLog {
	dirs := map[string]*archive.Dir{}
	for name, class := range classes {
		if class.Archive != nil {
			dirs[name] = class.Archive
		}
	}
	return projections.NewArchiveLog(projections.ArchiveLogConfig{Log: log, Seals: seals, Archives: dirs})
}

// buildArchives makes the log that tables are made and checked from.
func (a *app) buildArchives() error {
	var err error
	if a.classes, err = a.cfg.horizon.classes(a.cfg.stores.data); err != nil {
		return err
	}
	a.seals = archive.NewSeals(a.stores.log)
	a.whole = withArchives(projections.NewLog(a.stores.log), a.seals, a.classes)
	return nil
}

// buildHorizon makes what seals and cuts.
func (a *app) buildHorizon() error {
	metrics, err := horizon.NewMetrics(a.metrics)
	if err != nil {
		return fmt.Errorf("horizon: %w", err)
	}
	a.horizon, err = horizon.New(horizon.Config{
		Log: a.stores.log, Seals: a.seals, Classes: a.classes, Streams: a.usageStreams, Home: a.directory.Home, Now: a.now,
		Guards: []horizon.Guard{{Name: "the tables", Below: func(ctx context.Context) (uint64, error) {
			return projections.NeededFrom(ctx, projections.NewLog(a.stores.log))
		}}},
		Metrics: metrics, Logger: a.log.With(slog.String("component", "horizon")),
	})
	return err
}

// usageStreams lists the streams that this node looks after: the shared slots, its own, and
// those of which anything was ever sealed.
func (a *app) usageStreams(context.Context) ([]string, error) {
	streams := map[string]struct{}{}
	for _, s := range ingest.UsageStreams(a.node) {
		streams[s] = struct{}{}
	}
	for _, s := range a.seals.All() {
		streams[s.Stream] = struct{}{}
	}
	return slices.Sorted(maps.Keys(streams)), nil
}

// horizonAnswer tells what a node knows of the horizon.
type horizonAnswer struct {
	horizon.Status

	Holds []domain.LegalHold `json:"holds"`
}

func (a *app) horizonRoutes() apidoc.Table {
	const group = "horizon"
	return apidoc.Table{
		{
			Method: http.MethodGet, Path: horizonPath, Group: group, Summary: "What of the usage is sealed, archived and cut, and what is held.",
			Answers: apidoc.OK(horizonAnswer{}), Handler: a.administrators(a.horizonStatus),
		},
		{
			Method: http.MethodPost, Path: horizonPath + "/seal", Group: group, Summary: "Seal and cut now what is old enough.",
			Description: "The same pass that the server makes by itself every ten minutes. Long, where much has become old.",
			Answers:     apidoc.OK(horizon.Result{}), Handler: a.administrators(a.horizonSeal),
		},
		{
			Method: http.MethodPost, Path: horizonPath + "/check", Group: group, Summary: "Read every archive again and compare it with what was sealed.",
			Description: "Long: the answer comes when all files were read.",
			Answers:     apidoc.OK(horizon.Report{}), Handler: a.administrators(a.horizonCheck),
		},
	}
}

func (a *app) horizonStatus(c *gin.Context) error {
	holds, _, err := horizon.ReadHolds(c.Request.Context(), a.stores.log)
	if err != nil {
		return unavailable(err)
	}
	c.JSON(http.StatusOK, horizonAnswer{Status: a.horizon.Status(), Holds: holds.InForce()})
	return nil
}

func (a *app) horizonSeal(c *gin.Context) error {
	if err := liftDeadline(c); err != nil {
		return err
	}
	res, err := a.horizon.Pass(c.Request.Context())
	if err != nil {
		return unavailable(err)
	}
	c.JSON(http.StatusOK, res)
	return nil
}

func (a *app) horizonCheck(c *gin.Context) error {
	if err := liftDeadline(c); err != nil {
		return err
	}
	report, err := a.horizon.Check(c.Request.Context(), nil)
	if err != nil {
		return unavailable(err)
	}
	c.JSON(http.StatusOK, report)
	return nil
}

// unavailable words an error of the horizon for an administrator, who is the operator: it
// says what to mend.
func unavailable(err error) error {
	return errors.Join(domain.Errorf(domain.Unavailable, "not complete: %v", err).WithMessageCode("horizon_incomplete"), err)
}

// liftDeadline lets an answer take longer than answers usually may.
func liftDeadline(c *gin.Context) error {
	if err := http.NewResponseController(c.Writer).SetWriteDeadline(time.Time{}); err != nil {
		return fmt.Errorf("lift the write deadline: %w", err)
	}
	return nil
}
