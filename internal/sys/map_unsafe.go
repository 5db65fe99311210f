package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// MapOver maps len(b) bytes of fd from off on over b, page-aligned and part of a
// MapReserve: shared, readable and writable, kept out of core dumps and of
// children. No page is touched. What b held before is gone, at once for every
// thread.
func MapOver(b []byte, fd int, off int64) error {
	_, err := unix.MmapPtr(fd, off, unsafe.Pointer(unsafe.SliceData(b)), uintptr(len(b)),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED|unix.MAP_NORESERVE)
	if err != nil {
		return err
	}
	advise(b)
	return nil
}

// MapHide puts an inaccessible anonymous mapping over b, page-aligned and part of
// a MapReserve: afterwards Go code that touches it faults and system calls answer
// EFAULT. The addresses stay taken, so nothing else can come to lie there.
func MapHide(b []byte) error {
	_, err := unix.MmapPtr(-1, 0, unsafe.Pointer(unsafe.SliceData(b)), uintptr(len(b)),
		unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED|unix.MAP_NORESERVE)
	if err != nil {
		return err
	}
	advise(b)
	return nil
}

// advise repeats for b what MapReserve asked for the mapping that b replaces.
func advise(b []byte) {
	_ = unix.Madvise(b, unix.MADV_DONTDUMP)
	_ = unix.Madvise(b, unix.MADV_DONTFORK)
}
