package scsi

import "github.com/vtgt/vtgt/internal/loop"

// The scheduler of a unit's task set: SAM-5 §8.6 (task attributes) and the
// commands that run alone. Everything here runs with Unit.mu held, except where
// it says otherwise.
//
//   - SIMPLE starts when no HEAD OF QUEUE task is in the task set and no older
//     ORDERED or exclusive one.
//   - ORDERED starts when every older task and every HEAD OF QUEUE task ended.
//   - HEAD OF QUEUE starts at once and holds back SIMPLE and ORDERED tasks until
//     it ends. Two things come before it: a command that runs alone, and a
//     barrier that holds the unit.
//   - An exclusive command starts when no other task runs.
//   - PREEMPT AND ABORT starts at once, unless an exclusive command runs, and
//     holds back all others until it ends.
//   - Immediate commands start at once in any case.
//   - A task that the core has made for a command that is in flight (a copy) does not
//     wait behind others, which may wait for that command; and on that command's own
//     unit it starts although the unit is held: who holds it waits for the command.

func classOf(t *Task) taskClass {
	switch {
	case t.cmd != nil && t.cmd.flags&cmdExclusive != 0:
		return classExclusive
	case t.cmd != nil && t.cmd.flags&cmdPreempt != 0:
		return classPreempt
	case t.lane.inner:
		return innerClass(t)
	case t.Attr == Ordered:
		return classOrdered
	case t.Attr == HeadOfQueue:
		return classHead
	}
	return classSimple
}

// submitSlow takes in a task that cannot pass the gate unseen. On the lane's loop,
// without Unit.mu.
func (lu *laneUnit) submitSlow(t *Task) {
	u := lu.unit
	s := &t.sched
	s.slow = true
	s.rseq = notPlaced
	if t.Attr != Simple && t.Attr != Ordered && t.Attr != HeadOfQueue {
		// ACA: NormACA is zero, there never is an ACA condition (SAM-5 §8.6.5).
		lu.inflight.Add(1)
		t.check(Sense{Key: IllegalRequest, ASC: ASCInvalidMessage})
		return
	}
	s.class = classOf(t)

	u.mu.Lock()
	u.seq++
	s.seq = u.seq
	// From here on new tasks come this way: the counters can be trusted.
	u.gate.Store(u.gate.Load() | gateOrder)
	run := false
	switch {
	case (u.waiting.head == nil || s.class == classHead || s.class == classPreempt || s.class == classInner) && u.mayStart(t):
		u.admit(t)
		run = true
	case s.class == classHead, s.class == classPreempt, s.class == classInner:
		s.state = stWaiting
		u.waiting.pushFront(t)
	default:
		s.state = stWaiting
		u.waiting.push(t)
	}
	u.schedule()
	done := u.takeFinished()
	u.mu.Unlock()
	finishAll(done)
	if run {
		lu.list(t)
		lu.begin(t)
	}
}

// list puts t into the lane's list of tasks in flight. On the lane's loop.
func (lu *laneUnit) list(t *Task) {
	t.sched.listed = true
	lu.tasks.push(t)
}

// begin runs an admitted task, or lets it wait for its range. On the lane's loop,
// without Unit.mu.
func (lu *laneUnit) begin(t *Task) {
	s := &t.sched
	s.state = stRunning
	if s.aborted != notAborted {
		lu.lane.end(t)
		return
	}
	if s.again {
		lu.again(t)
		return
	}
	// A range command that comes up after this look at the gate finds t in the
	// list with rseq 0: it looks at the list on this very loop.
	if s.slot == 0 && t.cmd != nil && (t.cmd.flags&cmdRange != 0 || lu.unit.gate.Load()&gateRange != 0) {
		if !lu.enterRange(t) {
			return
		}
	} else if s.rseq == notPlaced {
		s.rseq = 0
	}
	lu.exec(t)
}

// mayStart reports whether waiting task t may start now.
func (u *Unit) mayStart(t *Task) bool {
	if u.holds > 0 && !t.sched.through || u.stop.on && t.sched.class != classPreempt {
		return false
	}
	switch t.sched.class {
	case classPreempt:
		return u.alone != classExclusive
	case classHead, classInner:
		return u.alone != classExclusive
	case classSimple:
		return u.alone == classSimple && u.heads == 0
	case classOrdered:
		return u.alone == classSimple && u.heads == 0 && u.quiet()
	}
	return u.alone == classSimple && u.quiet()
}

// quiet reports whether no task is in flight, parked ones excepted. A lane that has
// bumped its counter and is about to take that back comes by schedule afterwards.
func (u *Unit) quiet() bool {
	for _, lu := range u.lanes {
		if lu.inflight.Load() != lu.parked {
			return false
		}
	}
	return true
}

// admit counts t in: from here on it is one of the tasks in flight.
func (u *Unit) admit(t *Task) {
	s := &t.sched
	t.lu.inflight.Add(1)
	switch s.class {
	case classHead:
		s.head = true
		u.heads++
	case classOrdered, classExclusive:
		s.alone = true
		u.alone = s.class
	case classPreempt:
		s.holds = true
		u.holds++
	}
}

