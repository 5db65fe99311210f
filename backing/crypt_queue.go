package backing

import (
	"syscall"

	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/slab"
)

// cryptPiece is the most that is encrypted or decrypted at a time, bytes: about 1 ms of
// a worker.
const cryptPiece = 256 << 10

func (s *cryptStore) Queue(l *loop.Loop) (Queue, error) {
	q, err := s.lower.Queue(l)
	if err != nil {
		return nil, err
	}
	return &cryptQueue{s: s, l: l, lower: q}, nil
}

// cryptQueue is one loop's way into a cryptStore. Payload is copied once, on the loop;
// workers encrypt and decrypt.
type cryptQueue struct {
	s        *cryptStore
	l        *loop.Loop
	lower    Queue
	free     *cryptJob
	live     *cryptJob
	inflight int
	closed   bool
	done     func()
}

// cryptStage is what a cryptJob waits for.
type cryptStage uint8

const (
	cryptBegin  cryptStage = iota
	cryptLower             // the lower store
	cryptWorker            // a worker
	cryptHead              // Rekey: the first copy of the header
	cryptHead2             // the second one
)

// cryptJob is an operation on its way. It belongs to its queue and is used again.
type cryptJob struct {
	q      *cryptQueue
	parent *Op
	op     Op
	one    [1][]byte
	buf    *slab.Buf
	n      int // bytes of this piece
	stage  cryptStage
	next   cryptHeader // Rekey
	key    []byte
	node   loop.Node
	job    loop.Job
	prev   *cryptJob // in the queue's list of those under way, or of free ones
	after  *cryptJob
}

func (q *cryptQueue) Submit(op *Op) bool {
	switch op.Kind {
	case Sync, Purge:
		return q.lower.Submit(op)
	}
	op.N, op.Err = 0, nil
	if q.closed {
		op.Err = ErrClosed
		return true
	}
	if op.Err = op.check(q.s.Info()); op.Err != nil || op.Len == 0 && op.Kind != Rekey {
		return true
	}
	switch op.Kind {
	case Read, Write, Discard, Zero, Extents:
	case Rekey:
		if !q.s.Info().Rekeys {
			op.Err = ErrReadOnly
			return true
		}
	default:
		op.Err = ErrNotSupported
		return true
	}
	if op.Kind == Write && q.s.Info().Latched {
		op.Err = ErrLatched
		return true
	}
	j := q.free
	if j == nil {
		j = &cryptJob{q: q}
		j.op.Owner = j
		j.node.Init(j)
		j.job.Init(j)
	} else {
		q.free = j.after
	}
	j.parent, j.stage = op, cryptBegin
	j.prev, j.after = nil, q.live
	if q.live != nil {
		q.live.prev = j
	}
	q.live = j
	op.begin(q)
	q.inflight++
	if j.begin() {
		// An error at the door, or the lower store ended it inline.
		j.leave()
		return true
	}
	return false
}

// Handle goes on after a worker.
func (j *cryptJob) Handle(*loop.Node) {
	if j.worked() {
		j.end()
	}
}

// OpDone goes on after the lower store.
func (j *cryptJob) OpDone(*Op) {
	if j.lowered() {
		j.end()
	}
}

// begin starts the next piece. Like the other stages it is true when the parent has
// ended; its outcome is set then.
func (j *cryptJob) begin() (ended bool) {
	p, q := j.parent, j.q
	pos := p.st.pos
	if p.st.cancel.Load() {
		p.Err = ErrCanceled
		return true
	}
	switch p.Kind {
	case Read, Write:
		j.n = int(min(p.Len-pos, cryptPiece))
		if p.Flags&Atomic != 0 {
			j.n = int(p.Len)
		}
		if j.buf != nil && len(j.buf.B) < j.n {
			j.buf.Free()
			j.buf = nil
		}
		if j.buf == nil {
			if j.buf = q.l.Slabs().Get(j.n); j.buf == nil {
				p.Err = syscall.ENOMEM
				return true
			}
		}
		if p.Kind == Read {
			return j.submit(Read, p.Flags, p.Off+pos, int64(j.n), j.buf.B[:j.n], cryptLower)
		}
		if p.Err = copyOut(j.buf.B[:j.n], p.Bufs, pos); p.Err != nil {
			return true
		}
		return j.toWorker()
	case Rekey:
		return j.toWorker()
	}
	j.op.Ext = p.Ext
	return j.submit(p.Kind, p.Flags, p.Off, p.Len, nil, cryptLower)
}

// submit gives the lower store an operation at off of the data.
func (j *cryptJob) submit(k Kind, fl Flags, off, n int64, b []byte, stage cryptStage) (ended bool) {
	op := &j.op
	op.Kind, op.Flags, op.Off, op.Len, op.Bufs = k, fl, off+cryptDataOff, n, nil
	if b != nil {
		j.one[0] = b
		op.Bufs = j.one[:]
	}
	op.N, op.Err = 0, nil
	j.stage = stage
	if j.q.lower.Submit(op) {
		return j.lowered()
	}
	j.q.lower.Kick()
	return false
}

