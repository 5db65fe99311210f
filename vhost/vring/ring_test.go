package vring_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/vhost/vring"
	"github.com/vtgt/vtgt/vhost/vring/vringtest"
)

const base = 1 << 32

type rig struct {
	g    *vringtest.Guest
	d    *vringtest.Driver
	l    vringtest.Layout
	r    *vring.Ring
	data uint64
}

func newRig(tb testing.TB, size int, c vring.Config) *rig {
	tb.Helper()
	g := vringtest.NewGuest(tb, base, 1<<20)
	x := &rig{g: g, l: vringtest.Place(base, size, 8)}
	x.data = x.l.End
	var err error
	if x.d, err = vringtest.NewDriver(g, x.l, c.EventIdx); err != nil {
		tb.Fatal(err)
	}
	c.Size = size
	if x.r, err = vring.New(c, g.Map, g.Parts(tb, x.l)); err != nil {
		tb.Fatal(err)
	}
	return x
}

func (x *rig) buf(i int, n uint32) vringtest.Buf {
	return vringtest.Buf{Addr: x.data + uint64(i)*4096, Len: n}
}

// le16 and so on build golden bytes.
func bytesOf(parts ...any) (b []byte) {
	for _, p := range parts {
		n, v := 0, uint64(0)
		switch p := p.(type) {
		case uint16:
			n, v = 2, uint64(p)
		case uint32:
			n, v = 4, uint64(p)
		case uint64:
			n, v = 8, p
		}
		for ; n > 0; n-- {
			b = append(b, byte(v))
			v >>= 8
		}
	}
	return b
}

func TestSizes(t *testing.T) {
	for _, c := range []struct{ n, desc, avail, used int }{{1, 16, 8, 14}, {128, 2048, 262, 1030}, {256, 4096, 518, 2054}, {32768, 524288, 65542, 262150}} {
		if vring.DescSize(c.n) != c.desc || vring.AvailSize(c.n) != c.avail || vring.UsedSize(c.n) != c.used {
			t.Errorf("%d: %d %d %d", c.n, vring.DescSize(c.n), vring.AvailSize(c.n), vring.UsedSize(c.n))
		}
	}
	// 16 bytes of header and 16 per descriptor, in steps of 64.
	if n := vring.InflightSize(3, 128); n != 3*2112 {
		t.Error(n)
	}
}

// TestGolden: bytes written by hand are read as the standard says, and what we
// write is what it says.
func TestGolden(t *testing.T) {
	for _, eventIdx := range []bool{false, true} {
		x := newRig(t, 4, vring.Config{EventIdx: eventIdx, Indirect: true})
		copy(x.g.At(x.data, 4), "read")
		table := x.data + 0x1001 // at an odd address: nothing forbids it
		copy(x.g.At(table, 32), bytesOf(
			x.data, uint32(4), uint16(1), uint16(1),
			x.data+0x100, uint32(0x20), uint16(2), uint16(0xffff)))
		copy(x.g.At(x.l.Desc, 64), bytesOf(
			uint64(0), uint32(0), uint16(0), uint16(0),
			x.data, uint32(2), uint16(1), uint16(3), // 1: read, next 3
			table, uint32(32), uint16(4), uint16(0), // 2: indirect
			x.data+0x200, uint32(5), uint16(2), uint16(0))) // 3: write
		copy(x.g.At(x.l.Avail, 14), bytesOf(uint16(0), uint16(2), uint16(1), uint16(2), uint16(0), uint16(0), uint16(1)))
		var a, b vring.Chain
		if ok, err := x.r.Pop(&a); !ok || err != nil {
			t.Fatal(err)
		}
		if a.Head != 1 || len(a.Out) != 1 || string(a.Out[0]) != "re" || len(a.In) != 1 || len(a.In[0]) != 5 {
			t.Fatalf("%+v", a)
		}
		if ok, err := x.r.Pop(&b); !ok || err != nil {
			t.Fatal(err)
		}
		if b.Head != 2 || len(b.Out) != 1 || string(b.Out[0]) != "read" || len(b.In) != 1 || len(b.In[0]) != 0x20 {
			t.Fatalf("%+v", b)
		}
		if ok, err := x.r.Pop(&vring.Chain{}); ok || err != nil || x.r.Next() != 2 || x.r.InFlight() != 2 {
			t.Fatal(ok, err)
		}
		x.r.DisableKick()
		if x.r.EnableKick() {
			t.Error("nothing is there")
		}
		x.r.DisableKick()
		gmem.Scatter(b.In, []byte("answer"))
		if !x.r.Push(2, 6) || !x.r.Push(1, 0x01020304) || x.r.Push(1, 0) || x.r.Push(0, 0) || x.r.Push(9, 0) {
			t.Error("Push")
		}
		if x.r.Staged() != 2 || x.r.InFlight() != 2 {
			t.Error(x.r.Staged(), x.r.InFlight())
		}
		if !x.r.Publish() || x.r.Publish() || x.r.InFlight() != 0 {
			t.Error("Publish")
		}
		flags, event := uint16(1), uint16(0)
		if eventIdx {
			flags, event = 0, 2
		}
		want := bytesOf(flags, uint16(2), uint32(2), uint32(6), uint32(1), uint32(0x01020304), uint64(0), uint64(0), event)
		if got := x.g.At(x.l.Used, len(want)); !bytes.Equal(got, want) {
			t.Errorf("event idx %v: used ring\n%x\n%x", eventIdx, got, want)
		}
		if string(x.g.At(x.data+0x100, 6)) != "answer" {
			t.Error("not written")
		}
		b.Forget()
	}
}

