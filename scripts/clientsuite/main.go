// Command clientsuite runs the test suite of Kurrent's Go client, unmodified, against the
// embedded event store, and says what passed, failed and was left out.
//
// The suite is pinned by the module internal/eventlog/kurrentsuite. It wants fixed
// addresses: 2114 without and 2115 with transport security, 2111 to 2113 for its tests of
// certificates. Run it from the root of the repository.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("clientsuite", flag.ContinueOnError)
	fs.SetOutput(stderr)
	module := fs.String("module", "internal/eventlog/kurrentsuite", "folder of the module that pins the suite")
	verbose := fs.Bool("v", false, "print every test")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if err := suite(ctx, *module, *verbose, stdout); err != nil {
		_, _ = fmt.Fprintln(stderr, "clientsuite:", err) // The exit code says it too.
		return 1
	}
	return 0
}

func suite(ctx context.Context, module string, verbose bool, stdout io.Writer) (err error) {
	certs, err := certificates(ctx, module)
	if err != nil {
		return err
	}
	servers, err := serve(ctx, certs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, servers.close(context.WithoutCancel(ctx))) }()
	t, err := runTests(ctx, module)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(stdout, t.report(verbose)); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	return t.verdict()
}
