package srptest

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/srp/iu"
)

func after() <-chan time.Time { return time.After(Timeout) }

// maxDesc bounds the descriptors of one buffer.
const maxDesc = 64

// Carrier is the in-memory carrier: SRP information units by a list, data by a Mover
// that copies from and to the initiator's Memory. It is a model of what a carrier does.
type Carrier struct {
	*Initiator
	q  *srp.Queue
	ch iu.Channel

	mu      sync.Mutex
	inbox   [][]byte
	posted  bool
	holding bool
	held    []move
	events  []scsi.Event
	node    loop.Node
	dead    bool // the loop's: the link is down
}

// part is a carrier's part of a request.
type part struct {
	sol     iu.SolNot
	out, in iu.Data
	inline  [2][iu.DescLen * 16]byte // copies of the lists in the unit
	segs    []iu.Segment
	rsp     [iu.MaxRspLen]byte
}

// move is one that is held.
type move struct {
	r     *srp.Request
	store bool
}

// New makes a part; it is srp.Config.New for this carrier.
func New(*srp.Request) any { return new(part) }

// NewCarrier is the Factory of the in-memory carrier.
func NewCarrier(tb testing.TB, p *srp.Port, l *loop.Loop) Link {
	c := &Carrier{}
	c.node.Init(c)
	c.ch.Policy.Limit = int32(p.Config().Requests)
	c.Initiator = NewInitiator(c.transmit)
	var err error
	if c.q, err = p.Queue(l, c, c); err != nil {
		tb.Fatal(err)
	}
	if err := c.Login(iu.PortID(p.Config().Initiator)); err != nil {
		tb.Fatal(err)
	}
	return c
}

// transmit puts a unit into the inbox.
func (c *Carrier) transmit(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inbox = append(c.inbox, append([]byte(nil), b...))
	if !c.posted {
		c.posted = true
		c.q.Loop().Post(&c.node)
	}
	return nil
}

// Handle takes what is in the inbox, on the loop.
func (c *Carrier) Handle(*loop.Node) {
	c.mu.Lock()
	list := c.inbox
	c.inbox, c.posted = nil, false
	c.mu.Unlock()
	for _, b := range list {
		if !c.dead {
			c.receive(b)
		}
	}
	c.q.Kick()
}

// fail ends the link.
func (c *Carrier) fail() {
	c.dead = true
	c.Lost()
}

func (c *Carrier) receive(b []byte) {
	v, _ := c.ch.Receive(b)
	switch v {
	case iu.Reply:
		c.Receive(c.ch.Reply)
		return
	case iu.Answered:
		return
	case iu.Logout, iu.Violation:
		c.fail()
		return
	}
	r := c.q.Get()
	if r == nil { // beyond all limits
		c.fail()
		return
	}
	o := r.Own.(*part)
	if iu.Type(b[0]) == iu.TypeTskMgmt {
		u := iu.AsTskMgmt(b)
		o.sol = u.SolNot()
		r.Tag, r.LUN, r.TaskTag = u.Tag(), u.LUN(), u.TaskTag()
		f, _ := u.Func().SCSI() // 0: the core does not know it either
		if f == 0 {
			f = 0xff
		}
		c.q.Manage(r, f)
		return
	}
	k, err := iu.ParseCmd(b, maxDesc)
	if err != nil {
		c.q.Put(r)
		c.fail()
		return
	}
	o.sol = k.SolNot()
	k.Fill(&r.Task)
	if len(k.Out.List) > len(o.inline[0]) || len(k.In.List) > len(o.inline[1]) {
		c.q.Put(r)
		c.fail()
		return
	}
	o.out, o.in = k.Out, k.In
	o.out.List = o.inline[0][:copy(o.inline[0][:], k.Out.List)]
	o.in.List = o.inline[1][:copy(o.inline[1][:], k.In.List)]
	r.OutSize, r.InSize = int64(k.Out.Len), int64(k.In.Len)
	c.q.Submit(r)
}

