package iscsitest

import (
	"fmt"
	"sync"
	"time"

	"github.com/vtgt/vtgt/iscsi/pdu"
)

// Session is a session of several connections (RFC 7143 §4.4.1): one CmdSN order and
// one space of task tags across all of them, a StatSN for each. Each connection may
// have its own goroutine; the session's own methods are safe from all of them.
type Session struct {
	login Login

	mu         sync.Mutex
	cmdSN, itt uint32
	exp, max   uint32
	tsih       uint16
	// owner are the connections that took numbers which the target has not
	// acknowledged.
	owner map[uint32]*Conn
	conns []*Conn
}

// NewSession logs in with the leading connection c, to which others can be added. The
// login's MaxConnections is asked for as it stands in l.Keys.
func NewSession(c *Conn, l Login) (*Session, error) {
	if err := c.Login(l); err != nil {
		return nil, err
	}
	s := &Session{login: l, cmdSN: c.CmdSN, itt: c.ITT, exp: c.ExpCmdSN, max: c.MaxCmdSN, tsih: c.TSIH,
		owner: make(map[uint32]*Conn), conns: []*Conn{c}}
	c.sess, c.cid = s, l.CID
	return s, nil
}

// leadingKeys are decided by the leading connection (the "LO" of chapter 13).
var leadingKeys = []string{"InitialR2T", "ImmediateData", "MaxBurstLength", "FirstBurstLength", "MaxOutstandingR2T",
	"MaxConnections", "DataPDUInOrder", "DataSequenceInOrder", "DefaultTime2Wait", "DefaultTime2Retain", "ErrorRecoveryLevel"}

// Add logs a further connection in under connection number cid. Keys of l that only
// the leading connection decides are left out, unless l states them.
func (s *Session) Add(c *Conn, cid uint16) error { return s.AddLogin(c, cid, s.login) }

// AddLogin is Add with other parameters of the login.
func (s *Session) AddLogin(c *Conn, cid uint16, l Login) error {
	l.TSIH, l.CID = s.tsih, cid
	stated := func(k string) bool {
		for _, kv := range l.Keys {
			if kv.Key == k {
				return true
			}
		}
		return false
	}
	keys := append([]pdu.KeyValue(nil), l.Keys...)
	for _, k := range leadingKeys {
		if !stated(k) {
			keys = append(keys, pdu.KeyValue{Key: k, Value: "-"})
		}
	}
	l.Keys = keys
	lead := s.conns[0].Params
	s.mu.Lock()
	c.CmdSN, c.ITT = s.cmdSN, s.itt
	s.itt++
	s.mu.Unlock()
	c.Params = Params{InitialR2T: lead.InitialR2T, ImmediateData: lead.ImmediateData, MaxRecv: 8192, MaxXmit: 8192,
		FirstBurstLength: lead.FirstBurstLength, MaxBurstLength: lead.MaxBurstLength, MaxOutstandingR2T: lead.MaxOutstandingR2T}
	if err := c.Login(l); err != nil {
		return err
	}
	if c.TSIH != s.tsih {
		return wrong("TSIH %d on a further connection of session %d", c.TSIH, s.tsih)
	}
	mx := c.Params
	c.Params = lead
	c.Params.MaxRecv, c.Params.MaxXmit = mx.MaxRecv, mx.MaxXmit
	c.sess, c.cid = s, cid
	s.mu.Lock()
	s.note(c.ExpCmdSN, c.MaxCmdSN)
	s.conns = append(s.conns, c)
	s.mu.Unlock()
	return nil
}

// Conns are the connections, in the order of their logins.
func (s *Session) Conns() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Conn(nil), s.conns...)
}

// TSIH is the session's handle.
func (s *Session) TSIH() uint16 { return s.tsih }

// note takes the target's window. mu is held.
func (s *Session) note(exp, max uint32) {
	for pdu.SNLess(s.exp, exp) {
		delete(s.owner, s.exp)
		s.exp++
	}
	if pdu.SNLess(s.max, max) {
		s.max = max
	}
}

