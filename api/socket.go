package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/vtgt/vtgt/daemon"
)

// Listen makes the UNIX socket at path with the permissions mode, owned by group
// where that is not empty. A socket that is there and that nobody answers on is
// replaced; anything else that is there is an error. Closing the listener removes
// the socket.
func Listen(path string, mode fs.FileMode, group string) (net.Listener, error) {
	object := "api socket " + path
	gid := -1
	if group != "" {
		var err error
		if gid, err = groupID(group); err != nil {
			return nil, &daemon.Error{Code: daemon.CodeNotFound, Object: object, Message: "there is no group " + group, Hint: "make the group, or correct api.group", Err: err}
		}
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, socketError(object, "cannot make its folder", err)
	}
	if err := clearPath(object, path); err != nil {
		return nil, err
	}
	// Made in a folder of its own that only we may enter, and moved when its
	// permissions are right: nobody else can connect before.
	tmp, err := os.MkdirTemp(dir, ".v")
	if err != nil {
		return nil, socketError(object, "cannot be made", err)
	}
	defer os.RemoveAll(tmp)
	name := filepath.Join(tmp, "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return nil, socketError(object, "cannot be made", err)
	}
	ln.SetUnlinkOnClose(false)
	if err = os.Chmod(name, mode.Perm()); err == nil && gid >= 0 {
		if err = os.Chown(name, -1, gid); err != nil {
			err = fmt.Errorf("giving it to the group %s: %w", group, err)
		}
	}
	if err == nil {
		err = os.Rename(name, path)
	}
	if err != nil {
		ln.Close()
		return nil, socketError(object, "cannot be made", err)
	}
	l := &listener{UnixListener: ln, path: path}
	l.id, _ = os.Lstat(path)
	return l, nil
}

// clearPath makes sure that nothing we may not replace is at path.
func clearPath(object, path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return socketError(object, "cannot be looked at", err)
	}
	if fi.Mode()&fs.ModeSocket == 0 {
		return &daemon.Error{Code: daemon.CodeInUse, Object: object, Message: "something that is not a socket is there", Hint: "remove it, or name another path with api.socket"}
	}
	c, err := net.DialTimeout("unix", path, 2*time.Second)
	if err == nil {
		c.Close()
		return &daemon.Error{Code: daemon.CodeInUse, Object: object, Message: "another vtgt answers there", Hint: "stop it first, or name another path with api.socket"}
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil // stale: rename replaces it
	}
	if errors.Is(err, fs.ErrPermission) {
		return &daemon.Error{Code: daemon.CodeDenied, Object: object, Message: "another user's socket is there", Hint: "run as that user or as root, or name another path with api.socket", Err: err}
	}
	// A full backlog (EAGAIN) or a timeout: somebody has it.
	return &daemon.Error{Code: daemon.CodeInUse, Object: object, Message: "something holds the socket but does not answer", Hint: "stop it first, or name another path with api.socket", Err: err}
}

func socketError(object, msg string, err error) error {
	e := &daemon.Error{Code: daemon.CodeInternal, Object: object, Message: msg + ": " + reason(err), Hint: "name another path with api.socket", Err: err}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		e.Code, e.Hint = daemon.CodeDenied, "run as root, or name a path in a folder that you may write with api.socket (to try vtgt out: vtgt run)"
	}
	return e
}

func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	var le *os.LinkError
	if errors.As(err, &le) {
		return le.Err.Error()
	}
	var se *os.SyscallError
	if errors.As(err, &se) {
		return se.Err.Error()
	}
	return err.Error()
}

func groupID(group string) (int, error) {
	g, err := user.LookupGroup(group)
	if err != nil {
		if n, nerr := strconv.ParseUint(group, 10, 31); nerr == nil {
			return int(n), nil
		}
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}

// listener removes its socket at Close, if it is still its own.
type listener struct {
	*net.UnixListener
	path string
	id   fs.FileInfo
	once sync.Once
}

func (l *listener) Close() error {
	err := l.UnixListener.Close()
	l.once.Do(func() {
		if fi, serr := os.Lstat(l.path); serr == nil && l.id != nil && os.SameFile(fi, l.id) {
			_ = os.Remove(l.path)
		}
	})
	return err
}
