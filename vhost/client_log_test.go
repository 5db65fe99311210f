package vhost_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/vhost/vhosttest"
)

// photo is guest memory at a moment.
type photo map[*vhosttest.Region][]byte

func shoot(c *vhosttest.Client) photo {
	p := photo{}
	for _, r := range c.Mem.Regions() {
		p[r] = bytes.Clone(r.Mem)
	}
	return p
}

// differs are the guest physical pages that have changed since.
func (p photo) differs(c *vhosttest.Client) (pages []uint64) {
	const page = 4096
	for _, r := range c.Mem.Regions() {
		for at := 0; at < len(r.Mem); at += page {
			if !bytes.Equal(r.Mem[at:at+page], p[r][at:at+page]) {
				pages = append(pages, (r.Guest+uint64(at))/page)
			}
		}
	}
	return pages
}

func (r *rig) newLog(size uint64) *vhosttest.Log {
	r.Helper()
	l, err := vhosttest.NewLog(size)
	r.ok(err)
	r.Cleanup(func() { l.Close() })
	return l
}

// logSize covers the memory of a client without options.
const logSize = 5 << 30

// TestClientLog: every page that changes between a kick and the rings' stop has been
// noted, and what a machine is that was not asked to note anything notes nothing.
func TestClientLog(t *testing.T) {
	r := newRig(t, rigOptions{})
	c := r.dial(vhosttest.Options{Queues: 2})
	if c.Protocol&vhosttest.ProtocolLogSHMFD == 0 || c.Offered&vhosttest.FeatureLogAll == 0 {
		t.Fatalf("features %#x, protocol %#x", c.Offered, c.Protocol)
	}
	data := make([]byte, 256<<10)
	rand.Read(data)
	good(t, c.Request(0), lun0, make([]byte, 6), nil, nil)
	good(t, c.Request(0), lun0, write10(0, len(data)/512), data, nil)
	l := r.newLog(logSize)
	requests := func() (rs []*vhosttest.Request) {
		for i, n := range []int{512, 4096, 5000, 64 << 10, 256 << 10} {
			q := &vhosttest.Request{LUN: lun0, Indirect: i%2 == 1}
			a, err := c.Mem.Alloc(n+100, 4096)
			r.ok(err)
			q.In = []vhosttest.Buf{{Addr: a + 100, Len: uint32(n)}}
			copy(q.CDB[:], read10(uint32(i), n/512))
			rs = append(rs, q)
		}
		short := &vhosttest.Request{LUN: lun0} // which fails
		copy(short.CDB[:], read10(1<<30, 8))
		return append(rs, short)
	}
	check := func(want bool) {
		t.Helper()
		for _, q := range requests() {
			clear(l.Bits)
			r.ok(c.Request(1).Submit(q))
			p := shoot(c)
			c.Request(1).Kick()
			r.ok(c.Request(1).Await(q, 0))
			r.ok(c.Stop())
			pages := p.differs(c)
			if len(pages) == 0 {
				t.Fatal("nothing has changed")
			}
			if len(q.In) > 0 && !bytes.Equal(c.Mem.At(q.In[0].Addr, 512), data[512*int(q.CDB[5]):][:512]) {
				t.Fatal("nothing was read")
			}
			for _, n := range pages {
				if l.Has(n) != want {
					t.Errorf("page %#x: noted %v, CDB % x", n, l.Has(n), q.CDB[:10])
				}
			}
			r.ok(c.Start())
		}
	}
	check(false)
	r.ok(c.StartLog(l))
	check(true)
	r.ok(c.StopLog())
	check(false)
}

// TestClientLogUsed: rings are noted where they were asked to be, all three kinds of
// them.
func TestClientLogUsed(t *testing.T) {
	r := newRig(t, rigOptions{maps: []mapping{{0, 0, 0}, {0, 1, 1}}})
	c := r.dial(vhosttest.Options{})
	good(t, c.Request(0), lun0, make([]byte, 6), nil, nil)
	r.ok(c.Events().Post(4))
	l := r.newLog(logSize)
	r.ok(c.StartLog(l))
	noted := func(what string, q *vhosttest.Queue) {
		t.Helper()
		if page := q.Ring().Layout.Used / 4096; !tempotest.Settles(func() bool { return l.Has(page) }) {
			t.Errorf("%s: page %#x is not noted", what, page)
		}
		clear(l.Bits)
	}
	clear(l.Bits)
	good(t, c.Request(0), lun0, make([]byte, 6), nil, nil)
	noted("request", c.Request(0))
	if _, err := c.TMF(vhosttest.LogicalUnitReset, lun0, 0); err != nil {
		t.Fatal(err)
	}
	noted("control", c.Control())
	r.unmap(r.exports[0].targets[0], 1)
	if _, err := c.Events().Wait(0); err != nil {
		t.Fatal(err)
	}
	noted("events", c.Events().Queue())
}

// TestClientLogUnderLoad: a migration that begins and is given up while the machine
// works.
func TestClientLogUnderLoad(t *testing.T) {
	r := newRig(t, rigOptions{})
	c := r.dial(vhosttest.Options{Queues: 2})
	good(t, c.Request(0), lun0, make([]byte, 6), nil, nil)
	a, b := r.newLog(logSize), r.newLog(logSize)
	r.under(c, load(lun0), func(progress func()) {
		for range times(20) {
			r.ok(c.StartLog(a))
			progress()
			r.ok(c.StartLog(b)) // as when memory was plugged
			progress()
			r.ok(c.StopLog())
			progress()
		}
	})
	if s := r.exports[0].e.Status(); s.Counters.Violations != 0 || s.Counters.Starts != 4 {
		t.Errorf("%+v", s)
	}
}

// TestClientLogShort: a log without room for all of memory, and one that goes away, end
// the ring: the machine would go on elsewhere with old contents.
func TestClientLogShort(t *testing.T) {
	for _, tc := range []struct {
		name string
		size uint64
		cut  bool
		why  string
	}{
		{"short", 4096 * 64, false, "no bit"},
		{"truncated", logSize, true, "truncated"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, rigOptions{exports: 2})
			c, other := r.dial(vhosttest.Options{MemoryBytes: 16 << 20}), r.exports[1].dial(vhosttest.Options{})
			good(t, c.Request(0), lun0, make([]byte, 6), nil, nil)
			l := r.newLog(tc.size)
			start := c.StartLog(l)
			if tc.cut {
				r.ok(start)
				r.ok(os.Truncate(fmt.Sprintf("/proc/self/fd/%d", l.FD), 0))
			}
			q := &vhosttest.Request{LUN: lun0}
			r.ok(c.Request(0).Submit(q))
			c.Request(0).Kick()
			if !c.Request(0).Failed(patience) {
				t.Error("the ring goes on")
			}
			s := r.exports[0].e.Status()
			if err := s.Rings[2].Failed; err == nil || !strings.Contains(err.Error(), tc.why) {
				t.Errorf("%v; %+v", err, s)
			}
			good(t, other.Request(0), lun0, make([]byte, 6), nil, nil)
		})
	}
}
