package xen

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/srp/srptest"
	"github.com/vtgt/vtgt/xen/evtchn/evtchntest"
	"github.com/vtgt/vtgt/xen/gnttab/gnttabtest"
	"github.com/vtgt/vtgt/xen/journal"
	"github.com/vtgt/vtgt/xen/vscsiif"
	"github.com/vtgt/vtgt/xen/xentest"
)

// bed is a ring on a port, with its front end.
type bed struct {
	tb   testing.TB
	hub  evtchntest.Hub
	dom  *gnttabtest.Domain
	f    *xentest.Front
	r    *ring
	l    *loop.Loop
	p    *srp.Port
	mem  []byte // the journal's
	luns atomic.Pointer[lunMap]
	ends []func()

	mapFrom int64
	failed  atomic.Pointer[error]
	closed  bool
}

func testID(f *xentest.Front) journal.Identity {
	return journal.Identity{Domain: f.Dom.ID, RingRef: f.Ref, Port: f.Port.Num}
}

func newBed(tb testing.TB, p *srp.Port, l *loop.Loop, mapFrom int64) *bed {
	tb.Helper()
	b := &bed{tb: tb, p: p, l: l, mapFrom: mapFrom}
	b.dom = gnttabtest.NewDomain(tb, 5, 16384)
	b.f = xentest.NewFront(tb, b.dom, &b.hub)
	m := lunMap{{LUN: 0}: 0, {LUN: 5}: 5}
	b.luns.Store(&m)
	var err error
	if b.mem, err = sys.MapAnonymous(journal.Size); err != nil {
		tb.Fatal(err)
	}
	b.start(true)
	return b
}

// start makes the ring, a new one or that of a process that has died.
func (b *bed) start(fresh bool) {
	b.tb.Helper()
	c := ringConfig{Loop: b.l, Port: b.p, Domain: b.dom.ID, Grants: b.dom.Table(), LUNs: &b.luns, MapFrom: b.mapFrom,
		Events: func(scsi.Event) {}, Bad: func(uint64) {}, Failed: func(err error) { b.failed.Store(&err) }}
	var err error
	if c.Channel, err = b.hub.Bind(b.dom.ID, b.f.Port.Num); err != nil {
		b.tb.Fatal(err)
	}
	c.Page = xentest.MapPage(b.tb, c.Grants, b.f)
	var cons, prod uint32
	if fresh {
		c.Journal, err = journal.New(b.mem, testID(b.f), 0)
	} else {
		_, prod, _ = vscsiif.Indices(c.Page.B)
		c.Journal, cons, prod, c.Lost, err = journal.Open(b.mem, testID(b.f), prod)
	}
	if err == nil {
		c.Ring, err = vscsiif.NewRing(c.Page.B, cons, prod)
	}
	if err != nil {
		b.tb.Fatal(err)
	}
	b.l.Do(func() { b.r, err = newRing(c) })
	if err != nil {
		b.tb.Fatal(err)
	}
}

// stop ends the ring, in order.
func (b *bed) stop(deadline time.Duration) int {
	b.tb.Helper()
	ch := make(chan int, 1)
	b.l.Do(func() { b.r.stop(deadline, func(n int) { ch <- n }) })
	return tempotest.Recv(b.tb, ch, "the ring's end")
}

func (b *bed) close() {
	if b.closed {
		return
	}
	b.closed = true
	b.stop(srptest.Timeout)
	b.f.Close()
	b.dom.Free()
	_ = sys.Unmap(b.mem)
}

// count reads a counter as of now.
func (b *bed) count(i int) (n uint64) {
	b.l.Do(func() { n = b.r.now[i] })
	return n
}

// link is a bed as srptest wants it.
type link struct {
	*bed
	mu   sync.Mutex
	tags map[uint64]*xentest.Sent // commands under way
	hung map[uint64]bool          // aborted
	n    int
}

func newLink(mapFrom int64) srptest.Factory {
	return func(tb testing.TB, p *srp.Port, l *loop.Loop) srptest.Link {
		return &link{bed: newBed(tb, p, l, mapFrom), tags: map[uint64]*xentest.Sent{}, hung: map[uint64]bool{}}
	}
}

func (k *link) Close() { k.bed.close() }

// Limit is how many commands may be sent now.
func (k *link) Limit() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return vscsiif.Entries - k.n
}

