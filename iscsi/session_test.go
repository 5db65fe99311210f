package iscsi

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/backing/backingtest"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/iscsi/iscsitest"
	"github.com/vtgt/vtgt/iscsi/pdu"
)

func faulty(t testing.TB) *backingtest.Fault {
	st, err := backing.Open("mem:", backing.Options{Size: rigSize})
	if err != nil {
		t.Fatal(err)
	}
	return backingtest.NewFault(st)
}

func read(lba uint32, blocks int) *iscsitest.Command {
	return &iscsitest.Command{CDB: rw10(0x28, lba, blocks), In: blocks * 512}
}

func write(lba uint32, data []byte) *iscsitest.Command {
	return &iscsitest.Command{CDB: rw10(0x2a, lba, len(data)/512), Out: data}
}

func start(t testing.TB, c *iscsitest.Conn, cmd *iscsitest.Command) *iscsitest.Task {
	t.Helper()
	k, err := c.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func wantGood(t testing.TB, c *iscsitest.Conn, k *iscsitest.Task) {
	t.Helper()
	if err := c.Wait(k); err != nil || k.Status != 0 {
		t.Fatalf("task %d: %v, status %#02x, sense % x", k.ITT, err, k.Status, k.Sense)
	}
}

// A PDU in the same write as the last Login Request is not lost on the way from the
// login's goroutine to the loop.
func TestPipelinedBehindLogin(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	for range 20 {
		c, err := iscsitest.Dial(r.addr())
		if err != nil {
			t.Fatal(err)
		}
		// Two whole PDUs and a piece of a third.
		var trailer []byte
		for i := range 3 {
			p := new(iscsitest.PDU)
			p.Reset(pdu.OpNOPOut)
			p.SetImmediate(true)
			p.SetITT(uint32(0x100 + i))
			p.SetTTT(pdu.ReservedTag)
			p.SetCmdSN(c.CmdSN)
			p.Data = bytes.Repeat([]byte{byte(i)}, 100*i)
			trailer = append(trailer, iscsitest.Encode(p, false, false, 0)...)
		}
		l := r.login()
		l.Trailer = trailer[:len(trailer)-10]
		if err := c.Login(l); err != nil {
			t.Fatal(err)
		}
		if err := c.SendRaw(trailer[len(trailer)-10:]); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			p, err := c.Recv()
			if err != nil || p.Opcode() != pdu.OpNOPIn || p.ITT() != uint32(0x100+i) || len(p.Data) != 100*i {
				t.Fatal(i, p, err)
			}
		}
		c.Close()
	}
}

func TestDiscovery(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	for _, digest := range []bool{false, true} {
		c := r.dialOnly(iscsitest.Login{InitiatorName: rigInitiator, Discovery: true, HeaderDigest: digest, DataDigest: digest})
		m, err := c.SendTargets("All")
		if err != nil || len(m[rigTarget]) != 1 || m[rigTarget][0] != r.addr()+",1" {
			t.Fatal(m, err)
		}
		if err := c.NOP([]byte("hello"), true); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Run(&iscsitest.Command{CDB: make([]byte, 6)}); err == nil {
			t.Error("a discovery session runs commands")
		}
		if p, err := c.Logout(pdu.LogoutCloseSession, 0); err != nil || p != 0 {
			t.Fatal(p, err)
		}
	}
	if st := r.srv.Stats(); st.Sessions != 0 || st.Logins != 2 {
		t.Errorf("%+v", st)
	}
	// In a normal session SendTargets is answered too.
	c := r.dial(r.login())
	if m, err := c.SendTargets(""); err != nil || len(m[rigTarget]) != 1 {
		t.Fatal(m, err)
	}
}

