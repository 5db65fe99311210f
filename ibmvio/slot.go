package ibmvio

import (
	"github.com/vtgt/vtgt/ibmvio/crq"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/slab"
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/srp/iu"
)

// phase says what a slot's operation on its unit is for.
type phase uint8

const (
	phFetch  phase = iota // the unit is being read
	phServe               // it is served
	phBuffer              // the buffer of a datagram is being read
	phReply               // it is being written, or the unit alone is
)

// slot is one entry of the client's on its way: the unit that it tells of, and what is
// made of it. It belongs to the adapter's loop and is used again.
type slot struct {
	a      *adapter
	next   *slot
	gen    uint32
	epoch  uint32
	format crq.Format
	ptr    uint64 // the unit's I/O bus address
	n      int    // its length
	tag    uint64
	phase  phase
	ready  bool // the unit was read

	buf  [maxIU]byte // the unit, then the response
	aux  [maxIU]byte // the buffer of a datagram
	addr uint64      // its address
	op   Op          // on the unit
	bop  Op          // on the buffer
	send Op

	// Of a command.
	t       *target
	r       *srp.Request
	sol     iu.SolNot
	out, in iu.Data
	segs    []iu.Segment
	moves   []Op
	left    int
	err     error
	storing bool
	table   *slab.Buf // the list of descriptors, from the client's memory
	tableOp Op
}

// part is a request's part of the carrier: the slot that it serves.
type part struct{ s *slot }

// newPart is srp.Config.New.
func newPart(*srp.Request) any { return new(part) }

// slotList is a list of slots, first in first out.
type slotList struct{ first, last *slot }

func (l *slotList) push(s *slot) {
	s.next = nil
	if l.last == nil {
		l.first = s
	} else {
		l.last.next = s
	}
	l.last = s
}

func (l *slotList) pop() *slot {
	s := l.first
	if s == nil {
		return nil
	}
	if l.first = s.next; l.first == nil {
		l.last = nil
	}
	s.next = nil
	return s
}

// prune takes dead slots out of the list of those that arrive; one whose unit is being
// read is put back when that has ended.
func (l *slotList) prune(a *adapter) {
	list := *l
	*l = slotList{}
	for s := list.pop(); s != nil; s = list.pop() {
		if s.ready {
			a.put(s)
		}
	}
}

// take gets a slot. nil: there are none left, which a client that keeps to its limit
// does not see.
func (a *adapter) take() *slot {
	s := a.free
	if s == nil {
		if a.slots >= 4*a.conf.Limit+64 {
			return nil
		}
		a.slots++
		s = &slot{a: a}
		s.op.Owner, s.bop.Owner, s.send.Owner, s.tableOp.Owner = s, s, s, s
		s.send.Kind = OpSend
	} else {
		a.free, s.next = s.next, nil
	}
	s.gen, s.epoch = a.gen, a.epoch
	s.ready, s.t, s.r = false, nil, nil
	return s
}

func (a *adapter) put(s *slot) {
	s.next, a.free = a.free, s
}

// dead tells whether the client has forgotten what the slot is about.
func (s *slot) dead() bool { return s.gen != s.a.gen }

// fetch begins to read the unit of n bytes at p.
func (a *adapter) fetch(f crq.Format, n int, p uint64, timeout uint16) {
	switch {
	case f == crq.SRP && a.serving >= 2*a.conf.Limit:
		a.violation(errFlood)
		return
	case f == crq.MAD && a.mads >= maxMADs:
		a.violation(errMADs)
		return
	}
	s := a.take()
	if s == nil {
		a.violation(errFlood)
		return
	}
	if f == crq.SRP {
		a.serving++
	} else {
		a.mads++
	}
	s.format, s.n, s.ptr, s.phase = f, n, p, phFetch
	s.begin(&s.op, OpRead, p, s.buf[:n])
	a.arrived.push(s)
}

// begin has the hypervisor do an operation of the slot's.
func (s *slot) begin(op *Op, k OpKind, addr uint64, b []byte) {
	op.Kind, op.Addr, op.Buf, op.Epoch, op.Link, op.Quiet = k, addr, b, s.epoch, false, false
	s.a.do(op)
}

// Ended is the OpOwner's.
func (s *slot) Ended(op *Op) {
	switch op {
	case &s.op:
		if s.phase == phFetch {
			s.fetched()
		}
		// Else it was written; the operation that it was linked to comes next.
	case &s.bop:
		s.madStep()
	case &s.send:
		s.sent()
	case &s.tableOp:
		s.tabled()
	default:
		s.moved(op)
	}
}

// fetched goes on when the unit was read.
func (s *slot) fetched() {
	a := s.a
	s.ready = true
	s.phase = phServe
	if s.dead() {
		a.put(s)
		return
	}
	a.dispatch()
}

// dispatch serves the units that have arrived, in the order of their entries.
func (a *adapter) dispatch() {
	for a.state >= Connected && a.resets == 0 {
		s := a.arrived.first
		if s == nil || !s.ready {
			return
		}
		a.arrived.pop()
		switch {
		case s.op.Err != nil:
			a.put(s)
			if s.op.Err == ErrAddress || s.op.Err == ErrRefused {
				a.violation(errUnit)
			}
		case s.format == crq.MAD:
			a.mad(s)
		default:
			a.serve(s)
		}
	}
}

// reply sends the unit in buf[:n] as the answer: to where the request came from, and
// then an entry that tells of it.
func (s *slot) reply(n int, st crq.Status) {
	a := s.a
	if s.format == crq.SRP {
		a.serving--
	} else {
		a.mads--
	}
	s.phase = phReply
	s.send.Entry = crq.Command(s.format, n, s.tag)
	s.send.Entry.SetStatus(st)
	s.op.Buf = s.buf[:n]
	s.transmit()
}

func (s *slot) transmit() {
	op := &s.op
	op.Kind, op.Addr, op.Epoch, op.Link, op.Quiet = OpWrite, s.ptr, s.epoch, true, true
	s.a.do(op)
	s.send.Epoch = s.epoch
	s.a.do(&s.send)
}

// sent is the end of an answer.
func (s *slot) sent() {
	a := s.a
	switch {
	case s.send.Err == nil:
		a.count.Responses.Add(1)
	case s.dead():
	case s.send.Err == ErrFull:
		a.count.Full.Add(1)
		a.full.push(s)
		a.retryLater()
		return
	case s.send.Err == ErrSkipped && s.op.Err == ErrAddress, s.send.Err == ErrRefused:
		a.put(s)
		a.violation(errUnit)
		return
	}
	a.put(s)
}

// retryLater waits for room in the client's queue.
func (a *adapter) retryLater() {
	if !a.retry.Armed() {
		a.loop.After(&a.retry, retryFull)
	}
}

// retryTimer is an adapter whose client had no room.
type retryTimer adapter

func (h *retryTimer) Expired(*loop.Timer) {
	list := h.full
	h.full = slotList{}
	for s := list.pop(); s != nil; s = list.pop() {
		s.transmit()
	}
	(*adapter)(h).sendNotice()
}
