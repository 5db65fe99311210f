package vhost

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/vhost/proto"
)

// answerTimeout bounds how long a front end may leave an answer unread.
const answerTimeout = 30 * time.Second

// incoming is a vhost-user message as it came. Its descriptors are the message's until
// take; what is left is closed by drop.
type incoming struct {
	proto.Header
	body []byte
	fds  []int
}

// take gives descriptor i away.
func (m *incoming) take(i int) int {
	fd := m.fds[i]
	m.fds[i] = -1
	return fd
}

// drop closes what nobody took.
func (m *incoming) drop() {
	for _, fd := range m.fds {
		shut(fd)
	}
	m.fds = m.fds[:0]
}

// shut closes a descriptor, if there is one.
func shut(fd int) {
	if fd >= 0 {
		_ = sys.Close(fd)
	}
}

// conn is the socket to one front end. One goroutine reads and writes it; shutting it
// down from elsewhere ends that.
//
// Descriptors that come are raw numbers and never os.Files: the front end shares their
// descriptions, so nothing may change the flags of those.
type conn struct {
	nc  *net.UnixConn
	msg incoming
	hdr [proto.HeaderSize]byte
	buf [proto.MaxBody]byte
	oob []byte
	out []byte
}

func newConn(nc *net.UnixConn) *conn {
	return &conn{nc: nc, oob: make([]byte, sys.RightsSpace(proto.MaxFDs))}
}

// read waits for the next message, which is valid until the next read. The error is
// io.EOF when the front end has closed its side between two messages.
func (c *conn) read() (*incoming, error) {
	m := &c.msg
	m.drop()
	if err := c.fill(c.hdr[:], true); err != nil {
		return nil, err
	}
	h, err := proto.ParseHeader(&c.hdr)
	if err != nil {
		return nil, &violation{err}
	}
	m.Header, m.body = h, c.buf[:h.Size]
	if err := c.fill(m.body, false); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("in the middle of %v: %w", h.Request, err)
	}
	return m, nil
}

// interrupt has read return errIdle, now or at its next call, when no message has begun.
func (c *conn) interrupt() { _ = c.nc.SetReadDeadline(time.Unix(1, 0)) }

// resume undoes interrupt.
func (c *conn) resume() { _ = c.nc.SetReadDeadline(time.Time{}) }

// errIdle: interrupt was called, between two messages.
var errIdle = errors.New("interrupted between two messages")

// fill reads len(b) bytes, and the descriptors that come with them. first: they begin a
// message.
func (c *conn) fill(b []byte, first bool) error {
	for n := 0; n < len(b); {
		k, oobn, flags, _, err := c.nc.ReadMsgUnix(b[n:], c.oob)
		var perr error
		c.msg.fds, perr = sys.ParseRights(c.msg.fds, c.oob[:oobn], flags)
		switch {
		case perr != nil:
			return &violation{perr}
		case len(c.msg.fds) > proto.MaxFDs:
			return &violation{fmt.Errorf("more than %d descriptors with one message", proto.MaxFDs)}
		case err == io.EOF && n > 0:
			return io.ErrUnexpectedEOF
		case errors.Is(err, os.ErrDeadlineExceeded): // k is not positive
			if first && n == 0 {
				return errIdle
			}
			c.resume() // the message to its end first
			continue
		case err != nil:
			return err
		}
		n += k
	}
	return nil
}

// reply answers a message of kind r with body and, where fd is not negative, a copy of
// that descriptor.
func (c *conn) reply(r proto.Request, body []byte, fd int) error {
	c.out = proto.AppendReply(c.out[:0], r, body)
	var oob []byte
	if fd >= 0 {
		oob = sys.Rights(fd)
	}
	if err := c.nc.SetWriteDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	for b := c.out; len(b) > 0; oob = nil {
		n, _, err := c.nc.WriteMsgUnix(b, oob, nil)
		if err != nil {
			return fmt.Errorf("answering %v: %w", r, err)
		}
		b = b[n:]
	}
	return nil
}

// close lets go of the socket and of what came last.
func (c *conn) close() {
	c.msg.drop()
	_ = c.nc.Close()
}
