package scsi

import (
	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/slab"
)

// This file is what a device server works with: a handler (command.run) and its
// steps call these methods, on the loop of the task's lane. Exactly one call of
// good, check, finish or reply ends the task; after it, and after a call of
// store, the handler touches the task no more and returns.

// deviceServer is what a unit is: the command set of its device type.
//
// The device server for LUNs without a unit is newDisk(nil): of it, only
// commands with cmdAnyLUN run.
type deviceServer interface {
	// lookup finds the row for cdb (MaxCDB bytes), nil if there is none.
	// Any goroutine; the rows never change.
	lookup(cdb []byte) *command
	// hasOp tells whether any row has operation code op, whatever its service
	// action: then a CDB without a row has an invalid field, not an invalid
	// operation code.
	hasOp(op uint8) bool
	// reset puts state that commands changed (mode pages, …) back to what it
	// is after a logical unit reset. u.mu is held and no task runs.
	reset()
}

// good ends the task with status GOOD.
func (t *Task) good() { t.finish(StatusGood) }

// check ends the task with CHECK CONDITION and sense data s, in the format that
// the unit's D_SENSE bit asks for.
func (t *Task) check(s Sense) {
	desc := t.unit != nil && t.unit.dSense.Load()
	t.SenseLen = uint8(s.Encode(t.Sense[:], desc))
	if t.lu != nil {
		t.lu.now.accountSense(t, s.Key)
	}
	t.finish(StatusCheckCondition)
}

// finish ends the task with status st.
func (t *Task) finish(st Status) {
	t.Status = st
	t.lane.end(t)
}

// conflict ends the task with RESERVATION CONFLICT.
func (t *Task) conflict() {
	t.lu.now.conflicts++
	t.finish(StatusReservationConflict)
}

// touch has the counters published that the end of t will change: for what goes on
// with t outside of Submit and OpDone.
func (t *Task) touch() {
	if lu := t.lu; !lu.dirty {
		lu.dirty = true
		t.lane.loop.Defer(&lu.flush)
	}
}

// nu is the pair of the task's nexus and unit; nil for LUNs without a unit.
func (t *Task) nu() *nexusUnit {
	if t.lu == nil {
		return nil
	}
	return t.lu.nu
}

// nexus is the nexus that the task came by.
func (t *Task) nexus() *Nexus { return t.lane.nexus }

// target is the target that the task came to.
func (t *Task) target() *Target { return t.lane.nexus.port.target }

// readOnly reports whether the nexus may not write: by its LUN map or because of
// the unit itself (configuration, SWP).
func (t *Task) readOnly() bool {
	return t.lu != nil && (t.lu.nu.readOnly.Load() || t.unit.writeProtected())
}

// reply copies b to DataIn, cut to the allocation length alloc, and ends the task
// with GOOD.
func (t *Task) reply(b []byte, alloc int64) {
	if int64(len(b)) > alloc {
		b = b[:max(alloc, 0)]
	}
	t.Want = int64(len(b))
	for _, d := range t.DataIn {
		if len(b) == 0 {
			break
		}
		n := copy(d, b)
		t.InLen += int64(n)
		b = b[n:]
	}
	t.good()
}

// param gives the first n bytes of DataOut in one piece: in place where they are,
// else in the lane's scratch memory (valid like scratch). ok is false where the
// initiator sent fewer: the task has then ended with PARAMETER LIST LENGTH ERROR.
func (t *Task) param(n int) (p []byte, ok bool) {
	if n == 0 {
		return nil, true
	}
	if len(t.DataOut) > 0 && len(t.DataOut[0]) >= n {
		t.Want = int64(n)
		return t.DataOut[0][:n:n], true
	}
	var have int
	for _, d := range t.DataOut {
		have += len(d)
		if have >= n {
			break
		}
	}
	if have < n {
		t.check(Sense{Key: IllegalRequest, ASC: ASCParamListLengthError})
		return nil, false
	}
	t.Want = int64(n)
	p = t.scratch(n)
	at := 0
	for _, d := range t.DataOut {
		at += copy(p[at:], d)
	}
	return p, true
}

// scratch is n bytes of the lane's own memory, of any content, valid until the
// handler or step returns. The next call of scratch or param may give the same
// memory again.
func (t *Task) scratch(n int) []byte {
	ln := t.lane
	if cap(ln.scratch) < n {
		ln.scratch = make([]byte, max(n, 4096))
	}
	return ln.scratch[:n:n]
}

// maxTaskBufs is how many buffers one task may hold.
const maxTaskBufs = 4

// buf is a buffer of n bytes (at most slab.MaxBuf), of any content, for commands
// that take several steps. It is the task's until the task ends. nil: there is no
// memory, and the task has ended with BUSY.
func (t *Task) buf(n int) []byte {
	s := &t.sched
	if int(s.nbuf) < maxTaskBufs && n <= slab.MaxBuf {
		if b := t.lane.loop.Slabs().Get(n); b != nil {
			s.bufs[s.nbuf] = b
			s.nbuf++
			return b.B[:n]
		}
	}
	t.finish(StatusBusy)
	return nil
}

// store gives the unit's store one operation: n bytes from byte off on. When it
// has ended, next runs on the lane's loop, with t.op.Err and t.op.N set; a task
// that was aborted meanwhile is ended by the core instead. The buffers must stay
// until then.
//
// next never runs inside store: the core starts the operation when the handler
// has returned, and runs next in the same frame when the store answers inline, so
// that long chains of steps need no stack.
func (t *Task) store(kind backing.Kind, fl backing.Flags, off, n int64, bufs [][]byte, next step) {
	op := &t.op
	op.Kind, op.Flags, op.Off, op.Len, op.Bufs = kind, fl, off, n, bufs
	op.N, op.Err = 0, nil
	t.next = next
	t.lane.stored = t
}
