package xentest

import (
	"encoding/binary"
	"sync"
	"testing"

	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/xen/evtchn/evtchntest"
	"github.com/vtgt/vtgt/xen/gnttab"
	"github.com/vtgt/vtgt/xen/gnttab/gnttabtest"
	"github.com/vtgt/vtgt/xen/vscsiif"
)

// Front is a ring as xen-scsifront has it: 16 names of requests, of which each is used
// again as soon as it was answered, and grants that must not be in use then. An answer
// that breaks a rule of scsifront's is an error of the test: there it disables the host.
type Front struct {
	TB   testing.TB
	Dom  *gnttabtest.Domain
	Port *evtchntest.Port
	Ref  uint32
	Page int
	Ring gmem.Area

	Mu      sync.Mutex
	cond    sync.Cond
	Prod    uint32
	Cons    uint32
	Shadows [vscsiif.Entries]*Sent
	stop    chan struct{}
	wg      sync.WaitGroup
	Order   []uint16 // names, as they were answered
	NoReap  bool
}

// Sent is a request under way.
type Sent struct {
	Req   vscsiif.Request
	ID    uint16
	Refs  []uint32
	Pages []int
	Lens  []vscsiif.Segment // of the data
	Data  []byte            // filled when it has ended
	Rsp   vscsiif.Response
	Done  func(*Sent)   // called with Front.Mu held
	Ch    chan struct{} // closed when it has ended
}

// NewFront makes a ring of dom, which nobody serves yet.
func NewFront(tb testing.TB, dom *gnttabtest.Domain, hub *evtchntest.Hub) *Front {
	f := &Front{TB: tb, Dom: dom, Port: hub.Alloc(dom.ID), stop: make(chan struct{})}
	f.cond.L = &f.Mu
	var b []byte
	f.Page, b = dom.Alloc()
	clear(b)
	f.Ref = dom.Grant(f.Page, false)
	var err error
	if f.Ring, err = gmem.NewArea(b, 16); err != nil {
		tb.Fatal(err)
	}
	f.Ring.Store32(4, 1)
	f.Ring.Store32(12, 1)
	f.wg.Add(1)
	go f.reap()
	return f
}

// Close ends it: its pages must not be in use.
func (f *Front) Close() {
	f.Mu.Lock()
	select {
	case <-f.stop:
		f.Mu.Unlock()
		return
	default:
	}
	close(f.stop)
	f.Mu.Unlock()
	f.wg.Wait()
	f.Port.Close()
	f.Dom.End(f.Ref)
	f.Dom.Release(f.Page)
}

// buffer grants pages for n bytes from off on, as segments.
func (f *Front) buffer(s *Sent, n, off int, readOnly bool) []vscsiif.Segment {
	var l []vscsiif.Segment
	for n > 0 {
		p, _ := f.Dom.Alloc()
		k := min(n, vscsiif.PageSize-off)
		ref := f.Dom.Grant(p, readOnly)
		s.Pages, s.Refs = append(s.Pages, p), append(s.Refs, ref)
		l = append(l, vscsiif.Segment{Ref: ref, Off: uint16(off), Len: uint16(k)})
		n, off = n-k, 0
	}
	return l
}

// Attach gives s a data buffer of n bytes, whose first page begins at off; out are its
// bytes, nil: the device is to fill it.
func (f *Front) Attach(s *Sent, n, off int, out []byte, indirect bool) {
	s.Lens = f.buffer(s, n, off, out != nil)
	o := 0
	for i, g := range s.Lens {
		if b := f.Dom.Page(s.Pages[i])[g.Off:][:g.Len]; out != nil {
			o += copy(b, out[o:])
		} else {
			clear(b)
		}
	}
	if len(s.Lens) <= vscsiif.MaxDirect && !indirect {
		s.Req.SetSegments(s.Lens, false)
		return
	}
	var table []byte
	for _, g := range s.Lens {
		table = g.Append(table)
	}
	tabs := f.buffer(s, len(table), 0, true)
	for i, g := range tabs {
		copy(f.Dom.Page(s.Pages[len(s.Lens)+i])[:g.Len], table[i*vscsiif.PageSize:])
	}
	s.Req.SetSegments(tabs, true)
}

