package xen

import (
	"context"
	"fmt"
	"strings"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/attach"
	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/xen/nodes"
	"github.com/vtgt/vtgt/xen/xenstore"
)

// Detach takes a target out of a domain, in order: the domain lets go of its disks, then
// the export and the nodes go. It goes on where an earlier Attach or Detach broke off.
// That nothing is attached is no error.
func Detach(ctx context.Context, c *api.Client, o Options) error {
	w, err := open(c, o)
	if err != nil {
		return err
	}
	defer w.close()
	r, err := w.run(ctx)
	if err != nil {
		return err
	}
	if r == nil {
		fmt.Fprintf(w.o.Out, "target %s is not attached to domain %s: nothing to do\n", o.Target, o.Domain)
		return nil
	}
	if err := r.Undo(ctx); err != nil {
		return err
	}
	fmt.Fprintf(w.o.Out, "target %s is detached from domain %s\n", o.Target, o.Domain)
	return nil
}

// run opens the journal of the attachment; nil: there is none. An export that was written
// into the configuration by hand gets one first, so that what breaks off is found again.
func (w *worker) run(ctx context.Context) (*attach.Run, error) {
	as, err := w.api.Attachments(ctx)
	if err != nil {
		return nil, err
	}
	var others []string
	for _, a := range as {
		if a.Kind != Kind || a.Target != w.o.Target || a.State == api.Damaged {
			continue
		}
		if w.means(a.Subject) || w.dom == nil && a.Options[optName] == w.o.Domain {
			return w.e.Open(a), nil
		}
		others = append(others, a.Options[optName])
	}
	_, t, err := w.target(ctx)
	if err != nil {
		return nil, err
	}
	if t != nil && t.Xen != nil && w.means(t.Xen.Domain) && !t.Xen.Toolstack {
		return w.adopt(ctx, t.Xen)
	}
	if len(others) > 0 {
		return nil, fmt.Errorf("target %s: is not attached to domain %s but to %s; vtgt get attachments shows it", w.o.Target, w.o.Domain, strings.Join(others, ", "))
	}
	return nil, nil
}

func (w *worker) adopt(ctx context.Context, x *config.TargetXen) (*attach.Run, error) {
	r, err := w.e.Begin(ctx, w.record(x))
	if err != nil {
		return nil, err
	}
	for _, n := range []string{stepExport, stepNodes} {
		if err := r.Do(ctx, api.AttachmentStep{Name: n, Args: args(x)}, func(context.Context) error { return nil }); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// undoNodes has the domain let go of its disks. The nodes themselves stay until the export
// has gone: without them the daemon would offer the device again.
func (w *worker) undoNodes(ctx context.Context, a *api.Attachment, s *api.AttachmentStep) error {
	doms, err := nodes.Find(w.xs, s.Args[argDomain])
	if err != nil {
		return err
	}
	wait := w.o.Wait
	if wait <= 0 || a.State != api.Detaching {
		wait = detachTime
	}
	for _, d := range doms {
		n := w.device(s, d.ID)
		var open bool
		if err := w.xs.Update(func(tx *xenstore.Tx) (err error) { open, err = nodes.End(tx, n); return err }); err != nil {
			return err
		}
		if !open || w.o.Force {
			continue
		}
		if !poll(ctx, wait, func() bool { ok, err := nodes.Ended(&w.xs.Tx, n); return ok && err == nil }) {
			if err := ctx.Err(); err != nil {
				return err
			}
			return w.blocked(ctx, d, n)
		}
	}
	return nil
}

// blocked says what is in the way of n's end.
func (w *worker) blocked(ctx context.Context, d nodes.Domain, n nodes.Device) error {
	be, _ := w.xs.Read(n.BackendPath() + "/state")
	fe, _ := w.xs.Read(n.FrontendPath() + "/state")
	hint := "is the domain paused, or does it hang? look at its console, and repeat the command; --force takes the device away nevertheless, and what the domain has not written yet is lost"
	if fe == nodes.Closed { // it is not the domain
		hint = "vtgt has not closed its end: " + w.reason(ctx)
	}
	return fmt.Errorf("domain %s (%d) has not let go of device %d within the time: its front end is in state %s, the back end in state %s; %s",
		d.Name, d.ID, n.Number, nodes.StateName(fe), nodes.StateName(be), hint)
}

// undoExport takes the export out of the configuration, with which the daemon removes
// what is left in xenstore.
func (w *worker) undoExport(ctx context.Context, a *api.Attachment, s *api.AttachmentStep) error {
	if s.Undo[undoBefore] != "" && a.State != api.Detaching {
		return nil // it was there before an Attach that has failed
	}
	_, t, err := w.target(ctx)
	if err != nil {
		return err
	}
	if t != nil && t.Xen != nil {
		x := args(t.Xen)
		if x[argDomain] == s.Args[argDomain] && x[argDevice] == s.Args[argDevice] && x[argType] == s.Args[argType] {
			if err := w.edit(ctx, map[string]any{"xen": nil}); err != nil {
				return err
			}
		}
	}
	doms, err := nodes.Find(w.xs, s.Args[argDomain])
	if err != nil {
		return err
	}
	for _, d := range doms {
		if err := w.xs.Update(func(tx *xenstore.Tx) error { return nodes.Remove(tx, w.device(s, d.ID)) }); err != nil {
			return err
		}
	}
	return nil
}
