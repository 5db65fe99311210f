package scsi

import "github.com/vtgt/vtgt/backing"

// START STOP UNIT (SBC-3 §5.25) and PREVENT ALLOW MEDIUM REMOVAL (SPC-4 §6.14).

// Bits of byte 4 of START STOP UNIT.
const (
	startNoFlush = 1 << 2
	startLOEJ    = 1 << 1
	startStart   = 1 << 0
)

func runStartStop(t *Task) {
	b := t.CDB[4]
	start, power := b&startStart != 0, b>>4
	// A reservation of another allows START alone (SBC-3 table 13).
	if !(start && power == 0) && t.conflicted() {
		return
	}
	u := t.unit
	if power != 0 {
		// Power conditions: nothing here ever sleeps. LOEJ and START are ignored.
		t.good()
		return
	}
	if b&startLOEJ != 0 {
		if !u.conf.Removable {
			t.check(InvalidCDBField(4, 1))
			return
		}
		if u.prevented() {
			t.check(Sense{Key: IllegalRequest, ASC: ASCMediumRemovalPrevented})
			return
		}
	}
	removed := u.notReady() == ASCMediumNotPresent
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
