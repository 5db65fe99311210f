package scsi

import (
	"cmp"
	"slices"
)

// User is a nexus that sees a unit: who stands in the way of its removal.
type User struct {
	Initiator InitiatorID
	Target    string
	// LUN is the unit's number in that target; -1 for a nexus that sees no unit
	// (Target.Users only).
	LUN int
	// Disk is the unit's name.
	Disk string
	// ReadOnly: it may not write.
	ReadOnly bool
	// InFlight is the number of its tasks on that unit, those that wait included.
	InFlight int64
}

// Users are the nexuses that see the unit, sorted by target and initiator, whether
// they have used it yet or not. Any goroutine.
func (u *Unit) Users() (us []User) {
	for _, tg := range u.mappedBy() {
		us = append(us, tg.users(u)...)
	}
	sortUsers(us)
	return us
}

// Users are the nexuses of the target, with a line for each LUN that they see. Any
// goroutine.
func (tg *Target) Users() []User {
	us := tg.users(nil)
	sortUsers(us)
	return us
}

// users lists who sees u by this target; nil: any unit.
func (tg *Target) users(u *Unit) (us []User) {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	tg.eachNexusLocked(func(n *Nexus) {
		list := n.LUNs()
		if u == nil && len(list) == 0 {
			us = append(us, User{Initiator: n.id, Target: tg.conf.Name, LUN: -1})
		}
		for i := range list {
			e := &list[i]
			if u == nil || e.Unit == u {
				us = append(us, User{Initiator: n.id, Target: tg.conf.Name, LUN: tg.lunOf(e.Unit), Disk: e.Unit.Name(),
					ReadOnly: !e.writable(), InFlight: e.Unit.inFlight(n)})
			}
		}
	})
	return us
}

// lunOf is the target's number for u, whatever number ports show it under; -1: it is not
// mapped.
func (tg *Target) lunOf(u *Unit) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	if lun, ok := u.targets[tg]; ok {
		return int(lun)
	}
	return -1
}

// inFlight counts n's tasks.
func (u *Unit) inFlight(n *Nexus) (c int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, lu := range u.lanes {
		if lu.lane.nexus == n {
			c += lu.inflight.Load()
		}
	}
	for t := u.waiting.head; t != nil; t = t.sched.qnext {
		if t.lane.nexus == n {
			c++
		}
	}
	return c
}

func sortUsers(us []User) {
	slices.SortFunc(us, func(a, b User) int {
		return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(a.Initiator, b.Initiator), cmp.Compare(a.LUN, b.LUN))
	})
}