func (j *cryptJob) toWorker() bool {
	j.stage = cryptWorker
	j.q.s.jobs.Submit(&j.job)
	return false
}

// RunJob does the arithmetic. On a worker; the buffer is the job's own.
func (j *cryptJob) RunJob(*loop.Job) {
	p, s := j.parent, j.q.s
	switch p.Kind {
	case Read:
		decryptSectors(s.cipher.Load(), j.buf.B[:j.n], uint64(p.Off+p.st.pos)/cryptSector)
	case Write:
		encryptSectors(s.cipher.Load(), j.buf.B[:j.n], uint64(p.Off+p.st.pos)/cryptSector)
	case Rekey:
		s.mu.Lock()
		j.next, j.key = s.head.next(s.keys)
		s.mu.Unlock()
	}
	j.q.l.Post(&j.node)
}

// worked goes on behind the worker.
func (j *cryptJob) worked() (ended bool) {
	p := j.parent
	switch p.Kind {
	case Read:
		if p.Err = copyIn(p.Bufs, p.st.pos, j.buf.B[:j.n]); p.Err != nil {
			return true
		}
		return j.moved()
	case Rekey:
		if j.buf = j.q.l.Slabs().Get(cryptHeadLen); j.buf == nil {
			p.Err = syscall.ENOMEM
			return true
		}
		j.next.encode(j.buf.B)
		return j.writeHead(j.q.s.olderCopy(j.next.seq), cryptHead)
	}
	return j.submit(Write, p.Flags, p.Off+p.st.pos, int64(j.n), j.buf.B[:j.n], cryptLower)
}

// moved counts a piece and begins the next.
func (j *cryptJob) moved() (ended bool) {
	p := j.parent
	p.st.pos += int64(j.n)
	p.N = p.st.pos
	if p.st.pos == p.Len {
		return true
	}
	return j.begin()
}

func (j *cryptJob) writeHead(i int, stage cryptStage) bool {
	return j.submit(Write, FUA, j.q.s.copyAt(i)-cryptDataOff, cryptHeadLen, j.buf.B[:cryptHeadLen], stage)
}

// lowered goes on behind the lower store.
func (j *cryptJob) lowered() (ended bool) {
	p, op := j.parent, &j.op
	err := op.Err
	if err == nil && (op.Kind == Read || op.Kind == Write) && op.N != op.Len {
		err = errShort
	}
	switch j.stage {
	case cryptHead:
		if err != nil {
			p.Err = err // the old key; opening the store sees to this copy
			return true
		}
		// From here on the next process has the new one.
		s := j.q.s
		s.mu.Lock()
		s.head = j.next
		s.mu.Unlock()
		s.cipher.Store(newCryptCipher(j.key))
		return j.writeHead(s.olderCopy(j.next.seq)^1, cryptHead2)
	case cryptHead2:
		p.Err = err // not nil: the old key is still there
		return true
	}
	switch {
	case err != nil:
		p.Err = err
		if op.Kind == Write {
			p.N += op.N &^ (cryptSector - 1)
		}
		return true
	case p.Kind == Read:
		return j.toWorker()
	case p.Kind == Write:
		return j.moved()
	case p.Kind == Extents:
		p.N = op.N
		for i := range p.Ext[:p.N] {
			p.Ext[i].Off -= cryptDataOff
		}
	}
	return true
}

// leave gives the job back. The parent is not touched any more.
func (j *cryptJob) leave() {
	q := j.q
	if j.buf != nil {
		j.buf.Free()
	}
	clear(j.key)
	j.buf, j.parent, j.one[0], j.op.Ext, j.key, j.next = nil, nil, nil, nil, nil, cryptHeader{}
	if j.prev != nil {
		j.prev.after = j.after
	} else {
		q.live = j.after
	}
	if j.after != nil {
		j.after.prev = j.prev
	}
	j.prev, j.after = nil, q.free
	q.free = j
	q.inflight--
}

// end tells the owner.
func (j *cryptJob) end() {
	q, p := j.q, j.parent
	j.leave()
	p.Owner.OpDone(p)
	q.closing()
}

// The engine of the parents' state, which is used for Cancel and the position alone.
func (q *cryptQueue) ended(*Op)  {}
func (q *cryptQueue) work(*Op)   {}
func (q *cryptQueue) reaped(*Op) {}

func (q *cryptQueue) Kick() { q.lower.Kick() }

// Cancel ends op after the piece that is under way, or that piece where the lower store
// can.
func (q *cryptQueue) Cancel(op *Op) {
	if op.Kind == Sync || op.Kind == Purge {
		q.lower.Cancel(op)
		return
	}
	op.st.cancel.Store(true)
	for j := q.live; j != nil; j = j.after {
		if j.parent == op {
			if j.stage == cryptLower {
				q.lower.Cancel(&j.op)
			}
			return
		}
	}
}

func (q *cryptQueue) Close(done func()) {
	if q.closed {
		return
	}
	q.closed, q.done = true, done
	q.closing()
}

func (q *cryptQueue) closing() {
	if !q.closed || q.inflight > 0 || q.done == nil {
		return
	}
	done := q.done
	q.done = nil
	q.lower.Close(done)
}