// TestViolations: each rule broken once, by name; the ring fails for good, and what
// is in flight can still be answered.
func TestViolations(t *testing.T) {
	const next, write, indirect = vring.DescNext, vring.DescWrite, vring.DescIndirect
	type row struct {
		addr        uint64
		n           uint32
		flags, next uint16
	}
	const data = base + 0x10000
	const end = base + 1<<20
	for _, c := range []struct {
		name  string
		kind  vring.Kind
		desc  []row // from descriptor 1 on; a chain at 0 is in flight
		table []row // at data
		avail []uint16
		idx   uint16 // entries; 0: as many as avail has
		off   bool   // no indirect descriptors
		limit int
		why   error
	}{
		{name: "index jumps", kind: vring.AvailJump, idx: 9},
		{name: "index jumps beyond what was answered", kind: vring.AvailJump, idx: 8},
		{name: "index goes back", kind: vring.AvailJump, idx: 0xffff},
		{name: "head outside", kind: vring.HeadRange, avail: []uint16{8}},
		{name: "head far outside", kind: vring.HeadRange, avail: []uint16{0xffff}},
		{name: "head in flight", kind: vring.HeadBusy, avail: []uint16{0}},
		{name: "next outside", kind: vring.NextRange, desc: []row{{data, 1, next, 8}}},
		{name: "loop of one", kind: vring.Loop, desc: []row{{data, 1, next, 1}}},
		{name: "loop of three", kind: vring.Loop, desc: []row{{data, 1, next, 2}, {data, 1, next, 3}, {data, 1, next, 1}}},
		{name: "loop of buffers to write", kind: vring.Loop, desc: []row{{data, 1, next | write, 2}, {data, 1, next | write, 1}}},
		{name: "too long", kind: vring.TooLong, limit: 2, desc: []row{{data, 1, next, 2}, {data, 1, next, 3}, {data, 1, 0, 0}}},
		{name: "too big", kind: vring.Address, desc: []row{{data, 0xffffffff, next, 2}, {data, 0xffffffff, 0, 0}}, why: gmem.ErrOutside},
		{name: "empty", kind: vring.Empty, desc: []row{{data, 0, 0, 0}}},
		{name: "order", kind: vring.Order, desc: []row{{data, 1, next | write, 2}, {data, 1, 0, 0}}},
		{name: "outside", kind: vring.Address, desc: []row{{end, 1, 0, 0}}, why: gmem.ErrOutside},
		{name: "below", kind: vring.Address, desc: []row{{base - 1, 2, write, 0}}, why: gmem.ErrOutside},
		{name: "null", kind: vring.Address, desc: []row{{0, 1, 0, 0}}, why: gmem.ErrOutside},
		{name: "over the end", kind: vring.Address, desc: []row{{end - 1, 2, 0, 0}}, why: gmem.ErrOutside},
		{name: "wraps", kind: vring.Address, desc: []row{{1<<64 - 1, 2, 0, 0}}, why: gmem.ErrWrap},
		{name: "wraps into memory", kind: vring.Address, desc: []row{{1<<64 - 1, 0xffffffff, 0, 0}}, why: gmem.ErrWrap},
		{name: "indirect not negotiated", kind: vring.IndirectOff, off: true, desc: []row{{data, 16, indirect, 0}}},
		{name: "indirect with next", kind: vring.IndirectNext, desc: []row{{data, 16, indirect | next, 2}}},
		{name: "indirect nested", kind: vring.IndirectNested, desc: []row{{data, 16, indirect, 0}}, table: []row{{data, 16, indirect, 0}}},
		{name: "indirect empty", kind: vring.IndirectLength, desc: []row{{data, 0, indirect, 0}}},
		{name: "indirect length", kind: vring.IndirectLength, desc: []row{{data, 17, indirect, 0}}},
		{name: "indirect too long", kind: vring.TooLong, desc: []row{{data, 16 * 1025, indirect, 0}}},
		{name: "indirect huge", kind: vring.TooLong, desc: []row{{data, 0xfffffff0, indirect, 0}}},
		{name: "indirect outside", kind: vring.Address, desc: []row{{end - 15, 16, indirect, 0}}, why: gmem.ErrOutside},
		{name: "indirect wraps", kind: vring.Address, desc: []row{{1<<64 - 8, 16, indirect, 0}}, why: gmem.ErrWrap},
		{name: "indirect next outside", kind: vring.NextRange, desc: []row{{data, 32, indirect, 0}}, table: []row{{data, 1, next, 2}}},
		{name: "indirect loop", kind: vring.Loop, desc: []row{{data, 32, indirect, 0}}, table: []row{{data, 1, next, 1}, {data, 1, next, 0}}},
		{name: "loop ends in a table", kind: vring.Loop, desc: []row{{data, 1, next, 2}, {data, 32, indirect, 0}}, table: []row{{data, 1, next, 1}, {data, 1, next, 0}}},
	} {
		x := newRig(t, 8, vring.Config{Indirect: !c.off, Limit: c.limit})
		if _, ok := x.d.Add([]vringtest.Buf{x.buf(0, 1)}, nil, false); !ok {
			t.Fatal("Add")
		}
		x.d.Kick()
		var first, ch vring.Chain
		if ok, err := x.r.Pop(&first); !ok || err != nil {
			t.Fatal(err)
		}
		put := func(a uint64, rows []row) {
			for i, d := range rows {
				copy(x.g.At(a+uint64(16*i), 16), bytesOf(d.addr, d.n, d.flags, d.next))
			}
		}
		put(x.l.Desc+16, c.desc)
		put(data, c.table)
		avail := c.avail
		if avail == nil {
			avail = []uint16{1}
		}
		for i, h := range avail {
			copy(x.g.At(x.l.Avail+4+2*uint64(1+i), 2), bytesOf(h))
		}
		idx := uint16(1 + len(avail))
		if c.idx != 0 {
			idx = 1 + c.idx
		}
		copy(x.g.At(x.l.Avail+2, 2), bytesOf(idx))
		if !x.r.More() || !x.r.EnableKick() { // who looks first does not check
			t.Errorf("%s: nothing to take", c.name)
		}
		ok, err := x.r.Pop(&ch)
		var v *vring.Violation
		if ok || !errors.As(err, &v) || v.Kind != c.kind || !strings.Contains(err.Error(), c.kind.String()) {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if c.why != nil && !errors.Is(err, c.why) {
			t.Errorf("%s: %v is not %v", c.name, err, c.why)
		}
		if _, again := x.r.Pop(&ch); again != err || x.r.Err() != err || !x.r.More() || !x.r.EnableKick() {
			t.Errorf("%s: the ring goes on: %v", c.name, again)
		}
		if !x.r.Push(first.Head, 0) || !x.r.Publish() {
			t.Errorf("%s: what is in flight cannot be answered", c.name)
		}
		if h, _, ok, err := x.d.Used(); !ok || err != nil || h != first.Head {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for k := vring.Kind(0); k < 20; k++ {
		if s := k.String(); s == "" || (strings.HasPrefix(s, "Kind") != (k == 0 || k > vring.InflightRecord)) {
			t.Errorf("%d: %q", k, s)
		}
	}
}

// TestTooBig needs 4 GiB of (sparse) memory.
func TestTooBig(t *testing.T) {
	g := vringtest.NewGuest(t, 0, 1<<20)
	big, err := g.Space.Add(g.Map, gmem.Region{Guest: 1 << 40, User: 1 << 60, Size: 1 << 20, FD: g.FD})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		done := make(chan struct{})
		big.Retire(func() { close(done) })
		<-done
	}()
	l := vringtest.Place(0, 8192, 0)
	d, err := vringtest.NewDriver(g, l, false)
	if err != nil {
		t.Fatal(err)
	}
	r, err := vring.New(vring.Config{Size: 8192, Limit: 8192}, big, g.Parts(t, l))
	if err != nil {
		t.Fatal(err)
	}
	var bufs []vringtest.Buf
	for range 4097 {
		bufs = append(bufs, vringtest.Buf{Addr: 1 << 40, Len: 1 << 20})
	}
	d.Add(bufs[:4096], nil, false)
	d.Add(bufs[:4095], bufs[4095:], false)
	d.Kick()
	var c vring.Chain
	if ok, err := r.Pop(&c); !ok || err != nil || gmem.Total(c.Out) != 1<<32 {
		t.Fatal(ok, err)
	}
	d2, err := vringtest.NewDriver(g, l, false)
	if err != nil {
		t.Fatal(err)
	}
	if r, err = vring.New(vring.Config{Size: 8192, Limit: 8192}, big, g.Parts(t, l)); err != nil {
		t.Fatal(err)
	}
	d2.Add(bufs, nil, false)
	d2.Kick()
	var v *vring.Violation
	if _, err := r.Pop(&c); !errors.As(err, &v) || v.Kind != vring.TooBig {
		t.Fatal(err)
	}
}

// TestAllowed is what looks odd and is lawful.
func TestAllowed(t *testing.T) {
	x := newRig(t, 8, vring.Config{Indirect: true})
	a := x.buf(0, 100)
	for name, c := range map[string][2][]vringtest.Buf{
		"one buffer written four times":  {{a, a, a, a}, nil},
		"overlapping buffers to write":   {nil, {a, a}},
		"reading what is written":        {{a}, {a}},
		"the whole memory":               {{{Addr: base, Len: 1 << 20}}, nil},
		"writing over the ring's memory": {nil, {{Addr: x.l.Used, Len: 4}}},
	} {
		for _, indirect := range []bool{false, true} {
			if _, ok := x.d.Add(c[0], c[1], indirect); !ok {
				t.Fatal(name)
			}
			x.d.Kick()
			var ch vring.Chain
			if ok, err := x.r.Pop(&ch); !ok || err != nil || len(ch.Out) != len(c[0]) || len(ch.In) != len(c[1]) {
				t.Fatalf("%s: %v %+v", name, err, ch)
			}
			x.r.Push(ch.Head, 0)
			x.r.Publish()
			if _, _, ok, err := x.d.Used(); !ok || err != nil {
				t.Fatal(name, err)
			}
		}
	}
	// Direct descriptors that end in a table (§2.7.5.3.2).
	copy(x.g.At(x.data, 16), bytesOf(x.data, uint32(7), uint16(2), uint16(0)))
	copy(x.g.At(x.l.Desc, 32), bytesOf(x.data, uint32(5), uint16(1), uint16(1), x.data, uint32(16), uint16(4|2), uint16(0)))
	n := x.r.Next()
	copy(x.g.At(x.l.Avail+4+2*uint64(n%8), 2), bytesOf(uint16(0)))
	copy(x.g.At(x.l.Avail+2, 2), bytesOf(n+1))
	var ch vring.Chain
	if ok, err := x.r.Pop(&ch); !ok || err != nil || gmem.Total(ch.Out) != 5 || gmem.Total(ch.In) != 7 {
		t.Fatal(ok, err)
	}
}

func TestNewRefuses(t *testing.T) {
	x := newRig(t, 8, vring.Config{})
	p := x.g.Parts(t, x.l)
	for _, n := range []int{0, 3, -4, 65536} {
		if _, err := vring.New(vring.Config{Size: n}, x.g.Map, p); err == nil {
			t.Errorf("%d entries", n)
		}
	}
	for name, q := range map[string]vring.Parts{
		"short":   {Desc: p.Desc[:127], Avail: p.Avail, Used: p.Used},
		"odd":     {Desc: p.Desc, Avail: x.g.At(x.data+1, 100), Used: p.Used},
		"overlap": {Desc: p.Desc, Avail: p.Desc[:100], Used: p.Used},
	} {
		if _, err := vring.New(vring.Config{Size: 8}, x.g.Map, q); err == nil {
			t.Error(name)
		} else {
			t.Log(name, err)
		}
	}
	u := uint64(vringtest.UserBase)
	for _, a := range [][3]uint64{{0, x.l.Avail + u, x.l.Used + u}, {x.l.Desc + u, 1<<64 - 1, x.l.Used + u}, {x.l.Desc + u, x.l.Avail + u, u + base + 1<<20 - 8}} {
		if _, err := vring.UserParts(x.g.Map, 8, a[0], a[1], a[2]); err == nil {
			t.Errorf("%#x", a)
		}
	}
}

// TestRebase goes over to another generation with a request in flight on the old.
func TestRebase(t *testing.T) {
	x := newRig(t, 8, vring.Config{})
	pin := x.g.Map.Pin()
	x.d.Add([]vringtest.Buf{x.buf(0, 4)}, []vringtest.Buf{x.buf(1, 4)}, false)
	x.d.Add([]vringtest.Buf{x.buf(0, 4)}, nil, false)
	x.d.Kick()
	var a, b vring.Chain
	if ok, err := x.r.Pop(&a); !ok || err != nil {
		t.Fatal(err)
	}
	pin.Take()
	m2, err := x.g.Space.Map([]gmem.Region{{Guest: base, Size: 1 << 20, User: base + vringtest.UserBase, FD: x.g.FD}})
	if err != nil {
		t.Fatal(err)
	}
	old := x.g.Map
	x.g.Map = m2
	if err := x.r.Rebase(m2, x.g.Parts(t, x.l)); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	old.Retire(func() { close(gone) })
	pin.Leave()
	if ok, err := x.r.Pop(&b); !ok || err != nil || &b.Out[0][0] == &a.Out[0][0] {
		t.Fatal(err)
	}
	if err := gmem.Guard(x.g.Space, func(c *vring.Chain) { gmem.Scatter(c.In, []byte("late")) }, &a); err != nil {
		t.Fatal(err)
	}
	pin.Drop()
	<-gone
	x.r.Push(a.Head, 4)
	x.r.Push(b.Head, 0)
	if !x.r.Publish() || string(x.g.At(x.buf(1, 4).Addr, 4)) != "late" {
		t.Error("the answer is lost")
	}
	if h, n, ok, err := x.d.Used(); !ok || err != nil || h != a.Head || n != 4 {
		t.Error(h, n, err)
	}
}

func TestSuppression(t *testing.T) {
	for _, eventIdx := range []bool{false, true} {
		x := newRig(t, 8, vring.Config{EventIdx: eventIdx})
		var c vring.Chain
		one := func() (kick, call bool) {
			x.d.Add([]vringtest.Buf{x.buf(0, 4)}, nil, false)
			kick = x.d.Kick()
			if ok, err := x.r.Pop(&c); !ok || err != nil {
				t.Fatal(err)
			}
			x.r.Push(c.Head, 0)
			call = x.r.Publish()
			x.d.Used()
			return kick, call
		}
		one() // the first answer is announced in any case
		check := func(what string, wantKick, wantCall bool) {
			t.Helper()
			if k, c := one(); k != wantKick || c != wantCall {
				t.Errorf("event idx %v, %s: kick %v, call %v", eventIdx, what, k, c)
			}
		}
		x.r.EnableKick()
		x.d.EnableCall()
		check("both want one", true, true)
		x.r.DisableKick()
		x.d.DisableCall()
		check("nobody wants one", false, false)
		x.r.EnableKick()
		check("a kick", true, false)
		x.r.DisableKick()
		x.d.EnableCall()
		check("a call", false, true)
		x.d.DisableCall()
		check("nobody again", false, false)
		x.r.Force()
		if !x.r.Publish() || x.r.Publish() {
			t.Error("Force")
		}
		// A driver that puts something in before we sleep is not overlooked.
		x.d.Add([]vringtest.Buf{x.buf(0, 4)}, nil, false)
		x.d.Kick()
		if !x.r.EnableKick() || !x.r.More() {
			t.Error("overlooked")
		}
	}
}

func TestNoAllocs(t *testing.T) {
	x := newRig(t, 128, vring.Config{EventIdx: true, Indirect: true, Inflight: inflight(t, 128)})
	pin := x.g.Map.Pin()
	out := []vringtest.Buf{x.buf(0, 51), x.buf(1, 4096)}
	in := []vringtest.Buf{x.buf(2, 108)}
	var cs [32]vring.Chain
	step := func(*rig) {
		for i := range cs {
			if ok, err := x.r.Pop(&cs[i]); !ok || err != nil {
				t.Fatal(err)
			}
			pin.Take()
		}
		for i := range cs {
			x.r.Push(cs[i].Head, 108)
			pin.Drop()
		}
		x.r.Publish()
		x.r.EnableKick()
	}
	if n := testing.AllocsPerRun(1000, func() {
		for i := range cs {
			x.d.Add(out, in, i%2 == 0)
		}
		x.d.Kick()
		if err := gmem.Guard(x.g.Space, step, x); err != nil {
			t.Fatal(err)
		}
		for range cs {
			x.d.Used()
		}
	}); n != 0 {
		t.Errorf("%v allocations in 32 requests", n)
	}
	pin.Leave()
}
