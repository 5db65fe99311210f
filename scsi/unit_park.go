package scsi

// A parked task waits for an operation that belongs to the unit and goes on without
// it (unit_medium.go). It is one of the tasks in flight, and task management finds
// it, but it holds nobody back: it has no range and does not run alone any more.
//
// laneUnit.parked counts such tasks in laneUnit.inflight. It is taken back before a
// task goes on, so inflight is never smaller than parked, and where they are equal
// no task runs.

// parkLocked parks t, which runs; the caller returns to the loop after that. On t's
// loop, u.mu held; the caller goes on with schedule.
func (u *Unit) parkLocked(t *Task) {
	s := &t.sched
	s.state = stParked
	t.lu.parked++
	if s.alone {
		s.alone = false
		u.alone = classSimple
	}
}

// unparkLocked has parked task t go on with next on its own loop, with err in
// t.op.Err. u.mu is held; the caller goes on with schedule.
func (u *Unit) unparkLocked(t *Task, err error, next step) {
	t.lu.parked--
	t.sched.again, t.sched.ended = true, true
	t.op.Err, t.next = err, next
	u.sendMail(t)
}
