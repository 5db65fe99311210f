package vhost_test

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/vhost"
	"github.com/vtgt/vtgt/vhost/vhosttest"
	"github.com/vtgt/vtgt/vhost/vring"
)

// raw is a ring whose memory a hostile driver writes.
type raw struct {
	q *vhosttest.Queue
	c *vhosttest.Client
}

const (
	next     = 1
	write    = 2
	indirect = 4
)

func (w raw) packed() bool { return w.c.Features&vhosttest.FeatureRingPacked != 0 }

// desc writes descriptor i of the table at a (0: the ring's). In a packed ring nxt is the
// buffer id, and flags are written last: they make the element available.
func (w raw) desc(a uint64, i int, addr uint64, n uint32, flags, nxt uint16) {
	if a == 0 {
		a = w.q.Ring().Desc
	}
	b := w.c.Mem.At(a+16*uint64(i), 16)
	binary.LittleEndian.PutUint64(b, addr)
	binary.LittleEndian.PutUint32(b[8:], n)
	if w.packed() {
		binary.LittleEndian.PutUint16(b[12:], nxt)
		binary.LittleEndian.PutUint16(b[14:], flags)
		return
	}
	binary.LittleEndian.PutUint16(b[12:], flags)
	binary.LittleEndian.PutUint16(b[14:], nxt)
}

// avail makes heads available and kicks.
func (w raw) avail(heads ...uint16) {
	l := w.q.Ring().Layout
	b := w.c.Mem.At(l.Avail, 4+2*l.Size)
	idx := binary.LittleEndian.Uint16(b[2:])
	for _, h := range heads {
		binary.LittleEndian.PutUint16(b[4+2*(int(idx)%l.Size):], h)
		idx++
	}
	w.index(idx)
}

func (w raw) index(idx uint16) {
	binary.LittleEndian.PutUint16(w.c.Mem.At(w.q.Ring().Avail+2, 2), idx)
	w.q.Notify()
}

// request lays a TEST UNIT READY at a: request header, then the response.
func (w raw) request(a uint64) {
	b := w.c.Mem.At(a, 256)
	clear(b)
	b[0] = 1
}

// hostile is what a driver can do wrong in a ring: it ends that ring. at is room in guest
// memory with a request.
type hostile struct {
	name string
	rule vring.Kind // the one that it breaks; 0: not asked
	do   func(w raw, at uint64)
}

