package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"example.com/keytrail/internal/client"
)

// keyView is what the command line shows of a key: a part of IBM's shape.
type keyView struct {
	ID          string `json:"id"`
	EntityTag   string `json:"entity_tag"`
	Name        string `json:"name"`
	Description string `json:"description"`
	IAMID       string `json:"iam_id"`
	AccountID   string `json:"account_id"`
	Locked      bool   `json:"locked"`
	Disabled    bool   `json:"disabled"`
	CreatedAt   string `json:"created_at"`
	ExpiresAt   string `json:"expires_at"`
	Value       string `json:"apikey"`
}

func (k keyView) state() string {
	switch {
	case k.Locked && k.Disabled:
		return "locked, disabled"
	case k.Locked:
		return "locked"
	case k.Disabled:
		return "disabled"
	}
	return "active"
}

func newKeys() *cobra.Command {
	r := &remote{}
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Create, list, change and end API keys",
		Example: `  keytrail keys create --name deploy --out deploy.key
  keytrail keys list
  keytrail keys get ApiKey-… --as-of 2026-01-31T00:00:00Z
  keytrail keys disable ApiKey-…`,
	}
	r.addTo(cmd)
	cmd.AddCommand(newKeysList(r), newKeysGet(r), newKeysCreate(r), newKeysUpdate(r))
	for _, a := range []struct{ verb, short, method, suffix string }{
		{"lock", "Refuse updates and deletion of a key; it still works", http.MethodPost, "/lock"},
		{"unlock", "Allow changes of a locked key again", http.MethodDelete, "/lock"},
		{"disable", "Refuse a key at its next use", http.MethodPost, "/disable"},
		{"enable", "Let a disabled key work again", http.MethodDelete, "/disable"},
		{"delete", "End a key for good; its history stays", http.MethodDelete, ""},
	} {
		cmd.AddCommand(newKeysAct(r, a.verb, a.short, a.method, a.suffix))
	}
	cmd.AddCommand(adminCall{
		use: "rotate KEY-ID", short: "Make a key's successor, whose secret is shown once; the old key ends by itself", example: "keys rotate ApiKey-… --overlap 36h",
		method: http.MethodPost, path: "/v1/apikeys/{1}/rotate", columns: []string{"id", "name", "apikey", "iam_id", "account_id", "expires_at"},
		flags: []adminFlag{{name: "overlap", usage: "how long the old key goes on: such as 36h; 24h if not given, 0s ends it at once"}},
	}.command(r))
	return cmd
}

func newKeysAct(r *remote, verb, short, method, suffix string) *cobra.Command {
	return &cobra.Command{
		Use: verb + " KEY-ID", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			defer c.Close()
			return c.JSON(cmd.Context(), client.Request{Method: method, Path: "/v1/apikeys/" + url.PathEscape(args[0]) + suffix}, nil, nil)
		},
	}
}

