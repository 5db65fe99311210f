package scsi

import "sync/atomic"

// The bits of nexusUnit.verdict: what stands between a nexus and the unit. Zero
// for nearly every command, so that one load answers all of it. Written under
// Unit.mu. Commands that change reservations run alone, so every task that passed
// the gate before such a change has ended, and every later one reads the new word.
const (
	// verdictUA: a unit attention is pending.
	verdictUA = 1 << iota
	// verdictRead, verdictWrite: a reservation of another nexus conflicts
	// with commands of conflictRead, of conflictWrite.
	verdictRead
	verdictWrite
)

// nexusUnit is the pair of a nexus and a unit, shared by the nexus's lanes.
type nexusUnit struct {
	nexus *Nexus
	unit  *Unit

	verdict atomic.Uint32
	// epoch moves when the task set is cleared; see Lane.Announce.
	epoch atomic.Uint32
	// readOnly comes from the target's map.
	readOnly atomic.Bool

	// Guarded by Unit.mu.

	ua       uaQueue
	conflict uint32 // verdictRead | verdictWrite
	// The last move of epoch was byOther; clearedUA tells those that had announced
	// tasks only.
	byOther   bool
	clearedUA ASC
}

// setVerdict brings the word up to date. Unit.mu is held.
func (nu *nexusUnit) setVerdict() {
	v := nu.conflict
	if nu.ua.n > 0 {
		v |= verdictUA
	}
	if nu.verdict.Load() != v {
		nu.verdict.Store(v)
	}
}

// judge decides about a command of which the verdict word is not zero. false: it
// has ended. A unit attention comes before a reservation conflict.
func (nu *nexusUnit) judge(t *Task, v uint32) bool {
	c := t.cmd
	if v&verdictUA != 0 && (c == nil || c.flags&cmdKeepUA == 0) {
		if a, ok := nu.takeUA(); ok {
			t.check(uaSense(a))
			return false
		}
	}
	if c == nil {
		return true
	}
	if c.conflict == conflictRead && v&verdictRead != 0 ||
		c.conflict == conflictWrite && v&(verdictWrite|verdictRead) != 0 {
		t.lu.now.conflicts++
		t.finish(StatusReservationConflict)
		return false
	}
	return true
}

// setConflicts works out anew which commands of which nexus conflict: f tells it
// for one (verdictRead, verdictWrite). It stays in force for nexuses to come.
// u.mu is held and, while tasks can run, the caller is a cmdExclusive command.
func (u *Unit) setConflicts(f func(nu *nexusUnit) uint32) {
	u.conflicts = f
	for _, nu := range u.nexuses {
		nu.judgeConflict()
	}
}

func (nu *nexusUnit) judgeConflict() {
	nu.conflict = 0
	if f := nu.unit.conflicts; f != nil {
		nu.conflict = f(nu) & (verdictRead | verdictWrite)
	}
	nu.setVerdict()
}

// reservation is the nexus that holds the unit by RESERVE (SPC-2 §7.21), nil if
// none does. u.mu is held.
func (u *Unit) reservation() *nexusUnit { return u.reserved }

// setReservation makes nu the holder by RESERVE; nil: none. u.mu is held. Resets
// and the loss of the holder's nexus end it without the device server.
func (u *Unit) setReservation(nu *nexusUnit) {
	u.reserved = nu
	if nu == nil {
		u.setConflicts(nil)
		return
	}
	u.setConflicts(func(o *nexusUnit) uint32 {
		if o == nu {
			return 0
		}
		return verdictRead | verdictWrite
	})
}