func TestReinstatement(t *testing.T) {
	f := faulty(t)
	r := newRig(t, rigOptions{quiet: true, store: f})
	a := r.dial(r.login())
	f.Inject(backingtest.Rule{Kinds: backingtest.KindSet(backing.Read), Hold: true})
	start(t, a, read(0, 8))
	if !f.WaitHeld(1) {
		t.Fatal("not held")
	}
	f.Clear()
	go func() {
		// Should the core's cancel not do it.
		time.Sleep(300 * time.Millisecond)
		f.Release(-1)
	}()
	b := r.dial(r.login())
	if err := a.Closed(tempotest.Patience); err != nil {
		t.Error(err)
	}
	if n := len(r.srv.Sessions()); n != 1 {
		t.Errorf("%d sessions", n)
	}
	// Another ISID is another session.
	l := r.login()
	l.ISID = [6]byte{0x80, 1, 2, 3, 4, 5}
	c := r.dial(l)
	k := start(t, b, read(0, 8))
	wantGood(t, b, k)
	k = start(t, c, read(0, 8))
	wantGood(t, c, k)
	// A session that is not there, and a second connection.
	for _, x := range []struct {
		tsih uint16
		want pdu.LoginStatus
	}{{0x7777, pdu.LoginSessionDoesNotExist}, {c.TSIH, pdu.LoginTooManyConnections}} {
		d, err := iscsitest.Dial(r.addr())
		if err != nil {
			t.Fatal(err)
		}
		m := l
		m.TSIH, m.CID = x.tsih, 1
		text := pdu.AppendTexts(nil, pdu.KeyValue{Key: "InitiatorName", Value: rigInitiator}, pdu.KeyValue{Key: "TargetName", Value: rigTarget})
		if err := d.Send(m.Request(d, 1, pdu.OperationalNegotiation, pdu.FullFeaturePhase, text)); err != nil {
			t.Fatal(err)
		}
		if p, err := d.Recv(); err != nil || p.LoginStatus() != x.want {
			t.Errorf("TSIH %#x: %v, %v", x.tsih, p.LoginStatus(), err)
		}
		d.Close()
	}
}

func TestTaskManagement(t *testing.T) {
	f := faulty(t)
	r := newRig(t, rigOptions{quiet: true, store: f})
	c := r.dial(r.login())
	tmf := func(fn pdu.TMF, ref *iscsitest.Task, imm bool, want pdu.TMFResponse) {
		t.Helper()
		if got, err := c.TMF(fn, 0, ref, imm); err != nil || got != want {
			t.Errorf("%v: %v, %v, want %v", fn, got, err, want)
		}
	}
	held := func() *iscsitest.Task {
		t.Helper()
		f.Inject(backingtest.Rule{Kinds: backingtest.KindSet(backing.Read), Hold: true})
		k := start(t, c, read(0, 8))
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
		k := start(t, c, w)
		for len(k.R2Ts) == 0 {
			if err := c.Pump(); err != nil {
				t.Fatal(err)
			}
		}
		return k
	}
	for _, imm := range []bool{true, false} {
		for range 3 { // unit attentions
			if _, err := c.Run(read(0, 8)); err != nil {
				t.Fatal(err)
			}
		}
		k := held()
		tmf(pdu.QueryTask, k, imm, pdu.TMFSucceeded)
		tmf(pdu.AbortTask, k, imm, pdu.TMFComplete)
		if f.Held() != 0 {
			t.Error("the response came before the task had ended")
		}
		c.Forget(k)
		tmf(pdu.AbortTask, k, imm, pdu.TMFNoTask)
		k = owing()
		tmf(pdu.AbortTask, k, imm, pdu.TMFComplete)
		c.Forget(k)
		tmf(pdu.QueryTask, k, imm, pdu.TMFComplete)
		k = held()
		o := owing()
		tmf(pdu.AbortTaskSet, nil, imm, pdu.TMFComplete)
		c.Forget(k)
		c.Forget(o)
		k = held()
		o = owing()
		tmf(pdu.LogicalReset, nil, imm, pdu.TMFComplete)
		c.Forget(k)
		c.Forget(o)
		tmf(pdu.TaskReassign, k, imm, pdu.TMFReassignmentUnsupported)
		tmf(99, nil, imm, pdu.TMFUnsupported)
	}
	if got, err := c.TMF(pdu.LogicalReset, 7, nil, true); err != nil || got != pdu.TMFNoLUN {
		t.Error(got, err)
	}
	// The reset left a unit attention; afterwards all is well.
	for i := 0; ; i++ {
		k, err := c.Run(read(0, 8))
		if err != nil || i > 3 {
			t.Fatal(err)
		}
		if k.Status == 0 {
			break
		}
	}
	// ABORT TASK of a command that is still on its way: it never runs, and the
	// window goes on behind it.
	k := &iscsitest.Task{ITT: 0x9999, CmdSN: c.CmdSN}
	p := c.TMFRequest(pdu.AbortTask, 0, k, true)
	c.CmdSN++
	p.SetCmdSN(c.CmdSN)
	if err := c.Send(p); err != nil {
		t.Fatal(err)
	}
	if a, err := c.Await(p.ITT(), pdu.OpTMFResponse); err != nil || a.Response() != 0 {
		t.Fatal(a, err)
	}
	wantGood(t, c, start(t, c, read(0, 8)))
	if len(c.Rejects) != 0 {
		t.Error("rejects:", c.Rejects[0].RejectReason())
	}
}

