package libvirt

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/internal/glob"
)

// The ways to a target.
const (
	ViaISCSI = "iscsi"
	ViaVHost = "vhost"
)

// target is a target of the daemon's, as it is configured and as it is.
type target struct {
	*config.Target
	cfg     *config.Config
	portals []string
	exports []api.Export
}

// lookUp finds a target.
func lookUp(ctx context.Context, c *api.Client, name string) (*target, error) {
	text, err := c.Config(ctx)
	if err != nil {
		return nil, err
	}
	cfg, err := config.Parse(text.File, []byte(text.Text))
	if err != nil {
		return nil, err
	}
	t := cfg.Target(name)
	if t == nil {
		return nil, fmt.Errorf("target %s: is not there; vtgt get targets lists those there are", name)
	}
	st, err := c.Status(ctx)
	if err != nil {
		return nil, err
	}
	es, err := c.Exports(ctx)
	if err != nil {
		return nil, err
	}
	es = slices.DeleteFunc(es, func(e api.Export) bool { return e.Target != name })
	return &target{t, cfg, st.Portals, es}, nil
}

// via is the way to the target, the one that is wanted or the only one.
func (t *target) via(want string) (string, error) {
	switch {
	case want == ViaISCSI && t.ISCSI == nil:
		return "", fmt.Errorf("target %s: is not exported by iSCSI; vtgt target set %s --iqn NAME does that", t.Name, t.Name)
	case want == ViaVHost && t.VHost == nil:
		return "", fmt.Errorf("target %s: is not exported by vhost-user; vtgt target set %s --vhost-socket /run/vtgt/%s.sock --vhost-owner USER-OF-QEMU does that", t.Name, t.Name, t.Name)
	case want == ViaISCSI, want == ViaVHost:
		return want, nil
	case want != "":
		return "", fmt.Errorf("--via %s is not known; write iscsi or vhost", want)
	case t.ISCSI != nil && t.VHost != nil:
		return "", fmt.Errorf("target %s: is exported both ways; choose one with --via iscsi or --via vhost", t.Name)
	case t.ISCSI != nil:
		return ViaISCSI, nil
	case t.VHost != nil:
		return ViaVHost, nil
	}
	return "", fmt.Errorf("target %s: is exported neither by iSCSI nor by vhost-user; vtgt target set %s --iqn NAME (or --vhost-socket PATH) does that", t.Name, t.Name)
}

// lun finds the LUN of a number, or the only one where number is negative.
func (t *target) lun(number int) (*config.LUN, error) {
	var have []string
	for i := range t.LUNs {
		l := &t.LUNs[i]
		if int(l.LUN) == number || number < 0 && len(t.LUNs) == 1 {
			return l, nil
		}
		have = append(have, strconv.Itoa(int(l.LUN)))
	}
	switch {
	case len(have) == 0:
		return nil, fmt.Errorf("target %s: has no LUN; vtgt lun add %s DISK adds one", t.Name, t.Name)
	case number < 0:
		return nil, fmt.Errorf("target %s: has several LUNs; name one with --lun: %s", t.Name, strings.Join(have, ", "))
	}
	return nil, fmt.Errorf("target %s: has no LUN %d; there are %s", t.Name, number, strings.Join(have, ", "))
}

// portal is the address by which a domain reaches the target; local: it runs here.
func (t *target) portal(want string, local bool) (host, port string, err error) {
	if want != "" {
		if host, port, err = net.SplitHostPort(want); err != nil || host == "" || port == "" {
			return "", "", fmt.Errorf("--portal %s is not HOST:PORT", want)
		}
		return host, port, nil
	}
	for _, p := range t.portals {
		h, n, err := net.SplitHostPort(p)
		if err != nil {
			continue
		}
		ip := net.ParseIP(h)
		switch {
		case ip == nil:
			continue
		case ip.IsUnspecified() && local && ip.To4() != nil:
			return "127.0.0.1", n, nil
		case ip.IsUnspecified() && local:
			return "::1", n, nil
		case ip.IsUnspecified(), ip.IsLoopback() && !local:
			continue // nobody can tell by which address that host reaches us
		}
		return h, n, nil
	}
	if len(t.portals) == 0 {
		return "", "", fmt.Errorf("target %s: vtgt listens on no portal; vtgt portal add ADDRESS:3260 adds one", t.Name)
	}
	return "", "", fmt.Errorf("target %s: the libvirt is on another host, and vtgt's portals (%s) do not say by which address that reaches this one; name it with --portal HOST:PORT", t.Name, strings.Join(t.portals, ", "))
}

// initiator is the name by which QEMU logs in for a domain: what it takes by itself, too.
func initiator(uuid string) string { return "iqn.2008-11.org.linux-kvm:" + uuid }

