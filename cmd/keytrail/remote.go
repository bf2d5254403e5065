package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"example.com/keytrail/internal/client"
)

// remote holds the flags of every command that asks a server.
type remote struct {
	server, keyFile, output string
}

// addTo registers the flags on cmd and all its sub-commands.
func (r *remote) addTo(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&r.server, "server", "http://127.0.0.1:8080", "address of the keytrail server")
	f.StringVar(&r.keyFile, "key-file", "data/admin.key", "file that holds the API key to ask with")
	f.StringVarP(&r.output, "output", "o", "table", "how to print: table (for people) or json (for programs)")
}

// client returns a client for the flags; the caller closes it.
func (r *remote) client() (*client.Client, error) {
	if r.output != "table" && r.output != "json" {
		return nil, fmt.Errorf("--output %q: choose table or json", r.output)
	}
	return client.New(client.Config{Server: r.server, KeyFile: r.keyFile})
}

// json reports whether the answer is for programs.
func (r *remote) json() bool { return r.output == "json" }

// printJSON writes v, indented.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// printTable writes rows in columns under head.
func printTable(w io.Writer, head []string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, row := range append([][]string{head}, rows...) {
		if _, err := fmt.Fprintln(t, strings.Join(row, "\t")); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
