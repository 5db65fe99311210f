package iscsi

import (
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/slab"
	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/iscsi/iscsitest"
	"github.com/vtgt/vtgt/iscsi/login"
	"github.com/vtgt/vtgt/iscsi/pdu"
	"github.com/vtgt/vtgt/scsi"
)

// stream is an endpoint that plays a peer's bytes in pieces and takes what comes in
// bites, now and then nothing.
type stream struct {
	in     []byte
	piece  int
	sent   int
	turn   int
	closed bool
	ev     loop.Events
}

func (s *stream) open(_ *loop.Loop, ev loop.Events, _ loop.ReadyHandler) error {
	s.ev = ev
	return nil
}
func (s *stream) want(ev loop.Events) { s.ev = ev }
func (s *stream) close()              { s.closed = true }

func (s *stream) recv(v *sys.SockVec) (int, error) {
	if s.turn++; s.turn%3 == 0 {
		return 0, syscall.EAGAIN
	}
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	n := v.CopyIn(s.in[:min(len(s.in), s.piece)])
	s.in = s.in[n:]
	return n, nil
}

func (s *stream) send(v *sys.SockVec) (int, error) {
	if s.turn++; s.turn%5 == 0 {
		return 0, syscall.EAGAIN
	}
	n := min(v.Bytes(), s.piece*3)
	s.sent += n
	return n, nil
}

// fakeCore ends every command at once or, for odd tags, later; in orderly ways and
// others. It is the nexus; each connection has a fakeLane.
type fakeCore struct {
	s     *session
	later []*scsi.Task
	lane  map[*scsi.Task]*fakeLane
}

type fakeLane struct{ *fakeCore }

func (f *fakeCore) Lengths(t *scsi.Task) (out, in int64) {
	n := int64(t.CDB[7])<<16 | int64(t.CDB[8])<<8 | int64(t.CDB[9])
	switch t.CDB[0] & 3 {
	case 1:
		return n, 0
	case 2:
		return 0, n
	}
	return 0, 0
}

func (f *fakeCore) Announce(*scsi.Task) {}
func (f *fakeCore) Withdraw(*scsi.Task) {}
func (f *fakeCore) Cleared(scsi.LUN)    {}

func (f *fakeLane) Submit(t *scsi.Task) {
	t.Status, t.Aborted, t.SenseLen, t.InLen, t.Want = 0, false, 0, 0, 0
	if t.Tag&1 != 0 && len(f.later) < 200 {
		f.later = append(f.later, t)
		f.lane[t] = f
		return
	}
	f.end(t)
}

func (f *fakeCore) end(t *scsi.Task) {
	out, in := f.Lengths(t)
	t.Want = out + in
	for _, b := range t.DataIn {
		clear(b)
		t.InLen += int64(len(b))
	}
	for _, b := range t.DataOut {
		_ = b[len(b)-1]
	}
	if t.CDB[1]&7 == 1 {
		t.Status, t.SenseLen = scsi.StatusCheckCondition, 18
	}
	t.Aborted = t.CDB[1]&7 == 2
	f.s.Done(t)
}

func (f *fakeCore) Kick() {}

// abort ends the tasks of lane l; nil: of all.
func (f *fakeCore) abort(l *fakeLane) {
	var left []*scsi.Task
	all := f.later
	f.later = nil
	for _, t := range all {
		if l != nil && f.lane[t] != l {
			left = append(left, t)
			continue
		}
		t.Aborted = true
		f.s.Done(t)
	}
	f.later = append(f.later, left...)
}

func (f *fakeCore) Manage(m *scsi.TMF) {
	m.Response = scsi.TMComplete
	f.abort(nil)
	m.Done(m)
}

func (f *fakeCore) Close(_ time.Duration, done func(int)) {
	f.abort(nil)
	go done(0)
}

func (f *fakeLane) Close(done func(int)) {
	f.abort(f)
	go done(0)
}

