package srptest

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/scsi/scsitest"
	"github.com/vtgt/vtgt/srp"
)

// Config says what is tested.
type Config struct {
	Carrier Factory
	// New is the carrier's srp.Config.New.
	New func(*srp.Request) any
	// Open makes the store.
	Open func(tb testing.TB, g *loop.Group, size int64) (backing.Store, error)
	// Keyless: memory handles mean nothing to the carrier.
	Keyless bool
}

// Run runs the suite.
func Run(t *testing.T, c Config) {
	for _, s := range []struct {
		name string
		o    rigOptions
		f    func(*rig)
	}{
		{"Data", rigOptions{}, data},
		{"Residuals", rigOptions{}, residuals},
		{"Outcomes", rigOptions{}, outcomes},
		{"Load", rigOptions{}, load},
		{"OverLimit", rigOptions{hold: true}, overLimit},
		{"Aborts", rigOptions{hold: true}, aborts},
		{"Reset", rigOptions{hold: true}, reset},
		{"DeafStore", rigOptions{hold: true, deadline: 300 * time.Millisecond}, deafStore},
		{"Drain", rigOptions{hold: true}, drain},
		{"MoveErrors", rigOptions{}, moveErrors},
		{"AbortFetch", rigOptions{}, abortFetch},
		{"AbortStore", rigOptions{}, abortStore},
		{"ResetFetch", rigOptions{}, resetFetch},
		{"DeafMover", rigOptions{deadline: 300 * time.Millisecond}, deafMover},
		{"LateStore", rigOptions{deadline: 300 * time.Millisecond}, lateStore},
		{"LinkLoss", rigOptions{}, linkLoss},
		{"Hostile", rigOptions{}, hostile},
		{"Flood", rigOptions{hold: true}, flood},
		{"TagReuse", rigOptions{}, tagReuse},
	} {
		t.Run(s.name, func(t *testing.T) { s.f(newRig(t, &c, s.o)) })
	}
}

func data(r *rig) {
	for _, f := range []Form{FormDirect, FormInline, FormTable} {
		for i, n := range []int{512, 4096, 65536 + 512, 1 << 20} {
			p := pattern(n, byte(i)+byte(f)*16)
			w := write(uint32(8*i), p)
			w.Form = f
			r.good(w)
			for _, g := range []Form{FormDirect, FormInline, FormTable} {
				got := make([]byte, n)
				c := read(uint32(8*i), got)
				c.Form = g
				r.good(c)
				if !bytes.Equal(p, got) {
					r.Fatalf("form %d to %d, %d bytes: data differ", f, g, n)
				}
			}
		}
	}
}

func residuals(r *rig) {
	big := make([]byte, 2048)
	c := read(0, make([]byte, 1024))
	c.In = big
	if res := r.good(c); res.InResidual != 1024 {
		r.Errorf("READ with too much room: %+v", res)
	}
	c = read(0, make([]byte, 1024))
	c.In = big[:512]
	if res := r.do(c); res.InResidual != -512 && res.InResidual != Overflow {
		r.Errorf("READ with too little room: %+v", res)
	}
	c = write(0, make([]byte, 512))
	c.Out = big
	if res := r.good(c); res.OutResidual != 1536 {
		r.Errorf("WRITE with too much data: %+v", res)
	}
	c = &Command{CDB: []byte{0x12, 0, 0, 0, 36, 0}, In: big[:255]}
	if res := r.good(c); res.InResidual != 255-36 {
		r.Errorf("INQUIRY: %+v", res)
	}
}

func outcomes(r *rig) {
	c := &Command{LUN: scsi.EncodeLUN(5), CDB: make([]byte, 6)}
	if k, a := sense(r.do(c).Sense); k != scsi.IllegalRequest || a != scsi.ASCLUNNotSupported {
		r.Errorf("no such LUN: %v %v", k, a)
	}
	c = &Command{LUN: scsi.EncodeLUN(5), CDB: []byte{0x12, 0, 0, 0, 36, 0}, In: make([]byte, 36)}
	if r.good(c); c.In[0] != 0x7f {
		r.Errorf("INQUIRY of no LUN: %#x", c.In[0])
	}
	c = &Command{CDB: []byte{0xfe, 15: 0}}
	if k, a := sense(r.do(c).Sense); k != scsi.IllegalRequest || a != scsi.ASCInvalidCommandOpCode {
		r.Errorf("no such command: %v %v", k, a)
	}
	if res := r.do(&Command{Func: scsi.AbortTask, TaskTag: 0xdead}); res.Response != scsi.TMComplete {
		r.Errorf("ABORT TASK of none: %+v", res)
	}
	if res := r.do(&Command{Func: scsi.LUNReset, LUN: scsi.EncodeLUN(5)}); res.Response != scsi.TMRejected {
		r.Errorf("LOGICAL UNIT RESET of none: %+v", res)
	}
}

