package evtchntest

import (
	"sync"
	"syscall"

	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/xen/evtchn"
)

// Hub is where channels meet. The zero value is ready. Any goroutine.
type Hub struct {
	mu    sync.Mutex
	ports map[[2]uint32]*Port
	last  uint32
}

// Port is another domain's end.
type Port struct {
	Num  uint32
	C    chan struct{} // rings; several rings are one
	hub  *Hub
	id   [2]uint32
	peer *channel

	// Rings counts the notifications that came.
	rings int
}

// Alloc offers a new port of domain domid.
func (h *Hub) Alloc(domid uint32) *Port {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	p := &Port{Num: h.last, C: make(chan struct{}, 1), hub: h, id: [2]uint32{domid, h.last}}
	if h.ports == nil {
		h.ports = map[[2]uint32]*Port{}
	}
	h.ports[p.id] = p
	return p
}

// Notify rings at the back end, if it is bound.
func (p *Port) Notify() {
	p.hub.mu.Lock()
	defer p.hub.mu.Unlock()
	if p.peer != nil {
		sys.EventfdSignal(p.peer.fd)
	}
}

// Bound tells whether a back end is bound.
func (p *Port) Bound() bool {
	p.hub.mu.Lock()
	defer p.hub.mu.Unlock()
	return p.peer != nil
}

// Rings is how often the back end has notified.
func (p *Port) Rings() int {
	p.hub.mu.Lock()
	defer p.hub.mu.Unlock()
	return p.rings
}

// Close takes the port away.
func (p *Port) Close() {
	p.hub.mu.Lock()
	defer p.hub.mu.Unlock()
	delete(p.hub.ports, p.id)
}

// Bind is evtchn.Binder's.
func (h *Hub) Bind(domid, remote uint32) (evtchn.Channel, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.ports[[2]uint32{domid, remote}]
	if p == nil || p.peer != nil {
		return nil, syscall.EINVAL
	}
	fd, err := sys.NewEventfd()
	if err != nil {
		return nil, err
	}
	p.peer = &channel{p: p, fd: fd}
	sys.EventfdSignal(fd)
	return p.peer, nil
}

type channel struct {
	p  *Port
	fd int
}

func (c *channel) FD() int { return c.fd }

func (c *channel) Take() bool {
	n, _ := sys.EventfdDrain(c.fd)
	return n > 0
}

func (c *channel) Notify() error {
	c.p.hub.mu.Lock()
	c.p.rings++
	c.p.hub.mu.Unlock()
	select {
	case c.p.C <- struct{}{}:
	default:
	}
	return nil
}

func (c *channel) Close() error {
	c.p.hub.mu.Lock()
	c.p.peer = nil
	c.p.hub.mu.Unlock()
	return sys.Close(c.fd)
}