// checkFree refuses a LUN that another initiator may write, unless its disk is shared.
func (t *target) checkFree(ctx context.Context, c *api.Client, l *config.LUN, name string) error {
	d := t.cfg.Disk(l.Disk)
	if d == nil || d.Shared || d.ReadOnly || l.ReadOnly {
		return nil
	}
	const hint = "detach it there first, or say that they know of each other: vtgt disk set %s --shared"
	for _, w := range l.Initiators.Words() {
		if w != name {
			return fmt.Errorf("LUN %d of target %s: is only for %s by its initiators:, and disk %s is not shared; "+hint, l.LUN, t.Name, strings.Join(l.Initiators.Words(), ", "), d.Name, d.Name)
		}
	}
	ss, err := c.Sessions(ctx)
	if err != nil {
		return err
	}
	for _, s := range ss {
		if s.Target == t.Name && !s.Discovery && s.Kind == ViaISCSI && s.Initiator != name && l.Initiators == "" {
			return fmt.Errorf("LUN %d of target %s: %s is logged in and sees it, and disk %s is not shared; "+hint, l.LUN, t.Name, s.Initiator, d.Name, d.Name)
		}
	}
	return nil
}

// grant is what access changes at a target so that one initiator, and only that one, has
// a LUN: what to undo is in it too.
type grant struct {
	ops  []api.EditOp
	undo map[string]string
}

const (
	undoMask     = "mask"       // "set": there was none; "added": a name was added
	undoAllowed  = "allowed"    // "added": a name was added to the target's initiators
	undoIdentity = "prIdentity" // what stood there, "" for nothing
	undoName     = "initiator"
	yes          = "yes"
)

// grant works out what is missing. others are attachments of the same target: what they
// have set up counts as ours, too, so that the last one out takes it back.
func (t *target) grant(l *config.LUN, name, subject string, others []api.Attachment) grant {
	g := grant{undo: map[string]string{undoName: name}}
	mask := l.Initiators.Words()
	switch {
	case len(mask) == 0:
		g.undo[undoMask] = "set"
	case !slices.Contains(mask, name):
		g.undo[undoMask] = "added"
	}
	if g.undo[undoMask] != "" {
		g.ops = append(g.ops, api.EditOp{Action: config.Modify, Kind: "lun", Name: t.Name, LUN: l.LUN, Values: map[string]any{"initiators": anys(append(mask, name))}})
	}
	x := map[string]any{}
	if t.ISCSI.PRIdentity != config.PRName {
		g.undo[undoIdentity] = "was " + t.ISCSI.PRIdentity
		x["prIdentity"] = config.PRName
	}
	if ws := t.ISCSI.Initiators.Words(); len(ws) > 0 && !slices.ContainsFunc(ws, func(w string) bool { return glob.Match(w, name) }) {
		g.undo[undoAllowed] = yes
		x["initiators"] = anys(append(ws, name))
	}
	if len(x) > 0 {
		g.ops = append(g.ops, api.EditOp{Action: config.Modify, Kind: "target", Name: t.Name, Values: map[string]any{"iscsi": x}})
	}
	for _, o := range others {
		for _, s := range o.Steps {
			if s.Name != stepAccess {
				continue
			}
			if o.LUN == int(l.LUN) && s.Undo[undoMask] == "set" && g.undo[undoMask] != "" {
				g.undo[undoMask] = "set"
			}
			if v := s.Undo[undoIdentity]; v != "" && g.undo[undoIdentity] == "" {
				g.undo[undoIdentity] = v
			}
			if o.Subject == subject && s.Undo[undoAllowed] != "" {
				g.undo[undoAllowed] = yes
			}
		}
	}
	return g
}

func anys(ss []string) []any {
	out := make([]any, len(ss))
	for i, s := range ss {
		out[i] = s
	}
	return out
}

// revoke works out how to take a grant back, as far as it is there.
func revoke(t *config.Target, number int, undo map[string]string, subject string, others []api.Attachment) (ops []api.EditOp) {
	name := undo[undoName]
	without := func(ws []string) any {
		ws = slices.DeleteFunc(slices.Clone(ws), func(w string) bool { return w == name })
		if len(ws) == 0 {
			return nil
		}
		return anys(ws)
	}
	for _, l := range t.LUNs {
		if int(l.LUN) == number && undo[undoMask] != "" && slices.Contains(l.Initiators.Words(), name) {
			v := without(l.Initiators.Words())
			if v == nil && undo[undoMask] != "set" {
				continue // an empty list would be "all"
			}
			ops = append(ops, api.EditOp{Action: config.Modify, Kind: "lun", Name: t.Name, LUN: l.LUN, Values: map[string]any{"initiators": v}})
		}
	}
	if t.ISCSI == nil {
		return ops
	}
	x := map[string]any{}
	was, changed := strings.CutPrefix(undo[undoIdentity], "was ")
	allowed := undo[undoAllowed] != ""
	for _, o := range others {
		changed = changed && !hasStep(&o, stepAccess)
		allowed = allowed && !(o.Subject == subject && hasStep(&o, stepAccess))
	}
	if changed && t.ISCSI.PRIdentity == config.PRName {
		x["prIdentity"] = nil
		if was != "" {
			x["prIdentity"] = was
		}
	}
	if ws := t.ISCSI.Initiators.Words(); allowed && slices.Contains(ws, name) && len(ws) > 1 {
		x["initiators"] = without(ws)
	}
	if len(x) > 0 {
		ops = append(ops, api.EditOp{Action: config.Modify, Kind: "target", Name: t.Name, Values: map[string]any{"iscsi": x}})
	}
	return ops
}

func hasStep(a *api.Attachment, name string) bool {
	return slices.ContainsFunc(a.Steps, func(s api.AttachmentStep) bool { return s.Name == name && s.State != api.Undone })
}
