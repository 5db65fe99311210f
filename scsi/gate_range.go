package scsi

import "math/bits"

// The range table: commands that read and then write as one action (cmdRange)
// against READ and WRITE, without draining the unit.
//
// A range command takes a slot of the table, which sets gateRange, and then has
// every lane with tasks in flight look through its own list: for each older task
// with an overlapping range it waits. READ and WRITE that come while the gate is
// set look at the table under Unit.mu: one that overlaps an older entry waits for
// that entry, the others go on and stay visible in their lane's list for range
// commands to come.
//
// Who waits for whom follows from one number, rseq: a task gets the next one when
// it first looks at the table; tasks that passed while the table was empty have
// 0. Waiting is only ever for a smaller rseq, so nothing waits in a circle; and
// the smallest one in the table has a slot and waits only for tasks that run, so
// something always goes on. A range command that finds no free slot has not been
// placed yet: nobody waits for it, and slots are given in order of arrival.

// rangeSlots is the size of the table: a bit of taskSched.ranges each.
const rangeSlots = 64

type rangeEntry struct {
	t       *Task // nil: the task ended while others still carry the slot's bit
	seq     uint64
	lba     uint64
	blocks  uint64
	pending int       // lanes to look and tasks to end before t runs
	waiters taskQueue // READs and WRITEs that wait for the end of t
}

// rangeTable is guarded by Unit.mu.
type rangeTable struct {
	used    uint64 // bit mask of slots
	seq     uint64
	slots   [rangeSlots]rangeEntry
	waiting taskQueue // range commands without a slot
}

func overlap(a, an, b, bn uint64) bool {
	return an != 0 && bn != 0 && a-b < bn || an != 0 && bn != 0 && b-a < an
}

// rangeOf is the range of blocks that t reads or writes. What changes the medium
// by other means than one range of its CDB counts as the whole medium.
func rangeOf(t *Task) (lba, blocks uint64) {
	switch {
	case t.cmd == nil:
		return 0, 0
	case t.cmd.flags&(cmdFast|cmdBlocks|cmdRange) != 0:
		return t.lbaRange()
	case t.cmd.flags&cmdWrite != 0:
		return 0, 1<<64 - 1
	}
	return 0, 0
}

// enterRange places t; false: it waits, and is mailed to its loop when it may look
// again. On the lane's loop, without Unit.mu.
func (lu *laneUnit) enterRange(t *Task) bool {
	u := lu.unit
	r := &u.ranges
	s := &t.sched
	u.mu.Lock()
	defer u.mu.Unlock()
	if s.rseq == notPlaced {
		s.lba, s.blocks = rangeOf(t)
	}
	if t.cmd.flags&cmdRange != 0 && s.blocks != 0 {
		if r.used == 1<<rangeSlots-1 || r.waiting.head != nil && !s.called {
			lu.wait(t, &r.waiting)
			return false
		}
		return r.enter(u, t)
	}
	if s.rseq == notPlaced {
		r.seq++
		s.rseq = r.seq
	}
	if s.blocks == 0 {
		return true
	}
	for m := r.used; m != 0; m &= m - 1 {
		e := &r.slots[bits.TrailingZeros64(m)]
		if e.t != nil && e.seq < s.rseq && overlap(e.lba, e.blocks, s.lba, s.blocks) {
			lu.wait(t, &e.waiters)
			return false
		}
	}
	return true
}

func (lu *laneUnit) wait(t *Task, q *taskQueue) {
	t.sched.state = stRangeWait
	t.sched.inq = q
	q.push(t)
}

// enter gives t a free slot; true: it may run at once. On t's loop, Unit.mu held.
func (r *rangeTable) enter(u *Unit, t *Task) bool {
	s := &t.sched
	i := bits.TrailingZeros64(^r.used)
	r.used |= 1 << i
	r.seq++
	s.rseq = r.seq
	s.slot = int8(i + 1)
	r.slots[i] = rangeEntry{t: t, seq: s.rseq, lba: s.lba, blocks: s.blocks}
	e := &r.slots[i]
	// First the gate, then the counters: see gate.go.
	u.gate.Store(u.gate.Load() | gateRange)
	for _, lu := range u.lanes {
		switch {
		case lu == t.lu:
			r.look(e, i, lu)
		case lu.inflight.Load() != 0:
			e.pending++
			lu.scan |= 1 << i
			lu.post()
		}
	}
	if e.pending == 0 {
		return true
	}
	s.state = stRangeWait
	s.inq = nil
	return false
}

// look has entry e wait for the older overlapping tasks of lu. On lu's loop. Mail
// that has not arrived is not looked at: it is not placed yet, or waits for an
// entry and has looked at the table before.
func (r *rangeTable) look(e *rangeEntry, i int, lu *laneUnit) {
	for o := lu.tasks.head; o != nil; o = o.sched.next {
		r.lookAt(e, i, o)
	}
}

func (r *rangeTable) lookAt(e *rangeEntry, i int, o *Task) {
	s := &o.sched
	if s.rseq >= e.seq || s.state == stParked {
		return
	}
	lba, n := s.lba, s.blocks
	if s.rseq == 0 {
		lba, n = rangeOf(o)
	}
	if overlap(e.lba, e.blocks, lba, n) {
		s.ranges |= 1 << i
		s.slow = true
		e.pending++
	}
}

// scanned answers the entries that asked lu to look. On lu's loop, Unit.mu held.
func (r *rangeTable) scanned(u *Unit, lu *laneUnit) {
	for m := lu.scan; m != 0; m &= m - 1 {
		i := bits.TrailingZeros64(m)
		r.look(&r.slots[i], i, lu)
		r.less(u, i)
	}
	lu.scan = 0
}

// ended tells the entries in mask that a task they wait for has ended.
func (r *rangeTable) ended(u *Unit, mask uint64) {
	for ; mask != 0; mask &= mask - 1 {
		r.less(u, bits.TrailingZeros64(mask))
	}
}

// less takes one from an entry's pending.
func (r *rangeTable) less(u *Unit, i int) {
	e := &r.slots[i]
	e.pending--
	if e.pending != 0 {
		return
	}
	if e.t == nil {
		r.free(u, i)
	} else if e.t.sched.state == stRangeWait {
		u.sendMail(e.t)
	}
}

// leave takes the ended task of slot i out and lets those look again that waited.
func (r *rangeTable) leave(u *Unit, i int) {
	e := &r.slots[i]
	e.t = nil
	for w := e.waiters.pop(); w != nil; w = e.waiters.pop() {
		w.sched.inq = nil
		u.sendMail(w)
	}
	if e.pending == 0 {
		r.free(u, i)
	}
}

func (r *rangeTable) free(u *Unit, i int) {
	r.slots[i] = rangeEntry{}
	r.used &^= 1 << i
	r.callUp(u)
}

// callUp has the next range command that found no slot look again, on its own
// loop. Another one that was called up may be faster; then it waits once more.
func (r *rangeTable) callUp(u *Unit) {
	if w := r.waiting.pop(); w != nil {
		w.sched.inq = nil
		w.sched.called = true
		u.sendMail(w)
	}
}
