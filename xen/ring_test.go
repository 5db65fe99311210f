package xen

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/slab"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/scsi/scsitest"
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/srp/srptest"
	"github.com/vtgt/vtgt/xen/vscsiif"
	"github.com/vtgt/vtgt/xen/xentest"
)

// rounds is how often a test that deals with chance does so.
func rounds(n int) int {
	if v, err := strconv.Atoi(os.Getenv("VTGT_XEN_ROUNDS")); err == nil {
		return v
	}
	if testing.Short() {
		return (n + 2) / 3
	}
	return n
}

// newDisk is a target with a disk at LUN 0, and a port for a bed.
func newDisk(tb testing.TB, hold bool) (*loop.Group, *scsitest.HoldStore, *scsi.Target, func() *srp.Port) {
	tb.Helper()
	g, err := loop.NewGroup(loop.Config{Loops: 2, Slabs: slab.New(0), Strict: true})
	if err != nil {
		tb.Fatal(err)
	}
	st, err := backing.Open("mem:", backing.Options{Size: 8 << 20, Group: g})
	if err != nil {
		tb.Fatal(err)
	}
	var hs *scsitest.HoldStore
	if hold {
		hs = &scsitest.HoldStore{Store: st}
		st = hs
	}
	rig := scsitest.NewRig(tb, g, st, scsi.UnitConfig{Name: "d1", Vendor: "vtgt", Product: "disk", Revision: "1", Serial: "1", NAA: 0x3000000000000001, BlockSize: 512, Shared: true})
	tg := scsi.NewTarget(scsi.TargetConfig{Name: "t1"})
	if err := tg.Map(0, rig.Unit, scsi.MapOptions{}); err != nil {
		tb.Fatal(err)
	}
	var ports []*srp.Port
	tb.Cleanup(func() {
		for _, p := range ports {
			rig.Wait("Port.Close", func(done func(int)) { p.Close(srptest.Timeout, done) })
		}
		rig.Wait("Target.Close", func(done func(int)) { tg.Close(srptest.Timeout, done) })
		rig.Close()
		_ = st.Close()
		g.Close()
	})
	return g, hs, tg, func() *srp.Port {
		sp := tg.NewPort(scsi.PortConfig{RelID: uint16(len(ports) + 1), Protocol: 4, Name: "t1", DeviceName: "t1"})
		p, err := srp.NewPort(srp.Config{Port: sp, Initiator: [16]byte{1, byte(len(ports))}, Requests: 16, Slack: 16, New: NewSlot})
		if err != nil {
			tb.Fatal(err)
		}
		ports = append(ports, p)
		return p
	}
}

func ready(t testing.TB, f *xentest.Front) {
	t.Helper()
	for range 4 {
		if f.Do(xentest.CDB(0, vscsiif.NoData, 0, 0, 0, 0, 0, 0)).Result() == 0 {
			return
		}
	}
	t.Fatal("TEST UNIT READY fails")
}

func rw(f *xentest.Front, op byte, lba uint32, n int, data []byte) *xentest.Sent {
	s := xentest.CDB(0, vscsiif.FromDevice, scsitest.CDB10(op, lba, uint16(n/512))...)
	if data != nil {
		s.Req[30] = byte(vscsiif.ToDevice)
	}
	f.Attach(s, n, 0, data, false)
	return s
}

