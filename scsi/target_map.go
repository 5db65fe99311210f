package scsi

import (
	"fmt"
	"time"
)

// A target's LUN map and the views that its nexuses have of it. Both are replaced,
// never changed, with Target.mu held; lanes notice that the view is another one.

// LUNs is the LUN map, sorted by LUN. It must not be changed.
func (tg *Target) LUNs() []Mapping { return tg.lunMap.Load().list }

// LUNs is what the nexus sees of its target's LUN map, sorted by LUN. It must not be
// changed.
func (n *Nexus) LUNs() []Mapping { return n.view.Load().list }

// eachNexusLocked calls f for every nexus of the target. tg.mu is held.
func (tg *Target) eachNexusLocked(f func(n *Nexus)) {
	for _, p := range tg.ports {
		for n := range p.nexuses {
			f(n)
		}
	}
}

// Map gives u the number lun in this target. A unit has one number in each target
// at most. The error is a *SharingError if initiators of two names could write the
// unit then.
func (tg *Target) Map(lun uint16, u *Unit, o MapOptions) error {
	if lun > MaxLUN {
		return fmt.Errorf("target %s: LUN %d: the largest is %d", tg.conf.Name, lun, MaxLUN)
	}
	tg.mu.Lock()
	defer tg.mu.Unlock()
	m := tg.lunMap.Load()
	switch {
	case tg.closed:
		return fmt.Errorf("target %s: %w", tg.conf.Name, ErrClosed)
	case m.find(lun) >= 0:
		return fmt.Errorf("target %s: LUN %d is disk %s already; remove that first or take another number", tg.conf.Name, lun, m.list[m.find(lun)].Unit.Name())
	case m.findUnit(u) >= 0:
		return fmt.Errorf("target %s: disk %s is LUN %d already; a disk has one LUN in each target", tg.conf.Name, u.Name(), m.list[m.findUnit(u)].LUN)
	case tg.removing[u] != 0:
		return tg.removingError(u)
	}
	e := Mapping{LUN: lun, Unit: u, MapOptions: o}
	if err := tg.claimLocked(&e); err != nil {
		return fmt.Errorf("target %s: %w", tg.conf.Name, err)
	}
	u.mu.Lock()
	if u.closed {
		u.mu.Unlock()
		tg.eachNexusLocked(u.disclaim)
		return fmt.Errorf("disk %s: %w", u.Name(), ErrClosed)
	}
	u.targets[tg] = lun
	u.groups[tg] = groupAccess{state: tg.access}
	u.mu.Unlock()
	tg.setMapLocked(m.with(e), u)
	tg.pathsChanged(&e)
	return nil
}

func (tg *Target) removingError(u *Unit) error {
	return fmt.Errorf("target %s: disk %s is still being removed; wait until its last commands have ended", tg.conf.Name, u.Name())
}

// claimLocked has e's unit note who may write it by e. tg.mu is held.
func (tg *Target) claimLocked(e *Mapping) error {
	if !e.writable() {
		return nil
	}
	var ns []*Nexus
	tg.eachNexusLocked(func(n *Nexus) {
		if _, ok := e.seenBy(n.port, n.id); ok {
			ns = append(ns, n)
		}
	})
	return e.Unit.claim(ns)
}

// setMapLocked makes m the LUN map; it differs from the present one at u. Nexuses
// that see another list of units than before are told. tg.mu is held.
func (tg *Target) setMapLocked(m *lunMap, u *Unit) {
	tg.lunMap.Store(m)
	tg.eachNexusLocked(func(n *Nexus) {
		old, view := n.view.Load(), m.view(n.port, n.id)
		n.view.Store(view)
		if view.sameUnits(old) {
			return
		}
		n.raiseUA(ASCReportedLUNsDataHasChanged)
		if i := view.findUnit(u); i >= 0 {
			n.fe.Event(Event{Kind: LUNAdded, LUN: view.list[i].LUN})
		} else if i := old.findUnit(u); i >= 0 {
			n.fe.Event(Event{Kind: LUNRemoved, LUN: old.list[i].LUN})
		}
	})
}

