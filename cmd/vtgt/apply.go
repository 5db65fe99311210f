package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/daemon"
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
	var o daemon.ApplyOptions
	var noSave bool
	format := "table"
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Make the daemon serve what a configuration file says",
		Long: `Give the daemon a whole configuration. What it has in common with the present one is not
touched; what is not in it any more is removed. It is applied as a whole or not at all.

What takes something away from initiators that are logged in is refused, and they are
named; --force does it all the same: commands under way are aborted, sessions end.

The file that serve was given takes the text over, and is stable then; what it held
before is kept (vtgt get history). With --no-save it stays as it is, and what was applied
is forgotten when vtgt starts again.`,
		Example: `  vtgt apply -f /etc/vtgt/vtgt.yaml --dry-run   # what would change
  vtgt apply -f /etc/vtgt/vtgt.yaml
  vtgt get config --revision 7 | vtgt apply -f -   # back to an earlier one`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(format); err != nil {
				return err
			}
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
			o.Save = !noSave
			r, err := c.Apply(ctx, name, text, o)
			if err != nil {
				return err
			}
			if err := showResult(cmd, r, format); err != nil || o.DryRun || format != "table" {
				return err
			}
			switch after, err := c.Config(ctx); {
			case err != nil:
				return err
			case o.Save && after.File != name:
				fmt.Fprintf(cmd.ErrOrStderr(), "note: %s has this configuration now\n", after.File)
			case !o.Save:
				fmt.Fprintf(cmd.ErrOrStderr(), "note: not saved: when vtgt starts again it reads the file that serve was given\n")
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the configuration `FILE`; - reads standard input")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "show the difference and change nothing")
	cmd.Flags().BoolVar(&o.Force, "force", false, "also take away what initiators use, and cut disks that are to be smaller")
	cmd.Flags().BoolVar(&noSave, "no-save", false, "change what runs, but not the file that serve was given")
	cmd.Flags().Uint64Var(&o.Revision, "if-revision", 0, "refuse unless the configuration in force is at this `REVISION`")
	addOutput(cmd, &format)
	_ = cmd.MarkFlagFilename("file", "yaml", "yml")
	return cmd
}