// load keeps the limit's worth of commands going.
func load(r *rig) {
	const rounds = 40
	n := r.link.Limit()
	chs := make([]<-chan Result, n)
	bufs := make([][]byte, n)
	for round := range rounds {
		for i := range chs {
			var c *Command
			if bufs[i] = pattern(4096, byte(round/2+i)); round%2 == 1 {
				bufs[i] = make([]byte, 4096)
				c = read(uint32(8*i), bufs[i])
			} else {
				c = write(uint32(8*i), bufs[i])
			}
			c.Form = Form(i % 3)
			chs[i] = r.start(c)
		}
		for i, ch := range chs {
			if res := r.result(ch); res.Status != scsi.StatusGood {
				r.Fatalf("%+v", res)
			}
			if !bytes.Equal(bufs[i], pattern(4096, byte(round/2+i))) {
				r.Fatal("data differ")
			}
		}
	}
	if m := r.link.Limit(); m != n {
		r.Errorf("credit after load: %d, was %d", m, n)
	}
}

func overLimit(r *rig) {
	n := r.link.Limit()
	var chs []<-chan Result
	for range n {
		chs = append(chs, r.start(read(0, make([]byte, 512))))
	}
	held := r.hold.Wait(r.TB, n)
	if _, ok := r.link.(Wire); ok {
		for range n {
			if res := r.do(read(0, make([]byte, 512))); res.Status != scsi.StatusBusy {
				r.Errorf("beyond the limit: %+v", res)
			}
		}
	}
	for _, h := range held {
		h.Go()
	}
	for _, ch := range chs {
		if res := r.result(ch); res.Status != scsi.StatusGood {
			r.Errorf("%+v", res)
		}
	}
	if m := r.link.Limit(); m != n {
		r.Errorf("credit afterwards: %d, was %d", m, n)
	}
}

func aborts(r *rig) {
	n := r.link.Limit()
	for range 50 {
		c := read(0, make([]byte, 512))
		ch := r.start(c)
		r.hold.Wait(r.TB, 1)
		if res := r.do(&Command{Func: scsi.AbortTask, TaskTag: c.Tag}); res.Response != scsi.TMComplete {
			r.Fatalf("ABORT TASK: %+v", res)
		}
		select {
		case res := <-ch:
			r.Fatalf("a response to an aborted command: %+v", res)
		default:
		}
		if !r.link.Hung(c.Tag) {
			r.Fatal("the aborted command was answered")
		}
	}
	if m := r.link.Limit(); m != n {
		r.Errorf("credit after 50 aborts: %d, was %d", m, n)
	}
	var chs []<-chan Result
	for range n {
		chs = append(chs, r.start(read(0, make([]byte, 512))))
	}
	for _, h := range r.hold.Wait(r.TB, n) {
		h.Go()
	}
	for _, ch := range chs {
		r.result(ch)
	}
}

func reset(r *rig) {
	for _, f := range []scsi.TMFunc{scsi.LUNReset, scsi.AbortTaskSet, scsi.ClearTaskSet} {
		var tags []uint64
		for range 5 {
			c := read(0, make([]byte, 512))
			r.start(c)
			tags = append(tags, c.Tag)
		}
		r.hold.Wait(r.TB, 5)
		if res := r.do(&Command{Func: f}); res.Response != scsi.TMComplete {
			r.Fatalf("%v: %+v", f, res)
		}
		for _, t := range tags {
			if !r.link.Hung(t) {
				r.Errorf("%v: the aborted command was answered", f)
			}
		}
		r.do(&Command{CDB: make([]byte, 6)}) // unit attention
		r.good(&Command{CDB: make([]byte, 6)})
	}
	if res := r.do(&Command{Func: scsi.ClearACA}); res.Response != scsi.TMNotSupported {
		r.Errorf("CLEAR ACA: %+v", res)
	}
}

func deafStore(r *rig) {
	r.hold.SetDeaf(true)
	c := read(0, make([]byte, 512))
	ch := r.start(c)
	held := r.hold.Wait(r.TB, 1)
	if res := r.do(&Command{Func: scsi.AbortTask, TaskTag: c.Tag}); res.Response != scsi.TMFailed {
		r.Fatalf("ABORT TASK with a store that hangs: %+v", res)
	}
	r.eventually("one stuck", func() bool { return r.port.Stats().Stuck == 1 })
	r.hold.SetDeaf(false)
	held[0].Go()
	r.eventually("none stuck", func() bool { s := r.port.Stats(); return s.Stuck == 0 && s.InFlight == 0 })
	r.quiet("a response after FUNCTION FAILED", ch)
	r.link.Hung(c.Tag)
}

