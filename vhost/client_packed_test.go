package vhost_test

import (
	"encoding/binary"
	"testing"

	"github.com/vtgt/vtgt/vhost/vhosttest"
	"github.com/vtgt/vtgt/vhost/vring"
)

// Flags of a packed ring's elements, VIRTIO 1.2 §2.8.1, besides those of a split one's.
const (
	availFlag = 1 << 7
	usedFlag  = 1 << 15
)

// element is one of a packed ring.
type element struct {
	addr      uint64
	n         uint32
	flags, id uint16
}

// place is where the driver of an idle packed ring goes on, and its wrap counter.
func (w raw) place() (at int, wrap bool) {
	p := w.q.Ring().Base()
	return int(p & 0x7fff), p&0x8000 != 0
}

// show makes neighbouring elements available, the first one last, and kicks.
func (w raw) show(es ...element) {
	size := w.q.Ring().Size
	at, wrap := w.place()
	for i := len(es) - 1; i >= 0; i-- {
		k, flag := at+i, uint16(usedFlag)
		if wrap != (k >= size) {
			flag = availFlag
		}
		w.desc(0, k%size, es[i].addr, es[i].n, es[i].flags|flag, es[i].id)
	}
	w.q.Notify()
}

// stray makes what is not in the ring available.
func (w raw) stray() {
	if n := uint16(w.q.Ring().Size); w.packed() {
		w.show(element{0, 51, 0, n})
	} else {
		w.avail(n)
	}
}

// again makes element k, counted over all laps, available with what is in it.
func (w raw) again(k int) {
	l := w.q.Ring().Layout
	b := w.c.Mem.At(l.Desc+16*uint64(k%l.Size), 16)
	flags := binary.LittleEndian.Uint16(b[14:])&^(availFlag|usedFlag) | availFlag
	if k/l.Size%2 == 1 {
		flags ^= availFlag | usedFlag
	}
	binary.LittleEndian.PutUint16(b[14:], flags)
}

// hostilePacked are those of a packed ring.
var hostilePacked = []hostile{
	{"a chain longer than the ring", vring.AvailJump, func(w raw, at uint64) {
		es := make([]element, w.q.Ring().Size)
		for i := range es {
			es[i] = element{at, 51, next, 0}
		}
		w.show(es...)
	}},
	{"a chain that goes on in what was never written", vring.Empty, func(w raw, at uint64) {
		w.show(element{at, 51, next, 0})
	}},
	{"a buffer id outside the ring", vring.HeadRange, func(w raw, at uint64) {
		w.show(element{at, 51, next, 0}, element{at + 64, 108, write, uint16(w.q.Ring().Size)})
	}},
	{"the highest buffer id", vring.HeadRange, func(w raw, at uint64) {
		w.show(element{at, 51, next, 0xffff}, element{at + 64, 108, write, 0xffff})
	}},
	{"an indirect element with a next one", vring.IndirectNext, func(w raw, at uint64) {
		w.show(element{at + 1024, 32, indirect | next, 0}, element{at + 64, 108, write, 0})
	}},
	{"an indirect element behind another", vring.IndirectNext, func(w raw, at uint64) {
		w.desc(at+1024, 0, at+64, 108, write, 0)
		w.show(element{at, 51, next, 0}, element{at + 1024, 16, indirect, 0})
	}},
	{"an indirect table in an indirect table", vring.IndirectNested, func(w raw, at uint64) {
		w.desc(at+1024, 0, at+2048, 32, indirect, 0)
		w.show(element{at + 1024, 16, indirect, 0})
	}},
	{"an indirect table of 17 bytes", vring.IndirectLength, func(w raw, at uint64) {
		w.show(element{at + 1024, 17, indirect, 0})
	}},
	{"an indirect table of nothing", vring.IndirectLength, func(w raw, at uint64) {
		w.show(element{at + 1024, 0, indirect, 0})
	}},
	{"an indirect table of 4 GiB", vring.TooLong, func(w raw, at uint64) {
		w.show(element{at + 1024, 0xffff_fff0, indirect, 0})
	}},
	{"an indirect table outside memory", vring.Address, func(w raw, at uint64) {
		w.show(element{1 << 40, 32, indirect, 0})
	}},
	{"an indirect table longer than what is in it", vring.Empty, func(w raw, at uint64) {
		w.desc(at+1024, 0, at, 51, 0, 0)
		w.desc(at+1024, 1, at+64, 108, write, 0)
		w.show(element{at + 1024, 48, indirect, 0})
	}},
	{"an indirect table in the wrong order", vring.Order, func(w raw, at uint64) {
		w.desc(at+1024, 0, at+64, 108, write, 0)
		w.desc(at+1024, 1, at, 51, 0, 0)
		w.show(element{at + 1024, 32, indirect, 0})
	}},
	{"an address outside memory", vring.Address, func(w raw, at uint64) {
		w.show(element{3 << 30, 51, next, 0}, element{at + 64, 108, write, 0})
	}},
	{"an address that wraps", vring.Address, func(w raw, at uint64) {
		w.show(element{at, 51, next, 0}, element{^uint64(0) - 50, 108, write, 0})
	}},
	{"a buffer that leaves memory", vring.Address, func(w raw, at uint64) {
		w.show(element{at, 51, next, 0}, element{at + 64, 0x8000_0000, write, 0})
	}},
	{"more bytes than 32 bits count", vring.TooBig, func(w raw, at uint64) {
		const n = 1000
		w.desc(at+4096, 0, at, 51, 0, 0)
		for i := 1; i < n; i++ {
			w.desc(at+4096, i, 0, 8<<20, write, 0)
		}
		w.show(element{at + 4096, 16 * n, indirect, 0})
	}},
	{"an empty buffer", vring.Empty, func(w raw, at uint64) {
		w.show(element{at, 0, next, 0}, element{at + 64, 108, write, 0})
	}},
	{"a buffer to read behind one to write", vring.Order, func(w raw, at uint64) {
		w.show(element{at + 64, 108, next | write, 0}, element{at, 51, 0, 0})
	}},
	{"a request header too short", 0, func(w raw, at uint64) {
		w.show(element{at, 50, next, 0}, element{at + 64, 108, write, 0})
	}},
	{"no request header", 0, func(w raw, at uint64) {
		w.show(element{at + 64, 108, write, 0})
	}},
	{"no room for the response", 0, func(w raw, at uint64) {
		w.show(element{at, 51, next, 0}, element{at + 64, 107, write, 0})
	}},
}

