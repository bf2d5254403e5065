package main

import (
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
	var dir, listen string
	cmd := &cobra.Command{
		Use: "eventstore", Short: "Serve the embedded event store on an address, for any EventStoreDB client", Args: cobra.NoArgs,
		Example: `  keytrail dev eventstore --data ./es --listen 127.0.0.1:2113
  keytrail serve --eventstore esdb://127.0.0.1:2113?tls=false`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := obs.NewLogger(cmd.ErrOrStderr(), "info", "text")
			if err != nil {
				return err
			}
			srv, err := eventstore.Open(eventstore.Config{Dir: dir, Listen: listen, Clock: clock(), Logger: log})
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), "event store on esdb://%s?tls=false (no authentication: keep it on this machine)\n", srv.Address()); err != nil {
				return errors.Join(fmt.Errorf("print address: %w", err), srv.Close(cmd.Context()))
			}
			<-cmd.Context().Done()
			return srv.Close(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&dir, "data", "data/eventstore", "folder of the log")
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:2113", "address to serve on")
	return cmd
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
