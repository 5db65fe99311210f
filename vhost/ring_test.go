package vhost

import (
	"bytes"
	"errors"
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/scsi/scsitest"
	"github.com/vtgt/vtgt/vhost/virtioscsi"
	"github.com/vtgt/vtgt/vhost/vring"
	"github.com/vtgt/vtgt/vhost/vring/vringtest"
)

func asViolation(err error) *vring.Violation {
	var v *vring.Violation
	if errors.As(err, &v) {
		return v
	}
	return nil
}

func allocs() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// TestNoAllocations: a request costs no allocation, over two queues on two loops.
func TestNoAllocations(t *testing.T) {
	rounds := 60_000 / 32
	if testing.Short() {
		rounds /= 3
	}
	for _, spec := range []string{"null:", "mem:"} {
		m := newMachine(t, machineOptions{spec: spec})
		qs := []*queue{m.newQueue(2, 128, allOn).start().ready(), m.newQueue(3, 128, allOn).start().ready()}
		if qs[0].v.r.loop == qs[1].v.r.loop {
			t.Fatal("two queues are on one loop")
		}
		type set struct {
			out, in [][]vringtest.Buf
		}
		sets := make([]set, len(qs))
		for i, q := range qs {
			for k := range 32 {
				c := q.command(0, 4096).fill(lun0, uint64(k), read10(uint32(8*k), 8))
				if k%2 == 1 {
					c = q.command(4096, 0).fill(lun0, uint64(k), write10(uint32(8*k), 8))
				}
				out, in := c.bufs()
				sets[i].out, sets[i].in = append(sets[i].out, out), append(sets[i].in, in)
			}
		}
		var used uint64
		for n := range rounds + rounds/10 {
			if n == rounds/10 {
				runtime.GC()
				used = allocs()
			}
			for i, q := range qs {
				for k := range sets[i].out {
					if _, ok := q.drv.Add(sets[i].out[k], sets[i].in[k], n%2 == 0); !ok {
						t.Fatal("no room")
					}
				}
				if q.drv.Kick() {
					sys.EventfdSignal(q.kick)
				}
			}
			for _, q := range qs {
				for range 32 {
					q.wait()
				}
			}
		}
		used = allocs() - used
		n := uint64(rounds * 64)
		t.Logf("%s %d allocations in %d requests", spec, used, n)
		if used > n/50+200 { // of the runtime, on a busy machine
			t.Errorf("%s %d allocations in %d requests", spec, used, n)
		}
		for _, q := range qs {
			i := q.v.info()
			t.Logf("queue %d: %d requests, %d rounds, %d kicks, %d calls", i.Index, i.Requests, i.Rounds, i.Kicks, i.Calls)
		}
	}
}

// TestAddresses: what does not exist is BAD_TARGET, unless its target does.
func TestAddresses(t *testing.T) {
	m := newMachine(t, machineOptions{})
	q := m.newQueue(2, 64, allOn).start().ready()
	inquiry := []byte{0x12, 0, 0, 0, 36, 0}
	for _, c := range []struct {
		lun  virtioscsi.LUN
		want virtioscsi.Response
		pq   byte
	}{
		{virtioscsi.MakeLUN(0, 0), virtioscsi.OK, 0},
		{virtioscsi.MakeLUN(0, 1), virtioscsi.OK, 0x7f},
		{virtioscsi.MakeLUN(0, 300), virtioscsi.OK, 0x7f},
		{virtioscsi.MakeLUN(1, 0), virtioscsi.BadTarget, 0},
		{virtioscsi.MakeLUN(255, 0), virtioscsi.BadTarget, 0},
		{virtioscsi.LUN{0, 0, 0, 0}, virtioscsi.BadTarget, 0},
		{virtioscsi.LUN{1, 0, 0x80, 0}, virtioscsi.BadTarget, 0},
		{virtioscsi.LUN{1, 0, 0, 0, 1}, virtioscsi.BadTarget, 0},
		{virtioscsi.LUN{1, 0, 0x40, 0}, virtioscsi.OK, 0}, // LUN 0 in flat space
	} {
		k := q.command(0, 36).fill(c.lun, 1, inquiry)
		r := k.start().end()
		if r.Response() != c.want || r.Status() != scsi.StatusGood || c.want == virtioscsi.OK && k.room()[0] != c.pq {
			t.Errorf("%x: %v %v, %#x", c.lun, r.Response(), r.Status(), k.room()[0])
		}
	}
	if n := q.v.info().BadTarget; n != 5 {
		t.Errorf("%d bad targets counted, want 5", n)
	}
	k := q.command(0, 64).fill(virtioscsi.ReportLUNs(), 1, []byte{0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0})
	if k.good(); k.room()[3] != 8 {
		t.Errorf("REPORT LUNS at its well-known LUN: %x", k.room()[:16])
	}
	k = q.command(512, 512).fill(lun0, 1, read10(0, 1))
	if r := k.start().end(); r.Response() != virtioscsi.Failure {
		t.Errorf("data both ways: %v", r.Response())
	}
	k = q.command(0, 512).fill(lun0, 1, read10(0, 2))
	if r := k.start().end(); r.Response() != virtioscsi.Overrun {
		t.Errorf("a READ of more than there is room for: %v", r.Response())
	}
	k = q.command(0, 2048).fill(lun0, 1, read10(0, 2))
	if r := k.start().end(); r.Response() != virtioscsi.OK || r.Residual() != 1024 {
		t.Errorf("a READ of less than there is room for: %v, residual %d", r.Response(), r.Residual())
	}
	k = q.command(0, 512).fill(lun0, 1, read10(1<<30, 1))
	if r := k.start().end(); r.Response() != virtioscsi.OK || r.Status() != scsi.StatusCheckCondition || r.Residual() != 512 || len(r.Sense()) < 14 {
		t.Errorf("a READ beyond the end: %v, %v, residual %d, sense %x", r.Response(), r.Status(), r.Residual(), r.Sense())
	}
}

