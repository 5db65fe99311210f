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

	open   []string // disks to open, in the order of cfg
	grow   []string // disks whose store becomes longer while it is served
	reopen []string // disks to close and open again: nobody uses them
	close  []string // disks to close

	addTargets    []string
	removeTargets []string
	// replaceTargets have another iSCSI name or alias: removed and added.
	replaceTargets []string

	unmap []mapping // of targets that stay
	mapIn []mapping // into targets that stay

	addPortals    []string
	removePortals []string

	warnings []string
}

type mapping struct {
	target string
	lun    config.LUN
}

// makePlan refuses what cannot be done while initiators are logged in and what
// needs a restart; the error then holds every refusal.
func makePlan(old *graph, cfg *config.Config, sessions []Session) (*plan, error) {
	p := &plan{old: old, cfg: cfg}
	var bad collect
	if old.revision > 0 {
		p.settings(&bad)
	}
	p.targets(&bad, sessions)
	p.disks(&bad, sessions)
	p.portals()
	return p, bad.err()
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
	refuse("loops", a.Loops, b.Loops)
	refuse("memory", a.Memory, b.Memory)
}

func (p *plan) targets(bad *collect, sessions []Session) {
	old := p.old.cfg
	for i := range old.Targets {
		t := &old.Targets[i]
		if p.cfg.Target(t.Name) != nil {
			continue
		}
		p.removeTargets = append(p.removeTargets, t.Name)
		if who := initiators(sessions, t.Name); len(who) > 0 {
			p.warnings = append(p.warnings, fmt.Sprintf("target %s is removed: its sessions end (%s)", t.Name, strings.Join(who, ", ")))
		}
	}
	for i := range p.cfg.Targets {
		t := &p.cfg.Targets[i]
		o := old.Target(t.Name)
		if o == nil {
			p.addTargets = append(p.addTargets, t.Name)
			continue
		}
		if !sameExport(o, t) {
			if who := initiators(sessions, t.Name); len(who) > 0 {
				bad.add(&Error{Code: CodeBusy, Object: "target " + t.Name,
					Message: "its iSCSI export cannot change while initiators are logged in (" + strings.Join(who, ", ") + ")",
					Hint:    "log them out first, or add a second target with the new name"})
			}
			p.replaceTargets = append(p.replaceTargets, t.Name)
			continue
		}
		if who := initiators(sessions, t.Name); len(who) > 1 && sole(p.cfg, t) {
			bad.add(&Error{Code: CodeBusy, Object: "target " + t.Name,
				Message: "would have a disk that is not shared, but several initiators are logged in (" + strings.Join(who, ", ") + ")",
				Hint:    "write shared: true at its disks if the initiators know of each other, or log out all but one"})
		}
		for _, l := range o.LUNs {
			if n := lunOf(t, l.LUN); (n == nil || *n != l) && p.old.disks[l.Disk] != nil {
				p.unmap = append(p.unmap, mapping{t.Name, l})
			}
		}
		for _, l := range t.LUNs {
			// A disk that was lost (see undo) comes back to where it was.
			if n := lunOf(o, l.LUN); n == nil || *n != l || p.old.disks[l.Disk] == nil {
				p.mapIn = append(p.mapIn, mapping{t.Name, l})
			}
		}
	}
}

func sameExport(a, b *config.Target) bool {
	if a.ISCSI == nil || b.ISCSI == nil {
		return a.ISCSI == b.ISCSI
	}
	return *a.ISCSI == *b.ISCSI
}

// sole tells whether initiators of one name only may use target t of c: it has a
// disk that they may write and that is not shared.
func sole(c *config.Config, t *config.Target) bool {
	for _, l := range t.LUNs {
		if d := c.Disk(l.Disk); d != nil && !d.Shared && !d.ReadOnly && !l.ReadOnly {
			return true
		}
	}
	return false
}

func lunOf(t *config.Target, n uint16) *config.LUN {
	for i := range t.LUNs {
		if t.LUNs[i].LUN == n {
			return &t.LUNs[i]
		}
	}
	return nil
}

func (p *plan) disks(bad *collect, sessions []Session) {
	for i := range p.old.cfg.Disks {
		if n := p.old.cfg.Disks[i].Name; p.cfg.Disk(n) == nil && p.old.disks[n] != nil {
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
		grow, same := unchanged(od, d)
		switch {
		case grow:
			p.grow = append(p.grow, d.Name)
			continue
		case same:
			continue
		}
		// In use by what it was, and by what it is to be: a session that will
		// find the disk in its target afterwards would see it change.
		var who []string
		for _, l := range lunsOf(p.old.cfg, d.Name) {
			t, _, _ := strings.Cut(l, "/")
			if slices.Contains(p.removeTargets, t) {
				continue
			}
			who = append(who, initiators(sessions, t)...)
		}
		if len(who) > 0 {
			slices.Sort(who)
			what := config.Diff(&config.Config{Disks: []config.Disk{od.cfg}}, &config.Config{Disks: []config.Disk{*d}})
			detail := ""
			if len(what) > 0 {
				detail = " (" + what[0].Detail + ")"
			}
			bad.add(&Error{Code: CodeBusy, Object: "disk " + d.Name,
				Message: "cannot change" + detail + " while initiators use it: " + strings.Join(slices.Compact(who), ", "),
				Hint:    "log them out or take the disk out of its targets first; the rest of the file can be applied when this disk is left as it was"})
		}
		p.reopen = append(p.reopen, d.Name)
	}
}

// unchanged tells whether the running disk od serves d as it stands, after its
// store has grown where grow is true.
func unchanged(od *disk, d *config.Disk) (grow, same bool) {
	a, b := od.cfg, *d
	// Declarations about the future, not properties of what runs.
	a.Shared, a.Create = b.Shared, b.Create
	if a.Size != b.Size {
		scheme, _ := config.SplitStore(b.Store)
		if scheme == "file" && !b.ReadOnly {
			has := od.obj.status().size
			a.Size = b.Size
			if a == b && (b.Size == 0 || int64(b.Size) == has) {
				return false, true
			}
			if a == b && int64(b.Size) > has {
				return true, true
			}
			a.Size = od.cfg.Size
		}
	}
	return false, a == b
}

func (p *plan) portals() {
	for _, a := range p.old.cfg.ISCSI.Portals {
		if !slices.Contains(p.cfg.ISCSI.Portals, a) {
			p.removePortals = append(p.removePortals, a)
		}
	}
	for _, a := range p.cfg.ISCSI.Portals {
		if _, ok := p.old.portals[a]; !ok {
			p.addPortals = append(p.addPortals, a)
		}
	}
}

// initiators names who is logged in to a target, sorted.
func initiators(sessions []Session, target string) []string {
	var out []string
	for _, s := range sessions {
		if s.Target == target && !s.Discovery {
			out = append(out, s.Initiator)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