// hostileRings are those of a split ring.
var hostileRings = []hostile{
	{"a chain that loops", vring.Loop, func(w raw, at uint64) {
		w.desc(0, 0, at, 51, next, 1)
		w.desc(0, 1, at+64, 108, next|write, 1)
		w.avail(0)
	}},
	{"a chain that loops far", 0, func(w raw, at uint64) {
		n := w.q.Ring().Size
		for i := range n {
			w.desc(0, i, at, 51, next, uint16((i+1)%n))
		}
		w.avail(0)
	}},
	{"next outside the table", vring.NextRange, func(w raw, at uint64) {
		w.desc(0, 0, at, 51, next, uint16(w.q.Ring().Size))
		w.avail(0)
	}},
	{"an indirect table in an indirect table", vring.IndirectNested, func(w raw, at uint64) {
		w.desc(0, 0, at+1024, 32, indirect, 0)
		w.desc(at+1024, 0, at+2048, 32, indirect, 0)
		w.avail(0)
	}},
	{"an indirect descriptor with a next one", vring.IndirectNext, func(w raw, at uint64) {
		w.desc(0, 0, at+1024, 32, indirect|next, 1)
		w.avail(0)
	}},
	{"an indirect table of 17 bytes", vring.IndirectLength, func(w raw, at uint64) {
		w.desc(0, 0, at+1024, 17, indirect, 0)
		w.avail(0)
	}},
	{"an indirect table of nothing", vring.IndirectLength, func(w raw, at uint64) {
		w.desc(0, 0, at+1024, 0, indirect, 0)
		w.avail(0)
	}},
	{"an indirect table of 4 GiB", vring.TooLong, func(w raw, at uint64) {
		w.desc(0, 0, at+1024, 0xffff_fff0, indirect, 0)
		w.avail(0)
	}},
	{"an indirect table that loops", vring.Loop, func(w raw, at uint64) {
		w.desc(0, 0, at+1024, 32, indirect, 0)
		w.desc(at+1024, 0, at, 51, next, 1)
		w.desc(at+1024, 1, at+64, 108, next|write, 1)
		w.avail(0)
	}},
	{"an indirect table outside memory", vring.Address, func(w raw, at uint64) {
		w.desc(0, 0, 1<<40, 32, indirect, 0)
		w.avail(0)
	}},
	{"an address outside memory", vring.Address, func(w raw, at uint64) {
		w.desc(0, 0, 3<<30, 51, next, 1)
		w.desc(0, 1, at+64, 108, write, 0)
		w.avail(0)
	}},
	{"an address that wraps", vring.Address, func(w raw, at uint64) {
		w.desc(0, 0, at, 51, next, 1)
		w.desc(0, 1, ^uint64(0)-50, 108, write, 0)
		w.avail(0)
	}},
	{"a buffer that leaves memory", vring.Address, func(w raw, at uint64) {
		w.desc(0, 0, at, 51, next, 1)
		w.desc(0, 1, at+64, 0x8000_0000, write, 0)
		w.avail(0)
	}},
	{"more bytes than 32 bits count", vring.TooBig, func(w raw, at uint64) {
		const n = 1000
		w.desc(0, 0, at+4096, 16*n, indirect, 0)
		w.desc(at+4096, 0, at, 51, next, 1)
		for i := 1; i < n; i++ {
			w.desc(at+4096, i, 0, 8<<20, next|write, uint16(i+1))
		}
		w.desc(at+4096, n-1, 0, 8<<20, write, 0)
		w.avail(0)
	}},
	{"an empty buffer", vring.Empty, func(w raw, at uint64) {
		w.desc(0, 0, at, 0, next, 1)
		w.desc(0, 1, at+64, 108, write, 0)
		w.avail(0)
	}},
	{"a buffer to read behind one to write", vring.Order, func(w raw, at uint64) {
		w.desc(0, 0, at+64, 108, next|write, 1)
		w.desc(0, 1, at, 51, 0, 0)
		w.avail(0)
	}},
	{"an index that jumps", vring.AvailJump, func(w raw, at uint64) { w.index(w.q.Ring().Index() + uint16(w.q.Ring().Size) + 1) }},
	{"an index that goes back", vring.AvailJump, func(w raw, at uint64) { w.index(w.q.Ring().Index() - 1) }},
	{"a head outside the table", vring.HeadRange, func(w raw, at uint64) { w.avail(uint16(w.q.Ring().Size)) }},
	{"a request header too short", 0, func(w raw, at uint64) {
		w.desc(0, 0, at, 50, next, 1)
		w.desc(0, 1, at+64, 108, write, 0)
		w.avail(0)
	}},
	{"no request header", 0, func(w raw, at uint64) {
		w.desc(0, 0, at+64, 108, write, 0)
		w.avail(0)
	}},
	{"no room for the response", 0, func(w raw, at uint64) {
		w.desc(0, 0, at, 51, next, 1)
		w.desc(0, 1, at+64, 107, write, 0)
		w.avail(0)
	}},
}

// neighbour is a second machine on the same daemon, under a verifying load.
type neighbour struct {
	l *vhosttest.Load
}

func (r *rig) neighbour() *neighbour {
	r.Helper()
	c := r.exports[1].dial(vhosttest.Options{Queues: 2})
	good(r, c.Request(0), lun0, make([]byte, 6), nil, nil)
	n := &neighbour{load(lun0)}
	n.l.Pause = 500 * time.Microsecond // 2 cores have to do for it and for the others
	r.ok(n.l.Start(c))
	r.loads = append(r.loads, n.l)
	return n
}

// progress wants the neighbour's requests to go on.
func (r *rig) progress(n *neighbour) {
	r.Helper()
	at := n.l.Done()
	r.eventually("the neighbour goes on", func() bool { return n.l.Done() > at+50 })
}

func (r *rig) end(n *neighbour) {
	r.Helper()
	r.progress(n)
	n.l.Stop()
	res, err := n.l.Wait()
	if err != nil {
		r.Errorf("the neighbour: %v", err)
	}
	s := r.exports[1].e.Status()
	if s.Counters.Violations != 0 || s.Failed != nil || s.Counters.Connections != 1 {
		r.Errorf("the neighbour: %+v", s)
	}
	r.Logf("the neighbour: %d requests", res.Requests)
}

