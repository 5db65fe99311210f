package main

import (
	"fmt"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Addresses of QEMU's user networking: the guest, and the host's 127.0.0.1 as
// the guest sees it, which is its gateway too.
var (
	guestIP = net.IPv4(10, 0, 2, 15).To4()
	hostIP  = net.IPv4(10, 0, 2, 2).To4()
	netmask = net.IPv4(255, 255, 255, 0).To4()
)

// network brings up lo and, where there is one, eth0.
func network() {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		fmt.Println("init: network:", err)
		return
	}
	defer unix.Close(s)
	_ = ifUp(s, "lo")
	if _, err := net.InterfaceByName("eth0"); err != nil {
		return
	}
	err = ifAddr(s, "eth0", unix.SIOCSIFADDR, guestIP)
	if err == nil {
		err = ifAddr(s, "eth0", unix.SIOCSIFNETMASK, netmask)
	}
	if err == nil {
		err = ifUp(s, "eth0")
	}
	if err == nil {
		err = defaultRoute(s, hostIP)
	}
	if err != nil {
		fmt.Println("init: eth0:", err)
	}
}

// ifreq is struct ifreq of netdevice(7) with a sockaddr_in.
type ifreq struct {
	name [16]byte
	addr sockaddrIn
	_    [8]byte
}

type sockaddrIn struct {
	family uint16
	port   uint16
	ip     [4]byte
	_      [8]byte
}

func ifAddr(s int, name string, req uintptr, ip net.IP) error {
	var r ifreq
	copy(r.name[:15], name)
	r.addr.family = unix.AF_INET
	copy(r.addr.ip[:], ip)
	return ioctl(s, req, unsafe.Pointer(&r))
}

func ifUp(s int, name string) error {
	var r struct {
		name  [16]byte
		flags int16
		_     [22]byte
	}
	copy(r.name[:15], name)
	if err := ioctl(s, unix.SIOCGIFFLAGS, unsafe.Pointer(&r)); err != nil {
		return err
	}
	r.flags |= unix.IFF_UP
	return ioctl(s, unix.SIOCSIFFLAGS, unsafe.Pointer(&r))
}

// rtentry is struct rtentry of linux/route.h on 64-bit machines.
type rtentry struct {
	_                 uint64
	dst, gw, mask     sockaddrIn
	flags             uint16
	_                 [6]byte
	_                 [5]uint64
	mtu, window, irtt uint64
}

func defaultRoute(s int, gw net.IP) error {
	r := rtentry{flags: unix.RTF_UP | unix.RTF_GATEWAY}
	r.dst.family, r.mask.family, r.gw.family = unix.AF_INET, unix.AF_INET, unix.AF_INET
	copy(r.gw.ip[:], gw)
	return ioctl(s, unix.SIOCADDRT, unsafe.Pointer(&r))
}

func ioctl(fd int, req uintptr, p unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(p)); e != 0 {
		return e
	}
	return nil
}