// Fetch is the Mover's.
func (c *Carrier) Fetch(r *srp.Request) { c.move(move{r, false}) }

// Store is the Mover's.
func (c *Carrier) Store(r *srp.Request) { c.move(move{r, true}) }

func (c *Carrier) move(m move) {
	c.mu.Lock()
	if c.holding {
		c.held = append(c.held, m)
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	c.q.Moved(m.r, c.copy(m))
}

// copy moves the data.
func (c *Carrier) copy(m move) error {
	o := m.r.Own.(*part)
	d, bufs, n := &o.out, m.r.DataOut, int64(0)
	if m.store {
		d, bufs, n = &o.in, m.r.DataIn, m.r.InLen
	} else {
		for _, b := range bufs {
			n += int64(len(b))
		}
	}
	list := d.List
	if d.External() {
		var err error
		if list, err = c.mem.At(d.Table); err != nil {
			return err
		}
	}
	var err error
	var buf []byte
	if o.segs, err = iu.Segments(o.segs[:0], list, d.Len); err != nil {
		return err
	}
	for _, s := range o.segs {
		if n == 0 {
			break
		}
		b, err := c.mem.At(s)
		if err != nil {
			return err
		}
		for len(b) > 0 && n > 0 {
			if len(buf) == 0 {
				buf, bufs = bufs[0], bufs[1:]
			}
			k := min(len(b), len(buf), int(n))
			if m.store {
				copy(b[:k], buf)
			} else {
				copy(buf[:k], b)
			}
			b, buf, n = b[k:], buf[k:], n-int64(k)
		}
	}
	if n != 0 {
		return errors.New("short")
	}
	return nil
}

// Hold keeps moves.
func (c *Carrier) Hold(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holding = on
}

// Held is how many are held.
func (c *Carrier) Held() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.held)
}

// Release ends those that are held, without moving anything where err is not nil.
func (c *Carrier) Release(err error) {
	c.mu.Lock()
	list := c.held
	c.held = nil
	c.mu.Unlock()
	c.q.Loop().Do(func() {
		for _, m := range list {
			e := err
			if e == nil {
				e = c.copy(m)
			}
			c.q.Moved(m.r, e)
		}
	})
}

// Event is the Carrier's.
func (c *Carrier) Event(e scsi.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, e)
}

// Events are those that came.
func (c *Carrier) Events() []scsi.Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]scsi.Event(nil), c.events...)
}

// Respond is the Carrier's.
func (c *Carrier) Respond(r *srp.Request) {
	defer c.q.Put(r)
	if c.dead || r.Func == 0 && r.Aborted {
		return
	}
	o := r.Own.(*part)
	u := iu.AsRsp(o.rsp[:])
	u.Reset()
	u.SetTag(r.Tag)
	u.SetDelta(c.q.Credit())
	n := iu.RspLen
	if r.Func != 0 {
		code := iu.CodeOf(r.Response)
		u.SetSolNot(o.sol.Response(code == iu.CodeComplete))
		n = iu.PutCode(o.rsp[:], code)
	} else {
		u.SetSolNot(o.sol.Response(r.Status == scsi.StatusGood))
		u.SetStatus(r.Status)
		out, in := r.Residuals()
		var f iu.RspFlags
		switch {
		case out > 0:
			f |= iu.DOUnder
			u.SetOutResidual(uint32(out))
		case out < 0:
			f |= iu.DOOver
			u.SetOutResidual(uint32(-out))
		}
		switch {
		case in > 0:
			f |= iu.DIUnder
			u.SetInResidual(uint32(in))
		case in < 0:
			f |= iu.DIOver
			u.SetInResidual(uint32(-in))
		}
		u.SetFlags(f)
		if r.SenseLen > 0 {
			n = iu.PutSense(o.rsp[:], r.Sense[:r.SenseLen])
		}
	}
	c.Receive(o.rsp[:n])
}
