package ibmvio

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/vtgt/vtgt/ibmvio/crq"
	"github.com/vtgt/vtgt/ibmvio/wire"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/sys"
)

const (
	// rxLen is the length of the receive buffer: the longest answer that we ask for
	// (maxOp), and more frames behind it.
	rxLen = 2*maxOp + 4096
	// roundBytes is how much is read before others of the loop have their turn.
	roundBytes = 4 << 20
	// arenaLen is the room for the frames, without payload, that are on their way
	// into the socket; maxHead is the longest of them.
	arenaLen = 8 << 10
	maxHead  = wire.HeaderLen + wire.EntryLen
)

// conn is a Hypervisor over the socket of the QEMU device (ibmvio/qemu/PROTOCOL.md). It
// belongs to the adapter's loop.
type conn struct {
	a    *adapter
	l    *loop.Loop
	over func(why error) // hears once of the end, on the loop

	fd   int
	src  loop.Source
	ev   loop.Events
	dead bool

	rx   []byte
	r, w int
	rv   sys.SockVec

	wait, flight opList // not yet sent; without an answer
	id           uint64
	arena        []byte
	segs         [sys.MaxSockVec][]byte
	s0, s1       int
	tv           sys.SockVec
	blocked      bool
}

// newConn makes a conn of a socket whose HELLO was read; it answers that. fd becomes the
// conn's.
func newConn(a *adapter, fd int, over func(error)) *conn {
	c := &conn{a: a, l: a.loop, over: over, fd: fd, rx: make([]byte, rxLen), arena: make([]byte, 0, arenaLen)}
	c.arena = wire.AppendWelcome(c.arena)
	c.segs[0], c.s1 = c.arena, 1
	return c
}

// start begins to serve. On the loop.
func (c *conn) start(h *wire.Hello) error {
	c.ev = loop.In
	if err := c.l.Add(&c.src, c.fd, c.ev, c); err != nil {
		_ = sys.CloseSocket(c.fd)
		c.fd, c.dead = -1, true
		return err
	}
	c.a.attach(c, Greeting{Name: h.Name, UUID: h.UUID, Unit: h.Unit, Epoch: h.Epoch,
		Registered: h.State&wire.Registered != 0, Served: h.State&wire.Served != 0, Paused: h.State&wire.Paused != 0})
	c.flush()
	return nil
}

// Close is the Hypervisor's.
func (c *conn) Close(why error) {
	if c.dead {
		return
	}
	c.dead = true
	c.l.Remove(&c.src)
	_ = sys.CloseSocket(c.fd)
	c.fd = -1
	c.a.lost(c)
	for _, list := range []*opList{&c.flight, &c.wait} {
		for op := list.pop(); op != nil; op = list.pop() {
			op.Err = ErrLost
			op.Owner.Ended(op)
		}
	}
	c.over(why)
}

// Do is the Hypervisor's.
func (c *conn) Do(op *Op) { c.wait.push(op) }

// Kick is the Hypervisor's.
func (c *conn) Kick() {
	if !c.dead && !c.blocked {
		c.flush()
	}
}

// Ready is the loop's.
func (c *conn) Ready(_ *loop.Source, ev loop.Events) {
	if ev&loop.Out != 0 {
		c.blocked = false
		c.flush()
	}
	if c.dead || ev&^loop.Out == 0 {
		return
	}
	for n := 0; n < roundBytes && !c.dead; {
		k, err := c.receive()
		switch {
		case err == syscall.EAGAIN:
			return
		case err != nil:
			c.Close(err)
			return
		}
		n += k
	}
}

// receive reads once and handles what is there.
func (c *conn) receive() (int, error) {
	if c.r > 0 {
		c.w = copy(c.rx, c.rx[c.r:c.w])
		c.r = 0
	}
	c.rv.Reset()
	c.rv.Add(c.rx[c.w:])
	n, err := c.rv.Recv(c.fd)
	if err != nil {
		return 0, err
	}
	c.w += n
	for !c.dead {
		f, k, err := wire.Split(c.rx[c.r:c.w], wire.Device)
		if err != nil {
			return n, &violation{err}
		}
		if k == 0 {
			if c.w-c.r == len(c.rx) {
				return n, &violation{fmt.Errorf("%v longer than what was asked for", f.Type)}
			}
			break
		}
		c.r += k
		if err := c.frame(&f); err != nil {
			return n, &violation{err}
		}
	}
	return n, nil
}

// violation is an error of a peer that broke the protocol.
type violation struct{ err error }

func (v *violation) Error() string { return v.err.Error() }
func (v *violation) Unwrap() error { return v.err }

// frame handles one of the device's.
func (c *conn) frame(f *wire.Frame) error {
	switch f.Type {
	case wire.TypeCRQ:
		e, err := wire.ParseCRQ(*f)
		if err != nil {
			return err
		}
		c.a.entry((*crq.Entry)(&e), f.Epoch)
		return nil
	case wire.TypeEvent:
		e, err := wire.ParseEvent(*f)
		if err != nil {
			return err
		}
		switch e.Kind {
		case wire.EventRegistered:
			c.a.notice(Registered, e.Epoch)
		case wire.EventFreed:
			c.a.notice(Freed, e.Epoch)
		case wire.EventReset:
			c.a.notice(Reset, e.Epoch)
		case wire.EventPaused:
			c.a.notice(Paused, e.Epoch)
		case wire.EventRunning:
			c.a.notice(Running, e.Epoch)
		}
		return nil
	case wire.TypeHello:
		return errors.New("a second HELLO")
	}
	return c.answer(f)
}

