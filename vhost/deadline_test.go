package vhost

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/vhost/vhosttest"
)

func within(d time.Duration) func(*Config) { return func(c *Config) { c.Deadline = d } }

// held submits a READ whose data lie at a, and waits until the store holds it.
func (f *flat) held(c *vhosttest.Client, a uint64) *vhosttest.Request {
	f.h.Helper()
	q := &vhosttest.Request{LUN: vhosttest.LUN(0, 0), In: []vhosttest.Buf{{Addr: a, Len: 4096}}}
	q.SetCDB(rw(false, 0, 8)...)
	if err := c.Request(0).Submit(q); err != nil {
		f.h.Fatal(err)
	}
	c.Request(0).Kick()
	f.hold.Wait(f.h, 1)
	return q
}

// filled writes to the disk's start and gives a page of the guest's memory with other
// data.
func (f *flat) filled(c *vhosttest.Client) (a uint64, page []byte) {
	f.h.Helper()
	q := &vhosttest.Request{LUN: vhosttest.LUN(0, 0)}
	a, err := c.Mem.Alloc(4096, 4096)
	if err != nil {
		f.h.Fatal(err)
	}
	page = c.Mem.At(a, 4096)
	copy(page, bytes.Repeat([]byte{0xd1}, 4096))
	q.Out = []vhosttest.Buf{{Addr: a, Len: 4096}}
	q.SetCDB(rw(true, 0, 8)...)
	if err := c.Request(0).Submit(q); err != nil {
		f.h.Fatal(err)
	}
	c.Request(0).Kick()
	f.hold.Wait(f.h, 1)[0].Go()
	if err := c.Request(0).Await(q, 0); err != nil || q.Status != 0 {
		f.h.Fatalf("%+v, %v", q, err)
	}
	copy(page, bytes.Repeat([]byte{0x60}, 4096))
	return a, page
}

// TestStopAtDeadline has a request in the store that does not come back. The ring's stop
// is answered, with its memory cut off; nobody is served until it has come back, and
// then it lands nowhere.
func TestStopAtDeadline(t *testing.T) {
	f := newHouse(t).export("vm1", within(50*time.Millisecond))
	f.hold.SetDeaf(true)
	c := f.boot(vhosttest.Options{Queues: 1})
	a, page := f.filled(c)
	f.held(c, a)
	if _, err := c.StopRing(2); err != nil {
		t.Fatal(err)
	}
	if st := f.Status(); st.Stuck != 1 || st.Failed != nil || st.Refused != "" || st.Started != 2 {
		t.Errorf("%+v", st)
	}
	c.Disconnect()
	f.settles("the end", func(st Status) bool { return st.Connected.IsZero() && st.Queues == 0 })
	if n, err := vhosttest.Dial(f.socket, vhosttest.Options{}); err == nil {
		t.Error("served while a request of the guest before is in the store")
		n.Close()
	}
	f.settles("it is counted", func(st Status) bool { return st.Counters.Rejected == 1 && f.h.log.has("still with the store") })
	if st := f.Status(); st.Counters.Rejected != 1 || !f.h.log.has("still with the store") {
		t.Errorf("%+v", st)
	}
	f.hold.Wait(t, 1)[0].Go()
	f.settles("the request's end", func(st Status) bool { return st.Stuck == 0 })
	for _, b := range page {
		if b != 0x60 {
			t.Fatal("a request that was cut off has landed")
		}
	}
	n := f.dial(vhosttest.Options{Queues: 1})
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	f.ready(n)
}

// TestRestartAtDeadline: a ring with a request of an earlier run in the store does not
// run again, since that could land after what comes now.
func TestRestartAtDeadline(t *testing.T) {
	f := newHouse(t).export("vm1", within(50*time.Millisecond))
	f.hold.SetDeaf(true)
	c := f.boot(vhosttest.Options{Queues: 1})
	a, _ := f.filled(c)
	f.held(c, a)
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err == nil {
		t.Error("the rings have started")
	}
	f.settles("the end", func(st Status) bool { return st.Connected.IsZero() && st.Queues == 0 })
	if st := f.Status(); !strings.Contains(st.Refused, "still with the store") {
		t.Errorf("refused for %q", st.Refused)
	}
	f.hold.Wait(t, 1)[0].Go()
	f.settles("the request's end", func(st Status) bool { return st.Stuck == 0 })
}

