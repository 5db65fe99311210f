package backing

import (
	"sync/atomic"

	"github.com/vtgt/vtgt/internal/loop"
)

// fileQueue is one loop's way into a fileStore. Everything but writes and
// closing belongs to the loop.
type fileQueue struct {
	// writes counts the changing operations in flight of a direct store: the
	// exclusive gate reads it. It has a cache line of its own.
	writes atomic.Int32
	_      [60]byte

	s        *fileStore
	l        *loop.Loop
	cur      *descRef
	inflight int
	closed   bool
	over     bool
	closing  atomic.Bool
	done     func()
	free     *fileJob

	inRing     int    // requests of this queue that the ring has
	parked     opList // the ring had no room
	kickNode   loop.Node
	kickQueued bool
}

// fileJob carries one Op to a worker. It is the queue's, not the Op's, so that a
// canceled Op that still waits for a worker can end at once: the worker finds
// the job canceled and drops it.
type fileJob struct {
	job   loop.Job
	claim atomic.Uint32
	op    *Op
	next  *fileJob
}

// The values of fileJob.claim.
const (
	claimFree uint32 = iota
	claimTaken
	claimCanceled
)

// RunJob is a worker's.
func (j *fileJob) RunJob(*loop.Job) {
	if j.claim.CompareAndSwap(claimFree, claimTaken) {
		j.op.st.eng.work(j.op)
	}
}

// post sends the Op home. It is not the caller's any more.
func (st *opState) post() { st.eng.(*fileQueue).l.Post(&st.node) }

func (q *fileQueue) Submit(op *Op) bool {
	op.N, op.Err = 0, nil
	if q.closed {
		op.Err = ErrClosed
		return true
	}
	s := q.s
	if op.Err = op.check(s.p.Load()); op.Err != nil {
		return true
	}
	st := op.begin(q)
	if op.Len == 0 && op.Kind != Sync {
		return true
	}
	switch op.Kind {
	case Read:
		if s.direct {
			q.directRead(op)
			return false
		}
		return q.bufferedRead(op)
	case Write:
		if s.latched.Load() {
			op.Err = ErrLatched
			return true
		}
		if s.direct {
			q.directWrite(op)
			return false
		}
		return q.bufferedWrite(op)
	case Sync:
		if s.readOnly {
			return true
		}
		if s.latched.Load() {
			op.Err = ErrLatched
			return true
		}
		q.enter(op)
		s.sync.submit(op)
	case Discard, Zero:
		if s.latched.Load() {
			op.Err = ErrLatched
			return true
		}
		if op.Kind == Discard && s.p.Load().DiscardGranularity == 0 {
			op.Err = ErrNotSupported
			return true
		}
		q.enter(op)
		if s.direct && !q.enterWrite(op) {
			return false
		}
		if s.needsExclusive(op) {
			q.leaveWrite(op)
			s.excl.add(op)
			return false
		}
		st.phase = phaseWhole
		q.toWorker(op)
	case Copy:
		if s.latched.Load() {
			op.Err = ErrLatched
			return true
		}
		if _, ok := op.Src.(copySource); !ok || s.block {
			op.Err = ErrNotSupported
			return true
		}
		q.enter(op)
		if s.direct && !q.enterWrite(op) {
			return false
		}
		st.phase = phaseWhole
		q.toWorker(op)
	case Extents:
		if !s.p.Load().Extents {
			op.Err = ErrNotSupported
			return true
		}
		q.enter(op)
		st.phase = phaseWhole
		q.toWorker(op)
	default:
		op.Err = ErrNotSupported
		return true
	}
	return false
}

// enter counts an Op that will not end inside Submit.
func (q *fileQueue) enter(op *Op) {
	q.inflight++
	op.st.ref = q.cur
	q.cur.n++
}

// enterWrite counts a changing Op of a direct store. false: an exclusive
// operation is about, op has joined its list.
func (q *fileQueue) enterWrite(op *Op) bool {
	q.writes.Add(1)
	op.st.writer = true
	if q.s.excl.gate.Load() == 0 {
		return true
	}
	q.leaveWrite(op)
	q.s.excl.add(op)
	return false
}

