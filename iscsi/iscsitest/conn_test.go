package iscsitest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/vtgt/vtgt/iscsi/pdu"
)

func dial(t *testing.T, tg *Target, l Login) *Conn {
	t.Helper()
	c, err := tg.Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Login(l); err != nil {
		t.Fatal(err)
	}
	return c
}

func rw(op byte, blocks int) []byte {
	return []byte{op, 0, 0, 0, 0, 0, 0, byte(blocks >> 8), byte(blocks), 0}
}

func TestReadWrite(t *testing.T) {
	tg := start(t, nil)
	for _, hd := range []bool{false, true} {
		for _, dd := range []bool{false, true} {
			for _, kv := range [][]pdu.KeyValue{
				nil,
				{{Key: "InitialR2T", Value: "Yes"}},
				{{Key: "ImmediateData", Value: "No"}},
				{{Key: "InitialR2T", Value: "Yes"}, {Key: "ImmediateData", Value: "No"}},
				{{Key: "MaxRecvDataSegmentLength", Value: "512"}, {Key: "FirstBurstLength", Value: "1024"}},
			} {
				t.Run(fmt.Sprint(hd, dd, kv), func(t *testing.T) {
					l := tg.Login
					l.HeaderDigest, l.DataDigest, l.Keys, l.Security = hd, dd, kv, true
					c := dial(t, tg, l)
					if c.HeaderDigest != hd || c.DataDigest != dd {
						t.Fatalf("digests %v %v", c.HeaderDigest, c.DataDigest)
					}
					data := make([]byte, 200*512)
					for i := range data {
						data[i] = byte(rand.Uint32())
					}
					r, err := c.Run(&Command{CDB: rw(0x2a, 200), Out: data})
					if err != nil || r.Status != 0 {
						t.Fatalf("WRITE: %v %+v", err, r)
					}
					r, err = c.Run(&Command{CDB: rw(0x28, 200), In: len(data)})
					if err != nil || !bytes.Equal(r.In, data) {
						t.Fatalf("READ: %v", err)
					}
					if !r.PhaseCollapse {
						t.Error("the fake sends status with data")
					}
					if err := c.NOP([]byte("abcde"), true); err != nil {
						t.Error(err)
					}
					if a, err := c.TMF(pdu.AbortTask, 0, r, false); err != nil || a != pdu.TMFNoTask {
						t.Error(a, err)
					}
					if a, err := c.Logout(pdu.LogoutCloseSession, 0); err != nil || a != 0 {
						t.Error(a, err)
					}
				})
			}
		}
	}
}

func TestResiduals(t *testing.T) {
	c := dial(t, start(t, nil), Login{InitiatorName: fakeHost, TargetName: fakeTarget})
	r, err := c.Run(&Command{CDB: rw(0x28, 1), In: 2048})
	if err != nil || r.Residual != pdu.Underflow || r.Count != 1536 {
		t.Errorf("underflow: %v %+v", err, r)
	}
	r, err = c.Run(&Command{CDB: rw(0x28, 4), In: 512})
	if err != nil || r.Residual != pdu.Overflow || r.Count != 1536 {
		t.Errorf("overflow: %v %+v", err, r)
	}
	r, err = c.Run(&Command{CDB: []byte{0xc0, 0, 0, 0, 0, 0}})
	if err != nil || r.Status != 2 {
		t.Fatalf("%v %+v", err, r)
	}
	if k, a := Sense(r.Sense); k != 5 || a != 0x2000 {
		t.Errorf("sense %x %04x", k, a)
	}
}

func TestLoginRefused(t *testing.T) {
	tg := start(t, nil)
	c, err := tg.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l := tg.Login
	l.TargetName = "iqn.2026-11.org.example:nobody"
	var le *LoginError
	if err := c.Login(l); !errors.As(err, &le) || le.Status != pdu.LoginNotFound {
		t.Errorf("%v", err)
	}
	if err := c.Closed(DefaultTimeout); err != nil {
		t.Error(err)
	}
}

func TestDiscovery(t *testing.T) {
	tg := start(t, nil)
	c := dial(t, tg, Login{InitiatorName: fakeHost, Discovery: true})
	m, err := c.SendTargets("All")
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(m); got != "map["+fakeTarget+":[127.0.0.1:3260,1 [::1]:3260,1]]" {
		t.Error(got)
	}
}

