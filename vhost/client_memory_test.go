package vhost_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/vhost/vhosttest"
)

// load is a verifying load over the whole disk.
func load(lun [8]byte) *vhosttest.Load {
	return &vhosttest.Load{LUN: lun, Blocks: diskBytes / 4096, Depth: 16, Writes: 40, Verify: true, Indirect: true, Seed: 11}
}

// under runs f while a verifying load runs on c, and waits for progress between its
// steps.
func (r *rig) under(c *vhosttest.Client, l *vhosttest.Load, f func(progress func())) {
	r.Helper()
	r.ok(l.Start(c))
	r.loads = append(r.loads, l)
	progress := func() {
		r.Helper()
		n := l.Done()
		if !tempotest.Settles(func() bool { return l.Done() >= n+100 }) {
			l.Stop()
			_, err := l.Wait()
			r.Fatalf("the load stands still at %d requests: %v; %+v", n, err, r.exports[0].e.Status())
		}
	}
	progress()
	f(progress)
	l.Stop()
	res, err := l.Wait()
	if err != nil {
		r.Fatal(err)
	}
	r.Logf("%d requests, %v each, %d kicks, %d calls", res.Requests, res.PerRequest(), res.Kicks, res.Calls)
}

// TestClientStartStop: rings that stop and start under a load, which does not notice.
func TestClientStartStop(t *testing.T) {
	for _, style := range []vhosttest.Style{vhosttest.QEMU72, vhosttest.QEMU10} {
		t.Run(fmt.Sprintf("style %d", style), func(t *testing.T) {
			r := newRig(t, rigOptions{})
			c := r.dial(vhosttest.Options{Queues: 2, Style: style})
			good(t, c.Request(0), lun0, make([]byte, 6), nil, nil)
			r.under(c, load(lun0), func(progress func()) {
				for range times(20) {
					r.ok(c.Stop())
					if s := r.exports[0].e.Status(); s.InFlight != 0 || s.Started != 0 {
						t.Errorf("after the stop: %+v", s)
					}
					r.ok(c.Start())
					progress()
				}
				for i := range 2 {
					r.ok(c.Enable(2+i, false))
				}
				for i := range 2 {
					r.ok(c.Enable(2+i, true))
				}
				progress()
			})
			// SeaBIOS, then Linux: the driver resets the device and lays its rings anew.
			for range 3 {
				r.ok(c.Stop())
				r.ok(c.Reset())
				r.ok(c.Start())
				// The reset is told once.
				check(t, command(t, c.Request(1), lun0, make([]byte, 6), nil, nil), 6, 0x2907)
				good(t, c.Request(0), lun0, make([]byte, 6), nil, nil)
			}
		})
	}
}

// TestClientMemoryChanges: regions come and go under a load, by SET_MEM_TABLE and by
// ADD_MEM_REG and REM_MEM_REG.
func TestClientMemoryChanges(t *testing.T) {
	for _, slots := range []bool{false, true} {
		t.Run(fmt.Sprintf("slots %v", slots), func(t *testing.T) {
			r := newRig(t, rigOptions{})
			o := vhosttest.Options{Queues: 2, Style: vhosttest.QEMU10}
			o.ProtocolFeatures = vhosttest.ProtocolMQ | vhosttest.ProtocolReplyAck | vhosttest.ProtocolInflight
			if slots {
				o.ProtocolFeatures |= vhosttest.ProtocolMemSlots
			}
			c := r.dial(o)
			good(t, c.Request(0), lun0, make([]byte, 6), nil, nil)
			r.under(c, load(lun0), func(progress func()) {
				for i := range times(20) {
					m, err := c.Mem.Add(vhosttest.RegionSpec{Guest: uint64(8+i%2) << 30, Size: 4 << 20})
					r.ok(err)
					r.ok(c.ShareMemory())
					r.eventually("three regions are shown", func() bool { return r.exports[0].e.Status().Regions == 3 })
					progress()
					r.ok(c.Mem.Remove(m))
					r.ok(c.ShareMemory())
					progress()
				}
			})
			// A load in memory that was plugged.
			m, err := c.Mem.Add(vhosttest.RegionSpec{Guest: 16 << 30, Size: 8 << 20, Before: 4096})
			r.ok(err)
			r.ok(c.ShareMemory())
			l := load(lun0)
			l.Region, l.Seed = m, 12
			r.under(c, l, func(progress func()) { progress() })
			if n := r.exports[0].e.Status().Counters.MemoryChanges; n < uint64(2*times(20)) {
				t.Errorf("%d changes of memory were counted", n)
			}
		})
	}
}

