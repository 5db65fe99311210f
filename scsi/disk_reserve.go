package scsi

// RESERVE(6), RESERVE(10), RELEASE(6) and RELEASE(10): SPC-2 §7.21, §7.16. Only the
// whole unit can be reserved, and only for the nexus itself.

func runReserve(t *Task) {
	if t.conflicted() {
		return
	}
	u := t.unit
	u.mu.Lock()
	u.setReservation(t.nu())
	u.mu.Unlock()
	t.good()
}

// runRelease is GOOD for those who hold nothing too (SPC-2 §7.16.2).
func runRelease(t *Task) {
	u := t.unit
	u.mu.Lock()
	if u.reservation() == t.nu() {
		u.setReservation(nil)
	}
	u.mu.Unlock()
	t.good()
}
