package ibmvio

import (
	"github.com/vtgt/vtgt/ibmvio/crq"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/srp/iu"
)

// serve does what the SRP unit in s says.
func (a *adapter) serve(s *slot) {
	b := s.buf[:s.n]
	t := iu.Type(b[0])
	switch {
	case t == iu.TypeLoginReq && a.bare:
		a.bare = false
		a.ch.Reset()
	case a.ch.State() == iu.AwaitLogin && (t == iu.TypeCmd || t == iu.TypeTskMgmt):
		// Firmware: no datagram, no login.
		a.bare = true
		a.ch.Open()
		a.set(LoggedIn)
	}
	v, err := a.ch.Receive(b)
	switch v {
	case iu.Reply:
		s.tag = iu.Tag(b)
		if a.ch.State() == iu.LoggedIn && iu.Type(a.ch.Reply[0]) == iu.TypeLoginRsp {
			a.owed = 0
			a.count.Logins.Add(1)
			a.set(LoggedIn)
		} else {
			a.count.Rejects.Add(1)
		}
		s.reply(copy(s.buf[:], a.ch.Reply), crq.OK)
	case iu.Answered:
		a.serving--
		a.put(s)
	case iu.Logout:
		// What is still under way ends unanswered; then the client may log in again.
		a.put(s)
		a.forget(true)
		a.set(Connected)
		a.reset(false)
	case iu.Violation:
		a.put(s)
		a.violation(err)
	case iu.Serve:
		if t == iu.TypeTskMgmt {
			a.manage(s, iu.AsTskMgmt(b[:iu.TskMgmtLen]))
			return
		}
		a.command(s, b)
	}
}

// bind gets a request for s at t. false: there is none to be had.
func (a *adapter) bind(s *slot, t *target) bool {
	r := t.q.Get()
	if r == nil {
		return false
	}
	r.Own.(*part).s = s
	s.t, s.r = t, r
	a.used = true
	return true
}

// manage begins a task management function.
func (a *adapter) manage(s *slot, u *iu.TskMgmt) {
	s.tag, s.sol = u.Tag(), u.SolNot()
	t, lun := a.table.Load().find(u.LUN())
	f, ok := u.Func().SCSI()
	if !ok {
		a.code(s, iu.CodeNotSupported)
		return
	}
	if !a.bind(s, t) {
		a.code(s, iu.CodeFailed)
		return
	}
	r := s.r
	r.Tag, r.LUN, r.TaskTag = s.tag, lun, u.TaskTag()
	a.count.Functions.Add(1)
	t.q.Manage(r, f)
}

// command begins a command.
func (a *adapter) command(s *slot, b []byte) {
	k, err := iu.ParseCmd(b, maxDesc)
	if err != nil {
		a.put(s)
		a.violation(err)
		return
	}
	s.tag, s.sol = k.Tag(), k.SolNot()
	a.count.Commands.Add(1)
	if a.serving > a.conf.Limit {
		// Linux's limit grows by one with each successful abort: it is told, not
		// cut off.
		a.count.Busy.Add(1)
		a.bareStatus(s, scsi.StatusBusy)
		return
	}
	t, lun := a.table.Load().find(k.LUN())
	if !a.bind(s, t) {
		a.bareStatus(s, scsi.StatusBusy)
		return
	}
	r := s.r
	k.Fill(&r.Task)
	r.LUN = lun
	// The lists point into buf, which is theirs until the response.
	s.out, s.in = k.Out, k.In
	r.OutSize, r.InSize = int64(k.Out.Len), int64(k.In.Len)
	t.kick = true
	a.flushLater()
	t.q.Submit(r)
}

// rsp begins a response in s.
func (a *adapter) rsp(s *slot) *iu.Rsp {
	u := iu.AsRsp(s.buf[:])
	u.Reset()
	u.SetTag(s.tag)
	u.SetDelta(a.owed + 1)
	a.owed = 0
	return u
}

// bareStatus answers with a status alone.
func (a *adapter) bareStatus(s *slot, st scsi.Status) {
	u := a.rsp(s)
	u.SetSolNot(s.sol.Response(false))
	u.SetStatus(st)
	s.reply(iu.RspLen, crq.OK)
}

// code answers a task management function.
func (a *adapter) code(s *slot, c iu.RspCode) {
	a.rsp(s).SetSolNot(s.sol.Response(c == iu.CodeComplete))
	s.reply(iu.PutCode(s.buf[:], c), crq.OK)
}

