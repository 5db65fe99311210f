package backing

import (
	"syscall"

	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/slab"
)

func (s *intentStore) Queue(l *loop.Loop) (Queue, error) {
	q, err := s.data.Queue(l)
	if err != nil {
		return nil, err
	}
	return &intentQueue{s: s, l: l, data: q}, nil
}

// intentQueue passes everything on to the data's queue but Writes with Atomic.
type intentQueue struct {
	s        *intentStore
	l        *loop.Loop
	data     Queue
	log      Queue // nil until the first
	free     *intentJob
	inflight int
	closed   bool
	done     func()
}

// intentStage is what an intentJob waits for.
type intentStage uint8

const (
	intentOpen    intentStage = iota // the log, on a worker
	intentSlot                       // a slot
	intentOld                        // what the range holds
	intentLogged                     // step 1
	intentPlaced                     // step 2
	intentUndone                     // step 2 failed: the old data are put back
	intentCleared                    // step 3
	intentDropped                    // the log could not be cleared: it is removed, on a worker
	intentPurged                     // the slots are overwritten
)

// intentJob is one Write with Atomic on its way, or a Purge. It belongs to its queue and
// is used again.
type intentJob struct {
	q      *intentQueue
	parent *Op
	op     Op
	one    [1][]byte
	buf    *slab.Buf // the slot: header and data
	old    *slab.Buf
	stage  intentStage
	slot   int // -1: none
	seq    uint64
	pos    int64 // of a Purge
	err    error
	node   loop.Node
	job    loop.Job
	next   *intentJob
}

func (q *intentQueue) Submit(op *Op) bool {
	if op.Flags&Atomic == 0 && op.Kind != Purge {
		return q.data.Submit(op)
	}
	op.N, op.Err = 0, nil
	if q.closed {
		op.Err = ErrClosed
		return true
	}
	if op.Err = op.check(q.s.Info()); op.Err != nil || op.Len == 0 && op.Kind != Purge {
		return true
	}
	if op.Kind == Purge {
		q.s.mu.Lock()
		have := q.s.store != nil
		q.s.mu.Unlock()
		if !have {
			return q.data.Submit(op)
		}
	}
	j := q.free
	if j == nil {
		j = &intentJob{q: q}
		j.op.Owner = j
		j.node.Init(j)
		j.job.Init(j)
	} else {
		q.free = j.next
	}
	j.parent, j.next, j.err, j.slot, j.pos = op, nil, nil, -1, 0
	st := op.begin(q)
	st.where = whereLoop
	q.inflight++
	q.s.mu.Lock()
	have := q.s.store != nil && q.s.broken == nil
	q.s.mu.Unlock()
	switch {
	case op.Kind == Purge:
		j.stage = intentPurged
		q.l.Post(&j.node)
	case have || q.s.o.off:
		j.stage = intentSlot
		q.l.Post(&j.node)
	default:
		j.stage = intentOpen
		q.s.jobs.Submit(&j.job)
	}
	return false
}

// RunJob does what sleeps. On a worker.
func (j *intentJob) RunJob(*loop.Job) {
	s := j.q.s
	switch j.stage {
	case intentOpen:
		j.err = s.ensure()
	case intentDropped:
		if err := s.o.drop(); err != nil {
			s.log.Error("an intent log that has failed cannot be removed: remove it by hand, or a crash may bring a write back that failed", "error", err)
		}
	}
	j.q.l.Post(&j.node)
}

// Handle goes on after a post: from a worker, or with a slot.
func (j *intentJob) Handle(*loop.Node) { j.step() }

// OpDone goes on after an operation.
func (j *intentJob) OpDone(*Op) { j.step() }

// submit starts an operation; true: it has ended inside.
func (j *intentJob) submit(q Queue, next intentStage, k Kind, fl Flags, off int64, b []byte) bool {
	op := &j.op
	j.stage = next
	j.one[0] = b
	op.Kind, op.Flags, op.Off, op.Len, op.Bufs = k, fl, off, int64(len(b)), j.one[:]
	op.N, op.Err = 0, nil
	if q.Submit(op) {
		return true
	}
	q.Kick()
	return false
}

// outcome is how the last operation ended.
func (j *intentJob) outcome() error {
	if j.op.Err == nil && j.op.N != j.op.Len {
		return errShort
	}
	return j.op.Err
}

// step goes on until something has to be waited for. On the loop.
func (j *intentJob) step() {
	for j.turn() {
	}
}