// TestHostile: what breaks a rule fails its ring, and another one goes on.
func TestHostile(t *testing.T) {
	short := func(q *queue, out, in int) {
		a := q.g.alloc(4096)
		q.add(split(a, out, 1), split(a+2048, in, 1), false)
		q.g.settles("the ring fails", func() bool { return q.v.info().Err != nil })
		var e *shortError
		if !errors.As(q.v.info().Err, &e) {
			q.g.Errorf("the ring failed of %v", q.v.info().Err)
		}
	}
	raw := func(q *queue, head uint16, descs ...[4]uint64) {
		for i, d := range descs { // addr, len, flags, next
			b := q.g.At(q.l.Desc+uint64(16*i), 16)
			for k := range 8 {
				b[k] = byte(d[0] >> (8 * k))
			}
			for k := range 4 {
				b[8+k] = byte(d[1] >> (8 * k))
			}
			b[12], b[13], b[14], b[15] = byte(d[2]), byte(d[2]>>8), byte(d[3]), byte(d[3]>>8)
		}
		b := q.g.At(q.l.Avail, 6)
		b[4], b[5] = byte(head), byte(head>>8)
		b[2] = 1
		sys.EventfdSignal(q.kick)
	}
	for _, c := range []struct {
		name  string
		index int
		off   uint64 // features taken away
		f     func(q *queue)
	}{
		{"header", 2, 0, func(q *queue) { short(q, 50, 108) }},
		{"no header", 2, 0, func(q *queue) { short(q, 0, 108) }},
		{"room", 2, 0, func(q *queue) { short(q, 51, 107) }},
		{"no room", 2, 0, func(q *queue) { short(q, 51, 0) }},
		{"control type", 0, 0, func(q *queue) { short(q, 3, 1) }},
		{"control header", 0, 0, func(q *queue) { short(q, 23, 1) }},
		{"control room", 0, 0, func(q *queue) { short(q, 24, 0) }},
		{"outside", 2, 0, func(q *queue) {
			raw(q, 0, [4]uint64{1, 51, 1, 1}, [4]uint64{guestBase, 108, 2, 0})
			q.kind(vring.Address)
		}},
		{"wraps", 2, 0, func(q *queue) { raw(q, 0, [4]uint64{1<<64 - 8, 51, 0, 0}); q.kind(vring.Address) }},
		{"loop", 2, 0, func(q *queue) { raw(q, 0, [4]uint64{guestBase, 51, 1, 0}); q.kind(vring.Loop) }},
		{"head", 2, 0, func(q *queue) { raw(q, 64); q.kind(vring.HeadRange) }},
		{"jump", 2, 0, func(q *queue) {
			q.g.At(q.l.Avail, 4)[3] = 7
			sys.EventfdSignal(q.kick)
			q.kind(vring.AvailJump)
		}},
		{"indirect", 2, 1 << virtioscsi.FeatureIndirectDesc, func(q *queue) {
			raw(q, 0, [4]uint64{guestBase, 32, 4, 0})
			q.kind(vring.IndirectOff)
		}},
		{"order", 2, 0, func(q *queue) {
			raw(q, 0, [4]uint64{guestBase, 108, 3, 1}, [4]uint64{guestBase, 51, 0, 0})
			q.kind(vring.Order)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t, machineOptions{})
			other := m.newQueue(3, 64, allOn).start().ready()
			q := m.newQueue(c.index, 64, allOn&^c.off)
			s := q.config()
			s.Err = m.dup(m.eventfd())
			errfd := m.dup(s.Err)
			defer sys.Close(errfd)
			if err := q.v.start(s); err != nil {
				t.Fatal(err)
			}
			q.v.enable(true)
			c.f(q)
			// The signal comes behind the state that c.f has waited for.
			var signals uint64
			q.g.settles("the err eventfd is signalled", func() bool {
				n, _ := sys.EventfdDrain(errfd)
				signals += n
				return signals > 0
			})
			other.ready()
			if n, _ := sys.EventfdDrain(errfd); signals+n != 1 {
				t.Errorf("the err eventfd was signalled %d times", signals+n)
			}
			if _, stuck, err := q.v.stop(0); stuck != 0 || err != nil {
				t.Errorf("stop of a failed ring: %d stuck, %v", stuck, err)
			}
		})
	}
}