func TestLogoutReasons(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	c := r.dial(r.login())
	if p, err := c.Logout(pdu.LogoutRecovery, 0); err != nil || p != pdu.LogoutRecoveryUnsupported {
		t.Error(p, err)
	}
	if p, err := c.Logout(pdu.LogoutCloseConnection, 9); err != nil || p != pdu.LogoutCIDNotFound {
		t.Error(p, err)
	}
	if p, err := c.Logout(pdu.LogoutCloseConnection, 0); err != nil || p != pdu.LogoutSuccess {
		t.Error(p, err)
	}
}

func TestKeepalive(t *testing.T) {
	tempotest.Paces(t, 100*time.Millisecond, func(t testing.TB, pace time.Duration) {
		r := newRig(t, rigOptions{quiet: true, limits: Limits{PingInterval: pace, PingTimeout: pace}})
		c := r.dial(r.login())
		p, err := c.Recv()
		if err != nil || p.Opcode() != pdu.OpNOPIn || p.ITT() != pdu.ReservedTag || p.TTT() == pdu.ReservedTag {
			t.Fatal(p, err)
		}
		if err := c.Closed(tempotest.Patience); err != nil {
			t.Error(err)
		}
		if n := r.srv.Stats().Complaints["silent"]; n != 1 {
			t.Error("complaints:", n)
		}
	})
}

// A peer that answers stays, however idle; one of two that does not goes alone, and
// the other is told.
func TestPings(t *testing.T) {
	tempotest.Paces(t, 100*time.Millisecond, func(t testing.TB, pace time.Duration) {
		r := newRig(t, rigOptions{quiet: true, limits: Limits{PingInterval: pace, PingTimeout: 2 * pace}})
		_, cs := r.several(r.login(), 2)
		a, b := cs[0], cs[1]
		for len(a.Asyncs) == 0 {
			if err := a.Pump(); err != nil { // answers pings
				t.Fatal(err)
			}
		}
		if p := a.Asyncs[0]; p.AsyncEvent() != pdu.AsyncDropConnection {
			t.Error(p.AsyncEvent())
		} else if cid, _, _ := p.AsyncParameters(); cid != 1 {
			t.Error("CID", cid)
		}
		if err := b.Closed(tempotest.Patience); err != nil {
			t.Error(err)
		}
		for n := len(a.Pings); len(a.Pings) < n+2; {
			if err := a.Pump(); err != nil {
				t.Fatal(err)
			}
		}
		if n := r.connections(); n != 1 || r.srv.Stats().Complaints["silent"] != 1 {
			t.Errorf("%d connections, %+v", n, r.srv.Stats())
		}
	})
}

