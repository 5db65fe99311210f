package sys

import (
	"io"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MaxSockVec is the number of pieces that a SockVec takes.
const MaxSockVec = 128

// SockVec is a scatter/gather list for one non-blocking recvmsg or sendmsg on a
// stream socket. It is reused: Reset, Add…, then Recv or Send. It must live on the
// heap (inside its owner); nothing is allocated per call.
//
// The calls enter the kernel raw, without telling the Go scheduler: the buffers
// must be the process's own resident memory (not memory that a guest shares), so
// that neither end can sleep.
type SockVec struct {
	n, bytes int
	msg      unix.Msghdr
	iov      [MaxSockVec]unix.Iovec
}

// Reset empties the list and forgets its buffers.
func (v *SockVec) Reset() {
	clear(v.iov[:v.n])
	v.n, v.bytes = 0, 0
}

// Add appends b; false: the list is full. An empty b is ignored.
func (v *SockVec) Add(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	if v.n == MaxSockVec {
		return false
	}
	v.iov[v.n].Base = unsafe.SliceData(b)
	v.iov[v.n].SetLen(len(b))
	v.n++
	v.bytes += len(b)
	return true
}

// Bytes is the sum of the lengths added.
func (v *SockVec) Bytes() int { return v.bytes }

// Pieces is the number of buffers added.
func (v *SockVec) Pieces() int { return v.n }

// Recv receives what is there, at most Bytes, from socket fd. The error is
// syscall.EAGAIN when nothing is there, io.EOF when the peer has closed its side,
// or another errno. EINTR is retried.
func (v *SockVec) Recv(fd int) (int, error) {
	if v.n == 0 {
		return 0, nil
	}
	for {
		n, e := v.call(unix.SYS_RECVMSG, fd, unix.MSG_DONTWAIT)
		switch {
		case e == syscall.EINTR:
		case e != 0:
			return 0, e
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Send sends as much as the socket takes. The error is syscall.EAGAIN when it takes
// nothing now, or another errno; no SIGPIPE is raised. EINTR is retried.
func (v *SockVec) Send(fd int) (int, error) {
	if v.n == 0 {
		return 0, nil
	}
	for {
		n, e := v.call(unix.SYS_SENDMSG, fd, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch e {
		case 0:
			return n, nil
		case syscall.EINTR:
		default:
			return 0, e
		}
	}
}

func (v *SockVec) call(nr uintptr, fd, flags int) (int, syscall.Errno) {
	v.msg.Iov = &v.iov[0]
	v.msg.SetIovlen(v.n)
	n, _, e := syscall.RawSyscall(nr, uintptr(fd), uintptr(unsafe.Pointer(&v.msg)), uintptr(flags))
	runtime.KeepAlive(v)
	return int(n), e
}

// CopyIn fills the list's buffers with b, as a Recv that found b would, and returns
// how many bytes it took: for endpoints that are not sockets.
func (v *SockVec) CopyIn(b []byte) int {
	done := 0
	for i := 0; i < v.n && done < len(b); i++ {
		done += copy(unsafe.Slice(v.iov[i].Base, v.iov[i].Len), b[done:])
	}
	return done
}

// AppendTo appends at most n bytes of the list's buffers to b, as a Send that took
// n would: for endpoints that are not sockets.
func (v *SockVec) AppendTo(b []byte, n int) []byte {
	for i := 0; i < v.n && n > 0; i++ {
		s := unsafe.Slice(v.iov[i].Base, v.iov[i].Len)
		if len(s) > n {
			s = s[:n]
		}
		n -= len(s)
		b = append(b, s...)
	}
	return b
}