// FuzzConn feeds bytes to a connection in full feature phase. It must not panic, its
// memory must stay within bounds, and nothing may be left when it has ended. The
// first byte chooses what was negotiated, the second how the bytes come.
func FuzzConn(f *testing.F) {
	pdus := func(ps ...*iscsitest.PDU) (b []byte) {
		for i, p := range ps {
			if p.Opcode() != pdu.OpDataOut {
				p.SetCmdSN(uint32(1 + i))
			}
			b = append(b, iscsitest.Encode(p, false, false, 0)...)
		}
		return b
	}
	mk := func(op pdu.Opcode, edit func(p *iscsitest.PDU)) *iscsitest.PDU {
		p := new(iscsitest.PDU)
		p.Reset(op)
		p.SetFinal(true)
		p.SetITT(2)
		p.SetTTT(pdu.ReservedTag)
		edit(p)
		return p
	}
	cmd := func(op byte, n int, itt uint32, data int, final bool) *iscsitest.PDU {
		return mk(pdu.OpSCSICommand, func(p *iscsitest.PDU) {
			p.SetITT(itt)
			p.SetFinal(final)
			p.SetRead(op&3 == 2)
			p.SetWrite(op&3 == 1)
			p.SetExpectedDataTransferLength(uint32(n))
			p.SetCDB([]byte{op, 0, 0, 0, 0, 0, 0, byte(n >> 16), byte(n >> 8), byte(n)})
			p.Data = make([]byte, data)
		})
	}
	out := func(itt, ttt, off uint32, n int, final bool) *iscsitest.PDU {
		return mk(pdu.OpDataOut, func(p *iscsitest.PDU) {
			p.SetITT(itt)
			p.SetTTT(ttt)
			p.SetBufferOffset(off)
			p.SetFinal(final)
			p.Data = make([]byte, n)
		})
	}
	// Two connections: the second half of the bytes, with CmdSN from sn on, is the other's.
	// Pings that want no answer fill up.
	two := func(how string, a, b []*iscsitest.PDU, first, second uint32) []byte {
		enc := func(ps []*iscsitest.PDU, sn uint32) []byte {
			x := pdus(ps...)
			for i, off := 0, 0; i < len(ps); i++ {
				if h := (*pdu.BHS)(x[off:]); h.Opcode() != pdu.OpDataOut {
					h.SetCmdSN(sn + uint32(i))
				}
				off += pdu.BHSLen + pdu.PaddedLen(len(ps[i].Data))
			}
			return x
		}
		x, y := enc(a, first), enc(b, second)
		fill := pdus(mk(pdu.OpNOPOut, func(p *iscsitest.PDU) { p.SetITT(pdu.ReservedTag); p.SetImmediate(true) }))
		for len(x) != len(y) {
			if len(x) < len(y) {
				x = append(x, fill[:min(len(fill), len(y)-len(x))]...)
			} else {
				y = append(y, fill[:min(len(fill), len(x)-len(y))]...)
			}
		}
		return append(append([]byte(how), x...), y...)
	}
	for _, how := range []string{"\x40\x40", "\x40\x01", "\x50\xff"} {
		rd, wr := cmd(2, 4096, 3, 0, true), cmd(1, 3000, 4, 100, false)
		abort := mk(pdu.OpTMFRequest, func(p *iscsitest.PDU) {
			p.SetFunction(pdu.AbortTaskSet)
			p.SetImmediate(true)
			p.SetITT(9)
		})
		bye := mk(pdu.OpLogoutRequest, func(p *iscsitest.PDU) { p.SetLogoutReason(pdu.LogoutCloseConnection); p.SetCID(1) })
		f.Add(two(how, []*iscsitest.PDU{rd}, []*iscsitest.PDU{wr, out(4, pdu.ReservedTag, 100, 924, true), out(4, 0, 1024, 1976, true)}, 2, 1))
		f.Add(two(how, []*iscsitest.PDU{rd, abort}, []*iscsitest.PDU{wr}, 3, 1))
		f.Add(two(how, []*iscsitest.PDU{rd, bye, cmd(2, 512, 6, 0, true)}, []*iscsitest.PDU{wr, cmd(2, 1<<22, 5, 0, true)}, 2, 1))
		f.Add(two(how, []*iscsitest.PDU{cmd(2, 1<<22, 3, 0, true), cmd(1, 1<<22, 5, 512, true)}, []*iscsitest.PDU{cmd(1, 1<<22, 7, 1000, true)}, 2, 1))
	}
	for _, how := range []string{"\x00\x40", "\x10\xff", "\x03\x11", "\x0c\x30"} {
		f.Add(append([]byte(how), pdus(cmd(2, 4096, 2, 0, true), cmd(1, 3000, 4, 100, false), out(4, pdu.ReservedTag, 100, 924, true), out(4, 0, 1024, 1976, true))...))
		f.Add(append([]byte(how), pdus(cmd(1, 3000, 3, 0, true), out(3, 0, 0, 2048, true), out(3, 1, 2048, 952, true),
			mk(pdu.OpTMFRequest, func(p *iscsitest.PDU) { p.SetFunction(pdu.LogicalReset) }))...))
		f.Add(append([]byte(how), pdus(
			mk(pdu.OpNOPOut, func(p *iscsitest.PDU) { p.Data = []byte("hello") }),
			mk(pdu.OpTextRequest, func(p *iscsitest.PDU) { p.Data = []byte("SendTargets=\x00") }),
			mk(pdu.OpTMFRequest, func(p *iscsitest.PDU) { p.SetFunction(pdu.AbortTask); p.SetReferencedTaskTag(4) }),
			mk(pdu.OpSNACK, func(p *iscsitest.PDU) {}),
			mk(pdu.OpLogoutRequest, func(p *iscsitest.PDU) {}))...))
		f.Add(append([]byte(how), pdus(cmd(2, 1<<22, 3, 0, true), cmd(2, 1<<22, 5, 0, true), cmd(1, 1<<22, 7, 0, true), cmd(1, 1<<22, 9, 512, true),
			mk(pdu.OpTMFRequest, func(p *iscsitest.PDU) { p.SetFunction(pdu.AbortTaskSet) }))...))
	}
	pool := slab.New(16 << 20)
	g, err := loop.NewGroup(loop.Config{Loops: 1, Slabs: pool})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(g.Close)
	srv := NewServer(Config{Group: g, Limits: Limits{Window: 16, SessionMemory: 6 << 20, MaxTransfer: 6 << 20}})
	core := &fakeCore{}
	tgt := &target{TargetConfig: TargetConfig{Name: rigTarget}}
	tgt.attach = func(s *session) error {
		s.nexus = core
		s.newLane = func() (lane, error) { return &fakeLane{core}, nil }
		return nil
	}
	if err := srv.addTarget(tgt); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 2 || len(b) > 1<<18 {
			return
		}
		p := login.Params{InitiatorName: rigInitiator, TargetName: rigTarget,
			MaxRecvDataSegmentLength: 65536, MaxXmitDataSegmentLength: 8192, MaxBurstLength: 2048, FirstBurstLength: 1024,
			MaxOutstandingR2T: 2, ExpCmdSN: 1, StatSN: 1,
			HeaderDigest: b[0]&1 != 0, DataDigest: b[0]&2 != 0, InitialR2T: b[0]&4 != 0, ImmediateData: b[0]&8 == 0}
		if b[0]&0x10 != 0 {
			p.MaxXmitDataSegmentLength, p.MaxBurstLength, p.FirstBurstLength = 1<<20, 1<<20, 65536
		}
		// One connection, or two that share the bytes.
		ins := [][]byte{b[2:]}
		if b[0]&0x40 != 0 {
			half := len(b[2:]) / 2
			ins = [][]byte{b[2 : 2+half], b[2+half:]}
		}
		p.MaxConnections = 2
		s, st, _ := srv.admit(&p, SessionInfo{})
		if st != pdu.LoginSuccess {
			t.Fatal(st)
		}
		core.s, core.later, core.lane = s, nil, make(map[*scsi.Task]*fakeLane)
		var eps []*stream
		var cs []*conn
		s.l.Do(func() {
			for i, in := range ins {
				ep := &stream{in: append([]byte(nil), in...), piece: 1 + int(b[1])*16}
				if p.CID = uint16(i); i > 0 {
					if _, st := s.join(p.CID); st != pdu.LoginSuccess {
						t.Log(st) // the first has ended already
						return
					}
				}
				if err := s.open(ep, &p, &SessionInfo{}, nil); err != nil {
					t.Error(err)
				}
				if len(s.conns) > i {
					cs, eps = append(cs, s.conns[i]), append(eps, ep)
				}
			}
		})
		for i := 0; ; i++ {
			dead := 0
			s.l.Do(func() {
				for j, c := range cs {
					if len(core.later) > 3 && !c.dead {
						k := core.later[0]
						core.later = core.later[1:]
						core.end(k)
					}
					if ep := eps[j]; !c.dead {
						c.ready(ep.ev&loop.In != 0, ep.ev&loop.Out != 0, false)
					}
					if c.requests > 16+maxImmediate+64+roundPDUs+2 || s.memory > 12<<20 {
						t.Errorf("%d requests, %d bytes", c.requests, s.memory)
					}
					if !c.dead && i > 400 {
						// It waits for more than will come.
						c.drop()
					}
					if c.dead {
						dead++
					}
				}
			})
			if dead == len(cs) {
				break
			}
		}
		tempotest.Recv(t, s.gone, "the session ends")
		s.l.Do(func() {
			for j, c := range cs {
				if c.requests != 0 || c.inCore != 0 || c.owed != 0 || s.owed != 0 || s.memory != 0 || s.immediates != 0 || s.unserved != 0 || !eps[j].closed {
					t.Errorf("left behind: %d requests, %d in the core, %d owed (%d in the session), %d bytes, %d immediate, %d unserved",
						c.requests, c.inCore, c.owed, s.owed, s.memory, s.immediates, s.unserved)
				}
			}
			for i := range s.held {
				if r := s.held[i]; r != nil && r != &s.hole {
					t.Error("a request is held still")
				}
			}
		})
		if n := pool.Used(); n != 0 {
			t.Errorf("%d bytes of slabs", n)
		}
	})
}
