package main

import (
	"fmt"
	"maps"
	"net/netip"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/config"
)

func newTarget(g *globals) *cobra.Command {
	return group("target", "Add, change and remove targets",
		"  vtgt target add vm1 --iqn iqn.2026-11.org.example:vm1 --disk root1\n  vtgt target rm vm1",
		newTargetAdd(g), newTargetSet(g),
		rm(g, "target", `Remove a target; its disks stay. A target at which initiators are logged in is refused,
and they are named. With --force their commands are aborted and their sessions end.`,
			"  vtgt target rm vm1\n  vtgt target rm vm1 --force", "end the sessions of its initiators", []string{"target"},
			func(args []string) (api.EditOp, error) { return api.EditOp{Kind: "target", Name: args[0]}, nil }))
}

// exportKeys are the keys of a target's iSCSI export.
var exportKeys = []key{
	{"iqn", "iqn", "the iSCSI `NAME` under which it is exported", 's'},
	{"alias", "alias", "its alias, for people", 's'},
}

// vhostKeys are the keys of a target's vhost-user export.
var vhostKeys = []key{
	{"vhost-socket", "socket", "the `PATH` of the socket that QEMU connects to (vhost-user-scsi)", 's'},
	{"vhost-owner", "owner", "the socket's owner, a `USER`; the daemon's own where it is not given", 's'},
	{"vhost-group", "group", "the socket's `GROUP`", 's'},
	{"vhost-mode", "mode", "the socket's `MODE`: 0600, or 0660 with a group, where it is not given", 's'},
	{"vhost-initiator", "initiator", "the `UUID` by which reservations know the virtual machine; made once and kept where it is not given", 's'},
}

// vioKeys are the keys of a target's vio export.
var vioKeys = []key{
	{"vio-socket", "socket", "the `PATH` of the socket that the QEMU device vtgt-vscsi of a pSeries guest connects to", 's'},
	{"vio-owner", "owner", "the socket's owner, a `USER`; the daemon's own where it is not given", 's'},
	{"vio-group", "group", "the socket's `GROUP`", 's'},
	{"vio-mode", "mode", "the socket's `MODE`: 0600, or 0660 with a group, where it is not given", 's'},
	{"vio-initiator", "initiator", "the `UUID` by which reservations know the guest; made once and kept where it is not given", 's'},
	{"vio-aix", "aix", "INQUIRY says what AIX knows its virtual disks by", 'b'},
}

// xenKeys are the keys of a target's export to a Xen domain.
var xenKeys = []key{
	{"xen-domain", "domain", "the Xen `DOMAIN` that it is for, by its name or UUID", 's'},
	{"xen-device", "device", "the `NUMBER` of the vscsi device there", 'n'},
	{"xen-type", "type", "the back end's `TYPE` in xenstore: vtgt where it is not given", 's'},
	{"xen-toolstack", "toolstack", "another program writes the device's nodes into xenstore", 'b'},
	{"xen-initiator", "initiator", "the `UUID` by which reservations know the domain; made once and kept where it is not given", 's'},
}

// targetKeys are the keys of a target itself.
var targetKeys = []key{
	{"alua", "alua", "the access state of its ports: optimized, non-optimized, standby, unavailable or offline", 's'},
}

// exports gives what the flags say of a target's exports.
func exports(iscsi, vhost, vio, xen map[string]any) map[string]any {
	v := map[string]any{}
	if len(xen) > 0 {
		v["xen"] = xen
	}
	if len(vio) > 0 {
		v["vio"] = vio
	}
	if len(iscsi) > 0 {
		v["iscsi"] = iscsi
	}
	if len(vhost) > 0 {
		v["vhost"] = vhost
	}
	return v
}

