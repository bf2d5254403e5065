package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"example.com/keytrail/internal/embedded/eventstore"
)

// eventstoreFolder is where in a data folder the embedded log lies.
const eventstoreFolder = "eventstore"

func newLog() *cobra.Command {
	cmd := &cobra.Command{
		Use: "log", Short: "Check, read, back up and restore the event log",
		Long: `log works on the embedded event log of a data folder. A server may be using it, except for
restore. A log on EventStoreDB is backed up and restored with EventStoreDB's own tools; cat
reads it with --eventstore.`,
	}
	cmd.AddCommand(newLogCheck(), newLogCat(), newLogBackup(), newLogRestore())
	return cmd
}

// logFolder is the folder of the embedded log in a data folder.
func logFolder(data string) string { return filepath.Join(data, eventstoreFolder) }

// folderError says what to do about a log that is not where it was looked for.
func folderError(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w (name the data folder with --data)", err)
	}
	return err
}

func newLogCheck() *cobra.Command {
	var data, output string
	cmd := &cobra.Command{
		Use: "check", Short: "Read the whole log and check that nothing in it is damaged", Args: cobra.NoArgs,
		Long: `check reads every event and checks what must always be true: the checksum of every block,
positions that increase and times that do not go back, streams that count without a gap.

Exit code 0: no damage. 2: damage, and where the first of it is.`,
		Example: `  keytrail log check --data ./data`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			progress{cmd.ErrOrStderr()}.line("checking the log …")
			report, err := eventstore.Verify(cmd.Context(), logFolder(data))
			if err != nil && !errors.Is(err, eventstore.ErrCorrupt) {
				return folderError(err)
			}
			return printLogReport(cmd.OutOrStdout(), output, report, err)
		},
	}
	cmd.Flags().StringVar(&data, "data", "data", "data folder")
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

// checkOutput refuses what is no form of output.
func checkOutput(output string) error {
	if output != "text" && output != "json" {
		return fmt.Errorf("--output is text or json, not %q", output)
	}
	return nil
}

// logReport is what a check found, as JSON.
type logReport struct {
	Events  int    `json:"events"`
	Streams int    `json:"streams"`
	Last    uint64 `json:"last_position"`
	Damage  string `json:"damage,omitempty"`
}

func printLogReport(out io.Writer, output string, r eventstore.Report, damage error) error {
	v := logReport{Events: r.Events, Streams: r.Streams, Last: r.Last}
	if damage != nil {
		v.Damage = damage.Error()
	}
	if output == "json" {
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("print report: %w", err)
		}
		if _, err := fmt.Fprintf(out, "%s\n", b); err != nil {
			return fmt.Errorf("print report: %w", err)
		}
	} else if err := printLogReportText(out, v); err != nil {
		return err
	}
	if damage != nil {
		return errDifferent
	}
	return nil
}

func printLogReportText(out io.Writer, v logReport) error {
	verdict := "no damage"
	if v.Damage != "" {
		verdict = "DAMAGED after these: " + v.Damage + "\nrestore the log from a backup (keytrail log restore), or the data folder from a copy"
	}
	if _, err := fmt.Fprintf(out, "events    %d\nstreams   %d\nposition  %d\n%s\n", v.Events, v.Streams, v.Last, verdict); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	return nil
}
