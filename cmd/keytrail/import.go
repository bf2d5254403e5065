package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"example.com/keytrail/internal/importclient"
)

func newImport() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Bring in the audit logs of other systems; importing twice changes nothing",
	}
	r := &remote{}
	r.addTo(cmd)
	cmd.AddCommand(newImportCloudTrail(r))
	return cmd
}

func newImportCloudTrail(r *remote) *cobra.Command {
	var resume string
	cmd := &cobra.Command{
		Use:   "cloudtrail PATH…",
		Short: "Import AWS CloudTrail: files, folders, patterns, or - for standard input",
		Long: `cloudtrail sends CloudTrail records to the server: each is one use of the key that it
names, and what it says about keys (created, disabled, deleted, issued) becomes the key's
history. Any envelope will do: {"Records":[…]}, an array, a record a line, gzip, zstd.

An import that broke off is simply run again: what the server has is not stored twice.
With --resume files that were imported whole are not even read again.`,
		Example: `  keytrail import cloudtrail --key-file data/admin.key AWSLogs/
  keytrail import cloudtrail --resume done.json 's3-sync/**/*.json.gz'
  zcat trail.json.gz | keytrail import cloudtrail -`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			defer c.Close()
			ui := progress{cmd.ErrOrStderr()}
			update, done := ui.bytes("importing")
			report, err := importclient.CloudTrail(cmd.Context(), importclient.Options{
				Client: c, Server: r.server, Paths: args, Stdin: cmd.InOrStdin(), Resume: resume, Progress: update, Notice: ui.line,
			})
			done()
			return errors.Join(err, printImport(cmd.OutOrStdout(), r, report))
		},
	}
	cmd.Flags().StringVar(&resume, "resume", "", "file that remembers which files are done, so that they are skipped the next time")
	return cmd
}

// printImport shows what the server acknowledged, also of an import that broke off.
func printImport(out io.Writer, r *remote, report importclient.Report) error {
	if r.json() {
		return printJSON(out, report)
	}
	rate := 0.0
	if report.Elapsed > 0 {
		rate = float64(report.Records) / report.Elapsed.Seconds()
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%d files (%d skipped, done before), %d records in %v (%.0f a second)\n%d new uses, %d repeated, %d malformed; %d facts about keys\n%d keys in %d accounts\n",
		report.Files, report.Skipped, report.Records, report.Elapsed.Round(time.Millisecond), rate,
		report.Uses, report.Repeated, report.Malformed, report.Facts, report.Keys, report.Accounts)
	for _, m := range report.Examples {
		fmt.Fprintf(&text, "malformed: %v\n", m)
	}
	if more := report.Malformed - uint64(len(report.Examples)); more > 0 {
		fmt.Fprintf(&text, "and %d more malformed ones\n", more)
	}
	if _, err := io.WriteString(out, text.String()); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	return nil
}
