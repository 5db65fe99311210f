package sys

import (
	"errors"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// RightsSpace is the length in bytes of a buffer for the ancillary data that bring n
// descriptors (unix(7), SCM_RIGHTS).
func RightsSpace(n int) int { return unix.CmsgSpace(4 * n) }

// Rights makes the ancillary data that pass descriptors to another process, which gets
// copies.
func Rights(fds ...int) []byte {
	if len(fds) == 0 {
		return nil
	}
	return unix.UnixRights(fds...)
}

// Errors of ParseRights.
var (
	ErrTruncated = errors.New("more descriptors came than there is room for")
	ErrAncillary = errors.New("ancillary data that are no descriptors")
)

// ParseRights appends to fds the descriptors that came with a message: oob is its
// ancillary data and flags its flags, as net.UnixConn.ReadMsgUnix returns them. The
// descriptors are the caller's to close, those that come with an error too.
func ParseRights(fds []int, oob []byte, flags int) ([]int, error) {
	var err error
	if len(oob) > 0 {
		ms, perr := unix.ParseSocketControlMessage(oob)
		if perr != nil {
			err = ErrAncillary
		}
		for i := range ms {
			got, rerr := unix.ParseUnixRights(&ms[i])
			if rerr != nil {
				err = ErrAncillary
				continue
			}
			fds = append(fds, got...)
		}
	}
	if flags&unix.MSG_CTRUNC != 0 {
		err = ErrTruncated
	}
	return fds, err
}

// PeerCred tells who is at the other end of a UNIX socket, as the kernel noted it when
// the connection was made (SO_PEERCRED).
func PeerCred(rc syscall.RawConn) (pid, uid int, err error) {
	var uc *unix.Ucred
	var cerr error
	if err := rc.Control(func(s uintptr) {
		uc, cerr = unix.GetsockoptUcred(int(s), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, 0, err
	}
	if cerr != nil {
		return 0, 0, os.NewSyscallError("getsockopt(SO_PEERCRED)", cerr)
	}
	return int(uc.Pid), int(uc.Uid), nil
}

// Dup duplicates fd, with close-on-exec set.
func Dup(fd int) (int, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1, os.NewSyscallError("fcntl(F_DUPFD_CLOEXEC)", err)
	}
	return n, nil
}

// IsEventfd tells whether fd is an eventfd. Where /proc is not to be had it can tell it
// from files and sockets only.
func IsEventfd(fd int) bool {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != 0 {
		return false // a file, a socket, a pipe
	}
	s, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	return err != nil || s == "anon_inode:[eventfd]"
}

// SealSize makes the size of a memfd final, for everybody who has it.
func SealSize(fd int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	if err != nil {
		return os.NewSyscallError("fcntl(F_ADD_SEALS)", err)
	}
	return nil
}
