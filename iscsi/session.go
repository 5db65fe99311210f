package iscsi

import (
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/iscsi/login"
	"github.com/vtgt/vtgt/iscsi/pdu"
	"github.com/vtgt/vtgt/scsi"
)

// lane and nexus are the calls of package scsi that a session makes (scsi.Lane and
// scsi.Nexus).
type lane interface {
	Lengths(t *scsi.Task) (out, in int64)
	Submit(t *scsi.Task)
	Kick()
}

type nexus interface {
	Manage(m *scsi.TMF)
	Close(deadline time.Duration, done func(stuck int))
}

// sessionKey is what tells sessions apart: SSID without TSIH (RFC 7143 §4.4.3).
type sessionKey struct {
	target, initiator string
	isid              [6]byte
}

// maxImmediate bounds the immediate requests of a session that are not answered yet.
const maxImmediate = 32

// session is a normal session: a nexus, the command window, and its connection.
// Connections of one session share the loop, so that all of this needs no lock.
type session struct {
	srv    *Server
	target *target
	key    sessionKey
	params login.Params
	info   SessionInfo

	nexus nexus
	core  *scsi.Lane // the lane as the core knows it
	fake  lane       // instead of core, in tests
	l     *loop.Loop
	sh    *shard
	c     *conn

	// Of the loop.

	expCmdSN, maxCmdSN uint32
	// held are the requests that wait for their turn, by CmdSN. hole stands
	// for one that needs no delivery.
	held       [maxWindow]*request
	hole       request
	delivering bool
	// barrier is a delivered ORDERED command that waits for data: nothing may
	// be delivered before the core has it.
	barrier    *request
	unserved   int // held commands that wait for memory
	immediates int
	memory     int64 // payload buffers, bytes

	// Across goroutines.

	orders     atomic.Uint32        // what stop asks for
	begun      atomic.Pointer[conn] // set when info is complete
	counted    bool                 // of srv.mu: its traffic is in the past's
	stopNode   loop.Node
	closedNode loop.Node
	stuck      atomic.Int64
	finished   bool // of the loop
	gone       chan struct{}
}

// Orders to a session.
const (
	orderLogout = 1 << iota // ask the initiator to log out
	orderDrop               // tell it, and end
	orderEnd                // end at once
)

// stop gives the session an order. Any goroutine.
func (s *session) stop(order uint32) {
	s.orders.Or(order)
	s.l.PostOnce(&s.stopNode)
}

// sessionStop and sessionClosed are a session's handlers for nodes.
type (
	sessionStop   session
	sessionClosed session
)

func (n *sessionStop) Handle(*loop.Node) {
	s := (*session)(n)
	c := s.c
	if c == nil || c.dead {
		return // not begun: conn.open looks at the orders
	}
	o := s.orders.Swap(0)
	switch {
	case o&orderEnd != 0:
		c.drop()
	case o&orderDrop != 0:
		c.async(pdu.AsyncDropSession, 0, s.params.DefaultTime2Wait, 0)
		c.end()
	case o&orderLogout != 0:
		c.async(pdu.AsyncLogoutRequest, 0, 0, uint16(max(1, s.srv.logoutGrace/time.Second)))
	}
}

func (n *sessionClosed) Handle(*loop.Node) {
	s := (*session)(n)
	s.finish()
}

// TransportID is scsi.FrontEnd's.
func (s *session) TransportID(dst []byte) int {
	return transportID(dst, s.params.InitiatorName, s.params.ISID)
}

// Event is scsi.FrontEnd's. Initiators learn of changes by the unit attentions that
// the core raises with them; iSCSI has no other word for it that they heed.
func (s *session) Event(scsi.Event) {}

// closed begins the end of the session when its last connection has ended. On the
// loop.
func (s *session) closed() {
	s.nexus.Close(s.srv.limits.TaskTimeout, func(stuck int) {
		s.stuck.Store(int64(stuck))
		s.l.PostOnce(&s.closedNode)
	})
}

