package scsi

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// TargetConfig describes a target.
type TargetConfig struct {
	Name string
	// Log gets what an operator should know; nil: silence.
	Log *slog.Logger
}

// Target is a SCSI target device (SAM-5 §4.6.5): a LUN map and the ports that
// lead to it.
type Target struct {
	conf   TargetConfig
	lunMap atomic.Pointer[lunMap] // written under mu
	// noUnit answers for LUNs that are not mapped.
	noUnit deviceServer

	mu       sync.Mutex // first of Target.mu, Nexus.mu, Unit.mu
	ports    []*Port
	removing map[*Unit]bool // unmapped, but lanes have not let go
	closed   bool
}

// NewTarget makes a target without LUNs and ports.
func NewTarget(c TargetConfig) *Target {
	tg := &Target{conf: c, noUnit: newDisk(nil), removing: make(map[*Unit]bool)}
	tg.lunMap.Store(&lunMap{})
	return tg
}

// Name is the target's name.
func (tg *Target) Name() string { return tg.conf.Name }

// LUNs is the LUN map, sorted by LUN. It must not be changed.
func (tg *Target) LUNs() []Mapping { return tg.lunMap.Load().list }

// luns is LUNs, for the device servers.
func (tg *Target) luns() []Mapping { return tg.LUNs() }

// Map gives u the number lun in this target. A unit has one number in each target
// at most.
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
	case tg.removing[u]:
		return fmt.Errorf("target %s: disk %s is still being removed; wait until its last commands have ended", tg.conf.Name, u.Name())
	}
	u.mu.Lock()
	if u.closed {
		u.mu.Unlock()
		return fmt.Errorf("disk %s: %w", u.Name(), ErrClosed)
	}
	u.targets[tg] = lun
	u.mu.Unlock()
	tg.lunMap.Store(m.with(Mapping{LUN: lun, Unit: u, ReadOnly: o.ReadOnly}))
	tg.lunsChangedLocked(Event{Kind: LUNAdded, LUN: lun})
	return nil
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
	lun := m.list[i].LUN
	tg.lunMap.Store(m.without(i))
	tg.removing[u] = true
	u.mu.Lock()
	delete(u.targets, tg)
	u.mu.Unlock()
	tg.lunsChangedLocked(Event{Kind: LUNRemoved, LUN: lun})
	tg.mu.Unlock()

	j.add(1)
	u.startBarrier(&barrier{
		target:  tg,
		outcome: abortGone,
		drop:    true,
		done: func(b *barrier) {
			// It may be a loop's turn, and these locks are others' too.
			go func() {
				tg.removed(u)
				j.release(b.stuck)
			}()
		},
	}, deadline)
	return true
}

// removed ends the removal of u: the target's nexuses forget it.
func (tg *Target) removed(u *Unit) {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	for _, p := range tg.ports {
		for n := range p.nexuses {
			n.forget(u)
		}
	}
	delete(tg.removing, u)
}

// lunsChangedLocked tells all nexuses that the LUN map is another. tg.mu is held.
func (tg *Target) lunsChangedLocked(e Event) {
	for _, p := range tg.ports {
		for n := range p.nexuses {
			n.raiseUA(ASCReportedLUNsDataHasChanged)
			n.fe.Event(e)
		}
	}
}

// event tells all nexuses.
func (tg *Target) event(e Event) {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	for _, p := range tg.ports {
		for n := range p.nexuses {
			n.fe.Event(e)
		}
	}
}

// portList is a snapshot of the ports, for the device servers. Without locks.
func (tg *Target) portList() []*Port {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	return append([]*Port(nil), tg.ports...)
}

// NewPort adds a port.
func (tg *Target) NewPort(c PortConfig) *Port {
	p := &Port{conf: c, target: tg, nexuses: make(map[*Nexus]struct{})}
	tg.mu.Lock()
	tg.ports = append(tg.ports, p)
	tg.mu.Unlock()
	return p
}

// Close ends all nexuses and takes all LUNs away. done is as in Nexus.Close.
func (tg *Target) Close(deadline time.Duration, done func(stuck int)) {
	tg.mu.Lock()
	tg.closed = true
	ports := tg.ports
	tg.mu.Unlock()
	j := newJoint(done)
	for _, p := range ports {
		j.add(1)
		p.Close(deadline, j.release)
	}
	for _, e := range tg.LUNs() {
		tg.removeUnit(e.Unit, deadline, j)
	}
	j.release(0)
}
