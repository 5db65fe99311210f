package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// one is what EventfdSignal writes, in the machine's byte order; never changed.
var one uint64 = 1

// EventfdSignal adds 1 to the eventfd's count. It does not sleep: a count at
// its maximum (EAGAIN) is readable already.
func EventfdSignal(fd int) Errno {
	for {
		_, _, e := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&one)), 8)
		if e == unix.EINTR {
			continue
		}
		if e == unix.EAGAIN {
			return 0
		}
		return e
	}
}

// EventfdDrain reads the eventfd's count and sets it to 0; 0 when nothing was
// signalled.
func EventfdDrain(fd int) (uint64, Errno) {
	var n uint64
	for {
		_, _, e := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&n)), 8)
		switch e {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return 0, 0
		}
		return n, e
	}
}

// EventfdTake is EventfdDrain for a descriptor whose flags are somebody else's: it
// does not sleep where the description is in blocking mode either. Before Linux 5.8
// it answers EOPNOTSUPP.
func EventfdTake(fd int) (uint64, Errno) {
	var n uint64
	v := Iovec{Base: (*byte)(unsafe.Pointer(&n)), Len: 8}
	for {
		// Offset -1: the file has no position.
		_, _, e := unix.RawSyscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(&v)), 1, ^uintptr(0), ^uintptr(0), RWF_NOWAIT)
		switch e {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return 0, 0
		}
		return n, e
	}
}
