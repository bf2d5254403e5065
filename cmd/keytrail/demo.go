package main

import (
	"context"
	"io"

	"github.com/spf13/pflag"
)

// demoFlags say whether to fill an empty server with a simulated organisation.
type demoFlags struct {
	on   bool
	seed uint64
}

func (f *demoFlags) register(fs *pflag.FlagSet) {
	fs.BoolVar(&f.on, "demo", false, "load a simulated organisation with four attacks, and print what was flagged")
	fs.Uint64Var(&f.seed, "demo-seed", 1, "seed of the demonstration")
}

func (f *demoFlags) load(ctx context.Context, a *app, out, ui io.Writer) error {
	return nil
}
