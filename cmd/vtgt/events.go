package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/daemon"
)

func exists(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Code == daemon.CodeExists
}

func showJSON(cmd *cobra.Command, v any, format string) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err == nil && format == "yaml" {
		b, err = toYAML(b)
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout(), strings.TrimRight(string(b), "\n"))
	return nil
}

func newGetConfig(g *globals) *cobra.Command {
	cmd := newResource(g, "config", "Show the configuration in force, or an earlier one", "  vtgt get config\n  vtgt get config -o json\n  vtgt get config --revision 7   # vtgt get history lists them", tableConfig)
	var revision uint64
	cmd.Flags().Uint64Var(&revision, "revision", 0, "the one that was in force at this `REVISION`")
	inForce := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if revision == 0 {
			return inForce(cmd, args)
		}
		c, ctx, cancel := g.client(cmd)
		defer cancel()
		defer c.Close()
		t, err := c.ConfigAt(ctx, revision)
		if err != nil {
			return err
		}
		if cmd.Flag("output").Value.String() == "json" {
			return showJSON(cmd, t, "json")
		}
		_, err = io.WriteString(cmd.OutOrStdout(), strings.TrimRight(t.Text, "\n")+"\n")
		return err
	}
	return cmd
}

func tableHistory(ctx context.Context, c *api.Client, w io.Writer) error {
	ks, err := c.History(ctx)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, k := range ks {
		note := ""
		if k.Unapplied {
			note = "in the file, never applied"
		}
		rows = append(rows, []string{fmt.Sprint(k.Revision), k.Until.Local().Format(time.RFC3339), fmt.Sprint(k.Size), note})
	}
	return columns(w, "REVISION UNTIL BYTES NOTE", rows)
}

func newEvents(g *globals) *cobra.Command {
	var follow bool
	var since uint64
	format := "table"
	cmd := &cobra.Command{
		Use:     "events",
		Aliases: []string{"event"},
		Short:   "Show what changes, as it happens",
		Long: `Show what changes: disks, LUNs, targets and portals with the revision of the change, and
disks that stop, latch, go on or change their size; and initiators that log in and out.

With --since REVISION it begins after that revision; where the daemon does not know all of
that any more, the first event is a reset: read everything anew.`,
		Example: `  vtgt get events --follow
  vtgt get events --since 12 -o json      # one JSON object a line`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(format); err != nil {
				return err
			}
			if !follow && since == 0 {
				since = daemon.SinceAll
			}
			c, ctx, cancel := g.client(cmd)
			defer cancel()
			defer c.Close()
			if follow {
				// For as long as it is wanted.
				cancel()
				ctx, cancel = signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
				defer cancel()
			}
			out := cmd.OutOrStdout()
			return c.Events(ctx, since, follow, func(e api.Event) error {
				if format == "table" {
					_, err := fmt.Fprintln(out, eventLine(e))
					return err
				}
				b, err := json.Marshal(e)
				if err == nil && format == "yaml" {
					if b, err = toYAML(b); err == nil {
						b = append([]byte("---\n"), b[:len(b)-1]...)
					}
				}
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(out, string(b))
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&follow, "follow", false, "go on until it is interrupted")
	cmd.Flags().Uint64Var(&since, "since", 0, "begin after this `REVISION`; with --follow: now where it is not given, else with all that is known")
	addOutput(cmd, &format)
	return cmd
}

func eventLine(e api.Event) string {
	s := fmt.Sprintf("%s  %d  %-6s %s", e.Time.Local().Format("2006-01-02T15:04:05.000"), e.Revision, e.Action, e.Kind)
	if e.Name != "" {
		s += " " + e.Name
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}
