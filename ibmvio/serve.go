package ibmvio

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/vtgt/vtgt/ibmvio/wire"
	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/internal/unixsock"
)

// helloWait bounds how long a connection may say nothing, and maxFresh how many may.
const (
	helloWait = 10 * time.Second
	maxFresh  = 8
)

// Serve takes virtual machines from l, one at a time, and returns ErrExportClosed after
// Close, nil after l was closed, else l's error. l stays the caller's.
func (e *Export) Serve(l *net.UnixListener) error {
	e.mu.Lock()
	if e.closing {
		e.mu.Unlock()
		return ErrExportClosed
	}
	e.listeners[l] = struct{}{}
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		delete(e.listeners, l)
		e.mu.Unlock()
		_ = l.SetDeadline(time.Time{}) // Close has set it
	}()
	err := unixsock.Accept(l, e.accept, nil)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing {
		return ErrExportClosed
	}
	return err
}

// accept hears what nc has to say.
func (e *Export) accept(nc *net.UnixConn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing || len(e.fresh) >= maxFresh {
		_ = nc.Close()
		e.rejected.Add(1)
		return
	}
	e.fresh[nc] = struct{}{}
	e.greeting.Add(1)
	go func() {
		defer e.greeting.Done()
		err := e.greet(nc)
		_ = nc.Close() // the conn has a descriptor of its own
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.fresh, nc)
		if err != nil {
			e.rejected.Add(1)
			if !e.closing {
				e.refused = err.Error()
			}
		}
	}()
}

// greet reads the HELLO and begins to serve.
func (e *Export) greet(nc *net.UnixConn) error {
	if err := nc.SetDeadline(time.Now().Add(helloWait)); err != nil {
		return err
	}
	// As many bytes as HELLO has: events may follow it.
	buf := make([]byte, wire.HeaderLen, wire.HeaderLen+256)
	if _, err := io.ReadFull(nc, buf); err != nil {
		return fmt.Errorf("no HELLO came: %w", err)
	}
	n := int(buf[0])<<24 | int(buf[1])<<16 | int(buf[2])<<8 | int(buf[3])
	if n > cap(buf)-len(buf) {
		return fmt.Errorf("a HELLO of %d bytes", n)
	}
	buf = buf[:len(buf)+n]
	if _, err := io.ReadFull(nc, buf[wire.HeaderLen:]); err != nil {
		return fmt.Errorf("half a HELLO came: %w", err)
	}
	f, _, err := wire.Split(buf, wire.Device)
	if err != nil {
		return err
	}
	h, err := wire.ParseHello(f)
	switch {
	case err != nil:
		return err
	case h.Major != wire.Major || h.MaxData < maxOp:
		_, _ = nc.Write(wire.AppendRefusal(nil))
		return fmt.Errorf("the device speaks version %d.%d of the protocol (%d bytes at a time), this vtgt %d.%d: build the device of this vtgt (make qemu-vio)",
			h.Major, h.Minor, h.MaxData, wire.Major, wire.Minor)
	}
	return e.adopt(nc, &h)
}

// adopt makes nc the virtual machine's connection, where there is no other one.
func (e *Export) adopt(nc *net.UnixConn, h *wire.Hello) error {
	rc, err := nc.SyscallConn()
	if err != nil {
		return err
	}
	pid, uid, err := sys.PeerCred(rc)
	if err != nil {
		pid, uid = -1, -1
	}
	e.mu.Lock()
	switch {
	case e.closing:
		err = ErrExportClosed
	case e.conn != nil:
		err = fmt.Errorf("pid %d was turned away: pid %d is connected, and an export serves one adapter", pid, e.pid)
	default:
		err = nil
	}
	if err != nil {
		e.mu.Unlock()
		return err
	}
	fd, err := sys.DupSocket(rc)
	if err != nil {
		e.mu.Unlock()
		return err
	}
	who := fmt.Sprintf("pid %d, uid %d", pid, uid)
	if h.Name != "" {
		who = fmt.Sprintf("%q, %s", h.Name, who)
	}
	var c *conn
	c = newConn(e.a, fd, func(why error) { e.over(c, who, why) })
	e.conn, e.hello, e.since, e.pid, e.uid, e.refused = c, *h, time.Now(), pid, uid, ""
	e.mu.Unlock()
	e.connections.Add(1)
	e.lines.line(e.conf.Log, "vio: virtual machine connected", "export", e.conf.Name, "peer", who)
	e.say(true, who)
	e.a.loop.Do(func() {
		if err = c.start(h); err != nil {
			e.over(c, who, err)
		}
	})
	return err
}

// over is the end of c, on the loop.
func (e *Export) over(c *conn, who string, why error) {
	e.mu.Lock()
	if e.conn == c {
		e.conn = nil
	}
	detail := who
	var v *violation
	if errors.As(why, &v) {
		e.refused = "the device broke the protocol: " + why.Error()
		detail += ": " + e.refused
		e.a.count.Violations.Add(1)
	}
	closing := e.closing
	e.mu.Unlock()
	if !closing {
		e.lines.line(e.conf.Log, "vio: virtual machine gone", "export", e.conf.Name, "peer", who, "why", why)
	}
	e.say(false, detail)
}
