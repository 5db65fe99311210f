package xenstore

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/vtgt/vtgt/xen/xenstore/wire"
)

// Where xenstored is found.
const (
	SocketPath = "/run/xenstored/socket"
	DevicePath = "/dev/xen/xenbus"
)

// DefaultTimeout is Conn.Timeout: xenstored answers within a millisecond, and within
// seconds where it is replaced while it runs.
const DefaultTimeout = 60 * time.Second

// Conn is a connection to xenstored. Its embedded Tx are the operations outside any
// transaction.
type Conn struct {
	Tx
	// Timeout is how long an answer may take before the connection is lost
	// (DefaultTimeout). Not to be changed any more when requests are under way.
	Timeout time.Duration
	rw      io.ReadWriteCloser

	wmu sync.Mutex // one message at a time; above mu

	mu      sync.Mutex
	cond    sync.Cond // of pending, err
	next    uint32
	waits   map[uint32]chan answer
	pending []Event
	queued  map[Event]struct{}
	err     error
	done    chan struct{} // closed when the reader has ended
}

type answer struct {
	h    wire.Header
	body []byte
}

// Open connects to the socket or device at path. "" is the socket of a xenstored on
// this machine, or where there is none the kernel's device, which leads to wherever it
// runs.
func Open(path string) (*Conn, error) {
	if path == "" {
		if c, err := net.Dial("unix", SocketPath); err == nil {
			return New(c), nil
		}
		path = DevicePath
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("no way to xenstored: %w; is this a Xen domain with xenfs and xenstored?", err)
	}
	if st.Mode()&os.ModeSocket != 0 {
		c, err := net.Dial("unix", path)
		if err != nil {
			return nil, err
		}
		return New(c), nil
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return New(f), nil
}

// New makes a connection of rw, which it closes.
func New(rw io.ReadWriteCloser) *Conn {
	c := &Conn{rw: rw, Timeout: DefaultTimeout, waits: map[uint32]chan answer{}, queued: map[Event]struct{}{}, done: make(chan struct{})}
	c.cond.L = &c.mu
	c.Tx = Tx{c: c}
	go c.read()
	return c
}

// Close ends the connection: xenstored drops its watches and open transactions.
// Requests under way and Next return ErrClosed.
func (c *Conn) Close() error {
	c.fail(ErrClosed)
	err := c.rw.Close()
	<-c.done
	if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
		return nil // the reader was faster
	}
	return err
}

// Err is why the connection has ended, nil while it lives.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// fail ends everything that waits. The first reason stays.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	for id, w := range c.waits {
		delete(c.waits, id)
		close(w)
	}
	c.cond.Broadcast()
}

// read is the reader's goroutine.
func (c *Conn) read() {
	defer close(c.done)
	var hdr [wire.HeaderLen]byte
	for {
		if _, err := io.ReadFull(c.rw, hdr[:]); err != nil {
			c.lost(err)
			return
		}
		h, err := wire.ParseHeader(hdr[:])
		if err != nil {
			c.lost(err)
			return
		}
		body := make([]byte, h.Len)
		if _, err := io.ReadFull(c.rw, body); err != nil {
			c.lost(err)
			return
		}
		if h.Type == wire.WatchEvent {
			if p, tok, err := wire.ParseEvent(body); err == nil {
				c.event(Event{p, tok})
			}
			continue
		}
		c.mu.Lock()
		w := c.waits[h.Req]
		delete(c.waits, h.Req)
		c.mu.Unlock()
		if w != nil {
			w <- answer{h, body}
		}
	}
}

func (c *Conn) lost(err error) {
	c.fail(fmt.Errorf("%w: %w", ErrLost, err))
	_ = c.rw.Close()
}

// do sends a request and waits for the answer.
func (c *Conn) do(t wire.Type, tx uint32, path string, payload []byte) ([]byte, error) {
	w := make(chan answer, 1)
	c.wmu.Lock()
	c.mu.Lock()
	if err := c.err; err != nil {
		c.mu.Unlock()
		c.wmu.Unlock()
		return nil, err
	}
	c.next++
	id := c.next
	c.waits[id] = w
	c.mu.Unlock()
	b, err := wire.Message(t, id, tx, payload)
	if err == nil {
		if _, werr := c.rw.Write(b); werr != nil {
			c.lost(werr) // half a message may have gone out
		}
	}
	c.wmu.Unlock()
	if err != nil {
		c.mu.Lock()
		delete(c.waits, id)
		c.mu.Unlock()
		return nil, err
	}
	t0 := time.NewTimer(c.Timeout)
	defer t0.Stop()
	var a answer
	ok := false
	select {
	case a, ok = <-w:
	case <-t0.C:
		c.lost(fmt.Errorf("no answer to %v within %v", t, c.Timeout))
	}
	if !ok {
		return nil, c.Err()
	}
	if a.h.Type == wire.Error {
		l, _ := wire.ParseStrings(a.body)
		code := "EINVAL"
		if len(l) > 0 {
			code = l[0]
		}
		return nil, &Error{t, path, code}
	}
	if a.h.Type != t {
		return nil, fmt.Errorf("xenstore: the answer to %v is a %v", t, a.h.Type)
	}
	return a.body, nil
}

// An Event says that something at or below Path has changed, which the watch with
// Token covers. It may come without any change.
type Event struct {
	Path, Token string
}

// event queues e, unless the same waits already: an event says no more than "look
// again", so that what waits is bounded by the nodes that there can be.
func (c *Conn) event(e Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.queued[e]; ok {
		return
	}
	c.queued[e] = struct{}{}
	c.pending = append(c.pending, e)
	c.cond.Broadcast()
}

// Next waits for an event. The error is ErrClosed or why the connection was lost.
func (c *Conn) Next() (Event, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.pending) == 0 {
		if c.err != nil {
			return Event{}, c.err
		}
		c.cond.Wait()
	}
	e := c.pending[0]
	c.pending = c.pending[1:]
	delete(c.queued, e)
	return e, nil
}

// Watch has changes at and below path told by events with token. One comes at once.
func (c *Conn) Watch(path, token string) error {
	if err := wire.CheckPath(path); err != nil {
		return err
	}
	_, err := c.do(wire.Watch, 0, path, wire.Strings(path, token))
	return err
}

// Unwatch ends that. Events that were queued before still come.
func (c *Conn) Unwatch(path, token string) error {
	_, err := c.do(wire.Unwatch, 0, path, wire.Strings(path, token))
	return err
}
