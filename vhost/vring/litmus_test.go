package vring_test

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/vhost/vring"
	"github.com/vtgt/vtgt/vhost/vring/vringtest"
)

// litmusItems is how many requests go through each litmus ring: VTGT_RING_ITEMS
// (10^8 in soak), else 10^6, or as many as litmusTime is enough for, and litmusLeast
// in any case: sides that share a core with others hand over to each other a time
// slice later.
func litmusItems(t *testing.T) (n uint64, limit time.Duration) {
	if s := os.Getenv("VTGT_RING_ITEMS"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal("VTGT_RING_ITEMS:", err)
		}
		return n, 0
	}
	return 1_000_000, litmusTime
}

const (
	litmusTime  = time.Second
	litmusLeast = 10_000
)

// bell stands for an eventfd. Who waits polls it: to sleep and to be woken takes a
// thread 20 us, and a ring whose sides do that most of the time seldom meets the few
// nanoseconds in which a wake-up can be lost.
type bell struct {
	atomic.Uint32
	_ [60]byte
}

func (b *bell) ring() { b.Swap(1) }

// wait returns false when stop was set.
func (b *bell) wait(stop *atomic.Bool) bool {
	for n := 1; ; n++ {
		if b.Load() != 0 && b.Swap(0) != 0 {
			return true
		}
		if n&0xff == 0 || runtime.GOMAXPROCS(0) == 1 {
			if stop.Load() {
				return false
			}
			runtime.Gosched()
		}
	}
}

// spin waits for a moment of changing length, so that sides meet at every point
// of each other's way to sleep.
func spin(x *uint32) {
	*x = *x*1664525 + 1013904223
	for n := *x >> 26; n > 0; n-- {
		if n&31 == 31 && runtime.GOMAXPROCS(0) == 1 {
			runtime.Gosched()
		}
	}
}

// TestLitmus sends items through a ring between two threads that sleep whenever
// they find nothing: a notification that is lost, or an entry that is seen before
// its content, shows as a hang or as a wrong number. The race detector does not see
// this memory.
func TestLitmus(t *testing.T) {
	for _, c := range []struct {
		size     int
		eventIdx bool
		share    uint64
		packed   bool
	}{{8, true, 1, false}, {256, true, 2, false}, {8, false, 2, false}, {8, true, 1, true}, {7, false, 2, true}, {250, true, 2, true}} {
		name := fmt.Sprintf("size %d, event idx %v, packed %v", c.size, c.eventIdx, c.packed)
		t.Run(name, func(t *testing.T) {
			n, limit := litmusItems(t)
			litmus(t, c.size, c.eventIdx, c.packed, n/c.share, limit)
		})
	}
}

// newDriver makes the driver of a ring of either kind, and what the device begins with.
func newDriver(tb testing.TB, g *vringtest.Guest, l vringtest.Layout, eventIdx, packed bool) (*vringtest.Driver, vring.Parts, uint32) {
	tb.Helper()
	if !packed {
		d, err := vringtest.NewDriver(g, l, eventIdx)
		if err != nil {
			tb.Fatal(err)
		}
		return d, g.Parts(tb, l), 0
	}
	d, err := vringtest.NewPacked(g, l, eventIdx)
	if err != nil {
		tb.Fatal(err)
	}
	p, err := g.PackedParts(l)
	if err != nil {
		tb.Fatal(err)
	}
	return d, p, vring.PackedBase
}

