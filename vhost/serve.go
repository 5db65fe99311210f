package vhost

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/internal/unixsock"
)

// How long a front end waits, unanswered, for the one before it: goneWait for the news
// that that one has gone, drainWait for the end of its requests, which as a rule needs
// milliseconds. A QEMU that is not answered stands still, so it is not the deadline.
const (
	goneWait  = 500 * time.Millisecond
	drainWait = 3 * time.Second
)

// Serve takes front ends from l, one at a time, and returns ErrClosed after Close, nil
// after l was closed, else l's error. l stays the caller's.
func (e *Export) Serve(l *net.UnixListener) error {
	e.mu.Lock()
	if e.closing {
		e.mu.Unlock()
		return ErrClosed
	}
	e.listeners[l] = struct{}{}
	s := e.adopted
	e.adopted = nil
	who := peerText(e.pid, e.uid)
	e.mu.Unlock()
	if s != nil {
		go e.serve(s, who)
	}
	defer func() {
		e.mu.Lock()
		delete(e.listeners, l)
		e.mu.Unlock()
		_ = l.SetDeadline(time.Time{}) // Close has set it
	}()
	for {
		err := unixsock.Accept(l, e.accept, e.scarce)
		e.mu.Lock()
		closing := e.closing
		e.mu.Unlock()
		switch {
		case closing:
			return ErrClosed
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		}
		if h := e.halt.Load(); h != nil {
			h.wait(e.quit)
		}
		e.mu.Lock()
		if !e.closing && e.halt.Load() == nil {
			_ = l.SetDeadline(time.Time{})
		}
		e.mu.Unlock()
	}
}

// scarce says that front ends wait for a descriptor.
func (e *Export) scarce(err error) {
	e.log.line(lineRejected, slog.LevelError, "vhost-user: no descriptor for a front end", "export", e.conf.Name, "err", err)
}

// accept begins to serve nc, or turns it away.
func (e *Export) accept(nc *net.UnixConn) {
	pid, uid := -1, -1
	if rc, err := nc.SyscallConn(); err == nil {
		if p, u, err := sys.PeerCred(rc); err == nil {
			pid, uid = p, u
		}
	}
	who := peerText(pid, uid)
	s, err := e.admit(nc, pid, uid)
	if err != nil {
		e.count.Rejected.Add(1)
		e.log.line(lineRejected, slog.LevelWarn, "vhost-user: a front end is turned away", "export", e.conf.Name, "peer", who, "why", err)
		_ = nc.Close()
		return
	}
	go e.serve(s, who)
}

func peerText(pid, uid int) string { return fmt.Sprintf("pid %d, uid %d", pid, uid) }

// admit makes nc's session, when there is no other one.
func (e *Export) admit(nc *net.UnixConn, pid, uid int) (*session, error) {
	if err := e.vacant(); err != nil {
		return nil, err
	}
	e.devMu.Lock()
	defer e.devMu.Unlock()
	if err := e.renew(); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closing:
		return nil, ErrClosed
	case e.occupied():
		return nil, fmt.Errorf("another one was faster")
	}
	if n := e.dev.stuck(); n > 0 {
		// It would have taken up again what the store still has: the older one could land last.
		return nil, fmt.Errorf("%d requests of the front end before it are still with the store", n)
	}
	e.nc, e.pid, e.uid, e.since, e.over, e.refused = nc, pid, uid, time.Now(), make(chan struct{}), ""
	e.sess = newSession(e, e.dev, newConn(nc))
	return e.sess, nil
}

// occupied tells whether a session has not ended. Lock held.
func (e *Export) occupied() bool {
	if e.over == nil {
		return false
	}
	select {
	case <-e.over:
		return false
	default:
		return true
	}
}

// vacant waits a little for the end of the session that there is.
func (e *Export) vacant() error {
	e.mu.Lock()
	gone, drain := e.goneWait, e.drainWait
	e.mu.Unlock()
	t := time.NewTimer(gone)
	defer t.Stop()
	for drains := false; ; drains = true {
		e.mu.Lock()
		over, nc, pid := e.over, e.nc, e.pid
		e.mu.Unlock()
		if over == nil {
			return nil
		}
		if drains {
			if nc != nil {
				return fmt.Errorf("pid %d is connected already: an export serves one guest", pid)
			}
			t.Reset(drain)
		}
		select {
		case <-over:
			return nil
		case <-t.C:
			if drains {
				return fmt.Errorf("requests of the front end before it have not ended yet")
			}
		case <-e.quit:
			return ErrClosed
		}
	}
}

// renew replaces a device that has failed, when nobody uses it. devMu held.
func (e *Export) renew() error {
	e.mu.Lock()
	d, busy := e.dev, e.closing || e.occupied()
	e.mu.Unlock()
	why := d.err()
	if why == nil || busy {
		return nil
	}
	if n := d.stuck(); n > 0 {
		return fmt.Errorf("the export has failed (%w), and %d of its requests are still with the store", why, n)
	}
	e.retire(d, time.Now().Add(e.conf.Deadline))
	d, err := e.newDevice()
	if err != nil {
		return fmt.Errorf("after a failure (%w) the export cannot be set up again: %w", why, err)
	}
	e.mu.Lock()
	e.dev = d
	e.mu.Unlock()
	return nil
}

// serve is a connection's goroutine.
func (e *Export) serve(s *session, who string) {
	e.count.Connections.Add(1)
	e.log.line(lineConnect, slog.LevelInfo, "vhost-user: front end connected", "export", e.conf.Name, "peer", who)
	if f := e.conf.OnConnect; f != nil {
		f(true, who)
	}
	err := s.run()
	if derr := s.d.err(); derr != nil {
		err = derr
	}
	// Counted before anybody can know of the end, the front end too.
	var v *violation
	if errors.As(err, &v) {
		e.count.Violations.Add(1)
	}
	s.unpark()
	s.c.close()

	e.mu.Lock()
	e.nc = nil
	deadline := e.deadline
	refused := false
	switch {
	case e.closing:
		err = ErrClosed
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
	default:
		refused = true
		e.refused = err.Error()
	}
	e.mu.Unlock()

	detail := who
	if refused {
		detail += ": " + err.Error()
		e.log.line(lineRefused, slog.LevelError, "vhost-user: the connection was ended", "export", e.conf.Name, "peer", who, "why", err)
	}
	stuck := s.end(deadline)
	e.log.line(lineGone, slog.LevelInfo, "vhost-user: front end gone", "export", e.conf.Name, "peer", who, "stuck", stuck)
	if f := e.conf.OnConnect; f != nil {
		f(false, detail)
	}
	e.mu.Lock()
	close(e.over)
	e.mu.Unlock()
}