// TestBad has a front end send what is not made as it must be: each is answered, and
// the ring goes on.
func TestBad(t *testing.T) {
	g, _, _, port := newDisk(t, false)
	b := newBed(t, port(), g.Loops()[0], 0)
	defer b.close()
	f := b.f
	ready(t, f)
	tur := []byte{0, 0, 0, 0, 0, 0}
	bad := vscsiif.Result(vscsiif.HostError, 0)
	table := func(segs int, refOff uint32, length uint16) *xentest.Sent {
		s := xentest.CDB(0, vscsiif.FromDevice, scsitest.CDB10(0x28, 0, 1)...)
		f.Attach(s, 4096*segs, 0, nil, true)
		n, _ := s.Req.Segments()
		for i := range n {
			g := s.Req.Segment(i)
			g.Ref += refOff
			if length != 0 {
				g.Len = length
			}
			g.Append(s.Req[32+8*i : 32+8*i])
		}
		return s
	}
	for _, c := range []struct {
		name string
		s    *xentest.Sent
		edit func(q *vscsiif.Request)
		want int32
	}{
		{"an unknown LUN", xentest.CDB(3, vscsiif.NoData, tur...), nil, vscsiif.Result(vscsiif.HostNoConnect, 0)},
		{"an unknown target", xentest.CDB(0, vscsiif.NoData, tur...), func(q *vscsiif.Request) { q[24] = 1 }, vscsiif.Result(vscsiif.HostNoConnect, 0)},
		{"an unknown action", xentest.CDB(0, vscsiif.NoData, tur...), func(q *vscsiif.Request) { q[2] = 4 }, bad},
		{"no action", xentest.CDB(0, vscsiif.NoData, tur...), func(q *vscsiif.Request) { q[2] = 0 }, bad},
		{"no CDB", xentest.CDB(0, vscsiif.NoData), nil, bad},
		{"a long CDB", xentest.CDB(0, vscsiif.NoData, tur...), func(q *vscsiif.Request) { q[3] = 17 }, bad},
		{"a bad direction", xentest.CDB(0, 4, tur...), nil, bad},
		{"27 segments", xentest.CDB(0, vscsiif.FromDevice, tur...), func(q *vscsiif.Request) { q[31] = 27 }, bad},
		{"127 tables", xentest.CDB(0, vscsiif.FromDevice, tur...), func(q *vscsiif.Request) { q[31] = 0xff }, bad},
		{"a segment beyond its page", rw(f, 0x28, 0, 512, nil), func(q *vscsiif.Request) { q[36] = 1; q[37] = 0xff }, bad},
		{"a segment of 64 KiB", rw(f, 0x28, 0, 512, nil), func(q *vscsiif.Request) { q[38], q[39] = 0xff, 0xff }, bad},
		{"both directions", rw(f, 0x28, 0, 512, nil), func(q *vscsiif.Request) { q[30] = 0 }, bad},
		{"a table that is not granted", table(1, 5000, 0), nil, bad},
		{"a table of half a descriptor", table(1, 0, 4), nil, bad},
		{"an empty table", table(1, 0, 0), func(q *vscsiif.Request) { q[38], q[39] = 0, 0 }, bad},
		{"too many segments", table(513, 0, 0), nil, bad},
		{"RESET of no device", xentest.CDB(3, vscsiif.NoData), func(q *vscsiif.Request) { q[2] = 3 }, vscsiif.ResetFailed},
		{"ABORT of nothing", xentest.CDB(3, vscsiif.NoData), func(q *vscsiif.Request) { q[2] = 2; q[28] = 9 }, vscsiif.ResetSuccess},
	} {
		if c.edit != nil {
			c.edit(&c.s.Req)
		}
		if got := f.Do(c.s).Result(); got != c.want {
			t.Errorf("%s: %#x, want %#x", c.name, got, c.want)
		}
	}
	// Grants that are bad themselves show when data move.
	for _, s := range []*xentest.Sent{rw(f, 0x28, 0, 512, nil), rw(f, 0x2a, 0, 512, make([]byte, 512))} {
		binary.LittleEndian.PutUint32(s.Req[32:], 0x7fffffff)
		if got := f.Do(s).Result(); got != int32(scsi.StatusCheckCondition) {
			t.Errorf("a bad grant: %#x", got)
		}
	}
	s := rw(f, 0x28, 0, 512, nil) // into a page that may only be read
	s.Refs = append(s.Refs, f.Dom.Grant(s.Pages[0], true))
	binary.LittleEndian.PutUint32(s.Req[32:], s.Refs[1])
	if got := f.Do(s).Result(); got != int32(scsi.StatusCheckCondition) {
		t.Errorf("a READ into a page to read: %#x", got)
	}
	want := bytes.Repeat([]byte{7, 9}, 65536)
	f.Do(rw(f, 0x2a, 8, len(want), want))
	got := rw(f, 0x28, 8, len(want), nil)
	if f.Do(got).Result() != 0 || !bytes.Equal(got.Data, want) {
		t.Error("the ring is not what it was")
	}
}

// TestOverflow: a front end that announces more than its ring holds is served no more,
// and what it has sent before is answered.
func TestOverflow(t *testing.T) {
	g, hs, _, port := newDisk(t, true)
	b := newBed(t, port(), g.Loops()[0], 0)
	defer b.close()
	ready(t, b.f)
	s := rw(b.f, 0x28, 0, 512, nil)
	s.Ch = make(chan struct{})
	b.f.Send(s)
	hs.Wait(t, 1)
	b.f.Mu.Lock()
	b.f.Ring.Store32(0, b.f.Prod+100)
	b.f.Mu.Unlock()
	b.f.Port.Notify()
	tempotest.Wait(t, "the failure", func() bool { return b.failed.Load() != nil })
	for _, h := range hs.Held() {
		h.Go()
	}
	tempotest.Recv(t, s.Ch, "the answer")
	b.f.Mu.Lock()
	b.f.Ring.Store32(0, b.f.Prod)
	b.f.Mu.Unlock()
}

