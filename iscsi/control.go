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
	c.maxSend = min(c.params.MaxXmitDataSegmentLength, maxPDUData)
	r.state = stSend
	c.queue(r)
}

// startLogout answers a Logout Request (RFC 7143 §11.14). The answer comes when the
// tasks of the connections concerned have ended; those of its own connection end when
// it has been sent.
func (c *conn) startLogout(r *request) {
	s := c.sess
	resp := pdu.LogoutSuccess
	r.state = stSend
	switch reason := r.h.LogoutReason(); {
	case reason > pdu.LogoutRecovery:
		c.reject(&r.h, pdu.RejectInvalidField)
		r.release()
		return
	case reason == pdu.LogoutRecovery:
		resp = pdu.LogoutRecoveryUnsupported
	case reason == pdu.LogoutCloseSession:
		for i := len(s.conns) - 1; i >= 0; i-- {
			if o := s.conns[i]; o != c {
				o.drop()
			}
		}
		for _, o := range s.leaving {
			o.logouts = append(o.logouts, r)
			r.waits++
		}
	case r.h.CID() != c.info.CID:
		o := s.conn(r.h.CID())
		if o != nil {
			o.drop()
		}
		for _, l := range s.leaving {
			if l.info.CID == r.h.CID() {
				o = l
			}
		}
		if o == nil {
			resp = pdu.LogoutCIDNotFound
			break
		}
		o.logouts = append(o.logouts, r)
		r.waits++
	}
	r.logout = resp
	if r.waits == 0 {
		c.answerLogout(r)
	}
}

// loggedOut hears that a connection that r waits for has ended.
func (c *conn) loggedOut(r *request) {
	if r.waits--; r.waits > 0 {
		return
	}
	if c.dead {
		r.release()
		return
	}
	c.answerLogout(r)
}

func (c *conn) answerLogout(r *request) {
	own := (r.logout == pdu.LogoutSuccess || r.logout == pdu.LogoutCleanupFailed) &&
		(r.h.LogoutReason() == pdu.LogoutCloseSession || r.h.CID() == c.info.CID)
	r.h.SetResponse(uint8(r.logout))
	c.queue(r)
	if own {
		c.end()
	}
}

// reject queues a Reject of the PDU with header h: the one that is being received, or
// one without additional header segments.
func (c *conn) reject(h *pdu.BHS, reason pdu.RejectReason) {
	if c.dead {
		return
	}
	r := c.sh.get(c, kindReject)
	r.reason = reason
	ahs := c.ahs[:min(h.AHSLength(), c.ahsLen)]
	if r.ctlB = c.sh.slabs.Get(pdu.BHSLen + len(ahs)); r.ctlB != nil {
		r.ctl = r.ctlB.B
		copy(r.ctl[copy(r.ctl, h[:]):], ahs)
	}
	r.state = stSend
	c.queue(r)
}

// rejectAndEnd rejects the PDU that is being received and ends the connection:
// RFC 7143 §7.7 for format errors.
func (c *conn) rejectAndEnd(reason pdu.RejectReason) {
	c.reject(&c.h, reason)
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
		j.line(k, msg, append(args, "target", c.sess.key.target, "initiator", c.sess.key.initiator, "peer", c.info.Peer)...)
	}
}

// journalNote only counts.
func (c *conn) journalNote(k complaint) { c.srv.journal.count[k].Add(1) }