// turn does one step; true: the next may follow at once.
func (j *intentJob) turn() (again bool) {
	q, s, p := j.q, j.q.s, j.parent
	switch j.stage {
	case intentOpen:
		if j.err != nil {
			return j.end()
		}
		j.stage = intentSlot
		return true

	case intentSlot:
		if p.st.cancel.Load() {
			j.err = ErrCanceled
			return j.end()
		}
		if !s.o.off {
			if j.slot < 0 && !s.takeSlot(j) {
				return false
			}
			s.mu.Lock()
			j.err = s.broken // while it waited
			s.mu.Unlock()
			if j.err == nil {
				j.err = j.openLog()
			}
			if j.err != nil {
				return j.end()
			}
		}
		slabs := q.l.Slabs()
		j.buf, j.old = slabs.Get(intentHead+int(p.Len)), slabs.Get(int(p.Len))
		if j.buf == nil || j.old == nil {
			j.err = syscall.ENOMEM
			return j.end()
		}
		if j.err = copyOut(j.data(), p.Bufs, 0); j.err != nil {
			return j.end()
		}
		return j.submit(q.data, intentOld, Read, 0, p.Off, j.old.B)

	case intentOld:
		if j.err = j.outcome(); j.err != nil {
			return j.end()
		}
		if s.o.off {
			return j.submit(q.data, intentPlaced, Write, FUA, p.Off, j.data())
		}
		e := intentEntry{seq: j.seq, off: p.Off, n: int(p.Len), sum: sumIntent(j.data()), id: s.o.id}
		e.encode(j.buf.B)
		return j.submit(q.log, intentLogged, Write, FUA, s.super.at(j.slot), j.buf.B)

	case intentLogged:
		if j.err = j.outcome(); j.err != nil {
			// The slot may be whole all the same.
			return j.clear()
		}
		return j.submit(q.data, intentPlaced, Write, FUA, p.Off, j.data())

	case intentPlaced:
		if j.err = j.outcome(); j.err != nil {
			return j.submit(q.data, intentUndone, Write, 0, p.Off, j.old.B[:j.changed()])
		}
		if s.o.off {
			p.N = p.Len
			return j.end()
		}
		return j.clear()

	case intentUndone:
		if err := j.outcome(); err != nil {
			// Neither old nor new: when the store is opened anew the log makes it new.
			s.breakLog(err)
			return j.end()
		}
		if s.o.off {
			return j.end()
		}
		return j.clear()

	case intentCleared:
		if err := j.outcome(); err != nil {
			if j.err == nil {
				j.err = err
			}
			s.breakLog(err)
			j.stage = intentDropped
			s.jobs.Submit(&j.job)
			return false
		}
		if j.err == nil {
			p.N = p.Len
		}
		return j.end()

	case intentPurged:
		if j.pos > 0 {
			if j.err = j.outcome(); j.err != nil {
				return j.end()
			}
		} else if j.err = j.openLog(); j.err != nil {
			return j.end()
		}
		if j.pos == 0 {
			j.pos = intentHead
		}
		n := min(s.super.size()-j.pos, int64(len(zeros)))
		if n == 0 {
			return j.end()
		}
		at := j.pos
		j.pos += n
		return j.submit(q.log, intentPurged, Write, FUA, at, zeros[:n])
	}
	return j.end()
}

// data is what is to be written.
func (j *intentJob) data() []byte { return j.buf.B[intentHead : intentHead+int(j.parent.Len)] }

// changed is how much of the range a failed Write may have changed: what it tells, and
// what it may have been at.
func (j *intentJob) changed() int64 {
	n := j.op.Len
	if j.op.N > 0 || j.op.Err == syscall.ENOSPC {
		// The rest cannot be written: there is no room for it.
		n = min(n, roundUp(j.op.N, 4096))
	}
	return n
}

// clear empties the slot.
func (j *intentJob) clear() bool {
	s := j.q.s
	return j.submit(j.q.log, intentCleared, Write, FUA, s.super.at(j.slot), zeros[:512])
}

// openLog makes the queue into the log.
func (j *intentJob) openLog() error {
	q, s := j.q, j.q.s
	if q.log != nil {
		return nil
	}
	s.mu.Lock()
	st := s.store
	s.mu.Unlock()
	if st == nil {
		return ErrClosed
	}
	log, err := st.Queue(q.l)
	if err == nil {
		q.log = log
	}
	return err
}

// end ends the parent. It reports false: there is nothing left to do.
func (j *intentJob) end() bool {
	q, s, p := j.q, j.q.s, j.parent
	if j.slot >= 0 {
		s.mu.Lock()
		broken := s.broken != nil
		s.mu.Unlock()
		s.giveSlot(j.slot, broken)
	}
	if j.buf != nil {
		j.buf.Free()
	}
	if j.old != nil {
		j.old.Free()
	}
	j.buf, j.old, j.parent, j.one[0] = nil, nil, nil, nil
	p.Err = j.err
	if p.Err != nil {
		p.N = 0
	}
	j.next = q.free
	q.free = j
	p.Owner.OpDone(p)
	q.inflight--
	q.closing()
	return false
}

// The engine of the parents' state, which is used for Cancel alone.
func (q *intentQueue) ended(*Op)  {}
func (q *intentQueue) work(*Op)   {}
func (q *intentQueue) reaped(*Op) {}

func (q *intentQueue) Kick() { q.data.Kick() }

// Cancel ends a Write with Atomic that waits for a slot; one that is under way goes on.
func (q *intentQueue) Cancel(op *Op) {
	if op.Flags&Atomic == 0 && op.Kind != Purge {
		q.data.Cancel(op)
		return
	}
	op.st.cancel.Store(true)
	q.s.mu.Lock()
	var waits *intentJob
	for _, j := range q.s.waiting {
		if j.parent == op {
			waits = j
		}
	}
	q.s.mu.Unlock()
	if waits != nil && q.s.leaveWaiting(waits) {
		q.l.Post(&waits.node)
	}
}

func (q *intentQueue) Close(done func()) {
	if q.closed {
		return
	}
	q.closed, q.done = true, done
	q.closing()
}

func (q *intentQueue) closing() {
	if !q.closed || q.inflight > 0 || q.done == nil {
		return
	}
	done := q.done
	q.done = nil
	if q.log == nil {
		q.data.Close(done)
		return
	}
	q.log.Close(func() { q.data.Close(done) })
}
