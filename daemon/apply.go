package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/daemon/state"
)

func lunName(target string, lun uint16) string { return fmt.Sprintf("%s/%d", target, lun) }

// apply is Apply's work; d.write is held.
//
// Order: (1) everything new is made without anybody seeing it: stores opened,
// addresses bound, identities stored; (2) disks that must be closed before they
// can be opened anew, which nobody uses; (3) publication, where nothing is left
// that fails for a reason from outside. An error in (1) or (2) undoes both.
//
// The text is saved, where it is to be, between (2) and (3): a crash before leaves
// the old text, one after it the new.
func (d *Daemon) apply(file string, text []byte, cfg *config.Config, o ApplyOptions, s *staged, locks time.Time) (*Result, error) {
	old := d.cur.Load()
	p, err := makePlan(old, cfg, d.eng.sessions(), o.Force)
	if err != nil {
		return nil, err
	}
	x := &change{d: d, plan: p, n: old.clone(), staged: s, locks: locks}
	x.n.cfg, x.n.file, x.n.text = cfg, file, slices.Clone(text)
	x.changes = config.Diff(old.cfg, cfg)
	if !old.running || len(x.changes) > 0 || !bytes.Equal(old.text, text) {
		x.n.revision++
	}
	if err := x.prepare(); err != nil {
		x.undo()
		return nil, err
	}
	if s != nil {
		if err := s.commit(); err != nil {
			x.undo()
			return nil, err
		}
	}
	if err := d.opt.Legacy.commit(); err != nil {
		x.undo()
		return nil, err
	}
	x.publish()
	return result(p, x.changes, false, x.n.revision), nil
}

// readOnly tells whether nobody may write at a place.
func readOnly(c *config.Index, l config.LUN) bool {
	d := c.Disk(l.Disk)
	return l.ReadOnly || d != nil && d.ReadOnly
}

// change is one Apply under way.
type change struct {
	d    *Daemon
	plan *plan
	n    *graph // what will be published
	// changes are what leads there.
	changes []config.Change
	staged  *staged // nil: the text is not to be saved
	// locks is until when locks that somebody else holds are waited for.
	locks time.Time

	access     *accesses
	known      func(disk string) bool // served before
	newDisks   []*disk
	newTargets []*target
	newExports []newExport
	specs      map[exportName]*ringSpec // of exports that stay
	newPortals []portalObject
	closed     []*disk // old disks that were closed to be opened anew
	unshared   []*disk // old disks that prepare has made so
	numbered   error   // the revision was not stored
}

// prepare does what can fail.
func (x *change) prepare() error {
	d, p := x.d, x.plan
	var bad collect

	x.access = readAccess(p.cfg, &bad)
	ids := d.st.Identities().Prepare()
	x.known = ids.Known
	// Files that are to be made come last: an error elsewhere leaves none behind.
	var create []string
	for _, name := range p.open {
		if c := p.is.Disk(name); c.Create && missing(c.Path()) {
			create = append(create, name)
			continue
		}
		x.open(name, ids.Disk(name), &bad)
	}
	for _, a := range p.addPortals {
		obj, err := d.eng.listen(a)
		if err != nil {
			bad.add(place(err, p.cfg, p.cfg.PortalPath(a)))
			continue
		}
		x.newPortals = append(x.newPortals, obj)
		x.n.portals[a] = obj
	}
	// Everything that is wrong is said at once; only then go on to what makes
	// files, and to what touches disks that run.
	if err := bad.err(); err != nil {
		return err
	}
	for _, name := range create {
		x.open(name, ids.Disk(name), &bad)
	}
	if err := bad.err(); err != nil {
		return err
	}
	for _, name := range p.reopen {
		x.reopen(name, ids.Disk(name), &bad)
	}
	for _, name := range p.addTargets {
		c := *p.is.Target(name)
		group, err := ids.Group(name)
		if err != nil {
			bad.add(&Error{Code: CodeInternal, Object: "target " + name, Message: err.Error(), Err: err})
			continue
		}
		obj, err := d.eng.newTarget(&c, group)
		if err != nil {
			bad.add(err)
			continue
		}
		t := &target{cfg: c, group: group, obj: obj}
		x.newTargets = append(x.newTargets, t)
		obj.setAccess(x.access.targets[name])
		for _, l := range c.LUNs {
			k := x.n.disks[l.Disk]
			if k == nil {
				continue // its error is in bad
			}
			bad.add(obj.mapLUN(l, k.obj, readOnly(p.is, l)))
		}
		if c.ISCSI != nil {
			x.export(t, exportName{name, kindISCSI}, ids, &bad)
		}
		if c.VHost != nil {
			x.export(t, exportName{name, kindVHost}, ids, &bad)
		}
		if c.VIO != nil {
			x.export(t, exportName{name, kindVIO}, ids, &bad)
		}
		if c.Xen != nil {
			x.export(t, exportName{name, kindXen}, ids, &bad)
		}
	}
	for _, e := range p.addExports {
		if t := p.old.targets[e.target]; t != nil {
			x.export(t, e, ids, &bad)
		}
	}
	x.specs = map[exportName]*ringSpec{}
	for _, e := range p.adjust {
		if s := x.ringSpec(e, ids, &bad); s != nil {
			x.specs[e] = s
		}
	}
	x.unshare(&bad)
	if err := bad.err(); err != nil {
		return err
	}
	if err := x.keep(ids); err != nil {
		return err
	}
	// Last, because it is not undone.
	for _, name := range p.resize {
		if err := x.n.disks[name].obj.resize(int64(p.is.Disk(name).Size)); err != nil {
			bad.add(place(err, p.cfg, p.cfg.DiskPath(name, "size")))
		}
	}
	return bad.err()
}

