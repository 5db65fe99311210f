package vhost

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/vhost/proto"
	"github.com/vtgt/vtgt/vhost/vhosttest"
)

// TestSecond: one guest has one export.
func TestSecond(t *testing.T) {
	f := newHouse(t).export("vm1")
	f.mu.Lock()
	f.goneWait = 10 * time.Millisecond
	f.mu.Unlock()
	c := f.boot(vhosttest.Options{})
	for range 2 {
		n, err := vhosttest.Dial(f.socket, vhosttest.Options{})
		if err == nil {
			t.Error("a second front end is served")
			n.Close()
		}
	}
	// Who is turned away may hear of it before it is counted and logged.
	f.settles("both are counted", func(st Status) bool { return st.Counters.Rejected == 2 && f.h.log.has("is connected already") })
	if st := f.Status(); st.Counters.Rejected != 2 || st.PID != os.Getpid() || st.UID != os.Getuid() || !f.h.log.has("is connected already") {
		t.Errorf("%+v", st)
	}
	f.ready(c)
}

// TestHandover: a front end comes while the one before it is not through. What that one
// has asked for is finished, in its memory, before the next is served.
func TestHandover(t *testing.T) {
	f := newHouse(t).export("vm1", within(tempotest.Patience))
	f.mu.Lock()
	f.drainWait = 50 * time.Millisecond
	f.mu.Unlock()
	c := f.boot(vhosttest.Options{})
	a, page := f.filled(c)
	q := f.held(c, a)
	c.Disconnect()
	// The socket is closed, the session is not: the next one waits a little, and is
	// then told to come again.
	if n, err := vhosttest.Dial(f.socket, vhosttest.Options{}); err == nil {
		t.Error("served before the guest before has ended")
		n.Close()
	}
	f.settles("it is counted", func(st Status) bool { return st.Counters.Rejected == 1 && f.h.log.has("have not ended yet") })
	if st := f.Status(); st.InFlight != 1 || st.Counters.Rejected != 1 || !f.h.log.has("have not ended yet") {
		t.Errorf("%+v", st)
	}
	came := make(chan *vhosttest.Client)
	go func() {
		var n *vhosttest.Client
		var err error
		if !tempotest.Settles(func() bool { n, err = vhosttest.Dial(f.socket, vhosttest.Options{}); return err == nil }) {
			t.Error(err)
		}
		came <- n
	}()
	f.hold.Wait(t, 1)[0].Go()
	if n := <-came; n != nil {
		defer n.Close()
		// Nothing was aborted: the answer is where the guest looks for it.
		if err := c.Request(0).Await(q, 0); err != nil || q.Status != 0 || !bytes.Equal(page, bytes.Repeat([]byte{0xd1}, 4096)) {
			t.Errorf("%+v, %v", q, err)
		}
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
		f.ready(n)
	}
}

// TestReconnect loses the connection under load, again and again, as a QEMU 10 does
// whose back end is restarted: it goes on with the same rings and inflight region.
func TestReconnect(t *testing.T) {
	f := newHouse(t).export("vm1")
	c := f.boot(vhosttest.Options{Style: vhosttest.QEMU10, Queues: 2})
	f.under(c, 15, func(int) error { return c.Reconnect() })
	if st := f.Status(); st.Counters.Connections != 16 || st.Counters.Rejected != 0 {
		t.Errorf("%+v", st.Counters)
	}
}