// respond takes r back from the port.
func (a *adapter) respond(t *target, r *srp.Request) {
	s := r.Own.(*part).s
	if s == nil { // absorb's
		a.absorbed(t, r)
		return
	}
	r.Own.(*part).s = nil
	switch {
	case s.dead():
		t.q.Put(r)
		a.put(s)
	case r.Func != 0:
		c := iu.CodeOf(r.Response)
		t.q.Put(r)
		a.code(s, c)
	case r.Aborted:
		// No unit; its credit comes with the next one.
		t.q.Put(r)
		a.owed++
		a.serving--
		a.put(s)
	default:
		n, st := a.result(s, r)
		t.q.Put(r)
		s.reply(n, st)
	}
}

// result makes the response to a command.
func (a *adapter) result(s *slot, r *srp.Request) (n int, st crq.Status) {
	out, in := r.Residuals()
	u := a.rsp(s)
	if a.fast && failsFast(r) {
		u.SetSolNot(s.sol.Response(false))
		return iu.RspLen, crq.AdapterFail
	}
	u.SetSolNot(s.sol.Response(r.Status == scsi.StatusGood))
	u.SetStatus(r.Status)
	a.residuals(u, out, in)
	if r.SenseLen == 0 {
		return iu.RspLen, crq.OK
	}
	// Firmware that has agreed to nothing has room for as much as it sent, at least for
	// sense data of fixed format.
	room := maxIU
	if a.bare {
		room = max(s.n, iu.RspLen+18)
	}
	return iu.PutSense(s.buf[:], r.Sense[:min(int(r.SenseLen), room-iu.RspLen)]), crq.OK
}

// residuals puts them into u. Linux takes what is left of a buffer from the overflow
// flags and looks at no other (ibmvscsi.c, handle_cmd_rsp); for it an overflow cannot be
// told. Everybody else gets what SRP says.
func (a *adapter) residuals(u *iu.Rsp, out, in int64) {
	linux := a.os == crq.OSLinux
	doLeft, diLeft := iu.DOUnder, iu.DIUnder
	if linux {
		doLeft, diLeft = iu.DOOver, iu.DIOver
	}
	var f iu.RspFlags
	switch {
	case out > 0:
		f |= doLeft
		u.SetOutResidual(uint32(out))
	case out < 0 && !linux:
		f |= iu.DOOver
		u.SetOutResidual(uint32(-out))
	}
	switch {
	case in > 0:
		f |= diLeft
		u.SetInResidual(uint32(in))
	case in < 0 && !linux:
		f |= iu.DIOver
		u.SetInResidual(uint32(-in))
	}
	u.SetFlags(f)
}

// failsFast tells whether a client that asked for fast fail hears of r's end by the
// status of the entry: a READ or WRITE that the device could not do at all.
func failsFast(r *srp.Request) bool {
	if r.Status != scsi.StatusCheckCondition || r.SenseLen < 3 || r.InLen != 0 {
		return false
	}
	key := r.Sense[2]
	if r.Sense[0]&0x7f >= 0x72 {
		key = r.Sense[1]
	}
	if scsi.SenseKey(key&15) != scsi.HardwareError {
		return false
	}
	switch r.CDB[0] {
	case 0x08, 0x28, 0xa8, 0x88, 0x0a, 0x2a, 0xaa, 0x8a:
		return true
	}
	return false
}

// absorb takes the unit attention conditions off that tell a client of the loss of its
// nexus, by a TEST UNIT READY for each logical unit: it has been told by event 6, and what
// it sends again, commands of its users among them, must not fail of it.
func (a *adapter) absorb() {
	n := 0
	for _, t := range a.table.Load().list {
		for _, m := range t.port.Nexus().LUNs() {
			r := t.q.Get()
			if r == nil {
				continue
			}
			r.Own.(*part).s = nil
			r.LUN, r.Tag, r.Attr = scsi.EncodeLUN(m.LUN), uint64(n), 0 // SIMPLE
			clear(r.CDB[:])
			r.CDBLen = 6
			r.OutSize, r.InSize = 0, 0
			n++
			a.resets++
			t.kick = true
			a.used = true
			t.q.Submit(r)
		}
	}
	a.flushLater()
	if n == 0 {
		a.settled()
	}
}

// absorbed is the end of one of them.
func (a *adapter) absorbed(t *target, r *srp.Request) {
	t.q.Put(r)
	if a.resets--; a.resets == 0 {
		a.loop.Later(a.settled)
	}
}
