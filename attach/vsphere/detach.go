package vsphere

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/vtgt/vtgt/api"
)

// Detach takes back what Attach has done, and what attaching that broke off has. Of o
// only Target, LUN, Wait, DryRun and Say count. changed is the number of attachments
// that went; 0: there were none.
func Detach(ctx context.Context, s *Session, c *api.Client, w Where, o Options) (changed int, err error) {
	hosts, err := s.hosts(ctx, w)
	if err != nil {
		return 0, err
	}
	all, err := c.Attachments(ctx)
	if err != nil {
		return 0, err
	}
	type work struct {
		j  *job
		as []api.Attachment
	}
	var todo []work
	for _, h := range hosts {
		x := work{j: newJob(c, &o, nil, h)}
		for _, a := range all {
			if a.Kind == Kind && a.Target == o.Target && a.Subject == h.uuid && (o.LUN == api.AllLUNs || a.LUN == o.LUN) {
				x.as = append(x.as, a)
			}
		}
		if x.as == nil {
			continue
		}
		// The last one stands on those before it.
		slices.SortFunc(x.as, func(a, b api.Attachment) int { return b.Created.Compare(a.Created) })
		// What is in use is found before anything is touched.
		if err := x.j.free(ctx, x.as); err != nil {
			return 0, err
		}
		todo = append(todo, x)
	}
	var errs []error
	for _, x := range todo {
		for _, a := range x.as {
			if o.DryRun {
				for i := len(a.Steps) - 1; i >= 0; i-- {
					if s := &a.Steps[i]; s.State != api.Undone {
						x.j.say("would take back: %s", describe(s))
					}
				}
				changed++
				continue
			}
			if err := x.j.eng.Open(a).Undo(ctx); err != nil {
				errs = append(errs, err)
				break
			}
			changed++
		}
		if ctx.Err() != nil {
			break
		}
	}
	return changed, errors.Join(errs...)
}

// free looks whether datastores on devices of the attachments are in use.
func (j *job) free(ctx context.Context, as []api.Attachment) error {
	v, err := j.h.look(ctx)
	if err != nil {
		return err
	}
	for i := range as {
		others, err := j.rest(ctx, &as[i])
		if err != nil {
			return err
		}
		others = slices.DeleteFunc(others, func(o api.Attachment) bool {
			return slices.ContainsFunc(as, func(a api.Attachment) bool { return a.ID == o.ID })
		})
		for _, s := range as[i].Steps {
			if s.Name != stepDevice || s.State == api.Undone || held(others, s.Name, s.Args) != nil {
				continue
			}
			d := v.device(s.Args["naa"])
			if d == nil {
				continue
			}
			for _, m := range v.volumes(d.CanonicalName) {
				if m.mounted {
					if err := j.h.unused(ctx, m.Uuid, m.Name); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// Forget gives up attachments to hosts that are gone: vtgt's own side is taken back, and
// the records go. Nobody else is asked. w.Host is the host's name as it was, empty: all
// hosts.
func Forget(ctx context.Context, c *api.Client, w Where, o Options) (changed int, err error) {
	all, err := c.Attachments(ctx)
	if err != nil {
		return 0, err
	}
	for _, a := range all {
		name := a.Options["name"]
		if a.Kind != Kind || a.Target != o.Target || o.LUN != api.AllLUNs && a.LUN != o.LUN || w.Host != "" && !strings.EqualFold(name, w.Host) {
			continue
		}
		j := &job{c: c, o: &o, h: &host{name: name}}
		others, err := j.rest(ctx, &a)
		if err != nil {
			return changed, err
		}
		changed++
		for _, s := range slices.Backward(a.Steps) {
			switch {
			case s.State == api.Undone:
			case s.Name != stepACL:
				if s.Name != stepTarget {
					j.say("left: %s", describe(&s))
				}
			case o.DryRun:
				j.say("would take back: %s", describe(&s))
			case held(others, s.Name, s.Args) == nil:
				j.say("back: %s", describe(&s))
				if err := j.undoACL(ctx, nil, &a, &s); err != nil {
					return changed, err
				}
			}
		}
		if o.DryRun {
			continue
		}
		if err := c.DeleteAttachment(ctx, a); err != nil {
			return changed, err
		}
	}
	return changed, nil
}
