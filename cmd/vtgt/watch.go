package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vtgt/vtgt/attach/libvirt"
)

func newWatch(g *globals) *cobra.Command {
	var o libvirt.WatchOptions
	format := "table"
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Follow the domains that targets are attached to",
		Long: `Follow libvirt's domains that targets are attached to (vtgt attach libvirt), and tell what
becomes of the attachments when a domain starts, stops, is undefined or migrates: one line
for each event, until it is interrupted. A libvirt or a vtgt that goes is waited for.

With --clean, what a domain that was undefined has left behind is detached: libvirt's
secret, the mask at the target, the record. As a service: vtgt-watch.service.`,
		Example: `  vtgt watch
  vtgt watch --connect qemu:///system --clean -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(format); err != nil {
				return err
			}
			c, ctx, stop := g.session(cmd)
			defer stop()
			defer c.Close()
			out := cmd.OutOrStdout()
			o.Event = func(e libvirt.WatchEvent) {
				if format == "table" {
					fmt.Fprintln(out, e)
					return
				}
				b, err := json.Marshal(e)
				if err == nil && format == "yaml" {
					if b, err = toYAML(b); err == nil {
						b = append([]byte("---\n"), b[:len(b)-1]...)
					}
				}
				if err == nil {
					fmt.Fprintln(out, string(b))
				}
			}
			return libvirt.Watch(ctx, c, o)
		},
	}
	cmd.Flags().StringVar(&o.URI, "connect", "", "the libvirt's `URI` (default $LIBVIRT_DEFAULT_URI, else qemu:///system for root, qemu:///session for others)")
	cmd.Flags().BoolVar(&o.Clean, "clean", false, "detach what undefined domains leave behind")
	addOutput(cmd, &format)
	return cmd
}