// TestClientHostileRing: each thing that a driver must not do ends its ring, which is
// told and counted. The machine's other queue goes on, and so does another machine; a
// reset of the device brings the ring back.
func TestClientHostileRing(t *testing.T) {
	t.Run("split", func(t *testing.T) { runHostile(t, usual, hostileRings) })
	t.Run("packed", func(t *testing.T) { runHostile(t, usual|vhosttest.FeatureRingPacked, hostilePacked) })
}

// usual are the features that a Linux guest takes for a split ring.
const usual = vhosttest.FeatureInOut | vhosttest.FeatureHotplug | vhosttest.FeatureChange | vhosttest.FeatureIndirect |
	vhosttest.FeatureEventIdx | vhosttest.FeatureVersion1

func runHostile(t *testing.T, features uint64, forms []hostile) {
	r := newRig(t, rigOptions{exports: 2})
	n := r.neighbour()
	for i, x := range forms {
		fresh := i%2 == 0 // the ring has not been used before
		t.Run(x.name, func(t *testing.T) {
			before := r.exports[0].e.Status().Counters.Violations
			c, err := vhosttest.Dial(r.exports[0].path, vhosttest.Options{Queues: 2, Size: 256, Features: features, Timeout: patience})
			r.ok(err)
			defer c.Close()
			r.ok(c.Start())
			w := raw{c.Request(0), c}
			if !fresh {
				good(t, w.q, lun0, make([]byte, 6), nil, nil)
			}
			at, err := c.Mem.Alloc(32768, 4096)
			r.ok(err)
			w.request(at)
			x.do(w, at)
			if !w.q.Failed(patience) {
				t.Fatalf("the ring did not fail: %+v", r.exports[0].e.Status())
			}
			s := r.exports[0].e.Status()
			if s.Counters.Violations != before+1 {
				t.Errorf("%d violations, were %d", s.Counters.Violations, before)
			}
			i := slices.IndexFunc(s.Rings, func(g vhost.RingStatus) bool { return g.Index == 2 })
			if i < 0 || s.Rings[i].Failed == nil {
				t.Errorf("the ring's failure is not shown: %+v", s.Rings)
			} else {
				t.Log(s.Rings[i].Failed)
				var v *vring.Violation
				if x.rule != 0 && (!errors.As(s.Rings[i].Failed, &v) || v.Kind != x.rule) {
					t.Errorf("that is not: %v", x.rule)
				}
			}
			good(t, c.Request(1), lun0, make([]byte, 6), nil, nil)
			r.ok(c.Stop())
			r.ok(c.Reset())
			r.ok(c.Start())
			good(t, w.q, lun0, make([]byte, 6), nil, nil)
		})
	}
	r.end(n)
}

// TestClientHeadTwice: the same chain twice, while the store has it. TestClientPackedTwice
// has the other kind of ring.
func TestClientHeadTwice(t *testing.T) {
	r := newRig(t, rigOptions{hold: true})
	c := r.dial(vhosttest.Options{Features: usual})
	h := hold(r, c, lun0, r.disk(0), 1)
	w := raw{c.Request(0), c}
	w.avail(h.reqs[0].Head)
	if !w.q.Failed(patience) {
		t.Fatal("the ring did not fail")
	}
	r.disk(0).hold.Held()[0].Go()
	r.ok(h.of[0].Await(h.reqs[0], 0))
}

