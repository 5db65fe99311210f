package sys

import "golang.org/x/sys/unix"

// MapReserve reserves n bytes of address space without access (PROT_NONE): it
// costs no memory. The mapping is private and anonymous, kept out of core dumps
// and of children.
func MapReserve(n int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	// Both are advice; an old kernel that lacks them still serves.
	_ = unix.Madvise(b, unix.MADV_DONTDUMP)
	_ = unix.Madvise(b, unix.MADV_DONTFORK)
	return b, nil
}

// MapAllow makes page-aligned b, part of a MapReserve, readable and writable.
func MapAllow(b []byte) error { return unix.Mprotect(b, unix.PROT_READ|unix.PROT_WRITE) }

// MapDeny takes access to page-aligned b away again: who touches it faults.
func MapDeny(b []byte) error { return unix.Mprotect(b, unix.PROT_NONE) }

// MapDrop gives the pages of page-aligned b back; they read zero afterwards.
func MapDrop(b []byte) error { return unix.Madvise(b, unix.MADV_DONTNEED) }

// MapRelease unmaps the whole of what MapReserve returned.
func MapRelease(b []byte) error { return unix.Munmap(b) }
