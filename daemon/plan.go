package daemon

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vtgt/vtgt/config"
)

// plan is what leads from a running graph to a configuration. Making it changes
// nothing.
type plan struct {
	old *graph
	cfg *config.Config
	// was and is are the two configurations with their objects by name.
	was, is *config.Index
	force   bool
	// sessions are the normal ones, users what they are called, by target.
	sessions []Session
	users    map[string][]string

	open   []string // disks to open, in the order of cfg
	resize []string // disks whose store changes its size while it is served
	reopen []string // disks to close and open again: nobody uses them
	close  []string // disks to close

	addTargets    []string
	removeTargets []string
	// Of targets that stay: exports that end and that begin; one that changes in what
	// cannot be changed while it is there does both. adjust are exports that stay.
	removeExports, addExports, adjust []exportName

	unmap []mapping // of targets that stay
	mapIn []mapping // into targets that stay
	remap []mapping // of targets that stay: other options, the same disk

	addPortals    []string
	removePortals []string

	warnings []string
}

// exportName names an export.
type exportName struct{ target, kind string }

type mapping struct {
	target string
	lun    config.LUN
}

// makePlan refuses what needs a restart, and, without force, what takes something
// away from initiators that are logged in; the error then holds every refusal.
func makePlan(old *graph, cfg *config.Config, sessions []Session, force bool) (*plan, error) {
	p := &plan{old: old, cfg: cfg, was: old.cfg.Index(), is: cfg.Index(), force: force, users: map[string][]string{}}
	for i := range sessions {
		if s := &sessions[i]; !s.Discovery {
			p.sessions = append(p.sessions, *s)
			p.users[s.Target] = append(p.users[s.Target], s.user())
		}
	}
	for _, who := range p.users {
		slices.Sort(who)
	}
	var bad collect
	if old.running {
		p.settings(&bad)
	}
	p.disks(&bad)
	p.targets(&bad)
	p.sharing(&bad)
	p.portals(&bad, sessions)
	return p, bad.err()
}

// inUse refuses to take something away from who uses it; with force it warns.
func (p *plan) inUse(bad *collect, object, what string, who []string, hint string) {
	if len(who) == 0 {
		return
	}
	if p.force {
		p.warnings = append(p.warnings, object+" "+what+": "+enumerate(who))
		return
	}
	bad.add(&Error{Code: CodeBusy, Object: object, Message: "is in use by " + enumerate(who), Hint: hint})
}

// settings cannot change while the daemon runs.
func (p *plan) settings(bad *collect) {
	a, b := p.old.cfg, p.cfg
	refuse := func(key string, x, y any) {
		if x != y {
			e := p.cfg.At(key)
			bad.add(&Error{Code: CodeRestart, Object: e.Where(), Message: fmt.Sprintf("%s cannot change from %v to %v while vtgt runs", key, x, y), Hint: "put the old value back, or restart vtgt with the new file"})
		}
	}
	refuse("api.socket", a.API.Socket, b.API.Socket)
	refuse("api.mode", fmt.Sprintf("%04o", a.API.Mode), fmt.Sprintf("%04o", b.API.Mode))
	refuse("api.group", fmt.Sprintf("%q", a.API.Group), fmt.Sprintf("%q", b.API.Group))
	refuse("state", a.State, b.State)
	refuse("iscsi.pingInterval", a.ISCSI.PingInterval, b.ISCSI.PingInterval)
	refuse("iscsi.pingTimeout", a.ISCSI.PingTimeout, b.ISCSI.PingTimeout)
	refuse("iscsi.loginTimeout", a.ISCSI.LoginTimeout, b.ISCSI.LoginTimeout)
	refuse("iscsi.maxSessions", a.ISCSI.MaxSessions, b.ISCSI.MaxSessions)
	refuse("loops", a.Loops, b.Loops)
	refuse("memory", a.Memory, b.Memory)
}

