package vsphere

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/attach"
)

// Inspect tells of the attachments to ESXi hosts what vtgt knows by itself: whether the
// host is logged in. The hosts are not asked, which wants credentials.
func Inspect(ctx context.Context, c *api.Client, as []api.Attachment) map[string]attach.View {
	out := map[string]attach.View{}
	if !slices.ContainsFunc(as, func(a api.Attachment) bool { return a.Kind == Kind }) {
		return out
	}
	ts, err := c.Targets(ctx)
	if err != nil {
		return out
	}
	ss, err := c.Sessions(ctx)
	if err != nil {
		return out
	}
	for i := range as {
		if a := &as[i]; a.Kind == Kind {
			out[a.ID] = known(a, as, ts, ss)
		}
	}
	return out
}

func known(a *api.Attachment, as []api.Attachment, ts []api.Target, ss []api.Session) (v attach.View) {
	problem := func(format string, args ...any) {
		v.Problems = append(v.Problems, fmt.Sprintf(format, args...))
	}
	switch a.State {
	case api.Attaching:
		problem("an attach broke off: do it again, or vtgt detach vsphere %s takes back what it had done", a.Target)
	case api.Detaching:
		problem("a detach broke off: do it again")
	}
	i := slices.IndexFunc(ts, func(t api.Target) bool { return t.Name == a.Target })
	if i < 0 {
		v.Now = "target gone"
		problem("target %s is not there any more: vtgt detach vsphere %s", a.Target, a.Target)
		return v
	}
	there := a.LUN == api.AllLUNs
	for _, l := range ts[i].LUNs {
		there = there || int(l.LUN) == a.LUN
	}
	if !there {
		problem("target %s has no LUN %d any more: vtgt detach vsphere %s --lun %d", a.Target, a.LUN, a.Target, a.LUN)
	}
	iqn := iqnOf(a.Subject, as)
	if iqn == "" {
		v.Now = "unknown"
		return v
	}
	n := 0
	for _, s := range ss {
		if s.Target == a.Target && !s.Discovery && strings.EqualFold(s.Initiator, iqn) {
			n++
		}
	}
	switch {
	case n == 0:
		v.Now = "not logged in"
		if a.State == api.Attached {
			problem("host %s is not logged in: is it on, and in reach? The same vtgt attach vsphere %s repairs what was taken away there", a.Options["name"], a.Target)
		}
	case n == 1:
		v.Now = "logged in"
	default:
		v.Now = fmt.Sprintf("logged in %d times", n)
	}
	return v
}

// iqnOf is the iSCSI name of a host, as any of its attachments knows it.
func iqnOf(subject string, as []api.Attachment) string {
	for i := range as {
		if as[i].Kind != Kind || as[i].Subject != subject {
			continue
		}
		for _, s := range as[i].Steps {
			if s.Name == stepACL {
				return s.Args["iqn"]
			}
		}
	}
	return ""
}
