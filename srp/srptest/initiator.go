package srptest

import (
	"fmt"
	"sync"

	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/srp/iu"
)

// Initiator is an SRP initiator: a Wire over anything that carries information units.
// The carrier calls Receive and Lost.
type Initiator struct {
	// Transmit brings a unit to the target. It keeps no hold on b.
	Transmit func(b []byte) error

	mem  Memory
	down chan struct{}

	mu     sync.Mutex
	dead   bool
	limit  int
	tag    uint64
	cmds   map[uint64]*pending
	login  chan []byte
	faults []string
}

// pending is a command without a response yet.
type pending struct {
	c        *Command
	ch       chan Result
	segs     []iu.Segment // of the buffers
	in       []iu.Segment
	table    []iu.Segment
	finished bool
}

// NewInitiator makes one.
func NewInitiator(transmit func(b []byte) error) *Initiator {
	return &Initiator{Transmit: transmit, down: make(chan struct{}), cmds: make(map[uint64]*pending), login: make(chan []byte, 8)}
}

// LoginReq is the login that Login sends.
func LoginReq(id iu.PortID) []byte {
	var u iu.LoginReq
	u.Reset()
	u.SetTag(0x1122334455667788)
	u.SetMaxIULen(256)
	u.SetFormats(iu.FormatsDirect | iu.FormatsIndirect)
	u.SetInitiatorPort(id)
	return u[:]
}

// Login logs in.
func (i *Initiator) Login(id iu.PortID) error {
	if err := i.Send(LoginReq(id)); err != nil {
		return err
	}
	b, err := i.LoginAnswer()
	if err != nil {
		return err
	}
	if iu.Type(b[0]) != iu.TypeLoginRsp {
		return fmt.Errorf("login: %v", iu.AsLoginRej(b).Reason())
	}
	i.mu.Lock()
	i.limit = int(iu.AsLoginRsp(b).Delta())
	i.mu.Unlock()
	return nil
}

// LoginAnswer waits for an SRP_LOGIN_RSP or SRP_LOGIN_REJ.
func (i *Initiator) LoginAnswer() ([]byte, error) {
	select {
	case b := <-i.login:
		return b, nil
	case <-i.down:
		return nil, ErrDown
	case <-after():
		return nil, fmt.Errorf("no answer to a login")
	}
}

// Send sends a unit as it is.
func (i *Initiator) Send(b []byte) error {
	select {
	case <-i.down:
		return ErrDown
	default:
	}
	return i.Transmit(b)
}

// Down is closed when the link has ended.
func (i *Initiator) Down() <-chan struct{} { return i.down }

// Memory is the initiator's memory.
func (i *Initiator) Memory() *Memory { return &i.mem }

// Limit is the present request limit.
func (i *Initiator) Limit() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.limit
}

// Faults are the rules that the target has broken.
func (i *Initiator) Faults() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]string(nil), i.faults...)
}

// Lost ends the link: the carrier has.
func (i *Initiator) Lost() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.dead {
		return
	}
	i.dead = true
	close(i.down)
	for t, p := range i.cmds {
		delete(i.cmds, t)
		p.ch <- Result{Down: true}
	}
}

// Close does the same.
func (i *Initiator) Close() { i.Lost() }

// Hung gives an aborted command back.
func (i *Initiator) Hung(tag uint64) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	p := i.cmds[tag]
	if p != nil {
		delete(i.cmds, tag)
		i.unmap(p)
	}
	return p != nil
}

func (i *Initiator) unmap(p *pending) {
	for _, s := range append(p.segs, p.table...) {
		i.mem.Free(s)
	}
}

// pieces maps b in n pieces, filled where fill.
func (i *Initiator) pieces(p *pending, b []byte, n int, fill bool) (list []iu.Segment) {
	for k := range n {
		part := b[len(b)*k/n : len(b)*(k+1)/n]
		s := i.mem.Alloc(len(part))
		if m, _ := i.mem.At(s); fill {
			copy(m, part)
		}
		list = append(list, s)
	}
	p.segs = append(p.segs, list...)
	return list
}

