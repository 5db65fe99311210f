package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/vtgt/vtgt/attach/libvirt"
)

// libvirtFlags are those of attach and detach.
func libvirtFlags(cmd *cobra.Command, o *libvirt.Options) {
	fs := cmd.Flags()
	fs.StringVar(&o.URI, "connect", "", "the libvirt's `URI` (default $LIBVIRT_DEFAULT_URI, else qemu:///system for root, qemu:///session for others)")
	fs.IntVar(&o.LUN, "lun", -1, "the `NUMBER` of the LUN, by iSCSI; not needed where there is one only")
	noDefault(cmd, "lun")
	fs.StringVar(&o.Via, "via", "", "the way, iscsi or vhost (vhost-user-scsi, all LUNs of the target); not needed where there is one only")
	fs.BoolVar(&o.Live, "live", false, "the running domain only (until it ends)")
	fs.BoolVar(&o.Config, "config", false, "the definition only (from the next start on)")
	fs.DurationVar(&o.Wait, "wait", time.Minute, "how long the guest may take to let go of a device")
}

// noDefault keeps the -1 of a number that is not given out of the help.
func noDefault(cmd *cobra.Command, flag string) { cmd.Flags().Lookup(flag).DefValue = "0" }

func checkLibvirt(cmd *cobra.Command, o *libvirt.Options) error {
	switch {
	case o.Via != "" && o.Via != libvirt.ViaISCSI && o.Via != libvirt.ViaVHost:
		return usagef("--via %q is not known: write iscsi or vhost", o.Via)
	case cmd.Flags().Changed("lun") && (o.LUN < 0 || o.LUN > 16383):
		return usagef("--lun %d is not the number of a LUN: give one from 0 to 16383", o.LUN)
	case o.Wait <= 0:
		return usagef("--wait %v is no time", o.Wait)
	}
	return nil
}

func newAttachLibvirt(g *globals) *cobra.Command {
	var o libvirt.Options
	var show bool
	cmd := &cobra.Command{
		Use:   "libvirt DOMAIN TARGET",
		Short: "Put a target into a domain of libvirt",
		Long: `Put a LUN of a target into a domain of libvirt as a disk that passes SCSI commands through
(iSCSI), or all of a target as a virtio-scsi controller of its own (vhost-user): now if it
runs, and after its next start.

By iSCSI only this domain sees the LUN afterwards, by its initiator's name; where the target
wants CHAP, libvirt gets the secret. By vhost-user the guest's memory must be shared.` + howAttached,
		Example: `  vtgt attach libvirt web1 vm1
  vtgt attach libvirt web1 vm1 --lun 2 --live
  vtgt attach libvirt web1 vm2 --via vhost --connect qemu:///system
  vtgt attach libvirt web1 vm1 --print-xml`,
		Args: args("domain", "target"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkLibvirt(cmd, &o); err != nil {
				return err
			}
			c, ctx, stop := g.session(cmd)
			defer stop()
			defer c.Close()
			o.Domain, o.Target = args[0], args[1]
			if show {
				text, err := libvirt.XML(ctx, c, o)
				if err == nil {
					fmt.Fprint(cmd.OutOrStdout(), text)
				}
				return err
			}
			o.Out = cmd.OutOrStdout()
			return libvirt.Attach(ctx, c, o)
		},
	}
	libvirtFlags(cmd, &o)
	cmd.Flags().StringVar(&o.Portal, "portal", "", "`HOST:PORT` by which the domain's host reaches vtgt (default: one of its portals)")
	cmd.Flags().StringVar(&o.CHAPUser, "chap-user", "", "the `USER` of the target's chap: as which the domain logs in (default: the first)")
	cmd.Flags().BoolVar(&show, "print-xml", false, "print the XML for the domain's definition, and change nothing")
	return cmd
}

func newDetachLibvirt(g *globals) *cobra.Command {
	var o libvirt.Options
	cmd := &cobra.Command{
		Use:   "libvirt DOMAIN TARGET",
		Short: "Take a target out of a domain of libvirt",
		Long: `Take a target, or one of its LUNs, out of a domain of libvirt, and all that vtgt attach has
set up for it. It goes on where an earlier attach or detach broke off, and works for domains
that are gone. What is not attached is no error: the command may be repeated.

Unmount it in the guest first. The guest must let go of a device; when it does not within
--wait, the command says what is in the way and can be repeated.`,
		Example: `  vtgt detach libvirt web1 vm1
  vtgt detach libvirt web1 vm1 --lun 2 --live
  vtgt detach libvirt web1 vm2 --wait 5m`,
		Args: args("domain", "target"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkLibvirt(cmd, &o); err != nil {
				return err
			}
			c, ctx, stop := g.session(cmd)
			defer stop()
			defer c.Close()
			o.Domain, o.Target, o.Out = args[0], args[1], cmd.OutOrStdout()
			return libvirt.Detach(ctx, c, o)
		},
	}
	libvirtFlags(cmd, &o)
	cmd.Flags().BoolVar(&o.Forget, "forget", false, "take back only what was changed at vtgt, and forget the rest: for a libvirt that is gone for good")
	return cmd
}
