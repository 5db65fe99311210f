package srp_test

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/slab"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/srp"
)

// ring is a carrier that runs READs in a circle, and a Mover that copies nothing. Only
// its loop touches it.
type ring struct {
	q     *srp.Queue
	buf   [][]byte
	mover bool
	hold  bool
	held  []*srp.Request
	left  int
	node  loop.Node
	ended chan struct{}

	last   srp.Request // fields of the last response
	events []scsi.Event
	resps  chan scsi.TMResponse
	keep   []*srp.Request // responded to, not put
	keepOn bool
}

func newRing(t testing.TB, p *srp.Port, l *loop.Loop, mover bool) *ring {
	r := &ring{mover: mover, buf: [][]byte{make([]byte, 4096)}, ended: make(chan struct{}, 1), resps: make(chan scsi.TMResponse, 4)}
	r.node.Init(r)
	var m srp.Mover
	if mover {
		m = r
	}
	var err error
	if r.q, err = p.Queue(l, r, m); err != nil {
		t.Fatal(err)
	}
	return r
}

// Handle submits as many as there is credit for.
func (c *ring) Handle(*loop.Node) {
	for c.left > 0 {
		r := c.q.Get()
		if r == nil {
			break
		}
		c.left--
		c.fill(r, 0x28)
		c.q.Submit(r)
	}
	c.q.Kick()
}

func (c *ring) fill(r *srp.Request, op byte) {
	r.LUN, r.Tag, r.CDBLen = scsi.LUN{}, 1, 10
	clear(r.CDB[:])
	r.CDB[0], r.CDB[8] = op, 8
	if op == 0x2a {
		r.OutSize, r.DataOut = 4096, c.buf
	} else {
		r.InSize, r.DataIn = 4096, c.buf
	}
}

func (c *ring) Respond(r *srp.Request) {
	if r.Func != 0 {
		c.resps <- r.Response
		c.q.Put(r)
		return
	}
	c.last.Status, c.last.Aborted, c.last.InLen = r.Status, r.Aborted, r.InLen
	c.q.Credit()
	if c.keepOn {
		c.keep = append(c.keep, r)
		return
	}
	c.q.Put(r)
	if c.q.InFlight() == 0 && c.left == 0 {
		select {
		case c.ended <- struct{}{}:
		default:
		}
	}
	if c.left > 0 {
		c.q.Loop().PostOnce(&c.node)
	}
}

func (c *ring) Event(e scsi.Event) { c.events = append(c.events, e) }

func (c *ring) Fetch(r *srp.Request) { c.moved(r) }
func (c *ring) Store(r *srp.Request) { c.moved(r) }

func (c *ring) moved(r *srp.Request) {
	if c.hold {
		c.held = append(c.held, r)
		return
	}
	c.q.Moved(r, nil)
}

// run has n READs made and waits for them.
func (c *ring) run(t testing.TB, n int) {
	t.Helper()
	c.q.Loop().Do(func() { c.left = n; c.Handle(nil) })
	select {
	case <-c.ended:
	case <-time.After(tempotest.Patience):
		t.Fatal("no end")
	}
}

func (c *ring) do(f func()) { c.q.Loop().Do(f) }

type world struct {
	group  *loop.Group
	store  backing.Store
	unit   *scsi.Unit
	target *scsi.Target
	port   *srp.Port
}