// TestRestart is a restart of the back end with requests in flight that it never
// answered: the export after it finds them in the inflight region and answers them.
func TestRestart(t *testing.T) {
	h := newHouse(t)
	old := h.export("old", within(100*time.Millisecond))
	old.hold.SetDeaf(true)
	c := old.boot(vhosttest.Options{Style: vhosttest.QEMU10})
	a, page := old.filled(c)
	q := old.held(c, a)
	// As after kill -9, except that what is stuck has to end some time.
	old.stuck = 1
	if n := old.Close(50 * time.Millisecond); n != 1 {
		t.Errorf("%d requests stuck, want 1", n)
	}
	h.Cleanup(func() { old.hold.Wait(t, 1)[0].Go() })

	next := h.export("next")
	if err := os.Rename(next.socket, old.socket); err != nil {
		t.Fatal(err)
	}
	if err := c.Reconnect(); err != nil {
		t.Fatal(err)
	}
	if err := c.Request(0).Await(q, 0); err != nil || q.Response != 0 {
		t.Fatalf("%+v, %v", q, err)
	}
	if q.Status == 2 { // the unit attention of a new nexus comes first
		if _, asc := q.SenseCode(); asc>>8 != 0x29 {
			t.Errorf("%+v", q)
		}
	} else if !bytes.Equal(page, make([]byte, 4096)) {
		t.Error("other data than the new disk has")
	}
	if st := next.Status(); st.Counters.Replayed != 1 {
		t.Errorf("%+v", st.Counters)
	}
}

// TestTargets changes the targets while a guest runs.
func TestTargets(t *testing.T) {
	f := newHouse(t).export("vm1")
	c := f.boot(vhosttest.Options{})
	tg := scsi.NewTarget(scsi.TargetConfig{Name: "second"})
	p := tg.NewPort(scsi.PortConfig{RelID: 2, Protocol: 4, Name: "second", DeviceName: "second"})
	inquiry := func(target uint8) uint8 {
		t.Helper()
		r, err := c.Request(0).Exec(vhosttest.LUN(target, 0), []byte{0x12, 0, 0, 0, 36, 0}, nil, make([]byte, 36))
		if err != nil {
			t.Fatal(err)
		}
		return r.Response
	}
	if r := inquiry(7); r != vhosttest.RespBadTarget {
		t.Errorf("target 7 answers %d", r)
	}
	if err := f.SetTargets(append(f.targets[:1:1], TargetPort{7, p})); err != nil {
		t.Fatal(err)
	}
	if r := inquiry(7); r != vhosttest.RespOK {
		t.Errorf("target 7 answers %d", r)
	}
	if err := f.SetTargets(append(f.targets[:1:1], TargetPort{254, p})); err == nil {
		t.Error("there is a target 254")
	}
	if r := inquiry(7); r != vhosttest.RespOK {
		t.Errorf("after a refusal target 7 answers %d", r)
	}
	if err := f.SetTargets(f.targets[:1:1]); err != nil {
		t.Fatal(err)
	}
	if r := inquiry(7); r != vhosttest.RespBadTarget {
		t.Errorf("target 7 answers %d", r)
	}
	f.ready(c)
	done := make(chan int)
	tg.Close(tempotest.Patience, func(n int) { done <- n })
	<-done
}

// TestClose closes the export at all stages of a connection's life.
func TestClose(t *testing.T) {
	for name, stage := range map[string]func(f *flat){
		"idle":     func(f *flat) {},
		"silent":   func(f *flat) { f.raw() },
		"greeted":  func(f *flat) { f.raw().greet() },
		"half":     func(f *flat) { f.raw().bytes([]byte{1, 0, 0}) },
		"running":  func(f *flat) { f.boot(vhosttest.Options{}) },
		"inflight": func(f *flat) { f.boot(vhosttest.Options{Style: vhosttest.QEMU10}) },
		"unread": func(f *flat) { // answers that nobody reads fill the socket
			r := f.raw()
			var b []byte
			for range 1000 {
				b = proto.Append(b, proto.GetFeatures, 0, nil)
			}
			_ = r.nc.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
			for range 100 {
				r.bytes(b)
			}
			_ = r.nc.SetDeadline(time.Now().Add(2 * tempotest.Patience))
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newHouse(t).export("vm1")
			stage(f)
			if n := f.Close(0); n != 0 {
				t.Errorf("%d stuck", n)
			}
			if n := f.Close(time.Millisecond); n != 0 {
				t.Errorf("closed again: %d stuck", n)
			}
			if err := f.SetTargets(nil); err != ErrClosed {
				t.Errorf("SetTargets: %v", err)
			}
			if st := f.Status(); !st.Connected.IsZero() || st.Queues != 0 || st.Refused != "" {
				t.Errorf("%+v", st)
			}
		})
	}
}

