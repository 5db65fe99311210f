package scsi

import "slices"

// Announce notes that t, which has its LUN and CDB, is in the task set from now on,
// though it will be submitted only when its data have come: what clears the task set
// meanwhile (task management of any nexus; PREEMPT AND ABORT) ends it in Submit, as
// it ends tasks that the core has. Whoever reads the answer of such a function may
// be sure that no data of t land afterwards.
//
// A task that is not submitted after all needs Withdraw before its next use. On the
// lane's loop.
func (ln *Lane) Announce(t *Task) {
	ln.prepare(t)
	if t.lu != nil {
		t.announced, t.epoch = t.lu.nu, t.lu.nu.epoch.Load()
	}
}

// Withdraw undoes Announce.
func (ln *Lane) Withdraw(t *Task) { t.announced = nil }

// overtaken ends an announced task if something cleared the task set before its
// Submit; true: it has. The gate was looked at before: a barrier that has not moved
// the epoch yet finds t in the list.
func (lu *laneUnit) overtaken(t *Task) bool {
	nu, epoch := t.announced, t.epoch
	t.announced = nil
	if nu != lu.nu {
		// Another unit has taken the LUN: it is not the one that the data are for.
		t.check(Sense{Key: UnitAttention, ASC: ASCReportedLUNsDataHasChanged})
		return true
	}
	if nu.epoch.Load() == epoch {
		return false
	}
	u := lu.unit
	t.sched.slow, t.sched.aborted = true, abortSilent
	u.mu.Lock()
	if nu.byOther && u.tas.Load() {
		t.sched.aborted = abortTAS
	} else if nu.clearedUA != 0 {
		nu.raise(nu.clearedUA)
	}
	u.mu.Unlock()
	lu.lane.end(t)
	return true
}

// overtake has b end the tasks in its scope that are announced only. Unit.mu is held;
// the gate is not set yet.
func (b *barrier) overtake() {
	if b.outcome == notAborted || b.byTag || b.query || b.drop || b.lane != nil {
		return
	}
	for _, nu := range b.unit.nexuses {
		n := nu.nexus
		if b.target != nil && b.target != n.port.target || b.nexus != nil && b.nexus != n || b.among != nil && !slices.Contains(b.among, nu) {
			continue
		}
		nu.byOther, nu.clearedUA = n != b.issuer && b.outcome == abortTAS, 0
		if nu.byOther {
			nu.clearedUA = b.clearedUA
		}
		nu.epoch.Add(1)
	}
}

// Cleared raises SOME COMMANDS CLEARED BY ISCSI PROTOCOL EVENT for the unit at l: the
// front end has ended commands of the nexus that the initiator hears nothing of,
// because their connection ended and the session did not (RFC 7143 §7.5). Any
// goroutine.
func (n *Nexus) Cleared(l LUN) {
	num, ok := l.Number()
	if !ok {
		return
	}
	m := n.view.Load()
	i := m.find(num)
	if i < 0 {
		return
	}
	u := m.list[i].Unit
	n.mu.Lock()
	defer n.mu.Unlock()
	if nu := n.units[u]; nu != nil {
		u.mu.Lock()
		nu.raise(ASCCommandsClearedByISCSI)
		u.mu.Unlock()
	}
}
