package iscsi

import (
	"github.com/vtgt/vtgt/iscsi/pdu"
	"github.com/vtgt/vtgt/scsi"
)

// startTMF begins a task management function in its turn (RFC 7143 §11.5). Commands
// that the core has not seen yet (held back, or waiting for data) are ended here;
// the rest is the core's, which answers when every affected task has ended.
func (c *conn) startTMF(r *request) {
	fn := r.h.Function()
	switch fn {
	case pdu.AbortTaskSet, pdu.ClearTaskSet, pdu.LogicalReset:
		if r.immediate && c.sess.missing(r.h.CmdSN()) {
			// Commands that it is meant for are still on their way, on other
			// connections: they are waited for (RFC 7143 §4.2.3.3).
			r.state = stHeld
			r.next = c.sess.tmfs
			c.sess.tmfs = r
			return
		}
	case pdu.TargetWarmReset, pdu.TargetColdReset:
		// Such commands count as received (§4.2.3.3, c).
		c.sess.plug(r.h.CmdSN())
	}
	c.runTMF(r, fn)
}

// retryTMFs starts those functions that have waited for what has come now.
func (s *session) retryTMFs() {
	var list *request
	list, s.tmfs = s.tmfs, nil
	for r := list; r != nil; {
		next := r.next
		r.next = nil
		if s.missing(r.h.CmdSN()) {
			r.next, s.tmfs = s.tmfs, r
		} else {
			r.c.runTMF(r, r.h.Function())
		}
		r = next
	}
}

// plug has all commands older than sn that have not come count as received.
func (s *session) plug(sn uint32) {
	if !s.missing(sn) {
		return
	}
	for x := s.expCmdSN; x != sn; x++ {
		if p := &s.held[x%maxWindow]; *p == nil {
			*p = &s.hole
		}
	}
	s.later()
}

func (c *conn) runTMF(r *request, fn pdu.TMF) {
	r.state = stCore
	m := &r.tmf
	m.LUN, m.Tag, m.Lane = scsi.LUN(r.h.LUN()), 0, c.coreLane()
	m.Deadline = c.srv.limits.TaskTimeout
	switch fn {
	case pdu.AbortTask:
		c.abortTask(r)
		return
	case pdu.QueryTask:
		if q := c.sess.find(r.h.ReferencedTaskTag()); q != nil && q.h.LUN() == r.h.LUN() {
			if q.state == stCore {
				m.Func, m.Tag = scsi.QueryTask, q.task.Tag
				c.manage(m)
				return
			}
			c.endTMF(r, pdu.TMFSucceeded)
			return
		}
		c.endTMF(r, pdu.TMFComplete)
		return
	case pdu.TaskReassign:
		// ErrorRecoveryLevel 2 only.
		c.endTMF(r, pdu.TMFReassignmentUnsupported)
		return
	case pdu.AbortTaskSet:
		m.Func = scsi.AbortTaskSet
		c.sess.cutTasks(r, false)
	case pdu.ClearTaskSet:
		m.Func = scsi.ClearTaskSet
		c.sess.cutTasks(r, false)
	case pdu.LogicalReset:
		m.Func = scsi.LUNReset
		c.sess.cutTasks(r, false)
	case pdu.TargetWarmReset:
		m.Func = scsi.TargetWarmReset
		c.sess.cutTasks(r, true)
	case pdu.TargetColdReset:
		m.Func = scsi.TargetColdReset
		c.sess.cutTasks(r, true)
	case pdu.NexusReset:
		m.Func = scsi.NexusReset
		c.sess.cutTasks(r, true)
	case pdu.ClearACA:
		m.Func = scsi.ClearACA
	case pdu.QueryTaskSet:
		m.Func = scsi.QueryTaskSet
	case pdu.QueryAsyncEvent:
		m.Func = scsi.QueryAsyncEvent
	default:
		c.endTMF(r, pdu.TMFUnsupported)
		return
	}
	c.manage(m)
}

func (c *conn) manage(m *scsi.TMF) {
	c.inCore++
	c.sess.nexus.Manage(m)
}

// abortTask does ABORT TASK (§11.5.1, §11.6.1).
func (c *conn) abortTask(r *request) {
	q := c.sess.find(r.h.ReferencedTaskTag())
	if q != nil && q.h.LUN() != r.h.LUN() {
		q = nil
	}
	switch {
	case q == nil:
		// A command that is still on its way counts as received: it will
		// never be run. CmdSN up to that of the function itself.
		s := c.sess
		sn := r.h.RefCmdSN()
		if pdu.SNInWindow(sn, s.expCmdSN, s.maxCmdSN) && pdu.SNLess(sn, r.h.CmdSN()) && s.hold(sn, &s.hole) {
			c.endTMF(r, pdu.TMFComplete)
			s.deliver()
			return
		}
		c.endTMF(r, pdu.TMFNoTask)
	case q.state == stHeld || q.state == stData:
		q.cut()
		c.endTMF(r, pdu.TMFComplete)
		c.sess.deliver()
	case q.state == stCore:
		r.tmf.Func, r.tmf.Tag = scsi.AbortTask, q.task.Tag
		c.manage(&r.tmf)
	default:
		c.endTMF(r, pdu.TMFNoTask) // its response is on the way
	}
}

// cutTasks ends the commands that the core has not seen and that are older than r: of
// r's LUN, or of all. Younger ones, which came before r by another connection, are to
// have an answer whatever the core makes of them.
func (s *session) cutTasks(r *request, all bool) {
	s.each(func(q *request) {
		if !all && q.h.LUN() != r.h.LUN() {
			return
		}
		older := q.immediate || pdu.SNLess(q.h.CmdSN(), r.h.CmdSN())
		switch q.state {
		case stHeld, stData:
			if older {
				q.cut()
				return
			}
			q.late = q.state == stData
		case stCore:
			q.late = !older
		}
	})
}

// cut ends a request without an answer, before its turn or before the core has seen it.
func (q *request) cut() {
	c := q.c
	if q.state == stHeld && q.counted {
		c.sess.held[q.h.CmdSN()%maxWindow] = &c.sess.hole
		q.counted = false // the hole is counted instead
	}
	c.settle(q)
	c.sess.pass(q)
	q.unqueue()
	q.retire()
	q.release()
}

// tmfDone is the core's answer, on the connection's loop.
func tmfDone(m *scsi.TMF) {
	r := m.Ref.(*request)
	c := r.c
	c.inCore--
	if c.dead {
		r.release()
		return
	}
	c.endTMF(r, tmfResponse(m.Response))
	if m.Func == scsi.TargetColdReset && m.Response == scsi.TMComplete {
		// All connections of the target end (§11.5.1).
		c.srv.dropTarget(c.sess.target)
	}
}

func tmfResponse(r scsi.TMResponse) pdu.TMFResponse {
	switch r {
	case scsi.TMComplete:
		return pdu.TMFComplete
	case scsi.TMSucceeded:
		return pdu.TMFSucceeded
	case scsi.TMNoTask:
		return pdu.TMFNoTask
	case scsi.TMNoLUN, scsi.TMIncorrectLUN:
		return pdu.TMFNoLUN
	case scsi.TMNotSupported:
		return pdu.TMFUnsupported
	}
	return pdu.TMFRejected
}

// endTMF queues the response.
func (c *conn) endTMF(r *request, resp pdu.TMFResponse) {
	r.h.SetResponse(uint8(resp))
	r.state = stSend
	c.queue(r)
}