// TestClientScribble: another thread of the guest writes into the ring's memory, and
// into the requests, all the time. Whatever comes of it stays with that machine.
func TestClientScribble(t *testing.T) {
	r := newRig(t, rigOptions{exports: 2})
	n := r.neighbour()
	for round := range times(12) {
		c, err := vhosttest.Dial(r.exports[0].path, vhosttest.Options{Size: 64, Timeout: patience})
		r.ok(err)
		r.ok(c.Start())
		w := raw{c.Request(0), c}
		l := w.q.Ring().Layout
		ring := c.Mem.At(l.Desc, int(l.End-l.Desc))
		buf, err := c.Mem.Alloc(8192, 4096)
		r.ok(err)
		w.request(buf)
		rng := rand.New(rand.NewPCG(uint64(round), 7))
		// At first a ring full of sound requests.
		for i := range l.Size / 2 {
			if w.packed() {
				w.desc(0, 2*i+1, buf+uint64(128*(1+i%16)), 108, write|availFlag, uint16(i))
				w.desc(0, 2*i, buf, 51, next|availFlag, uint16(i))
				continue
			}
			w.desc(0, 2*i, buf, 51, next, uint16(2*i+1))
			w.desc(0, 2*i+1, buf+uint64(128*(1+i%16)), 108, write, 0)
		}
		avail := c.Mem.At(l.Avail, 4+2*l.Size)
		for i := range l.Size {
			binary.LittleEndian.PutUint16(avail[4+2*i:], uint16(2*(i%(l.Size/2))))
		}
		const steps = 3000
		for k := range steps {
			switch {
			case k%7 == 0 && round%3 != 0:
				i := rng.IntN(l.Size)
				v := []uint32{0, 51, 108, 4096, 0xffff_ffff, rng.Uint32()}[rng.IntN(6)]
				flags := uint16(rng.IntN(8))
				if w.packed() {
					flags |= []uint16{0, availFlag, usedFlag, availFlag | usedFlag}[rng.IntN(4)]
				}
				w.desc(0, i, []uint64{buf, buf + 4096, 0, 1 << 40, rng.Uint64()}[rng.IntN(5)], v, flags, uint16(rng.IntN(l.Size+2)))
			case k%11 == 0 && round%3 == 2:
				ring[rng.IntN(len(ring))] = byte(rng.Uint32())
			case k%5 == 0:
				c.Mem.At(buf, 51)[rng.IntN(51)] = byte(rng.Uint32())
			default:
				if w.packed() {
					w.again(k)
				}
				binary.LittleEndian.PutUint16(avail[2:], uint16(k)) // packed: the flags of event suppression
				w.q.Notify()
			}
		}
		_ = c.Close()
		r.progress(n)
	}
	r.end(n)
}

// TestClientTruncate: the memory goes away under a load, with every engine that moves
// data.
func TestClientTruncate(t *testing.T) {
	t.Run("memory", func(t *testing.T) { truncate(t, rigOptions{exports: 2}) })
	t.Run("cached file", func(t *testing.T) { truncate(t, rigOptions{exports: 2, file: true, plain: true}) })
	t.Run("direct file", func(t *testing.T) {
		truncate(t, rigOptions{exports: 2, file: true, plain: true, cache: backing.Direct})
	})
}

func truncate(t *testing.T, o rigOptions) {
	r := newRig(t, o)
	n := r.neighbour()
	for round := range 6 {
		c, err := vhosttest.Dial(r.exports[0].path, vhosttest.Options{Queues: 2, Timeout: patience})
		r.ok(err)
		r.ok(c.Start())
		q := c.Request(0)
		good(t, q, lun0, make([]byte, 6), nil, nil)
		// Data in the second region, which goes; rings, or not, with it.
		reg := c.Mem.Regions()[1]
		var reqs []*vhosttest.Request
		for range 64 {
			a, err := reg.Alloc(4096, 4096)
			r.ok(err)
			x := &vhosttest.Request{LUN: lun0, Indirect: true, In: []vhosttest.Buf{{Addr: a, Len: 4096}}}
			x.SetCDB(read10(0, 8)...)
			if len(reqs)%3 == 0 {
				x.Out, x.In = x.In, nil
				x.SetCDB(write10(8, 8)...)
			}
			reqs = append(reqs, x)
		}
		for k, x := range reqs {
			if k == 20+round {
				// Nobody here may touch the region from now on.
				r.ok(sys.Ftruncate(reg.FD, 0))
				if round%2 == 1 {
					r.ok(sys.Ftruncate(c.Mem.Regions()[0].FD, 0))
					q.Notify()
					c.Request(1).Notify()
					break
				}
			}
			r.ok(q.Submit(x))
			q.Kick()
		}
		if round%2 == 1 {
			r.eventually("a ring without memory fails", func() bool {
				q.Notify()
				s := r.exports[0].e.Status()
				return s.Failed != nil || slices.ContainsFunc(s.Rings, func(g vhost.RingStatus) bool { return g.Failed != nil })
			})
		} else {
			// Each is answered, unless the ring has failed of one.
			r.eventually("answers, or a failure", func() bool {
				s := r.exports[0].e.Status()
				failed := s.Failed != nil || slices.ContainsFunc(s.Rings, func(g vhost.RingStatus) bool { return g.Failed != nil })
				return failed || !slices.ContainsFunc(reqs, func(x *vhosttest.Request) bool {
					return !x.Done && q.Await(x, time.Nanosecond) != nil
				})
			})
		}
		c.Disconnect()
		_ = c.Close()
		r.progress(n)
	}
	r.end(n)
	good(t, r.dial(vhosttest.Options{}).Request(0), lun0, make([]byte, 6), nil, nil)
}