// TestClientPackedNotAvailable: elements whose flags say that they are not the device's
// are none of its business, whatever else is in them; the driver goes on at the same place.
func TestClientPackedNotAvailable(t *testing.T) {
	r := newRig(t, rigOptions{})
	c := r.dial(vhosttest.Options{Size: 16, Features: usual | vhosttest.FeatureRingPacked})
	w := raw{c.Request(0), c}
	at, err := c.Mem.Alloc(4096, 4096)
	r.ok(err)
	w.request(at)
	kicks := func() uint64 { return r.exports[0].e.Status().Counters.Kicks }
	for round := range 40 { // 2 elements each: some laps
		good(t, w.q, lun0, make([]byte, 6), nil, nil)
		p, wrap := w.place()
		last, lap := uint16(usedFlag), uint16(availFlag|usedFlag) // available, used: a lap ago
		if !wrap {
			last, lap = availFlag, 0
		}
		flags := []uint16{last, lap, lap ^ (availFlag | usedFlag)}[round%3]
		before := kicks()
		w.desc(0, p, 1<<40, 0xffff_ffff, flags|next|indirect, 0xffff)
		w.q.Notify()
		r.eventually("the kick is read", func() bool { return kicks() > before })
	}
	good(t, w.q, lun0, make([]byte, 6), nil, nil)
	if s := r.exports[0].e.Status(); s.Counters.Violations != 0 {
		t.Errorf("%d violations: %+v", s.Counters.Violations, s.Rings)
	}
}

// TestClientPackedTwice: a buffer id twice, while the store has its request.
func TestClientPackedTwice(t *testing.T) {
	r := newRig(t, rigOptions{hold: true})
	c := r.dial(vhosttest.Options{Features: usual | vhosttest.FeatureRingPacked})
	h := hold(r, c, lun0, r.disk(0), 1)
	w := raw{c.Request(0), c}
	at, err := c.Mem.Alloc(4096, 4096)
	r.ok(err)
	w.request(at)
	// Behind the one that is out, which no answer has taken back.
	p, wrap := w.place()
	ring := c.Mem.At(w.q.Ring().Desc, 16*w.q.Ring().Size)
	for flags := uint16(next); flags&next != 0; p++ {
		flags = binary.LittleEndian.Uint16(ring[16*p+14:])
	}
	flag := uint16(usedFlag)
	if wrap {
		flag = availFlag
	}
	w.desc(0, p+1, at+64, 108, write|flag, h.reqs[0].Head)
	w.desc(0, p, at, 51, next|flag, h.reqs[0].Head)
	w.q.Notify()
	if !w.q.Failed(patience) {
		t.Fatal("the ring did not fail")
	}
	r.disk(0).hold.Held()[0].Go()
	r.ok(h.of[0].Await(h.reqs[0], 0))
}
