package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/config"
)

func newGet(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get RESOURCE",
		Short: "Show what the daemon serves",
		Long:  "Show disks, targets, exports, sessions, reservations, attachments, the configuration or the daemon itself.",
		Example: `  vtgt get disks
  vtgt get sessions -o json
  vtgt get config > backup.yaml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return usagef("name what to get: disks, targets, exports, sessions, reservations, attachments, config, history, events or status")
		},
	}
	cmd.AddCommand(
		newResource(g, "disks", "List the disks", "  vtgt get disks\n  vtgt get disks -o yaml", tableDisks),
		newResource(g, "targets", "List the targets and their LUNs", "  vtgt get targets", tableTargets),
		newResource(g, "exports", "List the ways to reach the targets", "  vtgt get exports", tableExports),
		newResource(g, "sessions", "List who is logged in, with the negotiated values", "  vtgt get sessions\n  vtgt get sessions -o json | jq '.[].params.HeaderDigest'", tableSessions),
		newResource(g, "reservations", "List who has registered with disks and reserved them", "  vtgt get reservations\n  vtgt get reservations -o json", tableReservations),
		newGetAttachments(g),
		newGetConfig(g),
		newResource(g, "history", "List the earlier configurations that are kept", "  vtgt get history\n  vtgt get config --revision 7 | vtgt apply -f -", tableHistory),
		newEvents(g),
		newResource(g, "status", "Show the daemon itself", "  vtgt get status", tableStatus),
	)
	return cmd
}

// table prints a resource for people.
type table func(ctx context.Context, c *api.Client, w io.Writer) error

func newResource(g *globals, name, short, example string, t table) *cobra.Command {
	format := "table"
	cmd := &cobra.Command{
		Use:     name,
		Short:   short,
		Example: example,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(format); err != nil {
				return err
			}
			c, ctx, cancel := g.client(cmd)
			defer cancel()
			defer c.Close()
			out := cmd.OutOrStdout()
			switch {
			case format == "table", name == "config" && format == "yaml":
				return t(ctx, c, out)
			}
			b, err := c.Get(ctx, name)
			if err != nil {
				return err
			}
			if format == "yaml" {
				if b, err = toYAML(b); err != nil {
					return err
				}
			}
			_, err = out.Write(b)
			return err
		},
	}
	addOutput(cmd, &format)
	return cmd
}

func addOutput(cmd *cobra.Command, format *string) {
	cmd.Flags().StringVarP(format, "output", "o", *format, "table, json or yaml")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
}

func checkOutput(format string) error {
	if format != "table" && format != "json" && format != "yaml" {
		return usagef("unknown output format %q: use table, json or yaml", format)
	}
	return nil
}

// toYAML turns JSON into YAML with the same names in the same order.
func toYAML(b []byte) ([]byte, error) {
	var n yaml.Node // JSON is YAML
	if err := yaml.Unmarshal(b, &n); err != nil {
		return nil, fmt.Errorf("the daemon's answer is not JSON: %w; use a vtgt of the same version", err)
	}
	block(&n)
	return yaml.Marshal(&n)
}

// block undoes JSON's braces and quotes.
func block(n *yaml.Node) {
	if len(n.Content) > 0 {
		n.Style &^= yaml.FlowStyle
	}
	n.Style &^= yaml.DoubleQuotedStyle
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		// A text that would read as a number or truth value keeps its quotes.
		var v any
		if yaml.Unmarshal([]byte(n.Value), &v) != nil {
			n.Style |= yaml.DoubleQuotedStyle
		} else if _, ok := v.(string); !ok {
			n.Style |= yaml.DoubleQuotedStyle
		}
	}
	for _, c := range n.Content {
		block(c)
	}
}

// columns prints rows under headings, aligned.
func columns(w io.Writer, head string, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, strings.ReplaceAll(head, " ", "\t"))
	for _, r := range rows {
		for i := range r {
			if r[i] == "" {
				r[i] = "-"
			}
		}
		fmt.Fprintln(tw, strings.Join(r, "\t"))
	}
	return tw.Flush()
}

func size(n int64) string { return config.Size(n).String() }

func tableDisks(ctx context.Context, c *api.Client, w io.Writer) error {
	ds, err := c.Disks(ctx)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, d := range ds {
		var fl []string
		for _, f := range []struct {
			on   bool
			name string
		}{{d.Thin, "thin"}, {d.ReadOnly, "read-only"}, {d.Shared, "shared"},
			{d.Reservations != nil && (d.Reservations.Type != "none" || d.Reservations.ReservedBy != ""), "reserved"},
			{d.Reservations != nil && d.Reservations.Lost, "reservations-lost"}} {
			if f.on {
				fl = append(fl, f.name)
			}
		}
		rows = append(rows, []string{d.Name, d.Store, size(d.Size), fmt.Sprintf("%d/%d", d.BlockSize, d.PhysicalBlockSize), d.Cache, strings.Join(fl, ","), d.State, d.Serial, strings.Join(d.LUNs, ",")})
	}
	return columns(w, "NAME STORE SIZE BLOCK CACHE FLAGS STATE SERIAL LUNS", rows)
}

func tableReservations(ctx context.Context, c *api.Client, w io.Writer) error {
	rs, err := c.Reservations(ctx)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, r := range rs {
		keeps := "no"
		if r.Persistent {
			keeps = "yes"
		}
		switch {
		case r.Lost:
			rows = append(rows, []string{r.Disk, "lost", "", "", "", "", "", ""})
		case r.ReservedBy != "":
			rows = append(rows, []string{r.Disk, "RESERVE", "", r.ReservedBy, "", "holder", "", ""})
		}
		for _, g := range r.Registrations {
			role := "registered"
			if g.Holder {
				role = "holder"
			}
			there := "no"
			if g.Attached {
				there = "yes"
			}
			rows = append(rows, []string{r.Disk, r.Type, g.Key, g.Initiator, fmt.Sprintf("%s:%d", g.Target, g.RelativePort), role, there, keeps})
		}
	}
	return columns(w, "DISK TYPE KEY INITIATOR PORT ROLE ATTACHED PERSISTENT", rows)
}

func tableTargets(ctx context.Context, c *api.Client, w io.Writer) error {
	ts, err := c.Targets(ctx)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, t := range ts {
		name := t.IQN
		for _, s := range []string{t.Socket, t.VIO, t.Xen} {
			if s == "" {
				continue
			}
			if name != "" {
				name += ","
			}
			name += s
		}
		first := []string{t.Name, name, fmt.Sprint(t.Sessions)}
		if len(t.LUNs) == 0 {
			rows = append(rows, append(first, "", "", "", ""))
		}
		for _, l := range t.LUNs {
			mode := "rw"
			if l.ReadOnly {
				mode = "ro"
			}
			if a := config.ALUA(t.ALUA).State(); a != config.Optimized {
				mode += "," + string(a)
			}
			rows = append(rows, append(first, fmt.Sprint(l.LUN), l.Disk, size(l.Size), mode))
		}
	}
	return columns(w, "TARGET EXPORT SESSIONS LUN DISK SIZE MODE", rows)
}

func tableExports(ctx context.Context, c *api.Client, w io.Writer) error {
	es, err := c.Exports(ctx)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, e := range es {
		var pid, queues, inFlight, features string
		if v := e.VHost; v != nil {
			inFlight = fmt.Sprint(v.InFlight)
			if v.Since != nil {
				pid, queues, features = fmt.Sprint(v.PID), fmt.Sprintf("%d/%d", v.Started, v.Queues), strings.Join(v.Features, ",")
			}
		}
		if v := e.VIO; v != nil {
			inFlight = fmt.Sprint(v.InFlight)
			if v.Since != nil {
				pid = fmt.Sprint(v.PID)
				features = v.Client
				if v.OS != "" {
					features = fmt.Sprintf("%s, partition %s (%s), limit %d", v.Client, v.Partition, v.OS, v.RequestLimit)
				}
			}
		}
		if v := e.Xen; v != nil {
			inFlight = fmt.Sprint(v.InFlight)
			if v.DomainID != nil {
				features = fmt.Sprintf("domain %d, back end %s, front end %s", *v.DomainID, v.Backend, v.Frontend)
			}
		}
		state := e.State
		if e.Reason != "" {
			state += ": " + e.Reason
		}
		rows = append(rows, []string{e.Kind, e.Target, e.Name, strings.Join(e.Addresses, ","), fmt.Sprint(e.RelativePort), fmt.Sprint(e.Sessions),
			pid, queues, features, inFlight, fmt.Sprint(e.Stuck), state})
	}
	return columns(w, "KIND TARGET NAME ADDRESSES PORT SESSIONS PID QUEUES GUEST INFLIGHT STUCK STATE", rows)
}

func tableSessions(ctx context.Context, c *api.Client, w io.Writer) error {
	ss, err := c.Sessions(ctx)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, s := range ss {
		var from []string
		for _, x := range s.Connections {
			from = append(from, x.Remote)
		}
		target := s.Target
		if s.Discovery {
			target = "(discovery)"
		}
		tsih := fmt.Sprint(s.TSIH)
		if s.Kind != "iscsi" {
			tsih = ""
		}
		if s.VHostTarget != 0 {
			target += fmt.Sprintf(" (virtio target %d)", s.VHostTarget)
		}
		if s.VIOID != 0 {
			target += fmt.Sprintf(" (vio id %d)", s.VIOID)
		}
		rows = append(rows, []string{target, s.Initiator, strings.Join(from, ","), tsih,
			s.Params["HeaderDigest"], s.Params["DataDigest"], time.Since(s.Since).Round(time.Second).String(), fmt.Sprint(s.Commands)})
	}
	return columns(w, "TARGET INITIATOR FROM TSIH HEADERDIGEST DATADIGEST AGE COMMANDS", rows)
}

func tableConfig(ctx context.Context, c *api.Client, w io.Writer) error {
	t, err := c.Config(ctx)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, strings.TrimRight(t.Text, "\n")+"\n")
	return err
}

func tableStatus(ctx context.Context, c *api.Client, w io.Writer) error {
	s, err := c.Status(ctx)
	if err != nil {
		return err
	}
	v, err := c.Version(ctx)
	if err != nil {
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, r := range [][2]string{
		{"state", s.State},
		{"version", v.Version},
		{"process", fmt.Sprint(s.PID)},
		{"started", s.Started.Format(time.RFC3339)},
		{"configuration", fmt.Sprintf("%s, revision %d, applied %s", s.ConfigFile, s.Revision, s.Applied.Format(time.RFC3339))},
		{"state folder", s.StateDir},
		{"portals", strings.Join(s.Portals, ", ")},
		{"disks", fmt.Sprint(s.Disks)},
		{"targets", fmt.Sprint(s.Targets)},
		{"sessions", fmt.Sprint(s.Traffic.Sessions)},
		{"loops", fmt.Sprint(s.Traffic.Loops)},
		{"buffers", fmt.Sprintf("%s of %s", mib(s.Traffic.MemoryUsed), mib(s.Traffic.MemoryLimit))},
	} {
		fmt.Fprintf(tw, "%s:\t%s\n", r[0], r[1])
	}
	return tw.Flush()
}

func mib(n int64) string { return fmt.Sprintf("%.1fMiB", float64(n)/(1<<20)) }

func newVersion(g *globals) *cobra.Command {
	var remote bool
	var format string
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Show the version",
		Example: "  vtgt version\n  vtgt version --daemon     # that of the running daemon",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			v := api.VersionInfo{Version: versionText(), Go: goVersion(), API: api.Version}
			if remote {
				c, ctx, cancel := g.client(cmd)
				defer cancel()
				defer c.Close()
				var err error
				if v, err = c.Version(ctx); err != nil {
					return err
				}
			}
			switch format {
			case "json":
				b, err := json.MarshalIndent(v, "", "  ")
				if err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), string(b))
			case "table":
				fmt.Fprintf(cmd.OutOrStdout(), "vtgt %s (%s)\n", v.Version, v.Go)
			default:
				return usagef("unknown output format %q: use table or json", format)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&remote, "daemon", false, "ask the running daemon")
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table or json")
	return cmd
}
