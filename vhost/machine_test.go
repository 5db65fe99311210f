package vhost

import (
	"runtime"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/slab"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/scsi/scsitest"
	"github.com/vtgt/vtgt/vhost/virtioscsi"
	"github.com/vtgt/vtgt/vhost/vring"
	"github.com/vtgt/vtgt/vhost/vring/vringtest"
)

const diskSize = 8 << 20

// machine is a device on a disk, and a guest.
type machine struct {
	*guest
	group  *loop.Group
	rig    *scsitest.Rig
	hold   *scsitest.HoldStore // nil unless asked for
	target *scsi.Target
	port   *scsi.Port
	inits  byte
	failed chan error
}

type machineOptions struct {
	spec     string // of the store, "mem:"
	size     int64  // of the disk, diskSize
	hold     bool
	wrap     func(backing.Store) backing.Store
	deadline time.Duration
	loops    int
}

// newMachine makes one and closes it when the test ends.
func newMachine(tb testing.TB, o machineOptions) *machine {
	tb.Helper()
	if o.spec == "" {
		o.spec = "mem:"
	}
	if o.loops == 0 {
		o.loops = 2
	}
	if o.size == 0 {
		o.size = diskSize
	}
	group, err := loop.NewGroup(loop.Config{Loops: o.loops, Slabs: slab.New(0), Strict: true})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(group.Close)
	st, err := backing.Open(o.spec, backing.Options{Size: o.size, Group: group})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := st.Close(); err != nil {
			tb.Error(err)
		}
	})
	m := &machine{group: group, failed: make(chan error, 1)}
	used := st
	if o.hold {
		m.hold = &scsitest.HoldStore{Store: st}
		used = m.hold
	}
	if o.wrap != nil {
		used = o.wrap(used)
	}
	m.rig = scsitest.NewRig(tb, group, used, scsi.UnitConfig{BlockSize: 512, Thin: true})
	m.target, m.port = m.rig.Target("t1", 0)
	tb.Cleanup(m.rig.Close)
	m.guest = newGuest(tb, m.device(tb, o))
	tb.Cleanup(func() {
		m.guest.close()
		if n := m.d.close(patience); n != 0 {
			tb.Errorf("%d requests are stuck", n)
		}
		if n := group.Misuse(); n != 0 {
			tb.Errorf("%d misuses of loops", n)
		}
	})
	return m
}

// device makes another device on the disk, of another initiator.
func (m *machine) device(tb testing.TB, o machineOptions) *device {
	tb.Helper()
	m.inits++
	d, err := newDevice(deviceConfig{Name: "vm", Group: m.group, Targets: []TargetPort{{0, m.port}}, Initiator: [16]byte{m.inits},
		Deadline: o.deadline, Failed: func(err error) { m.failed <- err }})
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// command is one for a request queue, with room of its own in guest memory.
type command struct {
	q         *queue
	out, resp uint64
	nout, nin int
	head      uint16
}

// command makes room for out bytes and in bytes of data.
func (q *queue) command(out, in int) *command {
	return &command{q: q, nout: out, nin: in, out: q.g.alloc(virtioscsi.ReqLen + out), resp: q.g.alloc(virtioscsi.RespLen + in)}
}

// fill writes the header.
func (c *command) fill(lun virtioscsi.LUN, tag uint64, cdb []byte) *command {
	var h virtioscsi.Req
	h.Set(lun, tag, scsi.Simple, cdb)
	copy(c.q.g.At(c.out, len(h)), h[:])
	b := c.q.g.At(c.resp, virtioscsi.RespLen)
	for i := range b {
		b[i] = 0xee
	}
	return c
}

// data are the bytes behind the header that goes out, and room the ones that come in.
func (c *command) data() []byte { return c.q.g.At(c.out+virtioscsi.ReqLen, c.nout) }
func (c *command) room() []byte { return c.q.g.At(c.resp+virtioscsi.RespLen, c.nin) }

func (c *command) bufs() (out, in []vringtest.Buf) {
	out = append(split(c.out, virtioscsi.ReqLen, 1), split(c.out+virtioscsi.ReqLen, c.nout, 1)...)
	return out, append(split(c.resp, virtioscsi.RespLen, 1), split(c.resp+virtioscsi.RespLen, c.nin, 1)...)
}

// start makes it available.
func (c *command) start() *command {
	c.q.g.Helper()
	out, in := c.bufs()
	c.head = c.q.add(out, in, false)
	return c
}

// answer is the response.
func (c *command) answer() *virtioscsi.Resp {
	return (*virtioscsi.Resp)(c.q.g.At(c.resp, virtioscsi.RespLen))
}

// end waits for it, the only one that is out.
func (c *command) end() *virtioscsi.Resp {
	c.q.g.Helper()
	if head, _ := c.q.wait(); head != c.head {
		c.q.g.Fatalf("answer for head %d, want %d", head, c.head)
	}
	return c.answer()
}

// good runs it and wants GOOD, a unit attention before it forgiven.
func (c *command) good() {
	c.q.g.Helper()
	for range 3 {
		r := c.start().end()
		if r.Response() == virtioscsi.OK && r.Status() == scsi.StatusGood {
			return
		}
		if len(r.Sense()) < 3 || r.Sense()[2]&15 != byte(scsi.UnitAttention) {
			c.q.g.Fatalf("response %v, status %v, sense %x", r.Response(), r.Status(), r.Sense())
		}
	}
	c.q.g.Fatal("unit attentions without end")
}

var lun0 = virtioscsi.MakeLUN(0, 0)

// ready takes unit attentions.
func (q *queue) ready() *queue {
	q.g.Helper()
	q.command(0, 0).fill(lun0, 1, make([]byte, 6)).good()
	return q
}

func read10(lba uint32, blocks uint16) []byte  { return scsitest.CDB10(0x28, lba, blocks) }
func write10(lba uint32, blocks uint16) []byte { return scsitest.CDB10(0x2a, lba, blocks) }

// tmf sends a task management function and waits for its answer.
func (q *queue) tmf(f scsi.TMFunc, lun virtioscsi.LUN, tag uint64) virtioscsi.Response {
	q.g.Helper()
	st, ok := virtioscsi.Subtype(f)
	if !ok {
		st = uint32(f)
	}
	a, _ := q.startTMF(st, lun, tag)
	q.wait()
	return virtioscsi.Response(q.g.At(a, 1)[0])
}

// startTMF sends one; its answer comes to a.
func (q *queue) startTMF(subtype uint32, lun virtioscsi.LUN, tag uint64) (a uint64, head uint16) {
	q.g.Helper()
	var h virtioscsi.TMF
	h.Set(subtype, lun, tag)
	out, a := q.g.alloc(len(h)), q.g.alloc(1)
	copy(q.g.At(out, len(h)), h[:])
	q.g.At(a, 1)[0] = 0xee
	return a, q.add(split(out, len(h), 3), split(a, 1, 1), false)
}

// settles waits until f is true.
func (g *guest) settles(what string, f func() bool) {
	g.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b := make([]byte, 1<<20)
			g.Fatalf("never: %s\n%s", what, b[:runtime.Stack(b, true)])
		}
	}
}

// kind wants that a ring failed of a violation of that kind.
func (q *queue) kind(k vring.Kind) {
	q.g.Helper()
	q.g.settles(k.String(), func() bool { return q.v.info().Err != nil })
	if v := asViolation(q.v.info().Err); v == nil || v.Kind != k {
		q.g.Errorf("the ring failed of %v, want %v", q.v.info().Err, k)
	}
}