// TestOverlap: buffers of one chain that overlap are the guest's affair.
func TestOverlap(t *testing.T) {
	m := newMachine(t, machineOptions{})
	q := m.newQueue(2, 64, allOn).start().ready()
	c := q.command(0, 4096).fill(lun0, 1, read10(0, 8))
	// The data land on the response, and on the request's header.
	head := q.add(split(c.out, virtioscsi.ReqLen, 1), append(split(c.resp, virtioscsi.RespLen, 1), split(c.out, 4096, 1)...), false)
	if h, _ := q.wait(); h != head || c.answer().Response() != virtioscsi.OK {
		t.Errorf("%v", c.answer().Response())
	}
	q.ready()
}

// TestStopHeld: a stop waits for what runs, publishes it, and then nothing is taken.
func TestStopHeld(t *testing.T) {
	m := newMachine(t, machineOptions{hold: true})
	q := m.newQueue(2, 64, allOn).start().ready()
	c := q.command(0, 512).fill(lun0, 7, read10(0, 1)).start()
	h := m.hold.Wait(t, 1)
	type res struct {
		base  uint32
		stuck int
		err   error
	}
	done := make(chan res, 1)
	want := q.v.base()
	go func() {
		b, s, e := q.v.stop(0)
		done <- res{b, s, e}
	}()
	select {
	case <-done:
		t.Fatal("stopped while a command runs")
	case <-time.After(20 * time.Millisecond):
	}
	late := q.command(0, 512).fill(lun0, 8, read10(0, 1)).start()
	h[0].Go()
	r := <-done
	if r.base != want || r.stuck != 0 || r.err != nil {
		t.Errorf("stop: %+v, want base %d", r, want)
	}
	if head, _ := q.wait(); head != c.head || c.answer().Status() != scsi.StatusGood {
		t.Error("what ran was not published")
	}
	if late.answer()[0] != 0xee {
		t.Error("a command was taken after the stop")
	}
	// Again, from there.
	s := q.config()
	s.Base = r.base
	if err := q.v.start(s); err != nil {
		t.Fatal(err)
	}
	q.v.enable(true)
	for _, h := range m.hold.Wait(t, 1) {
		h.Go()
	}
	if late.end().Status() != scsi.StatusGood {
		t.Error("the late command")
	}
}

