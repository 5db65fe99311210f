package sys

import "golang.org/x/sys/unix"

// Iovec is the kernel's struct iovec. It must live in memory that does not move
// while the kernel uses it (the heap, never a stack) and it does not keep its
// buffer alive: the owner does.
type Iovec = unix.Iovec

// MaxIovecs is UIO_MAXIOV, the most that one vectored call takes.
const MaxIovecs = 1024

// AppendIovecs appends one entry for each non-empty buffer of bufs to dst and
// returns dst.
func AppendIovecs(dst []Iovec, bufs [][]byte) []Iovec {
	for _, b := range bufs {
		if len(b) == 0 {
			continue
		}
		v := Iovec{Base: &b[0]}
		v.SetLen(len(b))
		dst = append(dst, v)
	}
	return dst
}
