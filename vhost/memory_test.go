package vhost

import (
	"bytes"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/internal/hosttest"
	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/vhost/proto"
	"github.com/vtgt/vtgt/vhost/vhosttest"
)

const allProtocol = vhosttest.ProtocolMQ | vhosttest.ProtocolReplyAck | vhosttest.ProtocolInflight | vhosttest.ProtocolReset | vhosttest.ProtocolStatus

// under runs change again and again while a verifying load runs on c.
func (f *flat) under(c *vhosttest.Client, rounds int, change func(i int) error) {
	f.h.Helper()
	l := &vhosttest.Load{LUN: vhosttest.LUN(0, 0), Blocks: flatSize / vhosttest.LoadBytes, Depth: 8, Writes: 50, Verify: true}
	if err := l.Start(c); err != nil {
		f.h.Fatal(err)
	}
	for i := range rounds {
		before := l.Done()
		if err := change(i); err != nil {
			f.h.Errorf("change %d: %v", i, err)
			break
		}
		if !tempotest.Settles(func() bool { return l.Done() > before+20 }) {
			f.h.Errorf("after change %d the load stands still: %+v", i, f.Status())
			break
		}
	}
	l.Stop()
	if _, err := l.Wait(); err != nil {
		f.h.Error(err)
	}
	if st := f.Status(); st.Failed != nil || st.Counters.Violations != 0 {
		f.h.Errorf("%+v", st)
	}
}

