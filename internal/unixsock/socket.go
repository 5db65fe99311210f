package unixsock

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Access is who may connect.
type Access struct {
	Mode fs.FileMode // permission bits
	// UID and GID own the socket; -1: the process's own.
	UID, GID int
}

// Socket is a listening UNIX socket that is on its way to its path, or there.
type Socket struct {
	path string
	ln   *net.UnixListener
	id   fs.FileInfo // of the file, to know it again

	mu      sync.Mutex
	tmp     string // the folder that it was made in, until it is published
	at      bool   // published
	adopted bool   // another process has published it
}

// Bind makes a socket for path, the folders above it where they are missing. It listens,
// but nobody finds it before Publish: what may fail fails here. own tells that what
// answers at path is the caller's: Publish takes its place. The error is an *Error.
func Bind(path string, a Access, own bool) (*Socket, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, failed(path, "cannot make its folder", err)
	}
	if !own {
		if err := free(path); err != nil {
			return nil, err
		}
	}
	tmp, err := os.MkdirTemp(dir, ".v")
	if err != nil {
		return nil, failed(path, "cannot be made", err)
	}
	s := &Socket{path: path, tmp: tmp}
	if err := s.bind(a); err != nil {
		_ = s.Close()
		return nil, failed(path, "cannot be made", err)
	}
	return s, nil
}

// bind makes the socket in the folder that only we may enter.
func (s *Socket) bind(a Access) error {
	// By the folder's descriptor: its path may be longer than an address holds,
	// though that of the socket itself is not.
	f, err := os.Open(s.tmp)
	if err != nil {
		return err
	}
	defer f.Close()
	name := fmt.Sprintf("/proc/self/fd/%d/s", f.Fd())
	if s.ln, err = net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"}); err != nil {
		return err
	}
	s.ln.SetUnlinkOnClose(false)
	file := s.file()
	if err := a.apply(file); err != nil {
		return err
	}
	s.id, err = os.Lstat(file)
	return err
}

// Adopt takes ln, which another process has bound and published at path. From Publish on
// Close removes it from there, as that process would have.
func Adopt(path string, ln *net.UnixListener) *Socket {
	s := &Socket{path: path, ln: ln, adopted: true}
	ln.SetUnlinkOnClose(false)
	if fi, err := os.Lstat(path); err == nil {
		s.id = fi
	}
	return s
}

// Disown has Close leave what is at the path alone: it is another process's now.
func (s *Socket) Disown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = false
}

func (s *Socket) file() string { return filepath.Join(s.tmp, "s") }

// apply gives the file at path to whom it belongs.
func (a Access) apply(path string) error {
	if a.UID >= 0 || a.GID >= 0 {
		if err := os.Lchown(path, a.UID, a.GID); err != nil {
			return fmt.Errorf("giving it to user %d and group %d: %w", a.UID, a.GID, err)
		}
	}
	return os.Chmod(path, a.Mode.Perm())
}

// free makes sure that nothing we may not replace is at path.
func free(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return failed(path, "cannot be looked at", err)
	}
	if fi.Mode()&fs.ModeSocket == 0 {
		return &Error{Path: path, Reason: NotASocket, Problem: "something that is not a socket is there"}
	}
	c, err := net.DialTimeout("unix", path, 2*time.Second)
	switch {
	case err == nil:
		c.Close()
		return &Error{Path: path, Reason: Answered, Problem: "another program answers there"}
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil // stale: Publish replaces it
	case errors.Is(err, fs.ErrPermission):
		return &Error{Path: path, Reason: Denied, Problem: "another user's socket is there", Err: err}
	}
	// A full backlog (EAGAIN) or a timeout: somebody has it.
	return &Error{Path: path, Reason: Busy, Problem: "something holds the socket but does not answer", Err: err}
}

// Publish moves the socket to its path.
func (s *Socket) Publish() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.adopted {
		s.at = true
		return nil
	}
	if s.at || s.tmp == "" {
		return nil
	}
	// A look again: time has passed, and what the caller's own was may be gone.
	if fi, err := os.Lstat(s.path); err == nil && fi.Mode()&fs.ModeSocket == 0 {
		return &Error{Path: s.path, Reason: NotASocket, Problem: "something that is not a socket is there"}
	}
	if err := os.Rename(s.file(), s.path); err != nil {
		return failed(s.path, "cannot be moved into place", err)
	}
	s.at = true
	_ = os.RemoveAll(s.tmp)
	s.tmp = ""
	return nil
}

// Listener is the socket as it listens. Its Addr is not the path.
func (s *Socket) Listener() *net.UnixListener { return s.ln }

// Path is where the socket belongs.
func (s *Socket) Path() string { return s.path }

// SetAccess changes who may connect from now on.
func (s *Socket) SetAccess(a Access) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.at || !s.isOurs() {
		return nil
	}
	if err := a.apply(s.path); err != nil {
		return failed(s.path, "cannot be given away", err)
	}
	return nil
}

// isOurs tells whether what is at the path is this socket: somebody may have put
// another one there.
func (s *Socket) isOurs() bool {
	fi, err := os.Lstat(s.path)
	return err == nil && s.id != nil && os.SameFile(fi, s.id)
}

// Close ends listening and removes the socket, if it is still this one that is there.
// Close again does nothing.
func (s *Socket) Close() (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ln != nil {
		if err = s.ln.Close(); errors.Is(err, net.ErrClosed) {
			err = nil
		}
	}
	if s.tmp != "" {
		_ = os.RemoveAll(s.tmp)
		s.tmp = ""
	}
	if s.at && s.isOurs() {
		_ = os.Remove(s.path)
	}
	s.at = false
	return err
}
