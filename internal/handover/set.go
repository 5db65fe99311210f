package handover

import (
	"fmt"
	"sync"
	"syscall"

	"github.com/vtgt/vtgt/internal/sys"
)

// None is the number that stands for no descriptor.
const None = -1

// Set is a table of descriptors. A block names them by their numbers in it. Methods may
// be called on any goroutine.
type Set struct {
	mu  sync.Mutex
	fds []int
}

// Add puts a copy of fd into the table and returns its number; None for a negative fd.
func (s *Set) Add(fd int) (int, error) {
	if fd < 0 {
		return None, nil
	}
	n, err := sys.Dup(fd)
	if err != nil {
		return None, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fds = append(s.fds, n)
	return len(s.fds) - 1, nil
}

// AddConn is Add for what lies below a connection or a listener.
func (s *Set) AddConn(c syscall.Conn) (int, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return None, err
	}
	n := None
	if cerr := rc.Control(func(fd uintptr) { n, err = s.Add(int(fd)) }); cerr != nil {
		return None, cerr
	}
	return n, err
}

// Take gives descriptor i away, once; -1 for None. Who sent the numbers may be wrong:
// one that is not there, or was taken, is an error.
func (s *Set) Take(i int) (int, error) {
	if i == None {
		return -1, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i < 0 || i >= len(s.fds) || s.fds[i] < 0 {
		return -1, fmt.Errorf("descriptor %d of %d is not there", i, len(s.fds))
	}
	fd := s.fds[i]
	s.fds[i] = -1
	return fd, nil
}

// Len is the number of descriptors, taken ones included.
func (s *Set) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.fds)
}

// Close closes those that nobody took.
func (s *Set) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, fd := range s.fds {
		if fd >= 0 {
			_ = sys.Close(fd)
			s.fds[i] = -1
		}
	}
}
