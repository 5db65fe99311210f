package vring_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/vhost/vring"
	"github.com/vtgt/vtgt/vhost/vring/vringtest"
)

// vm is a device at work on one guest's ring, which answers each request at once.
type vm struct {
	x    *rig
	pin  *gmem.Pin
	c    vring.Chain
	err  error
	done uint64
}

func (v *vm) round() {
	for {
		ok, err := v.x.r.Pop(&v.c)
		if err != nil {
			v.err = err
			return
		}
		if !ok {
			break
		}
		v.pin.Take()
		var hdr [8]byte
		gmem.Gather(hdr[:], v.c.Out)
		gmem.Scatter(v.c.In, hdr[:])
		v.x.r.Push(v.c.Head, 8)
		v.pin.Drop()
		v.done++
	}
	v.x.r.Publish()
}

// TestTruncateUnderLoad takes one guest's memory away, at another place each time,
// while two devices work on one thread as they do on a loop: its ring ends with an
// error that names the region, the other one's does not notice.
func TestTruncateUnderLoad(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 6
	}
	other := &vm{x: newRig(t, 16, vring.Config{EventIdx: true, Indirect: true})}
	other.pin = other.x.g.Map.Pin()
	defer other.pin.Leave()
	var sent atomic.Uint64 // by the other guest
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		x := other.x
		for n := uint64(0); !stop.Load(); {
			a, b := x.buf(0, 8), x.buf(1, 8)
			putLE(x.g.At(a.Addr, 8), n)
			if _, ok := x.d.Add([]vringtest.Buf{a}, []vringtest.Buf{b}, n%2 == 0); !ok {
				t.Error("the other guest's ring is full")
				return
			}
			x.d.Kick()
			for {
				_, _, ok, err := x.d.Used()
				if err != nil {
					t.Error(err)
					return
				}
				if ok || stop.Load() {
					break
				}
				time.Sleep(time.Microsecond)
			}
			if !stop.Load() && le(x.g.At(b.Addr, 8)) != n {
				t.Errorf("answer %d to %d", le(x.g.At(b.Addr, 8)), n)
				return
			}
			n++
			sent.Store(n)
		}
	}()
	for i := range rounds {
		x := newRig(t, 16, vring.Config{EventIdx: i%2 == 0, Indirect: true})
		// A second generation of the same guest that is on another file.
		spare := vringtest.NewGuest(t, base, 1<<20)
		m2, err := x.g.Space.Map([]gmem.Region{{Guest: base, User: base, Size: 1 << 20, FD: spare.FD}})
		if err != nil {
			t.Fatal(err)
		}
		victim := &vm{x: x, pin: x.g.Map.Pin()}
		// The hostile guest: endless requests, written once; it only moves
		// its index, until its memory goes.
		for range 8 {
			x.d.Add([]vringtest.Buf{x.buf(0, 8), x.buf(40, 8)}, []vringtest.Buf{x.buf(80, 8)}, true)
		}
		x.d.Kick()
		before := sent.Load()
		var fault error
		deadline := time.Now().Add(tempotest.Patience)
		gone := false
		for fault == nil && time.Now().Before(deadline) {
			if err := gmem.Guard(other.x.g.Space, (*vm).round, other); err != nil || other.err != nil {
				t.Fatal("the other guest was harmed:", err, other.err)
			}
			fault = gmem.Guard(x.g.Space, (*vm).round, victim)
			if victim.err != nil {
				t.Fatal(victim.err)
			}
			if !gone && victim.done > 100 {
				gone = true
				// Ring, tables, first header, second header, answers.
				go x.g.Truncate(t, []int64{0, 4096, 40 * 4096, 80 * 4096}[i%4])
			}
			if !gone || i%4 > 0 {
				feed(x)
			}
		}
		var fe *gmem.FaultError
		if !errors.As(fault, &fe) || fe.Region == nil || fe.Region.Guest != base {
			t.Fatalf("round %d: %v", i, fault)
		}
		b, _ := m2.Slice(base, 1)
		if err := gmem.Guard(x.g.Space, func(b []byte) { b[0]++ }, b); err != nil {
			t.Error("another generation was harmed:", err)
		}
		end := time.Now().Add(tempotest.Patience)
		for sent.Load() == before && time.Now().Before(end) {
			if err := gmem.Guard(other.x.g.Space, (*vm).round, other); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Microsecond)
		}
		if sent.Load() == before {
			t.Fatal("the other guest stands still")
		}
		for victim.pin.Held() > 0 {
			victim.pin.Drop()
		}
		victim.pin.Leave()
		done := make(chan struct{})
		m2.Retire(func() { close(done) })
		<-done
	}
	stop.Store(true)
	wg.Wait()
}

// feed is the victim's driver, which may lose its memory too.
func feed(x *rig) {
	_ = gmem.Guard(x.g.Space, func(x *rig) {
		// Through the device's mapping, so that Guard knows the addresses.
		p, err := vring.UserParts(x.g.Map, x.l.Size, x.l.Desc+vringtest.UserBase, x.l.Avail+vringtest.UserBase, x.l.Used+vringtest.UserBase)
		if err != nil {
			return
		}
		a, _ := gmem.NewArea(p.Avail, 2)
		idx := a.Load16(2)
		if int(x.r.Next()-idx) == 0 && x.r.InFlight() == 0 {
			a.Put16(2, idx+8)
		}
	}, x)
}
