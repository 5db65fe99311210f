package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Preadv2 reads at off into iov; flags are RWF_*. It enters the kernel by
// Syscall, because page faults and the disk can make it sleep. It does not
// retry: EINTR and short counts are the caller's. It allocates nothing; errno 0
// is success.
func Preadv2(fd int, iov []Iovec, off int64, flags int) (int, unix.Errno) {
	return vec(unix.SYS_PREADV2, fd, iov, off, flags)
}

// Pwritev2 writes iov at off; see Preadv2.
func Pwritev2(fd int, iov []Iovec, off int64, flags int) (int, unix.Errno) {
	return vec(unix.SYS_PWRITEV2, fd, iov, off, flags)
}

func vec(nr uintptr, fd int, iov []Iovec, off int64, flags int) (int, unix.Errno) {
	// The offset goes as two longs; 64-bit kernels take all of it from the
	// low one.
	n, _, e := unix.Syscall6(nr, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(iov))),
		uintptr(len(iov)), uintptr(off), uintptr(uint64(off)>>32), uintptr(flags))
	if e != 0 {
		return 0, e
	}
	return int(n), 0
}

// SetIovec points v at b, which must not be empty.
func SetIovec(v *Iovec, b []byte) {
	v.Base = unsafe.SliceData(b)
	v.SetLen(len(b))
}

// AdvanceIovec drops the first n bytes that iov describes and returns the rest.
func AdvanceIovec(iov []Iovec, n int) []Iovec {
	for n > 0 && len(iov) > 0 {
		l := int(iov[0].Len)
		if n < l {
			iov[0].Base = (*byte)(unsafe.Add(unsafe.Pointer(iov[0].Base), n))
			iov[0].SetLen(l - n)
			return iov
		}
		n -= l
		iov = iov[1:]
	}
	return iov
}

// Aligned reports whether the address and the length of b are multiples of
// memAlign and lenAlign, powers of two.
func Aligned(b []byte, memAlign, lenAlign int) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(b)))&uintptr(memAlign-1) == 0 && len(b)&(lenAlign-1) == 0
}

// ioctlU64 reads a 64-bit answer.
func ioctlU64(fd int, req uint) (uint64, error) {
	var v uint64
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(unsafe.Pointer(&v)))
	if e != 0 {
		return 0, e
	}
	return v, nil
}

// ioctlU16 reads a 16-bit answer.
func ioctlU16(fd int, req uint) (uint16, error) {
	var v uint16
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(unsafe.Pointer(&v)))
	if e != 0 {
		return 0, e
	}
	return v, nil
}

// ioctlRange passes a start and a length in bytes.
func ioctlRange(fd int, req uint, off, n int64) error {
	r := [2]uint64{uint64(off), uint64(n)}
	for {
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(unsafe.Pointer(&r)))
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return e
		}
		return nil
	}
}

// VoluntarySwitches is how often the calling thread has given up its processor
// to wait for something (ru_nvcsw of getrusage(2), RUSAGE_THREAD); being
// preempted does not count. It cannot sleep; -1 where the kernel does not tell.
func VoluntarySwitches() int64 {
	var ru unix.Rusage
	_, _, e := unix.RawSyscall(unix.SYS_GETRUSAGE, unix.RUSAGE_THREAD, uintptr(unsafe.Pointer(&ru)), 0)
	if e != 0 {
		return -1
	}
	return int64(ru.Nvcsw)
}
