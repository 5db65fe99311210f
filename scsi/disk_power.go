package scsi

import "github.com/vtgt/vtgt/backing"

// START STOP UNIT (SBC-3 §5.25) and PREVENT ALLOW MEDIUM REMOVAL (SPC-4 §6.14).

// Bits of byte 4 of START STOP UNIT.
const (
	startNoFlush = 1 << 2
	startLOEJ    = 1 << 1
	startStart   = 1 << 0
)

// powerModifiers is the number of POWER CONDITION MODIFIER values that each POWER
// CONDITION has, 0 for those that are reserved or obsolete (SBC-3 table 96).
var powerModifiers = [16]byte{
	0x0: 1, // START_VALID
	0x1: 1, // ACTIVE
	0x2: 3, // IDLE: idle_a, idle_b, idle_c
	0x3: 2, // STANDBY: standby_z, standby_y
	0x7: 1, // LU_CONTROL
	0xa: 3, // FORCE_IDLE_0
	0xb: 2, // FORCE_STANDBY_0
}

func runStartStop(t *Task) {
	b := t.CDB[4]
	start, power := b&startStart != 0, b>>4
	// A reservation of another allows START alone (SBC-3 table 13).
	if !(start && power == 0) && t.conflicted() {
		return
	}
	u := t.unit
	if n := powerModifiers[power]; n != 0 && t.CDB[3]&0x0f >= n {
		t.check(InvalidCDBField(3, 3))
		return
	}
	if power != 0 {
		// Nothing here ever sleeps, so the unit is in every such condition
		// already. LOEJ and START are ignored. The reserved conditions pass as
		// well: libiscsi's StartStopUnit.PwrCnd wants all of them.
		t.good()
		return
	}
	removed := u.notReady() == ASCMediumNotPresent
	if b&startLOEJ != 0 {
		if !u.conf.Removable {
			t.check(InvalidCDBField(4, 1))
			return
		}
		// Loading too: libiscsi's PreventAllow.Eject asks for it that way.
		if u.prevented() {
			t.check(Sense{Key: IllegalRequest, ASC: ASCMediumRemovalPrevented})
			return
		}
	}
	switch {
	case start && b&startLOEJ != 0: // load
		u.setNotReady(0)
		if removed {
			u.raiseUA(ascMediumMayHaveChanged, t.nu())
		}
		t.good()
	case removed && b&startLOEJ == 0:
		t.check(Sense{Key: NotReady, ASC: ASCMediumNotPresent})
	case start:
		u.setNotReady(0)
		t.good()
	case b&startNoFlush == 0 && !removed && u.volatileCache():
		t.store(backing.Sync, 0, 0, 0, nil, stopSynced)
	default:
		t.stop()
	}
}

func stopSynced(t *Task) {
	if t.stored() {
		t.stop()
	}
}

// stop ejects the medium or spins it down.
func (t *Task) stop() {
	u := t.unit
	switch {
	case t.CDB[4]&startLOEJ != 0:
		u.setNotReady(ASCMediumNotPresent)
	case !u.conf.Removable:
		// Drives with removable media stay ready: they start again by
		// themselves.
		u.setNotReady(ASCInitCommandRequired)
	}
	t.good()
}

// notReady is why the medium cannot be used, 0 when it can.
func (u *Unit) notReady() ASC { return ASC(u.condition.Load() & conditionASC) }

func runPreventAllow(t *Task) {
	on := t.CDB[4]&1 != 0
	if on && t.conflicted() {
		return
	}
	t.unit.setPrevent(t.nu(), on)
	t.good()
}
