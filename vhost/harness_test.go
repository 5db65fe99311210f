package vhost

import (
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/vhost/virtioscsi"
	"github.com/vtgt/vtgt/vhost/vring"
	"github.com/vtgt/vtgt/vhost/vring/vringtest"
)

const (
	patience  = 30 * time.Second
	guestBase = 1 << 20
	guestSize = 64 << 20
	ringArea  = 1 << 20 // for each ring
	allOn     = 1<<virtioscsi.FeatureHotplug | 1<<virtioscsi.FeatureChange | 1<<virtioscsi.FeatureIndirectDesc |
		1<<virtioscsi.FeatureEventIdx | 1<<virtioscsi.FeatureVersion1
)

// guest is a virtual machine's memory as a device has it, and its driver's view.
type guest struct {
	testing.TB
	*vringtest.Guest
	d      *device
	next   uint64 // free memory
	queues []*queue
	closed bool
}

// newGuest gives d memory.
func newGuest(tb testing.TB, d *device) *guest {
	tb.Helper()
	fd, err := sys.NewMemfd("guest", guestSize)
	if err != nil {
		tb.Fatal(err)
	}
	g := &guest{TB: tb, d: d, next: guestBase, Guest: &vringtest.Guest{FD: fd, Base: guestBase, Space: d.memory()}}
	if g.Mem, err = sys.MapShared(fd, 0, guestSize); err != nil {
		tb.Fatal(err)
	}
	g.Map = g.generation()
	return g
}

// generation maps the memory anew.
func (g *guest) generation() *gmem.Map {
	g.Helper()
	m, err := g.d.memory().Map([]gmem.Region{{Guest: guestBase, Size: guestSize, User: guestBase + vringtest.UserBase, FD: g.FD}})
	if err != nil {
		g.Fatal(err)
	}
	return m
}

// alloc takes n bytes of guest memory.
func (g *guest) alloc(n int) uint64 {
	a := g.next
	g.next += uint64(n+63) &^ 63
	if g.next > guestBase+guestSize {
		g.Fatal("the guest's memory is used up")
	}
	return a
}

// close stops the rings and gives memory back.
func (g *guest) close() {
	if g.closed {
		return
	}
	g.closed = true
	for _, q := range g.queues {
		q.close()
	}
	done := make(chan struct{})
	g.Map.Retire(func() { close(done) })
	select {
	case <-done:
	case <-time.After(patience):
		g.Error("guest memory is still pinned")
		return
	}
	// A request lets go of its generation after it was answered and counted off.
	err := g.d.memory().Close()
	for end := time.Now().Add(patience); err != nil && time.Now().Before(end); err = g.d.memory().Close() {
		time.Sleep(time.Millisecond)
	}
	if err != nil {
		g.Error(err)
	}
	if err := sys.Unmap(g.Mem); err != nil {
		g.Error(err)
	}
	sys.Close(g.FD)
}

// queue is a ring of the guest, driver and device.
type queue struct {
	g          *guest
	v          *virtqueue
	l          vringtest.Layout
	eventIdx   bool
	features   uint64
	kick, call int
	ep         int
	ev         [1]sys.EpollEvent
	ts         sys.Timespec

	mu  sync.Mutex // for drv
	drv *vringtest.Driver
}

// newQueue makes virtqueue index of size entries, not started.
func (g *guest) newQueue(index, size int, features uint64) *queue {
	g.Helper()
	q := &queue{g: g, v: newVirtqueue(g.d, index), features: features, eventIdx: virtioscsi.Has(features, virtioscsi.FeatureEventIdx)}
	table := 0
	if virtioscsi.Has(features, virtioscsi.FeatureIndirectDesc) {
		table = 64
	}
	q.l = vringtest.Place(g.alloc(ringArea), size, table)
	var err error
	if q.drv, err = vringtest.NewDriver(g.Guest, q.l, q.eventIdx); err != nil {
		g.Fatal(err)
	}
	q.kick, q.call = g.eventfd(), g.eventfd()
	if q.ep, err = sys.NewEpoll(); err != nil {
		g.Fatal(err)
	}
	if e := sys.EpollCtl(q.ep, sys.EpollAdd, q.call, &sys.EpollEvent{Events: sys.EPOLLIN}); e != 0 {
		g.Fatal(e)
	}
	g.queues = append(g.queues, q)
	return q
}

