package slab

import (
	"math/rand/v2"
	"reflect"
	"testing"
)

func TestClasses(t *testing.T) {
	p := New(64 << 20)
	c := p.NewCache()
	for _, x := range []struct{ n, class int }{
		{0, 512}, {1, 512}, {512, 512}, {513, 1024}, {1024, 1024}, {4095, 4096}, {4096, 4096}, {4097, 8192},
		{65536, 65536}, {1 << 20, 1 << 20}, {1<<20 + 1, MaxBuf}, {MaxBuf, MaxBuf},
	} {
		b := c.Get(x.n)
		if b == nil {
			t.Fatalf("Get(%d) = nil", x.n)
		}
		if len(b.B) != x.n || cap(b.B) != x.class {
			t.Errorf("Get(%d): len %d, cap %d, want class %d", x.n, len(b.B), cap(b.B), x.class)
		}
		if a := reflect.ValueOf(b.B).Pointer(); x.n >= 4096 && a%4096 != 0 {
			t.Errorf("Get(%d) at %#x: not page-aligned", x.n, a)
		}
		if p.Used() != int64(x.class) {
			t.Errorf("Used() = %d, want %d", p.Used(), x.class)
		}
		b.B = b.B[:0] // re-slicing does not matter
		b.Free()
		b.Free() // ignored
		if p.Used() != 0 {
			t.Errorf("Used() = %d after Free", p.Used())
		}
	}
	if c.Get(MaxBuf+1) != nil || c.Get(-1) != nil {
		t.Error("Get of an impossible size")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if p.Mapped() != 0 {
		t.Errorf("Mapped() = %d after Close", p.Mapped())
	}
}

// Random gets and frees: no two live buffers overlap, and everything comes back.
func TestRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	p := New(64 << 20)
	c := p.NewCache()
	type live struct {
		b *Buf
		m byte
	}
	var ls []live
	want := int64(0)
	for i := range 20000 {
		if grow := i/2000%2 == 0; rnd.IntN(10) < 3 != grow || len(ls) == 0 {
			n := 1 + rnd.IntN(1<<(9+rnd.IntN(13)))
			b := c.Get(n)
			if b == nil {
				continue
			}
			m := byte(i)
			b.B[0], b.B[n-1] = m, m
			if n > 1024 {
				b.B[n/2], b.B[512] = m, m
			}
			ls = append(ls, live{b, m})
			want += int64(cap(b.B))
		} else {
			k := rnd.IntN(len(ls))
			l := ls[k]
			n := len(l.b.B)
			if l.b.B[0] != l.m || l.b.B[n-1] != l.m || n > 1024 && (l.b.B[n/2] != l.m || l.b.B[512] != l.m) {
				t.Fatal("buffers overlap")
			}
			want -= int64(cap(l.b.B))
			l.b.Free()
			ls[k] = ls[len(ls)-1]
			ls = ls[:len(ls)-1]
		}
		if i%100 == 0 {
			if p.Used() != want {
				t.Fatalf("Used() = %d, want %d", p.Used(), want)
			}
			if p.Mapped() > p.Limit() || p.Mapped() < want {
				t.Fatalf("Mapped() = %d with %d in use, limit %d", p.Mapped(), want, p.Limit())
			}
		}
		if i%777 == 0 {
			c.Trim()
		}
	}
	if c.Close() == nil && want > 0 {
		t.Error("Close with buffers in use says nothing")
	}
	for _, l := range ls {
		if l.b.B[0] != l.m {
			t.Fatal("buffers overlap")
		}
		l.b.Free()
	}
	if p.Used() != 0 || p.Mapped() != 0 {
		t.Errorf("at the end Used() = %d, Mapped() = %d", p.Used(), p.Mapped())
	}
}