// Initiators that log out when they are asked to are not thrown out.
func TestLogoutOnRequest(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	r.srv.logoutGrace = time.Hour // only a logout ends the session in time
	_, cs := r.several(r.login(), 2)
	done := make(chan int, 1)
	if err := r.srv.RemoveTarget(rigTarget, 8*time.Hour, func(n int) { done <- n }); err != nil {
		t.Fatal(err)
	}
	for _, c := range cs {
		p, err := c.Recv()
		if err != nil || p.Opcode() != pdu.OpAsync || p.AsyncEvent() != pdu.AsyncLogoutRequest {
			t.Fatal(p, err)
		}
		if _, _, seconds := p.AsyncParameters(); seconds == 0 {
			t.Error("no time to log out")
		}
		if err := c.Dispatch(p); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := cs[1].Logout(pdu.LogoutCloseSession, 0); err != nil || p != pdu.LogoutSuccess {
		t.Error(p, err)
	}
	if n := tempotest.Recv(t, done, "the target ends"); n != 0 {
		t.Error(n, "stuck")
	}
	if len(cs[1].Asyncs) != 1 {
		t.Error(cs[1].Asyncs)
	}
}

// A login without TSIH ends every connection of the older session.
func TestReinstatementOfSeveral(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	_, cs := r.several(r.login(), 3)
	owing(t, cs[2], 0, make([]byte, 4096))
	c := r.dial(r.login())
	for _, o := range cs {
		if err := o.Closed(tempotest.Patience); err != nil {
			t.Error(err)
		}
	}
	if n := r.connections(); n != 1 || len(r.srv.Sessions()) != 1 {
		t.Error(n, "connections")
	}
	wantGood(t, c, start(t, c, read(0, 8)))
}

func TestCloseWithSessionsOpen(t *testing.T) {
	f := faulty(t)
	r := newRig(t, rigOptions{quiet: true, store: f})
	a := r.dial(r.login())
	l := r.login()
	l.ISID = [6]byte{0x80, 9}
	b := r.dial(l)
	f.Inject(backingtest.Rule{Kinds: backingtest.KindSet(backing.Read), Hold: true})
	start(t, b, read(0, 8))
	f.WaitHeld(1)
	half, err := net.Dial("tcp", r.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	tempotest.Wait(t, "half open", func() bool { return r.srv.Stats().HalfOpen == 1 })
	closed := make(chan error, 1)
	// A quarter of it passes where a session does not end by itself.
	go func() { closed <- r.srv.Close(8 * time.Hour) }()
	if err := a.Closed(tempotest.Patience); err != nil {
		t.Error(err)
	}
	var events []pdu.AsyncEvent
	for _, p := range a.Asyncs {
		events = append(events, p.AsyncEvent())
	}
	if len(events) != 2 || events[0] != pdu.AsyncLogoutRequest || events[1] != pdu.AsyncDropSession {
		t.Error("asynchronous messages:", events)
	}
	if err := tempotest.Recv(t, closed, "Close"); err != nil {
		t.Error(err)
	}
}

func TestRemoveTarget(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	c := r.dial(r.login())
	done := make(chan int, 1)
	if err := r.srv.RemoveTarget(rigTarget, 8*time.Hour, func(n int) { done <- n }); err != nil {
		t.Fatal(err)
	}
	if n := tempotest.Recv(t, done, "the target ends"); n != 0 {
		t.Error(n, "stuck")
	}
	if err := c.Closed(tempotest.Patience); err != nil || len(c.Asyncs) != 2 || c.Asyncs[0].AsyncEvent() != pdu.AsyncLogoutRequest || c.Asyncs[1].AsyncEvent() != pdu.AsyncDropSession {
		t.Error(err, c.Asyncs)
	}
	d, err := iscsitest.Dial(r.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var le *iscsitest.LoginError
	if err := d.Login(r.login()); !errors.As(err, &le) || le.Status != pdu.LoginNotFound {
		t.Error(err)
	}
	if err := r.srv.RemoveTarget(rigTarget, time.Second, nil); err == nil {
		t.Error("removed twice")
	}
}

func TestListen(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	_, err := r.srv.Listen(r.addr())
	if err == nil || !strings.Contains(err.Error(), r.addr()) || !strings.Contains(err.Error(), "in use") {
		t.Error(err)
	}
	if _, err := r.srv.Listen("192.0.2.1:3260"); err == nil || !strings.Contains(err.Error(), "192.0.2.1:3260") {
		t.Error(err)
	}
	if _, err := r.srv.Listen("127.0.0.1:x"); err == nil {
		t.Error("no error")
	}
	p6, err := r.srv.Listen("[::1]:0")
	if err != nil {
		t.Skip("no IPv6:", err)
	}
	// An inherited descriptor.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	file, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	pf, err := r.srv.ListenFile(file)
	file.Close()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*Portal{p6, pf} {
		c, err := iscsitest.Dial(p.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Login(r.login()); err != nil {
			t.Fatal(err)
		}
		m, err := c.SendTargets("")
		if err != nil || len(m[rigTarget]) < 2 || !strings.HasPrefix(m[rigTarget][0], p.Addr().String()) {
			t.Error(m, err)
		}
		if s := r.srv.Sessions(); len(s) != 1 || s[0].Portal != p.Addr().String() {
			t.Errorf("%+v", s)
		}
		c.Close()
		tempotest.Wait(t, "session ends", func() bool { return len(r.srv.Sessions()) == 0 })
	}
	pf.Close()
	tempotest.Wait(t, "portal gone", func() bool { return len(r.srv.Portals()) == 2 })
	f, _ := os.Open("/dev/null")
	defer f.Close()
	if _, err := r.srv.ListenFile(f); err == nil {
		t.Error("/dev/null is a socket")
	}
}

func TestHalfOpenLimit(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true, limits: Limits{HalfOpen: 4, HalfOpenPerPeer: 4, LoginQueue: -1}})
	ended := func(c net.Conn) error { // nil: the server has closed it
		c.SetDeadline(time.Now().Add(tempotest.Patience / 2))
		if _, err := c.Read(make([]byte, 1)); err == nil || iscsitest.IsTimeout(err) {
			return fmt.Errorf("not closed: %v", err)
		}
		return nil
	}
	var cs []net.Conn
	for range 4 {
		c, err := net.Dial("tcp", r.addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		cs = append(cs, c)
	}
	tempotest.Wait(t, "four", func() bool { return r.srv.Stats().HalfOpen == 4 })
	c, err := net.Dial("tcp", r.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := ended(c); err != nil {
		t.Error("the fifth:", err)
	}
	cs[0].Close()
	tempotest.Wait(t, "three", func() bool { return r.srv.Stats().HalfOpen == 3 })
	r.dial(r.login())
}

// Who does not log in in time is thrown out, and leaves room for others.
func TestLoginTimeout(t *testing.T) {
	tempotest.Paces(t, 200*time.Millisecond, func(t testing.TB, pace time.Duration) {
		r := newRig(t, rigOptions{quiet: true, limits: Limits{HalfOpen: 1, LoginTimeout: pace}})
		c, err := net.Dial("tcp", r.addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(tempotest.Patience))
		if _, err := c.Read(make([]byte, 1)); err == nil || iscsitest.IsTimeout(err) {
			t.Error("the login deadline does not hold:", err)
		}
		r.dial(r.login())
	})
}

func TestTransportID(t *testing.T) {
	b := bytes.Repeat([]byte{0xff}, 300)
	n := transportID(b, "iqn.1993-08.org.debian:01:abc", [6]byte{0x00, 0x02, 0x3d, 0x00, 0x00, 0x01}, false)
	want := append([]byte{0x45, 0, 0, 48}, "iqn.1993-08.org.debian:01:abc,i,0x00023d000001\x00\x00"...)
	if !bytes.Equal(b[:n], want) {
		t.Errorf("% x", b[:n])
	}
	if n := transportID(b, "a", [6]byte{}, false); n != 24 {
		t.Error(n)
	}
	if n := transportID(b, strings.Repeat("x", 223), [6]byte{}, false); n != 248 || n%4 != 0 {
		t.Error(n)
	}
}
