package iscsi

import (
	"github.com/vtgt/vtgt/iscsi/pdu"
	"github.com/vtgt/vtgt/scsi"
)

// iSCSI conditions that end a command (RFC 7143 §11.4.7.2).
var (
	condUnsolicited = scsi.Sense{Key: scsi.AbortedCommand, ASC: 0x0c0c} // unexpected unsolicited data
	condAmount      = scsi.Sense{Key: scsi.AbortedCommand, ASC: 0x0c0d} // incorrect amount of data
	condCRC         = scsi.Sense{Key: scsi.AbortedCommand, ASC: 0x4705} // protocol service CRC error
)

// attrs maps iSCSI's task attributes (RFC 7143 §11.3.1) to SAM's. Untagged is simple.
var attrs = [8]scsi.TaskAttr{
	pdu.AttrUntagged: scsi.Simple, pdu.AttrSimple: scsi.Simple, pdu.AttrOrdered: scsi.Ordered,
	pdu.AttrHeadOfQueue: scsi.HeadOfQueue, pdu.AttrACA: scsi.ACA,
}

// intakeCommand takes a SCSI Command whose header is complete. False: there is no
// memory for the data that come with it, and waiting is safe.
func (c *conn) intakeCommand(h *pdu.BHS, ahs []byte, dsl int) bool {
	s := c.sess
	if !s.admit(c, h) {
		return true
	}
	itt := h.ITT()
	if itt == pdu.ReservedTag || h.Attr() > pdu.AttrACA {
		c.complain(badFormat, "SCSI Command with a reserved field value, connection dropped", "header", h.String())
		c.rejectAndEnd(pdu.RejectInvalidField)
		return true
	}
	if s.find(itt) != nil {
		c.complain(badTag, "initiator task tag in use", "header", h.String())
		c.reject(h, pdu.RejectTaskInProgress)
		s.skip(h)
		return true
	}
	r := c.sh.get(c, kindCommand)
	r.h = *h
	t := &r.task
	t.LUN, t.Tag, t.Attr = scsi.LUN(h.LUN()), uint64(itt), attrs[h.Attr()]
	clear(t.CDB[16:])
	copy(t.CDB[:16], h.CDB())
	t.CDBLen = 16
	r.edtl = h.ExpectedDataTransferLength()
	if len(ahs) > 0 && !c.parseAHS(r, ahs) {
		return true
	}
	out, in := c.lane.Lengths(t)
	r.dataOut, r.dataIn = out > 0, in > 0
	switch {
	case out > 0 && h.Write():
		r.room = min(out, int64(r.edtl))
	case in > 0 && h.Read():
		r.room = min(in, int64(r.readLength()))
	}
	if r.room > s.srv.limits.MaxTransfer {
		r.room = 0
		c.failCommand(r, scsi.Sense{Key: scsi.IllegalRequest, ASC: scsi.ASCInvalidFieldInCDB})
	}
	more := h.Write() && !h.Final()
	first := int64(min(r.edtl, c.firstBurst))
	switch {
	case !h.Write() && (dsl > 0 || !h.Final()),
		dsl > 0 && !c.immediateData,
		more && c.initialR2T,
		int64(dsl) > first,
		more && int64(dsl) == first:
		// Nothing of it may be used; what was announced is still waited for.
		c.complain(unsolicitedData, "unsolicited data that were not agreed upon", "header", h.String())
		r.room = 0
		c.failCommand(r, condUnsolicited)
	}
	r.unsolicited = more
	if r.dataOut && r.room > 0 && (dsl > 0 || more) && (s.unserved > 0 || !r.alloc()) {
		// Nothing may wait here for memory that is freed only by data which
		// come behind this PDU, or by commands that wait for this one.
		if c.owed == 0 && s.unserved == 0 && !s.hoards() {
			r.release()
			c.starve()
			return false
		}
		c.complain(taskSetFull, "no memory for a command's data: TASK SET FULL")
		r.full, r.room = true, 0
	}
	c.cur = r
	if dsl > 0 {
		c.to = toCommand
	}
	r.got = int64(dsl)
	return true
}