// TestReuse: a name that is in flight is refused, and ABORT means the first.
func TestReuse(t *testing.T) {
	g, hs, _, port := newDisk(t, true)
	b := newBed(t, port(), g.Loops()[0], 0)
	ready(t, b.f)
	s := rw(b.f, 0x28, 0, 512, nil)
	id := b.f.Send(s)
	held := hs.Wait(t, 1)
	b.f.Mu.Lock()
	b.f.NoReap = true // its rules are about to be broken
	b.f.Put(&s.Req, id)
	b.f.Mu.Unlock()
	tempotest.Wait(t, "the refusal", func() bool { return b.count(cBad) == 1 })
	held[0].Go()
	tempotest.Wait(t, "the end", func() bool { return b.f.Ring.Load32(8) == b.f.Prod })
	b.f.Mu.Lock()
	for _, want := range []uint32{uint32(vscsiif.Result(vscsiif.HostError, 0)), 0} {
		o := 64 + int(b.f.Cons%16)*252
		if got := b.f.Ring.Load32(o + 100); got != want {
			t.Errorf("%#x, want %#x", got, want)
		}
		b.f.Cons++
	}
	for _, r := range s.Refs {
		b.f.Dom.End(r)
	}
	b.f.Mu.Unlock()
	b.close()
}

// TestAborts has 64 commands in a row aborted, and some reset: each is answered before
// the function, and its name is free again.
func TestAborts(t *testing.T) {
	g, hs, _, port := newDisk(t, true)
	b := newBed(t, port(), g.Loops()[0], 8192)
	defer b.close()
	ready(t, b.f)
	for i := range 64 {
		s := rw(b.f, 0x28, 0, 4096+i%2*8192, nil)
		s.Ch = make(chan struct{})
		id := b.f.Send(s)
		hs.Wait(t, 1)
		a := xentest.CDB(0, vscsiif.NoData)
		a.Req[2] = byte(vscsiif.ActAbort)
		a.Req.SetRef(id)
		if got := b.f.Do(a).Result(); got != vscsiif.ResetSuccess {
			t.Fatalf("ABORT: %#x", got)
		}
		b.f.Mu.Lock()
		n := len(b.f.Order)
		last := [2]uint16{b.f.Order[n-2], b.f.Order[n-1]}
		b.f.Mu.Unlock()
		if got := s.Rsp.Result(); last != [2]uint16{id, a.ID} || got != vscsiif.Result(vscsiif.HostAbort, 0) {
			t.Fatalf("answered in order %v (%d aborts %d), the command with %#x", last, a.ID, id, got)
		}
	}
	var l []*xentest.Sent
	for range 7 {
		s := rw(b.f, 0x2a, 0, 512, make([]byte, 512))
		b.f.Send(s)
		l = append(l, s)
	}
	hs.Wait(t, 7)
	r := xentest.CDB(0, vscsiif.NoData)
	r.Req[2] = byte(vscsiif.ActReset)
	if got := b.f.Do(r).Result(); got != vscsiif.ResetSuccess {
		t.Fatalf("RESET: %#x", got)
	}
	b.f.Mu.Lock()
	for _, s := range l {
		if got := s.Rsp.Result(); got != vscsiif.Result(vscsiif.HostReset, 0) {
			t.Errorf("after RESET: %#x", got)
		}
	}
	if b.f.Order[len(b.f.Order)-1] != r.ID || b.f.Prod != b.f.Cons {
		t.Error("RESET was not answered last")
	}
	b.f.Mu.Unlock()
}

// die ends the ring as the process's death would: nothing more is answered or noted.
func (b *bed) die() {
	b.l.Do(func() {
		b.r.stopping, b.r.done = true, func(int) {}
		b.l.Remove(&b.r.source)
		b.l.Cold(&b.r.poller)
		b.l.Stop(&b.r.retry)
		b.r.end()
	})
}

