package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// MaxParcel is how many descriptors a parcel holds (SCM_MAX_FD).
const MaxParcel = 253

// NewParcel makes a socket in which one message waits: b, with copies of fds. Whoever
// gets the socket has them, and they stay open as long as it.
func NewParcel(b []byte, fds []int) (int, error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socketpair", err)
	}
	defer unix.Close(p[1])
	if err := unix.Sendmsg(p[1], b, Rights(fds...), nil, unix.MSG_DONTWAIT); err != nil {
		unix.Close(p[0])
		return -1, os.NewSyscallError("sendmsg", err)
	}
	return p[0], nil
}

// PeekParcel reads what is in a parcel, which stays as it is: n bytes into b, and
// descriptors, which are the caller's to close, also where they come with an error.
func PeekParcel(fd int, b []byte) (n int, fds []int, err error) {
	oob := make([]byte, RightsSpace(MaxParcel))
	n, oobn, flags, _, err := unix.Recvmsg(fd, b, oob, unix.MSG_PEEK|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, nil, os.NewSyscallError("recvmsg", err)
	}
	fds, err = ParseRights(nil, oob[:oobn], flags)
	return n, fds, err
}

// HungUp tells whether the other side of a connected socket is gone and has left
// nothing to read.
func HungUp(fd int) bool {
	var b [1]byte
	n, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return n <= 0 && err != unix.EAGAIN && err != unix.EINTR
}