// parseAHS takes the additional header segments; false: it is all over with r.
func (c *conn) parseAHS(r *request, b []byte) bool {
	a, err := pdu.ParseAHS(b)
	if err != nil {
		c.complain(badFormat, "bad additional header segment, connection dropped", "error", err)
		r.release()
		c.rejectAndEnd(pdu.RejectInvalidField)
		return false
	}
	if a.HasBidi {
		r.bidi = a.BidiReadLength
	}
	if n := len(a.ExtendedCDB); n > 0 {
		if 16+n > scsi.MaxCDB {
			// Longer than any command there is.
			c.failCommand(r, scsi.Sense{Key: scsi.IllegalRequest, ASC: scsi.ASCInvalidCommandOpCode})
			n = scsi.MaxCDB - 16
		}
		copy(r.task.CDB[16:], a.ExtendedCDB[:n])
		r.task.CDBLen = uint8(16 + n)
	}
	return true
}

// readLength is what the initiator expects to receive.
func (r *request) readLength() uint32 {
	if r.h.Write() && r.h.Read() {
		return r.bidi
	}
	return r.edtl
}

// failCommand makes r end with s once all its data have come; the first failure
// stays.
func (c *conn) failCommand(r *request, s scsi.Sense) {
	if !r.failed {
		r.failed, r.fail = true, s
	}
}

// startCommand begins a command in its turn: s has memory for it.
func (c *conn) startCommand(r *request) {
	c.traffic.commands++
	r.state = stData
	if r.unsolicited || r.dataOut && r.got < r.room {
		r.announced = true
		c.lane.Announce(&r.task)
	}
	if !r.unsolicited {
		c.advance(r)
	}
}

// advance goes on with a delivered command that awaits no unsolicited data: asks for
// more, runs it, or ends it.
func (c *conn) advance(r *request) {
	switch {
	case r.r2tDone < r.r2tSent:
		return // the initiator owes
	case r.full:
		r.bare(scsi.StatusTaskSetFull)
		c.answer(r)
	case r.failed:
		r.check(r.fail)
		c.answer(r)
	case r.dataOut && r.got < r.room:
		if r.r2tSent == 0 {
			c.startR2T(r)
		}
		c.queue(r)
	default:
		c.submit(r)
	}
}

// submit gives the command to the core.
func (c *conn) submit(r *request) {
	c.settle(r)
	c.sess.pass(r)
	r.state = stCore
	r.announced = false // Submit knows
	t := &r.task
	t.DataIn, t.DataOut, t.Offered = nil, nil, 0
	if r.h.Write() {
		t.Offered = int64(r.edtl)
	}
	if r.dataOut {
		t.DataOut = r.vec
	} else if r.dataIn {
		t.DataIn = r.vec
	}
	c.inCore++
	c.lane.Submit(t)
}

// Done is the core's answer, on the connection's loop.
func (s *session) Done(t *scsi.Task) {
	r := t.Ref.(*request)
	c := r.c
	c.inCore--
	if c.dead {
		r.release()
		return
	}
	if t.Aborted && !r.late {
		r.retire()
		r.release()
		return
	}
	if t.Aborted {
		// By a function that came before it in the order of commands, but
		// reached the core after it: the initiator waits for an answer.
		r.bare(scsi.StatusTaskAborted)
	}
	c.answer(r)
}

// answer queues the response of a command whose task's outcome is set.
func (c *conn) answer(r *request) {
	c.settle(r)
	c.sess.pass(r)
	if r.dataOut && len(r.bufs) > 0 {
		r.freeBufs()
	}
	r.state = stSend
	c.queue(r)
}

// owe counts r as one whose initiator owes data; settle undoes it.
func (c *conn) owe(r *request) {
	if !r.owed {
		r.owed = true
		c.owed++
		c.sess.owed++
	}
}

func (c *conn) settle(r *request) {
	if r.owed {
		r.owed = false
		c.owed--
		if c.sess.owed--; c.sess.owed == 0 {
			c.sess.unbar()
		}
	}
}
