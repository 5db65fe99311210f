package backing

import (
	"sync/atomic"

	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/slab"
	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/internal/uring"
)

// op is the private half of an Op. The state is one field down so that its
// methods, which the loop, the workers and the ring call, are not methods of Op.
type op struct {
	st opState
}

// engine is the queue that an Op in flight belongs to.
type engine interface {
	// ended runs on the loop when op was posted back to it.
	ended(op *Op)
	// work runs on a worker and must post op back to the loop itself.
	work(op *Op)
	// reaped runs on the loop when the ring has finished op's request.
	reaped(op *Op)
}

// opState is what the engines keep in an Op while it is theirs. The owner of a
// reused Op should set its public fields one by one: assigning a whole new Op
// throws the iovec array away.
type opState struct {
	op   *Op
	eng  engine
	next *Op // in one opList at most

	node loop.Node
	job  *fileJob // while a worker has it or will
	req  uring.Req

	ref    *descRef
	iov    []sys.Iovec
	iov0   [4]sys.Iovec
	pos    int64 // bytes of [Off, Off+Len) done
	bounce *slab.Buf
	piece  [2]int64 // a bounced piece in flight, offsets in the store
	phase  phase
	where  where
	piped  bool        // counted by its loop's Relieve
	writer bool        // counted in its queue's writes
	cancel atomic.Bool // Cancel was called: no further piece
}

// phase says what comes next for an Op that the ring or a worker has ended.
type phase uint8

const (
	phaseEnd    phase = iota // tell the owner
	phaseWhole               // a worker does all that is left
	phaseDirect              // on the ring, into the owner's own buffers
	phaseBounce              // on the ring, through the bounce buffer
	phaseJudge               // a worker finds out whether a failed FUA write must latch
)

// where says what holds an Op in flight, so that Cancel finds it.
type where uint8

const (
	whereLoop   where = iota // posted, or between two pieces
	whereWorker              // a worker has it or will
	whereRing                // the ring has it
	whereParked              // the ring had no room
	whereSync                // with the store's syncer
	whereExcl                // in the store's list of exclusive operations
)

func (st *opState) Handle(*loop.Node)  { st.eng.ended(st.op) }
func (st *opState) ReqDone(*uring.Req) { st.eng.reaped(st.op) }

// begin readies o for an engine and gives its state.
func (o *Op) begin(e engine) *opState {
	st := &o.st
	if st.op != o { // new, or copied from another
		st.op = o
		st.node.Init(st)
		st.req.Owner = st
		st.iov = st.iov0[:0]
	}
	st.eng = e
	st.pos, st.phase = 0, phaseEnd
	st.where = whereLoop
	st.cancel.Store(false)
	return st
}

// vector describes what is left of the buffers, at most sys.MaxIovecs of them.
func (st *opState) vector() []sys.Iovec {
	bufs, skip := st.op.Bufs, st.pos
	for len(bufs) > 0 && skip >= int64(len(bufs[0])) {
		skip -= int64(len(bufs[0]))
		bufs = bufs[1:]
	}
	if len(bufs) > sys.MaxIovecs {
		bufs = bufs[:sys.MaxIovecs]
	}
	st.iov = sys.AppendIovecs(st.iov[:0], bufs)
	if skip > 0 {
		sys.AdvanceIovec(st.iov, int(skip))
	}
	return st.iov
}

// forget drops the pointers into the owner's buffers: their memory may be
// unmapped after the Op ended, and a stale pointer into an address range that
// the Go heap gets later would confuse the collector.
func (st *opState) forget() {
	clear(st.iov)
	st.iov = st.iov[:0]
}

// check refuses what lies outside the store or contradicts itself.
func (o *Op) check(i *Info) error {
	if o.Off < 0 || o.Len < 0 || o.Off > i.Size || o.Len > i.Size-o.Off {
		return ErrRange
	}
	if (o.Off|o.Len)&int64(i.BlockAlign-1) != 0 {
		return ErrRange
	}
	if o.Flags&Atomic != 0 && (o.Kind != Write || o.Len > int64(i.AtomicMax)) {
		return ErrNotSupported
	}
	switch o.Kind {
	case Write, Discard, Zero, Copy:
		if i.ReadOnly {
			return ErrReadOnly
		}
	}
	switch o.Kind {
	case Read, Write:
		var n int64
		for _, b := range o.Bufs {
			n += int64(len(b))
		}
		if n != o.Len {
			return ErrRange
		}
	}
	return nil
}

// opList is a FIFO of Ops linked through themselves.
type opList struct {
	head, tail *Op
}

func (l *opList) push(o *Op) {
	o.st.next = nil
	if l.tail == nil {
		l.head = o
	} else {
		l.tail.st.next = o
	}
	l.tail = o
}

func (l *opList) pop() *Op {
	o := l.head
	if o == nil {
		return nil
	}
	l.head = o.st.next
	if l.head == nil {
		l.tail = nil
	}
	o.st.next = nil
	return o
}

// remove takes o out and reports whether it was there. Linear: for Cancel.
func (l *opList) remove(o *Op) bool {
	var prev *Op
	for p := l.head; p != nil; prev, p = p, p.st.next {
		if p != o {
			continue
		}
		if prev == nil {
			l.head = o.st.next
		} else {
			prev.st.next = o.st.next
		}
		if l.tail == o {
			l.tail = prev
		}
		o.st.next = nil
		return true
	}
	return false
}

func (l *opList) empty() bool { return l.head == nil }

// span is a part of the concatenation of bufs, from byte pos on, and what is copied to
// it or from it.
type span struct {
	bufs [][]byte
	pos  int64
	b    []byte
}

// copyIn copies src to bufs from byte pos of their concatenation on. The error is
// EFAULT where a guest has taken their memory away.
func copyIn(bufs [][]byte, pos int64, src []byte) error {
	return gmem.Try(stepIn, span{bufs, pos, src})
}

func stepIn(s span) {
	for _, b := range s.bufs {
		if len(s.b) == 0 {
			break
		}
		if s.pos >= int64(len(b)) {
			s.pos -= int64(len(b))
			continue
		}
		s.b = s.b[copy(b[s.pos:], s.b):]
		s.pos = 0
	}
}

// copyOut copies from byte pos of bufs' concatenation on to dst, with an error as
// copyIn's.
func copyOut(dst []byte, bufs [][]byte, pos int64) error {
	return gmem.Try(stepOut, span{bufs, pos, dst})
}

func stepOut(s span) {
	for _, b := range s.bufs {
		if len(s.b) == 0 {
			break
		}
		if s.pos >= int64(len(b)) {
			s.pos -= int64(len(b))
			continue
		}
		s.b = s.b[copy(s.b, b[s.pos:]):]
		s.pos = 0
	}
}

// stepClear is a step that clears bufs.
func stepClear(bufs [][]byte) {
	for _, b := range bufs {
		clear(b)
	}
}