// TestClientTruncatePolled: a ring goes away while a loop looks at it all the time.
func TestClientTruncatePolled(t *testing.T) {
	r := newRig(t, rigOptions{exports: 2})
	n := r.neighbour()
	for range 100 {
		c, err := vhosttest.Dial(r.exports[0].path, vhosttest.Options{Queues: 1, Timeout: patience})
		r.ok(err)
		r.ok(c.Start())
		q := c.Request(0)
		good(t, q, lun0, make([]byte, 6), nil, nil)
		good(t, q, lun0, make([]byte, 6), nil, nil)
		r.ok(sys.Ftruncate(c.Mem.Regions()[0].FD, 0))
		r.eventually("a ring without memory fails", func() bool {
			q.Notify()
			return r.exports[0].e.Status().Failed != nil
		})
		c.Disconnect()
		_ = c.Close()
	}
	r.end(n)
}

// TestClientCallFull: a front end that has filled its call eventfd, so that a write to it
// sleeps. The loop, which the neighbour shares, does not.
func TestClientCallFull(t *testing.T) {
	r := newRig(t, rigOptions{exports: 2, loops: 1})
	n := r.neighbour()
	for _, flags := range []uintptr{0, syscall.O_NONBLOCK} {
		c := r.dial(vhosttest.Options{})
		good(t, c.Request(0), lun0, make([]byte, 6), nil, nil)
		fd, _, e := syscall.Syscall(syscall.SYS_EVENTFD2, 0, flags, 0)
		if e != 0 {
			t.Fatal(e)
		}
		_, err := syscall.Write(int(fd), binary.NativeEndian.AppendUint64(nil, 1<<64-2))
		r.ok(err)
		// Its answer comes after a notification of the new descriptor.
		r.ok(c.Set(vhosttest.SetVringCall, true, binary.NativeEndian.AppendUint64(nil, 2), int(fd)))
		r.progress(n)
		if s := r.exports[0].e.Status(); s.Failed == nil || !strings.Contains(s.Failed.Error(), "eventfd is full") {
			t.Errorf("flags %#x: failed of %v", flags, s.Failed)
		}
		r.ok(c.Stop())
		r.ok(c.Close())
		r.exports[0].clients = nil
		r.ok(sys.Close(int(fd)))
	}
	r.end(n)
	good(t, r.dial(vhosttest.Options{}).Request(0), lun0, make([]byte, 6), nil, nil)
}

