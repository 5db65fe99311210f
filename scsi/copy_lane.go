package scsi

// Tasks that the core itself gives to units, for a nexus: see copy.go.

// inside is the lane of the core's own tasks beside ln, on the same loop; it closes
// with ln. nil: ln or its nexus is closed.
func (ln *Lane) inside() *Lane {
	if ln.own == nil {
		n := ln.nexus
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.closed.Load() || ln.closed.Load() {
			return nil
		}
		ln.own = &Lane{nexus: n, loop: ln.loop, fe: insideDone{}, inner: true}
		n.lanes = append(n.lanes, ln.own)
	}
	return ln.own
}

// submitInside is Submit for a task of the core's own, to the unit at e. row nil: by its
// CDB. false: the nexus does not see that unit under that number any more.
func (ln *Lane) submitInside(t *Task, e *copyEnd, row *command) bool {
	lu := ln.insideUnit(t, e, row)
	if lu == nil {
		return false
	}
	lu.inflight.Add(1)
	if lu.unit.gate.Load() == 0 {
		lu.list(t)
		lu.exec(t)
		return true
	}
	lu.inflight.Add(-1)
	lu.submitSlow(t)
	return true
}

// holdInside is submitInside for a task that must not wait: false also when it would
// have to.
func (ln *Lane) holdInside(t *Task, e *copyEnd) bool {
	lu := ln.insideUnit(t, e, copyHoldRow)
	if lu == nil {
		return false
	}
	lu.inflight.Add(1)
	if lu.unit.gate.Load() != 0 {
		lu.inflight.Add(-1)
		// Somebody may have seen the count, see gate.go.
		lu.unit.poke()
		return false
	}
	lu.list(t)
	lu.exec(t)
	return true
}

// insideUnit readies t for the unit at e.
func (ln *Lane) insideUnit(t *Task, e *copyEnd, row *command) *laneUnit {
	t.LUN = EncodeLUN(e.lun)
	lu := ln.lookup(t.LUN)
	if lu == nil || lu.unit != e.unit || lu.dropped {
		return nil
	}
	t.Status, t.Aborted, t.SenseLen, t.InLen, t.Want = StatusGood, false, 0, 0, 0
	if t.op.Owner == nil {
		t.op.Owner = (*opOwner)(t)
	}
	t.lane, t.lu, t.unit, t.cmd = ln, lu, lu.unit, row
	if row == nil {
		t.cmd = lu.unit.server.lookup(t.CDB[:])
	}
	t.sched.start = ln.loop.Now()
	t.touch()
	return lu
}

// innerClass is the class of a task that the core has made. One that a command waits
// for has to get past whatever waits for that command.
func innerClass(t *Task) taskClass {
	c := t.Ref.(*copySlot).c
	if c.outer == nil {
		return classSimple
	}
	t.sched.through = c.outer.unit == t.unit
	return classInner
}
