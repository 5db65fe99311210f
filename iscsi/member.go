package iscsi

import (
	"errors"
	"slices"
	"time"

	"github.com/vtgt/vtgt/iscsi/login"
	"github.com/vtgt/vtgt/iscsi/pdu"
	"github.com/vtgt/vtgt/scsi"
)

// How connections come into a session and leave it. Without error recovery
// (ErrorRecoveryLevel 0) the tasks of a connection end with it; the session goes on as
// long as it has a connection, or a login that is about to become one.

// conn is the connection with number cid; nil: there is none.
func (s *session) conn(cid uint16) *conn {
	for _, c := range s.conns {
		if c.info.CID == cid {
			return c
		}
	}
	return nil
}

// join reserves a place for a further connection (RFC 7143 §6.3.4). A connection of
// the same number ends: old is it, with tasks that may not have left the core yet. On
// the loop.
func (s *session) join(cid uint16) (old *conn, st pdu.LoginStatus) {
	if s.ended || s.told&(orderDrop|orderEnd) != 0 {
		return nil, pdu.LoginSessionDoesNotExist
	}
	if old = s.conn(cid); old == nil && len(s.conns)+s.logins >= int(s.params.MaxConnections) {
		return nil, pdu.LoginTooManyConnections
	}
	s.logins++
	if old != nil {
		old.drop()
		return old, pdu.LoginSuccess
	}
	for _, c := range s.leaving {
		if c.info.CID == cid {
			old = c
		}
	}
	return old, pdu.LoginSuccess
}

// unjoin gives the place of a login back that did not end well. On the loop.
func (s *session) unjoin() {
	s.logins--
	s.ifEmpty()
}

// ifEmpty ends the session when it has no connection.
func (s *session) ifEmpty() {
	if len(s.conns) == 0 && s.logins == 0 {
		s.closed()
	}
}

// start moves a connection whose login has ended to its session's loop.
func (s *session) start(ep endpoint, p *login.Params, info *SessionInfo, rest []byte) error {
	err := errors.New("the loop has ended")
	s.l.Do(func() { err = s.open(ep, p, info, rest) })
	return err
}

// open makes the connection. On the loop.
func (s *session) open(ep endpoint, p *login.Params, info *SessionInfo, rest []byte) error {
	var ln lane
	err := errors.New("the session has ended")
	if !s.ended {
		ln, err = s.newLane()
	}
	if err != nil {
		ep.close()
		s.unjoin()
		return err
	}
	c := newConn(s, ep, ln, p, info, rest)
	c.info.CID, c.info.Since, c.info.Loop = p.CID, time.Now(), s.l.ID()
	c.info.HeaderDigest, c.info.DataDigest = p.HeaderDigest, p.DataDigest
	s.sh.joined()
	s.logins--
	if old := s.conn(p.CID); old != nil {
		old.drop() // two logins with one number: the later one has it
	}
	s.conns = append(s.conns, c)
	s.srv.mu.Lock()
	s.live = append(s.live, c)
	s.srv.mu.Unlock()
	return c.open()
}

// left takes a connection that has ended out of the session: what it held of the
// order of commands is given up, its tasks are aborted. On the loop.
func (s *session) left(c *conn) {
	if i := slices.Index(s.conns, c); i >= 0 {
		s.conns = slices.Delete(s.conns, i, i+1)
	}
	s.leaving = append(s.leaving, c)
	if s.barrier != nil && s.barrier.c == c {
		s.barrier = nil
	}
	// The initiator hears nothing of the commands that end here.
	var cleared []scsi.LUN
	clear := func(q *request) {
		l := scsi.LUN(q.h.LUN())
		for _, o := range cleared {
			if o == l {
				return
			}
		}
		cleared = append(cleared, l)
	}
	for p := &s.tmfs; *p != nil; {
		if r := *p; r.c == c {
			*p = r.next
			r.next = nil
			r.release()
		} else {
			p = &r.next
		}
	}
	for i, r := range s.held {
		if r != nil && r != &s.hole && r.c == c {
			if r.kind == kindCommand {
				clear(r)
			}
			s.held[i] = &s.hole
			r.counted = false // the hole is counted instead
			r.release()
		}
	}
	s.each(func(q *request) {
		if q.c != c {
			return
		}
		switch q.state {
		case stData:
			clear(q)
			q.release()
		case stCore:
			clear(q)
		}
	})
	s.srv.retire(s, c)
	if len(s.conns) == 0 && s.logins == 0 {
		// Closing the nexus ends the lane's tasks too.
		s.closed()
	} else {
		for _, l := range cleared {
			s.nexus.Cleared(l)
		}
		s.later()
	}
	c.lane.Close(func(stuck int) {
		c.stuck = stuck
		s.l.PostOnce(&c.goneNode)
	})
}

// departed hears that the tasks of a connection have ended, or are stuck. On the loop.
func (s *session) departed(c *conn) {
	if i := slices.Index(s.leaving, c); i >= 0 {
		s.leaving = slices.Delete(s.leaving, i, i+1)
	}
	s.sh.parted()
	// Timers of the runtime may keep the session in memory for a while.
	c.rx, c.arena = nil, nil
	close(c.gone)
	for _, r := range c.logouts {
		if c.stuck > 0 {
			r.logout = pdu.LogoutCleanupFailed
		}
		r.c.loggedOut(r)
	}
	c.logouts = nil
	s.finish()
}

// notice tells the initiator, by another connection, that c is dropped.
func (s *session) notice(c *conn) {
	for _, o := range s.conns {
		if o != c && !o.ending {
			o.async(pdu.AsyncDropConnection, c.info.CID, s.params.DefaultTime2Wait, 0)
			return
		}
	}
}