// TestRemoveAtDeadline takes memory away that a request in the store uses: it is
// answered when that has ended, or its memory is cut off; the ring goes on.
func TestRemoveAtDeadline(t *testing.T) {
	for _, late := range []bool{false, true} {
		d := tempotest.Patience
		if late {
			d = 50 * time.Millisecond
		}
		f := newHouse(t).export("vm1", within(d))
		f.hold.SetDeaf(true)
		c := f.boot(vhosttest.Options{Queues: 1})
		r, err := c.Mem.Add(vhosttest.RegionSpec{Guest: 1 << 40, Size: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.ShareMemory(); err != nil {
			t.Fatal(err)
		}
		f.filled(c)
		q := f.held(c, r.Guest)
		gone := make(chan error, 1)
		go func() { gone <- c.RemRegion(r) }()
		if !late {
			select {
			case err := <-gone:
				t.Errorf("answered while a request uses the memory: %v", err)
			case <-time.After(20 * time.Millisecond):
			}
			f.hold.Wait(t, 1)[0].Go()
		}
		if err := <-gone; err != nil {
			t.Fatal(err)
		}
		if late {
			f.hold.Wait(t, 1)[0].Go()
		}
		if err := c.Request(0).Await(q, 0); err != nil {
			t.Fatal(err)
		}
		if good := q.Status == 0 && q.Response == 0; good == late {
			t.Errorf("late %v: %+v", late, q)
		}
		if r.Mem[0] == 0xd1 == late {
			t.Errorf("late %v: the data have landed: %v", late, r.Mem[0] == 0xd1)
		}
		f.ready(c)
		f.settles("two regions and nothing stuck", func(st Status) bool { return st.Failed == nil && st.Stuck == 0 && st.Regions == 2 })
	}
}

// TestPinned: memory that the kernel has pinned cannot be cut off. The export fails, is
// not told that the ring has stopped, and serves again when the request has ended.
func TestPinned(t *testing.T) {
	for _, what := range []string{"stop", "remove"} {
		t.Run(what, func(t *testing.T) {
			h := newHouse(t)
			h.pins = true
			f := h.export("vm1", within(50*time.Millisecond))
			f.hold.SetDeaf(true)
			c := f.boot(vhosttest.Options{Queues: 1})
			r, err := c.Mem.Add(vhosttest.RegionSpec{Guest: 1 << 40, Size: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.ShareMemory(); err != nil {
				t.Fatal(err)
			}
			f.filled(c)
			f.held(c, r.Guest)
			if what == "stop" {
				_, err = c.StopRing(2)
			} else {
				err = c.RemRegion(r)
			}
			if err == nil {
				t.Error("answered as if it had succeeded")
			}
			f.settles("the end", func(st Status) bool { return st.Connected.IsZero() && st.Queues == 0 })
			if st := f.Status(); st.Failed == nil || !strings.Contains(st.Refused, "direct I/O") || st.Stuck != 1 {
				t.Errorf("%+v", st)
			}
			if n, err := vhosttest.Dial(f.socket, vhosttest.Options{}); err == nil {
				t.Error("served while a request of the guest before is in the store")
				n.Close()
			}
			f.hold.Wait(t, 1)[0].Go()
			f.settles("the request's end", func(st Status) bool { return st.Stuck == 0 })
			n := f.dial(vhosttest.Options{Queues: 1})
			if err := n.Start(); err != nil {
				t.Fatal(err)
			}
			f.ready(n)
			if st := f.Status(); st.Failed != nil || st.Refused != "" {
				t.Errorf("%+v", st)
			}
		})
	}
}
