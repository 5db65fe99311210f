package scsi

import (
	"math"
	"slices"
	"time"
)

// DefaultDeadline is how long a barrier operation waits for tasks to leave the
// store where its caller gave no deadline.
const DefaultDeadline = 30 * time.Second

// barrier is an operation of the control path on some of the tasks of a unit:
// task management, resize, removal. It
//
//  1. takes a sequence number and sets the gate, so that every task that starts
//     from then on has a larger number,
//  2. removes waiting tasks that it covers, and has every lane in its scope look
//     through its list for those that are in flight,
//  3. is finished when the lanes have looked and the tasks have ended, Done
//     included; or it expires, and what is left is counted as stuck. A lane that
//     has not looked by then still will: its tasks end as the others do.
//
// Having been answered by every lane, it also knows that no Submit that began
// before it is still under way: what Submit read without a lock (the LUN map) is
// no longer in use.
type barrier struct {
	// The scope: the fields that are not zero must all agree.
	target *Target
	nexus  *Nexus
	lane   *Lane
	among  []*nexusUnit
	byTag  bool
	tag    uint64
	// except is not covered.
	except *Task
	// given: tasks that the core itself has made are not covered.
	given bool

	// outcome for the tasks it covers; notAborted: it only waits for them.
	outcome abortKind
	// issuer is the nexus whose own tasks get no status whatever TAS says.
	issuer *Nexus
	// query: count, neither abort nor wait.
	query bool
	// hold: no task starts until it is finished.
	hold bool
	// drop: the lanes let go of the unit. Covers all tasks, whenever they came.
	drop bool
	// clearedUA is the unit attention for those whose tasks it ends that apply does not
	// know of: announced ones, and what a lane finds after the barrier has expired.
	clearedUA ASC

	// apply runs with Unit.mu held when the barrier is finished or expires, no
	// task that hold keeps back having started.
	apply func(b *barrier)
	// done runs after apply without locks, on any loop or goroutine; it must
	// not block.
	done func(b *barrier)

	// Guarded by unit.mu.

	unit     *Unit
	seq      uint64
	found    int // tasks covered
	tasks    int // of them not ended
	pending  int // tasks, lanes that have not looked, queues that are open
	finished bool
	expired  bool
	stuck    int          // tasks when it expired; 0: nothing can be in the store
	cleared  []*nexusUnit // whose tasks were aborted, the issuer's excepted
	watches  []*taskWatch
	timer    *time.Timer
}

// taskWatch connects a task with the barriers that wait for its end. It outlives
// the task's time in the core, therefore it does not point to it.
type taskWatch struct {
	barriers []*barrier
	stuck    bool // counted in Unit.stuck
	ended    bool
}

func (b *barrier) inScope(lu *laneUnit) bool {
	return (b.target == nil || b.target == lu.lane.nexus.port.target) &&
		(b.nexus == nil || b.nexus == lu.lane.nexus) &&
		(b.among == nil || slices.Contains(b.among, lu.nu)) &&
		(b.lane == nil || b.lane == lu.lane)
}

func (b *barrier) covers(t *Task) bool {
	return t != b.except && t.sched.seq < b.seq && (!b.byTag || t.Tag == b.tag) && !(b.given && t.lane.inner) && b.inScope(t.lu)
}

// startBarrier starts b. Any goroutine, without u.mu.
func (u *Unit) startBarrier(b *barrier, deadline time.Duration) {
	if deadline <= 0 {
		deadline = DefaultDeadline
	}
	u.mu.Lock()
	b.unit = u
	u.seq++
	b.seq = u.seq
	if b.drop {
		b.seq = math.MaxUint64
	}
	u.barriers = append(u.barriers, b)
	if b.hold {
		u.holds++
	}
	b.overtake()
	u.gate.Store(u.gate.Load() | gateBarrier)
	b.pending = 1
	if b.outcome != notAborted || b.query {
		u.markWaiting(b, nil)
	}
	for _, lu := range u.lanes {
		// Only where LUN maps are at stake must idle lanes answer too.
		if b.inScope(lu) && (b.drop || lu.inflight.Load() != 0) {
			b.pending++
			lu.asked = append(lu.asked, b)
			lu.post()
		}
	}
	b.less()
	if !b.finished {
		b.timer = time.AfterFunc(deadline, b.expire)
	}
	u.schedule()
	done := u.takeFinished()
	u.mu.Unlock()
	finishAll(done)
}

// markWaiting takes the tasks that b covers (of lane share lu, where not nil) out
// of the queue of those that are not enabled.
func (u *Unit) markWaiting(b *barrier, lu *laneUnit) {
	for t := u.waiting.head; t != nil; {
		next := t.sched.qnext
		if b.covers(t) && (lu == nil || t.lu == lu) {
			b.mark(t)
			if !b.query {
				u.waiting.remove(t)
				t.sched.class = classSimple // it will not run
				u.admit(t)
				u.sendMail(t)
			}
		}
		t = next
	}
}

// mark notes that b covers t.
func (b *barrier) mark(t *Task) {
	s := &t.sched
	if b.query {
		b.found++
		return
	}
	w := s.watch
	if w == nil {
		w = new(taskWatch)
		s.watch = w
		s.slow = true
	}
	for _, o := range w.barriers {
		if o == b {
			return
		}
	}
	w.barriers = append(w.barriers, b)
	b.watches = append(b.watches, w)
	if b.expired {
		w.strand(b.unit)
	}
	b.found++
	b.tasks++
	b.pending++
	if b.outcome == notAborted || s.aborted != notAborted {
		return
	}
	n := t.lu.lane.nexus
	s.aborted = b.outcome
	if b.outcome == abortTAS && (n == b.issuer || !b.unit.tas.Load()) {
		s.aborted = abortSilent
	}
	if n != b.issuer && s.aborted == abortSilent {
		b.addCleared(t.lu.nu)
	}
}

