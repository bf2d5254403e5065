// Command mutants puts faults into the embedded event store on purpose, one at a time,
// and demands that the tests see each of them.
//
// A fault is a small replacement in the source. It is compiled through an overlay: the
// tree itself is never touched. A fault whose text is no longer in the source, or that no
// test sees, is a failure. Run it from the root of the repository.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("mutants", flag.ContinueOnError)
	fs.SetOutput(stderr)
	only := fs.String("run", "", "try only the faults whose name matches this expression")
	list := fs.Bool("list", false, "list the faults, and whether their text is in the source, and try none")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	chosen, err := choose(*only)
	if err == nil && *list {
		err = printList(ctx, stdout, chosen)
	} else if err == nil {
		err = try(ctx, chosen, stdout)
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "mutants:", err) // The exit code says it too.
		return 1
	}
	return 0
}

func choose(only string) ([]mutant, error) {
	expression, err := regexp.Compile(only)
	if err != nil {
		return nil, fmt.Errorf("-run: %w", err)
	}
	var chosen []mutant
	for _, m := range append(streamFaults(), serverFaults()...) {
		if expression.MatchString(m.name) {
			chosen = append(chosen, m)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("no fault is called %q", only)
	}
	return chosen, nil
}

func printList(ctx context.Context, w io.Writer, chosen []mutant) error {
	b, err := newBench(ctx)
	if err != nil {
		return err
	}
	defer b.close()
	var errs []error
	for _, m := range chosen {
		if _, err := b.overlay(m); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
		}
		if _, err := fmt.Fprintf(w, "%s (%s)\n", m.name, m.suite.name); err != nil {
			return fmt.Errorf("print list: %w", err)
		}
	}
	return errors.Join(errs...)
}

// try runs every chosen fault and prints a table.
func try(ctx context.Context, chosen []mutant, stdout io.Writer) error {
	b, err := newBench(ctx)
	if err != nil {
		return err
	}
	defer b.close()
	table := tabwriter.NewWriter(stdout, 0, 4, 2, ' ', 0)
	killed, bad := 0, 0
	for _, s := range suitesOf(chosen) {
		if v := b.try(ctx, mutant{name: "no fault at all", suite: s}); v.outcome != survived {
			return fmt.Errorf("without a fault %s must pass, but: %s %s", s.name, v.outcome, v.detail)
		}
	}
	for _, m := range chosen {
		v := b.try(ctx, m)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if v.outcome == dead {
			killed++
		} else {
			bad++
		}
		if _, err := fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", v.outcome, m.name, v.took.Round(100*time.Millisecond), v.detail); err != nil {
			return fmt.Errorf("print table: %w", err)
		}
		if err := table.Flush(); err != nil {
			return fmt.Errorf("print table: %w", err)
		}
	}
	if _, err := fmt.Fprintf(stdout, "%d of %d faults were seen\n", killed, len(chosen)); err != nil {
		return fmt.Errorf("print table: %w", err)
	}
	if bad > 0 {
		return fmt.Errorf("%d faults survived, do not build or no longer match the source", bad)
	}
	return nil
}