// TestStopStuck: at the deadline memory is cut off; what ends late lands nowhere.
func TestStopStuck(t *testing.T) {
	for _, pins := range []bool{false, true} {
		m := newMachine(t, machineOptions{hold: true, wrap: func(s backing.Store) backing.Store { return pinStore{s, pins} }})
		q := m.newQueue(2, 64, allOn).start().ready()
		q.command(512, 0).fill(lun0, 7, write10(0, 1)).start()
		w := m.hold.Wait(t, 1)
		c := q.command(0, 512).fill(lun0, 8, read10(0, 1)).start()
		h := m.hold.Wait(t, 2)
		_, stuck, err := q.v.stop(50 * time.Millisecond)
		if stuck != 2 || (err != nil) != pins {
			t.Fatalf("stop: %d stuck, %v", stuck, err)
		}
		m.settles("2 stuck", func() bool { return m.d.stuck() == 2 })
		if pins {
			if err := <-m.failed; !errors.Is(err, errPinned) || m.d.err() == nil {
				t.Errorf("the device failed of %v", err)
			}
			if err := q.v.start(q.config()); err == nil {
				t.Error("a ring of a failed device started")
			}
		}
		for i := range c.room() {
			c.room()[i] = 0x77
		}
		w[0].Go()
		h[1].Go()
		m.settles("none stuck", func() bool { return m.d.stuck() == 0 })
		if !bytes.Equal(c.room(), bytes.Repeat([]byte{0x77}, 512)) || c.answer()[0] != 0xee {
			t.Error("a late READ has landed")
		}
		if pins {
			continue
		}
		// The front end gives memory again and starts anew.
		old := m.Map
		m.Map = m.generation()
		old.Retire(nil)
		if q.drv, err = vringtest.NewDriver(m.Guest, q.l, true); err != nil {
			t.Fatal(err)
		}
		q.start().ready()
	}
}

// pinStore is a store that says that it does direct I/O.
type pinStore struct {
	backing.Store
	pins bool
}

func (s pinStore) Info() *backing.Info {
	i := *s.Store.Info()
	i.Pins = s.pins
	return &i
}

// TestRemap moves rings to other generations while commands run.
func TestRemap(t *testing.T) {
	m := newMachine(t, machineOptions{hold: true})
	q := m.newQueue(2, 64, allOn).start().ready()
	var cs []*command
	var gone []chan struct{}
	for i := range 5 {
		cs = append(cs, q.command(0, 512).fill(lun0, uint64(i), read10(uint32(i), 1)).start())
		m.hold.Wait(t, i+1)
		next := m.generation()
		if err := q.v.remap(next); err != nil {
			t.Fatal(err)
		}
		ch := make(chan struct{})
		m.Map.Retire(func() { close(ch) })
		gone = append(gone, ch)
		m.Map = next
	}
	for i, h := range m.hold.Wait(t, 5) {
		select {
		case <-gone[i]:
			t.Fatal("a generation ended with a request in it")
		case <-time.After(time.Millisecond):
		}
		h.Go()
		if cs[i].end().Status() != scsi.StatusGood {
			t.Error("command", i)
		}
		select {
		case <-gone[i]:
		case <-time.After(patience):
			t.Fatal("a generation has no end")
		}
	}
}

// TestTruncate takes the memory of one machine away while another works.
func TestTruncate(t *testing.T) {
	for _, spec := range []string{"mem:", "null:", "file"} {
		if spec == "file" {
			spec = "file:" + t.TempDir() + "/disk"
			sys.OpenFile(spec[5:], 0x42, 0o600)
		}
		m := newMachine(t, machineOptions{spec: "mem:"})
		other := newGuest(t, m.device(t, machineOptions{}))
		oq := other.newQueue(2, 64, allOn).start().ready()
		q := m.newQueue(2, 64, allOn).start().ready()
		// Data gone, ring and headers there.
		c := q.command(0, 512).fill(lun0, 1, read10(0, 1))
		w := q.command(512, 0).fill(lun0, 2, write10(0, 1))
		if err := sys.Ftruncate(m.FD, 8<<20); err != nil {
			t.Fatal(err)
		}
		beyond := uint64(guestBase + 16<<20)
		for _, x := range []struct {
			c       *command
			out, in []vringtest.Buf
		}{
			{c, split(c.out, virtioscsi.ReqLen, 1), append(split(c.resp, virtioscsi.RespLen, 1), split(beyond, 512, 1)...)},
			{w, append(split(w.out, virtioscsi.ReqLen, 1), split(beyond, 512, 1)...), split(w.resp, virtioscsi.RespLen, 1)},
		} {
			x.c.head = q.add(x.out, x.in, false)
			r := x.c.end()
			if r.Response() != virtioscsi.OK || r.Status() != scsi.StatusCheckCondition || r.Sense()[2]&15 != byte(scsi.AbortedCommand) || r.Sense()[12] != 0x4b {
				t.Errorf("data that are gone: %v, %v, %x", r.Response(), r.Status(), r.Sense())
			}
		}
		i := q.command(0, 0).fill(lun0, 3, []byte{0x12, 0, 0, 0, 36, 0})
		i.head = q.add(split(i.out, virtioscsi.ReqLen, 1), append(split(i.resp, virtioscsi.RespLen, 1), split(beyond, 36, 1)...), false)
		if r := i.end(); r.Status() != scsi.StatusCheckCondition || r.Sense()[12] != 0x4b {
			t.Errorf("INQUIRY to memory that is gone: %v %x", r.Status(), r.Sense())
		}
		// The response's place gone: the ring fails, and stops.
		q.add(split(i.out, virtioscsi.ReqLen, 1), split(beyond, virtioscsi.RespLen, 1), false)
		m.settles("the ring fails", func() bool { return q.v.info().Err != nil })
		oq.ready()
		if _, stuck, err := q.v.stop(0); stuck != 0 || err != nil {
			t.Errorf("%d stuck, %v", stuck, err)
		}
		other.close()
		other.d.close(0)
	}
}

