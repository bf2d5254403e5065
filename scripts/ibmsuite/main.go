// Command ibmsuite runs the integration tests of IBM's Go SDK for IAM Identity,
// unmodified, against a keytrail binary, and says which pass, which do not, and why. Then
// it runs the life of a key through IBM's Node SDK.
//
// The module scripts/ibmsuite/suite pins the tests. All of them are run; those about what
// keytrail does not have (trusted profiles, templates, identity providers …) fail, and the
// report counts them apart, by reason. A test that is in passed.txt must pass. Run it from
// the root of the repository.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"example.com/keytrail/internal/launch"
)

// options are the command's flags.
type options struct {
	binary string
	module string
	node   string
	passed string
	update bool
	detail bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	fs := flag.NewFlagSet("ibmsuite", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.binary, "binary", filepath.Join("bin", "keytrail"), "the keytrail binary")
	fs.StringVar(&o.module, "module", filepath.Join("scripts", "ibmsuite", "suite"), "folder of the module that pins the tests")
	fs.StringVar(&o.node, "node", filepath.Join("scripts", "ibmsuite", "node"), "folder of the test with IBM's Node SDK")
	fs.StringVar(&o.passed, "passed", filepath.Join("scripts", "ibmsuite", "passed.txt"), "file with the tests that must pass")
	fs.BoolVar(&o.update, "update", false, "write what passes into that file")
	fs.BoolVar(&o.detail, "v", false, "print every test")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if err := suite(ctx, o, stdout); err != nil {
		_, _ = fmt.Fprintln(stderr, "ibmsuite:", err) // The exit code says it too.
		return 1
	}
	return 0
}

func suite(ctx context.Context, o options, stdout io.Writer) (err error) {
	must, err := readNames(o.passed)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "kt-ibmsuite-")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	tests, err := build(ctx, o.module, dir)
	if err != nil {
		return err
	}
	srv, err := launch.Start(ctx, launch.Config{Binary: o.binary, Data: filepath.Join(dir, "data")})
	if err != nil {
		return fmt.Errorf("%w ('make build' makes the binary, 'keytrail dev engine' fetches the engine)", err)
	}
	defer func() { err = errors.Join(err, srv.Stop()) }()
	who, err := whoAmI(ctx, srv)
	if err != nil {
		return err
	}
	if err := writeConfig(who, dir); err != nil {
		return err
	}
	t, err := runTests(ctx, tests, dir)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(stdout, t.report(o.detail)); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	if o.update {
		return writeNames(o.passed, t.named(statePassed))
	}
	said, err := nodeLifecycle(ctx, o.node, who.env())
	if err != nil {
		return errors.Join(err, t.verdict(must))
	}
	if _, err := io.WriteString(stdout, said); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	return t.verdict(must)
}