func (p *plan) targets(bad *collect) {
	old := p.old.cfg
	for i := range old.Targets {
		t := &old.Targets[i]
		if p.is.Target(t.Name) != nil {
			continue
		}
		p.removeTargets = append(p.removeTargets, t.Name)
		p.inUse(bad, "target "+t.Name, "is removed: its sessions end", p.users[t.Name], "log them out first, or use --force: their sessions end and their commands are aborted")
	}
	for i := range p.cfg.Targets {
		t := &p.cfg.Targets[i]
		o := p.was.Target(t.Name)
		if o == nil {
			p.addTargets = append(p.addTargets, t.Name)
			continue
		}
		p.exports(bad, o, t)
		was, is := lunsByNumber(o), lunsByNumber(t)
		for _, l := range o.LUNs {
			if p.old.disks[l.Disk] == nil {
				continue
			}
			n, stays := is[l.LUN]
			if stays = stays && n.Disk == l.Disk && n.Address == l.Address; !stays {
				p.unmap = append(p.unmap, mapping{t.Name, l})
				p.inUse(bad, "lun "+lunName(t.Name, l.LUN), "is taken away", users(p.sessions, t.Name, l), "have them let go of it and log them out first, or use --force: commands under way are aborted")
				continue
			}
			// What the store itself refuses is no change of the place.
			if d, od := p.is.Disk(l.Disk), p.was.Disk(l.Disk); n.Initiators != l.Initiators || d != nil && od != nil && !slices.Contains(p.reopen, l.Disk) && (n.ReadOnly || d.ReadOnly) != (l.ReadOnly || od.ReadOnly) {
				p.remap = append(p.remap, mapping{t.Name, n})
			}
		}
		for _, l := range t.LUNs {
			// A disk that was lost (see undo) comes back to where it was.
			if n, ok := was[l.LUN]; !ok || n.Disk != l.Disk || n.Address != l.Address || p.old.disks[l.Disk] == nil {
				p.mapIn = append(p.mapIn, mapping{t.Name, l})
			}
		}
	}
}

// exports compares how a target is reached, o before and t afterwards.
func (p *plan) exports(bad *collect, o, t *config.Target) {
	for _, kind := range kinds() {
		x := exportName{t.Name, kind}
		// What could not be made anew when it was last tried is not there.
		was := p.old.targets[t.Name] != nil && p.old.targets[t.Name].exports[kind] != nil
		is := t.ISCSI != nil
		same := was && is && o.ISCSI != nil && sameISCSI(o.ISCSI, t.ISCSI)
		switch kind {
		case kindVHost:
			is = t.VHost != nil
			same = was && is && o.VHost != nil && sameVHost(o.VHost, t.VHost)
		case kindVIO:
			is = t.VIO != nil
			same = was && is && o.VIO != nil && o.VIO.AIX == t.VIO.AIX && sameVHost(&o.VIO.TargetVHost, &t.VIO.TargetVHost)
		case kindXen:
			is = t.Xen != nil
			same = was && is && o.Xen != nil && o.Xen.Same(t.Xen)
		}
		if same {
			if kind != kindISCSI {
				p.adjust = append(p.adjust, x)
			}
			continue
		}
		if was {
			p.exportInUse(bad, x)
			p.removeExports = append(p.removeExports, x)
		}
		if is {
			p.addExports = append(p.addExports, x)
		}
	}
}

// exportInUse refuses to end an export that somebody uses.
func (p *plan) exportInUse(bad *collect, x exportName) {
	var who []string
	for i := range p.sessions {
		if s := &p.sessions[i]; s.Target == x.target && s.Kind == x.kind {
			who = append(who, s.user())
		}
	}
	slices.Sort(who)
	who = slices.Compact(who)
	if len(who) == 0 {
		return
	}
	switch {
	case x.kind != kindISCSI:
		front := "vhost-user"
		hint := "end it or unplug its device first, or use --force: its device does not answer any more"
		switch x.kind {
		case kindVIO:
			front = "vio"
		case kindXen:
			front, hint = "xen", "take the device away first (vtgt detach xen), or use --force: the domain loses its disks"
		}
		if !force(p, "target "+x.target+" changes its "+front+" export: its virtual machine loses its disks: "+enumerate(who)) {
			bad.add(&Error{Code: CodeBusy, Object: "target " + x.target,
				Message: "its " + front + " export cannot change while a virtual machine is connected (" + enumerate(who) + ")",
				Hint:    hint})
		}
	case !force(p, "target "+x.target+" changes its export: its sessions end: "+enumerate(who)):
		bad.add(&Error{Code: CodeBusy, Object: "target " + x.target,
			Message: "its iSCSI export cannot change while initiators are logged in (" + enumerate(who) + ")",
			Hint:    "log them out first, or add a second target with the new name, or use --force: their sessions end"})
	}
}

