package vhost_test

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/backing/backingtest"
	"github.com/vtgt/vtgt/internal/leaktest"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/slab"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/scsi/scsitest"
	"github.com/vtgt/vtgt/vhost"
	"github.com/vtgt/vtgt/vhost/vhosttest"
)

// patience bounds every wait of these tests.
const patience = tempotest.Patience

// diskBytes is the size of each of a rig's disks.
const diskBytes = 16 << 20

// times is how often a test does what takes long: n, less with -short.
func times(n int) int {
	if testing.Short() {
		return (n + 2) / 3
	}
	return n
}

// mapping puts disk (by its number) at a LUN of a virtio target.
type mapping struct {
	target uint8
	lun    uint16
	disk   int
}

type rigOptions struct {
	maps     []mapping // default: disk 0 at target 0, LUN 0
	file     bool      // disks are files, else memory
	cache    backing.Cache
	plain    bool // nothing stands between unit and store
	hold     bool // disks keep READs and WRITEs until they are let go
	deadline time.Duration
	queues   int
	loops    int
	spin     time.Duration
	exports  int // 1
	recover  func(*loop.Loop, any) bool
}

// rig is disks, targets and exports with their sockets, and looks for leaks at its end.
type rig struct {
	testing.TB
	o       rigOptions
	group   *loop.Group
	slabs   *slab.Pool
	disks   map[int]*disk
	exports []*export
	loads   []*vhosttest.Load // to be stopped before memory goes
	before  leaktest.Mark
}

type disk struct {
	store backing.Store // as opened
	hold  *scsitest.HoldStore
	fault *backingtest.Fault
	unit  *scsi.Unit
}

type export struct {
	r       *rig
	e       *vhost.Export
	path    string
	l       *net.UnixListener
	served  chan error
	targets map[uint8]*scsi.Target
	clients []*vhosttest.Client
}

func newRig(tb testing.TB, o rigOptions) *rig {
	tb.Helper()
	if o.maps == nil {
		o.maps = []mapping{{0, 0, 0}}
	}
	if o.exports == 0 {
		o.exports = 1
	}
	if o.loops == 0 {
		o.loops = 2
	}
	r := &rig{TB: tb, o: o, slabs: slab.New(0), disks: map[int]*disk{}}
	r.before = leaktest.Now(tb)
	var err error
	r.group, err = loop.NewGroup(loop.Config{Loops: o.loops, Slabs: r.slabs, Strict: true, Spin: o.spin, Recover: o.recover})
	r.ok(err)
	for x := range o.exports {
		e := r.newExport(x)
		r.exports = append(r.exports, e)
	}
	tb.Cleanup(r.close)
	return r
}

// disk is disk number n, made when it is first asked for. Export x has 100*x and so on.
func (r *rig) disk(n int) *disk {
	r.Helper()
	if d := r.disks[n]; d != nil {
		return d
	}
	d := &disk{}
	var err error
	spec := "mem:"
	if r.o.file {
		spec = "file:" + filepath.Join(r.TempDir(), "disk")
	}
	d.store, err = backing.Open(spec, backing.Options{Size: diskBytes, Create: r.o.file, Cache: r.o.cache, Group: r.group})
	r.ok(err)
	d.fault = backingtest.NewFault(d.store)
	var st backing.Store = d.fault
	if r.o.plain {
		st = d.store
	}
	if r.o.hold {
		d.hold = &scsitest.HoldStore{Store: d.fault}
		st = d.hold
	}
	d.unit, err = scsi.NewUnit(scsi.UnitConfig{Name: fmt.Sprintf("disk%d", n), Vendor: "vtgt", Product: "disk", Revision: "1",
		Serial: fmt.Sprintf("serial-%d", n), NAA: 0x3000_0000_0000_0100 + uint64(n), PhysicalBlockSize: 4096, Thin: true, Shared: true}, st)
	r.ok(err)
	r.disks[n] = d
	return d
}

