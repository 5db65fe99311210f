package sys

import "golang.org/x/sys/unix"

// Errno is a kernel error number; it is the same type as syscall.Errno.
type Errno = unix.Errno

// The error numbers that callers compare with on hot paths.
const (
	EAGAIN    = unix.EAGAIN
	EBUSY     = unix.EBUSY
	ECANCELED = unix.ECANCELED
	EINTR     = unix.EINTR
	EINVAL    = unix.EINVAL
	ETIME     = unix.ETIME
)
