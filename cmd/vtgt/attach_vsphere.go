package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/attach/vsphere"
)

// vsphereFlags are those of attach and detach.
type vsphereFlags struct {
	login       vsphere.Login
	credentials string
	where       vsphere.Where
	o           vsphere.Options
	forget      bool
}

func (f *vsphereFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.login.URL, "url", "", "the vCenter server or ESXi host, a name or https://NAME/sdk (default $VTGT_VSPHERE_URL or $GOVC_URL)")
	fs.StringVar(&f.login.Thumbprint, "thumbprint", "", "accept this certificate of the server only, by its SHA-256 `THUMBPRINT`")
	fs.StringVar(&f.login.CACert, "cacert", "", "the authorities to trust, a PEM `FILE`; the system's where neither it nor --thumbprint is given")
	fs.StringVar(&f.credentials, "credentials", "", "a `FILE` of mode 0600 that holds USER:PASSWORD (default: the environment, see above)")
	fs.StringVar(&f.where.Host, "host", "", "the ESXi host, by its `NAME` in the inventory; not needed where there is one only")
	fs.StringVar(&f.where.Cluster, "cluster", "", "all hosts of the cluster `NAME`")
	fs.IntVar(&f.o.LUN, "lun", api.AllLUNs, "the `NUMBER` of the only LUN that is meant (default: all of the target)")
	noDefault(cmd, "lun")
	fs.DurationVar(&f.o.Wait, "wait", 2*time.Minute, "how long to wait for what must appear at a host, each time")
	fs.BoolVar(&f.o.DryRun, "dry-run", false, "show each step and change nothing")
}

// run logs in and does work with target; nothing is what to say where none was needed.
func (f *vsphereFlags) run(g *globals, cmd *cobra.Command, target, nothing, done string,
	work func(context.Context, *vsphere.Session, *api.Client, vsphere.Where, vsphere.Options) (int, error)) error {
	switch {
	case cmd.Flags().Changed("lun") && (f.o.LUN < 0 || f.o.LUN > 16383):
		return usagef("--lun %d is not the number of a LUN: give one from 0 to 16383", f.o.LUN)
	case f.where.Host != "" && f.where.Cluster != "":
		return usagef("give --host or --cluster")
	case f.o.Wait <= 0:
		return usagef("--wait %v is no time", f.o.Wait)
	}
	c, ctx, stop := g.session(cmd)
	defer stop()
	defer c.Close()
	var s *vsphere.Session
	if !f.forget {
		l, err := vsphere.Environment(f.login, f.credentials, os.Getenv)
		if err != nil {
			return err
		}
		l.Program = "vtgt/" + versionText()
		if _, err := c.Version(ctx); err != nil { // before anybody is asked for anything else
			return err
		}
		if s, err = vsphere.Connect(ctx, l); err != nil {
			return err
		}
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			s.Close(ctx)
		}()
	}
	out := cmd.OutOrStdout()
	f.o.Target = target
	f.o.Say = func(host, text string) { fmt.Fprintf(out, "%s: %s\n", host, text) }
	n, err := work(ctx, s, c, f.where, f.o)
	switch {
	case err != nil:
		return err
	case n == 0:
		fmt.Fprintln(out, nothing)
	case f.o.DryRun:
		fmt.Fprintln(out, "nothing was done (dry run)")
	default:
		fmt.Fprintln(out, done)
	}
	return nil
}

// howVSphere is what the Long of both commands ends with.
const howVSphere = `

User and password come from VTGT_VSPHERE_USER and VTGT_VSPHERE_PASSWORD (or govc's
GOVC_USERNAME and GOVC_PASSWORD), or from a file that --credentials names. The server's
certificate is always verified.`