// TestDeath kills the back end, again and again, under commands of which some were
// answered out of order: every one is answered once in the end, with what it read or
// wrote, and those that may not run again with a unit attention.
func TestDeath(t *testing.T) {
	g, hs, _, port := newDisk(t, true)
	b := newBed(t, port(), g.Loops()[0], 0)
	ready(t, b.f)
	rnd := rand.New(rand.NewPCG(3, 4))
	var lost, requeued int
	for round := range rounds(60) {
		var l []*xentest.Sent
		caw, aborted := -1, -1
		for i := range 3 + rnd.IntN(12) {
			var s *xentest.Sent
			switch {
			case rnd.IntN(8) == 0 && caw < 0:
				caw = i
				s = xentest.CDB(0, vscsiif.ToDevice, scsitest.CompareAndWrite(100, 1)...)
				b.f.Attach(s, 1024, 0, make([]byte, 1024), false)
			default:
				s = rw(b.f, 0x28, uint32(i), 512, nil)
			}
			s.Ch = make(chan struct{})
			b.f.Send(s)
			l = append(l, s)
		}
		tempotest.Wait(t, "requests taken", func() bool { return b.count(cFlight) == uint64(len(l)) })
		held := hs.Wait(t, len(l))
		let := rnd.IntN(len(held)) // these end, in any order
		rnd.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
		for _, h := range held[:let] {
			h.Go()
		}
		tempotest.Wait(t, "some answers", func() bool { return b.count(cFlight) <= uint64(len(l)-let+1) }) // COMPARE AND WRITE has two operations
		if rnd.IntN(3) == 0 {
			hs.SetDeaf(true) // so that the function is under way too
			for i, s := range l {
				b.f.Mu.Lock()
				open := b.f.Shadows[s.ID] == s
				b.f.Mu.Unlock()
				if open && i != caw {
					aborted = i
					break
				}
			}
			if aborted >= 0 {
				a := xentest.CDB(0, vscsiif.NoData)
				a.Req[2] = byte(vscsiif.ActAbort)
				a.Req.SetRef(l[aborted].ID)
				a.Ch = make(chan struct{})
				b.f.Send(a)
				tempotest.Wait(t, "the ABORT taken", func() bool {
					select {
					case <-a.Ch: // what it was about has ended before
						return true
					default:
						return b.hasTMF()
					}
				})
				defer func() { tempotest.Recv(t, a.Ch, "the answer of ABORT") }()
			}
		}
		b.die()
		b.start(false)
		hs.SetDeaf(false)
		for _, h := range held[let:] { // the old process's store; nobody hears of it
			h.Go()
		}
		tempotest.Wait(t, "the end of what was", func() bool {
			for _, h := range hs.Held() {
				h.Go()
			}
			return b.p.Stats().InFlight == 0
		})
		for i, s := range l {
			tempotest.Recv(t, s.Ch, "an answer")
			switch res := s.Rsp.Result(); {
			case res == vscsiif.Result(vscsiif.HostRequeue, 0) && i != caw:
				requeued++
			case res == vscsiif.Result(vscsiif.HostAbort, 0) && i == aborted:
			case res == int32(scsi.StatusCheckCondition) && i == caw:
				lost++
			case res != 0:
				t.Fatalf("round %d, command %d: %#x", round, i, res)
			}
		}
		ready(t, b.f)
	}
	if requeued == 0 {
		t.Error("nothing was found in flight")
	}
	t.Logf("%d sent again, %d lost", requeued, lost)
	b.close()
}

func (b *bed) hasTMF() (yes bool) {
	b.l.Do(func() {
		for _, s := range b.r.open {
			yes = yes || s.act != vscsiif.ActCDB
		}
	})
	return yes
}

// TestStop leaves what is in the ring to the next process, and answers what was taken.
func TestStop(t *testing.T) {
	g, hs, _, port := newDisk(t, true)
	b := newBed(t, port(), g.Loops()[0], 4096)
	ready(t, b.f)
	s := rw(b.f, 0x28, 0, 4096, nil)
	s.Ch = make(chan struct{})
	b.f.Send(s)
	held := hs.Wait(t, 1)
	done := make(chan int, 1)
	b.l.Do(func() { b.r.stop(srptest.Timeout, func(n int) { done <- n }) })
	late := rw(b.f, 0x28, 8, 512, nil)
	late.Ch = make(chan struct{})
	b.f.Send(late)
	held[0].Go()
	if n := tempotest.Recv(t, done, "the stop"); n != 0 {
		t.Errorf("%d stuck", n)
	}
	tempotest.Recv(t, s.Ch, "the answer to what was taken")
	b.start(false)
	hs.Wait(t, 1)[0].Go()
	tempotest.Recv(t, late.Ch, "the answer to what was not")
	if got := late.Rsp.Result(); got != 0 {
		t.Errorf("%#x", got)
	}
	if n := b.count(cLost); n != 0 {
		t.Errorf("%d lost", n)
	}
	// A store that hangs: the stop ends at its deadline, and touches nothing later.
	s = rw(b.f, 0x28, 0, 512, nil)
	b.f.Send(s)
	held = hs.Wait(t, 1)
	if n := b.stop(50 * time.Millisecond); n != 1 {
		t.Errorf("%d stuck", n)
	}
	held[0].Go()
	tempotest.Wait(t, "the end", func() bool { n := 0; b.l.Do(func() { n = len(b.r.open) }); return n == 0 })
	b.start(false)
	b.close()
}

