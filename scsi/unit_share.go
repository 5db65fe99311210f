package scsi

import (
	"errors"
	"fmt"
	"strings"
)

// The write-sharing guard. A file system that is not made for it is destroyed when
// two initiators write it, so a unit that was not declared shared is written by
// initiators of one name only. Several ports of one initiator are one name: that is
// multipathing.
//
// Unit.writers has every nexus that may write the unit, from the moment it sees the
// unit through a writable mapping until its last task has left the store: a write
// that arrives late is as bad as one that comes at once.

// ErrNotShared is what errors.Is knows a *SharingError by.
var ErrNotShared = errors.New("not shared")

// SharingError refuses an initiator, or a mapping, that would have initiators of two
// names write a unit that is not shared.
type SharingError struct {
	Disk string
	// Initiator is refused, because Holder may write the disk, through Target.
	Initiator, Holder string
	Target            string
}

func (e *SharingError) Error() string {
	return fmt.Sprintf("disk %s is not shared: initiator %s may not write it while %s can (target %s); log that one out, map the disk read-only, or write shared: true at the disk if the initiators know of each other",
		e.Disk, e.Initiator, e.Holder, e.Target)
}

// Is makes errors.Is(err, ErrNotShared) true.
func (e *SharingError) Is(target error) bool { return target == ErrNotShared }

// Name is the part of the initiator port's name that names the initiator: for iSCSI
// what stands before ",i," (RFC 7143 §4.2.7.2), else all of it.
func (id InitiatorID) Name() string {
	name, _, _ := strings.Cut(string(id), ",i,")
	return name
}

// Shared reports whether initiators of several names may write the unit.
func (u *Unit) Shared() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.shared
}

// SetShared changes that. To no longer share a unit that initiators of two names may
// write is refused with a *SharingError.
func (u *Unit) SetShared(on bool) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !on {
		for n := range u.writers {
			if err := u.conflictLocked(n.id); err != nil {
				return err
			}
			break // if all are of this one's name there is one name
		}
	}
	u.shared = on
	return nil
}

// conflictLocked is a *SharingError if a nexus of another name than id's may write,
// the first of them in the order of their targets. u.mu is held.
func (u *Unit) conflictLocked(id InitiatorID) error {
	var e *SharingError
	for n := range u.writers {
		tg := n.port.target.conf.Name
		if n.id.Name() != id.Name() && (e == nil || tg < e.Target) {
			e = &SharingError{Disk: u.conf.Name, Initiator: id.Name(), Holder: n.id.Name(), Target: tg}
		}
	}
	if e == nil {
		return nil
	}
	return e
}

// admits reports whether initiator id could write beside those that can now.
func (u *Unit) admits(id InitiatorID) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.shared {
		return nil
	}
	return u.conflictLocked(id)
}

// claim notes that ns may write the unit, all or none of them.
func (u *Unit) claim(ns []*Nexus) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	var added []*Nexus
	for _, n := range ns {
		if !u.shared {
			if err := u.conflictLocked(n.id); err != nil {
				for _, a := range added {
					delete(u.writers, a)
				}
				return err
			}
		}
		if _, ok := u.writers[n]; !ok {
			added = append(added, n)
		}
		u.writers[n] = true
	}
	return nil
}

// disclaim notes that n sees the unit no longer.
func (u *Unit) disclaim(n *Nexus) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, ok := u.writers[n]; ok {
		u.writers[n] = false
		u.lanesLeft(n)
	}
}

// lanesLeft forgets that n might write, if it sees the unit no longer and no lane of
// it is left. u.mu is held.
func (u *Unit) lanesLeft(n *Nexus) {
	if sees, ok := u.writers[n]; !ok || sees {
		return
	}
	for _, lu := range u.lanes {
		if lu.lane.nexus == n {
			return
		}
	}
	delete(u.writers, n)
}

// unclaim notes that ns may write no longer, although they go on to see the unit.
func (u *Unit) unclaim(ns []*Nexus) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, n := range ns {
		delete(u.writers, n)
	}
}
