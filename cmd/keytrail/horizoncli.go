package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"example.com/keytrail/domain"
	"example.com/keytrail/ingest/horizon"
	"example.com/keytrail/internal/client"
)

// holdsPath is the collection of legal holds.
const holdsPath = "/v1/legal-holds"

func newHorizon() *cobra.Command {
	r := &remote{}
	cmd := &cobra.Command{
		Use: "horizon", Short: "What of the usage is sealed, archived and cut; legal holds",
		Long: `The log grows by every use of a key. With 'serve --usage-horizon 720h' whatever is older
is cut from it, one range of one usage stream at a time, in this order:

  archive   the bytes go to a file (DATA/archive, or --usage-archive DIR)
  seal      an event records what the range held: counts, a hash, the file's name and hash
  cut       once the tables hold it, nobody holds it, and the file was read again whole

What happened to keys and accounts is never cut. The tables, and their hourly sums, keep
what they have; with the archives they can be made and checked anew. Without
(--usage-archive none) only the counts are left to check them by, and 'keytrail rebuild'
carries the rows of what was cut over from the live tables, counted against their seals:
nothing else has these rows, so keep a copy of the tables.

A legal hold forbids to cut an account's usage, or everybody's, until it is released.`,
	}
	r.addTo(cmd)
	cmd.AddCommand(newHorizonStatus(r), newHorizonSeal(r), newHorizonHold(r), newHorizonRelease(r), newHorizonCheck(r))
	return cmd
}

// ask sends one request and prints its answer, as JSON or by show.
func ask[T any](cmd *cobra.Command, r *remote, req client.Request, in any, show func(io.Writer, T) error) (T, error) {
	var out T
	c, err := r.client()
	if err != nil {
		return out, err
	}
	defer c.Close()
	if err := c.JSON(cmd.Context(), req, in, &out); err != nil {
		return out, err
	}
	if r.json() {
		return out, printJSON(cmd.OutOrStdout(), out)
	}
	return out, show(cmd.OutOrStdout(), out)
}

func newHorizonStatus(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show horizons, segments, what waits and why, and holds", Args: cobra.NoArgs,
		Example: "  keytrail horizon status --key-file data/admin.key",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := ask(cmd, r, client.Request{Method: http.MethodGet, Path: horizonPath}, nil, printHorizon)
			return err
		},
	}
}

func printHorizon(out io.Writer, s horizonAnswer) error {
	rows := make([][]string, 0, len(s.Classes))
	for _, c := range s.Classes {
		age := "never cut"
		if c.HorizonSeconds > 0 {
			age = (time.Duration(c.HorizonSeconds) * time.Second).String()
		}
		rows = append(rows, []string{c.Class, age, cmp.Or(c.Archive, noArchive)})
	}
	if err := printTable(out, []string{"CLASS", "HORIZON", "ARCHIVE"}, rows); err != nil {
		return err
	}
	last := "never"
	if s.LastPass != nil {
		last = s.LastPass.Format(time.RFC3339)
	}
	if _, err := fmt.Fprintf(out, "\n%d segments sealed, %d archived in %d bytes; last pass: %s\n", s.Sealed, s.Archived, s.Bytes, last); err != nil {
		return err
	}
	if s.Error != "" {
		if _, err := fmt.Fprintln(out, "the last pass was not complete:", s.Error); err != nil {
			return err
		}
	}
	if err := printWaiting(out, s.Waiting); err != nil {
		return err
	}
	return printHolds(out, s.Holds)
}

func printWaiting(out io.Writer, waiting map[string]string) error {
	if len(waiting) == 0 {
		return nil
	}
	var rows [][]string
	for _, stream := range slices.Sorted(maps.Keys(waiting)) {
		rows = append(rows, []string{stream, waiting[stream]})
	}
	if _, err := fmt.Fprintln(out); err != nil {
		return err
	}
	return printTable(out, []string{"SEALED, NOT CUT", "BECAUSE OF"}, rows)
}

