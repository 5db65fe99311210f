package iscsi

import (
	"github.com/vtgt/vtgt/internal/slab"
	"github.com/vtgt/vtgt/iscsi/pdu"
	"github.com/vtgt/vtgt/scsi"
)

// kind says what a request is about.
type kind uint8

const (
	kindCommand kind = iota
	kindNOP          // NOP-Out to be echoed
	kindTMF
	kindText
	kindLogout
	kindPing   // a NOP-In of our own
	kindReject // a Reject
	kindAsync  // an Asynchronous Message
)

// state says where a request is.
type state uint8

const (
	stArriving state = iota // its own PDU is being received
	stHeld                  // waits for its turn in CmdSN order, or for memory
	stData                  // delivered; the initiator owes data
	stCore                  // a task or a task management function of the core
	stSend                  // its answer is queued
	stDone                  // its answer is made; payload may still be in the socket's queue
)

// pieceLen is the length of the buffers that a command's payload is spread over;
// the last one is shorter. Large enough that few are needed, and a power of two so
// that slabs hold it without waste.
const pieceLen = 256 << 10

// maxPDUData bounds the data segment of what we send, bytes.
const maxPDUData = 256 << 10

// request is one PDU from the initiator that asks for an answer, or one that the
// target sends by itself. It belongs to its connection's loop and is reused.
type request struct {
	task scsi.Task
	c    *conn

	next  *request // in the pool, or in the queue of answers
	chain *request // in the session's table of tags

	h     pdu.BHS
	kind  kind
	state state

	// counted: it takes a place in the CmdSN window. tagged: it is in the table.
	counted, tagged bool
	// immediate: counted in the session's immediate requests.
	immediate bool
	// dataIn: the CDB moves data to the initiator; dataOut: from it.
	dataIn, dataOut bool
	// full: no memory; to be answered with TASK SET FULL.
	full bool
	// unsolicited: Data-Out without R2T is still to come.
	unsolicited bool
	// owed: counted in conn.owed. unserved: counted in session.unserved.
	owed, unserved bool
	// announced: the core knows that it will come. late: task management that was
	// not meant for it is on its way through the core.
	announced, late bool
	// failed: fail is how the command ends when all data have come.
	failed  bool
	made    bool // every PDU of the answer was made
	flushed bool // queued

	edtl, bidi uint32
	room       int64 // bytes of payload that have or will have a buffer
	got        int64 // Data-Out received, in order, wanted or not
	dataSN     uint32
	// R2T: sequences of MaxBurstLength from r2tBase on; r2tSent were asked
	// for, r2tDone have come. r2tTag is the target transfer tag of the first.
	r2tBase          int64
	r2tSent, r2tDone uint32
	r2tTag           uint32
	fail             scsi.Sense

	sent     int64 // Data-In made into PDUs
	inflight int   // pieces of payload in the socket's queue

	bufs []*slab.Buf
	vec  [][]byte
	held int64 // bytes of bufs by class

	ctl  []byte // data segment of what is not a command; in ctlB or on the heap
	ctlB *slab.Buf

	reason pdu.RejectReason
	event  pdu.AsyncEvent
	p1, p2 uint16
	p3     uint16

	tmf    scsi.TMF
	logout pdu.LogoutResponse
	waits  int // connections whose end a Logout waits for
}

func newRequest() *request {
	r := &request{bufs: make([]*slab.Buf, 0, 8), vec: make([][]byte, 0, 8)}
	r.task.Ref = r
	r.tmf.Ref = r
	r.tmf.Done = tmfDone
	return r
}

// recycle clears what the next use must not see.
func (r *request) recycle() {
	r.c, r.next, r.chain = nil, nil, nil
	r.state = stArriving
	r.counted, r.tagged, r.immediate, r.dataIn, r.dataOut, r.full = false, false, false, false, false, false
	r.unsolicited, r.owed, r.unserved, r.failed, r.made, r.flushed = false, false, false, false, false, false
	r.late, r.waits = false, 0
	r.edtl, r.bidi, r.room, r.got, r.dataSN = 0, 0, 0, 0, 0
	r.r2tBase, r.r2tSent, r.r2tDone, r.r2tTag = 0, 0, 0, 0
	r.sent, r.inflight = 0, 0
	r.ctl = nil
	r.tmf.Lane = nil
	r.task.DataIn, r.task.DataOut = nil, nil
}

