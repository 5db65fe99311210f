package iscsi

import (
	"github.com/vtgt/vtgt/iscsi/pdu"
)

// intakeNOP takes a NOP-Out (RFC 7143 §11.18).
func (c *conn) intakeNOP(h *pdu.BHS, dsl int) {
	if h.ITT() == pdu.ReservedTag {
		// The answer to a ping, or a sign of life: nothing to say. The receiver
		// has noted the time.
		return
	}
	if !c.sess.admit(c, h) {
		return
	}
	// As much of the data comes back as the initiator can take (§11.19.2).
	c.takeControl(h, kindNOP, min(dsl, int(c.maxSend)))
}

// intakeControl takes a request other than a SCSI Command.
func (c *conn) intakeControl(h *pdu.BHS, k kind, dsl int) {
	if !c.sess.admit(c, h) {
		return
	}
	if k == kindTMF || k == kindLogout {
		dsl = 0 // they have no data; what comes is thrown away
	}
	c.takeControl(h, k, dsl)
}

func (c *conn) takeControl(h *pdu.BHS, k kind, keep int) {
	r := c.sh.get(c, k)
	r.h = *h
	if keep > 0 {
		if keep <= pieceLen {
			r.ctlB = c.sh.slabs.Get(keep)
		}
		if r.ctlB == nil {
			r.release()
			c.reject(h, pdu.RejectOutOfResources)
			c.sess.skip(h)
			return
		}
		r.ctl = r.ctlB.B
		c.to = toControl
	}
	c.cur = r
}

// startText answers a Text Request.
func (c *conn) startText(r *request) {
	resp, text, reason := c.text.Step(&r.h, r.ctl)
	if reason != 0 {
		c.complain(badFormat, "Text Request rejected", "error", c.text.Err())
		c.reject(&r.h, reason)
		r.release()
		return
	}
	r.h = *resp
	if r.ctlB != nil {
		r.ctlB.Free()
		r.ctlB = nil
	}
	r.ctl = nil
	if len(text) > 0 {
		r.ctl = append([]byte(nil), text...)
	}
	c.maxSend = min(c.sess.params.MaxXmitDataSegmentLength, maxPDUData)
	r.state = stSend
	c.queue(r)
}

// startLogout answers a Logout Request (§11.14). With one connection in each session,
// closing it and closing the session are the same.
func (c *conn) startLogout(r *request) {
	resp := pdu.LogoutSuccess
	switch reason := r.h.LogoutReason(); {
	case reason == pdu.LogoutRecovery:
		resp = pdu.LogoutRecoveryUnsupported
	case reason == pdu.LogoutCloseConnection && r.h.CID() != c.sess.params.CID:
		resp = pdu.LogoutCIDNotFound
	case reason > pdu.LogoutRecovery:
		c.reject(&r.h, pdu.RejectInvalidField)
		r.release()
		return
	}
	r.h.SetResponse(uint8(resp))
	r.state = stSend
	c.queue(r)
	if resp == pdu.LogoutSuccess {
		c.end()
	}
}

// reject queues a Reject of the PDU with header h.
func (c *conn) reject(h *pdu.BHS, reason pdu.RejectReason) { c.rejectBytes(h[:], reason) }

func (c *conn) rejectBytes(b []byte, reason pdu.RejectReason) {
	if c.dead {
		return
	}
	r := c.sh.get(c, kindReject)
	r.reason = reason
	r.ctlB = c.sh.slabs.Get(len(b))
	if r.ctlB != nil {
		r.ctl = r.ctlB.B
		copy(r.ctl, b)
	}
	r.state = stSend
	c.queue(r)
}

// rejectAndEnd rejects the PDU with header b (nil: the one of c.h) and ends the
// connection: RFC 7143 §7.7 for format errors.
func (c *conn) rejectAndEnd(b []byte, reason pdu.RejectReason) {
	if b == nil {
		b = c.h[:]
	}
	c.rejectBytes(b, reason)
	c.end()
}

// async queues an Asynchronous Message.
func (c *conn) async(e pdu.AsyncEvent, p1, p2, p3 uint16) {
	r := c.sh.get(c, kindAsync)
	r.event, r.p1, r.p2, r.p3 = e, p1, p2, p3
	r.state = stSend
	c.queue(r)
}

// ping asks the initiator for a sign of life.
func (c *conn) ping(now int64) {
	c.pinged = now
	c.pingTag = c.nextTag
	c.nextTag = tag(c.nextTag, 1)
	r := c.sh.get(c, kindPing)
	r.state = stSend
	c.queue(r)
}

// complain counts what the peer did and logs it, at a bounded rate.
func (c *conn) complain(k complaint, msg string, args ...any) {
	if j := &c.srv.journal; j.note(k) {
		j.line(k, msg, append(args, "target", c.sess.key.target, "initiator", c.sess.key.initiator, "peer", c.sess.info.Peer)...)
	}
}

// journalNote only counts.
func (c *conn) journalNote(k complaint) { c.srv.journal.count[k].Add(1) }
