package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"example.com/keytrail/internal/client"
	"example.com/keytrail/projections"
)

// rebuildEvery is how often the server is asked how far it is; rebuildPatience is how long
// one that does not answer is waited for: it may be starting.
const (
	rebuildEvery    = time.Second
	rebuildPatience = 2 * time.Minute
)

func newRebuild() *cobra.Command {
	r := &remote{}
	var accept, list bool
	var drop string
	cmd := &cobra.Command{
		Use:   "rebuild NAME",
		Short: "Make all tables anew from the log, while serving",
		Long: `rebuild asks the server for a new set of tables, NAME: made from the log beside the live
ones, compared with them table by table, and swapped in on all nodes at once. A name is
used once.

The server does the work and goes on if this command, or the server itself, is ended:
give the same command again to watch. With differences it stops and lists them; tables
that were made by another program, or without events that are readable now, differ
rightly: --accept-differences lets them take over, and the differences stay on record.

Rows of usage whose events were cut from the log and archived nowhere are carried over from
the live tables, exactly as many as the seals of the horizon say, and the ledger names them.

The tables that answered before are removed after an hour, or with --drop.

Exit code 0: the new tables answer. 2: they differ and were not accepted.`,
		Example: `  keytrail rebuild after_fix --key-file data/admin.key
  keytrail rebuild after_fix --accept-differences
  keytrail rebuild --list
  keytrail rebuild --drop 1`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			defer c.Close()
			switch {
			case list && len(args) == 0 && drop == "":
				return printGenerations(cmd, r, c)
			case drop != "" && len(args) == 0 && !list:
				return c.JSON(cmd.Context(), client.Request{Method: http.MethodDelete, Path: generationsPath + "/" + url.PathEscape(drop)}, nil, nil)
			case len(args) == 1 && drop == "" && !list:
				return watchRebuild(cmd, r, c, args[0], accept)
			}
			return errors.New("give a NAME, or --list, or --drop NAME")
		},
	}
	r.addTo(cmd)
	f := cmd.Flags()
	f.BoolVar(&accept, "accept-differences", false, "take over even if the new tables differ from the live ones")
	f.BoolVar(&list, "list", false, "show every set of tables instead")
	f.StringVar(&drop, "drop", "", "give up the set of tables of this name, or remove one that answered before")
	return cmd
}

// watchRebuild asks for new tables and shows how far they are until they answer.
func watchRebuild(cmd *cobra.Command, r *remote, c *client.Client, name string, accept bool) error {
	var g generationView
	err := c.JSON(cmd.Context(), client.Request{Method: http.MethodPost, Path: generationsPath}, rebuildRequest{Name: name, Accept: accept}, &g)
	if err != nil {
		return err
	}
	update, done := progress{cmd.ErrOrStderr()}.count("making tables " + name)
	ended := false
	end := func() {
		if !ended {
			ended = true
			done()
		}
	}
	defer end()
	for {
		switch projections.GenerationState(g.State) {
		case projections.GenerationLive:
			end()
			return printRebuilt(cmd.OutOrStdout(), r, g)
		case projections.GenerationDiffers:
			end()
			if err := printRebuilt(cmd.OutOrStdout(), r, g); err != nil {
				return err
			}
			return errDifferent
		case projections.GenerationGone:
			return fmt.Errorf("the set of tables %s was given up", name)
		case projections.GenerationBuilding, projections.GenerationRetired:
		}
		if g.stands() {
			end()
			return fmt.Errorf("the tables %s are written no more: %s; give up with --drop %s", name, g.Fault, name)
		}
		position, head, err := g.progress()
		if err != nil {
			return err
		}
		update(position, head)
		if g, err = generationNamed(cmd.Context(), c, name); err != nil {
			return err
		}
	}
}

// stands reports whether the worker that was asked gave g up until an operator has looked.
func (g generationView) stands() bool {
	return g.Runner == string(projections.RunnerStopped) && g.Fault != ""
}

