package sys

import "golang.org/x/sys/unix"

// LockShared puts an OFD read lock on the n bytes at off. It does not wait:
// EAGAIN or EACCES when another description holds a write lock there. The lock
// belongs to the open file description and ends with it.
func LockShared(fd int, off, n int64) error { return ofd(fd, unix.F_RDLCK, off, n) }

// Unlock removes OFD locks of this description on the n bytes at off.
func Unlock(fd int, off, n int64) error { return ofd(fd, unix.F_UNLCK, off, n) }

func ofd(fd int, typ int16, off, n int64) error {
	l := unix.Flock_t{Type: typ, Whence: unix.SEEK_SET, Start: off, Len: n}
	for {
		err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &l)
		if err != unix.EINTR {
			return err
		}
	}
}

// Locked reports whether another open file description holds any lock on the
// byte at off. Locks of fd's own description do not count.
func Locked(fd int, off int64) (bool, error) {
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: unix.SEEK_SET, Start: off, Len: 1}
	for {
		l.Type = unix.F_WRLCK
		err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &l)
		if err == unix.EINTR {
			continue
		}
		return err == nil && l.Type != unix.F_UNLCK, err
	}
}
