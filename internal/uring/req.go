package uring

import "github.com/vtgt/vtgt/internal/sys"

// Op is an operation of io_uring (enum io_uring_op), of those that stores need.
type Op uint8

// The operations and what they use of a Req.
const (
	Nop       Op = 0
	Readv     Op = 1  // FD, Off, Iov, Flags: RWF_*
	Writev    Op = 2  // FD, Off, Iov, Flags: RWF_*
	Fsync     Op = 3  // FD, Off and Len (0, 0: all), Flags: FsyncDatasync
	Fallocate Op = 17 // FD, Off, Len, Flags: FALLOC_FL_*
)

// FsyncDatasync in Flags makes Fsync an fdatasync.
const FsyncDatasync = 1

// ReqOwner hears of the end of requests, on the ring's thread, inside Reap. It
// may submit again, the same request too.
type ReqOwner interface {
	ReqDone(r *Req)
}

// Req is one request, embedded in its owner and reused. From Submit to ReqDone
// it, Iov and the buffers are the kernel's. It must not be copied meanwhile.
type Req struct {
	Op    Op
	Flags uint32
	FD    int
	Off   int64 // bytes
	Len   int64 // bytes
	// Iov lives in the owner, on the heap; at most sys.MaxIovecs entries. Its
	// buffers are kept alive by it.
	Iov []sys.Iovec
	// Res is the outcome: what the system call would return, negative errno
	// in case of failure. Reads and writes may be short.
	Res   int32
	Owner ReqOwner

	slot int32 // 1 + index in Ring.slots while in flight, else 0
}

// Pending reports whether the request is in flight.
func (q *Req) Pending() bool { return q.slot != 0 }

// Err is the error of Res; nil when it is not negative.
func (q *Req) Err() error {
	if q.Res >= 0 {
		return nil
	}
	return sys.Errno(-q.Res)
}
