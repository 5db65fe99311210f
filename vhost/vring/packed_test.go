package vring_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/vhost/vring"
	"github.com/vtgt/vtgt/vhost/vring/vringtest"
)

// newPackedRig is newRig for a packed ring.
func newPackedRig(tb testing.TB, size int, c vring.Config) *rig {
	tb.Helper()
	g := vringtest.NewGuest(tb, base, 1<<20)
	x := &rig{g: g, l: vringtest.Place(base, size, 8)}
	x.data = x.l.End
	var p vring.Parts
	x.d, p, c.Base = newDriver(tb, g, x.l, c.EventIdx, true)
	c.Size, c.Packed = size, true
	var err error
	if x.r, err = vring.New(c, g.Map, p); err != nil {
		tb.Fatal(err)
	}
	return x
}

// TestPackedGolden: bytes written by hand are read as the standard says (VIRTIO 1.2
// §2.8), over the end of the ring and into the next lap.
func TestPackedGolden(t *testing.T) {
	x := newPackedRig(t, 4, vring.Config{EventIdx: true, Indirect: true})
	at := func(i int, parts ...any) { copy(x.g.At(x.l.Desc+16*uint64(i), 16), bytesOf(parts...)) }
	is := func(i int, parts ...any) {
		t.Helper()
		if b := x.g.At(x.l.Desc+16*uint64(i), 16); !bytes.Equal(b[8:], bytesOf(parts...)) {
			t.Errorf("element %d: % x, want % x", i, b[8:], bytesOf(parts...))
		}
	}
	pop := func(head uint16, out, in int) {
		t.Helper()
		var c vring.Chain
		if ok, err := x.r.Pop(&c); !ok || err != nil || c.Head != head || gmem.Total(c.Out) != int64(out) || gmem.Total(c.In) != int64(in) {
			t.Fatal(ok, err, c.Head, gmem.Total(c.Out), gmem.Total(c.In))
		}
	}
	none := func() {
		t.Helper()
		if ok, err := x.r.Pop(&vring.Chain{}); ok || err != nil || x.r.More() {
			t.Fatal(ok, err)
		}
	}
	none()
	// A chain of two with the id 3, an indirect table with the id 1.
	copy(x.g.At(x.data+0x1000, 32), bytesOf(x.data, uint32(7), uint16(9), uint16(0), x.data, uint32(9), uint16(9), uint16(2)))
	at(0, x.data, uint32(51), uint16(0x77), uint16(0x81))
	at(1, x.data, uint32(108), uint16(3), uint16(0x82))
	at(2, x.data+0x1000, uint32(32), uint16(1), uint16(0x84))
	pop(3, 51, 108)
	pop(1, 7, 9)
	none()
	if x.r.EnableKick() || !bytes.Equal(x.g.At(x.l.Used, 4), bytesOf(uint16(0x8003), uint16(2))) {
		t.Errorf("device event % x", x.g.At(x.l.Used, 4))
	}
	if x.r.InFlight() != 2 || x.r.Next() != 0x8003 {
		t.Error(x.r.InFlight(), x.r.Next())
	}
	copy(x.g.At(x.l.Avail, 4), bytesOf(uint16(0), uint16(1))) // no notification
	x.r.Publish()                                             // of the start
	// The second comes first: it takes place 0, and one place only.
	x.r.Push(1, 9)
	is(0, uint32(9), uint16(0x77), uint16(0x81)) // its flags come last
	if x.r.Publish() {
		t.Error("a notification that nobody wants")
	}
	is(0, uint32(9), uint16(1), uint16(0x8082))
	// The driver goes on at 3 and 0, in its next lap: AVAIL 0, USED 1 there.
	at(3, x.data, uint32(1), uint16(0), uint16(0x81))
	at(0, x.data, uint32(2), uint16(0), uint16(0x8002))
	copy(x.g.At(x.l.Avail, 4), bytesOf(uint16(0x8001), uint16(2))) // tell me at 1, this lap
	x.r.Push(3, 0)
	if !x.r.Publish() {
		t.Error("it wanted to hear of that")
	}
	is(1, uint32(0), uint16(3), uint16(0x8080))
	pop(0, 1, 2)
	if x.r.Push(3, 0) || x.r.Push(4, 0) || !x.r.Push(0, 1) {
		t.Error("Push")
	}
	x.r.Publish()
	is(3, uint32(1), uint16(0), uint16(0x8082))
	if x.r.Base() != 0x0001_0001 || x.r.Fresh() || x.r.InFlight() != 0 {
		t.Errorf("base %#x", x.r.Base())
	}
	x.r.DisableKick()
	if !bytes.Equal(x.g.At(x.l.Used+2, 2), bytesOf(uint16(1))) {
		t.Error("kicks are wanted")
	}
}