func newTargetAdd(g *globals) *cobra.Command {
	var f changeFlags
	var disks []string
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a target",
		Long:  "Add a target. Disks can be mapped at the same time, from LUN 0 on, or by vtgt lun add." + howTo,
		Example: `  vtgt target add vm1 --iqn iqn.2026-11.org.example:vm1
  vtgt target add vm1 --iqn iqn.2026-11.org.example:vm1 --disk root1 --disk data
  vtgt target add vm2 --vhost-socket /run/vtgt/vm2.sock --vhost-group kvm --disk root2
  vtgt target add lpar1 --vio-socket /run/vtgt/lpar1.sock --vio-group kvm --disk root3
  vtgt target add web1 --xen-domain web1 --disk root4`,
		Args: args("target"),
	}
	iscsi, vhost, vio, xen := addKeys(cmd.Flags(), exportKeys), addKeys(cmd.Flags(), vhostKeys), addKeys(cmd.Flags(), vioKeys), addKeys(cmd.Flags(), xenKeys)
	own := addKeys(cmd.Flags(), targetKeys)
	cmd.Flags().StringArrayVar(&disks, "disk", nil, "map this `DISK`; may be repeated")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		x, y := vhost(), vio()
		v := exports(iscsi(), x, y, xen())
		maps.Copy(v, own())
		var luns []any
		for i, d := range disks {
			luns = append(luns, map[string]any{"lun": i, "disk": d})
		}
		if luns != nil {
			v["luns"] = luns
		}
		if err := f.run(g, cmd, api.EditOp{Action: config.Add, Kind: "target", Name: args[0], Values: v}); err != nil {
			return err
		}
		f.hint(cmd, args[0], x, y)
		return nil
	}
	f.add(cmd, "")
	return cmd
}

// hint shows how a virtual machine connects, for people.
func (f *changeFlags) hint(cmd *cobra.Command, target string, vhost, vio map[string]any) {
	if s, ok := vio["socket"].(string); ok && f.format == "table" && !f.dry {
		fmt.Fprintf(cmd.OutOrStdout(), "\nqemu-system-ppc64 (make qemu-vio builds the device):\n%s\n", qemuVIO("  ", s))
	}
	if s, ok := vhost["socket"].(string); ok && f.format == "table" && !f.dry {
		fmt.Fprintf(cmd.OutOrStdout(), "\nQEMU:\n%s\n", qemuVHost("  ", target, s, "1G"))
	}
}

// qemuVIO is what a pSeries machine's QEMU wants for a vio export.
func qemuVIO(indent, socket string) string {
	return indent + "LD_PRELOAD=…/vtgt-vscsi.so qemu-system-ppc64 -M pseries … -device vtgt-vscsi,path=" + socket
}

// qemuVHost is the part of QEMU's command line that connects to a vhost-user export. The
// guest's memory must be shared with the daemon.
func qemuVHost(indent, id, socket, memory string) string {
	return indent + "-m " + memory + " -object memory-backend-memfd,id=mem,size=" + memory + ",share=on -machine memory-backend=mem \\\n" +
		indent + "-chardev socket,id=" + id + ",path=" + socket + " -device vhost-user-scsi-pci,chardev=" + id
}

func newTargetSet(g *globals) *cobra.Command {
	var f changeFlags
	var noISCSI, noVHost, noVIO, noXen bool
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change how a target is exported, or its access state",
		Long: `Change how a target is exported, or its access state. That is refused while initiators are logged in, or a
virtual machine is connected, by the export that changes; with --force their sessions end.
The owner, group and mode of a vhost-user socket change at once.

The access state (ALUA) tells initiators that reach a disk by several targets which one to
use. In standby, unavailable and offline no command reads or writes by this target any more
when vtgt says that it is done; initiators are told and look for another path.` + howTo,
		Example: `  vtgt target set vm1 --alias "The mail server"
  vtgt target set vm1 --alua standby
  vtgt target set vm1 --no-iscsi
  vtgt target set vm1 --vhost-socket /run/vtgt/vm1.sock --vhost-owner libvirt-qemu`,
		Args: args("target"),
	}
	iscsi, vhost, vio, xen := addKeys(cmd.Flags(), exportKeys), addKeys(cmd.Flags(), vhostKeys), addKeys(cmd.Flags(), vioKeys), addKeys(cmd.Flags(), xenKeys)
	own := addKeys(cmd.Flags(), targetKeys)
	cmd.Flags().BoolVar(&noISCSI, "no-iscsi", false, "export it by iSCSI no longer")
	cmd.Flags().BoolVar(&noVHost, "no-vhost", false, "export it by vhost-user no longer")
	cmd.Flags().BoolVar(&noVIO, "no-vio", false, "export it to a pSeries guest no longer")
	cmd.Flags().BoolVar(&noXen, "no-xen", false, "export it to a Xen domain no longer (vtgt detach xen has the domain let go first)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		e, x, y, z := iscsi(), vhost(), vio(), xen()
		v := exports(e, x, y, z)
		maps.Copy(v, own())
		switch {
		case noISCSI && len(e) > 0:
			return usagef("--no-iscsi takes the whole export away: leave the other flags out (--iqn, --alias)")
		case noVHost && len(x) > 0:
			return usagef("--no-vhost takes the whole export away: leave the other flags out (--vhost-…)")
		case noVIO && len(y) > 0:
			return usagef("--no-vio takes the whole export away: leave the other flags out (--vio-…)")
		case noXen && len(z) > 0:
			return usagef("--no-xen takes the whole export away: leave the other flags out (--xen-…)")
		}
		if noISCSI {
			v["iscsi"] = nil
		}
		if noVHost {
			v["vhost"] = nil
		}
		if noVIO {
			v["vio"] = nil
		}
		if noXen {
			v["xen"] = nil
		}
		if len(v) == 0 {
			return usagef("nothing is to be changed: add --iqn, --alias, --alua, --vhost-socket (or another --vhost-…), --vio-socket (or another --vio-…), --xen-domain (or another --xen-…), --no-iscsi, --no-vhost, --no-vio or --no-xen")
		}
		if err := f.run(g, cmd, api.EditOp{Action: config.Modify, Kind: "target", Name: args[0], Values: v}); err != nil {
			return err
		}
		f.hint(cmd, args[0], x, y)
		return nil
	}
	f.add(cmd, "end the sessions of its initiators")
	return cmd
}