// answer ends the operation that f answers, and the quiet ones before it: answers come
// in the order of the requests.
func (c *conn) answer(f *wire.Frame) error {
	for op := c.flight.first; op != nil; op = c.flight.first {
		if op.id != f.ID && !op.Quiet {
			break
		}
		if op.id == f.ID {
			return c.end(op, f)
		}
		c.flight.pop()
		op.Err = nil
		op.Owner.Ended(op)
	}
	return fmt.Errorf("%v to no request", f.Type)
}

// types are the frames of operations.
var types = [...]wire.Type{OpRead: wire.TypeRead, OpWrite: wire.TypeWrite, OpSend: wire.TypeSend}

// end ends the first operation of flight, which f answers.
func (c *conn) end(op *Op, f *wire.Frame) error {
	if f.Type != types[op.Kind]|wire.Reply {
		return fmt.Errorf("%v to a request of another kind", f.Type)
	}
	st := wire.Status(f.Code)
	if op.Kind == OpRead && st == wire.OK {
		if len(f.Payload) != len(op.Buf) {
			return fmt.Errorf("%d bytes where %d were asked for", len(f.Payload), len(op.Buf))
		}
		copy(op.Buf, f.Payload)
	}
	switch st {
	case wire.OK:
		op.Err = nil
	case wire.Closed:
		op.Err = ErrClosed
	case wire.Full:
		op.Err = ErrFull
	case wire.Address:
		op.Err = ErrAddress
	case wire.Stale:
		op.Err = ErrStale
	case wire.Skipped:
		op.Err = ErrSkipped
	default:
		op.Err = ErrRefused
	}
	c.flight.pop()
	op.Owner.Ended(op)
	return nil
}

// flush sends what waits until the socket is full.
func (c *conn) flush() {
	for !c.dead && !c.blocked {
		c.fill()
		if c.s0 == c.s1 {
			break
		}
		c.tv.Reset()
		for i := c.s0; i < c.s1; i++ {
			c.tv.Add(c.segs[i])
		}
		n, err := c.tv.Send(c.fd)
		if err != nil && err != syscall.EAGAIN {
			if err == syscall.EPIPE || err == syscall.ECONNRESET {
				err = io.EOF
			}
			c.Close(err)
			return
		}
		if err != nil {
			n = 0
		}
		c.blocked = n < c.tv.Bytes()
		for ; c.s0 < c.s1; c.s0++ {
			s := &c.segs[c.s0]
			if n < len(*s) {
				*s = (*s)[n:]
				break
			}
			n -= len(*s)
			*s = nil
		}
		if c.s0 == c.s1 {
			c.s0, c.s1, c.arena = 0, 0, c.arena[:0]
		}
	}
	ev := loop.In
	if c.blocked {
		ev |= loop.Out
	}
	if !c.dead && ev != c.ev && c.l.Modify(&c.src, ev) == nil {
		c.ev = ev
	}
}

// fill makes frames of the operations that wait, as many as there is room for.
func (c *conn) fill() {
	for c.wait.first != nil && cap(c.arena)-len(c.arena) >= maxHead && c.s1+2 <= len(c.segs) {
		op := c.wait.pop()
		c.id++
		op.id = c.id
		var fl wire.Flags
		if op.Link {
			fl |= wire.Link
		}
		if op.Quiet && op.Kind != OpRead {
			fl |= wire.Quiet
		}
		from := len(c.arena)
		switch op.Kind {
		case OpRead:
			c.arena = wire.AppendRead(c.arena, fl, op.Epoch, op.id, op.Addr, uint32(len(op.Buf)))
		case OpWrite:
			c.arena = wire.AppendWrite(c.arena, fl, op.Epoch, op.id, op.Addr, uint32(len(op.Buf)))
		case OpSend:
			c.arena = wire.AppendSend(c.arena, fl, op.Epoch, op.id, (*[wire.EntryLen]byte)(&op.Entry))
		}
		head := c.arena[from:]
		// Frames without payload are one piece.
		if c.s1 > c.s0 && op.Kind != OpWrite && c.joins(head) {
			s := &c.segs[c.s1-1]
			*s = (*s)[:len(*s)+len(head)]
		} else {
			c.segs[c.s1] = head
			c.s1++
		}
		if op.Kind == OpWrite {
			c.segs[c.s1] = op.Buf
			c.s1++
		}
		c.flight.push(op)
	}
}

// joins tells whether head stands right behind the last piece.
func (c *conn) joins(head []byte) bool {
	s := c.segs[c.s1-1]
	return cap(s) > len(s) && &s[:len(s)+1][len(s)] == &head[0]
}