func (g *guest) eventfd() int {
	fd, err := sys.NewEventfd()
	if err != nil {
		g.Fatal(err)
	}
	return fd
}

func (g *guest) dup(fd int) int {
	n, err := syscall.Dup(fd)
	if err != nil {
		g.Fatal(err)
	}
	return n
}

// config is what the ring starts with.
func (q *queue) config() ringStart {
	return ringStart{Config: vring.Config{Size: q.l.Size}, Features: q.features,
		Desc: q.l.Desc + vringtest.UserBase, Avail: q.l.Avail + vringtest.UserBase, Used: q.l.Used + vringtest.UserBase,
		Mem: q.g.Map, Kick: q.g.dup(q.kick), Call: q.g.dup(q.call), Err: -1}
}

// start starts the ring and enables it.
func (q *queue) start() *queue {
	q.g.Helper()
	if err := q.v.start(q.config()); err != nil {
		q.g.Fatal(err)
	}
	q.v.enable(true)
	return q
}

func (q *queue) close() {
	q.v.close(patience)
	sys.Close(q.kick)
	sys.Close(q.call)
	sys.Close(q.ep)
}

// add makes a chain available and kicks.
func (q *queue) add(out, in []vringtest.Buf, indirect bool) uint16 {
	q.g.Helper()
	q.mu.Lock()
	defer q.mu.Unlock()
	head, ok := q.drv.Add(out, in, indirect)
	if !ok {
		q.g.Fatal("no room in the ring")
	}
	if q.drv.Kick() {
		sys.EventfdSignal(q.kick)
	}
	return head
}

// used takes an answer, if there is one.
func (q *queue) used() (head uint16, n uint32, ok bool) {
	q.g.Helper()
	q.mu.Lock()
	defer q.mu.Unlock()
	head, n, ok, err := q.drv.Used()
	if err != nil {
		q.g.Error(err)
	}
	return head, n, ok
}

// sleep waits for a notification as a driver does, or a while.
func (q *queue) sleep() {
	q.mu.Lock()
	more := q.drv.EnableCall()
	q.mu.Unlock()
	if more {
		return
	}
	if k, _ := sys.EpollWait(q.ep, q.ev[:], int64(50*time.Millisecond), &q.ts); k > 0 {
		sys.EventfdDrain(q.call)
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	// One may come between the time-out and this look.
	if q.drv.EnableCall() {
		if k, _ := sys.EpollWait(q.ep, q.ev[:], int64(patience), &q.ts); k == 0 {
			q.g.Errorf("virtqueue %d: an answer without a notification", q.v.index)
		}
	}
}

// wait waits for an answer.
func (q *queue) wait() (head uint16, n uint32) {
	q.g.Helper()
	for end := time.Now().Add(patience); ; {
		if head, n, ok := q.used(); ok {
			return head, n
		}
		if time.Now().After(end) {
			q.g.Fatalf("virtqueue %d: no answer; %+v", q.v.index, q.v.info())
		}
		q.sleep()
	}
}

// testDevice is a device around SRP ports that somebody else made.
func testDevice(tb testing.TB, g *loop.Group, home *loop.Loop, ports ...*srp.Port) *device {
	tb.Helper()
	d := &device{conf: deviceConfig{Name: "test", Group: g, Deadline: scsi.DefaultDeadline, Log: discard()}, space: gmem.NewSpace(), home: home}
	d.events.d = d
	now := &targets{}
	for i, p := range ports {
		t := &target{d: d, id: uint8(i), port: p}
		var err error
		if t.ctl, err = p.Queue(home, t, nil); err != nil {
			tb.Fatal(err)
		}
		now.list, now.by[i] = append(now.list, t), t
	}
	d.table.Store(now)
	return d
}