// schedule starts every waiting task that may start, in order, and sets the gate
// to what it has to be. Every change under Unit.mu ends with it.
func (u *Unit) schedule() {
	for t := u.waiting.head; t != nil && u.mayStart(t); t = u.waiting.head {
		u.waiting.remove(t)
		u.admit(t)
		u.sendMail(t)
	}
	// A range command that was called up for a free slot may have been aborted
	// on its way: the next one must not wait for a slot to be freed again.
	if u.ranges.used == 0 {
		u.ranges.callUp(u)
	}
	var g uint32
	if u.waiting.head != nil || u.alone != classSimple || u.heads != 0 || u.holds != 0 {
		g |= gateOrder
	}
	if u.ranges.used != 0 || u.ranges.waiting.head != nil {
		g |= gateRange
	}
	if len(u.barriers) != 0 {
		g |= gateBarrier
	}
	if u.stop.on {
		g |= gateStop
	}
	if u.gate.Load() != g {
		u.gate.Store(g)
	}
}

// sendMail gives an admitted task to its loop, to be begun.
func (u *Unit) sendMail(t *Task) {
	t.sched.state = stMailed
	t.lu.mail.push(t)
	t.lu.post()
}

// post asks the lane's loop to look at mail, scan and asked.
func (lu *laneUnit) post() {
	if !lu.posted {
		lu.posted = true
		lu.lane.loop.Post(&lu.node)
	}
}

// poke is the end of a task that may have been waited for. Any loop, without
// Unit.mu.
func (u *Unit) poke() {
	u.mu.Lock()
	u.schedule()
	done := u.takeFinished()
	u.mu.Unlock()
	finishAll(done)
}

// endSlow is the second half of Lane.end for tasks that others know of. On the
// lane's loop, without Unit.mu.
func (lu *laneUnit) endSlow(t *Task) {
	u := lu.unit
	fe := lu.lane.fe
	switch t.sched.aborted {
	case abortSilent:
		t.Aborted, t.Status, t.SenseLen = true, StatusGood, 0
	case abortTAS:
		t.Aborted, t.Status, t.SenseLen = false, StatusTaskAborted, 0
	case abortGone:
		t.Aborted, t.Status = false, StatusCheckCondition
		t.SenseLen = uint8(Sense{Key: IllegalRequest, ASC: ASCLUNNotSupported}.Encode(t.Sense[:], u.dSense.Load()))
		lu.now.errs[IllegalRequest]++
	}
	if t.sched.aborted != notAborted {
		t.InLen, t.Want = 0, 0
		lu.now.aborted++
	}
	// Once Done has it the task is the front end's again: nothing of it may be
	// looked at. The scheduler's part is read now; what waits for the task is
	// told after Done. That leaves a moment in which others still see the task:
	// the range table through s.ranges, barriers through s.watch. Both are
	// cut here, and it is this loop that would have to scan for new ones.
	u.mu.Lock()
	e := t.sched
	t.sched = taskSched{}
	u.mu.Unlock()
	fe.Done(t)
	lu.inflight.Add(-1)

	u.mu.Lock()
	if e.head {
		u.heads--
	}
	if e.alone {
		u.alone = classSimple
	}
	if e.holds {
		u.holds--
	}
	if e.slot != 0 {
		u.ranges.leave(u, int(e.slot-1))
	}
	if e.ranges != 0 {
		u.ranges.ended(u, e.ranges)
	}
	if e.watch != nil {
		u.watched(e.watch)
	}
	lu.leave()
	u.schedule()
	done := u.takeFinished()
	u.mu.Unlock()
	finishAll(done)
}

// laneMail is a laneUnit as the handler of its node.
type laneMail laneUnit

// Handle looks at what other loops left for this one.
func (m *laneMail) Handle(*loop.Node) {
	lu := (*laneUnit)(m)
	u := lu.unit
	if !lu.dirty {
		lu.dirty = true
		lu.lane.loop.Defer(&lu.flush)
	}
	u.mu.Lock()
	lu.posted = false
	if lu.resume {
		lu.resumeHeld()
	}
	for t := lu.mail.pop(); t != nil; t = lu.mail.pop() {
		t.sched.state = stReady
		lu.ready.push(t)
		if !t.sched.listed {
			lu.list(t)
		}
	}
	if lu.scan != 0 {
		u.ranges.scanned(u, lu)
	}
	cancels := false
	for i, b := range lu.asked {
		lu.asked[i] = nil
		cancels = u.scanBarrier(b, lu) || cancels
	}
	lu.asked = lu.asked[:0]
	u.schedule()
	done := u.takeFinished()
	u.mu.Unlock()
	if cancels {
		lu.cancelAborted()
	}
	for t := lu.ready.pop(); t != nil; t = lu.ready.pop() {
		lu.begin(t)
	}
	if lu.dropped {
		lu.closeQueue()
	}
	finishAll(done)
	lu.lane.Kick()
}
