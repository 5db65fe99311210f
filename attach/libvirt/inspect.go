package libvirt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/attach"
	"github.com/vtgt/vtgt/config"
)

// there tells whether what a step has set up is there now.
func (w *worker) there(ctx context.Context, a *api.Attachment, s *api.AttachmentStep) (bool, error) {
	switch s.Name {
	case stepAccess:
		text, err := w.api.Config(ctx)
		if err != nil {
			return false, err
		}
		cfg, err := config.Parse(text.File, []byte(text.Text))
		if err != nil {
			return false, err
		}
		t := cfg.Target(a.Target)
		if t == nil {
			return false, nil
		}
		for _, l := range t.LUNs {
			if int(l.LUN) == a.LUN {
				return slices.Contains(l.Initiators.Words(), s.Undo[undoName]), nil
			}
		}
		return false, nil
	case stepSecret:
		_, there, err := w.secret(ctx, s.Undo[undoUUID])
		return there, err
	}
	if w.dom == nil || liveStep(s.Name) && !w.dom.running || configStep(s.Name) && !w.dom.persistent {
		return false, nil
	}
	if s.Name == stepVHostLive {
		return w.dom.device(ctx, deviceID(a))
	}
	text, err := w.dom.xml(ctx, configStep(s.Name), false)
	if err != nil {
		return false, err
	}
	d, err := parse(text)
	if err != nil {
		return false, err
	}
	switch s.Name {
	case stepDiskConfig, stepDiskLive:
		return d.disk(alias(a)) != nil, nil
	case stepPortConfig:
		return slices.Contains(d.ports(), atoi(s.Undo[undoPort])), nil
	case stepControllerConfig, stepControllerLive:
		for i := range d.Devices.Controllers {
			if c := &d.Devices.Controllers[i]; virtioSCSI(c) && fmt.Sprint(index(c)) == s.Undo[undoController] {
				return true, nil
			}
		}
		return false, nil
	}
	return d.mentions(deviceID(a)), nil
}

// Inspect asks libvirt, and the daemon for its sessions, what has become of the
// attachments of this kind: restarted, undefined and migrated domains show. The map is
// by ID.
func Inspect(ctx context.Context, c *api.Client, as []api.Attachment) map[string]attach.View {
	out := map[string]attach.View{}
	byURI := map[string]*worker{}
	var sessions []api.Session
	for i := range as {
		a := &as[i]
		if a.Kind != Kind || a.State == api.Damaged {
			continue
		}
		uri := a.Options[optConnect]
		w := byURI[uri]
		if w == nil {
			w = newWorker(c, Options{URI: uri})
			byURI[uri] = w
			if err := w.open(ctx); err != nil {
				out[a.ID] = attach.View{Now: "unknown", Problems: []string{err.Error()}}
				continue
			}
			defer w.close()
			sessions, _ = c.Sessions(ctx)
		}
		if w.c == nil {
			out[a.ID] = attach.View{Now: "unknown", Problems: []string{"libvirt " + uri + " is not reached"}}
			continue
		}
		out[a.ID] = w.inspect(ctx, a, sessions)
	}
	return out
}

