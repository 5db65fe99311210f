package scsi

import (
	"sync/atomic"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/internal/loop"
)

// Lane is one loop's private way into a nexus. Its methods are called on that
// loop only, except where they say otherwise.
type Lane struct {
	nexus *Nexus
	loop  *loop.Loop
	fe    FrontEnd // the nexus's, but for inner
	// inner: it is the core's own, see copy_lane.go.
	inner bool
	// own is the inner lane beside this one; nil: not made yet. Written on the loop
	// under Nexus.mu.
	own *Lane

	// The rest belongs to the loop.

	lunMap *lunMap     // the view that byLUN was made from
	byLUN  []*laneUnit // by LUN number; nil: not looked up yet, or not mapped
	units  []*laneUnit // all that there are
	kicks  []*laneUnit // with operations submitted since the last Kick
	near   bool        // a unit of it is or was a backing.Nearer
	// stored is the task whose handler has just called Task.store.
	stored  *Task
	scratch []byte
	closed  atomic.Bool // set under Nexus.mu
}

// laneUnit is a lane's share of a unit: its queue into the store, its tasks in
// flight and its counters.
type laneUnit struct {
	lane    *Lane
	unit    *Unit
	nu      *nexusUnit
	lun     uint16 // by the nexus's view
	kick    bool   // in lane.kicks
	dropped bool   // let go of: no task may start
	closing bool   // its queue closes

	queue backing.Queue  // nil until the first operation
	near  backing.Nearer // queue, where it is one
	tasks taskList       // in flight, in order of start
	ready taskQueue      // to be started by the frame that filled it
	now   counters       // the loop's own
	dirty bool           // now differs from what was published

	flush loop.Node // deferred: publishes now
	node  loop.Node // posted: mail, scans

	// Guarded by unit.mu.

	posted bool
	resume bool  // held tasks are to go on
	held   int   // tasks in stHeld
	parked int64 // tasks in stParked
	mail   taskQueue
	scan   uint64     // slots of the range table that ask for a look at tasks
	asked  []*barrier // barriers that ask for a look at tasks
	// droppers wait until queue is closed; gone: it is.
	droppers []*barrier
	gone     bool

	published published

	// The counter has cache lines to itself: its own loop writes it twice for
	// each task, and nothing that other loops read may lie beside it.
	_        [128]byte
	inflight atomic.Int64
	_        [120]byte
}

// Loop is the lane's loop.
func (ln *Lane) Loop() *loop.Loop { return ln.loop }

// Nexus is the lane's nexus.
func (ln *Lane) Nexus() *Nexus { return ln.nexus }

// Kick passes what Submit has gathered to the stores: the end of a batch.
func (ln *Lane) Kick() {
	for i, lu := range ln.kicks {
		ln.kicks[i] = nil
		lu.kick = false
		if lu.queue != nil {
			lu.queue.Kick()
		}
	}
	ln.kicks = ln.kicks[:0]
}

// lookup finds the lane's share of the unit that l names; nil if none is mapped.
func (ln *Lane) lookup(l LUN) *laneUnit {
	n, ok := l.Number()
	if !ok {
		return nil
	}
	if m := ln.nexus.view.Load(); m != ln.lunMap {
		ln.newMap(m)
	}
	if int(n) < len(ln.byLUN) {
		if lu := ln.byLUN[n]; lu != nil {
			return lu
		}
		return ln.nexus.connect(ln, n)
	}
	return nil
}

// newMap starts over from LUN map m. What it no longer holds is let go of when
// the removal asks for it, not here.
func (ln *Lane) newMap(m *lunMap) {
	ln.lunMap = m
	n := 0
	if k := len(m.list); k > 0 {
		n = int(m.list[k-1].LUN) + 1
	}
	ln.byLUN = make([]*laneUnit, n)
	for _, lu := range ln.units {
		if i := m.find(lu.lun); i >= 0 && m.list[i].Unit == lu.unit && !lu.dropped {
			ln.byLUN[lu.lun] = lu
		}
	}
}

// forget takes lu out of the lane's tables.
func (ln *Lane) forget(lu *laneUnit) {
	if int(lu.lun) < len(ln.byLUN) && ln.byLUN[lu.lun] == lu {
		ln.byLUN[lu.lun] = nil
	}
	for i, o := range ln.units {
		if o == lu {
			ln.units = append(ln.units[:i], ln.units[i+1:]...)
			break
		}
	}
}