// Send puts s into the ring when there is room, under a name of its own.
func (f *Front) Send(s *Sent) (id uint16) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	for {
		for i, o := range f.Shadows {
			if o == nil && f.Prod-f.Cons < vscsiif.Entries {
				f.Shadows[i], s.ID = s, uint16(i)
				f.Put(&s.Req, uint16(i))
				return uint16(i)
			}
		}
		f.cond.Wait()
	}
}

// Put writes a request. Lock held.
func (f *Front) Put(q *vscsiif.Request, id uint16) {
	binary.LittleEndian.PutUint16(q[:], id)
	o := 64 + int(f.Prod%vscsiif.Entries)*vscsiif.SlotLen
	for k := 0; k < vscsiif.SlotLen; k += 4 {
		f.Ring.Put32(o+k, binary.LittleEndian.Uint32(q[k:]))
	}
	old := f.Prod
	f.Prod++
	f.Ring.Store32(0, f.Prod)
	if f.Prod-f.Ring.Load32(4) < f.Prod-old {
		f.Port.Notify()
	}
}

// reap takes answers.
func (f *Front) reap() {
	defer f.wg.Done()
	for {
		f.Mu.Lock()
		for !f.NoReap {
			for f.Cons != f.Ring.Load32(8) {
				if f.Ring.Load32(8)-f.Cons > vscsiif.Entries || f.Cons == f.Prod {
					f.TB.Error("more responses than requests")
					f.Mu.Unlock()
					return
				}
				f.take()
			}
			f.Ring.Store32(12, f.Cons+1)
			if f.Cons == f.Ring.Load32(8) {
				break
			}
		}
		f.Mu.Unlock()
		select {
		case <-f.Port.C:
		case <-f.stop:
			return
		}
	}
}

// take takes one. Lock held.
func (f *Front) take() {
	var p vscsiif.Response
	o := 64 + int(f.Cons%vscsiif.Entries)*vscsiif.SlotLen
	for k := 0; k < vscsiif.SlotLen; k += 4 {
		binary.LittleEndian.PutUint32(p[k:], f.Ring.Load32(o+k))
	}
	f.Cons++
	id := p.ID()
	f.Order = append(f.Order, id)
	if int(id) >= len(f.Shadows) || f.Shadows[id] == nil {
		f.TB.Errorf("illegal rqid %d returned by backend", id)
		return
	}
	s := f.Shadows[id]
	f.Shadows[id] = nil
	s.Rsp = p
	s.Data = nil
	for i, g := range s.Lens {
		s.Data = append(s.Data, f.Dom.Page(s.Pages[i])[g.Off:][:g.Len]...)
	}
	for _, r := range s.Refs {
		if !f.Dom.End(r) {
			f.TB.Error("grant still in use by backend")
		}
	}
	for _, n := range s.Pages {
		f.Dom.Release(n)
	}
	if s.Done != nil {
		s.Done(s)
	}
	if s.Ch != nil {
		close(s.Ch)
	}
	f.cond.Broadcast()
}

// Do sends a request and waits for its answer.
func (f *Front) Do(s *Sent) *vscsiif.Response {
	f.TB.Helper()
	s.Ch = make(chan struct{})
	f.Send(s)
	tempotest.Recv(f.TB, s.Ch, "a response")
	return &s.Rsp
}

// CDB is a command to the device at v-dev 0:0:0:lun.
func CDB(lun uint16, d vscsiif.Direction, b ...byte) *Sent {
	return CDBAt(vscsiif.Address{LUN: lun}, d, b...)
}

// CDBAt is a command to the device at a.
func CDBAt(a vscsiif.Address, d vscsiif.Direction, b ...byte) *Sent {
	s := &Sent{}
	s.Req.Set(0, vscsiif.ActCDB, a, b, d)
	return s
}

// MapPage maps the ring's page, as the back end does.
func MapPage(tb testing.TB, t gnttab.Table, f *Front) *gnttab.View {
	tb.Helper()
	v := new(gnttab.View)
	if err := t.Map(v, f.Dom.ID, []uint32{f.Ref}, true); err != nil {
		tb.Fatal(err)
	}
	return v
}