// keep stores what has to be stable before the new text takes its place, side by side:
// the journal of a file system makes one commit of what would be seven. A revision that
// was stored for nothing is only left out.
func (x *change) keep(ids *state.Prepared) error {
	var kept, made, staged error
	var wg sync.WaitGroup
	if old := x.plan.old; old.running && !bytes.Equal(old.text, x.n.text) {
		wg.Go(func() { kept = x.d.st.Keep(old.revision, false, old.text) })
	}
	if x.n.revision != x.plan.old.revision {
		wg.Go(func() {
			x.numbered = x.d.st.SetRevision(state.Revision{Revision: x.n.revision, Sum: sum(x.n.text)})
		})
	}
	wg.Go(func() { staged = x.staged.settle() })
	made = ids.Commit()
	wg.Wait()
	for _, err := range []error{made, kept} {
		if err != nil {
			return stateError(err)
		}
	}
	return staged
}

// unshare makes disks no longer shared. Where the places of a disk change too,
// publish does it afterwards.
func (x *change) unshare(bad *collect) {
	p := x.plan
	moves := func(disk string) bool {
		return slices.ContainsFunc(slices.Concat(p.unmap, p.remap), func(m mapping) bool { return m.lun.Disk == disk })
	}
	for name, o := range p.old.disks {
		c := p.is.Disk(name)
		if c == nil || c.Shared || !o.cfg.Shared || x.n.disks[name] != o || moves(name) {
			continue
		}
		if err := o.obj.setShared(false); err != nil {
			bad.add(place(err, p.cfg, p.cfg.DiskPath(name, "shared")))
			continue
		}
		x.unshared = append(x.unshared, o)
	}
}

func missing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// place adds where in the file the cause stands.
func place(err error, c *config.Config, path string) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	if at := c.At(path); at.Line > 0 && at.File != "" {
		e.Object = at.Where() + ": " + e.Object
	}
	return e
}

func (x *change) open(name string, kept state.Disk, bad *collect) {
	c := *x.plan.is.Disk(name)
	id := identity(&c, kept)
	// A disk that was served before: whatever is written on it since is its
	// initiators' doing.
	oc := c
	oc.Claim = c.Claim || x.known(name)
	if o := x.plan.old.disks[name]; o != nil {
		// It goes to where it was first; publish ends the sharing.
		oc.Shared = c.Shared || o.cfg.Shared
	}
	obj, err := x.d.eng.openDisk(&oc, id, max(time.Until(x.locks), 0))
	if err != nil {
		bad.add(place(err, x.plan.cfg, x.plan.cfg.DiskPath(name, "store")))
		return
	}
	k := &disk{cfg: c, id: id, obj: obj}
	x.newDisks = append(x.newDisks, k)
	x.n.disks[name] = k
}

// reopen closes a disk that no initiator uses and opens it as it is to be. Where
// the store is another one, the new one is opened first.
func (x *change) reopen(name string, kept state.Disk, bad *collect) {
	o := x.plan.old.disks[name]
	if o.cfg.Path() == "" || o.cfg.Path() != x.plan.is.Disk(name).Path() {
		before := len(bad.es)
		x.open(name, kept, bad)
		if len(bad.es) > before {
			return
		}
		x.unmapAll(name)
		x.remap(name)
		x.plan.close = append(x.plan.close, name)
		return
	}
	x.unmapAll(name)
	if err := x.d.closeDisk(o, x.d.opt.DrainTime); err != nil {
		bad.add(err)
		x.mapAll(x.plan.old, name, o)
		return
	}
	x.closed = append(x.closed, o)
	x.open(name, kept, bad)
	if x.n.disks[name] != o {
		x.remap(name)
	}
}