func newLUN(g *globals) *cobra.Command {
	return group("lun", "Map disks into targets",
		"  vtgt lun add vm1 data\n  vtgt lun set vm1 1 --read-only\n  vtgt lun rm vm1 1",
		newLUNAdd(g), newLUNSet(g),
		rm(g, "LUN", `Take a LUN out of a target; the disk stays. While initiators are logged in at the target
it is refused, and they are named. With --force commands under way are aborted; initiators
are told that the list of LUNs is another one.`,
			"  vtgt lun rm vm1 1\n  vtgt lun rm vm1 1 --force", "although initiators are logged in", []string{"target", "lun"},
			func(args []string) (api.EditOp, error) {
				n, err := lunNumber(args[1])
				return api.EditOp{Kind: "lun", Name: args[0], LUN: n}, err
			}))
}

func lunNumber(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n > 16383 {
		return 0, usagef("%q is not the number of a LUN: give one from 0 to 16383", s)
	}
	return uint16(n), nil
}

func newLUNAdd(g *globals) *cobra.Command {
	var f changeFlags
	var lun int
	var at addressFlags
	var ro bool
	cmd := &cobra.Command{
		Use:   "add TARGET DISK",
		Short: "Map a disk into a target",
		Long: `Map a disk into a target, at a LUN or at the first that is free. Initiators that are logged
in are told that the list of LUNs is another one; most look at it by themselves, Linux
needs a rescan (iscsiadm -m session --rescan). Virtual machines see it at once.` + howTo,
		Example: "  vtgt lun add vm1 data\n  vtgt lun add vm1 data --lun 7 --read-only\n  vtgt lun add vm1 data --vhost-target 1",
		Args:    args("target", "disk"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := api.EditOp{Action: config.Add, Kind: "lun", Name: args[0], Values: map[string]any{"disk": args[1]}}
			if ro {
				o.Values["readOnly"] = true
			}
			if a := at.value(cmd); a != nil {
				o.Values["address"] = a
			}
			if cmd.Flags().Changed("lun") {
				n, err := lunNumber(strconv.Itoa(lun))
				if err != nil {
					return err
				}
				o.LUN = n
				return f.run(g, cmd, o)
			}
			// Somebody may take the number meanwhile: then the next one.
			for {
				n, err := freeLUN(g, cmd, args[0])
				if err != nil {
					return err
				}
				o.LUN = n
				if err = f.run(g, cmd, o); !exists(err) {
					return err
				}
			}
		},
	}
	cmd.Flags().IntVar(&lun, "lun", 0, "the `NUMBER`; the first that is free where it is not given")
	cmd.Flags().BoolVar(&ro, "read-only", false, "nobody may write by this LUN")
	at.add(cmd)
	f.add(cmd, "")
	return cmd
}

// addressFlags are where ring exports show a LUN.
type addressFlags struct {
	vhost, id, lun int
	xen            string
}