// Remap changes the options of LUN lun. Nexuses for which nothing changes are not
// touched, nor are their tasks. To a nexus that no longer sees the LUN it is removed
// as by Unmap, one that sees it now hears of a new LUN. When the LUN becomes
// read-only, WRITEs that have started are waited for.
//
// done, on a goroutine of its own, has the number of tasks that were still in the
// store after deadline (0: DefaultDeadline). The error is a *SharingError if
// initiators of two names could write the unit then; nothing has changed in that
// case.
func (tg *Target) Remap(lun uint16, o MapOptions, deadline time.Duration, done func(stuck int)) error {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	m := tg.lunMap.Load()
	i := m.find(lun)
	if i < 0 {
		return fmt.Errorf("target %s has no LUN %d", tg.conf.Name, lun)
	}
	old, u := m.list[i], m.list[i].Unit
	o.Address = old.Address
	if tg.removing[u] != 0 {
		return tg.removingError(u)
	}
	e := Mapping{LUN: lun, Unit: u, MapOptions: o}
	if err := tg.claimLocked(&e); err != nil {
		return fmt.Errorf("target %s: LUN %d: %w", tg.conf.Name, lun, err)
	}
	var hidden, stay []*Nexus
	tg.eachNexusLocked(func(n *Nexus) {
		if n.view.Load().findUnit(u) < 0 {
			return
		}
		if _, ok := e.seenBy(n.port, n.id); ok {
			stay = append(stay, n)
		} else {
			hidden = append(hidden, n)
		}
	})
	tg.setMapLocked(m.changed(i, o), u)

	j := newJoint(done)
	for _, n := range hidden {
		j.add(1)
		tg.removing[u]++
		u.startBarrier(&barrier{nexus: n, outcome: abortGone, drop: true, done: func(b *barrier) {
			go func() { // see removeUnit
				tg.mu.Lock()
				n.forget(u)
				u.disclaim(n)
				tg.removedLocked(u)
				tg.mu.Unlock()
				j.release(b.stuck)
			}()
		}}, deadline)
	}
	if old.ReadOnly != o.ReadOnly {
		for _, n := range stay {
			n.setReadOnly(u, o.ReadOnly)
		}
	}
	if old.writable() && !e.writable() {
		j.add(1)
		u.startBarrier(&barrier{target: tg, done: func(b *barrier) {
			if b.expired {
				// Some may still write; the claims end with their lanes.
				j.release(b.stuck)
				return
			}
			go func() {
				tg.mu.Lock()
				if m := tg.lunMap.Load(); m.findUnit(u) < 0 || !m.list[m.findUnit(u)].writable() {
					u.unclaim(stay)
				}
				tg.mu.Unlock()
				j.release(0)
			}()
		}}, deadline)
	}
	j.release(0)
	return nil
}

// setReadOnly changes what the nexus may do with u. The WP bit of the mode parameter
// header (SBC-3 §6.5.1) shows it, so it is a change of mode parameters. tg.mu is held.
func (n *Nexus) setReadOnly(u *Unit, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if nu := n.units[u]; nu != nil {
		nu.readOnly.Store(on)
		u.mu.Lock()
		nu.raise(ASCModeParametersChanged)
		u.mu.Unlock()
	}
}

// Unmap takes LUN lun away. Tasks on it end with LOGICAL UNIT NOT SUPPORTED; done,
// on a goroutine of its own, has the number of those that were still in the store
// after deadline (0: DefaultDeadline).
func (tg *Target) Unmap(lun uint16, deadline time.Duration, done func(stuck int)) error {
	tg.mu.Lock()
	m := tg.lunMap.Load()
	i := m.find(lun)
	tg.mu.Unlock()
	if i < 0 {
		return fmt.Errorf("target %s has no LUN %d", tg.conf.Name, lun)
	}
	j := newJoint(done)
	if !tg.removeUnit(m.list[i].Unit, deadline, j) {
		return fmt.Errorf("target %s has no LUN %d", tg.conf.Name, lun)
	}
	j.release(0)
	return nil
}

// removeUnit takes u out of the LUN map; false: it is not there. The end of it is
// j's.
func (tg *Target) removeUnit(u *Unit, deadline time.Duration, j *joint) bool {
	tg.mu.Lock()
	m := tg.lunMap.Load()
	i := m.findUnit(u)
	if i < 0 {
		tg.mu.Unlock()
		return false
	}
	tg.removing[u]++
	// Now: a nexus that closes meanwhile is not found afterwards.
	var ns []*Nexus
	tg.eachNexusLocked(func(n *Nexus) { ns = append(ns, n) })
	u.mu.Lock()
	delete(u.targets, tg)
	delete(u.groups, tg)
	u.mu.Unlock()
	tg.setMapLocked(m.without(i), u)
	tg.pathsChanged(&m.list[i])
	tg.mu.Unlock()

	j.add(1)
	u.startBarrier(&barrier{
		target:  tg,
		outcome: abortGone,
		drop:    true,
		done: func(b *barrier) {
			// It may be a loop's turn, and these locks are others' too.
			go func() {
				tg.mu.Lock()
				for _, n := range ns {
					n.forget(u)
					u.disclaim(n)
				}
				tg.removedLocked(u)
				tg.mu.Unlock()
				j.release(b.stuck)
			}()
		},
	}, deadline)
	return true
}

// removedLocked ends one removal of u. tg.mu is held.
func (tg *Target) removedLocked(u *Unit) {
	if tg.removing[u]--; tg.removing[u] == 0 {
		delete(tg.removing, u)
	}
}

// event tells the nexuses that see u, with the number that they know it by.
func (tg *Target) event(k EventKind, u *Unit) {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	tg.eachNexusLocked(func(n *Nexus) {
		m := n.view.Load()
		if i := m.findUnit(u); i >= 0 {
			n.fe.Event(Event{Kind: k, LUN: m.list[i].LUN})
		}
	})
}
