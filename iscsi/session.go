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
	Announce(t *scsi.Task)
	Withdraw(t *scsi.Task)
	Submit(t *scsi.Task)
	Kick()
	Close(done func(stuck int))
}

type nexus interface {
	Manage(m *scsi.TMF)
	Cleared(l scsi.LUN)
	Close(deadline time.Duration, done func(stuck int))
}

// sessionKey is what tells sessions apart: SSID without TSIH (RFC 7143 §4.4.3).
type sessionKey struct {
	target, initiator string
	isid              [6]byte
}

// maxImmediate bounds the immediate requests of a session that are not answered yet.
const maxImmediate = 32

// session is a normal session: a nexus, the command window, and the connections, each
// with a lane of its own into the nexus. All of them share one loop, so that the order
// of commands needs no lock.
type session struct {
	srv    *Server
	target *target
	key    sessionKey
	params login.Params // of the leading connection; written once
	info   SessionInfo  // of the leading connection; written once

	nexus   nexus
	newLane func() (lane, error)
	l       *loop.Loop
	sh      *shard

	// Of the loop.

	conns    []*conn // in full feature phase
	leaving  []*conn // ended, with tasks that have not left the core
	logins   int     // logins that are to become connections
	told     uint32  // orders that were carried out: for connections that come
	ended    bool    // the nexus closes
	detached bool    // it is closed
	halting  bool    // new requests are carried, see handover.go

	expCmdSN, maxCmdSN uint32
	// held are the requests that wait for their turn, by CmdSN. hole stands
	// for one that needs no delivery.
	held       [maxWindow]*request
	hole       request
	delivering bool
	// barrier is a delivered ORDERED command that waits for data: nothing may
	// be delivered before the core has it.
	barrier *request
	// tmfs are task management requests that wait for commands older than they.
	tmfs       *request
	tags       [tagBuckets]*request // commands by initiator task tag, chained
	owed       int                  // commands whose initiator owes data
	unserved   int                  // held commands that wait for memory
	immediates int
	memory     int64     // payload buffers, bytes
	turn       loop.Node // deferred: deliver
	gapSN      uint32    // the command that has been missing since gapAt
	gapAt      int64     // loop time; 0: none

	// Across goroutines.

	orders     atomic.Uint32 // what stop asks for
	stopNode   loop.Node
	closedNode loop.Node
	stuck      atomic.Int64
	finished   bool // of the loop
	gone       chan struct{}

	// Of srv.mu.

	admitted bool    // others may join
	live     []*conn // conns, for those who ask
	past     Traffic // of connections that have ended
}

const tagBuckets = 256

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

// A session's handlers for nodes.
type (
	sessionStop   session
	sessionClosed session
	sessionTurn   session
)

func (n *sessionStop) Handle(*loop.Node) {
	s := (*session)(n)
	o := s.orders.Swap(0)
	s.told |= o
	for i := len(s.conns) - 1; i >= 0; i-- {
		s.conns[i].obey(o)
	}
}

func (n *sessionClosed) Handle(*loop.Node) {
	s := (*session)(n)
	s.detached = true
	s.finish()
}

func (n *sessionTurn) Handle(*loop.Node) {
	s := (*session)(n)
	s.deliver()
	s.kick()
}

// TransportID is scsi.FrontEnd's.
func (s *session) TransportID(dst []byte) int {
	return transportID(dst, s.params.InitiatorName, s.params.ISID, s.info.nameOnly)
}

// Event is scsi.FrontEnd's. Initiators learn of changes by the unit attentions that
// the core raises with them; iSCSI has no other word for it that they heed.
func (s *session) Event(scsi.Event) {}

// closed begins the end of the session when its last connection has ended. On the
// loop.
func (s *session) closed() {
	if s.ended {
		return
	}
	s.ended = true
	s.nexus.Close(s.srv.limits.TaskTimeout, func(stuck int) {
		s.stuck.Store(int64(stuck))
		s.l.PostOnce(&s.closedNode)
	})
}

// finish takes the session off the server's list, once its nexus is closed and its
// connections have departed. On the loop.
func (s *session) finish() {
	if s.finished || !s.detached || len(s.leaving) > 0 {
		return
	}
	s.finished = true
	s.l.AddLoad(-1)
	s.srv.forget(s)
	close(s.gone)
}

