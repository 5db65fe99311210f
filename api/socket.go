package api

import (
	"errors"
	"io/fs"
	"net"
	"os/user"
	"strconv"

	"github.com/vtgt/vtgt/daemon"
	"github.com/vtgt/vtgt/internal/unixsock"
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
	s, err := unixsock.Bind(path, unixsock.Access{Mode: mode, UID: -1, GID: gid}, false)
	if err == nil {
		if err = s.Publish(); err != nil {
			_ = s.Close()
		}
	}
	if err != nil {
		return nil, socketError(object, err)
	}
	return &listener{s.Listener(), s}, nil
}

// Inherit is Listen at a socket that another process has published.
func Inherit(s *unixsock.Socket) net.Listener {
	_ = s.Publish() // which it is
	return &listener{s.Listener(), s}
}

// Owned is the socket of a listener that Listen or Inherit has made, nil of others.
func Owned(ln net.Listener) *net.UnixListener {
	if l, ok := ln.(*listener); ok {
		return l.s.Listener()
	}
	return nil
}

func socketError(object string, err error) error {
	e := &daemon.Error{Code: daemon.CodeInternal, Object: object, Message: err.Error(), Hint: "name another path with api.socket", Err: err}
	var se *unixsock.Error
	if !errors.As(err, &se) {
		return e
	}
	e.Message = se.Problem
	switch se.Reason {
	case unixsock.NotASocket:
		e.Code, e.Hint = daemon.CodeInUse, "remove it, or name another path with api.socket"
	case unixsock.Answered:
		e.Code, e.Message, e.Hint = daemon.CodeInUse, "another vtgt answers there", "stop it first, or name another path with api.socket"
	case unixsock.Busy:
		e.Code, e.Hint = daemon.CodeInUse, "stop it first, or name another path with api.socket"
	case unixsock.Denied:
		e.Code, e.Hint = daemon.CodeDenied, "run as root, or name a path in a folder that you may write with api.socket (to try vtgt out: vtgt run)"
	}
	return e
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
	net.Listener
	s *unixsock.Socket
}

func (l *listener) Close() error { return l.s.Close() }