// TestFence: when the answer to a task management function is there, so are the
// commands that it has ended, in the rings of other loops too.
func TestFence(t *testing.T) {
	m := newMachine(t, machineOptions{hold: true})
	ctl := m.newQueue(controlQueue, 64, allOn).start()
	qs := []*queue{m.newQueue(2, 64, allOn).start().ready(), m.newQueue(3, 64, allOn).start().ready()}
	// On the other loop much stands between the end of a command and that of the
	// round, at which it is published.
	for _, q := range qs {
		if l := q.v.r.loop; l != m.d.home {
			b := &dawdler{l: l}
			b.Init(b)
			l.Post(&b.Node)
			defer b.stop.Store(true)
		}
	}
	for round := range 20 {
		f, want := scsi.LUNReset, virtioscsi.Reset
		if round%2 == 1 {
			f, want = scsi.AbortTaskSet, virtioscsi.Aborted
		}
		var cs []*command
		for i, q := range qs {
			for k := range 3 {
				c := q.command(0, 512).fill(lun0, uint64(100*i+k), read10(0, 1))
				cs = append(cs, c)
				out, in := c.bufs()
				c.head, _ = q.drv.Add(out, in, false)
			}
			q.drv.Kick() // and no signal: the function has to look for them
		}
		if r := ctl.tmf(f, lun0, 0); r != virtioscsi.OK {
			t.Fatalf("%v: %v", f, r)
		}
		for _, q := range qs {
			for range 3 {
				if _, _, ok := q.used(); !ok {
					t.Fatalf("%v was answered before a command that it ended", f)
				}
			}
		}
		for _, c := range cs {
			if r := c.answer().Response(); r != want {
				t.Fatalf("%v: a command ended with %v, want %v", f, r, want)
			}
		}
		for _, q := range qs {
			q.ready()
		}
	}
}

// dawdler keeps each round of a loop waiting.
type dawdler struct {
	loop.Node
	l    *loop.Loop
	stop atomic.Bool
}

func (b *dawdler) Handle(*loop.Node) {
	time.Sleep(500 * time.Microsecond)
	if !b.stop.Load() {
		b.l.Post(&b.Node)
	}
}