func allocated() uint64 {
	s := [1]metrics.Sample{{Name: "/gc/heap/allocs:objects"}}
	metrics.Read(s[:])
	return s[0].Value.Uint64()
}

// TestAllocs: nothing is allocated per request, copied or mapped, direct or indirect.
func TestAllocs(t *testing.T) {
	for name, mapFrom := range map[string]int64{"copy": 0, "map": 1} {
		t.Run(name, func(t *testing.T) {
			g, _, _, port := newDisk(t, false)
			b := newBed(t, port(), g.Loops()[0], mapFrom)
			ready(t, b.f)
			b.f.Mu.Lock()
			b.f.NoReap = true
			b.f.Mu.Unlock()
			var reqs [vscsiif.Entries]*xentest.Sent
			for i := range reqs {
				s := xentest.CDB(0, vscsiif.FromDevice, scsitest.CDB10(0x28, uint32(i), 24)...)
				b.f.Attach(s, 24*512, 0, nil, i%2 == 0)
				reqs[i] = s
			}
			run := func(n int) {
				b.f.Mu.Lock()
				defer b.f.Mu.Unlock()
				for range n {
					for i, s := range reqs {
						b.f.Put(&s.Req, uint16(i))
					}
					for b.f.Ring.Load32(8) != b.f.Prod {
						runtime.Gosched()
					}
				}
				b.f.Cons = b.f.Prod
			}
			run(100)
			n := rounds(1500)
			// The runtime allocates, too, on a busy machine: the best of some runs counts.
			got, most := uint64(0), uint64(n*len(reqs)/50+200)
			for range 6 {
				was := allocated()
				run(n)
				if got = allocated() - was; got <= most {
					break
				}
			}
			if got > most {
				t.Errorf("%d objects allocated in %d requests", got, n*len(reqs))
			}
			b.f.Mu.Lock()
			b.f.NoReap = false
			for _, s := range reqs {
				for _, r := range s.Refs {
					b.f.Dom.End(r)
				}
			}
			b.f.Mu.Unlock()
			b.close()
		})
	}
}

// FuzzRequest has a front end send any requests: each is answered, or the ring ends.
func FuzzRequest(f *testing.F) {
	var q vscsiif.Request
	q.Set(1, vscsiif.ActCDB, vscsiif.Address{}, scsitest.CDB10(0x28, 0, 1), vscsiif.FromDevice)
	q.SetSegments([]vscsiif.Segment{{Ref: 8, Len: 512}}, false)
	f.Add(q[:])
	q.SetSegments([]vscsiif.Segment{{Ref: 9, Len: 8}, {Ref: 9, Len: 16}}, true)
	f.Add(q[:])
	q.Set(2, vscsiif.ActAbort, vscsiif.Address{}, nil, vscsiif.NoData)
	f.Add(q[:])
	g, _, _, port := newDisk(f, false)
	b := newBed(f, port(), g.Loops()[0], 2048)
	ready(f, b.f)
	b.f.Mu.Lock()
	b.f.NoReap = true
	b.f.Mu.Unlock()
	p, mem := b.f.Dom.Alloc()
	b.f.Dom.Grant(p, false)
	b.f.Dom.Grant(p, true)
	for i := range 512 {
		vscsiif.Segment{Ref: uint32(8 + i%4), Off: uint16(i), Len: uint16(i * 3)}.Append(mem[8*i : 8*i])
	}
	var over atomic.Bool
	f.Cleanup(func() { over.Store(true) })
	f.Fuzz(func(t *testing.T, in []byte) {
		b.f.Mu.Lock()
		defer b.f.Mu.Unlock()
		for n := 0; n < vscsiif.Entries && len(in) > 0; n++ {
			var q vscsiif.Request
			k := copy(q[:], in)
			in = in[k:]
			b.f.Put(&q, binary.LittleEndian.Uint16(q[:]))
		}
		tempotest.Wait(t, "all answers", func() bool { return b.f.Ring.Load32(8) == b.f.Prod })
		b.f.Cons = b.f.Prod
	})
	b.close()
}
