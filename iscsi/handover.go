package iscsi

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vtgt/vtgt/internal/handover"
	"github.com/vtgt/vtgt/iscsi/login"
	"github.com/vtgt/vtgt/iscsi/pdu"
)

// Sessions can go on in another process: Freeze has every connection end what it has
// begun and stops between two PDUs, and tells what there is; Adopt makes the sessions of
// that in the next process. Thaw has them go on in this one.
//
// What a halting connection receives is of two kinds. Data of commands that have begun
// are taken, for those have to end. Everything else is put aside as it came, in
// conn.carry: to whoever goes on it is what the socket gives next. So nothing is
// answered twice, no number is taken back, and the initiator sees a pause.

// maxCarry bounds what one connection puts aside: what an initiator may send without
// being asked is its command window with first bursts, 128 of 64 KiB for Linux.
const maxCarry = 64 << 20

// SavedSession is a session as the next process gets it.
type SavedSession struct {
	Target   string       `json:"target"`
	NameOnly bool         `json:"nameOnly"`
	Params   login.Params `json:"params"` // of the leading connection
	ExpCmdSN uint32       `json:"expCmdSN"`
	MaxCmdSN uint32       `json:"maxCmdSN"`
	Since    time.Time    `json:"since"`
	Conns    []SavedConn  `json:"conns"`
}

// SavedConn is a connection of it.
type SavedConn struct {
	Socket  int            `json:"socket"` // in a handover.Set
	Params  login.Params   `json:"params"`
	Portal  string         `json:"portal"`
	Peer    string         `json:"peer"`
	Local   netip.AddrPort `json:"local"`
	Remote  netip.Addr     `json:"remote"`
	Since   time.Time      `json:"since"`
	StatSN  uint32         `json:"statSN"`
	NextTag uint32         `json:"nextTag"`
	// Received is what has come and was not used.
	Received []byte `json:"received,omitempty"`
}

// carries tells whether the PDU with header h is for the process after this one.
func (c *conn) carries(h *pdu.BHS) bool {
	if h.Opcode() != pdu.OpDataOut {
		return true
	}
	r := c.sess.find(h.ITT())
	return r == nil || r.c != c
}

// rejoin, in conn.raw, says that what was put aside is to be received now: when the PDU
// has ended whose data are being received.
const rejoin = -1

// parseRaw puts the rest of such a PDU aside, or takes all of them back.
func (c *conn) parseRaw() verdict {
	if c.raw == rejoin {
		rest := append(c.carry, c.rx[c.r:c.w]...)
		if len(rest) > len(c.rx) {
			c.rx = make([]byte, len(rest))
		}
		// What was put aside of the last one is read again with its rest.
		c.r, c.w, c.raw, c.carry = 0, copy(c.rx, rest), 0, nil
		return rxDone
	}
	n := min(c.raw, c.w-c.r)
	c.carry = append(c.carry, c.rx[c.r:c.r+n]...)
	c.r += n
	if c.raw -= n; c.raw > 0 {
		return rxMore
	}
	return rxDone
}

// quiet tells whether nothing that the session has begun is left. On the loop.
func (s *session) quiet() bool {
	if s.logins > 0 || len(s.leaving) > 0 || s.tmfs != nil || s.ended || len(s.conns) == 0 {
		return false
	}
	for _, r := range s.held {
		if r != nil {
			return false
		}
	}
	for _, c := range s.conns {
		if c.requests > 0 || c.first != nil || c.s0 != c.s1 || c.data || c.ending || c.dead {
			return false
		}
	}
	return true
}

// freeze stops a quiet session and describes it. On the loop.
func (s *session) freeze(set *handover.Set) (*SavedSession, error) {
	st := &SavedSession{
		Target: s.key.target, NameOnly: s.info.nameOnly, Params: s.params, ExpCmdSN: s.expCmdSN, MaxCmdSN: s.maxCmdSN, Since: s.info.Since,
	}
	for _, c := range s.conns {
		t, ok := c.ep.(*tcp)
		if !ok {
			return nil, errors.New("a connection that is not TCP")
		}
		fd, err := set.Add(t.fd)
		if err != nil {
			return nil, err
		}
		c.frozen = true
		c.ep.want(0)
		c.sh.l.Stop(&c.timer)
		st.Conns = append(st.Conns, SavedConn{
			Socket: fd, Params: c.params, Portal: c.info.Portal, Peer: c.info.Peer, Local: c.info.local, Remote: c.info.remote,
			Since: c.info.Since, StatSN: c.statSN, NextTag: c.nextTag, Received: append(slices.Clone(c.carry), c.rx[c.r:c.w]...),
		})
	}
	return st, nil
}

// thaw has the session go on. On the loop.
func (s *session) thaw() {
	s.halting = false
	for _, c := range slices.Clone(s.conns) {
		if len(c.carry) > 0 {
			c.raw = rejoin
		}
		if c.frozen {
			c.frozen = false
			c.lastIn = c.sh.l.Now()
			c.lookLater()
		}
		c.pump()
		c.rearm()
	}
}

