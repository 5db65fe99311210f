package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/config"
)

// diskKeys are the keys of a disk by their flags.
var diskKeys = []key{
	{"store", "store", "what it is made of: file:/PATH, encrypted:/PATH, block:/dev/PATH, mem: or null:", 's'},
	{"size", "size", "its `SIZE`, such as 10GiB", 's'},
	{"create", "create", "make a missing file, sparse", 'b'},
	{"block-size", "blockSize", "logical block size, `BYTES`: 512 or 4096", 'n'},
	{"physical-block-size", "physicalBlockSize", "physical block size, `BYTES`", 'n'},
	{"cache", "cache", "writeback, writethrough or direct", 's'},
	{"thin", "thin", "offer UNMAP where the store can give space back", 'b'},
	{"read-only", "readOnly", "nobody may write", 'b'},
	{"removable", "removable", "its medium is removable", 'b'},
	{"shared", "shared", "several initiators may write it: they know of each other", 'b'},
	{"explicit-alua", "explicitALUA", "initiators may change access states (SET TARGET PORT GROUPS)", 'b'},
	{"on-error", "onError", "what happens when the store fails: report, stop (hold its I/O until vtgt disk resume) or enospc-stop", 's'},
	{"claim", "claim", "serve a block device although a volume manager's signature is on it: it is the initiators'", 'b'},
	{"key-file", "keyFile", "key file of an encrypted: store, a `PATH`: 64 hexadecimal digits, mode 0600", 's'},
	{"atomic-log", "atomicLog", "`SIZE` of the intent log for WRITE ATOMIC, 4MiB where it is not given; 0: no WRITE ATOMIC", 's'},
	{"sanitize-speed", "sanitizeSpeed", "most that SANITIZE OVERWRITE and FORMAT UNIT write in a second, a `SIZE` such as 200MiB; any speed where it is not given", 's'},
	{"serial", "serial", "unit serial number; made once and kept where it is not given", 's'},
	{"naa", "naa", "NAA designator, 16 hexadecimal digits beginning with 3; made once and kept where it is not given", 's'},
	{"reservations", "reservations", "file that keeps persistent reservations through power loss, a `PATH` beside the image, say; the state folder where it is not given", 's'},
}

func newDisk(g *globals) *cobra.Command {
	return group("disk", "Add, change, remove and resume disks",
		"  vtgt disk add data --store file:/srv/data.img --size 100GiB --create\n  vtgt disk set data --size 200GiB\n  vtgt disk rm data",
		newDiskAdd(g), newDiskSet(g),
		rm(g, "disk", `Remove a disk; its store is closed and stays. A disk that a target maps is refused, and
who uses it is named. With --force it is taken out of its targets first: commands under
way are aborted, and what the store does not give back within a deadline is reported.`,
			"  vtgt disk rm data\n  vtgt disk rm data --force", "take it out of its targets first", []string{"disk"},
			func(args []string) (api.EditOp, error) { return api.EditOp{Kind: "disk", Name: args[0]}, nil }),
		newDiskResume(g), newDiskUnreserve(g))
}

func newDiskAdd(g *globals) *cobra.Command {
	var f changeFlags
	cmd := &cobra.Command{
		Use:   "add NAME --store STORE",
		Short: "Add a disk",
		Long:  "Add a disk. No target shows it yet: vtgt lun add does that." + howTo,
		Example: `  vtgt disk add data --store file:/srv/data.img --size 100GiB --create
  vtgt disk add fast --store block:/dev/disk/by-id/nvme-eui.0123456789abcdef --cache direct
  vtgt disk add scratch --store mem: --size 1GiB --on-error stop`,
		Args: args("disk"),
	}
	values := addKeys(cmd.Flags(), diskKeys)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		v := values()
		if v["store"] == nil {
			return usagef("no store is named: add --store file:/PATH, encrypted:/PATH, block:/dev/PATH, mem: or null:")
		}
		return f.run(g, cmd, api.EditOp{Action: config.Add, Kind: "disk", Name: args[0], Values: v})
	}
	f.add(cmd, "")
	return cmd
}

func newDiskSet(g *globals) *cobra.Command {
	var f changeFlags
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change a disk: size, read-only, error policy, …",
		Long: `Change a disk. Initiators go on while it grows (they are told), becomes read-only or
shared or gets another error policy. What needs the store to be closed and opened again,
and a smaller size, is refused while initiators are logged in, or at all, without --force.

An empty text takes the key out of the file: --serial "".` + howTo,
		Example: `  vtgt disk set data --size 200GiB          # grows at once
  vtgt disk set data --read-only            # --read-only=false: back again
  vtgt disk set data --on-error enospc-stop
  vtgt disk set data --size 50GiB --force   # cuts it: what lies behind is lost`,
		Args: args("disk"),
	}
	values := addKeys(cmd.Flags(), diskKeys)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		v := values()
		if len(v) == 0 {
			return usagef("nothing is to be changed: add a flag such as --size")
		}
		return f.run(g, cmd, api.EditOp{Action: config.Modify, Kind: "disk", Name: args[0], Values: v})
	}
	f.add(cmd, "cut it where the size is smaller; close and open it although initiators use it: their commands are aborted")
	return cmd
}

func newDiskUnreserve(g *globals) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "unreserve NAME",
		Short: "Remove all registrations and reservations of a disk",
		Long: `Remove all registrations and reservations of a disk, persistent ones and RESERVE, as an
initiator's PERSISTENT RESERVE OUT with CLEAR does: for when none is left that could, and
where what should have persisted is damaged. Initiators that rely on them are named and it is
refused; with --force they lose them and are told by a unit attention. Whoever was kept
out can write then, so be sure that the hosts concerned know of each other.`,
		Example: "  vtgt get reservations\n  vtgt disk unreserve data\n  vtgt disk unreserve data --force",
		Args:    args("disk"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, ctx, cancel := g.client(cmd)
			defer cancel()
			defer c.Close()
			if err := c.ClearReservations(ctx, args[0], force); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "disk %s: no reservations\n", args[0])
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "although initiators that are there rely on them")
	return cmd
}

func newDiskResume(g *globals) *cobra.Command {
	format := "table"
	cmd := &cobra.Command{
		Use:   "resume NAME",
		Short: "Have a disk go on after an error",
		Long: `Have a disk go on that stopped at an error of its store (onError: stop or enospc-stop), or
that refuses writes because a sync failed: its store is opened anew, then held commands
are done. See to the cause first: a disk whose store fails again stops again.`,
		Example: "  vtgt get disks            # STATE: running, stopped or latched\n  vtgt disk resume data",
		Args:    args("disk"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(format); err != nil {
				return err
			}
			c, ctx, cancel := g.client(cmd)
			defer cancel()
			defer c.Close()
			k, err := c.Resume(ctx, args[0])
			if err != nil {
				return err
			}
			if format != "table" {
				return showJSON(cmd, k, format)
			}
			if k.State == "stopped" || k.State == "latched" {
				return fmt.Errorf("disk %s is %s again: %s; see to its store, then resume it again", k.Name, k.State, k.Error)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "disk %s: %s\n", k.Name, k.State)
			return nil
		},
	}
	addOutput(cmd, &format)
	return cmd
}