// take takes the next CmdSN for c; false: the window is closed.
func (s *Session) take(c *Conn, immediate, force bool) (uint32, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sn := s.cmdSN
	if immediate {
		return sn, true
	}
	if !force && !pdu.SNLessEq(sn, s.max) {
		return 0, false
	}
	s.owner[sn] = c
	s.cmdSN++
	return sn, true
}

// Cut closes connection c without a word, has the target forget it by a Logout on
// via, fills the gaps that it leaves in the order of commands, and returns the
// commands that had not ended on it: they may have been run, and may be started anew
// on another connection. Nobody else may use c or via meanwhile.
func (s *Session) Cut(c, via *Conn) ([]*Command, error) {
	_ = c.Close()
	s.mu.Lock()
	for i, o := range s.conns {
		if o == c {
			s.conns = append(s.conns[:i:i], s.conns[i+1:]...)
			break
		}
	}
	s.mu.Unlock()
	p := via.request(pdu.OpLogoutRequest, true)
	p.SetLogoutReason(pdu.LogoutCloseConnection)
	p.SetCID(c.cid)
	if err := via.Send(p); err != nil {
		return nil, err
	}
	r, err := via.Await(p.ITT(), pdu.OpLogoutResponse)
	if err != nil {
		return nil, err
	}
	// The target may have noticed by itself, and have forgotten the number.
	if a := pdu.LogoutResponse(r.Response()); a != pdu.LogoutSuccess && a != pdu.LogoutCIDNotFound {
		return nil, fmt.Errorf("logout of connection %d: %v", c.cid, a)
	}
	if err := s.fill(c, via); err != nil {
		return nil, err
	}
	var left []*Command
	for _, t := range c.tasks {
		left = append(left, t.c)
	}
	c.tasks = make(map[uint32]*Task)
	return left, nil
}

// fill sends a NOP-Out under every number that c took and that the target has not
// acknowledged. Those that it has already are dropped as duplicates (§4.2.2.1).
func (s *Session) fill(c, via *Conn) error {
	var sns []uint32
	s.mu.Lock()
	for sn := s.exp; pdu.SNLess(sn, s.cmdSN); sn++ {
		if s.owner[sn] == c {
			sns = append(sns, sn)
			s.owner[sn] = via
		}
	}
	s.mu.Unlock()
	for _, sn := range sns {
		p := new(PDU)
		p.Reset(pdu.OpNOPOut)
		p.SetITT(via.NextITT())
		p.SetTTT(pdu.ReservedTag)
		p.SetCmdSN(sn)
		p.SetExpStatSN(via.ExpStatSN)
		if via.loose == nil {
			via.loose = make(map[uint32]bool)
		}
		via.loose[p.ITT()] = true
		if err := via.Send(p); err != nil {
			return err
		}
	}
	return nil
}

// takeCmdSN takes the CmdSN of a request that has to be sent at once.
func (c *Conn) takeCmdSN(immediate bool) uint32 {
	if c.sess != nil {
		sn, _ := c.sess.take(c, immediate, true)
		return sn
	}
	sn := c.CmdSN
	if !immediate {
		c.CmdSN++
	}
	return sn
}

// awaitCmdSN takes the CmdSN of a command, waiting for the window.
func (c *Conn) awaitCmdSN(immediate bool) (uint32, error) {
	end := time.Now().Add(c.Timeout)
	for {
		switch {
		case c.sess != nil:
			if sn, ok := c.sess.take(c, immediate, false); ok {
				return sn, nil
			}
		case immediate || pdu.SNLessEq(c.CmdSN, c.MaxCmdSN):
			return c.takeCmdSN(immediate), nil
		}
		if c.sess != nil && len(c.tasks) == 0 {
			// What opens the window comes on another connection.
			if time.Now().After(end) {
				return 0, fmt.Errorf("the command window stays closed")
			}
			time.Sleep(time.Millisecond)
			continue
		}
		if err := c.Pump(); err != nil {
			return 0, fmt.Errorf("waiting for the command window: %w", err)
		}
	}
}
