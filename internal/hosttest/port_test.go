package hosttest

import (
	"net"
	"net/netip"
	"syscall"
	"testing"
)

// ipLocalPortRange is IP_LOCAL_PORT_RANGE of linux/in.h, Linux 6.3: from which ports
// a socket is given one.
const ipLocalPortRange = 51

// given is the error of a socket that takes any free port, as far as that is p.
func given(t *testing.T, p netip.AddrPort, use func(fd int) error) error {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, ipLocalPortRange, int(p.Port())<<16|int(p.Port())); err != nil {
		t.Skip("IP_LOCAL_PORT_RANGE:", err)
	}
	return use(fd)
}

// TestPort: a server has the port it names, and has it again after its end.
func TestPort(t *testing.T) {
	p := Port(t)
	for range 2 {
		ln, err := net.Listen("tcp", p.String())
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", p.String())
		if err != nil {
			t.Fatal(err)
		}
		a, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		// The server ends first: its side is the one that lingers.
		a.Close()
		ln.Close()
		c.Close()
	}
}

// TestReserve: who takes any port is not given a reserved one.
func TestReserve(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client := func(fd int) error {
		return syscall.Connect(fd, &syscall.SockaddrInet4{Port: ln.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}})
	}
	server := func(fd int) error {
		return syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	for _, x := range []struct {
		name string
		use  func(int) error
		want error
	}{{"server", server, syscall.EADDRINUSE}, {"client", client, syscall.EADDRNOTAVAIL}} {
		p, release, err := Reserve()
		if err != nil {
			t.Fatal(err)
		}
		if err := given(t, p, x.use); err != x.want {
			t.Errorf("a %s was given a reserved port: %v", x.name, err)
		}
		release()
		if err := given(t, p, x.use); err != nil {
			t.Errorf("a %s is not given a port that was let go of: %v", x.name, err)
		}
	}
}
