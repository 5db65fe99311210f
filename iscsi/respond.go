package iscsi

import (
	"encoding/binary"

	"github.com/vtgt/vtgt/iscsi/pdu"
	"github.com/vtgt/vtgt/scsi"
)

// makeAnswer makes the PDUs of r's answer; false: no room for all of them now, more
// in the next call.
func (c *conn) makeAnswer(r *request) bool {
	if r.state == stData {
		return c.makeR2T(r)
	}
	switch r.kind {
	case kindCommand:
		return c.makeCommand(r)
	case kindNOP:
		h := c.begin(pdu.OpNOPIn)
		h.SetLUN(r.h.LUN())
		h.SetITT(r.h.ITT())
		h.SetTTT(pdu.ReservedTag)
		c.finishControl(h, r, true)
	case kindPing:
		h := c.begin(pdu.OpNOPIn)
		h.SetITT(pdu.ReservedTag)
		h.SetTTT(c.pingTag)
		c.finishControl(h, r, false)
	case kindTMF:
		h := c.begin(pdu.OpTMFResponse)
		h.SetITT(r.h.ITT())
		h.SetResponse(uint8(r.h.Response()))
		c.finishControl(h, r, true)
	case kindLogout:
		h := c.begin(pdu.OpLogoutResponse)
		h.SetITT(r.h.ITT())
		h.SetResponse(r.h.Response())
		h.SetTime2Wait(c.sess.params.DefaultTime2Wait)
		h.SetTime2Retain(0)
		c.finishControl(h, r, true)
	case kindText:
		h := c.begin(pdu.OpTextResponse)
		*h = r.h // as package login made it
		c.finishControl(h, r, true)
	case kindReject:
		h := c.begin(pdu.OpReject)
		h.MakeReject(r.reason)
		c.finishControl(h, r, true)
	case kindAsync:
		h := c.begin(pdu.OpAsync)
		h.SetITT(pdu.ReservedTag)
		h.SetAsyncEvent(r.event, r.p1, r.p2, r.p3)
		c.finishControl(h, r, true)
	}
	return true
}

// finishControl ends a PDU that is no command's: sequence numbers, r.ctl as data.
// counts: it takes a StatSN.
func (c *conn) finishControl(h *pdu.BHS, r *request, counts bool) {
	sn := c.statSN
	if counts {
		sn = c.nextStatSN()
	}
	if r.counted {
		r.retire()
	}
	h.SetSNs(sn, c.sess.expCmdSN, c.sess.maxCmdSN)
	n := len(r.ctl)
	h.SetDataSegmentLength(n)
	c.endHeader()
	if n > 0 {
		c.payload(r.ctl, r)
		c.endData(n)
	}
}

// makeCommand makes what is left of a command's answer: Data-In, then the status, in
// the last Data-In where the standard lets it (RFC 7143 §11.7.4: no exception to
// report).
func (c *conn) makeCommand(r *request) bool {
	t := &r.task
	total := int64(0)
	if r.dataIn {
		total = min(t.InLen, r.room)
	}
	collapse := t.Status == scsi.StatusGood && t.SenseLen == 0 && !(r.h.Write() && r.h.Read())
	for r.sent < total {
		if !c.space() {
			return false
		}
		n := min(total-r.sent, int64(c.maxSend))
		burst := int64(c.maxBurst) - r.sent%int64(c.maxBurst)
		n = min(n, burst)
		lastOne := r.sent+n == total
		h := c.begin(pdu.OpDataIn)
		h.SetFinal(lastOne || n == burst)
		h.SetITT(r.h.ITT())
		h.SetTTT(pdu.ReservedTag)
		h.SetDataSN(r.dataSN)
		h.SetBufferOffset(uint32(r.sent))
		h.SetDataSegmentLength(int(n))
		if lastOne && collapse {
			r.retire()
			h.SetHasStatus(true)
			h.SetStatus(uint8(t.Status))
			f, res, _ := r.residual()
			h.SetResidual(f, res)
			h.SetStatSN(c.nextStatSN())
		}
		h.SetExpCmdSN(c.sess.expCmdSN)
		h.SetMaxCmdSN(c.sess.maxCmdSN)
		c.endHeader()
		for left := n; left > 0; {
			b := r.at(r.sent)
			if int64(len(b)) > left {
				b = b[:left]
			}
			c.payload(b, r)
			r.sent += int64(len(b))
			left -= int64(len(b))
		}
		c.endData(int(n))
		r.dataSN++
		if lastOne && collapse {
			return true
		}
	}
	if !c.space() {
		return false
	}
	r.retire()
	h := c.begin(pdu.OpSCSIResponse)
	h.SetResponse(pdu.ResponseCompleted)
	h.SetStatus(uint8(t.Status))
	h.SetITT(r.h.ITT())
	h.SetSNs(c.nextStatSN(), c.sess.expCmdSN, c.sess.maxCmdSN)
	// The number of Data-In or R2T PDUs sent (§11.4.8).
	if r.dataOut {
		h.SetExpDataSN(r.r2tSent)
	} else {
		h.SetExpDataSN(r.dataSN)
	}
	f, res, bidi := r.residual()
	h.SetResidual(f, res)
	h.SetBidiReadResidual(bidi)
	if n := int(t.SenseLen); n > 0 {
		// SenseLength and sense data, §11.4.7.
		var d [2 + scsi.MaxSense]byte
		binary.BigEndian.PutUint16(d[:], uint16(n))
		n = 2 + copy(d[2:], t.Sense[:n])
		h.SetDataSegmentLength(n)
		c.endHeader()
		c.small(d[:n])
	} else {
		c.endHeader()
	}
	return true
}

// residual makes the residual flags and counts of a response (RFC 7143 §11.4.5):
// overflow by what the command would have moved beyond the initiator's expectation,
// underflow by what it did not move of it.
func (r *request) residual() (f pdu.Residual, n, bidi uint32) {
	t := &r.task
	want := t.Want
	if r.dataIn && t.Status != scsi.StatusGood {
		want = t.InLen // it ended before it had moved all
	}
	both := r.h.Write() && r.h.Read()
	out, in := want, want
	if r.dataIn {
		out = 0
	} else {
		in = 0
	}
	switch {
	case both:
		// The write part here, the read part in the bidirectional fields.
		f, n = resid(out, int64(r.edtl))
		var g pdu.Residual
		g, bidi = resid(in, int64(r.bidi))
		if g == pdu.Overflow {
			f |= pdu.BidiOverflow
		} else if g == pdu.Underflow {
			f |= pdu.BidiUnderflow
		}
	case r.h.Write():
		f, n = resid(out, int64(r.edtl))
	case r.h.Read():
		f, n = resid(in, int64(r.edtl))
	default:
		f, n = resid(want, int64(r.edtl))
	}
	return f, n, bidi
}

func resid(want, expected int64) (pdu.Residual, uint32) {
	switch {
	case want > expected:
		return pdu.Overflow, uint32(min(want-expected, 1<<32-1))
	case want < expected:
		return pdu.Underflow, uint32(expected - want)
	}
	return 0, 0
}