// At the limit Get returns nil; after Free it works again; idle memory of another
// cache is not lost for good.
func TestLimit(t *testing.T) {
	p := New(8 << 20)
	a, b := p.NewCache(), p.NewCache()
	var bs []*Buf
	for {
		x := a.Get(64 << 10)
		if x == nil {
			break
		}
		bs = append(bs, x)
	}
	if len(bs) != 128 || p.Used() != 8<<20 || p.Mapped() != 8<<20 || p.Refused() != 1 {
		t.Fatalf("%d buffers, Used %d, Mapped %d, Refused %d", len(bs), p.Used(), p.Mapped(), p.Refused())
	}
	if b.Get(512) != nil {
		t.Fatal("Get beyond the limit")
	}
	for _, x := range bs[:33] {
		x.Free()
	}
	// The pressure made a give its idle slab back at once.
	if x := b.Get(512); x == nil {
		t.Error("Get of the other cache after a slab became idle")
	} else {
		x.Free()
	}
	for _, x := range bs[33:] {
		x.Free()
	}
	for range 2 {
		a.Trim()
		b.Trim()
	}
	if a.Holds() || b.Holds() || p.Mapped() != 0 {
		t.Errorf("idle memory kept: %d", p.Mapped())
	}
	// In small pieces kept for reuse, then a large one: they are joined first.
	q := New(2 << 20).NewCache()
	var small []*Buf
	for range 100 {
		small = append(small, q.Get(4096))
	}
	for _, x := range small {
		x.Free()
	}
	if x := q.Get(MaxBuf); x == nil {
		t.Error("freed pieces were not joined for a large buffer")
	} else {
		x.Free()
	}
}

// A steady flow reuses memory; Trim between leaves what it needs.
func TestTrimKeepsWorkingSet(t *testing.T) {
	p := New(0)
	c := p.NewCache()
	var bs [32]*Buf
	for round := range 20 {
		for i := range bs {
			bs[i] = c.Get(1 << 20)
		}
		for i := range bs {
			bs[i].Free()
		}
		if round > 2 && p.Mapped() != 32<<20 {
			t.Fatalf("round %d: %d mapped, want %d", round, p.Mapped(), 32<<20)
		}
		c.Trim()
	}
	c.Trim()
	if p.Mapped() != 0 {
		t.Errorf("%d mapped after an idle period", p.Mapped())
	}
}

func TestNoAllocations(t *testing.T) {
	c := New(64 << 20).NewCache()
	var bs [64]*Buf
	f := func() {
		for i := range bs {
			bs[i] = c.Get(512 << (i % 13))
		}
		for i := range bs {
			bs[i].Free()
		}
	}
	f()
	if n := testing.AllocsPerRun(100, f); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzBuddy drives one cache by a script of gets and frees.
func FuzzBuddy(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 255, 254, 12, 12, 255})
	f.Fuzz(func(t *testing.T, script []byte) {
		p := New(4 << 20)
		c := p.NewCache()
		var live []*Buf
		for _, x := range script {
			switch {
			case x < 0x60:
				if b := c.Get(1 << (x % 22)); b != nil {
					live = append(live, b)
				}
			case x < 0x68:
				c.Trim()
			case len(live) > 0:
				k := int(x) % len(live)
				live[k].Free()
				live = append(live[:k], live[k+1:]...)
			}
			var sum int64
			for _, b := range live {
				sum += int64(cap(b.B))
			}
			if sum != p.Used() || p.Mapped() > p.Limit() {
				t.Fatalf("Used() = %d, want %d; Mapped() = %d", p.Used(), sum, p.Mapped())
			}
		}
		for _, b := range live {
			b.Free()
		}
		if err := c.Close(); err != nil || p.Mapped() != 0 {
			t.Fatalf("Close: %v, %d mapped", err, p.Mapped())
		}
	})
}

func BenchmarkGetFree4K(b *testing.B) {
	c := New(0).NewCache()
	for b.Loop() {
		c.Get(4096).Free()
	}
}

func BenchmarkCutJoin2M(b *testing.B) {
	c := New(0).NewCache()
	for b.Loop() {
		c.Get(MaxBuf).Free()
	}
}
