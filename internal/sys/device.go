package sys

import "golang.org/x/sys/unix"

// OpenDevice opens a character device for reading and writing without ever waiting for
// it, closed on exec; the Go runtime's poller never sees it.
func OpenDevice(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// ReadNow is read(2) on a descriptor that does not wait: EAGAIN when nothing is there.
func ReadNow(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

// WriteNow is write(2) on such a descriptor.
func WriteNow(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Write(fd, b)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}