func printHolds(out io.Writer, holds []domain.LegalHold) error {
	if len(holds) == 0 {
		_, err := fmt.Fprintln(out, "no legal hold is in force")
		return err
	}
	rows := make([][]string, len(holds))
	for i, h := range holds {
		rows[i] = []string{h.ID, cmp.Or(string(h.Account), "everybody"), h.Since.Format(time.RFC3339), string(h.By), h.Reason}
	}
	if _, err := fmt.Fprintln(out); err != nil {
		return err
	}
	return printTable(out, []string{"HOLD", "ACCOUNT", "SINCE", "BY", "REASON"}, rows)
}

func newHorizonSeal(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "seal", Short: "Archive, seal and cut now what is old enough", Args: cobra.NoArgs,
		Long: `seal makes the pass that the server makes by itself every ten minutes, now. The first
pass after a start only seals; the second cuts.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := ask(cmd, r, client.Request{Method: http.MethodPost, Path: horizonPath + "/seal"}, nil, func(out io.Writer, res horizon.Result) error {
				if _, err := fmt.Fprintf(out, "%d segments sealed, %d cut\n", res.Sealed, res.Cut); err != nil {
					return err
				}
				return printWaiting(out, res.Waiting)
			})
			return err
		},
	}
}

// holdsAnswer lists the holds in force.
type holdsAnswer struct {
	Holds []domain.LegalHold `json:"holds"`
}

func newHorizonHold(r *remote) *cobra.Command {
	var id, account, reason string
	cmd := &cobra.Command{
		Use: "hold", Short: "Forbid to cut an account's usage, or everybody's", Args: cobra.NoArgs,
		Long: `hold sets a legal hold: from the answer on nothing that it covers is cut from the log. What
was cut before does not come back; its archives stay. Ranges hold many accounts, so the
hold of one keeps the others' usage of the same time, too.

With --id the command can be repeated: the same words change nothing.`,
		Example: `  keytrail horizon hold --account 1f2e3d --reason 'case 7, letter of 3 March'
  keytrail horizon hold --id audit-2026 --reason 'external audit'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			in := map[string]string{"id": id, "account_id": account, "reason": reason}
			_, err := ask(cmd, r, client.Request{Method: http.MethodPost, Path: holdsPath}, in, func(out io.Writer, a holdsAnswer) error { return printHolds(out, a.Holds) })
			return err
		},
	}
	cmd.Flags().StringVar(&id, "id", "", "name of the hold (default: one is made)")
	cmd.Flags().StringVar(&account, "account", "", "the account (default: everybody)")
	cmd.Flags().StringVar(&reason, "reason", "", "why; auditors read it (required)")
	return cmd
}

func newHorizonRelease(r *remote) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "release ID", Short: "End a legal hold", Args: cobra.ExactArgs(1),
		Example: "  keytrail horizon release audit-2026 --reason 'report accepted'",
		RunE: func(cmd *cobra.Command, args []string) error {
			req := client.Request{Method: http.MethodPost, Path: holdsPath + "/" + url.PathEscape(args[0]) + "/release"}
			_, err := ask(cmd, r, req, map[string]string{"reason": reason}, func(out io.Writer, a holdsAnswer) error { return printHolds(out, a.Holds) })
			return err
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why it is over; auditors read it (required)")
	return cmd
}

func newHorizonCheck(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Read every archive again and compare it with what was sealed", Args: cobra.NoArgs,
		Long: `check has the server read every archive file to its end and compare its hash, its events
and their places with the sealed events in the log.

Exit code 0: all are whole. 2: some are missing or damaged; they are listed.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := ask(cmd, r, client.Request{Method: http.MethodPost, Path: horizonPath + "/check"}, nil, printCheck)
			if err == nil && !report.OK() {
				return errDifferent
			}
			return err
		},
	}
}

func printCheck(out io.Writer, r horizon.Report) error {
	for _, d := range r.Differences {
		if _, err := fmt.Fprintln(out, d); err != nil {
			return err
		}
	}
	count := func(n uint64) string { return strconv.FormatUint(n, 10) }
	_, err := fmt.Fprintf(out, "%s segments: %s archived, %s without archive; %d differences\n", count(r.Segments), count(r.Archived), count(r.Unkept), len(r.Differences))
	return err
}
