package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/vtgt/vtgt/attach/xen"
)

func newAttachXen(g *globals) *cobra.Command {
	o := xen.Options{Device: -1}
	cmd := &cobra.Command{
		Use:   "xen DOMAIN TARGET",
		Short: "Put a target into a Xen domain",
		Long: `Put all LUNs of a target into a Xen domain as one vscsi device, which Linux's driver
xen-scsifront serves: the target gets the key xen: in the configuration, the domain the nodes
of the device in xenstore. The domain may run, be paused (xl create -p, for a root disk) or not
run yet: vtgt writes the nodes again after each of its boots, and when it is restored.

DOMAIN is a name, a UUID, or the number of a domain that runs. A domain that is named by its
name is followed by its name, else by its UUID. Run it in dom0, as root.` + howAttached,
		Example: `  vtgt attach xen web1 vm1
  vtgt attach xen web1 vm1 --device 1 --wait 1m
  vtgt attach xen 17 vm2 --type vscsi`,
		Args: args("domain", "target"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case cmd.Flags().Changed("device") && o.Device < 0:
				return usagef("--device %d is not the number of a device: give one from 0 on", o.Device)
			case o.Wait < 0:
				return usagef("--wait %v is no time", o.Wait)
			}
			c, ctx, stop := g.session(cmd)
			defer stop()
			defer c.Close()
			o.Domain, o.Target, o.Out = args[0], args[1], cmd.OutOrStdout()
			return xen.Attach(ctx, c, o)
		},
	}
	cmd.Flags().IntVar(&o.Device, "device", -1, "the device's `NUMBER` in the domain (default: the first that is free)")
	noDefault(cmd, "device")
	cmd.Flags().StringVar(&o.Type, "type", "", "the back end's `TYPE` in xenstore: vtgt, vtgt-NAME, or vscsi, which a loaded xen-scsiback of the kernel would take, too (default vtgt)")
	cmd.Flags().DurationVar(&o.Wait, "wait", 0, "how long to wait until the domain has connected; not at all where it is not given")
	return cmd
}

func newDetachXen(g *globals) *cobra.Command {
	o := xen.Options{Device: -1}
	cmd := &cobra.Command{
		Use:   "xen DOMAIN TARGET",
		Short: "Take a target out of a Xen domain",
		Long: `Take a target out of a Xen domain: the domain lets go of its disks, then the nodes in xenstore
and the key xen: of the target go. It goes on where an earlier attach or detach broke off, and
works for domains that are gone. What is not attached is no error: the command may be repeated.

Unmount the disks in the domain first. When it does not let go of them within --wait the
command says what is in the way and can be repeated.`,
		Example: `  vtgt detach xen web1 vm1
  vtgt detach xen web1 vm1 --wait 5m
  vtgt detach xen web1 vm1 --force`,
		Args: args("domain", "target"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.Wait <= 0 {
				return usagef("--wait %v is no time", o.Wait)
			}
			c, ctx, stop := g.session(cmd)
			defer stop()
			defer c.Close()
			o.Domain, o.Target, o.Out = args[0], args[1], cmd.OutOrStdout()
			return xen.Detach(ctx, c, o)
		},
	}
	cmd.Flags().DurationVar(&o.Wait, "wait", time.Minute, "how long the domain may take to let go of its disks")
	cmd.Flags().BoolVar(&o.Force, "force", false, "take the device away although the domain has not let go of it: what it has not written is lost")
	return cmd
}