// Lengths says how many bytes the command in t moves out of and into the
// initiator, from its LUN and CDB alone: for carriers that must ask for data. A
// command that nobody knows moves none.
func (ln *Lane) Lengths(t *Task) (out, in int64) {
	c := ln.prepare(t)
	if c == nil || c.length == nil || t.unit == nil && c.flags&cmdAnyLUN == 0 || !c.fits(t) {
		return 0, 0
	}
	switch c.dir {
	case dirOut:
		return max(c.length(t), 0), 0
	case dirIn:
		return 0, max(c.length(t), 0)
	}
	return 0, 0
}

// prepare finds unit and command of t.
func (ln *Lane) prepare(t *Task) *command {
	t.lane = ln
	lu := ln.lookup(t.LUN)
	if lu == nil {
		t.lu, t.unit = nil, nil
		t.cmd = ln.nexus.port.target.noUnit.lookup(t.CDB[:])
		return t.cmd
	}
	t.lu, t.unit = lu, lu.unit
	t.cmd = lu.unit.server.lookup(t.CDB[:])
	return t.cmd
}

// Submit gives t to the core: it is the lane's until FrontEnd.Done.
//
// That t.Tag is unique in the nexus is the front end's to see to (iSCSI looks
// every task tag up anyway, rings have slots): the core has no index of tags, so
// that a command costs no look-up, and does not report overlapped commands.
// Where tags do meet, ABORT TASK ends all the tasks that bear it.
func (ln *Lane) Submit(t *Task) {
	t.Status, t.Aborted, t.SenseLen, t.InLen, t.Want = StatusGood, false, 0, 0, 0
	if t.op.Owner == nil {
		t.op.Owner = (*opOwner)(t)
	}
	c := ln.prepare(t)
	lu := t.lu
	if lu == nil {
		ln.submitNoUnit(t)
		return
	}
	t.sched.start = ln.loop.Now()
	if !lu.dirty {
		lu.dirty = true
		ln.loop.Defer(&lu.flush)
	}
	if c == nil || c.flags&cmdImmediate != 0 {
		// No store operation, so it ends before anybody can look.
		lu.inflight.Add(1)
		lu.list(t)
		lu.exec(t)
		return
	}
	if t.Attr == Simple && c.flags&(cmdExclusive|cmdRange|cmdPreempt) == 0 {
		lu.inflight.Add(1)
		if lu.unit.gate.Load() == 0 {
			lu.list(t)
			lu.exec(t)
			return
		}
		lu.inflight.Add(-1)
	}
	lu.submitSlow(t)
}

// submitNoUnit runs the few commands that LUNs without a unit answer.
func (ln *Lane) submitNoUnit(t *Task) {
	t.announced = nil
	switch c := t.cmd; {
	case ln.nexus.closed.Load() || ln.closed.Load():
		t.Aborted = true
		t.lane.end(t)
	case c == nil || c.flags&cmdAnyLUN == 0:
		t.check(Sense{Key: IllegalRequest, ASC: ASCLUNNotSupported})
	case !c.fits(t):
		t.check(c.misfit(t))
	default:
		ln.run(t, c.run)
	}
}

// exec does the checks that every command has in common, in SAM-5's order, and
// runs its handler. t is counted and in the list.
func (lu *laneUnit) exec(t *Task) {
	if t.announced != nil && lu.overtaken(t) {
		return
	}
	c := t.cmd
	if c == nil {
		lu.noCommand(t)
		return
	}
	if v := lu.nu.verdict.Load(); v != 0 && !lu.nu.judge(t, v) {
		return
	}
	if !c.fits(t) {
		// A write to a disk that takes none is that first of all, whatever
		// options of the CDB the disk lacks.
		if c.flags&cmdWrite != 0 && t.readOnly() {
			t.check(lu.protected())
			return
		}
		t.check(c.misfit(t))
		return
	}
	if c.flags&cmdMedium != 0 && !lu.mediumReady(t, c) {
		return
	}
	lu.lane.run(t, c.run)
}

// noCommand ends a task whose CDB no row describes.
func (lu *laneUnit) noCommand(t *Task) {
	if v := lu.nu.verdict.Load(); v&verdictUA != 0 && !lu.nu.judge(t, verdictUA) {
		return
	}
	op := t.CDB[0]
	switch {
	case !lu.unit.server.hasOp(op):
		t.check(Sense{Key: IllegalRequest, ASC: ASCInvalidCommandOpCode})
	case op == 0x7f:
		t.check(InvalidCDBField(8, 7))
	default:
		t.check(InvalidCDBField(1, 4))
	}
}

// mediumReady checks what commands that need the medium need.
func (lu *laneUnit) mediumReady(t *Task, c *command) bool {
	cond := lu.unit.condition.Load()
	if cond|uint32(c.flags&cmdWrite) == 0 {
		return true
	}
	if asc := ASC(cond & conditionASC); asc != 0 {
		t.check(Sense{Key: NotReady, ASC: asc})
		return false
	}
	if c.flags&cmdWrite != 0 && (lu.nu.readOnly.Load() || cond&(conditionWP|conditionSWP) != 0) {
		t.check(lu.protected())
		return false
	}
	return true
}