// progress returns how far g is in the log, and how far that reaches.
func (g generationView) progress() (position, head int64, err error) {
	if position, err = strconv.ParseInt(g.Position, 10, 64); err == nil {
		head, err = strconv.ParseInt(g.Head, 10, 64)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read the progress of %s: %w", g.Name, err)
	}
	return position, max(head, position), nil
}

// generationNamed asks for a set of tables after a pause, and again while the server does
// not answer.
func generationNamed(ctx context.Context, c *client.Client, name string) (generationView, error) {
	patience, cancel := context.WithTimeout(ctx, rebuildPatience)
	defer cancel()
	tick := time.NewTicker(rebuildEvery)
	defer tick.Stop()
	var err error
	for {
		select {
		case <-patience.Done():
			return generationView{}, errors.Join(err, fmt.Errorf("ask how far it is: %w", patience.Err()))
		case <-tick.C:
		}
		var list generationsAnswer
		if err = c.JSON(patience, client.Request{Method: http.MethodGet, Path: generationsPath}, nil, &list); err != nil {
			if s, ok := errors.AsType[*client.Error](err); ok && s.Status < http.StatusInternalServerError {
				return generationView{}, err
			}
			continue
		}
		for _, g := range list.Generations {
			if g.Name == name {
				return g, nil
			}
		}
		return generationView{}, fmt.Errorf("the server knows no set of tables %s any more", name)
	}
}

// printRebuilt tells how the new tables compare.
func printRebuilt(out io.Writer, r *remote, g generationView) error {
	if r.json() {
		return printJSON(out, g)
	}
	if g.Compared == nil {
		_, err := fmt.Fprintf(out, "the tables %s answer\n", g.Name)
		return err
	}
	rows := make([][]string, 0, len(g.Compared.Tables))
	count := func(n uint64) string { return strconv.FormatUint(n, 10) }
	for _, t := range g.Compared.Tables {
		rows = append(rows, []string{t.Table, count(t.Rows), count(t.RowsLive), count(t.Differences), count(t.Changed)})
	}
	if err := printTable(out, []string{"TABLE", "ROWS", "ROWS IN " + g.Compared.With, "DIFFER", "CHANGED SINCE"}, rows); err != nil {
		return err
	}
	if n := g.Compared.CarriedRows; n > 0 {
		_, err := fmt.Fprintf(out, "carried over, not made again: %d rows of usage of %d events that were cut from the log and are in no archive\n", n, g.Compared.CarriedEvents)
		if err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	for _, d := range g.Compared.First {
		if _, err := fmt.Fprintf(out, "%s, account %s %s: %s\n", d.Table, d.Account, d.Row, d.What); err != nil {
			return err
		}
	}
	verdict := fmt.Sprintf("the tables %s answer; %d differences up to position %d", g.Name, g.Compared.Differences, g.Compared.Position)
	if g.State == string(projections.GenerationDiffers) {
		verdict = fmt.Sprintf("%d DIFFERENCES up to position %d: the tables %s do not answer. Look at them, then accept them with --accept-differences, or give up with --drop %s",
			g.Compared.Differences, g.Compared.Position, g.Name, g.Name)
	}
	_, err := fmt.Fprintln(out, verdict)
	return err
}

func printGenerations(cmd *cobra.Command, r *remote, c *client.Client) error {
	var list generationsAnswer
	if err := c.JSON(cmd.Context(), client.Request{Method: http.MethodGet, Path: generationsPath}, nil, &list); err != nil {
		return err
	}
	if r.json() {
		return printJSON(cmd.OutOrStdout(), list)
	}
	rows := make([][]string, 0, len(list.Generations))
	for _, g := range list.Generations {
		rows = append(rows, []string{
			g.Name, g.State, g.Position, g.Head, strconv.FormatFloat(g.EventsPerSecond, 'f', 0, 64), strconv.FormatUint(g.Poisoned, 10), g.Holder, g.Fault,
		})
	}
	return printTable(cmd.OutOrStdout(), []string{"NAME", "STATE", "POSITION", "OF", "EVENTS/S", "SET ASIDE", "WRITTEN BY", "FAULT"}, rows)
}
