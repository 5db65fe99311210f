package main

import (
	"net"
	"syscall"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/daemon"
)

// inheritAPI is the API's socket at path, which another process hands over.
func inheritAPI(l *daemon.Legacy, path string) (net.Listener, error) {
	ln, s, err := l.API(path)
	switch {
	case err != nil:
		return nil, &daemon.Error{Code: daemon.CodeInternal, Object: "api socket " + path, Message: "it was not handed over: " + err.Error(), Hint: "look at the log of the vtgt that runs; it goes on", Err: err}
	case s == nil:
		return ln, nil
	}
	return api.Inherit(s), nil
}

// closeAPI closes the API's socket where the process ends at its start. handed: it is
// another process's, which goes on.
func closeAPI(ln net.Listener, handed bool) {
	if !handed {
		_ = ln.Close()
	}
}

// serveTakeovers lets another process take this one's place.
func (p *process) serveTakeovers(ln net.Listener) {
	a := daemon.API{}
	if u := api.Owned(ln); u != nil {
		a.Listener, a.Own = u, true
	} else if c, ok := ln.(syscall.Conn); ok {
		a.Listener = c
	} else {
		return
	}
	t, err := p.d.ServeTakeovers(a, func(pid int) { p.taken <- pid })
	if err != nil {
		p.log.Warn("this vtgt cannot be taken over", "err", err)
		return
	}
	p.take = t
}