// kept are the places of a disk in targets that run before and after.
func (x *change) kept(name string) (out []mapping) {
	for i := range x.plan.old.cfg.Targets {
		t := &x.plan.old.cfg.Targets[i]
		for _, l := range t.LUNs {
			if l.Disk == name {
				out = append(out, mapping{t.Name, l})
			}
		}
	}
	return out
}

func (x *change) unmapAll(name string) {
	for _, m := range x.kept(name) {
		if t := x.plan.old.targets[m.target]; t != nil {
			if err := t.obj.unmapLUN(m.lun.LUN, x.d.opt.DrainTime); err != nil {
				x.d.log.Error("removing a LUN", "lun", lunName(m.target, m.lun.LUN), "err", err)
			}
		}
	}
}

// remap puts the new object of a disk where the old one was. Places that the new
// configuration does not have are unmapped in publish as any other.
func (x *change) remap(name string) { x.mapAll(x.plan.old, name, x.n.disks[name]) }

func (x *change) mapAll(g *graph, name string, k *disk) {
	for _, m := range x.kept(name) {
		if t := g.targets[m.target]; t != nil {
			if err := t.obj.mapLUN(m.lun, k.obj, m.lun.ReadOnly || k.cfg.ReadOnly); err != nil {
				x.d.log.Error("adding a LUN", "lun", lunName(m.target, m.lun.LUN), "err", err)
			}
		}
	}
}

// undo takes back what prepare did.
func (x *change) undo() {
	drain := x.d.opt.DrainTime
	for _, e := range x.newExports {
		_ = e.obj.close(drain)
	}
	for _, t := range x.newTargets {
		for _, l := range t.cfg.LUNs {
			_ = t.obj.unmapLUN(l.LUN, drain)
		}
		t.obj.close()
	}
	for _, p := range x.newPortals {
		_ = p.close()
	}
	for _, k := range x.unshared {
		_ = k.obj.setShared(true)
	}
	// A changed disk is put back where it was.
	for _, k := range x.newDisks {
		if o := x.plan.old.disks[k.cfg.Name]; o != nil {
			x.unmapAll(k.cfg.Name)
			if !slices.Contains(x.closed, o) {
				x.mapAll(x.plan.old, k.cfg.Name, o)
			}
		}
		if err := k.obj.close(drain); err != nil {
			x.d.log.Error("closing a disk", "disk", k.cfg.Name, "err", err)
		}
	}
	if len(x.closed) == 0 {
		return
	}
	g := x.plan.old.clone()
	for _, o := range x.closed {
		name := o.cfg.Name
		c := o.cfg
		obj, err := x.d.eng.openDisk(&c, o.id, time.Second)
		if err != nil {
			x.d.log.Error("a disk that a refused configuration changed could not be opened again: it is out of its targets until it is applied anew", "disk", name, "err", err)
			delete(g.disks, name)
			continue
		}
		k := &disk{cfg: c, id: o.id, obj: obj}
		g.disks[name] = k
		x.mapAll(g, name, k)
	}
	x.d.cur.Store(g)
}

