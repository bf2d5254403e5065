package main

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"example.com/keytrail/internal/client"
)

func newPoison() *cobra.Command {
	r := &remote{}
	cmd := &cobra.Command{
		Use:   "poison",
		Short: "Events that the tables could not take in: what they are, and try them again",
		Long: `An event of the log that this program cannot read, say one that a newer program wrote, is
set aside: it stays in the log, the tables go on without it, and every answer says that it
is incomplete. With a program that can read it, 'poison replay' writes its rows, once.`,
		Example: `  keytrail poison list --key-file data/admin.key
  keytrail poison replay --key-file data/admin.key`,
	}
	r.addTo(cmd)
	cmd.AddCommand(newPoisonList(r), newPoisonReplay(r))
	return cmd
}

func poisoned(cmd *cobra.Command, c *client.Client) (poisonAnswer, error) {
	var list poisonAnswer
	err := c.JSON(cmd.Context(), client.Request{Method: http.MethodGet, Path: poisonPath}, nil, &list)
	return list, err
}

func newPoisonList(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List what is set aside, and why", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			defer c.Close()
			list, err := poisoned(cmd, c)
			if err != nil {
				return err
			}
			return printPoison(cmd, r, list)
		},
	}
}

func printPoison(cmd *cobra.Command, r *remote, list poisonAnswer) error {
	if r.json() {
		return printJSON(cmd.OutOrStdout(), list)
	}
	rows := make([][]string, 0, len(list.Events))
	for _, e := range list.Events {
		rows = append(rows, []string{e.Position, e.Stream, e.Revision, e.Type, e.Reason})
	}
	return printTable(cmd.OutOrStdout(), []string{"POSITION", "STREAM", "REVISION", "TYPE", "WHY"}, rows)
}

func newPoisonReplay(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "replay", Short: "Try again what is set aside; exit code 2 if something still is", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			defer c.Close()
			var asked replayAnswer
			if err := c.JSON(cmd.Context(), client.Request{Method: http.MethodPost, Path: poisonPath + "/replay"}, nil, &asked); err != nil {
				return err
			}
			for {
				g, err := generationNamed(cmd.Context(), c, asked.Generation)
				if err != nil {
					return err
				}
				if g.ReplayDone >= asked.Request {
					break
				}
			}
			left, err := poisoned(cmd, c)
			if err != nil {
				return err
			}
			if len(left.Events) == 0 {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "nothing is set aside any more")
				return err
			}
			return errors.Join(printPoison(cmd, r, left), errDifferent)
		},
	}
}
