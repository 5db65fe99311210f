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

// pollFD is struct pollfd.
type pollFD struct {
	fd              int32
	events, revents int16
}

// EventfdNotify is EventfdSignal for a descriptor whose flags and count are somebody
// else's: where a write would have to wait, since the owner has filled the count, it
// is not tried and full is true. One that is filled between the look and the write
// holds this thread, and no garbage collection, until its owner reads it: Linux has
// no write to an eventfd that never sleeps.
//
// Where the owner has it not block, as QEMU has all of its own, one look at its flags
// says that: 100 ns, where ppoll takes 300.
func EventfdNotify(fd int) (full bool, e Errno) {
	for {
		flags, _, e := unix.RawSyscall(unix.SYS_FCNTL, uintptr(fd), unix.F_GETFL, 0)
		if e != 0 {
			return false, e
		}
		if flags&unix.O_NONBLOCK == 0 {
			if full, e := eventfdFull(fd); full || e != 0 {
				return full, e
			}
		}
		_, _, e = unix.Syscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&one)), 8)
		switch e {
		case unix.EINTR:
		case unix.EAGAIN:
			return true, 0
		default:
			return false, e
		}
	}
}

// eventfdFull tells whether a write to the eventfd would have to wait.
func eventfdFull(fd int) (bool, Errno) {
	for {
		p := pollFD{fd: int32(fd), events: unix.POLLOUT}
		var ts unix.Timespec
		n, _, e := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&ts)), 0, 8, 0)
		switch {
		case e == unix.EINTR:
			continue
		case e != 0:
			return false, e
		case p.revents&unix.POLLNVAL != 0:
			return false, unix.EBADF
		}
		return n == 0 || p.revents&unix.POLLOUT == 0, 0
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
