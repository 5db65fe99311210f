package backing

import (
	"syscall"

	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/internal/uring"
)

// ringNext gives the next piece of op to the loop's ring, or parks op until the
// ring has room.
func (q *fileQueue) ringNext(op *Op) {
	s, st := q.s, &op.st
	r := &st.req
	if st.phase == phaseBounce {
		a, b := s.pieceOf(op, int64(len(st.bounce.B)))
		st.piece = [2]int64{a, b}
		p := st.bounce.B[:b-a]
		if op.Kind == Write && fill(op, a, p) != nil {
			q.giveUpRing(op) // the worker will meet the same and say so
			return
		}
		r.Iov, r.Off = st.one(p), a
	} else {
		r.Iov, r.Off = st.vector(), op.Off+st.pos
	}
	r.FD = st.ref.d.fd
	r.Flags = 0
	if op.Kind == Write {
		r.Op = uring.Writev
		if s.stable(op) {
			if s.noDsync.Load() {
				q.giveUpRing(op)
				return
			}
			r.Flags = sys.RWF_DSYNC
		}
	} else {
		r.Op = uring.Readv
	}
	q.ringSubmit(op)
}

// giveUpRing lets a worker do the rest.
func (q *fileQueue) giveUpRing(op *Op) {
	op.st.forget()
	op.st.req.Iov = nil
	op.st.phase = phaseWhole
	q.toWorker(op)
}

func (q *fileQueue) ringSubmit(op *Op) {
	st := &op.st
	switch {
	case q.parked.empty() && q.l.Ring().Submit(&st.req):
		st.where = whereRing
		q.inRing++
	case q.inRing > 0:
		// The end of one of ours makes room.
		st.where = whereParked
		q.parked.push(op)
	default:
		// Others fill the ring and would not tell this queue of their end.
		q.giveUpRing(op)
		return
	}
	q.deferKick()
}

func (q *fileQueue) deferKick() {
	if !q.kickQueued {
		q.kickQueued = true
		q.l.Defer(&q.kickNode)
	}
}

// ringKick tries the parked ones again and tells the kernel.
func (q *fileQueue) ringKick() {
	r := q.l.Ring()
	if r == nil {
		return
	}
	q.unpark()
	r.Kick()
}

func (q *fileQueue) unpark() {
	r := q.l.Ring()
	for op := q.parked.head; op != nil; op = q.parked.head {
		if !r.Submit(&op.st.req) {
			return
		}
		q.parked.pop()
		op.st.where = whereRing
		q.inRing++
	}
}

func (q *fileQueue) ringCancel(op *Op) {
	q.l.Ring().Cancel(&op.st.req)
	q.deferKick()
}

// reaped takes the outcome of a request.
func (q *fileQueue) reaped(op *Op) {
	st := &op.st
	st.where = whereLoop
	q.inRing--
	q.advance(op, int(st.req.Res))
	if q.parked.empty() {
		return
	}
	q.unpark()
	q.deferKick()
	if q.inRing == 0 { // and again nobody would tell
		for op := q.parked.pop(); op != nil; op = q.parked.pop() {
			q.giveUpRing(op)
		}
	}
}

// advance moves op on by what the kernel answered.
func (q *fileQueue) advance(op *Op, res int) {
	s, st := q.s, &op.st
	if res < 0 {
		q.ringFailed(op, syscall.Errno(-res))
		return
	}
	if st.phase == phaseBounce && op.Kind == Read {
		if op.Err = drain(op, st.piece[0], st.bounce.B, res); op.Err != nil {
			q.ringEnd(op)
			return
		}
	} else {
		st.pos += int64(res)
	}
	switch {
	case st.pos == op.Len:
	case res == 0:
		op.Err = errShort
	case st.cancel.Load():
		op.Err = ErrCanceled
	case (op.Off+st.pos)&int64(s.offAlign-1) != 0 && st.phase == phaseDirect:
		op.Err = errShort // an end in the middle of a block
	default:
		q.ringNext(op)
		return
	}
	q.ringEnd(op)
}

func (q *fileQueue) ringFailed(op *Op, e syscall.Errno) {
	st := &op.st
	switch {
	case st.cancel.Load() && (e == syscall.ECANCELED || e == syscall.EINTR):
		op.Err = ErrCanceled
	case e == syscall.EINTR:
		q.ringNext(op)
		return
	case e == syscall.EAGAIN || e == syscall.ECANCELED:
		// The kernel could not have it without sleeping: a worker can.
		q.giveUpRing(op)
		return
	case e == syscall.EOPNOTSUPP && st.req.Flags != 0:
		q.s.noDsync.Store(true)
		q.giveUpRing(op)
		return
	default:
		op.Err = e
		if st.req.Flags != 0 {
			st.forget()
			st.req.Iov = nil
			st.phase = phaseJudge
			q.toWorker(op)
			st.where = whereLoop // not to be canceled: the latch hangs on it
			return
		}
	}
	q.ringEnd(op)
}

func (q *fileQueue) ringEnd(op *Op) {
	op.st.req.Iov = nil
	op.N = op.st.pos
	q.finish(op)
}
