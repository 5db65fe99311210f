package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ioctl is ioctl(2) whose argument is the structure in arg, which the kernel may
// change. It may sleep. EINTR is retried. It allocates nothing if arg is on the heap.
func Ioctl(fd int, request uint, arg []byte) (int, Errno) {
	for {
		n, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(unsafe.Pointer(unsafe.SliceData(arg))))
		if e == unix.EINTR {
			continue
		}
		return int(n), e
	}
}

// Address is where b begins, for structures in which the kernel is told of other
// buffers. b must be on the heap or outside Go's memory, and be kept alive by its owner
// for as long as the kernel uses it.
func Address(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// MapFixed maps len(b) bytes of fd from off on over b, page-aligned and part of a
// MapReserve, shared: readable, and with write writable too.
func MapFixed(b []byte, fd int, off int64, write bool) error {
	prot := unix.PROT_READ
	if write {
		prot |= unix.PROT_WRITE
	}
	_, err := unix.MmapPtr(fd, off, unsafe.Pointer(unsafe.SliceData(b)), uintptr(len(b)), prot, unix.MAP_SHARED|unix.MAP_FIXED)
	return err
}