// sameISCSI: who may log in changes while the export is served.
func sameISCSI(a, b *config.TargetISCSI) bool { return a.IQN == b.IQN && a.Alias == b.Alias }

// guestOf is who writes by an export to a virtual machine.
type guestOf struct{ who, initiator string }

// guestsOf are those of a target.
func guestsOf(t *config.Target) (out []guestOf) {
	if x := t.VHost; x != nil {
		out = append(out, guestOf{"the virtual machine at " + x.Socket, x.Initiator})
	}
	if x := t.VIO; x != nil {
		out = append(out, guestOf{"the virtual machine at " + x.Socket, x.Initiator})
	}
	if x := t.Xen; x != nil {
		out = append(out, guestOf{"Xen " + x.String(), x.Initiator})
	}
	return out
}

// sameVHost: who may connect changes while the export is served.
func sameVHost(a, b *config.TargetVHost) bool {
	return a.Socket == b.Socket && strings.EqualFold(a.Initiator, b.Initiator)
}

// sharing refuses what would have initiators of two names write a disk that is not
// shared. The core sees to it too, but when it is too late to refuse all of it.
func (p *plan) sharing(bad *collect) {
	writers := map[string][]string{} // initiators by disk
	guests := map[string]string{}    // what virtual machines are called, by their UUID
	for i := range p.cfg.Targets {
		t := &p.cfg.Targets[i]
		ends := slices.Contains(p.removeExports, exportName{t.Name, kindISCSI})
		for _, l := range t.LUNs {
			d := p.is.Disk(l.Disk)
			if d == nil || d.Shared || readOnly(p.is, l) || p.old.readOnly(d.Name) && !slices.Contains(p.reopen, d.Name) {
				continue
			}
			// A virtual machine's nexus is there before it connects. Where a mask
			// could hide the LUN from it, the core has the last word.
			for _, x := range guestsOf(t) {
				if l.Initiators != "" {
					continue
				}
				who, id := x.who, strings.ToLower(x.initiator)
				if o := guests[id]; id != "" && o != "" {
					who = o
				} else if id != "" {
					guests[id] = who
				}
				writers[d.Name] = append(writers[d.Name], who)
			}
			if ends {
				continue // nobody is there
			}
			for j := range p.sessions {
				if s := &p.sessions[j]; s.Kind == kindISCSI && s.Target == t.Name && sees(l, s.Initiator) {
					writers[d.Name] = append(writers[d.Name], s.Initiator)
				}
			}
		}
	}
	for i := range p.cfg.Disks {
		name := p.cfg.Disks[i].Name
		who := writers[name]
		slices.Sort(who)
		if who = slices.Compact(who); len(who) > 1 {
			object := "disk " + name
			bad.add(&Error{Code: CodeBusy, Object: object, Message: notSharedMessage(object, name, who), Hint: notSharedHint})
		}
	}
}

const notSharedHint = "write shared: true at the disk if the initiators know of each other; else log out all but one, map it read-only, or give each a LUN of its own (initiators:)"

// notSharedMessage names the disk unless it is the object of the message.
func notSharedMessage(object, disk string, who []string) string {
	if disk = "disk " + disk + " "; object+" " == disk {
		disk = ""
	}
	return disk + "is not shared, but several initiators that are logged in could write it: " + enumerate(who)
}

// force notes what is done by force; false: it is not to be.
func force(p *plan, what string) bool {
	if p.force {
		p.warnings = append(p.warnings, what)
	}
	return p.force
}

func lunsByNumber(t *config.Target) map[uint16]config.LUN {
	m := make(map[uint16]config.LUN, len(t.LUNs))
	for _, l := range t.LUNs {
		m[l.LUN] = l
	}
	return m
}

