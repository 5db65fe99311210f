package xen

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

// front is a ring as xen-scsifront has it: 16 names of requests, of which each is used
// again as soon as it was answered, and grants that must not be in use then. An answer
// that breaks a rule of scsifront's is an error of the test: there it disables the host.
type front struct {
	tb   testing.TB
	dom  *gnttabtest.Domain
	port *evtchntest.Port
	ref  uint32
	page int
	ring gmem.Area

	mu      sync.Mutex
	cond    sync.Cond
	prod    uint32
	cons    uint32
	shadows [vscsiif.Entries]*sent
	stop    chan struct{}
	wg      sync.WaitGroup
	order   []uint16 // names, as they were answered
	noReap  bool
}

// sent is a request under way.
type sent struct {
	req   vscsiif.Request
	id    uint16
	refs  []uint32
	pages []int
	lens  []vscsiif.Segment // of the data
	data  []byte            // filled when it has ended
	rsp   vscsiif.Response
	done  func(*sent) // called with front.mu held
	ch    chan struct{}
}

func newFront(tb testing.TB, dom *gnttabtest.Domain, hub *evtchntest.Hub) *front {
	f := &front{tb: tb, dom: dom, port: hub.Alloc(dom.ID), stop: make(chan struct{})}
	f.cond.L = &f.mu
	var b []byte
	f.page, b = dom.Alloc()
	clear(b)
	f.ref = dom.Grant(f.page, false)
	var err error
	if f.ring, err = gmem.NewArea(b, 16); err != nil {
		tb.Fatal(err)
	}
	f.ring.Store32(4, 1)
	f.ring.Store32(12, 1)
	f.wg.Add(1)
	go f.reap()
	return f
}

func (f *front) close() {
	f.mu.Lock()
	select {
	case <-f.stop:
		f.mu.Unlock()
		return
	default:
	}
	close(f.stop)
	f.mu.Unlock()
	f.wg.Wait()
	f.port.Close()
	f.dom.End(f.ref)
	f.dom.Release(f.page)
}

// buffer grants pages for n bytes from off on, as segments.
func (f *front) buffer(s *sent, n, off int, readOnly bool) []vscsiif.Segment {
	var l []vscsiif.Segment
	for n > 0 {
		p, _ := f.dom.Alloc()
		k := min(n, vscsiif.PageSize-off)
		ref := f.dom.Grant(p, readOnly)
		s.pages, s.refs = append(s.pages, p), append(s.refs, ref)
		l = append(l, vscsiif.Segment{Ref: ref, Off: uint16(off), Len: uint16(k)})
		n, off = n-k, 0
	}
	return l
}

// attach gives s a data buffer of n bytes, whose first page begins at off; out are its
// bytes, nil: the device is to fill it.
func (f *front) attach(s *sent, n, off int, out []byte, indirect bool) {
	s.lens = f.buffer(s, n, off, out != nil)
	o := 0
	for i, g := range s.lens {
		if b := f.dom.Page(s.pages[i])[g.Off:][:g.Len]; out != nil {
			o += copy(b, out[o:])
		} else {
			clear(b)
		}
	}
	if len(s.lens) <= vscsiif.MaxDirect && !indirect {
		s.req.SetSegments(s.lens, false)
		return
	}
	var table []byte
	for _, g := range s.lens {
		table = g.Append(table)
	}
	tabs := f.buffer(s, len(table), 0, true)
	for i, g := range tabs {
		copy(f.dom.Page(s.pages[len(s.lens)+i])[:g.Len], table[i*vscsiif.PageSize:])
	}
	s.req.SetSegments(tabs, true)
}

// send puts s into the ring when there is room, under a name of its own.
func (f *front) send(s *sent) (id uint16) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		for i, o := range f.shadows {
			if o == nil && f.prod-f.cons < vscsiif.Entries {
				f.shadows[i], s.id = s, uint16(i)
				f.put(&s.req, uint16(i))
				return uint16(i)
			}
		}
		f.cond.Wait()
	}
}

// put writes a request. Lock held.
func (f *front) put(q *vscsiif.Request, id uint16) {
	binary.LittleEndian.PutUint16(q[:], id)
	o := 64 + int(f.prod%vscsiif.Entries)*vscsiif.SlotLen
	for k := 0; k < vscsiif.SlotLen; k += 4 {
		f.ring.Put32(o+k, binary.LittleEndian.Uint32(q[k:]))
	}
	old := f.prod
	f.prod++
	f.ring.Store32(0, f.prod)
	if f.prod-f.ring.Load32(4) < f.prod-old {
		f.port.Notify()
	}
}

// reap takes answers.
func (f *front) reap() {
	defer f.wg.Done()
	for {
		f.mu.Lock()
		for !f.noReap {
			for f.cons != f.ring.Load32(8) {
				if f.ring.Load32(8)-f.cons > vscsiif.Entries || f.cons == f.prod {
					f.tb.Error("more responses than requests")
					f.mu.Unlock()
					return
				}
				f.take()
			}
			f.ring.Store32(12, f.cons+1)
			if f.cons == f.ring.Load32(8) {
				break
			}
		}
		f.mu.Unlock()
		select {
		case <-f.port.C:
		case <-f.stop:
			return
		}
	}
}

// take takes one. Lock held.
func (f *front) take() {
	var p vscsiif.Response
	o := 64 + int(f.cons%vscsiif.Entries)*vscsiif.SlotLen
	for k := 0; k < vscsiif.SlotLen; k += 4 {
		binary.LittleEndian.PutUint32(p[k:], f.ring.Load32(o+k))
	}
	f.cons++
	id := p.ID()
	f.order = append(f.order, id)
	if int(id) >= len(f.shadows) || f.shadows[id] == nil {
		f.tb.Errorf("illegal rqid %d returned by backend", id)
		return
	}
	s := f.shadows[id]
	f.shadows[id] = nil
	s.rsp = p
	s.data = nil
	for i, g := range s.lens {
		s.data = append(s.data, f.dom.Page(s.pages[i])[g.Off:][:g.Len]...)
	}
	for _, r := range s.refs {
		if !f.dom.End(r) {
			f.tb.Error("grant still in use by backend")
		}
	}
	for _, n := range s.pages {
		f.dom.Release(n)
	}
	if s.done != nil {
		s.done(s)
	}
	if s.ch != nil {
		close(s.ch)
	}
	f.cond.Broadcast()
}

// do sends a request and waits for its answer.
func (f *front) do(s *sent) *vscsiif.Response {
	f.tb.Helper()
	s.ch = make(chan struct{})
	f.send(s)
	tempotest.Recv(f.tb, s.ch, "a response")
	return &s.rsp
}

// cdb is a command to the device at v-dev 0:0:0:lun.
func cdb(lun uint16, d vscsiif.Direction, b ...byte) *sent {
	s := &sent{}
	s.req.Set(0, vscsiif.ActCDB, vscsiif.Address{LUN: lun}, b, d)
	return s
}

// mapPage maps the ring's page, as the back end does.
func mapPage(tb testing.TB, t gnttab.Table, f *front) *gnttab.View {
	tb.Helper()
	v := new(gnttab.View)
	if err := t.Map(v, f.dom.ID, []uint32{f.ref}, true); err != nil {
		tb.Fatal(err)
	}
	return v
}