// TestOrder says all of a ring in other orders than QEMU's, and changes eventfds while
// it runs.
func TestOrder(t *testing.T) {
	f := newHouse(t).export("vm1")
	for _, order := range []string{"nbakce", "ekbcna", "kbneac", "aebnck"} {
		r := f.raw()
		r.greet()
		r.must(proto.AddMemReg, proto.AppendMemReg(nil, oneRegion(0)), r.memfd(rawSize))
		for _, x := range order {
			fd := u64(uint64(proto.NewVringFD(2, false)))
			switch x {
			case 'n':
				r.must(proto.SetVringNum, state(2, 128))
			case 'b':
				r.must(proto.SetVringBase, state(2, 0))
			case 'a':
				r.must(proto.SetVringAddr, addr(2).Append(nil))
			case 'k':
				r.must(proto.SetVringKick, fd, r.eventfd())
			case 'c':
				r.must(proto.SetVringCall, fd, r.eventfd())
			case 'e':
				r.must(proto.SetVringEnable, state(2, 1))
			}
		}
		if st := f.Status(); st.Started != 1 || st.Enabled != 1 {
			t.Errorf("%s: %+v", order, st)
		}
		elsewhere := addr(3)
		elsewhere.Index = 2
		for range 3 {
			fd := u64(uint64(proto.NewVringFD(2, false)))
			for _, q := range []proto.Request{proto.SetVringCall, proto.SetVringKick, proto.SetVringErr} {
				r.must(q, fd, r.eventfd())
			}
			none := u64(uint64(proto.NewVringFD(2, true)))
			r.must(proto.SetVringCall, none)
			r.must(proto.SetVringErr, none)
			r.must(proto.SetVringAddr, addr(2).Append(nil))
			r.must(proto.SetVringAddr, elsewhere.Append(nil))
			r.must(proto.SetVringEnable, state(2, 0))
			r.must(proto.SetVringEnable, state(2, 1))
		}
		r.must(proto.ResetDevice, nil)
		if st := f.Status(); st.Started != 0 || st.Regions != 1 {
			t.Errorf("%s, after a reset: %+v", order, st)
		}
		r.close()
		f.settles("the end", func(st Status) bool { return st.Queues == 0 })
	}
	if st := f.Status(); st.Counters.Violations != 0 || st.Refused != "" {
		t.Errorf("%+v", st)
	}
}

// TestWithoutProtocolFeatures has a front end that does not know of them: its rings are
// enabled from the start, and memory comes by table.
func TestWithoutProtocolFeatures(t *testing.T) {
	f := newHouse(t).export("vm1")
	r := f.raw()
	r.send(proto.SetOwner, 0, nil)
	r.send(proto.SetFeatures, 0, u64(r.get(proto.GetFeatures)&^uint64(proto.FeatureProtocol)))
	r.send(proto.SetMemTable, proto.FlagNeedReply, regions(oneRegion(0)), r.memfd(rawSize)) // not agreed on: no answer
	r.send(proto.SetVringNum, 0, state(2, 64))
	r.send(proto.SetVringAddr, 0, addr(2).Append(nil))
	r.send(proto.SetVringKick, 0, u64(2), r.eventfd())
	f.settles("the start", func(st Status) bool { return st.Started == 1 && st.Enabled == 1 })
	r.send(proto.GetVringBase, 0, state(2, 0))
	if h, b, _, ok := r.answer(); !ok || h.Request != proto.GetVringBase || !bytes.Equal(b, state(2, 0)) {
		t.Errorf("%v %x %v", h, b, ok)
	}
	f.settles("the stop", func(st Status) bool { return st.Started == 0 })
}
