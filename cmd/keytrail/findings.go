package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"example.com/keytrail/internal/client"
)

// findingView is what the table shows of a finding.
type findingView struct {
	ID        string `json:"id"`
	RuleID    string `json:"rule_id"`
	Severity  string `json:"severity"`
	KeyID     string `json:"key_id"`
	IAMID     string `json:"iam_id"`
	AccountID string `json:"account_id"`
	Reason    string `json:"reason"`
	FirstSeen string `json:"first_seen"`
	Count     uint64 `json:"count"`
}

func (f findingView) who() string {
	if f.KeyID != "" {
		return f.KeyID
	}
	return f.IAMID
}

func newFindings() *cobra.Command {
	r := &remote{}
	cmd := &cobra.Command{
		Use:   "findings",
		Short: "Which key looks wrong, why, and on what evidence",
		Example: `  keytrail findings list
  keytrail findings list --severity high -o json
  keytrail findings get 3f1c…`,
	}
	r.addTo(cmd)
	cmd.AddCommand(newFindingsList(r), newFindingsGet(r))
	return cmd
}

func newFindingsList(r *remote) *cobra.Command {
	q := url.Values{}
	given := map[string]*string{"severity": new(string), "rule_id": new(string), "key_id": new(string), "account_id": new(string), "status": new(string)}
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List findings, newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 {
				return errors.New("--limit: at least 1")
			}
			for name, v := range given {
				if *v != "" {
					q.Set(name, *v)
				}
			}
			c, err := r.client()
			if err != nil {
				return err
			}
			defer c.Close()
			list, more, err := pages(cmd, c, "/v1/findings", "findings", q, limit)
			if err != nil {
				return err
			}
			if r.json() {
				return printJSON(cmd.OutOrStdout(), list)
			}
			if err := printFindings(cmd, list); err != nil {
				return err
			}
			return sayMore(cmd, more, limit)
		},
	}
	f := cmd.Flags()
	f.StringVar(given["severity"], "severity", "", "only low, medium, high or critical ones")
	f.StringVar(given["rule_id"], "rule", "", "only those of this rule")
	f.StringVar(given["key_id"], "key", "", "only those about this key")
	f.StringVar(given["account_id"], "account", "", "only those of this account")
	f.StringVar(given["status"], "status", "", "only open ones, say")
	f.IntVar(&limit, "limit", 100, "how many at the most")
	return cmd
}

func printFindings(cmd *cobra.Command, list []json.RawMessage) error {
	rows := make([][]string, 0, len(list))
	for _, b := range list {
		var f findingView
		if err := json.Unmarshal(b, &f); err != nil {
			return fmt.Errorf("read a finding of the list: %w", err)
		}
		rows = append(rows, []string{f.Severity, f.RuleID, f.who(), f.FirstSeen, strconv.FormatUint(f.Count, 10), f.Reason, f.ID})
	}
	return printTable(cmd.OutOrStdout(), []string{"SEVERITY", "RULE", "KEY", "FIRST SEEN", "RECORDS", "WHY", "ID"}, rows)
}

func newFindingsGet(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "get FINDING-ID", Short: "Show one finding with its evidence", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			defer c.Close()
			var out json.RawMessage
			if err := c.JSON(cmd.Context(), client.Request{Method: http.MethodGet, Path: "/v1/findings/" + url.PathEscape(args[0])}, nil, &out); err != nil {
				return err
			}
			return printJSON(cmd.OutOrStdout(), out)
		},
	}
}
