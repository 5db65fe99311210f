package srp

import (
	"github.com/vtgt/vtgt/internal/slab"
	"github.com/vtgt/vtgt/scsi"
)

// state says where a request is.
type state uint8

const (
	stFree  state = iota // in the pool
	stHeld               // the carrier's: from Get to Submit, and from Respond to Put
	stFetch              // Mover.Fetch is under way
	stCore               // the core has it
	stStore              // Mover.Store is under way
	stTMF                // a task management function
)

// Request is one entry of a ring on its way through the target: a command, or a task
// management function. It comes from Queue.Get, belongs to the queue's loop and is
// used again after Queue.Put.
type Request struct {
	// The carrier fills LUN, Tag, Attr, CDB and CDBLen of the Task, and without
	// a Mover DataOut and DataIn too: memory of the initiator, which the core
	// and the store use between Submit and Respond. Task.Ref is this package's.
	scsi.Task

	// Own is the carrier's part, made once by Config.New.
	Own any
	// OutSize and InSize are how many bytes the initiator has to send and room
	// for, whatever the command moves. The carrier sets them before Submit.
	OutSize, InSize int64
	// TaskTag names the task that ABORT TASK and QUERY TASK are about. Submit
	// does not look at it.
	TaskTag uint64
	// Func is the task management function, 0 for a command; set by Manage.
	Func scsi.TMFunc
	// Response is its answer, valid in Respond. A function that failed at its
	// deadline (scsi.TMFailed) leaves tasks behind, which end with Aborted.
	Response scsi.TMResponse

	q    *Queue
	next *Request // in the pool
	seq  uint64   // order of Submit on this loop
	hold *hold    // the generation of memory that it may use

	state     state
	over      bool // beyond the limit: BUSY
	cut       bool // aborted while its data were being fetched
	mute      bool // a function failed that was to abort it: no response
	stuck     bool // a deadline passed it by
	announced bool // the core knows that it will come

	bufs []*slab.Buf // a mover's data
	vec  [][]byte
	mem  int64 // bytes of bufs, by class
}

// Queue is the queue that the request came by.
func (r *Request) Queue() *Queue { return r.q }

// Generation is the initiator's memory as it was at Get.
func (r *Request) Generation() Generation {
	if r.hold == nil {
		return nil
	}
	return r.hold.gen
}

// Residuals are what was left or missing of the data buffers, bytes: positive, so much
// of the buffer was not used (underflow); negative, so much did not fit or was not
// there (overflow). In Respond only.
func (r *Request) Residuals() (out, in int64) {
	out, in = r.OutSize, r.InSize
	if out == 0 && r.Status == scsi.StatusGood && r.InLen == in && r.Want == in {
		return 0, 0
	}
	o, i := r.q.sh.lane.Lengths(&r.Task)
	switch {
	case i == 0 && o == 0 && in == 0, o > 0:
		out -= r.Want
	case r.Status != scsi.StatusGood:
		in -= r.InLen // it ended before it had moved all
	default:
		in -= r.Want
	}
	return out, in
}

// moving tells whether a mover works on it.
func (r *Request) moving() bool { return r.state == stFetch || r.state == stStore }

// busy tells whether it has been submitted as a command and not been answered.
func (r *Request) busy() bool { return r.moving() || r.state == stCore }

// alloc gets buffers of n bytes for a mover, or none; false: no memory.
func (r *Request) alloc(n int64) bool {
	sh := r.q.sh
	if sh.memory > 0 && sh.memory+n > r.q.port.conf.Memory {
		return false
	}
	for left := n; left > 0; {
		k := min(left, pieceLen)
		b := sh.loop.Slabs().Get(int(k))
		if b == nil {
			r.freeBufs()
			return false
		}
		r.bufs = append(r.bufs, b)
		r.vec = append(r.vec, b.B[:k])
		r.mem += int64(cap(b.B))
		sh.memory += int64(cap(b.B))
		left -= k
	}
	return true
}

// freeBufs gives them back.
func (r *Request) freeBufs() {
	if len(r.bufs) == 0 {
		return
	}
	for i, b := range r.bufs {
		b.Free()
		r.bufs[i], r.vec[i] = nil, nil
	}
	r.bufs, r.vec = r.bufs[:0], r.vec[:0]
	r.q.sh.memory -= r.mem
	r.mem = 0
	r.DataIn, r.DataOut = nil, nil
}

// check gives the command the outcome CHECK CONDITION with sense s, nothing moved.
func (r *Request) check(s scsi.Sense) {
	r.bare(scsi.StatusCheckCondition)
	r.SenseLen = uint8(s.Encode(r.Sense[:], false))
}

// bare gives it an outcome without sense data, nothing moved.
func (r *Request) bare(st scsi.Status) {
	r.Status, r.Aborted, r.SenseLen, r.InLen, r.Want = st, false, 0, 0, 0
}
