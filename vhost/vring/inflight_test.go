package vring_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/vtgt/vtgt/vhost/vring"
	"github.com/vtgt/vtgt/vhost/vring/vringtest"
)

func region(t testing.TB, size int) []byte {
	t.Helper()
	n := vring.InflightSize(2, size)
	g := vringtest.NewGuest(t, 0, (n+4095)&^4095)
	b, err := g.Map.Slice(0, uint64(n))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func open(t testing.TB, b []byte, size int) *vring.Inflight {
	t.Helper()
	f, err := vring.OpenInflight(b, 1, size)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func inflight(t testing.TB, size int) *vring.Inflight { return open(t, region(t, size), size) }

// queue1 is the second queue's part.
func queue1(b []byte) []byte { return b[len(b)/2:] }

func TestInflightGolden(t *testing.T) {
	const size = 4
	b := region(t, size)
	x := newRig(t, size, vring.Config{})
	x.d.SetIndex(0x1233)
	restart := func() (*vring.Inflight, error) {
		f := open(t, b, size)
		var err error
		x.r, err = vring.New(vring.Config{Size: size, Inflight: f, Base: 0x7777}, x.g.Map, x.g.Parts(t, x.l))
		return f, err
	}
	if _, err := restart(); err != nil {
		t.Fatal(err)
	}
	check := func(what string, want []byte) {
		t.Helper()
		if got := queue1(b)[:len(want)]; !bytes.Equal(got, want) {
			t.Errorf("%s:\n%x\n%x", what, got, want)
		}
		if bytes.Trim(b[:len(b)/2], "\x00") != nil {
			t.Errorf("%s: written to another queue", what)
		}
	}
	entry := func(inflight, next uint16, counter uint64) []byte {
		return bytesOf(inflight, uint16(0), uint16(0), next, counter)
	}
	header := func(batch, used uint16) []byte { return bytesOf(uint64(0), uint16(1), uint16(size), batch, used) }
	none := entry(0, 0, 0)
	// A new record takes the ring's used index, which is not 0.
	check("new", bytes.Join([][]byte{header(0, 0x1233), none, none, none, none}, nil))
	var cs [3]vring.Chain
	for i := range cs {
		x.d.Add([]vringtest.Buf{x.buf(i, 4)}, nil, false)
		x.d.Kick()
		if ok, err := x.r.Pop(&cs[i]); !ok || err != nil {
			t.Fatal(err)
		}
	}
	check("submitted", bytes.Join([][]byte{header(0, 0x1233), entry(1, 0, 0), entry(1, 0, 1), entry(1, 0, 2), none}, nil))
	x.r.Push(cs[2].Head, 0)
	x.r.Push(cs[1].Head, 0)
	check("completed", bytes.Join([][]byte{header(1, 0x1233), entry(1, 0, 0), entry(1, 2, 1), entry(1, 0, 2), none}, nil))
	x.r.Publish()
	check("published", bytes.Join([][]byte{header(1, 0x1235), entry(1, 0, 0), entry(0, 2, 1), entry(0, 0, 2), none}, nil))
	f, err := restart()
	if err != nil || len(f.Heads()) != 1 || f.Heads()[0] != cs[0].Head || x.r.Next() != 0x1236 || x.r.InFlight() != 1 {
		t.Fatal(err, f.Heads(), x.r.Next())
	}

	put := func(off int, v ...any) { copy(queue1(b)[off:], bytesOf(v...)) }
	for name, change := range map[string]func(){
		"version":           func() { put(8, uint16(2)) },
		"another size":      func() { put(10, uint16(8)) },
		"batch of too many": func() { put(14, uint16(0x1000)) },
		"batch outside":     func() { put(12, uint16(4), uint16(0x1234)) },
		"next outside":      func() { put(14, uint16(0x1233)); put(16+16+6, uint16(0xffff)) },
	} {
		keep := bytes.Clone(b)
		change()
		if _, err := restart(); err == nil {
			t.Error(name, "was accepted")
		} else {
			t.Log(err)
		}
		copy(b, keep)
	}
	if _, err := vring.OpenInflight(b, 2, size); err == nil {
		t.Error("a queue that is not there")
	}
	if _, err := vring.OpenInflight(b, 0, 0); err == nil {
		t.Error("no size")
	}
	if f, err = restart(); err != nil {
		t.Fatal(err)
	}
	var v *vring.Violation
	if err := x.r.Reload(3, &cs[0]); !errors.As(err, &v) || v.Kind != vring.InflightRecord {
		t.Error(err)
	}
}

// TestInflightKilled ends the device after each single store of a step and starts
// it again: every request is answered exactly once, those found in flight in the
// order in which they came. The images between two stores are made from those
// before and after the step, word by word, in the order that inflight.go states.
func TestInflightKilled(t *testing.T) {
	const size = 8
	b := region(t, size)
	x := newRig(t, size, vring.Config{})
	total := 0
	for kill := 0; ; kill++ {
		// A fresh ring and record, near the wrap.
		clear(b)
		var err error
		if x.d, err = vringtest.NewDriver(x.g, x.l, false); err != nil {
			t.Fatal(err)
		}
		x.d.SetIndex(0xfffd)
		start := func() *vring.Inflight {
			t.Helper()
			f := open(t, b, size)
			if x.r, err = vring.New(vring.Config{Size: size, Inflight: f}, x.g.Map, x.g.Parts(t, x.l)); err != nil {
				t.Fatal(kill, err)
			}
			return f
		}
		start()
		answers := map[uint16]int{}
		reap := func() {
			t.Helper()
			for {
				h, _, ok, err := x.d.Used()
				if err != nil {
					t.Fatal(kill, err)
				}
				if !ok {
					return
				}
				answers[h]++
			}
		}
		at, dead := 0, false
		// do runs one step; if the moment to be killed lies in it, memory ends
		// up as after that many of its stores.
		mem := x.g.At(base, int(x.l.End-base))
		q := queue1(b)
		do := func(order []int, step func()) {
			if dead {
				return
			}
			ring, rec := bytes.Clone(mem), bytes.Clone(q)
			step()
			// The stores, as pieces of the two images, in order: the record's
			// word at order[i] >= 0, or the used ring's index at -1.
			type store struct {
				dst, old, new []byte
			}
			var stores []store
			for _, o := range order {
				if o < 0 {
					u := int(x.l.Used - base)
					stores = append(stores, store{mem[u : u+4], ring[u : u+4], bytes.Clone(mem[u : u+4])})
				} else {
					stores = append(stores, store{q[o : o+8], rec[o : o+8], bytes.Clone(q[o : o+8])})
				}
			}
			if at+len(stores) > kill {
				dead = true
				for i, s := range stores {
					if at+i >= kill {
						copy(s.dst, s.old)
					}
				}
				return
			}
			at += len(stores)
		}
		entry := func(h uint16) int { return 16 + 16*int(h) }
		var order []uint16 // of submission
		add := func() {
			if _, ok := x.d.Add([]vringtest.Buf{x.buf(0, 4)}, nil, false); !ok {
				t.Fatal("Add")
			}
			x.d.Kick()
		}
		pop := func() {
			h, _ := nextHead(x)
			do([]int{entry(h) + 8, entry(h)}, func() {
				var c vring.Chain
				if ok, err := x.r.Pop(&c); !ok || err != nil || c.Head != h {
					t.Fatal(kill, ok, err)
				}
			})
			order = append(order, h)
		}
		push := func(h uint16) {
			do([]int{entry(h), 8}, func() { x.r.Push(h, 0) })
		}
		publish := func(hs ...uint16) {
			// used.idx, the marks from the batch's head on, the header.
			o := []int{-1}
			for i := len(hs) - 1; i >= 0; i-- {
				o = append(o, entry(hs[i]))
			}
			do(append(o, 8), func() { x.r.Publish() })
			if !dead {
				reap()
			}
		}
		for range 5 {
			add()
		}
		for range 4 {
			pop()
		}
		if len(order) == 4 {
			push(order[1])
			publish(order[1])
			push(order[3])
			push(order[0])
			pop()
			publish(order[3], order[0])
			push(order[2])
			publish(order[2])
		}
		// The next process.
		f := start()
		reap()
		heads := f.Heads()
		for i := 1; i < len(heads); i++ {
			if index(order, heads[i-1]) > index(order, heads[i]) {
				t.Errorf("killed at %d: %v instead of %v", kill, heads, order)
			}
		}
		var c vring.Chain
		for _, h := range heads {
			if answers[h] != 0 {
				t.Errorf("killed at %d: %d is in flight and answered", kill, h)
			}
			if err := x.r.Reload(h, &c); err != nil || len(c.Out) != 1 {
				t.Fatal(kill, err)
			}
			x.r.Push(h, 0)
		}
		for {
			ok, err := x.r.Pop(&c)
			if err != nil {
				t.Fatal(kill, err)
			}
			if !ok {
				break
			}
			x.r.Push(c.Head, 0)
		}
		if !x.r.Publish() {
			t.Errorf("killed at %d: the driver is not told", kill)
		}
		reap()
		if len(answers) != 5 {
			t.Errorf("killed at %d: %d of 5 answered", kill, len(answers))
		}
		for h, n := range answers {
			if n != 1 {
				t.Errorf("killed at %d: %d answered %d times", kill, h, n)
			}
		}
		if f := start(); len(f.Heads()) != 0 {
			t.Errorf("killed at %d: marks are left: %v", kill, f.Heads())
		}
		if t.Failed() {
			t.FailNow()
		}
		if !dead {
			total = at
			break
		}
	}
	t.Log(fmt.Sprint("killed at each of ", total, " stores"))
	if total < 25 {
		t.Error("too few stores were tried")
	}
}

// nextHead is what Pop will take.
func nextHead(x *rig) (uint16, bool) {
	b := x.g.At(x.l.Avail+4+2*uint64(int(x.r.Next())%x.l.Size), 2)
	return uint16(b[0]) | uint16(b[1])<<8, true
}

func index(s []uint16, v uint16) int {
	for i, x := range s {
		if x == v {
			return i
		}
	}
	return -1
}

// TestInflightEntries: a region's size tells how it is divided, the same each time.
func TestInflightEntries(t *testing.T) {
	for _, queues := range []int{1, 2, 3, 18, 1026} {
		for _, size := range []int{1, 2, 64, 128, 256, 1024, 32768} {
			n := vring.InflightSize(queues, size)
			got := vring.InflightEntries(uint64(n), queues)
			if got < size || vring.InflightSize(queues, got) != n {
				t.Errorf("%d queues of %d: %d bytes say %d entries, which need %d", queues, size, n, got, vring.InflightSize(queues, got))
			}
		}
	}
	for _, n := range []uint64{0, 63, 1 << 63} {
		if got := vring.InflightEntries(n, 0); got != 0 {
			t.Errorf("no queues in %d bytes: %d entries", n, got)
		}
	}
	if got := vring.InflightEntries(63, 1); got != 0 {
		t.Errorf("63 bytes: %d entries", got)
	}
	if got := vring.InflightEntries(1<<63, 2); got != vring.MaxSize {
		t.Errorf("2^63 bytes: %d entries", got)
	}
}