// find looks a command up by its tag, whatever its connection: tags are unique in the
// session (RFC 7143 §11.2.1.8).
func (s *session) find(itt uint32) *request {
	for r := s.tags[bucket(itt)]; r != nil; r = r.chain {
		if r.h.ITT() == itt {
			return r
		}
	}
	return nil
}

func bucket(itt uint32) uint32 { return itt * 0x9e3779b1 >> 24 }

func (s *session) insert(r *request) {
	p := &s.tags[bucket(r.h.ITT())]
	r.chain, *p = *p, r
	r.tagged = true
}

func (s *session) remove(r *request) {
	for p := &s.tags[bucket(r.h.ITT())]; *p != nil; p = &(*p).chain {
		if *p == r {
			*p = r.chain
			break
		}
	}
	r.chain, r.tagged = nil, false
}

// each calls f for the commands of the session; f may end the one that it is given.
func (s *session) each(f func(q *request)) {
	for i := range s.tags {
		for q := s.tags[i]; q != nil; {
			next := q.chain
			f(q)
			q = next
		}
	}
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
	if s.tmfs != nil {
		s.retryTMFs()
	}
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

// missing reports whether a command older than sn has not come yet.
func (s *session) missing(sn uint32) bool {
	if !pdu.SNInWindow(sn, s.expCmdSN, s.maxCmdSN+1) {
		return false
	}
	for x := s.expCmdSN; x != sn; x++ {
		if s.held[x%maxWindow] == nil {
			return true
		}
	}
	return false
}

// enter takes a request that has arrived as a whole.
func (s *session) enter(r *request) {
	c := r.c
	if sn := r.h.CmdSN(); !r.h.Immediate() && (!pdu.SNInWindow(sn, s.expCmdSN, s.maxCmdSN) || s.held[sn%maxWindow] != nil) ||
		r.kind == kindCommand && s.find(r.h.ITT()) != nil {
		// Another connection was faster with the same number or tag.
		c.complain(badCmdSN, "a command was sent twice", "CmdSN", r.h.CmdSN())
		r.release()
		return
	}
	if r.kind == kindCommand {
		s.insert(r)
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
	for len(s.conns) > 0 {
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
		if r.c.ending {
			// It came behind what ended its connection.
			r.cut()
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
	if a := r.task.Attr; (a == scsi.Ordered || a == scsi.ACA) && s.owed > 0 {
		if s.owed > 1 || !r.owed {
			return false
		}
	}
	if !r.serve() {
		if !s.hoards() {
			s.sh.await(r.c)
			return false
		}
		// What younger commands hold, which came before it by another
		// connection, is freed only when it has gone.
		r.c.complain(taskSetFull, "no memory for a command's data: TASK SET FULL")
		r.unserve()
		r.full, r.room = true, 0
	}
	return true
}

// hoards reports whether commands that have not had their turn hold memory.
func (s *session) hoards() bool {
	for _, r := range s.held {
		if r != nil && len(r.bufs) > 0 {
			return true
		}
	}
	return false
}

// later has deliver called at the end of the round.
func (s *session) later() {
	if !s.turn.Queued() {
		s.l.Defer(&s.turn)
	}
}

// kick ends a batch: any connection may have delivered commands of any other.
func (s *session) kick() {
	for _, c := range s.conns {
		c.lane.Kick()
	}
}

// unbar lets delivery go on, at the end of the round.
func (s *session) unbar() {
	if s.held[s.expCmdSN%maxWindow] != nil {
		s.later()
	}
}

// pass ends the barrier that r may be.
func (s *session) pass(r *request) {
	if s.barrier == r {
		s.barrier = nil
		s.unbar()
	}
}

// overdue reports whether a command that others wait for has been missing for too
// long: its connection was cut, and the initiator has not sent it again.
func (s *session) overdue(now int64) bool {
	waits := s.tmfs != nil
	if !waits && s.held[s.expCmdSN%maxWindow] == nil {
		for _, r := range s.held {
			if r != nil {
				waits = true
				break
			}
		}
	}
	switch {
	case !waits:
		s.gapAt = 0
	case s.gapAt == 0 || s.gapSN != s.expCmdSN:
		s.gapAt, s.gapSN = now, s.expCmdSN
	default:
		return now-s.gapAt > int64(s.srv.limits.StallTimeout)
	}
	return false
}
