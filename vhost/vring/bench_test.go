package vring_test

import (
	"fmt"
	"testing"

	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/vhost/vring"
	"github.com/vtgt/vtgt/vhost/vring/vringtest"
)

// BenchmarkRing is one request through the device's side alone: take depth chains
// (header and data to read, answer to write), answer them, publish once, look
// again, all under one Guard. The driver's work is one store of its index.
func BenchmarkRing(b *testing.B) {
	for _, c := range []struct {
		name               string
		indirect, recorded bool
	}{{"direct", false, false}, {"indirect", true, false}, {"indirect+inflight", true, true}} {
		for _, depth := range []int{1, 32, 128} {
			b.Run(fmt.Sprintf("%s/depth=%d", c.name, depth), func(b *testing.B) { benchRing(b, c.indirect, c.recorded, depth) })
		}
	}
}

func benchRing(b *testing.B, indirect, recorded bool, depth int) {
	const size = 512
	cfg := vring.Config{EventIdx: true, Indirect: true}
	if recorded {
		cfg.Inflight = inflight(b, size)
	}
	x := newRig(b, size, cfg)
	pin := x.g.Map.Pin()
	defer pin.Leave()
	// Chains that repeat: entries 0 to 127 of the available ring, and so on.
	var heads []uint16
	for i := range 128 {
		h, ok := x.d.Add([]vringtest.Buf{x.buf(i, 51), x.buf(i+1, 4096)}, []vringtest.Buf{x.buf(0, 108)}, indirect)
		if !ok {
			b.Fatal("Add")
		}
		heads = append(heads, h)
	}
	p := x.g.Parts(b, x.l)
	a, err := gmem.NewArea(p.Avail, 2)
	if err != nil {
		b.Fatal(err)
	}
	for i := range size {
		a.Put16(4+2*i, heads[i%128])
	}
	type load struct {
		cs    []vring.Chain
		depth int
	}
	l := &load{make([]vring.Chain, depth), depth}
	step := func(l *load) {
		for i := range l.cs {
			if ok, err := x.r.Pop(&l.cs[i]); !ok || err != nil {
				b.Fatal(ok, err)
			}
			pin.Take()
		}
		for i := range l.cs {
			x.r.Push(l.cs[i].Head, 108)
			pin.Drop()
		}
		x.r.Publish()
		if x.r.EnableKick() {
			b.Fatal("more")
		}
	}
	idx := uint16(0)
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += depth {
		idx += uint16(depth)
		a.Store32(0, uint32(idx)<<16)
		if err := gmem.Guard(x.g.Space, step, l); err != nil {
			b.Fatal(err)
		}
	}
}
