package daemon

import (
	"net"
	"net/netip"
	"os"
)

// inherited are listening sockets that whoever started the process has bound
// (systemd's socket activation). They stay open as long as the engine: a portal or
// vhost-user export that is removed and added again finds its socket.
type inherited []inheritedSocket

type inheritedSocket struct {
	f    *os.File
	addr netip.AddrPort // of a TCP socket
	path string         // of a UNIX socket
}

// inherit keeps those of the files that are TCP or UNIX sockets which listen; the
// caller closes all.
func inherit(files []*os.File) (in inherited) {
	for _, f := range files {
		ln, err := net.FileListener(f)
		if err != nil {
			continue
		}
		switch a := ln.Addr().(type) {
		case *net.TCPAddr:
			in = append(in, inheritedSocket{f: f, addr: unmapped(a.AddrPort())})
		case *net.UnixAddr:
			in = append(in, inheritedSocket{f: f, path: a.Name})
		}
		ln.Close() // the copy; f stays
	}
	return in
}

// unix gives a listener on the UNIX socket at path, nil where none was inherited. To
// close it does not remove the socket.
func (in inherited) unix(path string) *net.UnixListener {
	for _, s := range in {
		if s.path != path {
			continue
		}
		if ln, err := net.FileListener(s.f); err == nil {
			if u, ok := ln.(*net.UnixListener); ok {
				return u
			}
			ln.Close()
		}
	}
	return nil
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// find gives a listener on the socket that stands for addr, nil where none does.
// [::] stands for all of 0.0.0.0 too, as systemd binds ports without an address.
func (in inherited) find(addr string) net.Listener {
	want, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil
	}
	want = unmapped(want)
	for _, s := range in {
		if !s.addr.IsValid() {
			continue
		}
		if s.addr == want || s.addr.Port() == want.Port() && s.addr.Addr() == netip.IPv6Unspecified() && want.Addr().IsUnspecified() {
			if ln, err := net.FileListener(s.f); err == nil {
				return ln
			}
		}
	}
	return nil
}
