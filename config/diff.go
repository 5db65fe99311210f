package config

import (
	"fmt"
	"slices"
	"strings"
)

// Action is what happens to an object.
type Action string

// The actions.
const (
	Add    Action = "add"
	Remove Action = "remove"
	Modify Action = "change"
)

// Change is one difference between two states.
type Change struct {
	Action Action `json:"action"`
	// Kind is disk, target, lun, portal or setting.
	Kind string `json:"kind"`
	// Name is the object's name; "TARGET/NUMBER" for a lun.
	Name string `json:"name"`
	// Detail says what is added, or which values change, for people.
	Detail string `json:"detail,omitempty"`
}

// String is one line, beginning with +, - or ~.
func (c Change) String() string {
	sign := map[Action]string{Add: "+", Remove: "-", Modify: "~"}[c.Action]
	s := sign + " " + c.Kind + " " + c.Name
	if c.Detail != "" {
		s += ": " + c.Detail
	}
	return s
}

// Diff lists what leads from old to new: disks, targets, their LUNs, portals,
// settings. Order and comments of the file do not count.
func Diff(old, new *Config) []Change {
	var out []Change
	add := func(a Action, kind, name, detail string) { out = append(out, Change{a, kind, name, detail}) }

	oldDisks, newDisks, oldTargets, newTargets := old.disks(), new.disks(), old.targets(), new.targets()
	for i := range old.Disks {
		if d := &old.Disks[i]; newDisks[d.Name] == nil {
			add(Remove, "disk", d.Name, d.Store)
		}
	}
	for i := range new.Disks {
		d := &new.Disks[i]
		switch o := oldDisks[d.Name]; {
		case o == nil:
			detail := d.Store
			if d.Size != 0 {
				detail += ", " + d.Size.String()
			}
			add(Add, "disk", d.Name, detail)
		case *o != *d:
			add(Modify, "disk", d.Name, strings.Join(diskChanges(o, d), ", "))
		}
	}

	for i := range old.Targets {
		if t := &old.Targets[i]; newTargets[t.Name] == nil {
			add(Remove, "target", t.Name, t.exports())
		}
	}
	for i := range new.Targets {
		t := &new.Targets[i]
		o := oldTargets[t.Name]
		if o == nil {
			add(Add, "target", t.Name, t.exports())
			o = &Target{}
		} else {
			ch := guestChanges(o, t)
			if a, b := o.iscsi(), t.iscsi(); a != b {
				ch = append([]string{a + " -> " + b}, ch...)
			} else {
				ch = append(accessChanges(o.ISCSI, t.ISCSI), ch...)
			}
			if a, b := o.ALUA.State(), t.ALUA.State(); a != b {
				ch = append(ch, fmt.Sprintf("alua %s -> %s", a, b))
			}
			if len(ch) > 0 {
				add(Modify, "target", t.Name, strings.Join(ch, ", "))
			}
		}
		for _, l := range o.LUNs {
			if t.lun(l.LUN) == nil {
				add(Remove, "lun", lunName(t.Name, l.LUN), l.detail())
			}
		}
		for _, l := range t.LUNs {
			switch ol := o.lun(l.LUN); {
			case ol == nil:
				add(Add, "lun", lunName(t.Name, l.LUN), l.detail())
			case *ol != l:
				add(Modify, "lun", lunName(t.Name, l.LUN), ol.detail()+" -> "+l.detail())
			}
		}
	}

	for _, p := range old.ISCSI.Portals {
		if !slices.Contains(new.ISCSI.Portals, p) {
			add(Remove, "portal", p, "")
		}
	}
	for _, p := range new.ISCSI.Portals {
		if !slices.Contains(old.ISCSI.Portals, p) {
			add(Add, "portal", p, "")
		}
	}

	setting := func(name string, a, b any) {
		if a != b {
			add(Modify, "setting", name, fmt.Sprintf("%v -> %v", a, b))
		}
	}
	setting("iscsi.discovery", users(old.ISCSI.Discovery), users(new.ISCSI.Discovery))
	setting("iscsi.pingInterval", old.ISCSI.PingInterval, new.ISCSI.PingInterval)
	setting("iscsi.pingTimeout", old.ISCSI.PingTimeout, new.ISCSI.PingTimeout)
	setting("iscsi.loginTimeout", old.ISCSI.LoginTimeout, new.ISCSI.LoginTimeout)
	setting("iscsi.maxSessions", old.ISCSI.MaxSessions, new.ISCSI.MaxSessions)
	setting("api.socket", old.API.Socket, new.API.Socket)
	setting("api.mode", fmt.Sprintf("%04o", old.API.Mode), fmt.Sprintf("%04o", new.API.Mode))
	setting("api.group", old.API.Group, new.API.Group)
	setting("state", old.State, new.State)
	setting("loops", old.Loops, new.Loops)
	setting("memory", old.Memory, new.Memory)
	return out
}

