package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/spf13/cobra"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/apidoc"
	"example.com/keytrail/internal/archive"
	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/internal/client"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/httpx"
	"example.com/keytrail/projections"
)

// verifyPath is the route that recounts the tables.
const verifyPath = "/v1/projections/verify"

// verifyRoute is the check of the tables, for the operator's administrators: it reads
// everything of every account.
func (a *app) verifyRoute() apidoc.Route {
	return apidoc.Route{
		Method: http.MethodPost, Path: verifyPath, Group: "operation",
		Summary:     "Recount the tables from the log",
		Description: "Reads the whole log, makes every row again and compares it with the tables. Long: the answer comes when it is done.",
		Answers:     apidoc.OK(projections.Report{}),
		Handler:     a.verify,
	}
}

func (a *app) verify(c *gin.Context) {
	if err := a.mayOperate(c, "check the tables"); err != nil {
		httpx.Fail(c, err)
		return
	}
	live := a.tables.Live()
	store, err := live.Store()
	if err != nil {
		httpx.Fail(c, errors.Join(domain.Errorf(domain.Unavailable, "the tables cannot be read; try again").WithMessageCode("tables_unavailable"), err))
		return
	}
	// It may take longer than an answer usually may.
	if err := http.NewResponseController(c.Writer).SetWriteDeadline(time.Time{}); err != nil {
		httpx.Fail(c, fmt.Errorf("lift the write deadline: %w", err))
		return
	}
	report, err := projections.Verify(c.Request.Context(), a.whole, store, projections.VerifyOptions{Generation: live.Name})
	if errors.Is(err, clickhouse.ErrUnavailable) || errors.Is(err, eventlog.ErrUnavailable) {
		err = errors.Join(domain.Errorf(domain.Unavailable, "a store does not answer; try again"), err)
	}
	if err != nil {
		httpx.Fail(c, fmt.Errorf("verify projections: %w", err))
		return
	}
	c.JSON(http.StatusOK, report)
}

func newVerify() *cobra.Command {
	cmd := &cobra.Command{Use: "verify", Short: "Check that nothing is missing, doubled or changed"}
	r := &remote{}
	var f storeFlags
	var h horizonFlags
	var offline bool
	sub := &cobra.Command{
		Use: "projections", Short: "Recount every table from the log and compare, row by row", Args: cobra.NoArgs,
		Long: `projections reads the whole log, makes every row of every table again, and compares column
by column; judges every use again by its own code; adds up the rollups again. It asks a
running server, or with --offline opens the stores of a server that is not running.

Exit code 0: no differences. 2: differences, printed.`,
		Example: `  keytrail verify projections --key-file data/admin.key
  keytrail verify projections --offline --data ./data`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := func() (projections.Report, error) {
				if offline {
					return verifyOffline(cmd, f, h)
				}
				return verifyRemote(cmd, r)
			}()
			if err != nil {
				return err
			}
			return printReport(cmd.OutOrStdout(), r, report)
		},
	}
	r.addTo(sub)
	f.register(sub.Flags())
	h.registerArchive(sub.Flags())
	sub.Flags().BoolVar(&offline, "offline", false, "open the stores directly; no server may be using them")
	cmd.AddCommand(sub)
	return cmd
}

func verifyRemote(cmd *cobra.Command, r *remote) (projections.Report, error) {
	var report projections.Report
	c, err := r.client()
	if err != nil {
		return report, err
	}
	defer c.Close()
	err = c.JSON(cmd.Context(), client.Request{Method: http.MethodPost, Path: verifyPath}, nil, &report)
	return report, err
}

func verifyOffline(cmd *cobra.Command, f storeFlags, h horizonFlags) (report projections.Report, err error) {
	log := quietLogger(cmd.ErrOrStderr())
	ui := progress{cmd.ErrOrStderr()}
	s, err := openStores(cmd.Context(), f, ui, log)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	classes, err := h.classes(f.data)
	if err != nil {
		return report, err
	}
	whole := withArchives(projections.NewLog(s.log), archive.NewSeals(s.log), classes)
	live, err := projections.LiveGeneration(cmd.Context(), whole)
	if err != nil {
		return report, err
	}
	tables, err := s.open(live)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, tables.Close()) }()
	update, done := ui.count("verifying")
	defer done()
	return projections.Verify(cmd.Context(), whole, tables,
		projections.VerifyOptions{Generation: live, Progress: func(p projections.VerifyProgress) {
			update(int64(p.Done), int64(max(p.Of, p.Done))) //nolint:gosec // Counts of blocks and keys.
		}})
}

func printReport(out io.Writer, r *remote, report projections.Report) error {
	if r.json() {
		if err := printJSON(out, report); err != nil {
			return err
		}
	} else if err := printReportText(out, report); err != nil {
		return err
	}
	if !report.OK() {
		return errDifferent
	}
	return nil
}

func printReportText(out io.Writer, report projections.Report) error {
	b, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	verdict := "no differences"
	if !report.OK() {
		verdict = "DIFFERENCES FOUND"
	}
	if _, err := fmt.Fprintf(out, "%s\n%s\n", b, verdict); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	return nil
}