// protected says why the nexus may not write.
func (lu *laneUnit) protected() Sense {
	if !lu.nu.readOnly.Load() && lu.unit.condition.Load()&conditionWP == 0 {
		return Sense{Key: DataProtect, ASC: ASCSoftwareWriteProtected}
	}
	return Sense{Key: DataProtect, ASC: ASCWriteProtected}
}

// inlineSteps is how many operations of one task the store may answer inline before
// others have their turn on the loop. A piece of stepBytes takes some 20 us, a VERIFY
// may have millions of them.
const inlineSteps = 8

// run is the trampoline: it runs f, starts the store operation that f asked for,
// and goes on with the next step while the store answers inline.
func (ln *Lane) run(t *Task, f step) {
	for n := 1; ; n++ {
		// The steps of READ and WRITE look at no buffer (readPartDone, which does,
		// guards itself): that spares each of them two of 12 ns.
		if !t.Mapped || t.cmd.flags&cmdFast != 0 {
			f(t)
		} else if gmem.Try(f, t) != nil {
			// A step touches buffers before it ends the task and before it
			// calls store, so nothing of it is under way.
			t.check(senseFault)
			return
		}
		// t may be gone. A handler that ended it did not call store.
		if ln.stored != t {
			return
		}
		ln.stored = nil
		if !t.lu.start(t) {
			return
		}
		if (t.op.Err != nil || t.op.N != t.op.Len) && t.lu.failed(t) {
			return
		}
		if n == inlineSteps {
			t.lu.yield(t)
			return
		}
		f = t.next
	}
}

// yield has t go on with its next step in a later round of the loop. Until then it
// is found in the lane's list like a task in the store, and can be aborted.
func (lu *laneUnit) yield(t *Task) {
	u := lu.unit
	t.sched.again, t.sched.ended = true, true
	u.mu.Lock()
	u.sendMail(t)
	u.mu.Unlock()
}

// start gives t.op to the store; true: it has ended already.
func (lu *laneUnit) start(t *Task) (done bool) {
	if lu.queue == nil && !lu.open() {
		t.op.Err = backing.ErrClosed
		return true
	}
	if !lu.kick {
		lu.kick = true
		lu.lane.kicks = append(lu.lane.kicks, lu)
	}
	t.sched.state = stStore
	if !lu.queue.Submit(&t.op) {
		return false
	}
	t.sched.state = stRunning
	return true
}

// open makes the queue into the store.
func (lu *laneUnit) open() bool {
	if lu.dropped {
		return false
	}
	q, err := lu.unit.backing.Queue(lu.lane.loop)
	if err != nil {
		lu.unit.queueFailed(err)
		return false
	}
	lu.queue = q
	if lu.near, _ = q.(backing.Nearer); lu.near != nil {
		lu.lane.near = true
	}
	return true
}

// opOwner is a Task in its role as the owner of its store operation: the method
// does not show in Task's own set.
type opOwner Task

// OpDone goes on with the task: its operation has ended.
func (o *opOwner) OpDone(*backing.Op) {
	t := (*Task)(o)
	ln := t.lane
	t.sched.state = stRunning
	if lu := t.lu; !lu.dirty {
		lu.dirty = true
		ln.loop.Defer(&lu.flush)
	}
	if t.sched.aborted != notAborted {
		ln.end(t)
		return
	}
	if (t.op.Err != nil || t.op.N != t.op.Len) && t.lu.failed(t) {
		return
	}
	ln.run(t, t.next)
}

// end ends t: its outcome is set. Done is called before the task leaves the
// counters, so that what waits for its end starts after Done has returned.
func (ln *Lane) end(t *Task) {
	lu := t.lu
	fe := ln.fe
	if lu == nil {
		t.freeBufs()
		fe.Done(t)
		return
	}
	s := &t.sched
	if s.nbuf != 0 {
		t.freeBufs()
	}
	lu.account(t)
	if s.listed {
		s.listed = false
		lu.tasks.remove(t)
	}
	if s.slow {
		lu.endSlow(t)
		return
	}
	fe.Done(t)
	lu.inflight.Add(-1)
	if lu.unit.gate.Load() != 0 {
		lu.unit.poke()
	}
}

func (t *Task) freeBufs() {
	s := &t.sched
	for i := range s.bufs[:s.nbuf] {
		s.bufs[i].Free()
		s.bufs[i] = nil
	}
	s.nbuf = 0
}