// TestClientManyRegions: more than one table holds.
func TestClientManyRegions(t *testing.T) {
	r := newRig(t, rigOptions{})
	c := r.dial(vhosttest.Options{})
	q := c.Request(0)
	good(t, q, lun0, make([]byte, 6), nil, nil)
	if c.MemSlots < 32 {
		t.Fatalf("%d slots", c.MemSlots)
	}
	// A buffer over regions that lie side by side in the guest.
	x := &vhosttest.Request{LUN: lun0, Indirect: true}
	x.SetCDB(read10(0, 30*8)...)
	for i := range 30 {
		_, err := c.Mem.Add(vhosttest.RegionSpec{Guest: 8<<30 + uint64(i)*4096, Size: 4096})
		r.ok(err)
	}
	r.ok(c.ShareMemory())
	x.In = []vhosttest.Buf{{Addr: 8 << 30, Len: 30 * 4096}}
	want := pattern(30*4096, 5)
	good(t, q, lun0, write10(0, 30*8), want, nil)
	r.ok(q.Do(x))
	if x.Response != 0 || x.Status != 0 {
		t.Fatal(outcome(x))
	}
	for i := range 30 {
		if got := c.Mem.At(8<<30+uint64(i)*4096, 4096); string(got) != string(want[i*4096:][:4096]) {
			t.Fatalf("page %d is not what was written", i)
		}
	}
}

// TestClientStopWaits: GET_VRING_BASE is answered when the store has let go, with what
// was in flight answered.
func TestClientStopWaits(t *testing.T) {
	r := newRig(t, rigOptions{hold: true})
	c := r.dial(vhosttest.Options{Queues: 2})
	h := hold(r, c, lun0, r.disk(0), 4)
	stopped := make(chan error, 1)
	go func() { stopped <- c.Stop() }()
	select {
	case err := <-stopped:
		t.Fatalf("the rings stopped with commands in the store: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	for _, op := range r.disk(0).hold.Held() {
		op.Go()
	}
	select {
	case err := <-stopped:
		r.ok(err)
	case <-time.After(patience):
		t.Fatal("the rings do not stop")
	}
	for i := range h.reqs {
		h.back(i, 0)
	}
	// 2 and 2 of the READs, one TEST UNIT READY or more before.
	for i := range 2 {
		if q := c.Request(i); q.Base() != q.Ring().Base() || q.Ring().UsedIndex() != q.Ring().Index() {
			t.Errorf("queue %d stopped at %#x, the driver is at %#x: %d are used, %d available", i, q.Base(), q.Ring().Base(), q.Ring().UsedIndex(), q.Ring().Index())
		}
	}
	r.ok(c.Start())
	good(t, c.Request(0), lun0, make([]byte, 6), nil, nil)
}

// TestClientStopDeadline: a store that does not let go does not freeze the machine, and
// does not write into its memory any more.
func TestClientStopDeadline(t *testing.T) {
	r := newRig(t, rigOptions{hold: true, deadline: 200 * time.Millisecond})
	c := r.dial(vhosttest.Options{})
	good(t, c.Request(0), lun0, make([]byte, 6), nil, nil)
	h := hold(r, c, lun0, r.disk(0), 1)
	r.disk(0).hold.SetDeaf(true)
	mem := c.Mem.At(h.reqs[0].In[0].Addr, 512)
	copy(mem, pattern(512, 1))
	err := c.Stop()
	t.Log("stop:", err)
	for _, op := range r.disk(0).hold.Held() {
		op.Go()
	}
	r.eventually("the command has left the store", func() bool { return r.disk(0).unit.Stats().InFlight == 0 })
	if string(mem) != string(pattern(512, 1)) {
		t.Error("a late READ has landed in the guest's memory")
	}
	// A machine that is reset finds a device, once that has heard of the command's end.
	c.Disconnect()
	r.eventually("nothing is stuck", func() bool { return r.exports[0].e.Status().Stuck == 0 })
	c2 := r.dial(vhosttest.Options{})
	good(t, c2.Request(0), lun0, make([]byte, 6), nil, nil)
}

// TestClientReconnect: the connection ends under a load and comes again; memory, rings
// and inflight region are the same. Style 10 only: 7.2 cannot.
func TestClientReconnect(t *testing.T) {
	r := newRig(t, rigOptions{})
	c := r.dial(vhosttest.Options{Queues: 2, Style: vhosttest.QEMU10})
	good(t, c.Request(0), lun0, make([]byte, 6), nil, nil)
	r.under(c, load(lun0), func(progress func()) {
		for range 10 {
			r.ok(c.Reconnect())
			progress()
		}
	})
	if n := r.exports[0].e.Status().Counters.Connections; n != 11 {
		t.Errorf("%d connections", n)
	}
}

// TestClientMemoryFailedRing: a ring that has failed keeps nobody from taking memory
// away, whether its own areas are in it or not.
func TestClientMemoryFailedRing(t *testing.T) {
	for _, own := range []bool{false, true} {
		t.Run(fmt.Sprintf("its own %v", own), func(t *testing.T) {
			// Who waited until the deadline would wait longer than patience.
			r := newRig(t, rigOptions{deadline: 10 * patience})
			c := r.dial(vhosttest.Options{Queues: 2})
			good(t, c.Request(0), lun0, make([]byte, 6), nil, nil)
			w := raw{c.Request(0), c}
			w.stray()
			if !w.q.Failed(patience) {
				t.Fatal("the ring did not fail")
			}
			i := 1
			if own {
				i = 0
			}
			r.ok(c.RemRegion(c.Mem.Regions()[i]))
			r.ok(c.AddRegion(c.Mem.Regions()[i]))
			good(t, c.Request(1), lun0, make([]byte, 6), nil, nil)
		})
	}
}