func (b *barrier) addCleared(nu *nexusUnit) {
	for _, o := range b.cleared {
		if o == nu {
			return
		}
	}
	b.cleared = append(b.cleared, nu)
	if b.expired && b.clearedUA != 0 {
		nu.raise(b.clearedUA)
	}
}

// scanBarrier answers b for lu; true: there are store operations to cancel. On
// lu's loop, u.mu held.
func (u *Unit) scanBarrier(b *barrier, lu *laneUnit) (cancels bool) {
	if b.drop {
		// A Submit that still read the old LUN map may have come after the
		// barrier had looked through the waiting tasks.
		u.markWaiting(b, lu)
	}
	for t := lu.tasks.head; t != nil; t = t.sched.next {
		if !b.covers(t) {
			continue
		}
		b.mark(t)
		if b.query || t.sched.aborted == notAborted {
			continue
		}
		switch t.sched.state {
		case stRangeWait:
			u.leaveRange(t)
			t.sched.state = stReady
			lu.ready.push(t)
		case stHeld:
			lu.unhold(t)
		case stParked:
			u.leaveMedium(t)
			lu.parked--
			t.sched.state = stReady
			lu.ready.push(t)
		case stStore, stCopy:
			t.sched.cancel = true
			cancels = true
		}
	}
	if b.drop {
		lu.drop(b)
	}
	b.less()
	return cancels
}

// leaveRange takes an aborted task out of whatever it waits for in the range
// table.
func (u *Unit) leaveRange(t *Task) {
	s := &t.sched
	if s.inq != nil {
		s.inq.remove(t)
		s.inq = nil
	}
	if s.slot != 0 {
		i := int(s.slot - 1)
		s.slot = 0
		u.ranges.leave(u, i)
	}
}

// cancelAborted asks the store for an early end of the operations of aborted
// tasks, and copies for theirs. Such an end may come inside Cancel and change the list. On the loop,
// without Unit.mu.
func (lu *laneUnit) cancelAborted() {
	for t := lu.tasks.head; t != nil; {
		if !t.sched.cancel {
			t = t.sched.next
			continue
		}
		t.sched.cancel = false
		switch t.sched.state {
		case stStore:
			lu.queue.Cancel(&t.op)
		case stCopy:
			t.copy.aborted(t)
		}
		t = lu.tasks.head
	}
}

// drop lets go of the unit for b: the lane forgets it and its queue closes. On the
// loop, Unit.mu held.
func (lu *laneUnit) drop(b *barrier) {
	if !lu.dropped {
		lu.dropped = true
		lu.lane.forget(lu)
	}
	if lu.gone {
		return
	}
	b.pending++
	lu.droppers = append(lu.droppers, b)
}

// closeQueue ends the dropped lane share's way into the store. On the loop,
// without Unit.mu.
func (lu *laneUnit) closeQueue() {
	if lu.closing {
		return
	}
	lu.closing = true
	if lu.queue == nil {
		lu.queueClosed()
		return
	}
	lu.queue.Close(lu.queueClosed)
}

// queueClosed: the last operation has left the store.
func (lu *laneUnit) queueClosed() {
	u := lu.unit
	lu.queue, lu.near = nil, nil
	u.mu.Lock()
	lu.gone = true
	for _, b := range lu.droppers {
		b.less()
	}
	lu.droppers = nil
	lu.leave()
	u.schedule()
	done := u.takeFinished()
	u.mu.Unlock()
	finishAll(done)
}

// watched tells the barriers that wait for a task that it has ended.
func (u *Unit) watched(w *taskWatch) {
	w.ended = true
	if w.stuck {
		w.stuck = false
		u.stuck--
	}
	for _, b := range w.barriers {
		b.tasks--
		b.less()
	}
}

// strand counts the task as stuck, if it has not ended. Unit.mu held.
func (w *taskWatch) strand(u *Unit) {
	if !w.ended && !w.stuck {
		w.stuck = true
		u.stuck++
	}
}

// less takes one from what b waits for.
func (b *barrier) less() {
	b.pending--
	if b.pending == 0 && !b.finished {
		b.finish()
	}
}

// finish ends b, for good or because its time is over. Unit.mu held; the caller
// goes on with schedule, takeFinished and finishAll.
func (b *barrier) finish() {
	u := b.unit
	b.finished = true
	if b.timer != nil {
		b.timer.Stop()
	}
	for i, o := range u.barriers {
		if o == b {
			u.barriers = append(u.barriers[:i], u.barriers[i+1:]...)
			break
		}
	}
	if b.apply != nil {
		b.apply(b)
	}
	if b.hold {
		u.holds--
	}
	u.finished = append(u.finished, b)
}

// expire is the end of b's time.
func (b *barrier) expire() {
	u := b.unit
	u.mu.Lock()
	if b.finished {
		u.mu.Unlock()
		return
	}
	b.expired = true
	// A lane that has not looked may have any number of tasks in the store, a queue
	// that is open some of which nobody waits.
	b.stuck = max(b.tasks, 1)
	for _, w := range b.watches {
		w.strand(u)
	}
	b.finish()
	u.schedule()
	done := u.takeFinished()
	u.mu.Unlock()
	finishAll(done)
}

// takeFinished gives the barriers that finished under Unit.mu, for finishAll after
// it is let go.
func (u *Unit) takeFinished() []*barrier {
	f := u.finished
	u.finished = nil
	return f
}

func finishAll(done []*barrier) {
	for _, b := range done {
		if b.done != nil {
			b.done(b)
		}
	}
}