func drain(r *rig) {
	ch := r.start(read(0, make([]byte, 512)))
	held := r.hold.Wait(r.TB, 1)
	stuck := make(chan int, 1)
	r.port.Drain(100*time.Millisecond, func(n int) { stuck <- n })
	if n := <-stuck; n != 1 {
		r.Fatalf("%d stuck, want 1", n)
	}
	r.eventually("one stuck in the counters", func() bool { return r.port.Stats().Stuck == 1 })
	r.port.Drain(Timeout, func(n int) { stuck <- n })
	select {
	case <-stuck:
		r.Fatal("drained while a command runs")
	case <-time.After(30 * time.Millisecond):
	}
	held[0].Go()
	if res := r.result(ch); res.Status != scsi.StatusGood {
		r.Errorf("%+v", res)
	}
	if n := <-stuck; n != 0 {
		r.Errorf("%d stuck, want 0", n)
	}
	r.port.Resume()
	r.good(&Command{CDB: make([]byte, 6)})
}

// moves gives the link's hold on moves, or skips.
func (r *rig) moves() Moves {
	m, ok := r.link.(Moves)
	if !ok {
		r.Skip("this carrier's moves cannot be held")
	}
	return m
}

func (r *rig) waitHeld(m Moves, n int) {
	r.Helper()
	r.eventually(fmt.Sprint(n, " moves held"), func() bool { return m.Held() == n })
}

func moveErrors(r *rig) {
	m := r.moves()
	was := pattern(4096, 1)
	r.good(write(0, was))
	for _, c := range []*Command{write(0, pattern(4096, 2)), read(0, make([]byte, 4096))} {
		m.Hold(true)
		ch := r.start(c)
		r.waitHeld(m, 1)
		m.Hold(false)
		m.Release(errors.New("DMA failed"))
		res := r.result(ch)
		if k, a := sense(res.Sense); res.Status != scsi.StatusCheckCondition || k != scsi.AbortedCommand || a != 0x4b00 {
			r.Errorf("CDB %x: %+v", c.CDB, res)
		}
	}
	got := make([]byte, 4096)
	if r.good(read(0, got)); !bytes.Equal(got, was) {
		r.Error("a WRITE without data has written")
	}
}

func abortFetch(r *rig) {
	m := r.moves()
	was := pattern(4096, 1)
	r.good(write(0, was))
	n := r.link.Limit()
	for range 5 {
		m.Hold(true)
		c := write(0, pattern(4096, 2))
		ch := r.start(c)
		r.waitHeld(m, 1)
		tm := r.start(&Command{Func: scsi.AbortTask, TaskTag: c.Tag})
		r.quiet("ABORT TASK answered while data move", tm)
		m.Hold(false)
		m.Release(nil)
		if res := r.result(tm); res.Response != scsi.TMComplete {
			r.Errorf("ABORT TASK: %+v", res)
		}
		r.quiet("a response to an aborted command", ch)
		r.link.Hung(c.Tag)
	}
	got := make([]byte, 4096)
	if r.good(read(0, got)); !bytes.Equal(got, was) {
		r.Error("an aborted WRITE has written")
	}
	if k := r.link.Limit(); k != n {
		r.Errorf("credit afterwards: %d, was %d", k, n)
	}
}

func abortStore(r *rig) {
	m := r.moves()
	m.Hold(true)
	c := read(0, make([]byte, 4096))
	ch := r.start(c)
	r.waitHeld(m, 1)
	tm := r.start(&Command{Func: scsi.AbortTask, TaskTag: c.Tag})
	r.quiet("ABORT TASK answered while data move", tm)
	m.Hold(false)
	m.Release(nil)
	if res := r.result(ch); res.Status != scsi.StatusGood {
		r.Errorf("a command that was complete: %+v", res)
	}
	if res := r.result(tm); res.Response != scsi.TMComplete {
		r.Errorf("ABORT TASK: %+v", res)
	}
}

