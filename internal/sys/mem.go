package sys

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// MapAnonymous maps n bytes of private zeroed memory that core dumps leave out.
func MapAnonymous(n int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("mmap of %d bytes: %w", n, err)
	}
	// Only a wish: a kernel that refuses costs a larger core file.
	_ = unix.Madvise(b, unix.MADV_DONTDUMP)
	return b, nil
}

// MapShared maps n bytes of fd from offset off on, readable and writable.
func MapShared(fd int, off int64, n int) ([]byte, error) {
	b, err := unix.Mmap(fd, off, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mmap of %d bytes at %#x: %w", n, off, err)
	}
	return b, nil
}

// Unmap undoes MapAnonymous and MapShared; b is what they returned, whole.
func Unmap(b []byte) error { return unix.Munmap(b) }
