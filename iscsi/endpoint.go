package iscsi

import (
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/sys"
)

// endpoint is what a connection in full feature phase stands on: batched reads and
// writes of a byte stream that never block. It is used on the connection's loop
// only. TCP is the one there is; the seam is for iSER and for tests.
type endpoint interface {
	// open begins to report readiness to h.
	open(l *loop.Loop, ev loop.Events, h loop.ReadyHandler) error
	// want changes which readiness is reported. Level-triggered.
	want(ev loop.Events)
	// recv and send move what is possible now; the error is syscall.EAGAIN when
	// nothing is, io.EOF at the end of the stream.
	recv(v *sys.SockVec) (int, error)
	send(v *sys.SockVec) (int, error)
	// close ends it; no readiness is reported afterwards.
	close()
}

// tcp is an endpoint over a connected, non-blocking stream socket that it owns.
type tcp struct {
	fd  int
	l   *loop.Loop
	ev  loop.Events
	src loop.Source
}

func (e *tcp) open(l *loop.Loop, ev loop.Events, h loop.ReadyHandler) error {
	if err := l.Add(&e.src, e.fd, ev, h); err != nil {
		return err
	}
	e.l, e.ev = l, ev
	return nil
}

func (e *tcp) want(ev loop.Events) {
	if e.l == nil || ev == e.ev {
		return
	}
	// EPOLL_CTL_MOD of a descriptor that is registered cannot fail but for
	// want of kernel memory; the next change tries again.
	if e.l.Modify(&e.src, ev) == nil {
		e.ev = ev
	}
}

func (e *tcp) recv(v *sys.SockVec) (int, error) { return v.Recv(e.fd) }
func (e *tcp) send(v *sys.SockVec) (int, error) { return v.Send(e.fd) }

func (e *tcp) close() {
	if e.fd < 0 {
		return
	}
	if e.l != nil {
		e.l.Remove(&e.src)
	}
	_ = sys.CloseSocket(e.fd)
	e.fd, e.l = -1, nil
}
