package iscsi

import (
	"github.com/vtgt/vtgt/iscsi/pdu"
)

// intakeDataOut finds who takes the data of a SCSI Data-Out (RFC 7143 §11.7).
//
// Data come in order (DataPDUInOrder and DataSequenceInOrder are Yes): each
// sequence, unsolicited or solicited, has DataSN from 0 and offsets without gaps, and
// ends with the F bit just where it should. A sequence that does not is received to
// its end and thrown away; then the command ends with CHECK CONDITION (§7.8, §7.9:
// the response waits for the last expected F bit).
func (c *conn) intakeDataOut(h *pdu.BHS, dsl int) {
	r := c.sess.find(h.ITT())
	if r == nil || r.c != c || r.kind != kindCommand || r.state > stData {
		// Of a task that was aborted or has ended, as a rule.
		c.journalNote(strayData)
		return
	}
	n, off := int64(dsl), int64(h.BufferOffset())
	end := int64(min(r.edtl, c.firstBurst))
	solicited := h.TTT() != pdu.ReservedTag
	switch {
	case solicited && (r.r2tDone >= r.r2tSent || h.TTT() != tag(r.r2tTag, r.r2tDone)),
		!solicited && !r.unsolicited:
		c.complain(unsolicitedData, "Data-Out that nobody asked for", "header", h.String())
		c.failCommand(r, condUnsolicited)
		// These may be the data that were asked for, under a wrong tag: none
		// may ever come under the right one.
		r.r2tDone, r.unsolicited = r.r2tSent, false
		if r.state == stData {
			c.advance(r)
		} else {
			c.settle(r)
		}
		return
	case solicited:
		end = c.sequenceEnd(r, r.r2tDone)
	}
	c.cur = r
	c.to, c.off = toCommand, off
	final := h.Final()
	if r.failed {
		c.to = toSink
		return
	}
	if h.DataSN() != r.dataSN || off != r.got || off+n > end || final && solicited && off+n != end || !final && off+n == end {
		c.complain(badSequence, "data out of order, or of wrong length", "header", h.String(),
			"DataSN", h.DataSN(), "expected", r.dataSN, "offset", off, "expectedOffset", r.got, "final", final)
		c.failCommand(r, condAmount)
		c.to = toSink
		// Without F where the sequence should end, none may ever come.
		c.bad = !final && off+n >= end
	}
}

// dataArrived goes on when the data of a Data-Out are in place.
func (c *conn) dataArrived(r *request, good bool) {
	if !good {
		c.failCommand(r, condCRC)
	}
	r.dataSN++
	r.got += int64(c.h.DataSegmentLength())
	if !c.h.Final() && !c.bad {
		return
	}
	r.dataSN = 0
	if c.h.TTT() == pdu.ReservedTag {
		r.unsolicited = false
		c.settle(r)
		if r.state == stData { // else its turn has not come
			c.advance(r)
		}
		return
	}
	r.r2tDone++
	if r.r2tDone == r.r2tSent {
		c.advance(r)
	} else if !r.failed && int64(r.r2tSent)*int64(c.maxBurst) < r.room-r.r2tBase {
		c.queue(r) // room for one more R2T
	}
}

// startR2T lays out the sequences that are to be asked for.
func (c *conn) startR2T(r *request) {
	r.r2tBase = r.got
	n := uint32((r.room - r.got + int64(c.maxBurst) - 1) / int64(c.maxBurst))
	r.r2tTag = c.nextTag
	c.nextTag = tag(c.nextTag, n)
	c.owe(r)
}

// tag is the target transfer tag i behind t: never the reserved one.
func tag(t, i uint32) uint32 {
	t += i
	if t < i || t == pdu.ReservedTag { // wrapped: skip the reserved value
		t++
	}
	return t
}

// sequenceEnd is the offset behind sequence i of r's solicited data.
func (c *conn) sequenceEnd(r *request, i uint32) int64 {
	return min(r.r2tBase+(int64(i)+1)*int64(c.maxBurst), r.room)
}

// makeR2T makes the R2Ts that may be outstanding; false: no room for them now.
func (c *conn) makeR2T(r *request) bool {
	for r.r2tSent-r.r2tDone < c.maxR2T && !r.failed {
		start := r.r2tBase + int64(r.r2tSent)*int64(c.maxBurst)
		if start >= r.room {
			break
		}
		if !c.space() {
			return false
		}
		h := c.begin(pdu.OpR2T)
		h.SetLUN(r.h.LUN())
		h.SetITT(r.h.ITT())
		h.SetTTT(tag(r.r2tTag, r.r2tSent))
		h.SetSNs(c.statSN, c.sess.expCmdSN, c.sess.maxCmdSN)
		h.SetR2TSN(r.r2tSent)
		h.SetBufferOffset(uint32(start))
		h.SetDesiredDataTransferLength(uint32(c.sequenceEnd(r, r.r2tSent) - start))
		c.endHeader()
		r.r2tSent++
	}
	return true
}
