package scsi

import "sync/atomic"

// The bits of nexusUnit.verdict: what stands between a nexus and the unit. Zero
// for nearly every command, so that one load answers all of it. Written under
// Unit.mu. Commands that change reservations run alone, so every task that passed
// the gate before such a change has ended, and every later one reads the new word
// (PREEMPT AND ABORT: every task of the nexuses that it preempts).
const (
	// verdictUA: a unit attention is pending.
	verdictUA = 1 << iota
	// verdictStandby, verdictUnavailable, verdictOffline: the access state of
	// the nexus's target port group.
	verdictStandby
	verdictUnavailable
	verdictOffline
	// verdictRead, verdictWrite: a reservation of another nexus conflicts
	// with commands of conflictRead, of conflictWrite.
	verdictRead
	verdictWrite
	// verdictReserve: another nexus holds the unit by RESERVE.
	verdictReserve
	// verdictLost: what should have persisted of reservations is lost.
	verdictLost
	// verdictMedium: an operation has the medium, or has failed and left it
	// unusable; see unit_medium.go.
	verdictMedium
)

// verdictAccess are the bits of access states.
const verdictAccess = verdictStandby | verdictUnavailable | verdictOffline

// nexusUnit is the pair of a nexus and a unit, shared by the nexus's lanes.
type nexusUnit struct {
	nexus *Nexus
	unit  *Unit
	// id names the nexus for registrations.
	id regID

	verdict atomic.Uint32
	// epoch moves when the task set is cleared; see Lane.Announce.
	epoch atomic.Uint32
	// resets counts the resets of the unit and the losses of the nexus; written
	// under Unit.mu.
	resets atomic.Uint32
	// readOnly comes from the target's map.
	readOnly atomic.Bool

	// Guarded by Unit.mu.

	ua       uaQueue
	access   uint32 // verdictStandby, …; see alua.go
	conflict uint32 // the verdict but for verdictUA
	// The last move of epoch was byOther; clearedUA tells those that had announced
	// tasks only.
	byOther   bool
	clearedUA ASC
}

// setVerdict brings the word up to date. Unit.mu is held.
func (nu *nexusUnit) setVerdict() {
	v := nu.conflict | nu.access | nu.unit.medium.verdict
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
	if v&verdictUA != 0 && !t.Replayed && (c == nil || c.flags&cmdKeepUA == 0) {
		if a, ok := nu.takeUA(); ok {
			t.check(uaSense(a))
			return false
		}
	}
	if c == nil {
		return true
	}
	if v&verdictAccess != 0 {
		if asc := refuses(c.flags, v); asc != 0 {
			t.check(Sense{Key: NotReady, ASC: asc})
			return false
		}
	}
	if v&verdictMedium != 0 && !t.duringMedium() {
		if s, ok := nu.unit.mediumSense(); ok {
			t.check(s)
			return false
		}
	}
	if v&verdictLost != 0 && !t.whileLost() {
		t.check(Sense{Key: DataProtect, ASC: ascReservationInfoLost})
		return false
	}
	if c.conflict == conflictRead && v&verdictRead != 0 ||
		c.conflict == conflictWrite && v&(verdictWrite|verdictRead) != 0 ||
		c.conflict == conflictReserve && v&verdictReserve != 0 {
		t.conflict()
		return false
	}
	return true
}

// judgeConflicts works out anew which commands of which nexus conflict. u.mu is held
// and, while tasks can run, the caller is a command that others wait for (cmdExclusive,
// cmdPreempt), or what it does takes nobody's access away.
func (u *Unit) judgeConflicts() {
	for _, nu := range u.nexuses {
		nu.judgeConflict()
	}
}

// judgeConflict is judgeConflicts for one nexus. RESERVE and persistent reservations
// exclude each other.
func (nu *nexusUnit) judgeConflict() {
	u := nu.unit
	switch {
	case u.reserved != nil && u.reserved != nu:
		nu.conflict = verdictRead | verdictWrite | verdictReserve
	case u.reserved != nil:
		nu.conflict = 0
	default:
		nu.conflict = u.pr.table.forbids(nu.id)
	}
	if u.pr.lost {
		nu.conflict |= verdictLost
	}
	nu.setVerdict()
}

// setReservation makes nu the holder by RESERVE; nil: none. u.mu is held. Resets
// and the loss of the holder's nexus end it without the device server.
func (u *Unit) setReservation(nu *nexusUnit) {
	u.reserved = nu
	u.judgeConflicts()
}

// whileLost reports whether the command is allowed while what should have persisted of
// reservations is lost (SPC-4 §5.13.5.2, §5.13.5.3.2).
func (t *Task) whileLost() bool {
	switch t.CDB[0] {
	case 0x03, 0x12, 0x3b, 0x3c, 0x4d, 0x9b, 0xa0:
		// REQUEST SENSE, INQUIRY, WRITE BUFFER, READ BUFFER, LOG SENSE, REPORT LUNS
		return true
	case 0x1b:
		return t.CDB[4]&startStart != 0 && t.CDB[4]>>4 == 0
	case 0xa3:
		return t.CDB[1]&0x1f == 0x0a // REPORT TARGET PORT GROUPS
	case opPROut:
		return prAction(t.CDB[1]&0x1f) == prReplaceLost
	}
	return false
}