// TestControl asks for every function, and for what does not exist.
func TestControl(t *testing.T) {
	m := newMachine(t, machineOptions{hold: true})
	ctl := m.newQueue(controlQueue, 64, allOn).start()
	q := m.newQueue(2, 64, allOn).start().ready()
	c := q.command(0, 512).fill(lun0, 77, read10(0, 1)).start()
	h := m.hold.Wait(t, 1)
	nowhere, noLUN := virtioscsi.MakeLUN(9, 0), virtioscsi.MakeLUN(0, 9)
	for _, x := range []struct {
		f    scsi.TMFunc
		lun  virtioscsi.LUN
		tag  uint64
		want virtioscsi.Response
	}{
		{scsi.QueryTask, lun0, 77, virtioscsi.FunctionSucceeded},
		{scsi.QueryTask, lun0, 78, virtioscsi.OK},
		{scsi.QueryTaskSet, lun0, 0, virtioscsi.FunctionSucceeded},
		{scsi.ClearACA, lun0, 0, virtioscsi.FunctionRejected},
		{scsi.AbortTask, lun0, 78, virtioscsi.OK},
		{scsi.AbortTask, noLUN, 77, virtioscsi.IncorrectLUN},
		{scsi.AbortTask, nowhere, 77, virtioscsi.BadTarget},
		{scsi.AbortTask, virtioscsi.LUN{1, 0, 0xc0}, 77, virtioscsi.IncorrectLUN},
		{scsi.LUNReset, noLUN, 0, virtioscsi.IncorrectLUN},
		{200, lun0, 0, virtioscsi.FunctionRejected},
	} {
		if r := ctl.tmf(x.f, x.lun, x.tag); r != x.want {
			t.Errorf("%v of %v, tag %d: %v, want %v", x.f, x.lun, x.tag, r, x.want)
		}
	}
	if c.answer()[0] != 0xee {
		t.Fatal("the command has ended")
	}
	h[0].Go()
	c.end()
	for _, x := range []struct {
		f    scsi.TMFunc
		tag  uint64
		want virtioscsi.Response
	}{{scsi.AbortTask, 77, virtioscsi.Aborted}, {scsi.AbortTaskSet, 0, virtioscsi.Aborted}, {scsi.ClearTaskSet, 0, virtioscsi.Aborted},
		{scsi.LUNReset, 0, virtioscsi.Reset}, {scsi.NexusReset, 0, virtioscsi.Reset}} {
		c.fill(lun0, 77, read10(0, 1)).start()
		m.hold.Wait(t, 1)
		if r := ctl.tmf(x.f, lun0, x.tag); r != virtioscsi.OK {
			t.Errorf("%v: %v", x.f, r)
		}
		if r := c.end(); r.Response() != x.want {
			t.Errorf("%v ended a command with %v, want %v", x.f, r.Response(), x.want)
		}
		q.ready()
	}
	// Asynchronous notifications: none.
	for _, x := range []struct {
		lun  virtioscsi.LUN
		want virtioscsi.Response
	}{{lun0, virtioscsi.OK}, {nowhere, virtioscsi.BadTarget}} {
		for _, k := range []virtioscsi.ControlType{virtioscsi.TypeANQuery, virtioscsi.TypeANSubscribe} {
			var an virtioscsi.AN
			an.Set(k, x.lun, 0xff)
			a, b := m.alloc(len(an)), m.alloc(virtioscsi.ANRespLen)
			copy(m.At(a, len(an)), an[:])
			copy(m.At(b, virtioscsi.ANRespLen), "\xff\xff\xff\xff\xff")
			ctl.add(split(a, len(an), 1), split(b, virtioscsi.ANRespLen, 2), false)
			if _, n := ctl.wait(); n != virtioscsi.ANRespLen {
				t.Errorf("%d bytes written", n)
			}
			if r := (*virtioscsi.ANResp)(m.At(b, virtioscsi.ANRespLen)); r.Response() != x.want || r.Actual() != 0 {
				t.Errorf("type %d: %v, %#x", k, r.Response(), r.Actual())
			}
		}
	}
	a := m.alloc(64)
	m.At(a, 1)[0] = 9
	ctl.add(split(a, 32, 1), split(a+32, 8, 1), false)
	if _, n := ctl.wait(); n != 0 {
		t.Errorf("%d bytes written for a type that is not known", n)
	}
}

