package guest

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vtgt/vtgt/internal/guest/agent"
)

// Line is a line to an agent: of the guest itself, or of a domain inside of it. Its
// methods may be called from any goroutine.
type Line struct {
	conn net.Conn

	ask sync.Mutex // one request at a time
	rd  *bufio.Reader
	id  uint64
}

// newLine makes the two ends of a line: ours, and QEMU's.
func newLine() (l *Line, theirs *os.File, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours := os.NewFile(uintptr(fds[0]), "agent")
	theirs = os.NewFile(uintptr(fds[1]), "agent")
	conn, err := net.FileConn(ours) // a copy
	_ = ours.Close()
	if err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	return &Line{conn: conn, rd: bufio.NewReaderSize(conn, 1<<20)}, theirs, nil
}

// Hear waits for an agent's first line, limit at most.
func (l *Line) Hear(limit time.Duration) error {
	l.ask.Lock()
	defer l.ask.Unlock()
	_ = l.conn.SetReadDeadline(time.Now().Add(limit))
	for {
		line, err := l.rd.ReadString('\n')
		if err != nil {
			return fmt.Errorf("guest: did not come up: %w", err)
		}
		if strings.TrimSpace(line) == agent.Ready {
			return nil
		}
	}
}

// Answer is the line to an agent whose serial line a machine of somebody else's has at
// the other end of conn, which becomes the line's.
func Answer(conn net.Conn) *Line {
	return &Line{conn: conn, rd: bufio.NewReaderSize(conn, 1<<20)}
}

// Close ends the line.
func (l *Line) Close() error { return l.conn.Close() }
