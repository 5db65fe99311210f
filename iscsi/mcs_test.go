package iscsi

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/backing/backingtest"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/iscsi/iscsitest"
	"github.com/vtgt/vtgt/iscsi/pdu"
)

// several logs a session of n connections in, CIDs from 0 on; unit attentions are
// taken.
func (r *rig) several(l iscsitest.Login, n int) (*iscsitest.Session, []*iscsitest.Conn) {
	r.t.Helper()
	l.Keys = append(l.Keys, pdu.KeyValue{Key: "MaxConnections", Value: "8"})
	var s *iscsitest.Session
	for i := range n {
		c := r.raw()
		var err error
		if i == 0 {
			s, err = iscsitest.NewSession(c, l)
		} else {
			err = s.Add(c, uint16(i))
		}
		if err != nil {
			r.t.Fatal("connection", i, err)
		}
	}
	cs := s.Conns()
	for range 2 {
		if _, err := cs[0].Run(&iscsitest.Command{CDB: make([]byte, 6)}); err != nil {
			r.t.Fatal(err)
		}
	}
	return s, cs
}

// raw connects.
func (r *rig) raw() *iscsitest.Conn {
	r.t.Helper()
	c, err := iscsitest.Dial(r.addr())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

// again runs a command, once more after each unit attention; it returns those.
func again(c *iscsitest.Conn, cmd *iscsitest.Command) (k *iscsitest.Task, uas []uint16, err error) {
	for range 8 {
		if k, err = c.Run(cmd); err != nil {
			return k, uas, err
		}
		key, asc := iscsitest.Sense(k.Sense)
		if k.Status != 2 || key != 6 {
			break
		}
		uas = append(uas, asc)
	}
	if k.Status != 0 {
		err = fmt.Errorf("status %#02x, sense % x", k.Status, k.Sense)
	}
	return k, uas, err
}

// silent is an error if anything comes on c.
func silent(t testing.TB, c *iscsitest.Conn, d time.Duration) {
	t.Helper()
	old := c.Timeout
	c.Timeout = d
	if p, err := c.Recv(); !iscsitest.IsTimeout(err) {
		t.Fatalf("%v, %v: should not have come", p, err)
	}
	c.Timeout = old
}

func (r *rig) connections() int {
	n := 0
	for _, s := range r.srv.Sessions() {
		n += len(s.Connections)
	}
	return n
}

// A session of two connections with data digests verifies data while one of them is
// cut, again and again, in the midst of everything.
func TestCutOneOfTwo(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	l := r.login()
	l.HeaderDigest, l.DataDigest = true, true
	s, cs := r.several(l, 2)
	rnd := rand.New(rand.NewPCG(1, 5))
	const slots, slot = 16, 256 // blocks
	want := make([][]byte, slots)
	cuts := 0
	for round := range 24 {
		type run struct {
			c   *iscsitest.Conn
			k   *iscsitest.Task
			cmd *iscsitest.Command
		}
		var runs []run
		for i := range slots {
			want[i] = random((1 + rnd.IntN(slot)) * 512)
			w := write(uint32(i*slot), want[i])
			w.NoImmediateData = rnd.IntN(2) == 0
			w.NoUnsolicited = w.NoImmediateData && rnd.IntN(2) == 0
			c := cs[rnd.IntN(2)]
			k, err := c.Start(w)
			if err != nil {
				t.Fatal(err)
			}
			runs = append(runs, run{c, k, w})
		}
		var left []*iscsitest.Command
		if round%3 == 1 {
			// Some of it is under way, some never arrives.
			for range rnd.IntN(4) {
				if err := cs[1].Pump(); err != nil {
					t.Fatal(err)
				}
			}
			var err error
			if left, err = s.Cut(cs[1], cs[0]); err != nil {
				t.Fatal(round, err)
			}
			cuts += len(left)
		}
		for _, x := range runs {
			gone := false
			for _, cmd := range left {
				gone = gone || cmd == x.cmd
			}
			if !gone && !x.k.Done {
				if err := x.c.Wait(x.k); err != nil {
					t.Fatal(round, err)
				}
			}
			key, _ := iscsitest.Sense(x.k.Sense)
			switch {
			case gone || x.k.Status == 2 && key == 6 || x.k.Status == 0x28:
				// Cleared with its connection, or the unit attention that tells.
				if _, _, err := again(cs[0], x.cmd); err != nil {
					t.Fatal(round, err)
				}
			case x.k.Status != 0:
				t.Fatalf("%d: status %#02x, sense % x", round, x.k.Status, x.k.Sense)
			}
		}
		if round%3 == 1 {
			c := r.raw()
			if err := s.Add(c, uint16(1+round)); err != nil {
				t.Fatal(err)
			}
			cs = s.Conns()
		}
		for i := range want {
			k, _, err := again(cs[i%2], read(uint32(i*slot), len(want[i])/512))
			if err != nil || !bytes.Equal(k.In, want[i]) {
				t.Fatalf("round %d, slot %d: %v, equal %v", round, i, err, k != nil && bytes.Equal(k.In, want[i]))
			}
		}
	}
	if cuts == 0 {
		t.Error("no command was under way on a connection that was cut")
	}
	if n := len(r.srv.Sessions()); n != 1 || r.connections() != 2 {
		t.Errorf("%d sessions, %d connections", n, r.connections())
	}
	cs[0].Close()
	cs[1].Close()
	tempotest.Wait(t, "the session ends", func() bool { return r.srv.Stats().Sessions == 0 })
}

// Commands are delivered in the order of CmdSN, whichever connection they come by.
func TestOrderAcrossConnections(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	_, cs := r.several(r.login(), 3)
	a, b, c := cs[0], cs[1], cs[2]
	for i := range 10 {
		data := bytes.Repeat([]byte{byte(i + 1)}, 64<<10)
		b.Hold()
		w := start(t, b, write(0, data))
		rd := read(0, 128)
		rd.Attr = pdu.AttrOrdered
		k := start(t, a, rd)
		n := start(t, c, read(0, 1))
		silent(t, a, 20*time.Millisecond)
		if err := b.Release(1000+i*777, time.Microsecond); err != nil {
			t.Fatal(err)
		}
		wantGood(t, a, k)
		wantGood(t, c, n)
		wantGood(t, b, w)
		if !bytes.Equal(k.In, data) {
			t.Fatal("a younger command passed an older one")
		}
	}
	// Sent twice, once on each connection: one of them counts.
	k := start(t, a, read(0, 8))
	wantGood(t, a, k)
	var x iscsitest.PDU
	x.Reset(pdu.OpNOPOut)
	x.SetTTT(pdu.ReservedTag)
	x.SetITT(0x7001)
	x.SetCmdSN(k.CmdSN)
	if err := b.Send(&x); err != nil {
		t.Fatal(err)
	}
	silent(t, b, 50*time.Millisecond)
	// The same while one of the two is on its way.
	b.Hold()
	w := start(t, b, write(8, random(4096)))
	x.SetITT(0x7002)
	x.SetCmdSN(w.CmdSN)
	if err := b.ReleasePart(3000); err != nil {
		t.Fatal(err)
	}
	time.Sleep(30 * time.Millisecond) // it has come, as a rule
	if err := a.Send(&x); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Await(0x7002, pdu.OpNOPIn); err != nil {
		t.Fatal(err)
	}
	if err := b.Release(0, 0); err != nil {
		t.Fatal(err)
	}
	silent(t, b, 50*time.Millisecond)
	b.Forget(w)
	for range maxWindow { // once around
		wantGood(t, a, start(t, a, read(0, 8)))
		wantGood(t, b, start(t, b, read(0, 8)))
	}
}

// A connection that is cut takes its tasks along, and nothing else.
func TestConnectionLost(t *testing.T) {
	f := faulty(t)
	r := newRig(t, rigOptions{quiet: true, store: f})
	_, cs := r.several(r.login(), 3)
	a, b := cs[0], cs[1]
	// The last one counts when its loop has it, which is after its login.
	if !tempotest.Settles(func() bool { return r.connections() == 3 }) {
		t.Fatal(r.connections(), "connections")
	}
	f.Inject(backingtest.Rule{Kinds: backingtest.KindSet(backing.Read), Hold: true})
	kb := start(t, b, read(0, 8))
	ka := start(t, a, read(8, 8))
	if !f.WaitHeld(2) {
		t.Fatal("not held")
	}
	f.Clear()
	w := write(16, make([]byte, 4096))
	w.NoImmediateData, w.NoUnsolicited, w.HoldR2T = true, true, true
	start(t, b, w)
	_ = kb
	if err := b.Pump(); err != nil { // the R2T
		t.Fatal(err)
	}
	b.Close()
	tempotest.Wait(t, "the connection goes", func() bool { return r.connections() == 2 })
	f.Release(-1)
	wantGood(t, a, ka)
	_, uas, err := again(a, read(0, 8))
	if err != nil || len(uas) != 1 || uas[0] != 0x477f {
		t.Errorf("unit attentions %x, %v", uas, err)
	}
	cs[2].Close()
	tempotest.Wait(t, "the connection goes", func() bool { return r.connections() == 1 })
	if _, uas, err := again(a, read(0, 8)); err != nil || len(uas) != 0 {
		t.Errorf("an idle connection went: unit attentions %x, %v", uas, err)
	}
	a.Close()
	tempotest.Wait(t, "the session ends", func() bool { return r.srv.Stats().Sessions == 0 })
}

func TestConnectionReinstatement(t *testing.T) {
	f := faulty(t)
	r := newRig(t, rigOptions{quiet: true, store: f})
	s, cs := r.several(r.login(), 2)
	for cid := range 2 {
		f.Inject(backingtest.Rule{Kinds: backingtest.KindSet(backing.Read), Hold: true})
		start(t, cs[cid], read(0, 8))
		if !f.WaitHeld(1) {
			t.Fatal("not held")
		}
		f.Clear()
		go func() {
			time.Sleep(200 * time.Millisecond)
			f.Release(-1)
		}()
		c := r.raw()
		if err := s.Add(c, uint16(cid)); err != nil {
			t.Fatal(err)
		}
		if f.Held() != 0 {
			t.Error("the login ended before the tasks of the old connection")
		}
		if err := cs[cid].Closed(tempotest.Patience); err != nil {
			t.Error(err)
		}
		if _, uas, err := again(c, read(0, 8)); err != nil || len(uas) != 1 || uas[0] != 0x477f {
			t.Errorf("unit attentions %x, %v", uas, err)
		}
	}
	if n := r.connections(); n != 2 || len(r.srv.Sessions()) != 1 {
		t.Error(n, "connections")
	}
	// Of the only connection.
	l := r.login()
	l.ISID = [6]byte{0x80, 77}
	one := r.dial(l)
	l.TSIH = one.TSIH
	l.Keys = []pdu.KeyValue{{Key: "MaxConnections", Value: "-"}, {Key: "InitialR2T", Value: "-"}, {Key: "ImmediateData", Value: "-"},
		{Key: "MaxBurstLength", Value: "-"}, {Key: "FirstBurstLength", Value: "-"}, {Key: "MaxOutstandingR2T", Value: "-"},
		{Key: "DataPDUInOrder", Value: "-"}, {Key: "DataSequenceInOrder", Value: "-"}, {Key: "DefaultTime2Wait", Value: "-"},
		{Key: "DefaultTime2Retain", Value: "-"}, {Key: "ErrorRecoveryLevel", Value: "-"}}
	c := r.raw()
	c.CmdSN = one.CmdSN
	if err := c.Login(l); err != nil {
		t.Fatal(err)
	}
	if err := one.Closed(tempotest.Patience); err != nil {
		t.Error(err)
	}
	wantGood(t, c, start(t, c, read(0, 8)))
	// And one more than was agreed upon.
	l.CID = 5
	var le *iscsitest.LoginError
	if err := r.raw().Login(l); !errors.As(err, &le) || le.Status != pdu.LoginTooManyConnections {
		t.Error(err)
	}
}

func TestLogoutAcrossConnections(t *testing.T) {
	f := faulty(t)
	r := newRig(t, rigOptions{quiet: true, store: f})
	_, cs := r.several(r.login(), 4)
	a, b := cs[0], cs[1]
	f.Inject(backingtest.Rule{Kinds: backingtest.KindSet(backing.Read), Hold: true})
	start(t, b, read(0, 8))
	if !f.WaitHeld(1) {
		t.Fatal("not held")
	}
	f.Clear()
	go func() {
		time.Sleep(200 * time.Millisecond)
		f.Release(-1)
	}()
	if p, err := a.Logout(pdu.LogoutCloseConnection, 9); err != nil || p != pdu.LogoutCIDNotFound {
		t.Error(p, err)
	}
	if p, err := a.Logout(pdu.LogoutRecovery, 1); err != nil || p != pdu.LogoutRecoveryUnsupported {
		t.Error(p, err)
	}
	if p, err := a.Logout(pdu.LogoutCloseConnection, 1); err != nil || p != pdu.LogoutSuccess {
		t.Error(p, err)
	}
	if f.Held() != 0 {
		t.Error("answered before the tasks had ended")
	}
	if err := b.Closed(tempotest.Patience); err != nil {
		t.Error(err)
	}
	if _, uas, err := again(a, read(0, 8)); err != nil || len(uas) != 1 || uas[0] != 0x477f {
		t.Errorf("unit attentions %x, %v", uas, err)
	}
	// Its own, then the session.
	if p, err := cs[2].Logout(pdu.LogoutCloseConnection, 2); err != nil || p != pdu.LogoutSuccess {
		t.Error(p, err)
	}
	tempotest.Wait(t, "the connection goes", func() bool { return r.connections() == 2 })
	start(t, cs[3], read(0, 8))
	if p, err := a.Logout(pdu.LogoutCloseSession, 0); err != nil || p != pdu.LogoutSuccess {
		t.Error(p, err)
	}
	tempotest.Wait(t, "the session ends", func() bool { return r.srv.Stats().Sessions == 0 })
}

func TestTaskManagementAcrossConnections(t *testing.T) {
	f := faulty(t)
	r := newRig(t, rigOptions{quiet: true, store: f})
	_, cs := r.several(r.login(), 2)
	a, b := cs[0], cs[1]
	held := func() *iscsitest.Task {
		t.Helper()
		f.Inject(backingtest.Rule{Kinds: backingtest.KindSet(backing.Read), Hold: true})
		k := start(t, b, read(0, 8))
		if !f.WaitHeld(1) {
			t.Fatal("not held")
		}
		f.Clear()
		return k
	}
	owing := func() *iscsitest.Task {
		t.Helper()
		w := write(0, make([]byte, 4096))
		w.NoImmediateData, w.NoUnsolicited, w.HoldR2T = true, true, true
		k := start(t, b, w)
		for len(k.R2Ts) == 0 {
			if err := b.Pump(); err != nil {
				t.Fatal(err)
			}
		}
		return k
	}
	tmf := func(fn pdu.TMF, ref *iscsitest.Task, want pdu.TMFResponse) {
		t.Helper()
		if got, err := a.TMF(fn, 0, ref, true); err != nil || got != want {
			t.Errorf("%v: %v, %v, want %v", fn, got, err, want)
		}
		if f.Held() != 0 {
			t.Errorf("%v: answered before the tasks had ended", fn)
		}
	}
	k := held()
	tmf(pdu.AbortTask, k, pdu.TMFComplete)
	b.Forget(k)
	k = owing()
	tmf(pdu.AbortTask, k, pdu.TMFComplete)
	b.Forget(k)
	k = held()
	o := owing()
	tmf(pdu.AbortTaskSet, nil, pdu.TMFComplete)
	b.Forget(k)
	b.Forget(o)
	wantGood(t, b, start(t, b, read(0, 8)))
	// Data-Out for another connection's task is nobody's.
	o = owing()
	if err := a.Send(a.DataOut(o, o.R2Ts[0].TTT(), 0, 0, make([]byte, 4096), true)); err != nil {
		t.Fatal(err)
	}
	silent(t, b, 30*time.Millisecond)
	if err := b.AnswerR2T(o, o.R2Ts[0]); err != nil {
		t.Fatal(err)
	}
	wantGood(t, b, o)
	// A function waits for commands older than it that are on their way.
	for _, fn := range []pdu.TMF{pdu.AbortTaskSet, pdu.ClearTaskSet, pdu.LogicalReset} {
		b.Hold()
		k = start(t, b, read(0, 8))
		p := a.TMFRequest(fn, 0, nil, true)
		if err := a.Send(p); err != nil {
			t.Fatal(err)
		}
		young := start(t, a, read(0, 8))
		silent(t, a, 30*time.Millisecond)
		if err := b.Release(0, 0); err != nil {
			t.Fatal(err)
		}
		if x, err := a.Await(p.ITT(), pdu.OpTMFResponse); err != nil || x.Response() != 0 {
			t.Fatal(fn, x, err)
		}
		b.Forget(k)
		if err := a.Wait(young); err != nil { // the younger one is answered
			t.Fatal(fn, err)
		}
		silent(t, b, 30*time.Millisecond)
		for range 2 {
			if _, _, err := again(a, read(0, 8)); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A reset of the target does not wait: what has not come is not run.
	b.Hold()
	k = start(t, b, read(0, 8))
	tmf(pdu.TargetWarmReset, nil, pdu.TMFComplete)
	if err := b.Release(0, 0); err != nil {
		t.Fatal(err)
	}
	b.Forget(k)
	silent(t, b, 30*time.Millisecond)
	if _, _, err := again(b, read(0, 8)); err != nil {
		t.Fatal(err)
	}
}

// Little memory and gaps in the order of commands: nobody waits for ever.
func TestMemoryAcrossConnections(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true, slab: 8 << 20, limits: Limits{SessionMemory: 512 << 10}})
	_, cs := r.several(r.login(), 2)
	a, b := cs[0], cs[1]
	for i := range 6 {
		b.Hold()
		older := read(0, 600)
		if i%2 == 1 {
			older = write(0, make([]byte, 200<<10))
		}
		kb := start(t, b, older)
		var ks []*iscsitest.Task
		for j := range 6 {
			if j%2 == 0 {
				ks = append(ks, start(t, a, read(0, 500)))
			} else {
				ks = append(ks, start(t, a, write(2000, make([]byte, 100<<10))))
			}
		}
		time.Sleep(20 * time.Millisecond)
		if err := b.Release(0, 0); err != nil {
			t.Fatal(err)
		}
		for _, k := range append(ks, kb) {
			c := a
			if k == kb {
				c = b
			}
			if err := c.Wait(k); err != nil || k.Status != 0 && k.Status != 0x28 {
				t.Fatalf("%v, status %#02x", err, k.Status)
			}
		}
	}
}