func lunName(target string, lun uint16) string { return fmt.Sprintf("%s/%d", target, lun) }

func (t *Target) lun(n uint16) *LUN {
	for i := range t.LUNs {
		if t.LUNs[i].LUN == n {
			return &t.LUNs[i]
		}
	}
	return nil
}

func (t *Target) iscsi() string {
	if t.ISCSI == nil {
		return "no export"
	}
	if t.ISCSI.Alias != "" {
		return fmt.Sprintf("%s (%q)", t.ISCSI.IQN, t.ISCSI.Alias)
	}
	return t.ISCSI.IQN
}

func (l LUN) detail() string {
	s := l.Disk
	if l.ReadOnly {
		s += " read-only"
	}
	if l.Initiators != "" {
		s += " for " + l.Initiators.String()
	}
	if n := l.Address.VHostTarget; n != 0 {
		s += fmt.Sprintf(" at virtio target %d", n)
	}
	if a := l.Address.VIO; a.Stated {
		s += fmt.Sprintf(" at vio id %d LUN %d", a.ID, a.LUN)
	}
	if a := l.Address.Xen; a.Stated {
		s += " at xen " + a.String()
	}
	return s
}

func diskChanges(a, b *Disk) []string {
	var out []string
	field := func(name string, x, y any) {
		if x != y {
			out = append(out, fmt.Sprintf("%s %v -> %v", name, text(x), text(y)))
		}
	}
	field("store", a.Store, b.Store)
	field("size", a.Size, b.Size)
	field("create", a.Create, b.Create)
	field("blockSize", a.BlockSize, b.BlockSize)
	field("physicalBlockSize", a.PhysicalBlockSize, b.PhysicalBlockSize)
	field("cache", a.Cache, b.Cache)
	field("thin", a.Thin, b.Thin)
	field("readOnly", a.ReadOnly, b.ReadOnly)
	field("removable", a.Removable, b.Removable)
	field("shared", a.Shared, b.Shared)
	field("explicitALUA", a.ExplicitALUA, b.ExplicitALUA)
	field("onError", a.OnError, b.OnError)
	field("claim", a.Claim, b.Claim)
	field("atomicLog", a.AtomicLog.String(), b.AtomicLog.String())
	field("keyFile", a.KeyFile, b.KeyFile)
	field("sanitizeSpeed", speed(a.SanitizeSpeed), speed(b.SanitizeSpeed))
	field("serial", a.Serial, b.Serial)
	field("naa", a.NAA, b.NAA)
	field("migratable", a.Migratable, b.Migratable)
	field("reservations", a.Reservations, b.Reservations)
	return out
}

// speed is a bound of bytes a second.
func speed(s Size) string {
	if s == 0 {
		return "(any)"
	}
	return s.String()
}

func text(v any) any {
	if s, ok := v.(string); ok && s == "" {
		return "(made)"
	}
	if z, ok := v.(Size); ok && z == 0 {
		return "(the store's)"
	}
	return v
}
