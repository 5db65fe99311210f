package vring_test

import (
	"errors"
	"testing"

	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/vhost/vring"
	"github.com/vtgt/vtgt/vhost/vring/vringtest"
)

// fuzzSize, fuzzMem: a whole ring with its tables and buffers in little memory, so
// that random numbers hit something.
const (
	fuzzSize = 8
	fuzzMem  = 8192
	fuzzHead = 6 // bytes of the script before the memory image
)

// fuzzer is what one execution works on.
type fuzzer struct {
	t      *testing.T
	g      *vringtest.Guest
	script []byte
	r      *vring.Ring
	err    error // of New
	cfg    vring.Config
	parts  vring.Parts
}

// FuzzRing runs a device over memory that is hostile as a whole: ring, tables and
// record of requests in flight are the input, and the input's rest changes them
// between steps. Whatever stands there, the device ends with an error or goes on, and
// what it hands out lies in guest memory and within the limits.
func FuzzRing(f *testing.F) {
	g := vringtest.NewGuest(f, base, fuzzMem)
	l := vringtest.Place(base, fuzzSize, 3)
	ifl := l.End // the record follows; together they are the image
	image := int(l.End-base) + vring.InflightSize(1, fuzzSize)
	for _, eventIdx := range []byte{0, 1, 3, 7, 15} {
		// Seeds: a ring as a driver leaves it, with chains of every shape.
		clear(g.Mem)
		d, err := vringtest.NewDriver(g, l, eventIdx&1 != 0)
		if err != nil {
			f.Fatal(err)
		}
		a := vringtest.Buf{Addr: base + 4096, Len: 51}
		b := vringtest.Buf{Addr: base + 5000, Len: 108}
		d.Add([]vringtest.Buf{a}, []vringtest.Buf{b}, false)
		d.Add([]vringtest.Buf{a}, []vringtest.Buf{b}, true)
		d.Add([]vringtest.Buf{a, a}, nil, false)
		d.Kick()
		seed := append([]byte{eventIdx, 3, 0, 0, 0, 0}, g.Mem[:image]...)
		f.Add(append(seed, 0, 0, 0, 1, 2, 3, 4, 5, 0x80, 1, 2, 0x90, 0xff, 0xff, 0, 0, 5))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) < fuzzHead {
			return
		}
		head, in := in[:fuzzHead], in[fuzzHead:]
		clear(g.Mem)
		n := copy(g.Mem[:image], in)
		in = in[n:]
		p, err := vring.UserParts(g.Map, fuzzSize, l.Desc+vringtest.UserBase, l.Avail+vringtest.UserBase, l.Used+vringtest.UserBase)
		if err != nil {
			t.Fatal(err)
		}
		c := vring.Config{Size: fuzzSize, EventIdx: head[0]&1 != 0, Indirect: head[0]&2 != 0, Base: uint32(head[2]) | uint32(head[3])<<8}
		if head[0]&8 != 0 {
			c.Limit = 1 + int(head[4]&15)
		}
		if head[0]&4 != 0 {
			b, err := g.Map.Slice(ifl, uint64(vring.InflightSize(1, fuzzSize)))
			if err != nil {
				t.Fatal(err)
			}
			if c.Inflight, err = vring.OpenInflight(b, 0, fuzzSize); err != nil {
				t.Fatal(err)
			}
		}
		x := &fuzzer{t: t, g: g, script: in, cfg: c, parts: p}
		if err := gmem.Guard(g.Space, (*fuzzer).run, x); err != nil {
			t.Fatal(err)
		}
	})
}

func (x *fuzzer) run() {
	var err error
	if x.r, err = vring.New(x.cfg, x.g.Map, x.parts); err != nil {
		return
	}
	r := x.r
	var free []*vring.Chain
	var held []uint16
	for range fuzzSize {
		free = append(free, &vring.Chain{})
	}
	busy := map[uint16]bool{}
	staged := 0
	if f := x.cfg.Inflight; f != nil {
		for _, h := range f.Heads() {
			if int(h) >= fuzzSize || busy[h] {
				x.t.Fatalf("head %d found in flight", h)
			}
			busy[h] = true
			c := free[h]
			if err := r.Reload(h, c); err == nil {
				x.check(c)
			} else if r.Err() == nil {
				x.t.Fatal("an error that does not last:", err)
			}
			held = append(held, h)
		}
		if r.InFlight() != len(held) {
			x.t.Fatal(r.InFlight(), len(held))
		}
	}
	var c vring.Chain
	for len(x.script) > 0 {
		op := x.script[0]
		x.script = x.script[1:]
		switch op & 7 {
		case 0, 1:
			next := r.Next()
			ok, err := r.Pop(&c)
			var v *vring.Violation
			switch {
			case err != nil:
				if ok || !errors.As(err, &v) || v.Error() == "" || r.Err() != err || r.Next() != next {
					x.t.Fatal(ok, err)
				}
			case ok:
				if busy[c.Head] || !x.cfg.Packed && r.Next() != next+1 {
					x.t.Fatalf("head %d twice", c.Head)
				}
				busy[c.Head] = true
				held = append(held, c.Head)
				x.check(&c)
				for _, b := range c.In {
					clear(b) // hostile: over ring and tables, if it likes
				}
			}
		case 2:
			if len(held) > 0 {
				i := int(op>>3) % len(held)
				h := held[i]
				held = append(held[:i], held[i+1:]...)
				delete(busy, h)
				if !r.Push(h, uint32(op)) || r.Push(h, 0) {
					x.t.Fatal("Push", h)
				}
				staged++
			}
		case 3:
			if staged != r.Staged() {
				x.t.Fatal(staged, r.Staged())
			}
			r.Publish()
			staged = 0
		case 4:
			if !r.EnableKick() && r.Err() != nil {
				x.t.Fatal("a failed ring sleeps")
			}
		case 5:
			r.DisableKick()
			r.More()
		default:
			// The guest writes where it likes.
			if len(x.script) < 4 {
				return
			}
			at := (int(x.script[0]) | int(x.script[1])<<8) % (fuzzMem - 1)
			copy(x.g.Mem[at:], x.script[2:4])
			x.script = x.script[4:]
		}
		if r.InFlight() != len(held)+staged || r.InFlight() > fuzzSize {
			x.t.Fatalf("%d in flight: %d held, %d staged", r.InFlight(), len(held), staged)
		}
	}
}

// check holds a chain against what a Ring promises.
func (x *fuzzer) check(c *vring.Chain) {
	limit := x.cfg.Limit
	if limit == 0 {
		limit = vring.DefaultLimit
	}
	if int(c.Head) >= fuzzSize || len(c.Out)+len(c.In) == 0 || len(c.Out)+len(c.In) > limit+1 {
		x.t.Fatalf("head %d: %d and %d pieces", c.Head, len(c.Out), len(c.In))
	}
	whole, err := x.g.Map.Slice(base, fuzzMem)
	if err != nil {
		x.t.Fatal(err)
	}
	for _, bufs := range [][][]byte{c.Out, c.In} {
		for _, b := range bufs {
			if len(b) == 0 || cap(b) != len(b) || !inside(whole, b) {
				x.t.Fatalf("head %d: a buffer of %d bytes outside guest memory", c.Head, len(b))
			}
		}
	}
}
