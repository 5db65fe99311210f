package hosttest

import (
	"net/netip"
	"os"
	"syscall"
	"testing"
)

// Reserve takes a free TCP port of 127.0.0.1 that nobody else is given until release:
// a socket is bound to it that does not listen. A server that names the port may bind
// it all the same, and again after its end, when it sets SO_REUSEADDR as servers do.
// A port that was only looked for and let go of may be another process's a moment
// later: that of a client's connection, too.
func Reserve() (port netip.AddrPort, release func(), err error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return port, nil, os.NewSyscallError("socket", err)
	}
	release = func() { syscall.Close(fd) }
	if err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		release()
		return port, nil, os.NewSyscallError("setsockopt", err)
	}
	if err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		release()
		return port, nil, os.NewSyscallError("bind", err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		release()
		return port, nil, os.NewSyscallError("getsockname", err)
	}
	a := sa.(*syscall.SockaddrInet4)
	return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)), release, nil
}

// Port is [Reserve] until the test ends.
func Port(t testing.TB) netip.AddrPort {
	t.Helper()
	port, release, err := Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return port
}
