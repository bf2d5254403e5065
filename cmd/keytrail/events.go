package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"example.com/keytrail/internal/client"
)

// eventView is what the table shows of an activity record.
type eventView struct {
	ID        string `json:"id"`
	EventTime string `json:"eventTime"`
	Action    string `json:"action"`
	Outcome   string `json:"outcome"`
	Severity  string `json:"severity"`
	Message   string `json:"message"`
	Initiator struct {
		ID   string `json:"id"`
		Name string `json:"name"`
		Host struct {
			Address string `json:"address"`
		} `json:"host"`
	} `json:"initiator"`
}

// eventQuery holds the flags that list and export share.
type eventQuery struct{ account, filter, from, to string }

func (q *eventQuery) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&q.account, "account", "", "only records of this account")
	f.StringVar(&q.filter, "filter", "", `which records, such as 'outcome="failure" AND action:"login"'`)
	f.StringVar(&q.from, "from", "", "from this time on: 2026-01-31, 2026-01-31T10:00:00Z or -7d")
	f.StringVar(&q.to, "to", "", "up to, not including, this time")
}

func (q *eventQuery) values() url.Values {
	v := url.Values{}
	for name, s := range map[string]string{"account_id": q.account, "filter": q.filter, "from": q.from, "to": q.to} {
		if s != "" {
			v.Set(name, s)
		}
	}
	return v
}

func newEvents() *cobra.Command {
	r := &remote{}
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Search and export activity records: every command, every refusal, every use",
		Example: `  keytrail events list --filter 'severity="critical"' --from -7d
  keytrail events list --filter 'requestData.keyId="AKIA…" AND NOT outcome="success"'
  keytrail events export --format csv --from 2026-01-01 --out january.csv`,
	}
	r.addTo(cmd)
	cmd.AddCommand(newEventsList(r), newEventsGet(r), newEventsExport(r))
	return cmd
}

func newEventsList(r *remote) *cobra.Command {
	q := &eventQuery{}
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List activity records, newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 {
				return errors.New("--limit: at least 1; for everything use 'keytrail events export'")
			}
			c, err := r.client()
			if err != nil {
				return err
			}
			defer c.Close()
			events, more, err := pages(cmd, c, "/v1/events", "events", q.values(), limit)
			if err != nil {
				return err
			}
			if r.json() {
				return printJSON(cmd.OutOrStdout(), events)
			}
			rows := make([][]string, 0, len(events))
			for _, b := range events {
				var e eventView
				if err := json.Unmarshal(b, &e); err != nil {
					return fmt.Errorf("read a record of the list: %w", err)
				}
				who := e.Initiator.Name
				if who == "" {
					who = e.Initiator.ID
				}
				rows = append(rows, []string{e.EventTime, e.Severity, e.Outcome, e.Action, who, e.Initiator.Host.Address, e.Message})
			}
			if err := printTable(cmd.OutOrStdout(), []string{"TIME", "SEVERITY", "OUTCOME", "ACTION", "WHO", "FROM", "MESSAGE"}, rows); err != nil {
				return err
			}
			return sayMore(cmd, more, limit)
		},
	}
	q.flags(cmd)
	cmd.Flags().IntVar(&limit, "limit", 50, "how many records at the most")
	return cmd
}

// sayMore tells on standard error that a list is not the whole.
func sayMore(cmd *cobra.Command, more bool, limit int) error {
	if !more {
		return nil
	}
	_, err := fmt.Fprintf(cmd.ErrOrStderr(), "there are more than these %d: raise --limit or narrow the question\n", limit)
	return err
}

// pages follows the cursor of a list until limit records are there, and says whether
// there would be more.
func pages(cmd *cobra.Command, c *client.Client, path, field string, q url.Values, limit int) ([]json.RawMessage, bool, error) {
	all := []json.RawMessage{}
	for {
		q.Set("limit", strconv.Itoa(min(limit-len(all), 1000)))
		var page map[string]json.RawMessage
		if err := c.JSON(cmd.Context(), client.Request{Method: http.MethodGet, Path: path, Query: q}, nil, &page); err != nil {
			return nil, false, err
		}
		var items []json.RawMessage
		var next string
		if err := json.Unmarshal(page[field], &items); err != nil {
			return nil, false, fmt.Errorf("read %s of %s: %w", field, path, err)
		}
		if raw := page["next"]; raw != nil {
			if err := json.Unmarshal(raw, &next); err != nil {
				return nil, false, fmt.Errorf("read next of %s: %w", path, err)
			}
		}
		all = append(all, items...)
		if next == "" || len(all) >= limit {
			return all, next != "", nil
		}
		q.Set("cursor", next)
	}
}

func newEventsGet(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "get EVENT-ID", Short: "Show one activity record whole", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			defer c.Close()
			var out json.RawMessage
			if err := c.JSON(cmd.Context(), client.Request{Method: http.MethodGet, Path: "/v1/events/" + url.PathEscape(args[0])}, nil, &out); err != nil {
				return err
			}
			return printJSON(cmd.OutOrStdout(), out)
		},
	}
}

func newEventsExport(r *remote) *cobra.Command {
	q := &eventQuery{}
	var format, out string
	cmd := &cobra.Command{
		Use: "export", Short: "Write all matching records to a file, oldest first, with a trailer that proves it is whole", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			c, err := r.client()
			if err != nil {
				return err
			}
			defer c.Close()
			v := q.values()
			v.Set("format", format)
			w := cmd.OutOrStdout()
			if out != "" {
				f, ferr := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
				if ferr != nil {
					return fmt.Errorf("open export file: %w", ferr)
				}
				defer func() { err = errors.Join(err, f.Close()) }()
				w = f
			}
			return export(cmd, c, v, w)
		},
	}
	q.flags(cmd)
	cmd.Flags().StringVar(&format, "format", "ndjson", "ndjson or csv")
	cmd.Flags().StringVar(&out, "out", "", "write to this new file instead of printing")
	return cmd
}

// export copies the stream. A broken one is an error, never a short file that looks
// whole: the server's trailer is checked to have come.
func export(cmd *cobra.Command, c *client.Client, q url.Values, w io.Writer) error {
	resp, err := c.Do(cmd.Context(), client.Request{Method: http.MethodGet, Path: "/v1/events/export", Query: q})
	if err != nil {
		return err
	}
	n, err := io.Copy(w, resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return fmt.Errorf("the export broke off after %d bytes, it is not whole: %w", n, err)
	}
	count := resp.Trailer.Get("Keytrail-Count")
	if count == "" {
		return fmt.Errorf("the export ended after %d bytes without its trailer, it is not whole", n)
	}
	_, err = fmt.Fprintf(cmd.ErrOrStderr(), "%s records, %d bytes, SHA-256 %s\n", count, n, resp.Trailer.Get("Keytrail-Sha256"))
	return err
}