func newAttachVSphere(g *globals) *cobra.Command {
	var f vsphereFlags
	cmd := &cobra.Command{
		Use:   "vsphere TARGET",
		Short: "Attach a target to ESXi hosts",
		Long: `Attach a target to an ESXi host, or to all hosts of a cluster: software iSCSI is turned on, a
send target added (with CHAP where the target wants it), the host's iSCSI name let in at the
target; a rescan finds the LUNs, which get a path policy. With --datastore the LUN becomes a
VMFS datastore, or one that it holds is mounted; with --rdm a virtual machine gets the LUN
itself. What is there already is left alone: the command may be repeated, and after a failure
of some hosts it goes on with those. A host that fails is left as it was.` + howVSphere + howAttached,
		Example: `  vtgt attach vsphere vm1 --url vcenter.example.org --cluster prod --dry-run
  vtgt attach vsphere vm1 --url vcenter.example.org --cluster prod --datastore fast1
  vtgt attach vsphere vm2 --url esx1.example.org --thumbprint 5A:0B:… --portal 192.0.2.7:3260
  vtgt attach vsphere vm3 --url vcenter.example.org --host esx2.example.org --lun 1 --rdm db1`,
		Args: args("target"),
	}
	f.add(cmd)
	fs := cmd.Flags()
	fs.StringArrayVar(&f.o.Portals, "portal", nil, "`HOST:PORT` by which the hosts reach vtgt; may be repeated (default: all portals, without loopback)")
	fs.StringVar(&f.o.Policy, "policy", "rr", "the path selection policy: rr (round robin), mru, fixed, or keep for the host's choice")
	fs.StringVar(&f.o.Datastore, "datastore", "", "make the VMFS datastore `NAME` on the LUN, or mount it")
	fs.StringVar(&f.o.RDM, "rdm", "", "give the LUN to the virtual machine `VM`, as a raw device mapping")
	fs.StringVar(&f.o.RDMMode, "rdm-mode", "physical", "physical (the guest's SCSI commands reach vtgt) or virtual (snapshots are possible)")
	fs.StringVar(&f.o.CHAPUser, "chap-user", "", "the `USER` of the target's chap: as which the hosts log in; not needed where there is one only")
	fs.StringVar(&f.o.CHAPSecretFile, "chap-secret-file", "", "a `FILE` of mode 0600 with that user's secret (default: the one that the configuration names)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := f.o.Check(); err != nil {
			return usageError{err}
		}
		return f.run(g, cmd, args[0], "nothing to do: "+args[0]+" is attached", args[0]+" is attached", vsphere.Attach)
	}
	return cmd
}

func newDetachVSphere(g *globals) *cobra.Command {
	var f vsphereFlags
	cmd := &cobra.Command{
		Use:   "vsphere TARGET",
		Short: "Take a target away from ESXi hosts",
		Long: `Take back all that vtgt attach vsphere has set up for a target, last first, and what an
attach that broke off has: raw device mapping, datastore (unmounted: what is on the LUN stays
there), device, the host's name at the target, CHAP, send target, and software iSCSI if it
was off before. What other targets of the host stand on stays until the last of them goes.

A datastore with virtual machines of the host on it is refused, and they are named. Of a host
that is gone for good, --forget takes back vtgt's side alone. What is not attached is no error: the command may be repeated.` + howVSphere,
		Example: `  vtgt detach vsphere vm1 --url vcenter.example.org --cluster prod
  vtgt detach vsphere vm1 --url vcenter.example.org --host esx1.example.org
  vtgt detach vsphere vm1 --host esx9.example.org --forget`,
		Args: args("target"),
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&f.forget, "forget", false, "the host is gone for good: take back vtgt's side only, and say what is left; without --host: all hosts of the target")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if f.forget {
			if f.where.Cluster != "" {
				return usagef("--forget asks no vCenter which hosts a cluster has: name them with --host, one by one")
			}
			return f.run(g, cmd, args[0], "nothing to do: "+args[0]+" is not attached there (vtgt get attachments)", args[0]+" is forgotten there",
				func(ctx context.Context, _ *vsphere.Session, c *api.Client, w vsphere.Where, o vsphere.Options) (int, error) {
					return vsphere.Forget(ctx, c, w, o)
				})
		}
		return f.run(g, cmd, args[0], "nothing to do: "+args[0]+" is not attached there (vtgt get attachments)", args[0]+" is detached", vsphere.Detach)
	}
	return cmd
}
