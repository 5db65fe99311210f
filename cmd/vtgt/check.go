package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/daemon"
)

func newCheck() *cobra.Command {
	var file string
	var offline bool
	cmd := &cobra.Command{
		Use:   "check -f FILE",
		Short: "Check a configuration file",
		Long: `Check a configuration file and the files that it names, without the daemon and without
changing anything. Every error names its line and what to do.

A file in use or a port in use is not an error here: it may be the running daemon that
uses it.`,
		Example: `  vtgt check -f /etc/vtgt/vtgt.yaml
  vtgt check -f vtgt.yaml --offline     # the text alone, on another machine`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readConfig(cmd, file)
			if err != nil {
				return err
			}
			c, err := config.Parse(file, text)
			if err != nil {
				return err
			}
			if !offline {
				if err := daemon.CheckHost(c); err != nil {
					return err
				}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: ok: %s, %s, %s\n", file,
				number(len(c.Disks), "disk"), number(len(c.Targets), "target"), number(len(c.ISCSI.Portals), "portal"))
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the configuration `FILE`; - reads standard input")
	cmd.Flags().BoolVar(&offline, "offline", false, "do not look for the files and devices that it names")
	_ = cmd.MarkFlagFilename("file", "yaml", "yml")
	return cmd
}