// TestEvents: hot-plug, removal and resize reach the driver once, lost ones are told.
func TestEvents(t *testing.T) {
	m := newMachine(t, machineOptions{})
	for i := range 3 { // each request queue hears of them too, and says nothing
		m.newQueue(2+i, 64, allOn).start().ready()
	}
	ev := m.newQueue(eventQueue, 16, allOn)
	var bufs []uint64
	post := func() {
		a := m.alloc(virtioscsi.EventLen)
		bufs = append(bufs, a)
		ev.add(nil, split(a, virtioscsi.EventLen, 1), false)
	}
	want := func(k virtioscsi.EventKind, l virtioscsi.LUN, reason uint32) {
		t.Helper()
		_, n := ev.wait()
		e := (*virtioscsi.Event)(m.At(bufs[0], virtioscsi.EventLen))
		bufs = bufs[1:]
		if n != virtioscsi.EventLen || e.Kind() != k || e.LUN() != l || e.Reason() != reason {
			t.Fatalf("event %#x, %v, %#x in %d bytes; want %#x, %v, %#x", e.Kind(), e.LUN(), e.Reason(), n, k, l, reason)
		}
	}
	none := func() {
		t.Helper()
		m.group.Loops()[0].Do(func() {})
		time.Sleep(10 * time.Millisecond)
		if _, _, ok := ev.used(); ok {
			t.Fatal("an event that nobody asked for")
		}
	}
	for range 4 {
		post()
	}
	ev.start()
	l5 := virtioscsi.MakeLUN(0, 5)
	st, err := backing.Open("mem:", backing.Options{Size: diskSize, Group: m.group})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	second, err := scsi.NewUnit(scsi.UnitConfig{Name: "second", Shared: true}, st)
	if err != nil {
		t.Fatal(err)
	}
	defer m.rig.Wait("close", func(done func(int)) { second.Close(patience, done) })
	plug := func() {
		t.Helper()
		if err := m.target.Map(5, second, scsi.MapOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	unplug := func() {
		t.Helper()
		m.rig.Wait("unmap", func(done func(int)) { m.target.Unmap(5, patience, done) })
	}
	plug()
	want(virtioscsi.TransportReset, l5, virtioscsi.ReasonRescan)
	unplug()
	want(virtioscsi.TransportReset, l5, virtioscsi.ReasonRemoved)
	if err := m.rig.Unit.Resize(2*diskSize, false); err != nil {
		t.Fatal(err)
	}
	want(virtioscsi.ParamChange, lun0, 0x092a)
	post()
	none()
	// No buffers: the first events wait, later ones are lost and told of.
	plug()
	want(virtioscsi.TransportReset, l5, virtioscsi.ReasonRescan)
	unplug()
	want(virtioscsi.TransportReset, l5, virtioscsi.ReasonRemoved)
	for range maxEvents/2 + 5 {
		plug()
		unplug()
	}
	none()
	post()
	want(virtioscsi.TransportReset|virtioscsi.EventsMissed, l5, virtioscsi.ReasonRescan)
	post()
	want(virtioscsi.TransportReset, l5, virtioscsi.ReasonRemoved)
	// The ring goes away for a while: nothing is forgotten.
	base, _, _ := ev.v.stop(0)
	s := ev.config()
	s.Base = base
	if err := ev.v.start(s); err != nil {
		t.Fatal(err)
	}
	ev.v.enable(true)
	post()
	want(virtioscsi.TransportReset, l5, virtioscsi.ReasonRescan)
	// Not negotiated: not told.
	ev.v.stop(0)
	s = ev.config()
	s.Base = base + 1
	s.Features = 1<<virtioscsi.FeatureVersion1 | 1<<virtioscsi.FeatureEventIdx
	if err := ev.v.start(s); err != nil {
		t.Fatal(err)
	}
	ev.v.enable(true)
	for range 3 {
		post()
	}
	plug()
	none()
	unplug()
	// Another target.
	_, p := m.rig.Target("t2", 0)
	if err := m.d.setTargets([]TargetPort{{0, m.port}, {7, p}}); err != nil {
		t.Fatal(err)
	}
	none()
	ev.v.stop(0)
	s = ev.config()
	s.Base = base + 1
	if err := ev.v.start(s); err != nil {
		t.Fatal(err)
	}
	ev.v.enable(true)
	none() // the queue was served without the feature, so they were dropped
	if err := m.d.setTargets([]TargetPort{{0, m.port}}); err != nil {
		t.Fatal(err)
	}
	want(virtioscsi.TransportReset, virtioscsi.MakeLUN(7, 0), virtioscsi.ReasonRemoved)
	if err := m.d.setTargets([]TargetPort{{0, m.port}, {8, p}}); err != nil {
		t.Fatal(err)
	}
	want(virtioscsi.TransportReset, virtioscsi.MakeLUN(8, 0), virtioscsi.ReasonRescan)
	q := m.queues[0]
	q.command(0, 0).fill(virtioscsi.MakeLUN(8, 0), 1, make([]byte, 6)).good()
	if r := q.command(0, 0).fill(virtioscsi.MakeLUN(7, 0), 1, make([]byte, 6)).start().end(); r.Response() != virtioscsi.BadTarget {
		t.Errorf("a target that was taken away: %v", r.Response())
	}
}

// TestInflight: a process takes up what the one before it left, in order, each once.
func TestInflight(t *testing.T) {
	m := newMachine(t, machineOptions{hold: true})
	q := m.newQueue(2, 64, allOn)
	region := m.alloc(vring.InflightSize(4, 64)) // anywhere in the machine's memory does
	open := func() *vring.Inflight { return m.record(region, 2, 64) }
	s := q.config()
	s.Inflight = open()
	if err := q.v.start(s); err != nil {
		t.Fatal(err)
	}
	q.v.enable(true)
	q.ready()
	m.hold.SetDeaf(true)
	var cs []*command
	for i := range 4 {
		c := q.command(512, 0).fill(lun0, uint64(i), write10(uint32(8+i), 1))
		for k := range c.data() {
			c.data()[k] = byte(0x10 + i)
		}
		cs = append(cs, c.start())
		m.hold.Wait(t, i+1)
	}
	caw := q.command(1024, 0).fill(lun0, 9, scsitest.CompareAndWrite(0, 1)).start()
	m.hold.Wait(t, 5)
	// The process dies: what it has is lost with it. Here it goes on existing, with its
	// memory cut off and its ring abandoned.
	old := m.Map
	m.Map = m.generation()
	if _, stuck, err := q.v.stop(20 * time.Millisecond); stuck != 5 || err != nil {
		t.Fatalf("%d stuck, %v", stuck, err)
	}
	old.Retire(nil)
	for _, h := range m.hold.Wait(t, 5) {
		h.Go()
	}
	m.settles("none stuck", func() bool { return m.d.stuck() == 0 })
	m.hold.SetDeaf(false)
	q.v = newVirtqueue(m.d, 2)
	s = q.config()
	s.Inflight, s.Base = open(), q.v.base() // the base has no say
	if err := q.v.start(s); err != nil {
		t.Fatal(err)
	}
	hs := m.hold.Wait(t, 4)
	for i, h := range hs {
		if h.Op.Kind != backing.Write || h.Op.Off != int64(512*(8+i)) {
			t.Errorf("replay %d: %v at %d", i, h.Op.Kind, h.Op.Off)
		}
	}
	if head, _ := q.wait(); head != caw.head {
		t.Fatalf("the first answer is for %d, want COMPARE AND WRITE, %d", head, caw.head)
	}
	if r := caw.answer(); r.Status() != scsi.StatusCheckCondition || r.Sense()[2]&15 != byte(scsi.UnitAttention) || r.Sense()[12] != 0x29 || r.Sense()[13] != 0 {
		t.Errorf("COMPARE AND WRITE after a restart: %v %x", r.Status(), r.Sense())
	}
	q.v.enable(true)
	for i, h := range hs {
		h.Go()
		if cs[i].end().Status() != scsi.StatusGood {
			t.Error("write", i)
		}
	}
	if _, _, ok := q.used(); ok {
		t.Error("an answer too many")
	}
	c := q.command(0, 2048).fill(lun0, 1, read10(8, 4)).start()
	m.hold.Wait(t, 1)[0].Go()
	c.end()
	for i := range 4 {
		if c.room()[512*i] != byte(0x10+i) {
			t.Errorf("block %d: %#x", 8+i, c.room()[512*i])
		}
	}
}

// record is queue index's part of an inflight region at a.
func (g *guest) record(a uint64, index, size int) *vring.Inflight {
	g.Helper()
	b, err := g.Map.Slice(a, uint64(vring.InflightSize(4, size)))
	if err != nil {
		g.Fatal(err)
	}
	f, err := vring.OpenInflight(b, index, size)
	if err != nil {
		g.Fatal(err)
	}
	return f
}

// TestInflightOthers: what an earlier process had of the control and the event queue
// comes back too.
func TestInflightOthers(t *testing.T) {
	m := newMachine(t, machineOptions{})
	region := m.alloc(vring.InflightSize(4, 16))
	for index := range 2 {
		q := m.newQueue(index, 16, allOn)
		// A buffer or request that was taken and not given back.
		var a uint64
		var head uint16
		if index == controlQueue {
			a, head = q.startTMF(5, lun0, 0)
		} else {
			a = m.alloc(virtioscsi.EventLen)
			head = q.add(nil, split(a, virtioscsi.EventLen, 1), false)
		}
		rec := m.At(region+uint64(index*vring.InflightSize(1, 16)), 16+16*16)
		rec[8], rec[10] = 1, 16 // version, desc_num
		rec[16+16*int(head)] = 1
		s := q.config()
		s.Inflight = m.record(region, index, 16)
		if err := q.v.start(s); err != nil {
			t.Fatal(err)
		}
		q.v.enable(true)
		if got, _ := q.wait(); got != head {
			t.Fatalf("queue %d: answer for %d, want %d", index, got, head)
		}
		if index == controlQueue {
			if r := virtioscsi.Response(m.At(a, 1)[0]); r != virtioscsi.OK {
				t.Errorf("LOGICAL UNIT RESET: %v", r)
			}
		} else if e := (*virtioscsi.Event)(m.At(a, virtioscsi.EventLen)); e.Kind() != virtioscsi.EventsMissed {
			t.Errorf("event %#x", e.Kind())
		}
		if n := rec[16+16*int(head)]; n != 0 {
			t.Errorf("queue %d: still marked", index)
		}
	}
}