func newWorld(t testing.TB, conf srp.Config) *world {
	w := &world{}
	pool := slab.New(0)
	var err error
	if w.group, err = loop.NewGroup(loop.Config{Loops: 2, Slabs: pool, Strict: true}); err != nil {
		t.Fatal(err)
	}
	if w.store, err = backing.Open("mem:", backing.Options{Size: 1 << 20, Group: w.group}); err != nil {
		t.Fatal(err)
	}
	if w.unit, err = scsi.NewUnit(scsi.UnitConfig{Name: "d1", Vendor: "vtgt", Product: "disk", Revision: "1",
		Serial: "1", NAA: 0x3000000000000001, BlockSize: 512}, w.store); err != nil {
		t.Fatal(err)
	}
	w.target = scsi.NewTarget(scsi.TargetConfig{Name: "t1"})
	if err := w.target.Map(0, w.unit, scsi.MapOptions{}); err != nil {
		t.Fatal(err)
	}
	conf.Port = w.target.NewPort(scsi.PortConfig{RelID: 1, Protocol: 4, Name: "t1", DeviceName: "t1"})
	conf.Initiator = [16]byte{0xaa, 15: 0xbb}
	if w.port, err = srp.NewPort(conf); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		done := make(chan int, 1)
		end := func(n int) { done <- n }
		w.port.Close(5*time.Second, end)
		if n := <-done; n != 0 {
			t.Errorf("%d stuck", n)
		}
		w.target.Close(5*time.Second, end)
		<-done
		w.unit.Close(5*time.Second, end)
		<-done
		w.store.Close()
		for _, l := range w.group.Loops() {
			l.Do(func() {})
		}
		if n := pool.Used(); n != 0 {
			t.Errorf("%d bytes of slabs in use", n)
		}
		w.group.Close()
	})
	return w
}

// settle lets two rounds go by: counters are published at the end of one.
func (w *world) settle() {
	for range 2 {
		for _, l := range w.group.Loops() {
			l.Do(func() {})
		}
	}
}

func TestNoAllocations(t *testing.T) {
	for _, mover := range []bool{false, true} {
		w := newWorld(t, srp.Config{Requests: 32})
		c := newRing(t, w.port, w.group.Loops()[0], mover)
		c.run(t, 2000)
		if c.run(t, 64); c.last.Status != scsi.StatusGood || c.last.InLen != 4096 {
			t.Fatalf("READ: %v, %d bytes", c.last.Status, c.last.InLen)
		}
		const n = 200000
		var a, b runtime.MemStats
		runtime.ReadMemStats(&a)
		c.run(t, n)
		runtime.ReadMemStats(&b)
		if d := b.Mallocs - a.Mallocs; d > n/1000 {
			t.Errorf("mover %v: %d allocations in %d requests", mover, d, n)
		}
	}
}

func BenchmarkRequest(b *testing.B) {
	for _, mover := range []bool{false, true} {
		name := "mapped"
		if mover {
			name = "mover"
		}
		b.Run(name, func(b *testing.B) {
			w := newWorld(b, srp.Config{Requests: 32})
			c := newRing(b, w.port, w.group.Loops()[0], mover)
			c.run(b, 100)
			b.ReportAllocs()
			b.ResetTimer()
			c.run(b, b.N)
		})
	}
}

type generation struct{ released int }

func (g *generation) Release() { g.released++ }

func TestGenerations(t *testing.T) {
	w := newWorld(t, srp.Config{})
	c := newRing(t, w.port, w.group.Loops()[0], false)
	c.do(func() {
		var a, b, d generation
		c.q.Hold(&a)
		r1, r2 := c.q.Get(), c.q.Get()
		c.q.Hold(&b)
		r3 := c.q.Get()
		if r1.Generation() != &a || r3.Generation() != &b || a.released != 0 {
			t.Error("wrong generations")
		}
		c.q.Put(r1)
		if a.released != 0 {
			t.Error("released while a request uses it")
		}
		c.q.Put(r2)
		if a.released != 1 {
			t.Errorf("released %d times", a.released)
		}
		c.q.Put(r3)
		if b.released != 0 {
			t.Error("released while the queue holds it")
		}
		c.q.Hold(&d)
		if b.released != 1 || d.released != 0 {
			t.Error("an idle generation was not released")
		}
		c.q.Hold(nil)
		if d.released != 1 || c.q.Get().Generation() != nil {
			t.Error("Hold(nil)")
		}
	})
	c.do(func() { c.q.Close(time.Millisecond, func(int) {}) }) // with one that was not put back
	tempotest.Wait(t, "one is stuck", func() bool { return w.port.Stats().Stuck == 1 })
}

