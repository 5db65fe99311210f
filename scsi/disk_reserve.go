package scsi

// RESERVE(6), RESERVE(10), RELEASE(6) and RELEASE(10): SPC-2 §7.21, §7.16, with the
// exceptions of SPC-4 §5.13.3 (CRH). Only the whole unit can be reserved, and only for
// the nexus itself.

// passes ends RESERVE and RELEASE where there are persistent registrations: GOOD
// without effect for those who have access by them, RESERVATION CONFLICT for all
// others (SPC-2 §5.5.1). false: there are none. u.mu is held; it is not when passes
// returns true.
func (t *Task) passes() bool {
	u := t.unit
	p := u.pr.table
	if len(p.regs) == 0 {
		return false
	}
	i := p.find(t.nu().id)
	good := p.holds(i) || i >= 0 && p.typ.registrants()
	u.mu.Unlock()
	if good {
		t.good()
	} else {
		t.conflict()
	}
	return true
}

func runReserve(t *Task) {
	u := t.unit
	u.mu.Lock()
	if t.passes() {
		return
	}
	free := u.reserved == nil || u.reserved == t.nu()
	if free {
		u.setReservation(t.nu())
	}
	u.mu.Unlock()
	if !free {
		t.conflict()
		return
	}
	t.good()
}

// runRelease is GOOD for those who hold nothing too (SPC-2 §7.16.2).
func runRelease(t *Task) {
	u := t.unit
	u.mu.Lock()
	if t.passes() {
		return
	}
	if u.reserved == t.nu() {
		u.setReservation(nil)
	}
	u.mu.Unlock()
	t.good()
}