func lunOf(t *config.Target, n uint16) *config.LUN {
	for i := range t.LUNs {
		if t.LUNs[i].LUN == n {
			return &t.LUNs[i]
		}
	}
	return nil
}

func (p *plan) disks(bad *collect) {
	for i := range p.old.cfg.Disks {
		if n := p.old.cfg.Disks[i].Name; p.is.Disk(n) == nil && p.old.disks[n] != nil {
			p.close = append(p.close, n)
		}
	}
	for i := range p.cfg.Disks {
		d := &p.cfg.Disks[i]
		od := p.old.disks[d.Name]
		if od == nil {
			p.open = append(p.open, d.Name)
			continue
		}
		size, same := unchanged(od, d)
		if size {
			p.resize = append(p.resize, d.Name)
			if has := od.obj.status().size; int64(d.Size) < has && !force(p, fmt.Sprintf("disk %s is cut from %s to %s: what lies behind is lost", d.Name, config.Size(has), d.Size)) {
				bad.add(&Error{Code: CodeInvalid, Object: "disk " + d.Name,
					Message: fmt.Sprintf("has %s: to cut it to %s would lose what lies behind", config.Size(has), d.Size),
					Hint:    "have the initiators use less of it first (file system, partitions), then use --force"})
			}
		}
		if same {
			continue
		}
		// In use by what it was, and by what it is to be: a session that will
		// find the disk in its target afterwards would see it change.
		var who []string
		for j := range p.old.cfg.Targets {
			t := &p.old.cfg.Targets[j]
			for _, l := range t.LUNs {
				if l.Disk == d.Name && p.is.Target(t.Name) != nil {
					who = append(who, users(p.sessions, t.Name, l)...)
				}
			}
		}
		if len(who) > 0 && !force(p, "disk "+d.Name+" is closed and opened again, commands under way are aborted: "+enumerate(who)) {
			what := config.Diff(&config.Config{Disks: []config.Disk{od.cfg}}, &config.Config{Disks: []config.Disk{*d}})
			detail := ""
			if len(what) > 0 {
				detail = " (" + what[0].Detail + ")"
			}
			bad.add(&Error{Code: CodeBusy, Object: "disk " + d.Name,
				Message: "cannot change" + detail + " while initiators use it: " + enumerate(who),
				Hint:    "log them out or take the disk out of its targets first, or use --force: commands under way are aborted"})
		}
		p.reopen = append(p.reopen, d.Name)
	}
}

// unchanged tells whether the running disk od serves d as it stands, after its
// store has changed its size where resize is true.
func unchanged(od *disk, d *config.Disk) (resize, same bool) {
	a, b := od.cfg, *d
	// Declarations about the future, not properties of what runs.
	a.Shared, a.Create, a.Claim, a.OnError, a.SanitizeSpeed = b.Shared, b.Create, b.Claim, b.OnError, b.SanitizeSpeed
	var st diskState
	if a != b {
		st = od.obj.status()
	}
	if a.ReadOnly != b.ReadOnly && !st.readOnly {
		a.ReadOnly = b.ReadOnly // each of its LUNs says so
	}
	if a.Size != b.Size {
		scheme, _ := config.SplitStore(b.Store)
		if c := a; (scheme == "file" || scheme == "encrypted" || scheme == "mem") && !st.readOnly {
			if c.Size = b.Size; c == b {
				return b.Size != 0 && int64(b.Size) != st.size, true
			}
		}
	}
	return false, a == b
}

func (p *plan) portals(bad *collect, sessions []Session) {
	is := make(map[string]bool, len(p.cfg.ISCSI.Portals))
	for _, a := range p.cfg.ISCSI.Portals {
		is[a] = true
		if _, ok := p.old.portals[a]; !ok {
			p.addPortals = append(p.addPortals, a)
		}
	}
	for _, a := range p.old.cfg.ISCSI.Portals {
		if is[a] {
			continue
		}
		p.removePortals = append(p.removePortals, a)
		if o := p.old.portals[a]; o != nil {
			p.inUse(bad, "portal "+a, "takes no more logins", portalUsers(sessions, o.addr()), "log them out first, or use --force: they go on, but cannot come back by it")
		}
	}
}
