package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"example.com/keytrail/ingest"
	"example.com/keytrail/internal/client"
	"example.com/keytrail/internal/simulator"
)

const (
	// demoNativeKeys is how many of keytrail's own keys the demonstration makes.
	demoNativeKeys = 3
	// demoMax bounds the wait until the demonstration is judged.
	demoMax = 10 * time.Minute
	// judgedEvery is how often it looks whether the detector is done.
	judgedEvery = 20 * time.Millisecond
)

// demoFlags say whether to fill the server with a simulated organisation.
type demoFlags struct {
	on   bool
	seed uint64
	uses int
}

func (f *demoFlags) register(fs *pflag.FlagSet) {
	fs.BoolVar(&f.on, "demo", false, "load a simulated organisation with four attacks, and print what was flagged")
	fs.Uint64Var(&f.seed, "demo-seed", 1, "seed of the demonstration: the same seed on the same day makes the same records")
	fs.IntVar(&f.uses, "demo-uses", 120_000, "about how many uses the demonstration has")
}

// check refuses a demonstration on a node that cannot carry it out alone.
func (f *demoFlags) check(cfg serverConfig) error {
	if f.on && (!cfg.roles.has(roleAPI) || !cfg.roles.has(roleWorker)) {
		return errors.New("--demo needs a node with both roles: leave --roles out")
	}
	return nil
}

// load fills the server through its own API, as a user would, and prints what the rules
// found. Loading it again on the same day changes nothing.
func (f *demoFlags) load(ctx context.Context, a *app, out, ui io.Writer) error {
	if !f.on {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, demoMax)
	defer cancel()
	c, err := client.New(client.Config{Server: a.address(), KeyFile: filepath.Join(a.cfg.keystoreDir(), ingest.AdminKeyFile)})
	if err != nil {
		return fmt.Errorf("load demonstration: %w", err)
	}
	defer c.Close()
	native := demoNativeKeys
	if a.first.KeyFile == "" {
		native = 0 // Not the first start: they are there.
	}
	update, done := progress{ui}.bytes("loading a simulated organisation")
	sum, err := simulator.Load(ctx, simulator.LoadOptions{
		Client: c, Config: simulator.Config{Seed: f.seed, End: time.Now().UTC().Truncate(24 * time.Hour), Uses: f.uses},
		NativeKeys: native, Now: time.Now, Progress: update, Notice: progress{ui}.line,
	})
	done()
	if err != nil {
		return fmt.Errorf("load demonstration: %w", err)
	}
	if err := a.judged(ctx); err != nil {
		return fmt.Errorf("wait for the findings: %w", err)
	}
	return f.report(ctx, a, c, sum, out)
}

// judged waits until the tables hold all that is in the log and the rules have seen it:
// twice, since what the rules find is written to the log too.
func (a *app) judged(ctx context.Context) error {
	for range 2 {
		head, err := a.stores.log.Head(ctx, []string{"kt."})
		if err != nil {
			return err
		}
		if err := a.tables.Wait(ctx, head); err != nil {
			return err
		}
		block, _, _ := a.tables.Completed()
		if err := a.evaluated(ctx, block); err != nil {
			return err
		}
	}
	return nil
}

// evaluated waits until the rules have seen all blocks up to block.
func (a *app) evaluated(ctx context.Context, block uint64) error {
	tick := time.NewTicker(judgedEvery)
	defer tick.Stop()
	for a.detectors.evaluated() < block {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// report prints what was loaded, which attacks are hidden in it, and what was flagged.
func (f *demoFlags) report(ctx context.Context, a *app, c *client.Client, sum simulator.Summary, out io.Writer) error {
	var list struct {
		Findings []findingView `json:"findings"`
		Next     string        `json:"next"`
	}
	q := map[string][]string{"limit": {"500"}}
	if err := c.JSON(ctx, client.Request{Method: http.MethodGet, Path: "/v1/findings", Query: q}, nil, &list); err != nil {
		return fmt.Errorf("read findings: %w", err)
	}
	_, err := fmt.Fprintf(out, "\ndemonstration: %d new uses of %d keys in %d accounts (seed %d), %d there before\n\nfour attacks are hidden in it:\n",
		sum.Uses, sum.Keys, sum.Accounts, f.seed, sum.Repeated)
	rows := make([][]string, 0, len(sum.Attacks))
	for _, t := range sum.Attacks {
		rows = append(rows, []string{"  " + t.At.Format("2006-01-02 15:04"), string(t.Key), t.Title})
	}
	err = errors.Join(err, printTable(out, []string{"  WHEN", "KEY", "WHAT"}, rows))
	_, lineErr := fmt.Fprintf(out, "\nflagged, %d findings:\n", len(list.Findings))
	rows = rows[:0]
	for _, v := range list.Findings {
		rows = append(rows, []string{"  " + v.Severity, v.RuleID, v.who(), v.FirstSeen, strconv.FormatUint(v.Count, 10), v.Reason})
	}
	err = errors.Join(err, lineErr, printTable(out, []string{"  SEVERITY", "RULE", "KEY", "FIRST SEEN", "RECORDS", "WHY"}, rows))
	if list.Next != "" {
		_, lineErr = fmt.Fprintln(out, "  and more: keytrail findings list")
		err = errors.Join(err, lineErr)
	}
	_, lineErr = fmt.Fprintf(out, "\nconsole: %s/   administrator key: %s   stop with Ctrl-C\n", a.address(), filepath.Join(a.cfg.keystoreDir(), ingest.AdminKeyFile))
	return errors.Join(err, lineErr)
}
