package iscsi

import (
	"net"
	"net/netip"
	"time"
)

// Logins under way are few: in all and for each address, so that who opens
// connections without end, or says nothing on them, takes no memory and keeps only
// himself out. Those beyond the limits wait, as sockets that nobody reads; who has
// fewest logins under way is next.

// halfOpen are the connections in login. All of it belongs to Server.mu.
type halfOpen struct {
	active  map[net.Conn]netip.Addr
	peers   map[netip.Addr]*loginPeer
	waiting int
}

// loginPeer is an address that logins come from.
type loginPeer struct {
	active int
	queue  []waitingLogin // oldest first
}

type waitingLogin struct {
	nc    net.Conn
	since time.Time
}

func newHalfOpen() halfOpen {
	return halfOpen{active: make(map[net.Conn]netip.Addr), peers: make(map[netip.Addr]*loginPeer)}
}

// peerAddr is what counts as one peer: an IPv4 address, or the 64 bits of an IPv6
// address that its network gives out.
func peerAddr(nc net.Conn) netip.Addr {
	ap, err := netip.ParseAddrPort(nc.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	a := ap.Addr().Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// enter begins the login of nc, has it wait for its turn, or closes it.
func (s *Server) enter(nc net.Conn) {
	a := peerAddr(nc)
	s.mu.Lock()
	h, l := &s.halfOpen, &s.limits
	p := h.peers[a]
	if p == nil {
		p = new(loginPeer)
		h.peers[a] = p
	}
	full := false
	switch {
	case s.closed:
		h.tidy(a)
		nc.Close()
	case len(h.active) < l.HalfOpen && p.active < l.HalfOpenPerPeer:
		s.begin(nc, a, p)
	case h.waiting < l.LoginQueue && len(p.queue) < max(l.LoginQueue/2, 1):
		p.queue = append(p.queue, waitingLogin{nc, time.Now()})
		h.waiting++
	default:
		full = true
		h.tidy(a)
	}
	s.mu.Unlock()
	if full {
		nc.Close()
		if s.journal.note(tooManyLogins) {
			s.journal.line(tooManyLogins, "too many logins under way, connection closed", "limit", l.HalfOpen, "peer", nc.RemoteAddr().String())
		}
	}
}

// begin starts the login of nc. mu is held.
func (s *Server) begin(nc net.Conn, a netip.Addr, p *loginPeer) {
	p.active++
	s.halfOpen.active[nc] = a
	s.handshakes.Add(1)
	go s.handshake(nc)
}

// leave ends the login of nc, if it has not been ended before, and lets others begin.
// mu is held.
func (s *Server) leave(nc net.Conn) {
	h := &s.halfOpen
	a, ok := h.active[nc]
	if !ok {
		return
	}
	delete(h.active, nc)
	h.peers[a].active--
	h.tidy(a)
	for h.waiting > 0 && len(h.active) < s.limits.HalfOpen && s.next() {
	}
}

// next begins the login that has waited longest among those of the addresses with the
// fewest under way; false: none may begin. mu is held.
func (s *Server) next() bool {
	h := &s.halfOpen
	var best *loginPeer
	var addr netip.Addr
	old := time.Now().Add(-s.limits.LoginTimeout)
	for a, p := range h.peers {
		for len(p.queue) > 0 && (s.closed || p.queue[0].since.Before(old)) {
			p.queue[0].nc.Close()
			h.shift(p)
		}
		if len(p.queue) == 0 {
			h.tidy(a)
			continue
		}
		if p.active < s.limits.HalfOpenPerPeer &&
			(best == nil || p.active < best.active || p.active == best.active && p.queue[0].since.Before(best.queue[0].since)) {
			best, addr = p, a
		}
	}
	if best == nil {
		return false
	}
	nc := best.queue[0].nc
	h.shift(best)
	s.begin(nc, addr, best)
	return true
}

func (h *halfOpen) shift(p *loginPeer) {
	p.queue[0] = waitingLogin{}
	if p.queue = p.queue[1:]; len(p.queue) == 0 {
		p.queue = nil
	}
	h.waiting--
}

// tidy forgets an address that nothing comes from.
func (h *halfOpen) tidy(a netip.Addr) {
	if p := h.peers[a]; p != nil && p.active == 0 && len(p.queue) == 0 {
		delete(h.peers, a)
	}
}

// closeAll closes every connection in login. mu is held.
func (h *halfOpen) closeAll() {
	for nc := range h.active {
		nc.Close()
	}
	for a, p := range h.peers {
		for len(p.queue) > 0 {
			p.queue[0].nc.Close()
			h.shift(p)
		}
		h.tidy(a)
	}
}
