package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/config"
)

func newAttach(g *globals) *cobra.Command {
	return group("attach", "Set up a virtual machine or host so that it sees a target",
		"  vtgt attach libvirt web1 vm1\n  vtgt attach xen web2 vm2\n  vtgt attach vsphere vm3 --url vcenter.example.org --cluster prod\n  vtgt get attachments",
		newAttachLibvirt(g), newAttachXen(g), newAttachVSphere(g))
}

func newDetach(g *globals) *cobra.Command {
	return group("detach", "Take away what vtgt attach has set up",
		"  vtgt detach libvirt web1 vm1\n  vtgt detach xen web2 vm2\n  vtgt detach vsphere vm3 --url vcenter.example.org --cluster prod\n  vtgt get attachments",
		newDetachLibvirt(g), newDetachXen(g), newDetachVSphere(g))
}

// howAttached is what the Long of attaching commands ends with.
const howAttached = `

Each step is written down in the daemon, with what takes it back, before it is done: after a
crash of anything vtgt detach takes away what is there. A step that fails leaves the virtual
machine or host as it was.`

// session makes a client for work that may take longer than one request, and a context
// that ends with the first signal: what was begun is then taken back.
func (g *globals) session(cmd *cobra.Command) (*api.Client, context.Context, context.CancelFunc) {
	path := g.socket
	if path == "" {
		path = config.DefaultAPISocket
	}
	parent := cmd.Context()
	if parent == nil {
		parent = context.Background()
	}
	ctx, stop := signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM)
	c := api.NewClient(path)
	c.Limit(g.timeout)
	return c, ctx, stop
}