// publish makes the change visible. What fails here is a defect or a command that
// does not end; it is logged, told in the result, and the rest goes on.
func (x *change) publish() {
	d, p, drain := x.d, x.plan, x.d.opt.DrainTime
	trouble := func(object string, err error) {
		if err != nil {
			d.log.Error("applying the configuration", "object", object, "err", err)
			p.warnings = append(p.warnings, object+": "+err.Error())
		}
	}

	// What goes.
	for _, a := range p.removePortals {
		trouble("portal "+a, x.n.portals[a].close())
		delete(x.n.portals, a)
	}
	for _, e := range p.removeExports {
		t := x.n.targets[e.target]
		trouble("target "+e.target, retire(t.exports[e.kind].obj, drain))
		x.n.targets[e.target] = t.with(e.kind, nil)
	}
	for _, name := range p.removeTargets {
		for _, e := range p.old.targets[name].exports {
			trouble("target "+name, retire(e.obj, drain))
		}
		trouble("target "+name, d.closeTarget(p.old.targets[name], drain))
		delete(x.n.targets, name)
	}
	for _, m := range p.unmap {
		trouble("LUN "+lunName(m.target, m.lun.LUN), leave(x.n.targets[m.target].exports, m.lun.LUN, drain, func() error {
			return p.old.targets[m.target].obj.unmapLUN(m.lun.LUN, drain)
		}))
	}

	// Who may come.
	p.warnings = append(p.warnings, x.access.warnings...)
	d.eng.setDiscovery(x.access.discovery)
	for name, t := range x.n.targets {
		t.obj.setAccess(x.access.targets[name])
	}

	// What comes.
	for name, k := range x.n.disks {
		if c := p.is.Disk(name); c != nil && c.Shared {
			trouble("disk "+name, k.obj.setShared(true))
		}
	}
	// Virtual machines hear of a new LUN by the virtio target that it is at.
	for n, s := range x.specs {
		t := x.n.targets[n.target]
		e := *t.exports[n.kind]
		trouble("target "+n.target, e.obj.adjust(s))
		e.ring = s
		x.n.targets[n.target] = t.with(n.kind, &e)
	}
	for _, m := range p.mapIn {
		trouble("LUN "+lunName(m.target, m.lun.LUN), x.n.targets[m.target].obj.mapLUN(m.lun, x.n.disks[m.lun.Disk].obj, readOnly(p.is, m.lun)))
	}
	for _, m := range p.remap {
		trouble("LUN "+lunName(m.target, m.lun.LUN), x.n.targets[m.target].obj.remapLUN(m.lun.LUN, readOnly(p.is, m.lun), drain))
	}
	for name, t := range x.n.targets {
		if a := p.is.Target(name).ALUA; a.State() != t.cfg.ALUA.State() {
			trouble("target "+name, t.obj.setALUA(a, drain))
		}
	}
	for _, t := range x.newTargets {
		x.n.targets[t.cfg.Name] = t
	}
	for _, e := range x.newExports {
		trouble("target "+e.target, e.obj.start())
		x.n.targets[e.target] = x.n.targets[e.target].with(e.kind, &e.export)
	}
	for name, t := range x.n.targets {
		nt := *t
		nt.cfg = *p.is.Target(name)
		x.n.targets[name] = &nt
	}
	for name, k := range x.n.disks {
		if c := p.is.Disk(name); c != nil && k.cfg != *c {
			nk := *k
			if nk.cfg.OnError != c.OnError {
				k.obj.setOnError(c.OnError)
			}
			if nk.cfg.SanitizeSpeed != c.SanitizeSpeed {
				k.obj.setSanitizeSpeed(c.SanitizeSpeed)
			}
			nk.cfg = *c
			x.n.disks[name] = &nk
		}
	}
	for name, k := range x.n.disks {
		if c := p.is.Disk(name); c != nil && !c.Shared {
			trouble("disk "+name, k.obj.setShared(false))
		}
	}
	if d.opt.Legacy != nil {
		for _, k := range x.n.disks {
			if u, ok := k.obj.(*unit); ok {
				u.u.ForgetCarried()
			}
		}
	}
	for _, o := range x.newPortals {
		trouble("portal "+o.addr(), o.start())
	}

	for _, name := range p.close {
		if x.n.disks[name] == p.old.disks[name] {
			delete(x.n.disks, name)
		}
	}
	x.n.applied = time.Now()
	trouble("state", x.numbered)
	events := x.n.number(x.changes)
	x.n.running = true
	d.cur.Store(x.n)
	if p.old.running {
		d.events.add(events...)
	}

	// Last, what nobody sees any more.
	for _, name := range p.close {
		trouble("disk "+name, d.closeDisk(p.old.disks[name], drain))
	}
	d.log.Info("configuration applied", "file", x.n.file, "revision", x.n.revision, "changes", len(x.changes))
}

// number gives what has changed the graph's revision, and tells of it.
func (g *graph) number(changes []config.Change) (es []Event) {
	for _, c := range changes {
		object := c.Kind + " " + c.Name
		if g.revs[object] = g.revision; c.Action == config.Remove {
			delete(g.revs, object)
		}
		if t, _, ok := strings.Cut(c.Name, "/"); ok && c.Kind == "lun" && g.targets[t] != nil {
			g.revs["target "+t] = g.revision
		}
		es = append(es, Event{Revision: g.revision, Time: g.applied, Action: c.Action, Kind: c.Kind, Name: c.Name, Detail: c.Detail})
	}
	return es
}
