package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"example.com/keytrail/internal/embedded/eventstore"
	"example.com/keytrail/internal/obs"
)

func newDev() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run one embedded store alone, or fetch the engine: for developers",
	}
	cmd.AddCommand(newDevEventstore(), newDevClickhouse(), newDevEngine())
	return cmd
}

func newDevEventstore() *cobra.Command {
	var cfg eventstore.Config
	cmd := &cobra.Command{
		Use: "eventstore", Short: "Serve the embedded event store on an address, for any EventStoreDB client", Args: cobra.NoArgs,
		Long: `eventstore serves the log of a data folder with EventStoreDB's protocol: Streams (reads,
subscriptions, appends, batch appends, deletes), ServerFeatures and Gossip. Persistent
subscriptions, projections and users are EventStoreDB's own and are refused with a sentence.

An address wants a certificate, its key and a users file. --insecure leaves all three out
and is taken for an address of this machine only.

The users file has a line a user: name:hash or name:hash:group,group. The hash is bcrypt or
argon2id ("htpasswd -nB alice" makes a line). Members of $admins, and the user admin, may do
everything; others what a stream's $acl lets them, and without one everything but streams
that begin with $ and reading $all.`,
		Example: `  keytrail dev eventstore --data ./es --listen 127.0.0.1:2113 --insecure
  keytrail serve --eventstore 'esdb://127.0.0.1:2113?tls=false'

  htpasswd -nB admin > users && chmod 600 users
  keytrail dev eventstore --data ./es --listen :2113 --tls-cert node.crt --tls-key node.key --users-file users
  keytrail serve --eventstore 'esdb://admin:PASSWORD@log.example:2113?tls=true&tlsCAFile=ca.crt'`,
		RunE: func(cmd *cobra.Command, _ []string) error { return serveEventstore(cmd, cfg) },
	}
	fs := cmd.Flags()
	fs.StringVar(&cfg.Dir, "data", "data/eventstore", "folder of the log")
	fs.StringVar(&cfg.Listen, "listen", "127.0.0.1:2113", "address to serve on")
	fs.StringVar(&cfg.CertFile, "tls-cert", "", "certificate of the address, PEM")
	fs.StringVar(&cfg.KeyFile, "tls-key", "", "private key of the certificate, PEM")
	fs.StringVar(&cfg.UsersFile, "users-file", "", "file of users and password hashes")
	fs.BoolVar(&cfg.Insecure, "insecure", false, "serve without transport security and without users, on an address of this machine")
	return cmd
}

func serveEventstore(cmd *cobra.Command, cfg eventstore.Config) error {
	var err error
	cfg.Clock = clock()
	tuneProcessors()
	if cfg.Logger, err = obs.NewLogger(cmd.ErrOrStderr(), "info", "text"); err != nil {
		return err
	}
	srv, err := eventstore.Open(cfg)
	if err != nil {
		return fmt.Errorf("%w (flags: --data, --listen, --tls-cert, --tls-key, --users-file, --insecure)", err)
	}
	security := "tls=true (with a user of the users file)"
	if cfg.Insecure {
		security = "tls=false (no authentication: keep it on this machine)"
	}
	if _, err := fmt.Fprintf(cmd.OutOrStdout(), "event store on esdb://%s?%s\n", srv.Address(), security); err != nil {
		return errors.Join(fmt.Errorf("print address: %w", err), srv.Close(cmd.Context()))
	}
	// Until the context ends; at once where the operator has set the collector.
	if err := tuneGarbage(cmd.Context()); err != nil {
		return errors.Join(err, srv.Close(cmd.Context()))
	}
	<-cmd.Context().Done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), closeMax)
	defer cancel()
	return srv.Close(ctx)
}

func newDevEngine() *cobra.Command {
	var f engineFlags
	cmd := &cobra.Command{
		Use: "engine", Short: "Fetch the analytics engine and print where it is", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			lib, err := f.ensure(cmd.Context(), progress{cmd.ErrOrStderr()})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), lib)
			return err
		},
	}
	f.register(cmd.Flags())
	return cmd
}