// A command in the same write as the last Login Request, then everything in
// fragments of one byte.
func TestPipelinedAndFragmented(t *testing.T) {
	tg := start(t, nil)
	c, err := tg.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := new(PDU)
	p.Reset(pdu.OpNOPOut)
	p.SetImmediate(true)
	p.SetITT(4711)
	p.SetTTT(pdu.ReservedTag)
	p.SetCmdSN(c.CmdSN)
	l := tg.Login
	l.Split = 50
	l.HeaderDigest = true
	l.Trailer = Encode(p, true, false, 0)
	if err := c.Login(l); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Await(4711, pdu.OpNOPIn); err != nil {
		t.Fatal(err)
	}
	c.Hold()
	var ts []*Task
	for range 3 {
		x, err := c.Start(&Command{CDB: rw(0x2a, 2), Out: make([]byte, 1024)})
		if err != nil {
			t.Fatal(err)
		}
		ts = append(ts, x)
	}
	if err := c.Release(1, 0); err != nil {
		t.Fatal(err)
	}
	for _, x := range ts {
		if err := c.Wait(x); err != nil || x.Status != 0 {
			t.Fatal(err)
		}
	}
}

// The initiator is a judge: every rule that it checks is broken once.
func TestNotices(t *testing.T) {
	for name, tc := range map[string]struct {
		op    pdu.Opcode
		spoil func(p *PDU)
	}{
		"StatSN":          {pdu.OpSCSIResponse, func(p *PDU) { p.SetStatSN(p.StatSN() + 1) }},
		"MaxCmdSN":        {pdu.OpSCSIResponse, func(p *PDU) { p.SetMaxCmdSN(p.ExpCmdSN() - 2) }},
		"R2TSN":           {pdu.OpR2T, func(p *PDU) { p.SetR2TSN(9) }},
		"R2T length":      {pdu.OpR2T, func(p *PDU) { p.SetDesiredDataTransferLength(1 << 20) }},
		"R2T tag":         {pdu.OpR2T, func(p *PDU) { p.SetTTT(pdu.ReservedTag) }},
		"R2T LUN":         {pdu.OpR2T, func(p *PDU) { p.SetLUN([8]byte{7}) }},
		"DataSN":          {pdu.OpDataIn, func(p *PDU) { p.SetDataSN(3) }},
		"offset":          {pdu.OpDataIn, func(p *PDU) { p.SetBufferOffset(p.BufferOffset() + 4) }},
		"F":               {pdu.OpDataIn, func(p *PDU) { p.SetFinal(false) }},
		"A":               {pdu.OpDataIn, func(p *PDU) { p.SetAcknowledge(true) }},
		"too much":        {pdu.OpDataIn, func(p *PDU) { p.Data = make([]byte, 128<<10) }},
		"task tag":        {pdu.OpDataIn, func(p *PDU) { p.SetITT(99) }},
		"residual":        {pdu.OpSCSIResponse, func(p *PDU) { p.SetResidual(0, 5) }},
		"residual flags":  {pdu.OpSCSIResponse, func(p *PDU) { p.SetResidual(pdu.Overflow|pdu.Underflow, 5) }},
		"residual length": {pdu.OpSCSIResponse, func(p *PDU) { p.SetResidual(pdu.Underflow, 1<<30) }},
	} {
		t.Run(name, func(t *testing.T) {
			tg := start(t, func(p *PDU) {
				if p.Opcode() == tc.op {
					tc.spoil(p)
				}
			})
			l := tg.Login
			l.Keys = []pdu.KeyValue{{Key: "InitialR2T", Value: "Yes"}, {Key: "ImmediateData", Value: "No"}}
			c := dial(t, tg, l)
			_, err := c.Run(&Command{CDB: rw(0x2a, 128), Out: make([]byte, 64<<10)})
			if err == nil {
				_, err = c.Run(&Command{CDB: rw(0x28, 128), In: 64 << 10})
			}
			if !errors.Is(err, ErrTarget) {
				t.Errorf("not noticed: %v", err)
			}
		})
	}
}

func TestHostile(t *testing.T) { Hostile(t, start(t, nil)) }

// A target that takes crimes for honest work is found out.
func TestHostileNotices(t *testing.T) {
	tg := start(t, nil)
	for _, cs := range Cases() {
		switch cs.Name {
		case "SNACK at ErrorRecoveryLevel 0", "unknown AHS type":
			cs.Want = Want{Rejects: []pdu.RejectReason{pdu.RejectNegotiationReset}}
			if err := tg.Run(cs); err == nil {
				t.Errorf("%s: the end of the connection was taken for something else", cs.Name)
			}
		case "Data-Out with a wrong DataSN":
			cs.Do = func(e *Env) (uint32, *Task, error) { return started(e.Start(e.Write10(1))) }
			if err := tg.Run(cs); !errors.Is(err, errGood) {
				t.Errorf("GOOD was not noticed: %v", err)
			}
		}
	}
}