// TestClientHostileSession: what a front end must not say. The connection ends or the
// message is refused, the next front end is served, the neighbour does not notice.
func TestClientHostileSession(t *testing.T) {
	u64s := func(v ...uint64) (b []byte) {
		for _, x := range v {
			b = binary.NativeEndian.AppendUint64(b, x)
		}
		return b
	}
	u32s := func(v ...uint32) (b []byte) {
		for _, x := range v {
			b = binary.NativeEndian.AppendUint32(b, x)
		}
		return b
	}
	type S = *vhosttest.Client
	const ack = vhosttest.FlagVersion | vhosttest.FlagNeedReply
	r := newRig(t, rigOptions{exports: 2})
	n := r.neighbour()
	for _, x := range []struct {
		name  string
		start bool
		do    func(c S) error
		legal bool // odd, and no reason to refuse anything
		cut   bool // the connection ends where a message does not
	}{
		{"features not offered", false, func(c S) error { return c.Set(vhosttest.SetFeatures, true, u64s(1<<62|1<<30|1<<32)) }, false, false},
		{"features in order", false, func(c S) error { return c.Set(vhosttest.SetFeatures, true, u64s(1<<35|1<<30|1<<32)) }, false, false},
		{"protocol features not offered", false, func(c S) error { return c.Set(vhosttest.SetProtocolFeatures, true, u64s(1<<63)) }, false, false},
		{"a ring of 3 entries", false, func(c S) error { return c.Set(vhosttest.SetVringNum, true, u32s(2, 3)) }, false, false},
		{"a ring of no entries", false, func(c S) error { return c.Set(vhosttest.SetVringNum, true, u32s(2, 0)) }, false, false},
		{"a ring of 65536 entries", false, func(c S) error { return c.Set(vhosttest.SetVringNum, true, u32s(2, 65536)) }, false, false},
		{"ring 4096", false, func(c S) error { return c.Set(vhosttest.SetVringNum, true, u32s(4096, 64)) }, false, false},
		{"ring 2^32-1", false, func(c S) error { return c.Set(vhosttest.SetVringEnable, true, u32s(^uint32(0), 1)) }, false, false},
		{"a size of a running ring", true, func(c S) error { return c.Set(vhosttest.SetVringNum, true, u32s(2, 64)) }, false, false},
		{"areas outside memory", true, func(c S) error {
			return c.Set(vhosttest.SetVringAddr, true, append(u32s(2, 0), u64s(1<<50, 1<<50, 1<<50, 0)...))
		}, false, false},
		{"areas that are not aligned", true, func(c S) error {
			return c.Set(vhosttest.SetVringAddr, true, append(u32s(2, 0), u64s(vhosttest.UserBase+1, vhosttest.UserBase+4097, vhosttest.UserBase+8193, 0)...))
		}, false, false},
		{"one area three times", true, func(c S) error {
			return c.Set(vhosttest.SetVringAddr, true, append(u32s(2, 0), u64s(vhosttest.UserBase, vhosttest.UserBase, vhosttest.UserBase, 0)...))
		}, false, false},
		{"a base of 17 bits", false, func(c S) error { return c.Set(vhosttest.SetVringBase, true, u32s(2, 1<<16)) }, false, false},
		{"9 regions", false, func(c S) error {
			return c.Set(vhosttest.SetMemTable, true, append(u32s(9, 0), make([]byte, 9*32)...))
		}, false, false},
		{"regions without descriptors", false, func(c S) error {
			return c.Set(vhosttest.SetMemTable, true, append(u32s(1, 0), u64s(0, 4096, 0, 0)...))
		}, false, false},
		{"a region longer than its file", false, func(c S) error {
			fd := c.Mem.Regions()[0].FD
			return c.Set(vhosttest.AddMemReg, true, append(u64s(0), u64s(1<<40, 1<<40, 1<<40, 0)...), fd)
		}, false, false},
		{"a region that wraps", false, func(c S) error {
			fd := c.Mem.Regions()[0].FD
			return c.Set(vhosttest.AddMemReg, true, append(u64s(0), u64s(^uint64(0)-4095, 8192, 0, 0)...), fd)
		}, false, false},
		{"an offset that wraps", false, func(c S) error {
			fd := c.Mem.Regions()[0].FD
			return c.Set(vhosttest.AddMemReg, true, append(u64s(0), u64s(1<<40, 8192, 1<<40, ^uint64(0)-4095)...), fd)
		}, false, false},
		{"a region twice", true, func(c S) error { return c.AddRegion(c.Mem.Regions()[0]) }, false, false},
		{"a region that is not there taken away", true, func(c S) error {
			return c.Set(vhosttest.RemMemReg, true, append(u64s(0), u64s(77<<30, 4096, 77<<30, 0)...))
		}, false, false},
		{"an eventfd as memory", false, func(c S) error {
			fd, err := sys.NewEventfd()
			if err != nil {
				return err
			}
			defer sys.Close(fd)
			return c.Set(vhosttest.AddMemReg, true, append(u64s(0), u64s(1<<40, 4096, 1<<40, 0)...), fd)
		}, false, false},
		{"memory as a kick", true, func(c S) error {
			return c.Set(vhosttest.SetVringKick, true, u64s(2), c.Mem.Regions()[0].FD)
		}, false, false},
		{"a kick without a descriptor", false, func(c S) error { return c.Set(vhosttest.SetVringKick, true, u64s(2)) }, false, false},
		{"eight descriptors too many", false, func(c S) error {
			fd := c.Mem.Regions()[0].FD
			return c.Set(vhosttest.SetVringBase, true, u32s(2, 0), fd, fd, fd, fd, fd, fd, fd, fd)
		}, true, false},
		{"an inflight region too short", false, func(c S) error {
			return c.Set(vhosttest.SetInflightFD, true, append(u64s(4096, 0), 255, 0, 0, 4, 0, 0, 0, 0), c.Mem.Regions()[0].FD)
		}, false, false},
		{"an inflight region for 65535 rings", false, func(c S) error {
			return c.Set(vhosttest.SetInflightFD, true, append(u64s(1<<40, 0), 255, 255, 255, 255, 0, 0, 0, 0), c.Mem.Regions()[0].FD)
		}, false, false},
		{"a message of 2 GiB", false, func(c S) error { return c.SendRaw(u32s(5, 1, 1<<31)) }, false, false},
		{"a message of another version", false, func(c S) error { return c.SendRaw(u32s(1, 2, 0)) }, false, false},
		{"half a header", false, func(c S) error {
			err := c.SendRaw([]byte{1, 0, 0})
			c.Disconnect()
			return err
		}, false, true},
		{"half a payload", true, func(c S) error {
			err := c.SendRaw(append(u32s(9, ack, 40), 1, 2, 3))
			c.Disconnect()
			return err
		}, false, true},
		{"a payload too short", false, func(c S) error { return c.Set(vhosttest.SetVringAddr, true, u32s(2)) }, false, false},
		{"a payload too long", false, func(c S) error { return c.Set(vhosttest.SetVringNum, true, u64s(2, 3)) }, false, false},
		{"an unknown message", true, func(c S) error { return c.Set(200, true, nil) }, false, false},
		{"a start without memory", false, func(c S) error {
			for _, m := range []struct {
				m vhosttest.Message
				b []byte
			}{
				{vhosttest.SetFeatures, u64s(c.Offered)}, {vhosttest.SetVringNum, u32s(2, 64)}, {vhosttest.SetVringBase, u32s(2, 0)},
				{vhosttest.SetVringAddr, append(u32s(2, 0), u64s(1<<20, 2<<20, 3<<20, 0)...)}, {vhosttest.SetVringEnable, u32s(2, 1)},
			} {
				if err := c.Set(m.m, true, m.b); err != nil {
					return err
				}
			}
			return nil
		}, true, false},
	} {
		t.Run(x.name, func(t *testing.T) {
			c, err := vhosttest.Dial(r.exports[0].path, vhosttest.Options{Timeout: patience})
			r.ok(err)
			defer c.Close()
			if x.start {
				r.ok(c.Start())
				good(t, c.Request(0), lun0, make([]byte, 6), nil, nil)
			}
			counted := func() uint64 {
				s := r.exports[0].e.Status().Counters
				return s.Violations + s.UnknownMessages
			}
			before := counted()
			err = x.do(c)
			var no *vhosttest.RefusedError
			switch {
			case x.legal:
				r.ok(err)
			case err == nil: // no answer was asked for, or none is given
				if err := c.WaitClosed(); err != nil && !errors.Is(err, net.ErrClosed) {
					t.Errorf("the connection did not end: %v", err)
				}
			case !errors.As(err, &no):
				t.Error(err)
			}
			c.Disconnect()
			if !x.legal && !x.cut {
				r.eventually("it is counted", func() bool { return counted() > before })
			}
			// The next one finds everything in order.
			c2, err := vhosttest.Dial(r.exports[0].path, vhosttest.Options{Timeout: patience})
			r.ok(err)
			defer c2.Close()
			r.ok(c2.Start())
			good(t, c2.Request(0), lun0, make([]byte, 6), nil, nil)
			if s := r.exports[0].e.Status(); s.Failed != nil {
				t.Errorf("the export has failed: %v", s.Failed)
			}
		})
	}
	r.end(n)
}

// TestClientTwoFrontEnds: an export serves one machine; the second is turned away, and
// the first does not notice.
func TestClientTwoFrontEnds(t *testing.T) {
	r := newRig(t, rigOptions{})
	c := r.dial(vhosttest.Options{})
	good(t, c.Request(0), lun0, make([]byte, 6), nil, nil)
	r.under(c, load(lun0), func(progress func()) {
		var wg sync.WaitGroup
		var served atomic.Int32
		for range 3 {
			wg.Go(func() {
				c2, err := vhosttest.Dial(r.exports[0].path, vhosttest.Options{Timeout: 5 * time.Second})
				if err == nil {
					served.Add(1)
					c2.Close()
				}
			})
		}
		wg.Wait()
		if served.Load() != 0 {
			t.Error("two machines were served at once")
		}
		progress()
	})
}
