package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"example.com/keytrail/internal/config"
)

// run executes one command line and returns the exit code: 0 done, 1 failed, 2 a check
// found differences.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot() //nolint:contextcheck // Commands run under ctx: cobra passes it on.
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errDifferent):
		return 2
	}
	_, _ = fmt.Fprintln(stderr, "keytrail:", err) // The exit code says it too.
	if next := whatNext(err); next != "" {
		_, _ = fmt.Fprintln(stderr, "          "+next)
	}
	return 1
}

// errDifferent is returned by a check that ran and found differences; they were printed.
var errDifferent = errors.New("differences found")

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "keytrail",
		Short: "Audit and activity tracker for API keys",
		Long: `keytrail keeps API keys, remembers every command ever given about them, takes in every
use of them, and says which use looks wrong, with proof.

Start a server:          keytrail serve --data ./data
Bring in CloudTrail:     keytrail import cloudtrail --key-file ./data/admin.key logs/
What looks wrong:        keytrail findings list --key-file ./data/admin.key
Who may do what:         keytrail roles list --key-file ./data/admin.key
Who did what:            keytrail events list --key-file ./data/admin.key --filter 'outcome="failure"'

Every flag can also be given as KEYTRAIL_<FLAG> (--key-file is KEYTRAIL_KEY_FILE) or as a
line of the file named by --config.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().String(config.FileFlag, "", "file with settings, one line a flag (YAML, TOML or JSON)")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		file, err := cmd.Flags().GetString(config.FileFlag)
		if err != nil {
			return fmt.Errorf("read --config: %w", err)
		}
		return config.Apply(cmd.Flags(), file, allFlags(cmd.Root()))
	}
	root.AddCommand(newServe(), newImport(), newKeys(), newEvents(), newFindings(),
		newVerify(), newLog(), newHorizon(), newRebuild(), newPoison(), newDev(), newVersion(), newEngineChild())
	for _, g := range adminGroups() {
		root.AddCommand(newAdmin(g))
	}
	return root
}

// allFlags lists the flags of every command, since one file may serve them all.
func allFlags(cmd *cobra.Command) []string {
	var names []string
	add := func(f *pflag.Flag) { names = append(names, f.Name) }
	cmd.Flags().VisitAll(add)
	for _, sub := range cmd.Commands() {
		names = append(names, allFlags(sub)...)
	}
	return names
}
