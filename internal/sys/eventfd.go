package sys

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// NewEventfd makes a non-blocking, close-on-exec eventfd with count 0.
func NewEventfd() (int, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("eventfd: %w", err)
	}
	return fd, nil
}

// Close closes fd. EINTR is not repeated: Linux has closed the descriptor then.
func Close(fd int) error { return unix.Close(fd) }

// Gettid returns the kernel's id of the calling thread.
func Gettid() int {
	r, _ := unix.RawSyscallNoError(unix.SYS_GETTID, 0, 0, 0)
	return int(r)
}
