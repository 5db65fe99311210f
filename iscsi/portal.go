package iscsi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// DefaultPort is iSCSI's port (RFC 7143 §4.2.7.3).
const DefaultPort = 3260

// Portal is an address that the server listens to.
type Portal struct {
	srv  *Server
	ln   net.Listener
	addr netip.AddrPort
}

// Addr is the address with the port that was given or chosen (port 0).
func (p *Portal) Addr() netip.AddrPort { return p.addr }

// Listen opens a portal at addr: "host", "host:port", "[v6]:port", ":port"; without a
// port at 3260.
func (s *Server) Listen(addr string) (*Portal, error) {
	full := addr
	if _, _, err := net.SplitHostPort(addr); err != nil {
		full = net.JoinHostPort(trimBrackets(addr), fmt.Sprint(DefaultPort))
	}
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", full)
	if err != nil {
		return nil, listenError(full, err)
	}
	return s.Serve(ln)
}

func trimBrackets(h string) string {
	if n := len(h); n > 2 && h[0] == '[' && h[n-1] == ']' {
		return h[1 : n-1]
	}
	return h
}

// listenError says what to do.
func listenError(addr string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("iscsi: portal %s is in use by another program (`ss -ltnp` shows which): stop it, or choose another address or port: %w", addr, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("iscsi: portal %s is not an address of this host (`ip address` lists them): %w", addr, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("iscsi: portal %s needs a privilege: choose a port from 1024 up, 3260 as a rule: %w", addr, err)
	}
	return fmt.Errorf("iscsi: portal %s: give it as address:port: %w", addr, err)
}

// ListenFile opens a portal on an inherited listening socket (systemd socket
// activation). f is not needed afterwards and remains the caller's.
func (s *Server) ListenFile(f *os.File) (*Portal, error) {
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("iscsi: inherited descriptor %q is no listening stream socket: %w", f.Name(), err)
	}
	if _, ok := ln.(*net.TCPListener); !ok {
		ln.Close()
		return nil, fmt.Errorf("iscsi: inherited descriptor %q is no TCP socket", f.Name())
	}
	return s.Serve(ln)
}

// Serve opens a portal on ln, which becomes the server's. Its connections must be
// TCP.
func (s *Server) Serve(ln net.Listener) (*Portal, error) {
	a, err := netip.ParseAddrPort(ln.Addr().String())
	if err != nil {
		ln.Close()
		return nil, fmt.Errorf("iscsi: portal %s is no TCP address: %w", ln.Addr(), err)
	}
	p := &Portal{srv: s, ln: ln, addr: unmap(a)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		ln.Close()
		return nil, errClosed
	}
	s.portals[p] = struct{}{}
	s.handshakes.Add(1)
	go p.accept()
	return p, nil
}

// Close stops listening. Sessions that came in by the portal go on.
func (p *Portal) Close() error { return p.ln.Close() }

func (p *Portal) accept() {
	s := p.srv
	defer s.handshakes.Done()
	defer func() {
		s.mu.Lock()
		delete(s.portals, p)
		s.mu.Unlock()
	}()
	var pause time.Duration
	for {
		nc, err := p.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.awaitThaw(p)
			continue
		}
		if err != nil {
			// Out of descriptors, say: the next attempt may do better.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.log.Warn("iscsi: accept", "portal", p.addr.String(), "error", err, "retry", pause)
			time.Sleep(pause)
			continue
		}
		pause = 0
		s.enter(nc)
	}
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