// alloc gets buffers for all of room, or none; false: no memory.
func (r *request) alloc() bool {
	if len(r.bufs) > 0 || r.room == 0 {
		return true
	}
	s := r.c.sess
	if s.memory+r.room > s.srv.limits.SessionMemory && s.memory > 0 {
		return false
	}
	for left := r.room; left > 0; {
		n := min(left, pieceLen)
		b := r.c.sh.slabs.Get(int(n))
		if b == nil {
			r.freeBufs()
			return false
		}
		r.bufs = append(r.bufs, b)
		r.vec = append(r.vec, b.B)
		r.held += int64(cap(b.B))
		s.memory += int64(cap(b.B))
		left -= n
	}
	return true
}

// serve gets the memory that r needs in its turn; false: it goes without for now, and
// so do all that come after it.
//
// Memory is given in CmdSN order: what a later command holds could be freed only when
// the earlier one, which waits for it, has run.
func (r *request) serve() bool {
	s := r.c.sess
	if r.failed || r.full || r.room == 0 || len(r.bufs) > 0 {
		return true
	}
	if !r.unserved && s.unserved > 0 || !r.alloc() {
		if !r.unserved {
			r.unserved = true
			s.unserved++
		}
		return false
	}
	r.unserve()
	return true
}

// unserve takes r out of those that wait for memory.
func (r *request) unserve() {
	if r.unserved {
		r.unserved = false
		r.c.sess.unserved--
	}
}

// freeBufs gives all payload buffers back.
func (r *request) freeBufs() {
	if len(r.bufs) > 0 {
		for i, b := range r.bufs {
			b.Free()
			r.bufs[i], r.vec[i] = nil, nil
		}
		r.bufs, r.vec = r.bufs[:0], r.vec[:0]
		r.c.sess.memory -= r.held
		r.held = 0
		r.c.sh.freed()
	}
	if r.ctlB != nil {
		r.ctlB.Free()
		r.ctlB = nil
		r.c.sh.freed()
	}
	r.ctl = nil
}

// at returns the buffer from off on to the end of its piece; off < room, with
// buffers.
func (r *request) at(off int64) []byte { return r.vec[off/pieceLen][off%pieceLen:] }

// check makes the command end with CHECK CONDITION and sense s, nothing moved.
func (r *request) check(s scsi.Sense) {
	t := &r.task
	t.Status = scsi.StatusCheckCondition
	t.SenseLen = uint8(s.Encode(t.Sense[:], false))
	t.InLen, t.Want = 0, 0
}

// bare makes the command end with a status that has no sense data, nothing moved.
func (r *request) bare(st scsi.Status) {
	r.task.Status, r.task.SenseLen, r.task.InLen, r.task.Want = st, 0, 0, 0
}

// retire takes r out of the command window and of the table of tags: just before the
// PDU that tells the initiator so.
func (r *request) retire() {
	if r.counted {
		r.counted = false
		r.c.sess.maxCmdSN++
	}
	if r.tagged {
		r.c.sess.remove(r)
	}
}

// release ends r: buffers go back, and r into the pool. No part of it may be in a
// queue.
func (r *request) release() {
	c := r.c
	r.retire()
	c.settle(r)
	r.unserve()
	if r.announced {
		r.announced = false
		c.lane.Withdraw(&r.task)
	}
	if r.immediate {
		r.immediate = false
		c.sess.immediates--
	}
	r.freeBufs()
	c.sh.put(r)
}

// unqueue takes r out of its connection's queue of answers.
func (r *request) unqueue() {
	if !r.flushed {
		return
	}
	c := r.c
	var prev *request
	for q := c.first; q != nil; prev, q = q, q.next {
		if q != r {
			continue
		}
		if prev == nil {
			c.first = q.next
		} else {
			prev.next = q.next
		}
		if c.last == q {
			c.last = prev
		}
		break
	}
	r.next, r.flushed = nil, false
}
