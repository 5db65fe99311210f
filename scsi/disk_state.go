package scsi

import (
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/backing"
)

// diskState is what the disk device server keeps in a Unit. Commands that change it
// run alone (cmdExclusive); the fast path reads the atomics.
type diskState struct {
	// cacheOff: WCE was cleared: each write is to be stable before it ends.
	cacheOff atomic.Bool
	// swp is the SWP bit; Unit.writeProtected has it among other reasons.
	swp atomic.Bool
	// quiet: LBPERE was cleared: thresholds are not reported.
	quiet atomic.Bool
	// limit and unlimited are those of modeState.
	limit     atomic.Uint32
	unlimited atomic.Bool
	// space is the last that SetSpace heard; nil: nothing.
	space atomic.Pointer[backing.Space]
	// low: space is below the threshold, and that was told. Unit.mu.
	low bool
	// saved are the mode parameters to begin with; nil: the default ones.
	saved atomic.Pointer[modeState]
	// logBase are the counters as they were when LOG SELECT reset those of a log
	// page; Unit.mu.
	logBase map[byte]logCounts
	// born is when the unit began, idle what log page 19h last showed, ns; Unit.mu.
	born time.Time
	idle uint64
	// ident is the identifying information, newIdent what it is about to be.
	ident    atomic.Pointer[identity]
	newIdent *identity
	// clock is the clock that an initiator has set; nil: the host's.
	clock atomic.Pointer[clock]
	// saveErr: that something could not be saved was logged.
	saveErr atomic.Bool
	// prevent are the nexuses that prevent medium removal; Unit.mu. One that is
	// gone from the unit counts no more.
	prevent map[*nexusUnit]struct{}
}

// volatileCache reports whether the store may lose acknowledged writes that no
// Sync followed.
func (u *Unit) volatileCache() bool { return u.info().Volatile }

// writeThrough is FUA when the initiator has turned the write cache off.
func (u *Unit) writeThrough() backing.Flags {
	if u.disk.cacheOff.Load() {
		return backing.FUA
	}
	return 0
}

// modeDefault is the state of a new unit.
func (u *Unit) modeDefault() modeState {
	return modeState{wce: u.volatileCache(), lbpere: u.conf.Thin}
}

// modeSaved is the state after a reset.
func (u *Unit) modeSaved() modeState {
	p := u.disk.saved.Load()
	if p == nil {
		return u.modeDefault()
	}
	s := *p
	// What there is may be another than when it was saved.
	s.wce = s.wce && u.volatileCache()
	s.lbpere = s.lbpere && u.conf.Thin
	return s
}

// modeCurrent is the present state.
func (u *Unit) modeCurrent() modeState {
	return modeState{
		wce:    u.volatileCache() && !u.disk.cacheOff.Load(),
		dSense: u.dSense.Load(),
		swp:    u.disk.swp.Load(),
		tas:    u.tas.Load(),
		lbpere: u.conf.Thin && !u.disk.quiet.Load(),
		limit:  u.disk.limit.Load(), unlimited: u.disk.unlimited.Load(),
	}
}

// modeSet makes s the present state.
func (u *Unit) modeSet(s modeState) {
	u.disk.cacheOff.Store(u.volatileCache() && !s.wce)
	u.disk.swp.Store(s.swp)
	u.disk.quiet.Store(!s.lbpere)
	u.disk.limit.Store(s.limit)
	u.disk.unlimited.Store(s.unlimited)
	u.setSoftwareProtected(s.swp)
	u.dSense.Store(s.dSense)
	u.tas.Store(s.tas)
}

// reset is the device server's part of a logical unit reset. A medium that was
// ejected stays so.
func (d *disk) reset() {
	u := d.unit
	u.modeSet(u.modeSaved())
	clear(u.disk.prevent)
	if ASC(u.condition.Load()&conditionASC) == ASCInitCommandRequired {
		u.setNotReady(0)
	}
}

// setPrevent notes that nu prevents medium removal, or no longer does.
func (u *Unit) setPrevent(nu *nexusUnit, on bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !on {
		delete(u.disk.prevent, nu)
		return
	}
	if u.disk.prevent == nil {
		u.disk.prevent = make(map[*nexusUnit]struct{})
	}
	u.disk.prevent[nu] = struct{}{}
}

// prevented reports whether any nexus prevents medium removal. Those that have
// left the unit are forgotten.
func (u *Unit) prevented() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.disk.prevent) == 0 {
		return false
	}
	live := make(map[*nexusUnit]struct{})
	u.eachNexus(func(nu *nexusUnit) {
		if _, ok := u.disk.prevent[nu]; ok {
			live[nu] = struct{}{}
		}
	})
	u.disk.prevent = live
	return len(live) > 0
}

// portConf describes the port that the task came by.
func (t *Task) portConf() *PortConfig { return &t.lane.nexus.port.conf }

// conflicted ends t with RESERVATION CONFLICT when another nexus's reservation
// keeps its nexus from any access at all or from writing: for commands that look
// at their CDB first (conflictOwn).
func (t *Task) conflicted() bool {
	if t.nu().verdict.Load()&(verdictRead|verdictWrite) == 0 {
		return false
	}
	t.conflict()
	return true
}