func resetFetch(r *rig) {
	m := r.moves()
	was := pattern(4096, 1)
	r.good(write(0, was))
	m.Hold(true)
	c := write(0, pattern(4096, 2))
	ch := r.start(c)
	r.waitHeld(m, 1)
	tm := r.start(&Command{Func: scsi.LUNReset})
	r.quiet("LOGICAL UNIT RESET answered while data move", tm)
	m.Release(nil)
	if res := r.result(tm); res.Response != scsi.TMComplete {
		r.Errorf("LOGICAL UNIT RESET: %+v", res)
	}
	r.quiet("a response to an aborted command", ch)
	r.link.Hung(c.Tag)
	m.Hold(false)
	r.do(&Command{CDB: make([]byte, 6)}) // unit attention
	got := make([]byte, 4096)
	if r.good(read(0, got)); !bytes.Equal(got, was) {
		r.Error("an aborted WRITE has written")
	}
}

func deafMover(r *rig) {
	m := r.moves()
	m.Hold(true)
	c := write(0, pattern(4096, 2))
	ch := r.start(c)
	r.waitHeld(m, 1)
	if res := r.do(&Command{Func: scsi.AbortTask, TaskTag: c.Tag}); res.Response != scsi.TMFailed {
		r.Errorf("ABORT TASK with a move that hangs: %+v", res)
	}
	r.eventually("one stuck", func() bool { s := r.port.Stats(); return s.Stuck == 1 && s.Failed == 1 })
	m.Hold(false)
	m.Release(nil)
	r.eventually("none stuck", func() bool { s := r.port.Stats(); return s.Stuck == 0 && s.InFlight == 0 })
	r.quiet("a response after FUNCTION FAILED", ch)
	r.link.Hung(c.Tag)
}

// lateStore has a READ's data move on after a function that waited for it has failed.
func lateStore(r *rig) {
	m := r.moves()
	m.Hold(true)
	c := read(0, make([]byte, 4096))
	ch := r.start(c)
	r.waitHeld(m, 1)
	if res := r.do(&Command{Func: scsi.LUNReset}); res.Response != scsi.TMFailed {
		r.Errorf("LOGICAL UNIT RESET with a move that hangs: %+v", res)
	}
	m.Hold(false)
	m.Release(nil)
	r.eventually("none stuck", func() bool { s := r.port.Stats(); return s.Stuck == 0 && s.InFlight == 0 })
	r.quiet("a response after FUNCTION FAILED", ch)
	if !r.link.Hung(c.Tag) {
		r.Error("the command was answered after FUNCTION FAILED")
	}
}

// linkLoss has the initiator go away with moves under way, and come back.
func linkLoss(r *rig) {
	m := r.moves()
	m.Hold(true)
	for range 4 {
		r.start(write(0, pattern(4096, 3)))
	}
	r.waitHeld(m, 4)
	r.link.Close()
	done := make(chan bool, 1)
	r.port.Reset(func(ok bool) { done <- ok })
	select {
	case <-done:
		r.Fatal("reset while data move")
	case <-time.After(30 * time.Millisecond):
	}
	m.Hold(false)
	m.Release(nil)
	if !<-done {
		r.Error("reset failed")
	}
	r.connect()
	got := make([]byte, 4096)
	if r.good(read(0, got)); !bytes.Equal(got, make([]byte, 4096)) {
		r.Error("a WRITE of a lost link has written")
	}
}

func flood(r *rig) {
	w, ok := r.link.(Wire)
	if !ok {
		r.Skip("not a carrier of information units")
	}
	n := r.link.Limit()
	for range 2 * n {
		r.start(read(0, make([]byte, 512)))
	}
	held := r.hold.Wait(r.TB, n)
	// BUSY came for half of them; those slots are free. Task management
	// that cannot end takes them, and one more request is too many.
	r.hold.SetDeaf(true)
	for k := range n + 1 {
		if _, err := r.link.Start(&Command{Tag: uint64(0x9000 + k), Func: scsi.LUNReset}); err != nil {
			break
		}
	}
	select {
	case <-w.Down():
	case <-after():
		r.Error("beyond twice the limit, and still there")
	}
	for _, h := range held {
		h.Go()
	}
}

// commands is how many the port has served, none being under way.
func (r *rig) commands() (n uint64) {
	r.settle()
	return r.port.Stats().Commands
}

func tagReuse(r *rig) {
	w, ok := r.link.(Wire)
	if !ok {
		r.Skip("not a carrier of information units")
	}
	u := rawCmd(w, 77, scsitest.CDB10(0x28, 0, 1), 512)
	base := r.commands()
	for round := range 100 {
		for range 8 {
			if err := w.Send(u); err != nil {
				r.Fatal(err)
			}
		}
		r.eventually("all served", func() bool { s := r.port.Stats(); return s.Commands == base+9*uint64(round)+8 && s.InFlight == 0 })
		// Behind the answers in the initiator's queue: one that is busy has taken them
		// all, and the target's buffers are free.
		r.good(&Command{CDB: make([]byte, 6)})
	}
}