// Hung takes back an aborted command.
func (k *link) Hung(tag uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, under := k.tags[tag]
	return k.hung[tag] || under
}

// Start sends c.
func (k *link) Start(c *srptest.Command) (<-chan srptest.Result, error) {
	ch := make(chan srptest.Result, 1)
	n, _ := c.LUN.Number()
	s := &xentest.Sent{}
	if c.Func != 0 {
		act := vscsiif.ActReset
		switch c.Func {
		case scsi.AbortTask:
			act = vscsiif.ActAbort
		case scsi.LUNReset, scsi.AbortTaskSet, scsi.ClearTaskSet: // the ring knows one of them
		default:
			ch <- srptest.Result{Response: scsi.TMNotSupported}
			return ch, nil
		}
		s.Req.Set(0, act, vscsiif.Address{LUN: n}, nil, vscsiif.NoData)
		if act == vscsiif.ActAbort {
			k.mu.Lock()
			o := k.tags[c.TaskTag]
			k.mu.Unlock()
			id := uint16(0xdead)
			if o != nil {
				k.f.Mu.Lock()
				id = o.ID
				k.f.Mu.Unlock()
			}
			s.Req.SetRef(id)
		}
		s.Done = func(s *xentest.Sent) {
			switch {
			case s.Rsp.Result() == vscsiif.ResetSuccess:
				ch <- srptest.Result{Response: scsi.TMComplete}
			case act == vscsiif.ActReset:
				ch <- srptest.Result{Response: scsi.TMRejected}
			default:
				ch <- srptest.Result{Response: scsi.TMFailed}
			}
		}
		k.f.Send(s)
		return ch, nil
	}
	d, data := vscsiif.NoData, c.In
	switch {
	case len(c.Out) > 0:
		d, data = vscsiif.ToDevice, c.Out
	case len(c.In) > 0:
		d = vscsiif.FromDevice
	}
	s.Req.Set(0, vscsiif.ActCDB, vscsiif.Address{LUN: n}, c.CDB, d)
	off := 0
	if c.Form == srptest.FormInline {
		off = 3584 // and page by page: the store's alignment of 512 holds
	}
	if len(data) > 0 {
		k.f.Attach(s, len(data), off, c.Out, c.Form == srptest.FormTable)
	}
	s.Done = func(s *xentest.Sent) { k.ended(c, s, ch) }
	k.mu.Lock()
	k.n++
	k.tags[c.Tag] = s
	k.mu.Unlock()
	k.f.Send(s)
	return ch, nil
}

func (k *link) ended(c *srptest.Command, s *xentest.Sent, ch chan<- srptest.Result) {
	k.mu.Lock()
	delete(k.tags, c.Tag)
	k.n--
	rslt := s.Rsp.Result()
	host := vscsiif.Host(rslt >> 16)
	if host == vscsiif.HostAbort || host == vscsiif.HostReset {
		k.hung[c.Tag] = true
		k.mu.Unlock()
		return
	}
	k.mu.Unlock()
	res := srptest.Result{Status: scsi.Status(rslt), Sense: append([]byte(nil), s.Rsp.Sense()...)}
	left := int64(s.Rsp.Residual())
	if host == vscsiif.HostError && res.Status == scsi.StatusGood {
		left = srptest.Overflow
	} else if host != vscsiif.HostOK {
		k.tb.Errorf("host result %d", host)
	}
	if len(c.Out) > 0 {
		res.OutResidual = left
	} else {
		res.InResidual = left
		copy(c.In, s.Data)
	}
	ch <- res
}

func memory(tb testing.TB, g *loop.Group, size int64) (backing.Store, error) {
	return backing.Open("mem:", backing.Options{Size: size, Group: g})
}

func TestCarrier(t *testing.T) {
	mem := memory
	file := func(tb testing.TB, g *loop.Group, size int64) (backing.Store, error) {
		return backing.Open("file:"+tb.TempDir()+"/disk", backing.Options{Size: size, Create: true, Group: g})
	}
	for _, c := range []struct {
		name    string
		mapFrom int64
		open    func(testing.TB, *loop.Group, int64) (backing.Store, error)
	}{{"Copy", 0, mem}, {"Map", 1, mem}, {"Both", 16384, file}} {
		if testing.Short() && c.name != "Both" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			srptest.Run(t, srptest.Config{Carrier: newLink(c.mapFrom), New: NewSlot, Open: c.open})
		})
	}
}
