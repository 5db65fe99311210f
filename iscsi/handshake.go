package iscsi

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/iscsi/login"
	"github.com/vtgt/vtgt/iscsi/pdu"
)

// wire reads and writes PDUs on a net.Conn, for login and discovery. What it has read
// beyond the last PDU is in buf[r:w].
type wire struct {
	nc    net.Conn
	buf   []byte
	r, w  int
	hd    bool
	dd    bool
	limit int // of a data segment, bytes
	out   []byte
	// headerOnly, where not nil, says that no more than the header is wanted.
	headerOnly func(h *pdu.BHS) bool
}

// A wire's buffer begins small: a peer gets more only by sending more.
const minWire, maxWire = 1 << 10, 16 << 10

func newWire(nc net.Conn) *wire {
	return &wire{nc: nc, buf: make([]byte, minWire), limit: login.MaxLoginSegment}
}

// need makes n unread bytes available; n <= maxWire.
func (x *wire) need(n int) ([]byte, error) {
	for x.w-x.r < n {
		if x.r > 0 {
			x.w = copy(x.buf, x.buf[x.r:x.w])
			x.r = 0
		}
		if x.w == len(x.buf) {
			x.buf = append(x.buf, make([]byte, min(len(x.buf), maxWire-len(x.buf)))...)
		}
		m, err := x.nc.Read(x.buf[x.w:])
		x.w += m
		if m == 0 && err != nil {
			if err == io.EOF && x.w > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return x.buf[x.r : x.r+n], nil
}

// read reads one PDU. data holds until the next read; it is nil, and nothing can be
// read any more, where the segment is too long or headerOnly says so.
func (x *wire) read(h *pdu.BHS) (data []byte, err error) {
	b, err := x.need(pdu.BHSLen)
	if err != nil {
		return nil, err
	}
	copy(h[:], b)
	if x.headerOnly != nil && x.headerOnly(h) {
		return nil, nil
	}
	n := pdu.BHSLen + h.AHSLength()
	if x.hd {
		n += pdu.DigestLen
	}
	if b, err = x.need(n); err != nil {
		return nil, err
	}
	if x.hd && pdu.Digest(0, b[:n-pdu.DigestLen]) != pdu.ReadDigest(b[n-pdu.DigestLen:]) {
		return nil, fmt.Errorf("header digest error")
	}
	x.r += n
	dsl := h.DataSegmentLength()
	if dsl == 0 {
		return nil, nil
	}
	if dsl > x.limit {
		return nil, nil
	}
	n = pdu.PaddedLen(dsl)
	if x.dd {
		n += pdu.DigestLen
	}
	if b, err = x.need(n); err != nil {
		return nil, err
	}
	if x.dd && pdu.Digest(0, b[:n-pdu.DigestLen]) != pdu.ReadDigest(b[n-pdu.DigestLen:]) {
		return nil, fmt.Errorf("data digest error")
	}
	x.r += n
	return b[:dsl], nil
}

// write writes one PDU with data; the header's DataSegmentLength is set.
func (x *wire) write(h *pdu.BHS, data []byte) error {
	h.SetDataSegmentLength(len(data))
	x.out = append(x.out[:0], h[:]...)
	var d [pdu.DigestLen]byte
	if x.hd {
		pdu.PutDigest(d[:], pdu.Digest(0, h[:]))
		x.out = append(x.out, d[:]...)
	}
	if n := len(data); n > 0 {
		x.out = append(x.out, data...)
		for range pdu.Pad(n) {
			x.out = append(x.out, 0)
		}
		if x.dd {
			pdu.PutDigest(d[:], pdu.DigestPad(pdu.Digest(0, data), n))
			x.out = append(x.out, d[:]...)
		}
	}
	_, err := x.nc.Write(x.out)
	return err
}

// handshake runs a connection's login and what follows it: the move to a loop, or the
// discovery session.
func (s *Server) handshake(nc net.Conn) {
	defer s.handshakes.Done()
	err := s.runLogin(nc)
	nc.Close()
	s.mu.Lock()
	s.leave(nc)
	delete(s.discoveries, nc)
	closed := s.closed
	s.mu.Unlock()
	if err == nil || closed {
		return
	}
	kind, args := badLogin, []any{"peer", nc.RemoteAddr().String(), "error", err}
	if r := (*refusedLogin)(nil); errors.As(err, &r) {
		if r.status.Class() == 1 {
			return // redirected
		}
		kind, args = r.complaint(), append(args, "initiator", r.initiator, "target", r.target)
	}
	if s.journal.note(kind) {
		s.journal.line(kind, "login failed", args...)
	}
}

func (s *Server) runLogin(nc net.Conn) error {
	if err := nc.SetDeadline(time.Now().Add(s.limits.LoginTimeout)); err != nil {
		return err
	}
	local, _ := netip.ParseAddrPort(nc.LocalAddr().String())
	remote, _ := netip.ParseAddrPort(nc.RemoteAddr().String())
	info := SessionInfo{Portal: nc.LocalAddr().String(), Peer: nc.RemoteAddr().String(), local: unmap(local), remote: unmap(remote).Addr()}
	var sess *session
	var why error
	cfg := s.login
	e := &entrance{srv: s, peer: info.remote, next: cfg.Auth}
	cfg.Lookup, cfg.Auth = e.lookup, e
	cfg.Admit = func(p *login.Params) (st pdu.LoginStatus) {
		info.Target, info.Initiator, info.ISID = p.TargetName, p.InitiatorName, p.ISID
		info.nameOnly = e.nameOnly
		if p.Discovery {
			p.TSIH = 1
			return s.admitDiscovery()
		}
		sess, st, why = s.admit(p, info)
		return st
	}
	m := login.New(cfg)
	x := newWire(nc)
	x.headerOnly = m.HeaderOnly
	fail := func(err error) error {
		if sess != nil {
			sess.l.Do(sess.unjoin)
		}
		return err
	}
	first := true
	for {
		var h pdu.BHS
		data, err := x.read(&h)
		if err != nil {
			if first && err == io.EOF {
				return nil // a probe of the port: nothing was said
			}
			return fail(err)
		}
		first = false
		resp, text, st := m.Step(&h, data)
		if st != login.Drop {
			s.stamp(&h, resp)
			if err := x.write(resp, text); err != nil {
				return fail(err)
			}
		}
		switch st {
		case login.More:
			continue
		case login.Done:
		default:
			err := m.Err()
			switch {
			case why != nil:
				err = why
			case err == nil:
				err = fmt.Errorf("refused: %v", m.Status())
			}
			p := m.Params()
			return fail(&refusedLogin{m.Status(), p.InitiatorName, p.TargetName, err})
		}
		break
	}
	x.headerOnly = nil
	p := m.Params()
	if p.Discovery {
		s.enterDiscovery(nc)
		return s.discover(x, p, info)
	}
	if sess == nil {
		return fmt.Errorf("no session")
	}
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return fail(fmt.Errorf("no socket"))
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return fail(err)
	}
	fd, err := sys.DupSocket(rc)
	if err != nil {
		return fail(err)
	}
	// The poller of package net must have let go before a loop takes the socket.
	nc.Close()
	s.mu.Lock()
	s.logins++
	s.mu.Unlock()
	info.TSIH, info.InitiatorAlias = p.TSIH, p.InitiatorAlias
	s.log.Info("iscsi: connection", "target", p.TargetName, "initiator", p.InitiatorName, "peer", info.Peer,
		"portal", info.Portal, "TSIH", p.TSIH, "CID", p.CID, "headerDigest", p.HeaderDigest, "dataDigest", p.DataDigest)
	return sess.start(&tcp{fd: fd}, &p, &info, x.buf[x.r:x.w])
}

// further judges a login into a session that exists already (TSIH not 0) and finds
// what its leading connection has agreed upon. Under mu.
func (s *Server) further(p *login.Params, nameOnly bool) (*login.Params, pdu.LoginStatus) {
	if p.TSIH == 0 {
		return nil, pdu.LoginSuccess
	}
	x := s.sessions[keyOf(p, nameOnly)]
	if x == nil || !x.admitted || x.info.TSIH != p.TSIH || x.params.ISID != p.ISID {
		return nil, pdu.LoginSessionDoesNotExist
	}
	return &x.params, pdu.LoginSuccess
}

// stamp puts the session's own window into the response to a login that is to join it:
// the CmdSN of the request says nothing about what has arrived on other connections
// (RFC 7143 §11.12.8).
func (s *Server) stamp(h, resp *pdu.BHS) {
	tsih := h.TSIH()
	if tsih == 0 {
		return
	}
	s.mu.Lock()
	var x *session
	for _, o := range s.sessions {
		if o.admitted && o.info.TSIH == tsih && o.params.ISID == h.ISID() {
			x = o
		}
	}
	s.mu.Unlock()
	if x != nil {
		x.l.Do(func() { resp.SetSNs(resp.StatSN(), x.expCmdSN, x.maxCmdSN) })
	}
}