func (q *fileQueue) leaveWrite(op *Op) {
	if !op.st.writer {
		return
	}
	op.st.writer = false
	if q.writes.Add(-1) == 0 && q.s.excl.gate.Load() != 0 {
		q.s.excl.poke()
	}
}

// toWorker hands the Op to the store's workers, for what its phase says.
func (q *fileQueue) toWorker(op *Op) { q.s.jobs.Submit(&q.carry(op).job) }

// toPipe hands it to the store's pipe.
func (q *fileQueue) toPipe(op *Op) {
	op.st.piped = true
	q.l.Relieve(1)
	q.s.pipe.add(q.carry(op))
}

// carry makes the job that takes op to a worker.
func (q *fileQueue) carry(op *Op) *fileJob {
	st := &op.st
	j := q.free
	if j == nil {
		j = &fileJob{}
		j.job.Init(j)
	} else {
		q.free = j.next
	}
	j.op, j.next = op, nil
	j.claim.Store(claimFree)
	st.job, st.where = j, whereWorker
	return j
}

// ended gets an Op back that was posted.
func (q *fileQueue) ended(op *Op) {
	st := &op.st
	st.where = whereLoop
	if j := st.job; j != nil {
		st.job, j.op = nil, nil
		j.next = q.free
		q.free = j
	}
	q.finish(op)
}

// finish tells the owner. op is not ours any more when it returns.
func (q *fileQueue) finish(op *Op) {
	st := &op.st
	if st.piped {
		st.piped = false
		q.l.Relieve(-1)
	}
	q.leaveWrite(op)
	if st.bounce != nil {
		st.bounce.Free()
		st.bounce = nil
	}
	st.forget()
	ref := st.ref
	st.ref = nil
	op.Owner.OpDone(op)
	ref.n--
	if ref.n == 0 && ref != q.cur {
		ref.d.release(true)
	}
	q.inflight--
	q.closeIfIdle()
}

// switchDesc moves the queue to the store's new description; operations in
// flight keep the old one open.
func (q *fileQueue) switchDesc() {
	if q.over {
		return
	}
	old := q.cur
	q.cur = &descRef{d: q.s.acquire()}
	if old.n == 0 {
		old.d.release(true)
	}
}

// Kick passes what Submit gathered to the kernel.
func (q *fileQueue) Kick() {
	if q.kickQueued {
		q.ringKick()
	}
}

// Handle is the deferred kick at the end of a round.
func (q *fileQueue) Handle(*loop.Node) {
	if q.kickQueued {
		q.kickQueued = false
		q.ringKick()
	}
}

// Cancel ends op early where nothing has been given to the kernel yet.
func (q *fileQueue) Cancel(op *Op) {
	st := &op.st
	if st.ref == nil || st.cancel.Load() {
		return
	}
	st.cancel.Store(true)
	early := false
	switch st.where {
	case whereWorker:
		if j := st.job; j.claim.CompareAndSwap(claimFree, claimCanceled) {
			st.job = nil // the worker's; it drops it
			early = true
		}
	case whereRing:
		q.ringCancel(op)
	case whereParked:
		early = q.parked.remove(op)
	case whereSync:
		early = q.s.sync.cancel(op)
	case whereExcl:
		early = q.s.excl.cancel(op)
	}
	if early {
		op.Err = ErrCanceled
		st.where = whereLoop
		q.l.Post(&st.node)
	}
}

// Close refuses further operations; done comes inside when nothing is in flight.
func (q *fileQueue) Close(done func()) {
	if q.closed {
		return
	}
	q.closed, q.done = true, done
	q.closing.Store(true)
	q.closeIfIdle()
}

func (q *fileQueue) closeIfIdle() {
	if !q.closed || q.inflight > 0 || q.over {
		return
	}
	q.over = true
	done := q.done
	q.done = nil
	q.s.forget(q)
	done()
}