// finish takes the session off the server's list. On the loop, when the nexus is
// closed.
func (s *session) finish() {
	if s.finished {
		return
	}
	s.finished = true
	s.l.AddLoad(-1)
	s.srv.forget(s)
	close(s.gone)
}

// admit reports whether a request's CmdSN lets it in (RFC 7143 §4.2.2.1): others are
// dropped without a word.
func (s *session) admit(c *conn, h *pdu.BHS) bool {
	if h.Immediate() {
		if s.immediates >= maxImmediate {
			c.complain(tooManyImmediate, "too many immediate requests")
			c.reject(h, pdu.RejectTooManyImmediate)
			return false
		}
		return true
	}
	sn := h.CmdSN()
	if !pdu.SNInWindow(sn, s.expCmdSN, s.maxCmdSN) || s.held[sn%maxWindow] != nil {
		c.complain(badCmdSN, "CmdSN outside the window", "CmdSN", sn, "ExpCmdSN", s.expCmdSN, "MaxCmdSN", s.maxCmdSN)
		return false
	}
	return true
}

// hold keeps r for the turn of sn, which is in the window; false: that turn is taken.
func (s *session) hold(sn uint32, r *request) bool {
	p := &s.held[sn%maxWindow]
	if *p != nil {
		return false
	}
	*p = r
	return true
}

// skip counts a rejected request as received, so that the window goes on.
func (s *session) skip(h *pdu.BHS) {
	if h.Immediate() || !pdu.SNInWindow(h.CmdSN(), s.expCmdSN, s.maxCmdSN) {
		return
	}
	if s.hold(h.CmdSN(), &s.hole) {
		s.deliver()
	}
}

// enter takes a request that has arrived as a whole.
func (s *session) enter(r *request) {
	c := r.c
	if r.kind == kindCommand {
		c.insert(r)
		if r.unsolicited {
			c.owe(r)
		}
	}
	if r.h.Immediate() {
		s.immediates++
		r.immediate = true
		if r.kind == kindCommand && !r.failed && !r.alloc() {
			r.full = true
		}
		c.start(r)
		return
	}
	r.state = stHeld
	r.counted = true
	if r.kind == kindCommand {
		r.serve()
	}
	s.hold(r.h.CmdSN(), r)
	s.deliver()
}

// deliver starts what has its turn.
func (s *session) deliver() {
	if s.delivering {
		return
	}
	s.delivering = true
	for !s.c.dead && !s.c.ending {
		p := &s.held[s.expCmdSN%maxWindow]
		r := *p
		if r == nil {
			break
		}
		if r == &s.hole {
			*p = nil
			s.expCmdSN++
			s.maxCmdSN++
			continue
		}
		if r.kind == kindCommand && !s.mayStart(r) {
			break
		}
		*p = nil
		s.expCmdSN++
		r.c.start(r)
	}
	s.delivering = false
}

// mayStart reports whether a command that has its turn may start, and gets memory
// for it.
func (s *session) mayStart(r *request) bool {
	if s.barrier != nil {
		return false
	}
	// The core learns of a command when its data are there. An ORDERED one must
	// not pass older ones that still wait for theirs.
	if a := r.task.Attr; (a == scsi.Ordered || a == scsi.ACA) && r.c.owed > 0 {
		if r.c.owed > 1 || !r.owed {
			return false
		}
	}
	if !r.serve() {
		s.sh.await(r.c)
		return false
	}
	return true
}

// unbar lets delivery go on, at the end of the round.
func (s *session) unbar() {
	if s.held[s.expCmdSN%maxWindow] != nil {
		s.c.flushLater()
	}
}

// pass ends the barrier that r may be.
func (s *session) pass(r *request) {
	if s.barrier == r {
		s.barrier = nil
		s.unbar()
	}
}