// TestMemoryChanges changes the memory under load: a region comes and goes, the whole
// table comes anew, and the region with the rings goes for a moment.
func TestMemoryChanges(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 7
	}
	t.Run("slots", func(t *testing.T) {
		f := newHouse(t).export("vm1")
		c := f.boot(vhosttest.Options{Style: vhosttest.QEMU10, Queues: 2})
		var extra *vhosttest.Region
		f.under(c, rounds, func(i int) (err error) {
			if i%2 == 0 {
				extra, err = c.Mem.Add(vhosttest.RegionSpec{Guest: 1 << 40, Size: 1 << 20})
			} else {
				err = c.Mem.Remove(extra)
			}
			if err != nil {
				return err
			}
			return c.ShareMemory()
		})
	})
	t.Run("table", func(t *testing.T) {
		f := newHouse(t).export("vm1")
		c := f.boot(vhosttest.Options{Queues: 2, ProtocolFeatures: allProtocol})
		var extra *vhosttest.Region
		f.under(c, rounds, func(i int) (err error) {
			switch i % 3 {
			case 0:
				extra, err = c.Mem.Add(vhosttest.RegionSpec{Guest: 1 << 40, Size: 1 << 20, Before: 1 << 20})
			case 1:
				err = c.Mem.Remove(extra)
			}
			if err != nil {
				return err
			}
			return c.ShareMemory()
		})
	})
	t.Run("rings go and come", func(t *testing.T) {
		f := newHouse(t).export("vm1")
		// One region, so that all is in it: while it is away nothing may be taken.
		c := f.boot(vhosttest.Options{Queues: 2, Regions: []vhosttest.RegionSpec{{Size: 32 << 20}}})
		r := c.Mem.Regions()[0]
		f.under(c, rounds, func(int) error {
			if err := c.RemRegion(r); err != nil {
				return err
			}
			if st := f.Status(); st.Enabled != 0 || st.Started != 4 {
				t.Errorf("without memory: %+v", st)
			}
			return c.AddRegion(r)
		})
	})
	t.Run("rings go and stop", func(t *testing.T) {
		f := newHouse(t).export("vm1")
		c := f.boot(vhosttest.Options{Queues: 1, Regions: []vhosttest.RegionSpec{{Size: 32 << 20}}})
		r := c.Mem.Regions()[0]
		if err := c.RemRegion(r); err != nil {
			t.Fatal(err)
		}
		if err := c.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := c.AddRegion(r); err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		f.ready(c)
	})
	t.Run("table of nothing", func(t *testing.T) {
		f := newHouse(t).export("vm1")
		r := f.raw()
		r.greet()
		r.must(proto.SetMemTable, regions())
		ringUp(r)
		r.must(proto.SetMemTable, regions())
		if st := f.Status(); st.Started != 1 || st.Enabled != 0 || st.Regions != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// TestManyRegions is a guest with as much memory hot-plugged as QEMU can.
func TestManyRegions(t *testing.T) {
	hosttest.Descriptors(t, 2048)
	f := newHouse(t).export("vm1")
	c := f.boot(vhosttest.Options{Queues: 1})
	const n = 507 // with the two that there are 509
	for i := range n {
		if _, err := c.Mem.Add(vhosttest.RegionSpec{Guest: 1<<40 + uint64(i)<<20, Size: 4096, Before: 4096 * (i % 3)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.ShareMemory(); err != nil {
		t.Fatal(err)
	}
	if st := f.Status(); st.Regions != n+2 {
		t.Errorf("%d regions", st.Regions)
	}
	for _, i := range []int{0, 1, n / 2, n - 1} {
		r := c.Mem.Regions()[2+i]
		copy(r.Mem, strings.Repeat("x", 4096))
		q := &vhosttest.Request{LUN: vhosttest.LUN(0, 0), Out: []vhosttest.Buf{{Addr: r.Guest, Len: 4096}}}
		q.SetCDB(rw(true, uint32(8*i), 8)...)
		if err := c.Request(0).Do(q); err != nil || q.Response != 0 || q.Status != 0 {
			t.Fatalf("region %d: %+v, %v", i, q, err)
		}
		got := make([]byte, 4096)
		if _, err := c.Request(0).Exec(vhosttest.LUN(0, 0), rw(false, uint32(8*i), 8), nil, got); err != nil || !bytes.Equal(got, r.Mem) {
			t.Fatalf("region %d: other data; %v", i, err)
		}
	}
}

// TestHugePages has guest memory on hugetlbfs, with regions that are no multiples of
// its pages.
func TestHugePages(t *testing.T) {
	const huge = 2 << 20
	f := newHouse(t).export("vm1")
	r := f.raw()
	fd, err := sys.NewHugeMemfd("huge", 2*huge)
	if err != nil {
		t.Skipf("no huge pages: %v", err)
	}
	r.fds = append(r.fds, fd)
	if b, err := sys.MapShared(fd, 0, 2*huge); err != nil {
		t.Skipf("this machine has no huge pages reserved (vm.nr_hugepages): %v", err)
	} else {
		_ = sys.Unmap(b)
	}
	r.greet()
	r.must(proto.AddMemReg, proto.AppendMemReg(nil, proto.MemRegion{Size: 0xa0000, User: rawUser}), fd)
	r.must(proto.AddMemReg, proto.AppendMemReg(nil, proto.MemRegion{Guest: 0xc0000, Size: 2*huge - 0xc0000, User: rawUser + 0xc0000, Off: 0xc0000}), fd)
	r.ring(2)
	if st := f.Status(); st.Started != 1 || st.MemoryBytes != 2*huge-0x20000 {
		t.Errorf("%+v", st)
	}
}

// TestMemoryTaken has one guest take its memory away while requests are in the store, and
// another one that must not notice.
func TestMemoryTaken(t *testing.T) {
	for _, what := range []string{"memory", "inflight"} {
		t.Run(what, func(t *testing.T) {
			h := newHouse(t)
			good := h.export("good")
			bad := h.export("bad", func(c *Config) { c.Deadline = tempotest.Patience })
			g := good.boot(vhosttest.Options{Queues: 2})
			load := &vhosttest.Load{LUN: vhosttest.LUN(0, 0), Blocks: flatSize / vhosttest.LoadBytes, Depth: 8, Writes: 50, Verify: true}
			if err := load.Start(g); err != nil {
				t.Fatal(err)
			}
			c := bad.boot(vhosttest.Options{Style: vhosttest.QEMU10, Queues: 1, ProtocolFeatures: allProtocol &^ vhosttest.ProtocolInflight})
			fd := c.Mem.Regions()[0].FD
			if what == "inflight" {
				if err := c.Stop(); err != nil {
					t.Fatal(err)
				}
				var err error
				if fd, err = sys.NewMemfd("inflight", 1<<20); err != nil {
					t.Fatal(err)
				}
				defer sys.Close(fd)
				d := proto.Inflight{Size: 1 << 20, Queues: 3, QueueSize: 128, Pad: true}
				if err := c.Set(vhosttest.SetInflightFD, true, d.Append(nil), fd); err != nil {
					t.Fatal(err)
				}
				if err := c.Start(); err != nil {
					t.Fatal(err)
				}
			}
			a, err := c.Mem.Alloc(4096, 4096)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 8 {
				q := &vhosttest.Request{LUN: vhosttest.LUN(0, 0), Tag: uint64(i), In: []vhosttest.Buf{{Addr: a, Len: 4096}}}
				q.SetCDB(rw(false, uint32(i), 8)...)
				if err := c.Request(0).Submit(q); err != nil {
					t.Fatal(err)
				}
			}
			c.Request(0).Kick()
			held := bad.hold.Wait(t, 8)
			// From here on the guest's memory is not to be touched by this side either.
			if err := sys.Ftruncate(fd, 0); err != nil {
				t.Fatal(err)
			}
			for _, x := range held {
				x.Go()
			}
			bad.settles("the failure", func(st Status) bool { return st.Failed != nil && st.InFlight == 0 })
			if !strings.Contains(bad.Status().Failed.Error(), "is gone") {
				t.Errorf("failed of %v", bad.Status().Failed)
			}
			before := load.Done()
			if !tempotest.Settles(func() bool { return load.Done() > before+100 }) {
				t.Error("the other guest stands still")
			}
			c.Disconnect()
			bad.settles("the end", func(st Status) bool { return st.Connected.IsZero() && st.Failed == nil })

			// Its next life is served.
			n := bad.dial(vhosttest.Options{Queues: 1})
			if err := n.Start(); err != nil {
				t.Fatal(err)
			}
			bad.ready(n)
			load.Stop()
			if _, err := load.Wait(); err != nil {
				t.Error(err)
			}
			if st := good.Status(); st.Failed != nil {
				t.Errorf("%+v", st)
			}
		})
	}
}