func litmus(t *testing.T, size int, eventIdx, packed bool, items uint64, limit time.Duration) {
	g := vringtest.NewGuest(t, 1<<32, 1<<20)
	l := vringtest.Place(g.Base, size, 4)
	d, parts, base := newDriver(t, g, l, eventIdx, packed)
	if !packed {
		base = 0xfff0
	}
	data := l.End // 16 bytes per head: a number to read, a number to write
	d.SetIndex(0xfff0)
	var nkick, ncall atomic.Uint64
	var kick, call bell
	var stop, enough atomic.Bool
	var took, got atomic.Uint64
	fail := make(chan error, 2)

	r, err := vring.New(vring.Config{Size: size, EventIdx: eventIdx, Indirect: true, Base: base, Packed: packed}, g.Map, parts)
	if err != nil {
		t.Fatal(err)
	}
	device := func() error {
		var ch vring.Chain
		x := uint32(1)
		var n uint64
		r.DisableKick()
		for n < items {
			for {
				ok, err := r.Pop(&ch)
				if err != nil {
					return err
				}
				if !ok {
					break
				}
				// The driver numbers its requests: content comes with the index.
				v := le(ch.Out[0])
				if v != n {
					return fmt.Errorf("request %d holds %d", n, v)
				}
				n++
				putLE(ch.In[0], ^v)
				r.Push(ch.Head, uint32(v))
				if x&0x300 == 0 {
					break
				}
			}
			if r.Publish() {
				ncall.Add(1)
				call.ring()
			}
			took.Store(n)
			spin(&x)
			if r.EnableKick() {
				r.DisableKick()
				continue
			}
			if n == items {
				break
			}
			if !kick.wait(&stop) {
				return nil
			}
			r.DisableKick()
		}
		return nil
	}
	driver := func() error {
		x := uint32(7)
		var sent, back uint64
		sentAt := make([]uint64, size)
		bufs := make([]vringtest.Buf, 2)
		d.DisableCall()
		goal := items
		// With all answers back the device has nothing to wait for.
		defer stop.Store(true)
		for back < goal {
			if goal > sent && sent >= litmusLeast && enough.Load() {
				goal = sent
				continue
			}
			for k := x >> 30; sent < goal && (k > 0 || sent == back); k-- {
				// Data lie at the head that Add will take: all are sent alike.
				h, ok := d.PeekFree()
				if !ok {
					break
				}
				a := data + 16*uint64(h)
				putLE(g.At(a, 8), sent)
				bufs[0], bufs[1] = vringtest.Buf{Addr: a, Len: 8}, vringtest.Buf{Addr: a + 8, Len: 8}
				h2, ok := d.Add(bufs[:1], bufs[1:], true)
				if !ok || h2 != h {
					return fmt.Errorf("driver: head %d, %d was free", h2, h)
				}
				sentAt[h] = sent
				sent++
			}
			if d.Kick() {
				nkick.Add(1)
				kick.ring()
			}
			for {
				h, n, ok, err := d.Used()
				if err != nil {
					return err
				}
				if !ok {
					break
				}
				if n != uint32(sentAt[h]) || le(g.At(data+16*uint64(h)+8, 8)) != ^sentAt[h] {
					return fmt.Errorf("answer %d for request %d", n, sentAt[h])
				}
				back++
			}
			got.Store(back)
			spin(&x)
			if back == sent || (sent < goal && d.Free() > 0 && x&0x700 != 0) {
				continue
			}
			if d.EnableCall() {
				d.DisableCall()
				continue
			}
			if !call.wait(&stop) {
				return nil
			}
			d.DisableCall()
		}
		return nil
	}
	run := func(f func() error) { fail <- f() }
	begin := time.Now()
	if limit > 0 {
		defer time.AfterFunc(limit, func() { enough.Store(true) }).Stop()
	}
	go run(device)
	go run(driver)
	tick := time.NewTicker(tempotest.Patience)
	defer tick.Stop()
	last := uint64(0)
	for left := 2; left > 0; {
		select {
		case err := <-fail:
			left--
			if err != nil {
				t.Error(err)
			}
			if err != nil {
				stop.Store(true)
			}
		case <-tick.C:
			now := took.Load() + got.Load()
			if now == last && !stop.Load() {
				t.Errorf("no progress in %v: %d requests taken, %d answers seen of %d", tempotest.Patience, took.Load(), got.Load(), items)
				stop.Store(true)
			}
			last = now
		}
	}
	n := got.Load()
	t.Logf("%d requests, %v each; %d calls, %d kicks", n, time.Since(begin)/time.Duration(max(n, 1)), nkick.Load(), ncall.Load())
}

func le(b []byte) (v uint64) {
	for i := 7; i >= 0; i-- {
		v = v<<8 | uint64(b[i])
	}
	return v
}

func putLE(b []byte, v uint64) {
	for i := range 8 {
		b[i] = byte(v >> (8 * i))
	}
}