func TestCreditAndMisuse(t *testing.T) {
	w := newWorld(t, srp.Config{Requests: 2, Slack: 1})
	c := newRing(t, w.port, w.group.Loops()[0], false)
	c.do(func() {
		a, b, over := c.q.Get(), c.q.Get(), c.q.Get()
		if c.q.Get() != nil {
			t.Error("credit without end")
		}
		c.fill(over, 0x28)
		c.q.Submit(over)
		if c.last.Status != scsi.StatusBusy {
			t.Errorf("beyond the limit: %v", c.last.Status)
		}
		c.q.Put(over)
		c.q.Submit(over)
		c.q.Manage(over, scsi.LUNReset)
		c.q.Moved(a, nil)
		c.keepOn = true
		c.fill(a, 0x00)
		c.q.Submit(a)
		c.q.Submit(b)
		if c.q.InFlight() != 2 || len(c.keep) != 2 {
			t.Errorf("%d in flight, %d kept", c.q.InFlight(), len(c.keep))
		}
		c.q.Stop(0, func(n int) { c.left = 100 + n })
		if c.q.Put(a); c.left != 0 || c.q.Get() != nil {
			t.Error("stopped too early, or not")
		}
		if c.q.Put(b); c.left != 100 {
			t.Error("not stopped")
		}
		c.left = 0
		c.q.Start()
		c.q.Put(c.q.Get())
	})
	w.settle()
	if s := w.port.Stats(); s.Misuse != 4 || s.Refused != 2 || s.Busy != 1 || s.InFlight != 0 {
		t.Errorf("%+v", s)
	}
}

func TestMemoryBound(t *testing.T) {
	w := newWorld(t, srp.Config{Memory: 4096})
	c := newRing(t, w.port, w.group.Loops()[0], true)
	c.run(t, 4) // takes the unit attention
	c.do(func() {
		c.hold = true
		a, b := c.q.Get(), c.q.Get()
		c.fill(a, 0x2a)
		c.q.Submit(a)
		c.fill(b, 0x2a)
		c.q.Submit(b)
		if len(c.held) != 1 || c.last.Status != scsi.StatusTaskSetFull {
			t.Errorf("%d moves, %v", len(c.held), c.last.Status)
		}
		c.q.Moved(a, errors.New("no"))
		if c.last.Status != scsi.StatusCheckCondition {
			t.Errorf("a failed fetch: %v", c.last.Status)
		}
	})
	w.settle()
	if s := w.port.Stats(); s.NoMemory != 1 || s.MoveErrors != 1 {
		t.Errorf("%+v", s)
	}
}

// TestOtherLoop aborts, from a queue on one loop, a command whose data are being
// fetched on another.
func TestOtherLoop(t *testing.T) {
	w := newWorld(t, srp.Config{Deadline: tempotest.Patience})
	a := newRing(t, w.port, w.group.Loops()[0], true)
	b := newRing(t, w.port, w.group.Loops()[1], true)
	a.run(t, 4)
	for _, f := range []scsi.TMFunc{scsi.AbortTask, scsi.LUNReset, scsi.NexusReset, scsi.QueryTask} {
		a.do(func() {
			a.hold = true
			r := a.q.Get()
			a.fill(r, 0x2a)
			r.Tag = 99
			a.q.Submit(r)
		})
		b.do(func() {
			r := b.q.Get()
			r.LUN, r.Tag, r.TaskTag = scsi.LUN{}, 5, 99
			b.q.Manage(r, f)
		})
		if f == scsi.QueryTask {
			if got := <-b.resps; got != scsi.TMSucceeded {
				t.Errorf("%v: %v", f, got)
			}
		} else {
			select {
			case <-b.resps:
				t.Fatalf("%v answered while data move", f)
			case <-time.After(30 * time.Millisecond):
			}
		}
		a.do(func() {
			a.hold, a.last.Aborted = false, false
			a.q.Moved(a.held[0], nil)
			a.held = nil
			a.q.Kick()
		})
		if f == scsi.QueryTask {
			continue
		}
		select {
		case got := <-b.resps:
			if got != scsi.TMComplete {
				t.Errorf("%v: %v", f, got)
			}
		case <-time.After(tempotest.Patience):
			t.Fatalf("%v: no answer", f)
		}
		a.do(func() {
			if !a.last.Aborted {
				t.Errorf("%v: the command was not aborted", f)
			}
		})
	}
}

