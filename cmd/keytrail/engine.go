package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	engine "example.com/keytrail/internal/embedded/clickhouse"
	"example.com/keytrail/internal/embedded/enginelib"
)

// engineFlags say where the embedded analytics engine's library comes from.
type engineFlags struct {
	library, cache  string
	allowUnconfined bool
}

// register adds the flags of the engine to a command.
func (f *engineFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.library, "engine-library", "", "path of libchdb.so, instead of fetching it with npm at the first start")
	fs.StringVar(&f.cache, "engine-cache", "", "folder that keeps fetched engines (default: keytrail/engine in your cache folder)")
	fs.BoolVar(&f.allowUnconfined, "allow-unconfined-engine", false, "start the engine even where the kernel cannot confine it to its folder (Landlock)")
}

// ensure returns the path of the library, fetching it at the first start.
func (f *engineFlags) ensure(ctx context.Context, ui progress) (string, error) {
	if f.library != "" {
		return f.library, nil
	}
	bar, done := ui.bytes("fetching the analytics engine (once)")
	lib, err := enginelib.Ensure(ctx, enginelib.Config{CacheDir: f.cache, Progress: bar})
	done()
	if err != nil {
		return "", fmt.Errorf("fetch the analytics engine: %w", err)
	}
	return lib, nil
}

// newEngineChild is the hidden command under which the server starts its engine.
func newEngineChild() *cobra.Command {
	return &cobra.Command{
		Use: engine.Subcommand, Hidden: true, DisableFlagParsing: true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return nil },
		RunE: func(_ *cobra.Command, args []string) error {
			os.Exit(engine.RunChild(args)) // The child's main function: nothing of ours is open.
			return nil
		},
	}
}
