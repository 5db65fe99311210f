package srptest

import (
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/leaktest"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/slab"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/scsi/scsitest"
	"github.com/vtgt/vtgt/srp"
)

// diskSize is the size of the suite's disk, bytes.
const diskSize = 8 << 20

// rig is a disk, a target, an SRP port and a link, and looks for leaks at its end.
type rig struct {
	testing.TB
	c      *Config
	group  *loop.Group
	slabs  *slab.Pool
	store  backing.Store
	hold   *scsitest.HoldStore // nil unless asked for
	unit   *scsi.Unit
	target *scsi.Target
	port   *srp.Port
	link   Link
	tag    uint64

	before leaktest.Mark
}

type rigOptions struct {
	hold     bool
	deadline time.Duration
}

func newRig(tb testing.TB, c *Config, o rigOptions) *rig {
	tb.Helper()
	r := &rig{TB: tb, c: c, slabs: slab.New(0), tag: 0x100}
	r.before = leaktest.Now(tb)
	var err error
	if r.group, err = loop.NewGroup(loop.Config{Loops: 2, Slabs: r.slabs, Strict: true}); err != nil {
		tb.Fatal(err)
	}
	if o.hold {
		// Whose operations are let go on the loop has to answer inline.
		r.store, err = backing.Open("mem:", backing.Options{Size: diskSize, Group: r.group})
	} else {
		r.store, err = c.Open(tb, r.group, diskSize)
	}
	if err != nil {
		tb.Fatal(err)
	}
	if o.hold {
		r.hold = &scsitest.HoldStore{Store: r.store}
		r.store = r.hold
	}
	r.unit, err = scsi.NewUnit(scsi.UnitConfig{Name: "d1", Vendor: "vtgt", Product: "disk", Revision: "1",
		Serial: "0001", NAA: 0x3000000000000001, BlockSize: 512, Thin: true, Shared: true}, r.store)
	if err != nil {
		tb.Fatal(err)
	}
	r.target = scsi.NewTarget(scsi.TargetConfig{Name: "t1"})
	if err := r.target.Map(0, r.unit, scsi.MapOptions{}); err != nil {
		tb.Fatal(err)
	}
	sp := r.target.NewPort(scsi.PortConfig{RelID: 1, Protocol: 4, Name: "t1", DeviceName: "t1"})
	if o.deadline == 0 {
		o.deadline = Timeout / 2
	}
	r.port, err = srp.NewPort(srp.Config{Port: sp, Initiator: [16]byte{1, 2, 3, 15: 16}, Requests: 16, Slack: 16,
		Deadline: o.deadline, New: c.New})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(r.close)
	r.connect()
	return r
}

// connect makes a link and takes unit attentions.
func (r *rig) connect() {
	r.Helper()
	r.link = r.c.Carrier(r.TB, r.port, r.group.Pick())
	for range 4 {
		if res := r.do(&Command{CDB: make([]byte, 6)}); res.Status == scsi.StatusGood {
			return
		}
	}
	r.Fatal("TEST UNIT READY fails")
}

// settle lets two rounds go by: counters are published at the end of one.
func (r *rig) settle() {
	for range 2 {
		for _, l := range r.group.Loops() {
			l.Do(func() {})
		}
	}
}

func (r *rig) close() {
	r.link.Close()
	r.await("Port.Close", r.port.Close)
	r.settle()
	if s := r.port.Stats(); s.InFlight != 0 || s.Stuck != 0 || s.Misuse != 0 {
		r.Errorf("after Close: %+v", s)
	}
	if n := r.slabs.Used(); n != 0 {
		r.Errorf("%d bytes of slabs in use after Close", n)
	}
	r.await("Target.Close", r.target.Close)
	r.await("Unit.Close", r.unit.Close)
	if err := r.store.Close(); err != nil {
		r.Error(err)
	}
	if n := r.group.Misuse(); n != 0 {
		r.Errorf("%d misuses of loops", n)
	}
	r.group.Close()
	r.before.Check(r)
}

// await waits for the end of a closing and wants nothing stuck.
func (r *rig) await(what string, f func(time.Duration, func(int))) {
	r.Helper()
	ch := make(chan int, 1)
	f(Timeout, func(n int) { ch <- n })
	select {
	case n := <-ch:
		if n != 0 {
			r.Errorf("%s: %d stuck", what, n)
		}
	case <-time.After(2 * Timeout):
		r.Fatalf("%s has no end", what)
	}
}

func (r *rig) eventually(what string, f func() bool) {
	r.Helper()
	if !tempotest.Settles(f) {
		r.Fatalf("never: %s; %+v", what, r.port.Stats())
	}
}

// start sends c with a tag of its own unless it has one.
func (r *rig) start(c *Command) <-chan Result {
	r.Helper()
	if c.Tag == 0 {
		r.tag++
		c.Tag = r.tag
	}
	ch, err := r.link.Start(c)
	if err != nil {
		r.Fatal(err)
	}
	return ch
}

func (r *rig) result(ch <-chan Result) Result {
	r.Helper()
	select {
	case res := <-ch:
		return res
	case <-after():
		r.Fatalf("no result; %+v", r.port.Stats())
		return Result{}
	}
}

func (r *rig) do(c *Command) Result {
	r.Helper()
	return r.result(r.start(c))
}

// good wants GOOD.
func (r *rig) good(c *Command) Result {
	r.Helper()
	res := r.do(c)
	if res.Status != scsi.StatusGood || res.Down {
		r.Fatalf("CDB %x: %+v", c.CDB, res)
	}
	return res
}

// quiet wants no result of ch for a while.
func (r *rig) quiet(what string, ch <-chan Result) {
	r.Helper()
	select {
	case res := <-ch:
		r.Fatalf("%s: %+v", what, res)
	case <-time.After(30 * time.Millisecond):
	}
}

func read(lba uint32, p []byte) *Command {
	return &Command{CDB: scsitest.CDB10(0x28, lba, uint16(len(p)/512)), In: p}
}

func write(lba uint32, p []byte) *Command {
	return &Command{CDB: scsitest.CDB10(0x2a, lba, uint16(len(p)/512)), Out: p}
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7+i>>8) ^ seed
	}
	return b
}

// sense decodes fixed or descriptor format sense data.
func sense(b []byte) (scsi.SenseKey, scsi.ASC) {
	var t scsi.Task
	t.SenseLen = uint8(copy(t.Sense[:], b))
	return scsitest.SenseOf(&t)
}
