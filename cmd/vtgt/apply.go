package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/vtgt/vtgt/config"
)

// readConfig reads the file of -f; "-" is standard input.
func readConfig(cmd *cobra.Command, file string) ([]byte, error) {
	switch file {
	case "":
		return nil, usagef("no configuration is named: add -f FILE")
	case "-":
		return io.ReadAll(io.LimitReader(cmd.InOrStdin(), 16<<20+1))
	}
	return config.ReadFile(file)
}

// absolute is the path of file from the root on: the daemon has another folder.
func absolute(file string) string {
	if abs, err := filepath.Abs(file); err == nil {
		return abs
	}
	return file
}

func newApply(g *globals) *cobra.Command {
	var file string
	var dry bool
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Make the daemon serve what a configuration file says",
		Long: `Give the daemon a whole configuration. What it has in common with the present one is not
touched; what is not in it any more is removed. It is applied as a whole or not at all.

The daemon does not keep the file: when it starts again it reads the one that serve was
given.`,
		Example: `  vtgt apply -f /etc/vtgt/vtgt.yaml --dry-run   # what would change
  vtgt apply -f /etc/vtgt/vtgt.yaml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readConfig(cmd, file)
			if err != nil {
				return err
			}
			c, ctx, cancel := g.client(cmd)
			defer cancel()
			defer c.Close()
			name := absolute(file)
			if file == "-" {
				name = "stdin"
			}
			before, err := c.Config(ctx)
			if err != nil {
				return err
			}
			r, err := c.Apply(ctx, name, text, dry)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			for _, ch := range r.Changes {
				fmt.Fprintln(out, ch)
			}
			for _, w := range r.Warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning: "+w)
			}
			switch {
			case len(r.Changes) == 0:
				fmt.Fprintln(out, "nothing changes")
			case dry:
				fmt.Fprintf(out, "%d changes; nothing was done (dry run)\n", len(r.Changes))
			default:
				fmt.Fprintf(out, "%d changes applied, revision %d\n", len(r.Changes), r.Revision)
			}
			if !dry && before.File != name {
				fmt.Fprintf(cmd.ErrOrStderr(), "note: the daemon has read its configuration from %s before; copy this one there or it will be forgotten when vtgt starts again\n", before.File)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the configuration `FILE`; - reads standard input")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "show the difference and change nothing")
	_ = cmd.MarkFlagFilename("file", "yaml", "yml")
	return cmd
}
