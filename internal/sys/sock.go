package sys

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// DupSocket duplicates the descriptor under rc (a net.Conn's or net.Listener's
// SyscallConn) with close-on-exec set. The copy shares the open file description,
// which the net package has set non-blocking and this leaves so; the caller closes
// the original (whereby the runtime's poller lets go of it) and owns the copy.
func DupSocket(rc syscall.RawConn) (fd int, err error) {
	fd = -1
	var derr error
	if err := rc.Control(func(s uintptr) {
		fd, derr = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 3)
	}); err != nil {
		return -1, err
	}
	if derr != nil {
		return -1, os.NewSyscallError("fcntl(F_DUPFD_CLOEXEC)", derr)
	}
	// What the net package promises only by its present practice.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("fcntl(O_NONBLOCK)", err)
	}
	return fd, nil
}

// CloseSocket ends the conversation on fd in both directions and closes fd.
func CloseSocket(fd int) error {
	// The description may be shared (a copy in a forked child): shutdown acts
	// on all of them.
	_ = unix.Shutdown(fd, unix.SHUT_RDWR)
	return unix.Close(fd)
}