// TestPackedViolations: what a driver must not do fails the ring.
func TestPackedViolations(t *testing.T) {
	const avail = 0x80
	type el struct {
		addr  uint64
		len   uint32
		id    uint16
		flags uint16
	}
	d := uint64(base + 0x8000)
	for _, c := range []struct {
		name string
		kind vring.Kind
		els  []el
	}{
		{"id", vring.HeadRange, []el{{d, 1, 4, avail}}},
		{"loop", vring.AvailJump, []el{{d, 1, 0, avail | 1}, {d, 1, 0, avail | 1}, {d, 1, 0, avail | 1}, {d, 1, 0, avail | 1}}},
		{"empty", vring.Empty, []el{{d, 0, 0, avail}}},
		{"order", vring.Order, []el{{d, 1, 0, avail | 3}, {d, 1, 0, avail}}},
		{"address", vring.Address, []el{{1, 1, 0, avail}}},
		{"indirect in a chain", vring.IndirectNext, []el{{d, 1, 0, avail | 1}, {d, 16, 0, avail | 4}}},
		{"indirect with next", vring.IndirectNext, []el{{d, 16, 0, avail | 5}}},
		{"indirect length", vring.IndirectLength, []el{{d, 17, 0, avail | 4}}},
		{"indirect nested", vring.IndirectNested, []el{{base, 16, 0, avail | 4}}},
		{"twice", vring.HeadBusy, []el{{d, 1, 2, avail}, {d, 1, 2, avail}}},
	} {
		x := newPackedRig(t, 4, vring.Config{Indirect: true})
		for i, e := range c.els {
			copy(x.g.At(x.l.Desc+16*uint64(i), 16), bytesOf(e.addr, e.len, e.id, e.flags))
		}
		var v *vring.Violation
		var err error
		for err == nil {
			var ok bool
			if ok, err = x.r.Pop(&vring.Chain{}); !ok && err == nil {
				t.Fatalf("%s: taken", c.name)
			}
		}
		if !errors.As(err, &v) || v.Kind != c.kind || x.r.Err() == nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	g := vringtest.NewGuest(t, base, 1<<16)
	l := vringtest.Place(base, 6, 0)
	p, err := g.PackedParts(l)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := vring.New(vring.Config{Size: 6, Packed: true, Base: 6}, g.Map, p); err == nil {
		t.Error("a base beyond the ring")
	}
}

// killed ends a device's process at a point.
type killed struct{ p vring.Point }

// TestPackedKilled ends the device at each point of requests in turn, any number of times
// in a row, and starts it again on the record: every request is answered exactly once,
// with the buffers that it came with, although used elements lie over descriptors.
func TestPackedKilled(t *testing.T) {
	rounds := 400
	if testing.Short() {
		rounds = 100
	}
	seen := map[vring.Point]int{}
	for seed := range uint64(rounds) {
		packedKilled(t, seed, seen)
	}
	for p := vring.PointTaken; p <= vring.PointSettled; p++ {
		if seen[p] == 0 {
			t.Errorf("never ended at %v", p)
		}
	}
}

func packedKilled(t *testing.T, seed uint64, seen map[vring.Point]int) {
	rnd := rand.New(rand.NewPCG(seed, 7))
	size := 2 + rnd.IntN(9)
	g := vringtest.NewGuest(t, base, 1<<20)
	l := vringtest.Place(base, size, 8)
	d, parts, start := newDriver(t, g, l, rnd.IntN(2) == 0, true)
	record := make([]byte, vring.InflightSize(1, 2*size+8))
	fuse := 0
	points := func(p vring.Point) {
		if fuse--; fuse == 0 {
			seen[p]++
			panic(killed{p})
		}
	}
	// Each request reads four bytes that name it, in one to three pieces.
	type request struct{ no, pieces int }
	out := map[uint16]request{}
	answered, sent := map[int]int{}, 0
	var r *vring.Ring
	type held struct {
		id uint16
		no int
	}
	var have []held
	no := func(c *vring.Chain) int {
		var b []byte
		for _, o := range c.Out {
			b = append(b, o...)
		}
		return int(b[0]) | int(b[1])<<8
	}
	// step runs f, which the process may not survive.
	step := func(f func()) {
		defer func() {
			if x := recover(); x != nil {
				if _, ok := x.(killed); !ok {
					panic(x)
				}
				r, have = nil, nil
			}
		}()
		f()
	}
	boot := func() {
		f, err := vring.OpenInflight(record, 0, 2*size+8)
		if err != nil {
			t.Fatal(err)
		}
		if r, err = vring.New(vring.Config{Size: size, Packed: true, Indirect: true, Base: start, Inflight: f, Points: points}, g.Map, parts); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		var c vring.Chain
		for _, id := range f.Heads() {
			if err := r.Reload(id, &c); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			q, ok := out[id]
			if !ok || no(&c) != q.no || len(c.Out) != q.pieces {
				t.Fatalf("seed %d: id %d found in flight as %d in %d pieces, it is %+v", seed, id, no(&c), len(c.Out), q)
			}
			have = append(have, held{id, q.no})
		}
	}
	for i := 0; i < 300 || len(out) > 0; i++ {
		if fuse <= 0 {
			fuse = 1 + rnd.IntN(60)
		}
		switch rnd.IntN(5) {
		case 0:
			if i >= 300 {
				continue
			}
			q := request{sent, 1 + rnd.IntN(3)}
			id, ok := d.PeekFree()
			if !ok {
				continue
			}
			a := l.End + 64*uint64(id)
			copy(g.At(a, 4), []byte{byte(q.no), byte(q.no >> 8), 0, 0})
			bufs := []vringtest.Buf{{Addr: a, Len: 4}}
			if q.pieces > 1 {
				bufs = []vringtest.Buf{{Addr: a, Len: 1}, {Addr: a + 1, Len: 3}}
			}
			if q.pieces > 2 {
				bufs = []vringtest.Buf{{Addr: a, Len: 1}, {Addr: a + 1, Len: 1}, {Addr: a + 2, Len: 2}}
			}
			if _, ok := d.Add(bufs, nil, rnd.IntN(3) == 0); ok {
				out[id] = q
				sent++
			}
			d.Kick()
		case 1:
			if r == nil {
				boot()
			}
			step(func() {
				var c vring.Chain
				ok, err := r.Pop(&c)
				if err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if ok {
					have = append(have, held{c.Head, no(&c)})
				}
			})
		case 2:
			if len(have) == 0 {
				continue
			}
			k := rnd.IntN(len(have))
			h := have[k]
			have = append(have[:k:k], have[k+1:]...)
			step(func() {
				if !r.Push(h.id, 0) {
					t.Fatalf("seed %d: Push", seed)
				}
			})
		case 3:
			if r != nil {
				step(func() { r.Publish() })
			}
		case 4:
			for {
				id, _, ok, err := d.Used()
				if err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if !ok {
					break
				}
				answered[out[id].no]++
				delete(out, id)
			}
		}
		if i > 100_000 {
			t.Fatal(fmt.Sprintf("seed %d: %d requests are not answered", seed, len(out)))
		}
	}
	if len(answered) != sent {
		t.Errorf("seed %d: %d of %d answered", seed, len(answered), sent)
	}
	for no, n := range answered {
		if n != 1 {
			t.Errorf("seed %d: request %d answered %d times", seed, no, n)
		}
	}
}

// TestPackedRecord: a record that contradicts itself, or is of another kind of ring, is
// refused.
func TestPackedRecord(t *testing.T) {
	const size = 4
	x := newPackedRig(t, size, vring.Config{})
	p, err := x.g.PackedParts(x.l)
	if err != nil {
		t.Fatal(err)
	}
	record := make([]byte, vring.InflightSize(1, 32))
	boot := func() error {
		f, err := vring.OpenInflight(record, 0, 32)
		if err != nil {
			t.Fatal(err)
		}
		x.r, err = vring.New(vring.Config{Size: size, Packed: true, Base: vring.PackedBase, Inflight: f}, x.g.Map, p)
		return err
	}
	if err := boot(); err != nil {
		t.Fatal(err)
	}
	x.d.Add([]vringtest.Buf{x.buf(0, 4), x.buf(1, 4)}, nil, false)
	x.d.Kick()
	if ok, err := x.r.Pop(&vring.Chain{}); !ok || err != nil {
		t.Fatal(ok, err)
	}
	keep := bytes.Clone(record)
	// The chain's first descriptor is in entry 1, its second in entry 0.
	for name, change := range map[string]func(){
		"version":      func() { record[9] = 0 },
		"entries":      func() { record[10]++ },
		"used":         func() { record[14] = 9 },
		"no length":    func() { record[48+6] = 0 },
		"length":       func() { record[48+6] = 5 },
		"link":         func() { record[48+2] = 0xff },
		"its own link": func() { record[48+2] = 1 },
		"id":           func() { record[16+30] = 9 },
	} {
		copy(record, keep)
		change()
		if err := boot(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	copy(record, keep)
	if err := boot(); err != nil {
		t.Error(err)
	}
	f, err := vring.OpenInflight(record, 0, 32)
	if err == nil {
		_, err = vring.New(vring.Config{Size: size, Inflight: f}, x.g.Map, x.g.Parts(t, x.l))
	}
	if err == nil {
		t.Error("a split ring took the record")
	}
}

// FuzzPackedRing is FuzzRing for a packed ring and its record.
func FuzzPackedRing(f *testing.F) {
	g := vringtest.NewGuest(f, base, fuzzMem)
	l := vringtest.Place(base, fuzzSize, 3)
	const entries = 2*fuzzSize + 2
	image := int(l.End-base) + vring.InflightSize(1, entries)
	for _, how := range []byte{0, 1, 3, 7, 15} {
		clear(g.Mem)
		d, err := vringtest.NewPacked(g, l, how&1 != 0)
		if err != nil {
			f.Fatal(err)
		}
		a, b := vringtest.Buf{Addr: base + 4096, Len: 51}, vringtest.Buf{Addr: base + 5000, Len: 108}
		d.Add([]vringtest.Buf{a}, []vringtest.Buf{b}, false)
		d.Add([]vringtest.Buf{a}, []vringtest.Buf{b}, true)
		d.Add([]vringtest.Buf{a, a}, nil, false)
		d.Kick()
		seed := append([]byte{how, 3, 0, 0x80, 0, 0x80}, g.Mem[:image]...)
		f.Add(append(seed, 0, 0, 0, 1, 2, 3, 4, 5, 0x80, 1, 2, 0x90, 0xff, 0xff, 0, 0, 5))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) < fuzzHead {
			return
		}
		head, in := in[:fuzzHead], in[fuzzHead:]
		clear(g.Mem)
		in = in[copy(g.Mem[:image], in):]
		p, err := g.PackedParts(l)
		if err != nil {
			t.Fatal(err)
		}
		c := vring.Config{Size: fuzzSize, Packed: true, EventIdx: head[0]&1 != 0, Indirect: head[0]&2 != 0,
			Base: uint32(head[2]) | uint32(head[3])<<8 | uint32(head[4])<<16 | uint32(head[5])<<24}
		if head[0]&8 != 0 {
			c.Limit = 1 + int(head[1]&15)
		}
		if head[0]&4 != 0 {
			b, err := g.Map.Slice(l.End, uint64(vring.InflightSize(1, entries)))
			if err != nil {
				t.Fatal(err)
			}
			if c.Inflight, err = vring.OpenInflight(b, 0, entries); err != nil {
				t.Fatal(err)
			}
		}
		x := &fuzzer{t: t, g: g, script: in, cfg: c, parts: p}
		if err := gmem.Guard(g.Space, (*fuzzer).run, x); err != nil {
			t.Fatal(err)
		}
	})
}
