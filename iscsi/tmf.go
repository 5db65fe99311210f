package iscsi

import (
	"github.com/vtgt/vtgt/iscsi/pdu"
	"github.com/vtgt/vtgt/scsi"
)

// startTMF begins a task management function in its turn (RFC 7143 §11.5). Commands
// that the core has not seen yet (held back, or waiting for data) are ended here;
// the rest is the core's, which answers when every affected task has ended.
func (c *conn) startTMF(r *request) {
	r.state = stCore
	fn := r.h.Function()
	m := &r.tmf
	m.LUN, m.Tag, m.Lane = scsi.LUN(r.h.LUN()), 0, c.coreLane()
	m.Deadline = c.srv.limits.TaskTimeout
	switch fn {
	case pdu.AbortTask:
		c.abortTask(r)
		return
	case pdu.QueryTask:
		if q := c.find(r.h.ReferencedTaskTag()); q != nil && q.kind == kindCommand && q.h.LUN() == r.h.LUN() {
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
		c.cutTasks(r, false)
	case pdu.ClearTaskSet:
		m.Func = scsi.ClearTaskSet
		c.cutTasks(r, false)
	case pdu.LogicalReset:
		m.Func = scsi.LUNReset
		c.cutTasks(r, false)
	case pdu.TargetWarmReset:
		m.Func = scsi.TargetWarmReset
		c.cutTasks(r, true)
	case pdu.TargetColdReset:
		m.Func = scsi.TargetColdReset
		c.cutTasks(r, true)
	case pdu.NexusReset:
		m.Func = scsi.NexusReset
		c.cutTasks(r, true)
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
	q := c.find(r.h.ReferencedTaskTag())
	if q != nil && (q.kind != kindCommand || q.h.LUN() != r.h.LUN()) {
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
// r's LUN, or of all.
func (c *conn) cutTasks(r *request, all bool) {
	for i := range c.tags {
		for q := c.tags[i]; q != nil; {
			next := q.chain
			if q.kind == kindCommand && (q.state == stHeld || q.state == stData) &&
				(all || q.h.LUN() == r.h.LUN()) && pdu.SNLess(q.h.CmdSN(), r.h.CmdSN()) {
				q.cut()
			}
			q = next
		}
	}
}

// cut ends a command without an answer, before the core has seen it.
func (q *request) cut() {
	c := q.c
	if q.state == stHeld {
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
