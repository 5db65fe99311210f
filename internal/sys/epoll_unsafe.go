package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// EpollCtl changes the interest list of epfd. It does not sleep.
func EpollCtl(epfd, op, fd int, ev *EpollEvent) Errno {
	_, _, e := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epfd), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(ev)), 0, 0)
	return e
}

// EpollPoll fetches what is ready now, at most len(evs) events, without
// sleeping.
func EpollPoll(epfd int, evs []EpollEvent) (int, Errno) {
	r, _, e := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epfd), uintptr(unsafe.Pointer(&evs[0])), uintptr(len(evs)), 0, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(r), 0
}

// EpollWait waits until something is ready or ns nanoseconds have passed (ns < 0:
// without limit). EINTR is reported as no event: the caller looks at its clock
// anyhow. ts is the caller's memory for the time limit.
func EpollWait(epfd int, evs []EpollEvent, ns int64, ts *Timespec) (int, Errno) {
	var p unsafe.Pointer
	if ns >= 0 {
		ts.set(ns)
		p = unsafe.Pointer(ts)
	}
	r, _, e := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(epfd), uintptr(unsafe.Pointer(&evs[0])), uintptr(len(evs)), uintptr(p), 0, 0)
	if e == unix.ENOSYS { // before Linux 5.11: milliseconds, rounded up
		ms := -1
		if ns >= 0 {
			ms = int(min((ns+999_999)/1_000_000, 1<<30))
		}
		r, _, e = unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(epfd), uintptr(unsafe.Pointer(&evs[0])), uintptr(len(evs)), uintptr(ms), 0, 0)
	}
	if e == unix.EINTR {
		return 0, 0
	}
	if e != 0 {
		return 0, e
	}
	return int(r), 0
}