func newKeysList(r *remote) *cobra.Command {
	q := url.Values{}
	var account, filter string
	cmd := &cobra.Command{
		Use: "list", Short: "List all keys that you may see, page after page", Args: cobra.NoArgs,
		Example: `  keytrail keys list --filter 'name co "deploy"' -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			defer c.Close()
			q.Set("pagesize", "100")
			q.Set("scope", "account")
			if account != "" {
				q.Set("account_id", account)
			}
			if filter != "" {
				q.Set("filter", filter)
			}
			keys, err := listKeys(cmd.Context(), c, q)
			if err != nil {
				return err
			}
			if r.json() {
				return printJSON(cmd.OutOrStdout(), keys)
			}
			rows := make([][]string, 0, len(keys))
			for _, b := range keys {
				var k keyView
				if err := json.Unmarshal(b, &k); err != nil {
					return fmt.Errorf("read a key of the list: %w", err)
				}
				rows = append(rows, []string{k.ID, k.Name, k.state(), k.IAMID, k.AccountID, k.CreatedAt, k.ExpiresAt})
			}
			return printTable(cmd.OutOrStdout(), []string{"ID", "NAME", "STATE", "IDENTITY", "ACCOUNT", "CREATED", "EXPIRES"}, rows)
		},
	}
	cmd.Flags().StringVar(&account, "account", "", "only keys of this account")
	cmd.Flags().StringVar(&filter, "filter", "", `SCIM filter, such as 'name co "deploy"'`)
	return cmd
}

// listKeys follows the pages to their end.
func listKeys(ctx context.Context, c *client.Client, q url.Values) ([]json.RawMessage, error) {
	keys := []json.RawMessage{}
	for {
		var page struct {
			Next string            `json:"next"`
			Keys []json.RawMessage `json:"apikeys"`
		}
		if err := c.JSON(ctx, client.Request{Method: http.MethodGet, Path: "/v1/apikeys", Query: q}, nil, &page); err != nil {
			return nil, err
		}
		keys = append(keys, page.Keys...)
		if page.Next == "" {
			return keys, nil
		}
		next, err := url.Parse(page.Next)
		if err != nil || next.Query().Get("pagetoken") == "" {
			return nil, fmt.Errorf("the server's next page %q has no pagetoken", page.Next)
		}
		q.Set("pagetoken", next.Query().Get("pagetoken"))
	}
}

func newKeysGet(r *remote) *cobra.Command {
	var asOf, account string
	var history bool
	cmd := &cobra.Command{
		Use: "get KEY-ID", Short: "Show one key, now or as it was", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			defer c.Close()
			q := url.Values{}
			if asOf != "" {
				q.Set("as_of", asOf)
			}
			if account != "" {
				q.Set("account_id", account)
			}
			if history {
				q.Set("include_history", "true")
			}
			var out json.RawMessage
			if err := c.JSON(cmd.Context(), client.Request{Method: http.MethodGet, Path: "/v1/apikeys/" + url.PathEscape(args[0]), Query: q}, nil, &out); err != nil {
				return err
			}
			return printJSON(cmd.OutOrStdout(), out)
		},
	}
	cmd.Flags().StringVar(&asOf, "as-of", "", "the key as it was then: 2026-01-31T00:00:00Z or -7d")
	cmd.Flags().StringVar(&account, "account", "", "the account of an external key, if it is in several")
	cmd.Flags().BoolVar(&history, "history", false, "show every change too")
	return cmd
}

// keyInput is what a create or update sends; a nil field is not sent.
type keyInput struct {
	Name         *string `json:"name,omitempty"`
	IAMID        *string `json:"iam_id,omitempty"`
	AccountID    *string `json:"account_id,omitempty"`
	Description  *string `json:"description,omitempty"`
	ExpiresAt    *string `json:"expires_at,omitempty"`
	ActionOnLeak *string `json:"action_when_leaked,omitempty"`
	Type         *string `json:"type,omitempty"` // Of a new key.
}

// flags registers the inputs that create and update share.
func (in *keyInput) flags(cmd *cobra.Command) map[string]**string {
	fields := map[string]**string{"name": &in.Name, "description": &in.Description, "expires-at": &in.ExpiresAt, "action-when-leaked": &in.ActionOnLeak}
	cmd.Flags().String("name", "", "name of the key")
	cmd.Flags().String("description", "", "what it is for")
	cmd.Flags().String("expires-at", "", "when it ends: 2027-01-31T00:00+0000; empty for never")
	cmd.Flags().String("action-when-leaked", "", "none, disable (default) or delete")
	return fields
}

// take copies the flags that were given into their fields.
func take(cmd *cobra.Command, fields map[string]**string) error {
	for name, field := range fields {
		if !cmd.Flags().Changed(name) {
			continue
		}
		v, err := cmd.Flags().GetString(name)
		if err != nil {
			return fmt.Errorf("read --%s: %w", name, err)
		}
		*field = &v
	}
	return nil
}

func newKeysCreate(r *remote) *cobra.Command {
	in := &keyInput{}
	var out string
	cmd := &cobra.Command{
		Use: "create", Short: "Create a key; its secret is shown once, or written to a 0600 file", Args: cobra.NoArgs,
		Example: `  keytrail keys create --name deploy --out deploy.key --expires-at 2027-01-31T00:00+0000`,
	}
	fields := in.flags(cmd)
	fields["iam-id"], fields["account"], fields["type"] = &in.IAMID, &in.AccountID, &in.Type
	cmd.Flags().String("type", "", "classic makes a classic infrastructure key; what the identity's keys are if not given")
	cmd.Flags().String("iam-id", "", "identity that the key acts as; yours if not given")
	cmd.Flags().String("account", "", "account of the key; that of your own key if not given")
	cmd.Flags().StringVar(&out, "out", "", "write the secret to this new file instead of printing it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := take(cmd, fields); err != nil {
			return err
		}
		c, err := r.client()
		if err != nil {
			return err
		}
		defer c.Close()
		return createKey(cmd, c, in, out)
	}
	return cmd
}

// createKey creates the key. The file is opened first, so that a secret that is shown
// once is not lost to a file that cannot be written.
func createKey(cmd *cobra.Command, c *client.Client, in *keyInput, out string) (err error) {
	var f *os.File
	if out != "" {
		f, err = os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("open file for the secret: %w", err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
	}
	if in.IAMID == nil {
		var me struct {
			IAMID string `json:"iam_id"`
		}
		if err := c.JSON(cmd.Context(), client.Request{Method: http.MethodGet, Path: "/v1/apikeys/details", Header: http.Header{"Iam-Apikey": {c.Key()}}}, nil, &me); err != nil {
			return fmt.Errorf("ask who you are: %w", err)
		}
		in.IAMID = &me.IAMID
	}
	var raw json.RawMessage
	if err := c.JSON(cmd.Context(), client.Request{Method: http.MethodPost, Path: "/v1/apikeys"}, in, &raw); err != nil {
		return err
	}
	if f == nil {
		return printJSON(cmd.OutOrStdout(), raw)
	}
	var k keyView
	if err := json.Unmarshal(raw, &k); err != nil {
		return fmt.Errorf("read the new key: %w", err)
	}
	if _, err := f.WriteString(k.Value + "\n"); err != nil {
		return fmt.Errorf("write secret of %s: %w", k.ID, err)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s created, its secret is in %s\n", k.ID, out)
	return err
}

func newKeysUpdate(r *remote) *cobra.Command {
	in := &keyInput{}
	var tag string
	cmd := &cobra.Command{
		Use: "update KEY-ID", Short: "Change the given fields of a key, and no others", Args: cobra.ExactArgs(1),
		Example: `  keytrail keys update ApiKey-… --expires-at ""        (never expires)`,
	}
	fields := in.flags(cmd)
	cmd.Flags().StringVar(&tag, "if-match", "*", "entity tag that you saw; * for whatever it is now")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := take(cmd, fields); err != nil {
			return err
		}
		c, err := r.client()
		if err != nil {
			return err
		}
		defer c.Close()
		var out json.RawMessage
		req := client.Request{Method: http.MethodPut, Path: "/v1/apikeys/" + url.PathEscape(args[0]), Header: http.Header{"If-Match": {tag}}}
		if err := c.JSON(cmd.Context(), req, in, &out); err != nil {
			return err
		}
		return printJSON(cmd.OutOrStdout(), out)
	}
	return cmd
}