// inspect looks at one attachment.
func (w *worker) inspect(ctx context.Context, a *api.Attachment, sessions []api.Session) (v attach.View) {
	name := a.Options[optName]
	detach := fmt.Sprintf("vtgt detach libvirt %s %s", name, a.Target)
	var err error
	w.dom, err = w.c.domain(ctx, a.Subject)
	var none *noDomainError
	elsewhere := ""
	for _, s := range sessions {
		if s.Target == a.Target && s.Initiator == initiator(a.Subject) {
			for _, c := range s.Connections {
				elsewhere = c.Remote
			}
		}
	}
	switch {
	case errors.As(err, &none):
		v.Now = "undefined"
		if elsewhere != "" && !loopback(elsewhere) {
			v.Now = "migrated to " + elsewhere
			return v
		}
		v.Problems = append(v.Problems, "the domain is not there any more: "+detach+" takes away what is left")
		return v
	case err != nil:
		return attach.View{Now: "unknown", Problems: []string{err.Error()}}
	case w.dom.running && w.dom.paused:
		v.Now = "paused"
	case w.dom.running:
		v.Now = "running"
	case elsewhere != "" && !loopback(elsewhere):
		v.Now = "migrated to " + elsewhere
		return v
	default:
		v.Now = "shut off"
	}
	if w.dom.name != name {
		v.Now += ", called " + w.dom.name
	}
	switch a.State {
	case api.Attaching:
		v.Problems = append(v.Problems, "attaching was broken off: vtgt attach goes on, "+detach+" takes it back")
	case api.Detaching:
		v.Problems = append(v.Problems, "detaching was broken off: "+detach+" goes on")
	}
	var live, cfg bool
	for i := range a.Steps {
		s := &a.Steps[i]
		if s.State != api.Done {
			continue
		}
		there, err := w.there(ctx, a, s)
		if err != nil {
			v.Problems = append(v.Problems, err.Error())
			continue
		}
		if s.Name == stepVHostConfig && there {
			if p := w.collision(ctx, s.Args["bus"]); p != "" {
				v.Problems = append(v.Problems, p+": the domain will not start; "+detach+" and attach it again")
			}
		}
		dev := s.Name == stepDiskConfig || s.Name == stepDiskLive || s.Name == stepVHostConfig || s.Name == stepVHostLive
		switch {
		case there && dev:
			live, cfg = live || liveStep(s.Name), cfg || configStep(s.Name)
		case there:
		case s.Name == stepSecret:
			v.Problems = append(v.Problems, fmt.Sprintf("libvirt has lost the secret: the domain cannot start; vtgt attach libvirt %s %s makes it again", name, a.Target))
		case s.Name == stepAccess:
			v.Problems = append(v.Problems, fmt.Sprintf("the target does not let the domain in any more; vtgt attach libvirt %s %s does", name, a.Target))
		case liveStep(s.Name) && !w.dom.running:
			// It ended; the definition counts.
		case liveStep(s.Name) && dev:
			v.Problems = append(v.Problems, fmt.Sprintf("the running domain does not have it any more (restarted?); vtgt attach libvirt %s %s --live puts it in", name, a.Target))
		case configStep(s.Name) && dev:
			v.Problems = append(v.Problems, fmt.Sprintf("the definition does not have it any more; vtgt attach libvirt %s %s --config puts it in", name, a.Target))
		}
	}
	if w.dom.running && !live {
		if ok, err := w.plugged(ctx, a); err == nil {
			live = ok
		}
	}
	var at []string
	if live {
		at = append(at, "live")
	}
	if cfg {
		at = append(at, "config")
	}
	if len(at) > 0 {
		v.Now += " (" + strings.Join(at, ", ") + ")"
	}
	return v
}

// collision tells that libvirt has put something on the root port of a vhost-user device,
// of which it does not know.
func (w *worker) collision(ctx context.Context, bus string) string {
	n, ok := strings.CutPrefix(bus, "pci.")
	if !ok || n == "0" {
		return ""
	}
	text, err := w.dom.xml(ctx, true, false)
	if err != nil {
		return ""
	}
	d, err := parse(text)
	if err != nil {
		return ""
	}
	if buses, _ := d.taken(); buses[atoi(n)] {
		return "another device of the definition is on " + bus + ", too"
	}
	return ""
}

// atoi is -1 for what is no number.
func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1
	}
	return n
}

// plugged tells whether the running domain has the device, by whatever way it came.
func (w *worker) plugged(ctx context.Context, a *api.Attachment) (bool, error) {
	name := stepDiskLive
	if a.Options[optVia] == ViaVHost {
		name = stepVHostLive
	}
	return w.there(ctx, a, &api.AttachmentStep{Name: name})
}

func loopback(addr string) bool {
	h, _, err := net.SplitHostPort(addr)
	if err != nil {
		return true
	}
	ip := net.ParseIP(h)
	return ip == nil || ip.IsLoopback()
}
