package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	engine "example.com/keytrail/internal/embedded/clickhouse"
	"example.com/keytrail/internal/keystore"
	"example.com/keytrail/internal/obs"
)

// devClickhouseUser is the one user of 'keytrail dev clickhouse'.
const devClickhouseUser = "keytrail"

// gatewayHeaderMax bounds how long the head of a request to it may take.
const gatewayHeaderMax = 10 * time.Second

// devClickhouse is what 'keytrail dev clickhouse' is told.
type devClickhouse struct {
	dir, run, listen, passwordFile string
	allowRemote                    bool
	engine                         engineFlags
}

func newDevClickhouse() *cobra.Command {
	var d devClickhouse
	cmd := &cobra.Command{
		Use: "clickhouse", Short: "Serve the embedded ClickHouse engine's HTTP interface", Args: cobra.NoArgs,
		Long: `clickhouse runs the embedded engine alone, for several keytrail nodes or any ClickHouse
client that speaks HTTP: on a unix socket, and with --listen on an address, where the user
keytrail and a password are asked for. The password is made at the first start and kept in
DATA/password (0600).`,
		Example: `  keytrail dev clickhouse --data ./ch --listen 127.0.0.1:8123
  keytrail serve --clickhouse "http://keytrail:$(cat ./ch/password)@127.0.0.1:8123/"
  curl --unix-socket SOCKET 'http://x/?query=SELECT+version()'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := obs.NewLogger(cmd.ErrOrStderr(), "info", "text")
			if err != nil {
				return err
			}
			return d.serve(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), log)
		},
	}
	f := cmd.Flags()
	f.StringVar(&d.dir, "data", filepath.Join("data", "clickhouse"), "folder of the tables")
	f.StringVar(&d.run, "socket-folder", "", "short folder for the socket (default: a new one)")
	f.StringVar(&d.listen, "listen", "", "address to serve on as well, as 127.0.0.1:8123; port 0 takes a free one")
	f.StringVar(&d.passwordFile, "password-file", "", "file with the password of the user keytrail (default: DATA/password, made at the first start)")
	f.BoolVar(&d.allowRemote, "allow-remote", false, "listen on an address that other machines reach; passwords and data travel in the clear")
	d.engine.register(f)
	return cmd
}

func (d *devClickhouse) serve(ctx context.Context, out, ui io.Writer, log *slog.Logger) (err error) {
	listener, password, err := d.open(ctx)
	if err != nil {
		return err
	}
	if listener != nil {
		defer func() {
			if closeErr := listener.Close(); !errors.Is(closeErr, net.ErrClosed) {
				err = errors.Join(err, closeErr)
			}
		}()
	}
	lib, err := d.engine.ensure(ctx, progress{ui})
	if err != nil {
		return err
	}
	srv, err := engine.Start(ctx, engine.Config{Dir: d.dir, Library: lib, RuntimeDir: d.run, Connections: engineConnections, AllowUnconfined: d.engine.allowUnconfined, Logger: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.Close()) }()
	text := fmt.Sprintf("ClickHouse on unix socket %s\n", srv.Socket())
	if listener != nil {
		text += fmt.Sprintf("ClickHouse listening on %s (user %s, password in %s)\n", listener.Addr(), devClickhouseUser, d.passwordPath())
	}
	if _, err := io.WriteString(out, text); err != nil {
		return fmt.Errorf("print address: %w", err)
	}
	if listener == nil {
		<-ctx.Done()
		return nil
	}
	return serveGateway(ctx, listener, newHTTPGateway(srv, password, log))
}

// newHTTPGateway is the server that stands before the engine. Statements may take long: it
// bounds only the head of a request.
func newHTTPGateway(srv *engine.Server, password string, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           engine.NewGateway(srv.Socket(), devClickhouseUser, password, log),
		ReadHeaderTimeout: gatewayHeaderMax,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

// serveGateway serves until ctx ends, and lets statements under way end.
func serveGateway(ctx context.Context, listener net.Listener, server *http.Server) error {
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve ClickHouse: %w", err)
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeMax)
	defer cancel()
	err := server.Shutdown(last)
	if err != nil {
		err = errors.Join(fmt.Errorf("statements under way were cut off: %w", err), server.Close())
	}
	if ended := <-failed; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serve ClickHouse: %w", ended))
	}
	return err
}

// open listens and reads the password, where an address is named.
func (d *devClickhouse) open(ctx context.Context) (net.Listener, string, error) {
	if d.listen == "" {
		return nil, "", nil
	}
	if !d.allowRemote && !onLoopback(d.listen) {
		return nil, "", fmt.Errorf("--listen %s is reached from other machines, in the clear: listen on 127.0.0.1, or say --allow-remote", d.listen)
	}
	password, err := d.password()
	if err != nil {
		return nil, "", err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", d.listen)
	if err != nil {
		return nil, "", fmt.Errorf("listen on %s: %w (choose another with --listen)", d.listen, err)
	}
	return listener, password, nil
}

// onLoopback reports whether address is of this machine alone.
func onLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func (d *devClickhouse) passwordPath() string {
	if d.passwordFile != "" {
		return d.passwordFile
	}
	return filepath.Join(d.dir, "password")
}

// password reads the password, making one where none is named.
func (d *devClickhouse) password() (string, error) {
	path := d.passwordPath()
	if d.passwordFile == "" {
		if err := makePrivate(d.dir); err != nil {
			return "", err
		}
		if _, err := keystore.CreateFile(path, []byte(rand.Text()+"\n")); err != nil {
			return "", fmt.Errorf("make a password: %w", err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read password: %w (name its file with --password-file)", err)
	}
	password := string(bytes.TrimSpace(data))
	if password == "" {
		return "", fmt.Errorf("%s holds no password", path)
	}
	return password, nil
}
