package scsi

import (
	"fmt"
	"time"
)

// Asymmetric logical unit access: SPC-4 §5.15. All ports of a target are one target
// port group; each group has a state for each unit that the target maps. What an
// operator says (Target.SetAccess) holds for all units of the target and is an
// implicit change to initiators; SET TARGET PORT GROUPS, where the unit allows it,
// changes a state for that one unit, until the operator says something else or the
// unit is closed.

// AccessState is a target port asymmetric access state. The values are the
// standard's (SPC-4 §6.37 table 305).
type AccessState uint8

// The states.
const (
	AccessOptimized    AccessState = 0x0
	AccessNonOptimized AccessState = 0x1
	AccessStandby      AccessState = 0x2
	AccessUnavailable  AccessState = 0x3
	AccessOffline      AccessState = 0xe
)

func (s AccessState) String() string {
	switch s {
	case AccessOptimized:
		return "optimized"
	case AccessNonOptimized:
		return "non-optimized"
	case AccessStandby:
		return "standby"
	case AccessUnavailable:
		return "unavailable"
	case AccessOffline:
		return "offline"
	}
	return fmt.Sprintf("access state %xh", uint8(s))
}

// ParseAccessState is the inverse of String; "" is AccessOptimized.
func ParseAccessState(s string) (AccessState, error) {
	for _, a := range []AccessState{AccessOptimized, AccessNonOptimized, AccessStandby, AccessUnavailable, AccessOffline} {
		if s == a.String() {
			return a, nil
		}
	}
	if s == "" {
		return AccessOptimized, nil
	}
	return 0, fmt.Errorf("%q is no access state; write optimized, non-optimized, standby, unavailable or offline", s)
}

// verdict is what a state contributes to the verdict word of nexuses of its group.
func (s AccessState) verdict() uint32 {
	switch s {
	case AccessStandby:
		return verdictStandby
	case AccessUnavailable:
		return verdictUnavailable
	case AccessOffline:
		return verdictOffline
	}
	return 0
}

// refuses is the additional sense code with which a state whose bits are in v refuses
// commands with flags, 0 where it does not (SPC-4 §5.15.2.4).
func refuses(flags cmdFlags, v uint32) ASC {
	switch {
	case flags&cmdAnyAccess != 0:
	case v&verdictStandby != 0:
		if flags&cmdStandby == 0 {
			return ascPortInStandby
		}
	case v&verdictUnavailable != 0:
		return ascPortUnavailable
	case v&verdictOffline != 0:
		return ascOffline
	}
	return 0
}

// Additional sense codes of refused commands.
const (
	ascPortInStandby   ASC = 0x040b
	ascPortUnavailable ASC = 0x040c
	ascOffline         ASC = 0x0412
)

// Values of the STATUS CODE field of REPORT TARGET PORT GROUPS.
const (
	accessByCommand  = 1 // altered by SET TARGET PORT GROUPS
	accessByOperator = 2 // altered by implicit asymmetric access
)

// groupAccess is the state of a target's group for one unit.
type groupAccess struct {
	state  AccessState
	status byte // STATUS CODE
}

// Group is the target port group identifier of the target's ports.
func (tg *Target) Group() uint16 { return max(tg.conf.Group, 1) }

// Access is what SetAccess set last.
func (tg *Target) Access() AccessState {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	return tg.access
}

// SetAccess makes s the access state of the target's port group for all its units; it
// takes the place of what initiators may have set. All initiators of units for which
// this is a change are told (2A/06). done, on a goroutine of its own, has the number
// of tasks that came by this target before and were still in the store after deadline
// (0: DefaultDeadline): when it is zero, none that the new state refuses runs any
// more. Any goroutine.
func (tg *Target) SetAccess(s AccessState, deadline time.Duration, done func(stuck int)) {
	tg.mu.Lock()
	tg.access = s
	luns := tg.LUNs()
	tg.mu.Unlock()
	j := newJoint(done)
	for _, e := range luns {
		u := e.Unit
		j.add(1)
		// hold, so that no task of a nexus that is about to lose its access
		// starts by the old verdict.
		u.startBarrier(&barrier{target: tg, hold: true, done: j.ended, apply: func(*barrier) {
			u.setAccess(tg, groupAccess{s, accessByOperator}, nil)
		}}, deadline)
	}
	j.release(0)
}

// setAccess makes a the state of tg's group. Initiators but except (which may be nil)
// are told where that is a change. u.mu is held, and no task that a refuses runs.
func (u *Unit) setAccess(tg *Target, a groupAccess, except *nexusUnit) (changed bool) {
	was, ok := u.groups[tg]
	if !ok || was.state == a.state {
		return false // mapped no more, or nothing new
	}
	u.groups[tg] = a
	for _, nu := range u.nexuses {
		nu.judgeAccess()
	}
	u.raiseUALocked(ASCAsymmetricAccessStateChanged, except)
	return true
}

// judgeAccess brings the verdict word up to date with the state of the nexus's group.
// u.mu is held.
func (nu *nexusUnit) judgeAccess() {
	nu.access = nu.unit.groups[nu.nexus.port.target].state.verdict()
	nu.setVerdict()
}
