package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/config"
)

// howTo is what the Long of every changing command ends with.
const howTo = `

The change is made at once, without touching other sessions, and written into the file
that serve was given; comments and layout of the file survive, and what it held before is
kept (vtgt get history). Where the file cannot be written nothing is changed.`

// changeFlags are the flags of commands that change objects.
type changeFlags struct {
	dry, force bool
	revision   uint64
	format     string
}

func (f *changeFlags) add(cmd *cobra.Command, force string) {
	f.format = "table"
	cmd.Flags().BoolVar(&f.dry, "dry-run", false, "show the difference and change nothing")
	if force != "" {
		cmd.Flags().BoolVar(&f.force, "force", false, force)
	}
	cmd.Flags().Uint64Var(&f.revision, "if-revision", 0, "refuse unless the object is at this `REVISION` (vtgt get … -o json shows it); where one is added: the whole configuration")
	addOutput(cmd, &f.format)
}

// run has the daemon do ops and shows what was done.
func (f *changeFlags) run(g *globals, cmd *cobra.Command, ops ...api.EditOp) error {
	if err := checkOutput(f.format); err != nil {
		return err
	}
	c, ctx, cancel := g.client(cmd)
	defer cancel()
	defer c.Close()
	r, err := c.Edit(ctx, api.EditRequest{Ops: ops, DryRun: f.dry, Force: f.force, Revision: f.revision})
	if err != nil {
		return err
	}
	if len(r.Changes) == 0 && f.format == "table" && len(ops) == 1 && ops[0].Action == config.Remove {
		o := config.Op{Kind: ops[0].Kind, Name: ops[0].Name, LUN: ops[0].LUN}
		fmt.Fprintf(cmd.OutOrStdout(), "%s is not there: nothing to do\n", o.Object())
		return nil
	}
	return showResult(cmd, r, f.format)
}

// showResult prints what was done, or would be.
func showResult(cmd *cobra.Command, r *api.Result, format string) error {
	out := cmd.OutOrStdout()
	if format != "table" {
		b, err := json.MarshalIndent(r, "", "  ")
		if err == nil && format == "yaml" {
			b, err = toYAML(b)
		}
		if err != nil {
			return err
		}
		fmt.Fprintln(out, strings.TrimRight(string(b), "\n"))
		return nil
	}
	for _, ch := range r.Changes {
		fmt.Fprintln(out, ch)
	}
	for _, w := range r.Warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning: "+w)
	}
	n := number(len(r.Changes), "change")
	switch {
	case len(r.Changes) == 0:
		fmt.Fprintln(out, "nothing changes")
	case r.DryRun:
		fmt.Fprintf(out, "%s; nothing was done (dry run)\n", n)
	default:
		fmt.Fprintf(out, "%s applied, revision %d\n", n, r.Revision)
	}
	return nil
}

// args wants arguments of these names.
func args(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, got []string) error {
		switch {
		case len(got) < len(names):
			return usagef("%s: name the %s", cmd.CommandPath(), strings.Join(names[len(got):], " and the "))
		case len(got) > len(names):
			return usagef("%s takes no further argument, not %q", cmd.CommandPath(), got[len(names)])
		}
		return nil
	}
}

// group is a command that only has others below it.
func group(use, short, example string, subs ...*cobra.Command) *cobra.Command {
	var names []string
	for _, s := range subs {
		names = append(names, s.Name())
	}
	cmd := &cobra.Command{
		Use: use, Short: short, Example: example, Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return usagef("name what to do: %s", strings.Join(names, ", "))
		},
	}
	cmd.AddCommand(subs...)
	return cmd
}

// key is a flag that stands for a key of the configuration file.
type key struct {
	flag, key, usage string
	kind             byte // s text, b truth value, n number
}

// addKeys adds a flag for each key; the function gives those that were used.
func addKeys(fs *pflag.FlagSet, keys []key) func() map[string]any {
	get := map[string]func() any{}
	for _, k := range keys {
		switch k.kind {
		case 'b':
			p := fs.Bool(k.flag, false, k.usage)
			get[k.flag] = func() any { return *p }
		case 'n':
			p := fs.Int(k.flag, 0, k.usage)
			get[k.flag] = func() any { return *p }
		default:
			p := fs.String(k.flag, "", k.usage)
			get[k.flag] = func() any {
				if *p == "" {
					return nil // out of the file
				}
				return *p
			}
		}
	}
	return func() map[string]any {
		v := map[string]any{}
		for _, k := range keys {
			if fs.Changed(k.flag) {
				v[k.key] = get[k.flag]()
			}
		}
		return v
	}
}

// rm is a command that removes an object.
func rm(g *globals, kind, long, example, force string, names []string, op func(args []string) (api.EditOp, error)) *cobra.Command {
	var f changeFlags
	var ignore bool
	cmd := &cobra.Command{
		Use:     "rm " + strings.ToUpper(strings.Join(names, " ")),
		Aliases: []string{"remove", "delete"},
		Short:   "Remove a " + kind,
		Long: long + `

To remove what is not there is no error: the command may be repeated.` + howTo,
		Example: example,
		Args:    args(names...),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := op(args)
			if err != nil {
				return err
			}
			o.Action = config.Remove
			return f.run(g, cmd, o)
		},
	}
	f.add(cmd, force)
	cmd.Flags().BoolVar(&ignore, "ignore-missing", true, "what is not there is no error (always so)")
	_ = cmd.Flags().MarkHidden("ignore-missing")
	return cmd
}