func (r *rig) newExport(x int) *export {
	r.Helper()
	e := &export{r: r, targets: map[uint8]*scsi.Target{}, served: make(chan error, 1), path: filepath.Join(r.TempDir(), fmt.Sprintf("x%d.sock", x))}
	var ports []vhost.TargetPort
	for _, m := range r.o.maps {
		tg := e.targets[m.target]
		if tg == nil {
			tg = scsi.NewTarget(scsi.TargetConfig{Name: fmt.Sprintf("t%d-%d", x, m.target)})
			e.targets[m.target] = tg
			ports = append(ports, vhost.TargetPort{ID: m.target, Port: tg.NewPort(scsi.PortConfig{
				RelID: uint16(x*256 + int(m.target) + 1), Protocol: 4, Name: tg.Name(), DeviceName: tg.Name()})})
		}
		// Each export has disks of its own.
		r.ok(tg.Map(m.lun, r.disk(100*x+m.disk).unit, scsi.MapOptions{}))
	}
	var err error
	e.e, err = vhost.NewExport(vhost.Config{Migratable: true, Name: fmt.Sprintf("vm%d", x), Group: r.group, Targets: ports,
		Initiator: [16]byte{1, 2, 3, 15: byte(x)}, Deadline: r.o.deadline, Queues: r.o.queues})
	r.ok(err)
	e.l, err = net.ListenUnix("unix", &net.UnixAddr{Name: e.path, Net: "unix"})
	r.ok(err)
	e.serve()
	return e
}

func (e *export) serve() {
	x, l, served := e.e, e.l, e.served
	go func() { served <- x.Serve(l) }()
}

// dial connects a machine and starts its rings; it is closed with the rig.
func (e *export) dial(o vhosttest.Options) *vhosttest.Client {
	e.r.Helper()
	c := e.connect(o)
	e.r.ok(c.Start())
	return c
}

func (e *export) connect(o vhosttest.Options) *vhosttest.Client {
	e.r.Helper()
	if o.Timeout == 0 {
		o.Timeout = patience
	}
	c, err := vhosttest.Dial(e.path, o)
	e.r.ok(err)
	e.clients = append(e.clients, c)
	return c
}

func (r *rig) dial(o vhosttest.Options) *vhosttest.Client {
	r.Helper()
	return r.exports[0].dial(o)
}

func (r *rig) ok(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (e *export) close() {
	r := e.r
	r.Helper()
	for _, c := range e.clients {
		if err := c.Close(); err != nil {
			r.Error(err)
		}
	}
	if n := e.e.Close(patience); n != 0 {
		r.Errorf("Export.Close: %d stuck", n)
	}
	e.l.Close()
	select {
	case err := <-e.served:
		if !errors.Is(err, vhost.ErrClosed) {
			r.Errorf("Serve: %v", err)
		}
	case <-time.After(patience):
		r.Error("Serve has no end")
	}
	for _, tg := range e.targets {
		r.await("Target.Close", tg.Close)
	}
}

func (r *rig) close() {
	for _, l := range r.loads {
		l.Stop()
		_, _ = l.Wait()
	}
	for _, d := range r.disks {
		if d.hold != nil {
			for _, h := range d.hold.Held() {
				h.Go()
			}
		}
		d.fault.Clear()
		d.fault.Release(-1)
	}
	for _, e := range r.exports {
		e.close()
	}
	for _, d := range r.disks {
		r.await("Unit.Close", d.unit.Close)
		if err := d.fault.Close(); err != nil {
			r.Error(err)
		}
	}
	if n := r.slabs.Used(); n != 0 {
		r.Errorf("%d bytes of slabs in use after Close", n)
	}
	if n := r.group.Misuse(); n != 0 {
		r.Errorf("%d misuses of loops", n)
	}
	r.group.Close()
	r.before.Check(r)
}

func (r *rig) await(what string, f func(time.Duration, func(int))) {
	r.Helper()
	ch := make(chan int, 1)
	f(patience, func(n int) { ch <- n })
	select {
	case n := <-ch:
		if n != 0 {
			r.Errorf("%s: %d stuck", what, n)
		}
	case <-time.After(2 * patience):
		r.Fatalf("%s has no end", what)
	}
}

// eventually waits until f is true.
func (r *rig) eventually(what string, f func() bool) {
	r.Helper()
	tempotest.Wait(r, what, f)
}
