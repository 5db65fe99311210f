package iscsi

import (
	"bytes"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/iscsi/iscsitest"
	"github.com/vtgt/vtgt/iscsi/pdu"
)

func (r *rig) other(i byte) *iscsitest.Conn {
	l := r.login()
	l.ISID = [6]byte{0x80, 0, 0, 9, 0, i}
	return r.dial(l)
}

// owing starts a write whose data are asked for and do not come.
func owing(t testing.TB, c *iscsitest.Conn, lba uint32, data []byte) *iscsitest.Task {
	t.Helper()
	w := write(lba, data)
	w.NoImmediateData, w.NoUnsolicited, w.HoldR2T = true, true, true
	k := start(t, c, w)
	for len(k.R2Ts) == 0 {
		if err := c.Pump(); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

// Task management of one session ends the writes of another that still wait for their
// data: when it is answered, none of these can land any more.
func TestResetEndsWaitingWrites(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	a, b := r.other(1), r.other(2)
	old, bad := bytes.Repeat([]byte{1}, 4096), bytes.Repeat([]byte{2}, 4096)
	for _, x := range []struct {
		fn   pdu.TMF
		own  bool
		want uint16 // unit attention of the other session; 0: not affected
	}{
		{pdu.LogicalReset, false, 0x2903}, {pdu.ClearTaskSet, false, 0x2f00}, {pdu.TargetWarmReset, false, 0x2902},
		{pdu.AbortTaskSet, false, 0}, {pdu.LogicalReset, true, 0}, {pdu.AbortTaskSet, true, 0},
	} {
		if _, _, err := again(a, write(0, old)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := again(b, read(0, 8)); err != nil {
			t.Fatal(err)
		}
		k := owing(t, b, 0, bad)
		from := a
		if x.own {
			from = b
		}
		if got, err := from.TMF(x.fn, 0, nil, true); err != nil || got != pdu.TMFComplete {
			t.Fatal(x.fn, got, err)
		}
		if err := b.AnswerR2T(k, k.R2Ts[0]); err != nil {
			t.Fatal(err)
		}
		lands := x.want == 0 && !x.own
		if lands {
			wantGood(t, b, k)
		} else {
			silent(t, b, 30*time.Millisecond)
			b.Forget(k)
		}
		_, uas, err := again(b, read(0, 8))
		if err != nil || x.want != 0 && (len(uas) != 1 || uas[0] != x.want) || lands && len(uas) > 0 {
			t.Errorf("%v: unit attentions %x, %v", x.fn, uas, err)
		}
		rd, _, err := again(a, read(0, 8))
		if err != nil || !bytes.Equal(rd.In, old) != lands {
			t.Errorf("%v, own %v: %v; the data landed: %v", x.fn, x.own, err, !bytes.Equal(rd.In, old))
		}
		// What comes afterwards is not affected.
		k = owing(t, b, 0, old)
		if err := b.AnswerR2T(k, k.R2Ts[0]); err != nil {
			t.Fatal(err)
		}
		wantGood(t, b, k)
	}
	// An answer may be here before its buffers are back.
	if !tempotest.Settles(func() bool { return r.slabs.Used() == 0 }) {
		t.Errorf("%d bytes of slabs are held", r.slabs.Used())
	}
}

// TARGET COLD RESET ends every session of the target, after its answer.
func TestColdReset(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	a, b := r.other(1), r.other(2)
	k := owing(t, b, 0, make([]byte, 4096))
	if got, err := a.TMF(pdu.TargetColdReset, 0, nil, true); err != nil || got != pdu.TMFComplete {
		t.Fatal(got, err)
	}
	for _, c := range []*iscsitest.Conn{a, b} {
		if err := c.Closed(tempotest.Patience); err != nil || len(c.Asyncs) != 1 || c.Asyncs[0].AsyncEvent() != pdu.AsyncDropSession {
			t.Error(err, c.Asyncs)
		}
	}
	_ = k
	tempotest.Wait(t, "the sessions end", func() bool { return r.srv.Stats().Sessions == 0 })
	c := r.dialOnly(r.login())
	if k, err := c.Run(read(0, 8)); err != nil || k.Status != 2 {
		t.Error("no unit attention after the reset:", err)
	}
}

// A command whose immediate data have a wrong digest is rejected and counts as not
// received: the gap in CmdSN is filled by sending it again, or by aborting it
// (RFC 7143 §7.8, §11.17.1).
func TestBadDigestOfImmediateData(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	l := r.login()
	l.HeaderDigest, l.DataDigest = true, true
	c := r.dial(l)
	for _, abort := range []bool{false, true} {
		data := random(4096)
		sn := c.CmdSN
		p := new(iscsitest.PDU)
		p.Reset(pdu.OpSCSICommand)
		p.SetFinal(true)
		p.SetWrite(true)
		p.SetAttr(pdu.AttrSimple)
		p.SetITT(c.NextITT())
		p.SetCmdSN(sn)
		p.SetExpectedDataTransferLength(4096)
		p.SetCDB(rw10(0x2a, 64, 8))
		p.Data = data
		if err := c.SendRaw(c.Encode(p, iscsitest.BadDataDigest)); err != nil {
			t.Fatal(err)
		}
		c.CmdSN++
		rej, err := c.Recv()
		if err != nil || rej.Opcode() != pdu.OpReject || rej.RejectReason() != pdu.RejectDataDigest || !bytes.Equal(rej.Data, p.BHS[:]) {
			t.Fatal(rej, err)
		}
		if rej.ExpCmdSN() != sn {
			t.Errorf("ExpCmdSN %d, sent %d", rej.ExpCmdSN(), sn)
		}
		if err := c.Dispatch(rej); err != nil {
			t.Fatal(err)
		}
		// What comes behind it waits.
		k := start(t, c, read(64, 8))
		silent(t, c, 30*time.Millisecond)
		if abort {
			if got, err := c.TMF(pdu.AbortTask, 0, &iscsitest.Task{ITT: p.ITT(), CmdSN: sn}, true); err != nil || got != pdu.TMFComplete {
				t.Error(got, err)
			}
			wantGood(t, c, k)
			if bytes.Equal(k.In, data) {
				t.Error("the data of a rejected command were written")
			}
			continue
		}
		if err := c.Send(p); err != nil {
			t.Fatal(err)
		}
		resp, err := c.Recv()
		if err != nil || resp.Opcode() != pdu.OpSCSIResponse || resp.ITT() != p.ITT() || resp.Status() != 0 {
			t.Fatal(resp, err)
		}
		c.ExpStatSN++
		wantGood(t, c, k)
		if !bytes.Equal(k.In, data) {
			t.Error("the data that were sent again are not there")
		}
	}
}

// A Reject has the whole header, additional segments too.
func TestRejectHasAHS(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	l := r.login()
	l.HeaderDigest, l.DataDigest = true, true
	for _, seg := range []int{16, 200} {
		c := r.dial(l)
		p := new(iscsitest.PDU)
		p.Reset(pdu.OpSCSICommand)
		p.SetFinal(true)
		p.SetWrite(true)
		p.SetITT(c.NextITT())
		p.SetCmdSN(c.CmdSN)
		p.SetExpectedDataTransferLength(4096)
		cdb := append([]byte{0x7f, 0, 0, 0, 0, 0, 0, byte(seg - 8)}, make([]byte, seg)...)
		p.SetCDB(cdb[:16])
		p.AHS = pdu.AppendExtendedCDB(nil, append(cdb[:16:16], random(seg)...))
		p.Data = make([]byte, 4096)
		if err := c.SendRaw(c.Encode(p, iscsitest.BadDataDigest)); err != nil {
			t.Fatal(err)
		}
		rej, err := c.Recv()
		if err != nil || rej.Opcode() != pdu.OpReject {
			t.Fatal(rej, err)
		}
		if want := append(p.BHS[:], p.AHS...); !bytes.Equal(rej.Data, want) {
			t.Errorf("%d bytes, want %d", len(rej.Data), len(want))
		}
		c.Close()
	}
}

// Data that never come, and a command that never comes.
func TestStall(t *testing.T) {
	tempotest.Paces(t, 60*time.Millisecond, func(t testing.TB, pace time.Duration) {
		r := newRig(t, rigOptions{quiet: true, limits: Limits{StallTimeout: 4 * pace}})
		_, cs := r.several(r.login(), 2)
		owing(t, cs[1], 0, make([]byte, 4096))
		if err := cs[1].Closed(tempotest.Patience); err != nil {
			t.Error("owed data:", err)
		}
		for len(cs[0].Asyncs) == 0 {
			if err := cs[0].Pump(); err != nil {
				t.Fatal(err)
			}
		}
		if p := cs[0].Asyncs[0]; p.AsyncEvent() != pdu.AsyncDropConnection {
			t.Error(p.AsyncEvent())
		} else if cid, _, _ := p.AsyncParameters(); cid != 1 {
			t.Error("CID", cid)
		}
		if n := r.connections(); n != 1 {
			t.Error(n, "connections")
		}
		if _, _, err := again(cs[0], read(0, 8)); err != nil {
			t.Fatal(err)
		}
		// A connection that is only slow is left alone.
		c := r.other(1)
		k := owing(t, c, 0, make([]byte, 4096))
		for i := range 8 {
			time.Sleep(pace)
			if err := c.Send(c.DataOut(k, k.R2Ts[0].TTT(), uint32(i), i*512, make([]byte, 512), i == 7)); err != nil {
				t.Fatal(err)
			}
		}
		wantGood(t, c, k)
		// Behind a gap.
		cs[0].Hold()
		start(t, cs[0], read(0, 8))
		cs[0].Release(0, 0)
		d := r.other(3)
		d.CmdSN++
		start(t, d, read(0, 8))
		if err := d.Closed(tempotest.Patience); err != nil {
			t.Error("a gap:", err)
		}
		if n := r.srv.Stats().Complaints["stalled"]; n != 2 {
			t.Error(n, "complaints")
		}
	})
}
