package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// UringSetup makes an io_uring and fills p.
func UringSetup(entries uint32, p *UringParams) (int, Errno) {
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(p)), 0)
	if e != 0 {
		return -1, e
	}
	return int(fd), 0
}

// UringEnter submits and fetches without waiting; it does not sleep.
func UringEnter(fd int, submit uint32, flags uintptr) (int, Errno) {
	r, _, e := unix.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(fd), uintptr(submit), 0, flags, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(r), 0
}

// UringWait submits and waits for at least one completion; arg (nil: no limit)
// bounds the wait. The kernel's answers EINTR and ETIME are passed on.
func UringWait(fd int, submit uint32, arg *UringWaitArg) (int, Errno) {
	flags := uintptr(UringEnterGetEvents)
	var size uintptr
	if arg != nil {
		flags |= UringEnterExtArg
		size = unsafe.Sizeof(*arg)
	}
	r, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(fd), uintptr(submit), 1, flags, uintptr(unsafe.Pointer(arg)), size)
	if e != 0 {
		return 0, e
	}
	return int(r), 0
}

// SetTimeout makes a wait end after ns nanoseconds. ts holds the time for the
// kernel: it lives on the heap, beside a, for as long as a is in use.
func (a *UringWaitArg) SetTimeout(ns int64, ts *Timespec) {
	ts.set(ns)
	a.TS = uint64(uintptr(unsafe.Pointer(ts)))
}
