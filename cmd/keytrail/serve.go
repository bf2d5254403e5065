package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"example.com/keytrail/internal/obs"
)

func newServe() *cobra.Command {
	var cfg serverConfig
	var level, format string
	var demo demoFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server: API, console, projections, detector",
		Long: `serve runs keytrail. By default both stores run inside, in the data folder: an event log
on SQLite that speaks EventStoreDB's protocol, and the ClickHouse engine in a confined
child process, fetched once with npm. With --eventstore and --clickhouse it uses servers.

Several nodes work on one pair of servers, each with a data folder of its own and all with
one folder for the key store. A node may do one of the two roles: api serves, worker makes
tables and findings; of several workers one is active and the others stand by.

The first start makes an account, its owner, and one administrator key, kept in
DATA/admin.key (0600), or in the folder of --keystore. Without TLS in front of it, listen on the loopback address only.`,
		Example: `  keytrail serve --data ./data
  keytrail serve --data ./data --listen 127.0.0.1:9000 --demo
  keytrail serve --data ./api1 --roles api --keystore ./shared --eventstore 'esdb://es:2113' --clickhouse 'clickhouse://ch:9000/'
  keytrail serve --data ./data --eventstore 'esdb://admin:…@es:2113' --clickhouse 'clickhouse://keytrail:…@ch:9000/'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := obs.NewLogger(cmd.ErrOrStderr(), level, format)
			if err != nil {
				return err
			}
			if err := demo.check(cfg); err != nil {
				return err
			}
			a, err := newApp(cmd.Context(), cfg, progress{cmd.ErrOrStderr()}, log)
			if err != nil {
				return err
			}
			return a.run(cmd.Context(), func(ctx context.Context) error {
				if err := a.greet(cmd.OutOrStdout()); err != nil {
					return err
				}
				return demo.load(ctx, a, cmd.OutOrStdout(), cmd.ErrOrStderr())
			})
		},
	}
	f := cmd.Flags()
	cfg.stores.register(f)
	cfg.roles = roles{roleAPI, roleWorker}
	f.Var(&cfg.roles, "roles", "what this node does: api, worker or both")
	f.StringVar(&cfg.listen, "listen", "127.0.0.1:8080", "address to serve on; port 0 takes a free one")
	f.StringVar(&cfg.keystore, "keystore", "", "folder with the key store and the administrator key, shared by all nodes (default: the data folder)")
	f.StringVar(&cfg.masterKeyFile, "master-key-file", "", "file with the master key of the key store (default: master.key beside it, made at the first start)")
	cfg.horizon.register(f)
	f.StringVar(&cfg.rules, "rules", "", "folder with detection rules that add to or override the built-in ones")
	f.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&format, "log-format", "text", "text or json")
	demo.register(f)
	return cmd
}

// greet says where the server is and how to sign in.
func (a *app) greet(out io.Writer) error {
	text := fmt.Sprintf("keytrail %s listening on %s\n", version(), a.address())
	if a.first.KeyFile != "" {
		text += fmt.Sprintf("administrator key: in %s (made now; move it to your secret store)\n", a.first.KeyFile)
	}
	if _, err := io.WriteString(out, text); err != nil {
		return fmt.Errorf("print address: %w", err)
	}
	return nil
}
