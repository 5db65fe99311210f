package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// MapPage is the page size in bytes by which fd maps: that of huge pages on
// hugetlbfs (also for a memfd with MFD_HUGETLB), else the machine's.
func MapPage(fd int) (int, error) {
	var st unix.Statfs_t
	for {
		switch err := unix.Fstatfs(fd, &st); err {
		case nil:
			if int64(st.Type) == unix.HUGETLBFS_MAGIC {
				return int(st.Bsize), nil
			}
			return os.Getpagesize(), nil
		case unix.EINTR:
		default:
			return 0, err
		}
	}
}

// NewMemfd makes an anonymous file of n bytes in memory (memfd_create(2)), closed
// on exec. The name is for /proc only.
func NewMemfd(name string, n int64) (int, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, err
	}
	if err := Ftruncate(fd, n); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// NewHugeMemfd is NewMemfd of huge pages of the default size; n is a multiple of
// it. That there are none shows when it is mapped or touched.
func NewHugeMemfd(name string, n int64) (int, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_HUGETLB)
	if err != nil {
		return -1, err
	}
	if err := Ftruncate(fd, n); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