func (a *addressFlags) add(cmd *cobra.Command) {
	cmd.Flags().IntVar(&a.vhost, "vhost-target", 0, "the virtio target, a `NUMBER` from 0 to 253, at which a virtual machine sees it")
	cmd.Flags().IntVar(&a.id, "vio-id", 0, "the id, a `NUMBER` from 0 to 63, at which a pSeries guest sees it; LUN/32 where neither it nor --vio-lun is given")
	cmd.Flags().IntVar(&a.lun, "vio-lun", 0, "and the LUN there, a `NUMBER` from 0 to 31; LUN%32")
	cmd.Flags().StringVar(&a.xen, "xen-address", "", "the `HOST:CHANNEL:TARGET:LUN` at which a Xen domain sees it; 0:0:0:LUN where it is not given")
}

// value is a LUN's key address, nil where no flag says anything.
func (a *addressFlags) value(cmd *cobra.Command) map[string]any {
	m := map[string]any{}
	if cmd.Flags().Changed("vhost-target") {
		m["vhost"] = map[string]any{"target": a.vhost}
	}
	if cmd.Flags().Changed("vio-id") || cmd.Flags().Changed("vio-lun") {
		m["vio"] = map[string]any{"id": a.id, "lun": a.lun}
	}
	if cmd.Flags().Changed("xen-address") {
		m["xen"] = a.xen
		if a.xen == "" {
			m["xen"] = nil // out of the file
		}
	}
	if len(m) == 0 {
		return nil
	}
	return m
}

// freeLUN is the first number that a target does not use.
func freeLUN(g *globals, cmd *cobra.Command, target string) (uint16, error) {
	c, ctx, cancel := g.client(cmd)
	defer cancel()
	defer c.Close()
	ts, err := c.Targets(ctx)
	if err != nil {
		return 0, err
	}
	for _, t := range ts {
		if t.Name != target {
			continue
		}
		used := map[uint16]bool{}
		for _, l := range t.LUNs {
			used[l.LUN] = true
		}
		for n := uint16(0); n < 1<<14; n++ {
			if !used[n] {
				return n, nil
			}
		}
		return 0, fmt.Errorf("target %s has no free LUN", target)
	}
	return 0, nil // the daemon says that there is no such target
}

func newLUNSet(g *globals) *cobra.Command {
	var f changeFlags
	cmd := &cobra.Command{
		Use:     "set TARGET LUN",
		Short:   "Change how a disk is mapped",
		Long:    "Change how a disk is mapped. Another disk in its place is refused while initiators are logged in, except with --force." + howTo,
		Example: "  vtgt lun set vm1 1 --read-only\n  vtgt lun set vm1 1 --read-only=false\n  vtgt lun set vm1 1 --disk other --force",
		Args:    args("target", "LUN"),
	}
	values := addKeys(cmd.Flags(), []key{
		{"read-only", "readOnly", "nobody may write by this LUN", 'b'},
		{"disk", "disk", "the `DISK`", 's'},
	})
	var at addressFlags
	at.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		n, err := lunNumber(args[1])
		if err != nil {
			return err
		}
		v := values()
		if a := at.value(cmd); a != nil {
			v["address"] = a
		}
		if len(v) == 0 {
			return usagef("nothing is to be changed: add --read-only, --disk, --vhost-target, --xen-address or --vio-id and --vio-lun")
		}
		return f.run(g, cmd, api.EditOp{Action: config.Modify, Kind: "lun", Name: args[0], LUN: n, Values: v})
	}
	f.add(cmd, "although initiators are logged in: their commands are aborted")
	return cmd
}

func newPortal(g *globals) *cobra.Command {
	var f changeFlags
	add := &cobra.Command{
		Use:     "add ADDRESS:PORT",
		Short:   "Listen to iSCSI initiators at an address",
		Long:    "Listen to iSCSI initiators at an address. All targets with an iSCSI export are reachable there." + howTo,
		Example: "  vtgt portal add 192.0.2.7:3260\n  vtgt portal add [2001:db8::7]:3260",
		Args:    args("address"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(g, cmd, api.EditOp{Action: config.Add, Kind: "portal", Name: address(args[0])})
		},
	}
	f.add(add, "")
	return group("portal", "Add and remove iSCSI portals", "  vtgt portal add 192.0.2.7:3260\n  vtgt portal rm 192.0.2.7:3260", add,
		rm(g, "portal", `Listen at an address no longer. Sessions that came in there are named and it is refused;
with --force they go on but cannot come back there.`,
			"  vtgt portal rm 192.0.2.7:3260", "although sessions came in there", []string{"address"},
			func(args []string) (api.EditOp, error) {
				return api.EditOp{Kind: "portal", Name: address(args[0])}, nil
			}))
}

// address adds iSCSI's port where there is none.
func address(s string) string {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 3260).String()
	}
	return s
}