// describe appends the descriptor of the buffer b to u.
func (i *Initiator) describe(u []byte, p *pending, b []byte, fill bool) (_ []byte, f iu.Format, count int, list []iu.Segment) {
	if len(b) == 0 {
		return u, iu.NoData, 0, nil
	}
	var d [iu.DescLen]byte
	if p.c.Form == FormDirect {
		list = i.pieces(p, b, 1, fill)
		list[0].Encode(d[:])
		return append(u, d[:]...), iu.Direct, 0, list
	}
	n, inline := 3, 3
	if p.c.Form == FormTable {
		n, inline = 12, 2
	}
	list = i.pieces(p, b, n, fill)
	var raw []byte
	for _, s := range list {
		s.Encode(d[:])
		raw = append(raw, d[:]...)
	}
	t := iu.Segment{Addr: memBase, Key: memKey, Len: uint32(len(raw))}
	if p.c.Form == FormTable {
		t = i.mem.Alloc(len(raw))
		p.table = append(p.table, t)
		m, _ := i.mem.At(t)
		copy(m, raw)
	}
	t.Encode(d[:])
	u = append(u, d[:]...)
	u = append(u, byte(len(b)>>24), byte(len(b)>>16), byte(len(b)>>8), byte(len(b)))
	return append(u, raw[:inline*iu.DescLen]...), iu.Indirect, inline, list
}

// tmCodes are SRP's codes of functions.
var tmCodes = [...]iu.TMFunc{scsi.AbortTask: iu.TMAbortTask, scsi.AbortTaskSet: iu.TMAbortTaskSet,
	scsi.ClearTaskSet: iu.TMClearTaskSet, scsi.LUNReset: iu.TMLUNReset, scsi.ClearACA: iu.TMClearACA}

// Start sends c.
func (i *Initiator) Start(c *Command) (<-chan Result, error) {
	p := &pending{c: c, ch: make(chan Result, 4)}
	var u []byte
	if c.Func != 0 {
		var t iu.TskMgmt
		t.Reset()
		t.SetTag(c.Tag)
		t.SetLUN(c.LUN)
		t.SetTaskTag(c.TaskTag)
		if int(c.Func) < len(tmCodes) {
			t.SetFunc(tmCodes[c.Func])
		}
		u = t[:]
	} else {
		var h iu.Cmd
		h.Reset()
		h.SetTag(c.Tag)
		h.SetLUN(c.LUN)
		h.SetAttr(c.Attr)
		copy(h.CDB()[:], c.CDB)
		u = h[:]
		if len(c.CDB) > 16 {
			add := c.CDB[16:]
			h.SetAddCDBLen(len(add))
			u = append(h[:], add...)
		}
		var fo, fi iu.Format
		var no, ni int
		u, fo, no, _ = i.describe(u, p, c.Out, true)
		u, fi, ni, p.in = i.describe(u, p, c.In, false)
		iu.AsCmd(u).SetFormats(fo, fi)
		iu.AsCmd(u).SetCounts(uint8(no), uint8(ni))
	}
	i.mu.Lock()
	if i.dead {
		i.mu.Unlock()
		return nil, ErrDown
	}
	i.limit--
	i.cmds[c.Tag] = p
	i.mu.Unlock()
	return p.ch, i.Send(u)
}

// Receive takes a unit of the target's. It keeps no hold on b.
func (i *Initiator) Receive(b []byte) {
	t, err := iu.Check(b)
	i.mu.Lock()
	defer i.mu.Unlock()
	if err != nil {
		i.faults = append(i.faults, err.Error())
		return
	}
	switch t {
	case iu.TypeLoginRsp, iu.TypeLoginRej:
		i.login <- append([]byte(nil), b...)
		return
	case iu.TypeRsp:
	default:
		i.faults = append(i.faults, "unexpected "+t.String())
		return
	}
	r, err := iu.ParseRsp(b)
	if err != nil {
		i.faults = append(i.faults, err.Error())
		return
	}
	i.limit += int(r.Delta())
	p := i.cmds[r.Tag()]
	if p == nil {
		i.faults = append(i.faults, fmt.Sprintf("response to no request, tag %#x", r.Tag()))
		return
	}
	delete(i.cmds, r.Tag())
	res := Result{Status: r.Status(), Sense: append([]byte(nil), r.Sense...)}
	f := r.Flags()
	if f&iu.DOUnder != 0 {
		res.OutResidual = int64(r.OutResidual())
	} else if f&iu.DOOver != 0 {
		res.OutResidual = -int64(r.OutResidual())
	}
	if f&iu.DIUnder != 0 {
		res.InResidual = int64(r.InResidual())
	} else if f&iu.DIOver != 0 {
		res.InResidual = -int64(r.InResidual())
	}
	if r.HasCode {
		switch r.Code {
		case iu.CodeComplete:
			res.Response = scsi.TMComplete
		case iu.CodeNotSupported:
			res.Response = scsi.TMNotSupported
		case iu.CodeInvalidFields:
			res.Response = scsi.TMRejected
		default:
			res.Response = scsi.TMFailed
		}
	}
	at := 0
	for _, s := range p.in {
		m, _ := i.mem.At(s)
		at += copy(p.c.In[at:], m)
	}
	i.unmap(p)
	p.ch <- res
}