func TestEvents(t *testing.T) {
	w := newWorld(t, srp.Config{})
	a := newRing(t, w.port, w.group.Loops()[0], false)
	b := newRing(t, w.port, w.group.Loops()[1], false)
	units := make([]*scsi.Unit, 71)
	for i := range units {
		st, err := backing.Open("null:", backing.Options{Size: 1 << 20, Group: w.group})
		if err != nil {
			t.Fatal(err)
		}
		units[i], err = scsi.NewUnit(scsi.UnitConfig{Name: fmt.Sprint("n", i), Vendor: "vtgt", Product: "disk", Revision: "1",
			Serial: fmt.Sprint(i), NAA: 0x3000000000000010 + uint64(i), BlockSize: 512}, st)
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		defer func() {
			done := make(chan int, 1)
			w.target.Unmap(uint16(3+i), time.Second, func(n int) { done <- n })
			<-done
			units[i].Close(time.Second, func(n int) { done <- n })
			<-done
		}()
	}
	if err := w.target.Map(3, units[0], scsi.MapOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*ring{a, b} {
		c.do(func() {
			if len(c.events) != 1 || c.events[0] != (scsi.Event{Kind: scsi.LUNAdded, LUN: 3}) {
				t.Errorf("%v", c.events)
			}
			c.events = nil
		})
	}
	// A loop that is busy, and more events than are kept.
	a.do(func() {
		for i := 1; i < 71; i++ {
			if err := w.target.Map(uint16(3+i), units[i], scsi.MapOptions{}); err != nil {
				t.Error(err)
			}
		}
	})
	a.do(func() {
		if n := len(a.events); n != 65 || a.events[64].Kind != srp.EventsMissed {
			t.Errorf("%d events: %v", n, a.events)
		}
	})
	w.settle()
	if s := w.port.Stats(); s.Missed == 0 {
		t.Errorf("%+v", s)
	}
}

func TestTransportID(t *testing.T) {
	dst := bytes.Repeat([]byte{0xff}, 260)
	id := [16]byte{0xa0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	want := append(append([]byte{4}, make([]byte, 7)...), id[:]...)
	if n := srp.TransportID(dst, id); n != 24 || !bytes.Equal(dst[:n], want) {
		t.Errorf("%x", dst[:n])
	}
	if s := srp.InitiatorID(id); s != "srp.a00102030405060708090a0b0c0d0e0f" || s.Name() == srp.InitiatorID([16]byte{1}).Name() {
		t.Error(s)
	}
}

func TestClosed(t *testing.T) {
	w := newWorld(t, srp.Config{})
	c := newRing(t, w.port, w.group.Loops()[0], false)
	done := make(chan int, 2)
	w.port.Close(time.Second, func(n int) { done <- n })
	<-done
	w.port.Close(time.Second, func(n int) { done <- n })
	<-done
	if _, err := w.port.Queue(w.group.Loops()[0], c, nil); !errors.Is(err, srp.ErrClosed) {
		t.Error(err)
	}
	reset := make(chan bool, 1)
	w.port.Reset(func(ok bool) { reset <- ok })
	<-reset
	c.do(func() {
		if c.q.Get() != nil {
			t.Error("Get on a closed queue")
		}
	})
}