// Freeze brings all sessions to a halt until the time t and puts their sockets into set.
// New connections wait, logins are refused for the time being. On an error Thaw is still
// to be called.
func (s *Server) Freeze(t time.Time, set *handover.Set) ([]SavedSession, error) {
	s.mu.Lock()
	if s.closed || s.frozen != nil {
		s.mu.Unlock()
		return nil, errClosed
	}
	s.frozen = make(chan struct{})
	for p := range s.portals {
		p.deadline(time.Unix(1, 0))
	}
	s.mu.Unlock()
	ss := s.list(nil)
	for _, x := range ss {
		x.l.Do(func() { x.halting = true })
	}
	var out []SavedSession
	for _, x := range ss {
		st, err := x.still(t, set)
		if err != nil {
			return nil, fmt.Errorf("iscsi: the session of %s with %s: %w", x.key.initiator, x.key.target, err)
		}
		if st != nil {
			out = append(out, *st)
		}
	}
	return out, nil
}

// still waits until the session stands still; nil: it has ended.
func (x *session) still(t time.Time, set *handover.Set) (st *SavedSession, err error) {
	for pause := 20 * time.Microsecond; ; pause = min(2*pause, time.Millisecond) {
		n, ended := 0, false
		if !x.l.Do(func() {
			if ended = x.ended; !ended && x.quiet() {
				st, err = x.freeze(set)
			}
			for _, c := range x.conns {
				n += c.requests
			}
		}) {
			return nil, errClosed
		}
		switch {
		case st != nil || err != nil || ended:
			return st, err
		case time.Until(t) <= 0:
			return nil, fmt.Errorf("%d requests have not ended", n)
		}
		time.Sleep(pause)
	}
}

// Thaw has all sessions go on after Freeze.
func (s *Server) Thaw() {
	s.mu.Lock()
	if s.frozen == nil {
		s.mu.Unlock()
		return
	}
	close(s.frozen)
	s.frozen = nil
	s.mu.Unlock()
	for _, x := range s.list(nil) {
		x.l.Do(x.thaw)
	}
}

// deadline is the listener's, where it has one.
func (p *Portal) deadline(t time.Time) {
	if l, ok := p.ln.(interface{ SetDeadline(time.Time) error }); ok {
		_ = l.SetDeadline(t)
	}
}

// awaitThaw waits until p may accept again.
func (s *Server) awaitThaw(p *Portal) {
	s.mu.Lock()
	frozen := s.frozen
	if frozen == nil {
		p.deadline(time.Time{})
	}
	s.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
}

// Adopt makes a session of what another process has frozen; its target is there. The
// sockets are taken out of set.
func (s *Server) Adopt(st *SavedSession, set *handover.Set) error {
	var eps []*tcp
	defer func() {
		for _, e := range eps {
			e.close()
		}
	}()
	for i := range st.Conns {
		fd, err := set.Take(st.Conns[i].Socket)
		if err != nil || fd < 0 {
			return fmt.Errorf("iscsi: a connection's socket: %w", err)
		}
		eps = append(eps, &tcp{fd: fd})
	}
	if len(eps) == 0 || st.MaxCmdSN+1-st.ExpCmdSN > maxWindow {
		return errors.New("iscsi: a session without connections, or with a window that cannot be")
	}
	p := st.Params
	lead := &st.Conns[0]
	info := SessionInfo{
		Target: p.TargetName, Initiator: p.InitiatorName, InitiatorAlias: p.InitiatorAlias, ISID: p.ISID, TSIH: p.TSIH, CID: p.CID,
		Portal: lead.Portal, Peer: lead.Peer, Since: st.Since, local: lead.Local, remote: lead.Remote, nameOnly: st.NameOnly,
	}
	key := keyOf(&p, st.NameOnly)
	s.mu.Lock()
	t := s.targets[p.TargetName]
	if s.closed || t == nil || s.sessions[key] != nil {
		s.mu.Unlock()
		return fmt.Errorf("iscsi: the session of %s cannot go on with target %s", p.InitiatorName, p.TargetName)
	}
	x := s.newSession(t, key, &p, info)
	x.info.TSIH, x.params.TSIH = p.TSIH, p.TSIH // which the initiator knows
	s.lastTSIH = max(s.lastTSIH, p.TSIH)
	x.expCmdSN, x.maxCmdSN, x.logins = st.ExpCmdSN, st.MaxCmdSN, len(eps)
	s.sessions[key] = x
	s.mu.Unlock()
	x.l.AddLoad(1)
	if err := t.attach(x); err != nil {
		x.l.Do(func() { x.ended, x.detached = true, true; x.finish() })
		return err
	}
	s.onSession(true, key.target, key.initiator, info.Peer)
	s.mu.Lock()
	x.admitted = true
	s.mu.Unlock()
	for i := range st.Conns {
		c := &st.Conns[i]
		ci := info
		ci.CID, ci.Portal, ci.Peer, ci.local, ci.remote = c.Params.CID, c.Portal, c.Peer, c.Local, c.Remote
		c.Params.StatSN, c.Params.TSIH = c.StatSN, p.TSIH
		err := x.start(eps[0], &c.Params, &ci, c.Received)
		eps = eps[1:]
		if err != nil {
			return err
		}
	}
	return nil
}
