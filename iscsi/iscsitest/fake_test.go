package iscsitest

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/vtgt/vtgt/iscsi/login"
	"github.com/vtgt/vtgt/iscsi/pdu"
)

const (
	fakeTarget = "iqn.2026-11.org.example:disk"
	fakeHost   = "iqn.2026-11.org.example:host"
)

// fake is a target of one RAM disk that does just enough to try the initiator on: one
// command at a time, and the end of the connection for everything that is wrong.
type fake struct {
	t    *testing.T
	disk []byte
	mu   sync.Mutex
	// spoil changes PDUs before they are sent: the initiator has to notice.
	spoil func(p *PDU)
}

type fakeConn struct {
	*fake
	nc     net.Conn
	c      *Conn // for its codec
	p      login.Params
	stat   uint32
	exp    uint32
	text   *login.Text
	failed error
}

func (f *fake) serve(nc net.Conn) {
	defer nc.Close()
	k := &fakeConn{fake: f, nc: nc, c: New(nc)}
	m := login.New(login.Config{
		MaxRecvDataSegmentLength: 8192, FirstBurstLength: 16384, MaxBurstLength: 32768,
		Lookup: func(p *login.Params) (login.TargetInfo, pdu.LoginStatus) {
			if p.TargetName != fakeTarget {
				return login.TargetInfo{}, pdu.LoginNotFound
			}
			if p.TSIH != 0 {
				return login.TargetInfo{}, pdu.LoginSessionDoesNotExist
			}
			return login.TargetInfo{TPGT: 1, Alias: "a disk"}, pdu.LoginSuccess
		},
	})
	k.c.judge, k.c.Timeout = m.HeaderOnly, time.Minute
	for st := login.More; st == login.More; {
		p, err := k.c.Recv()
		if err != nil {
			return
		}
		var h *pdu.BHS
		var text []byte
		h, text, st = m.Step(&p.BHS, p.Data)
		if st == login.Drop {
			return
		}
		r := &PDU{BHS: *h, Data: text}
		if err := k.c.Send(r); err != nil || st == login.Failed {
			return
		}
	}
	k.c.judge = nil
	k.p = m.Params()
	k.stat, k.exp = k.p.StatSN, k.p.ExpCmdSN
	k.c.HeaderDigest, k.c.DataDigest = k.p.HeaderDigest, k.p.DataDigest
	k.c.Params.MaxRecv = k.p.MaxRecvDataSegmentLength
	k.text = login.NewText(login.TextConfig{Targets: func(p *login.Params, name string, yield func(login.TargetRecord) bool) {
		if name == "" || name == fakeTarget {
			yield(login.TargetRecord{Name: fakeTarget, Portals: []login.Portal{
				{Addr: netip.MustParseAddrPort("127.0.0.1:3260"), TPGT: 1},
				{Addr: netip.MustParseAddrPort("[::1]:3260"), TPGT: 1},
			}})
		}
	}}, &k.p)
	for k.failed == nil {
		k.one()
	}
}

var errBye = errors.New("bye")

// send completes and sends a response.
func (k *fakeConn) send(p *PDU, counts bool) {
	p.SetSNs(k.stat, k.exp, k.exp+31)
	if counts {
		k.stat++
	}
	if k.spoil != nil {
		k.spoil(p)
	}
	if err := k.c.Send(p); err != nil {
		k.failed = err
	}
}

func (k *fakeConn) reply(o pdu.Opcode, to *PDU) *PDU {
	p := new(PDU)
	p.Reset(o)
	p.SetITT(to.ITT())
	return p
}

func (k *fakeConn) one() {
	p, err := k.c.Recv()
	if err != nil {
		k.failed = err
		return
	}
	if !p.Immediate() && p.Opcode() != pdu.OpDataOut && p.Opcode() != pdu.OpSNACK {
		if p.CmdSN() != k.exp {
			return // outside the window (this target never has a gap)
		}
		k.exp++
	}
	switch p.Opcode() {
	case pdu.OpNOPOut:
		r := k.reply(pdu.OpNOPIn, p)
		r.SetTTT(pdu.ReservedTag)
		r.Data = p.Data
		k.send(r, true)
	case pdu.OpTextRequest:
		h, text, reason := k.text.Step(&p.BHS, p.Data)
		if reason != 0 {
			r := new(PDU)
			r.MakeReject(reason)
			r.Data = p.BHS[:]
			k.send(r, true)
			return
		}
		k.send(&PDU{BHS: *h, Data: text}, true)
	case pdu.OpTMFRequest:
		r := k.reply(pdu.OpTMFResponse, p)
		if p.Function() == pdu.AbortTask {
			r.SetResponse(uint8(pdu.TMFNoTask))
		}
		k.send(r, true)
	case pdu.OpLogoutRequest:
		k.send(k.reply(pdu.OpLogoutResponse, p), true)
		k.failed = errBye
	case pdu.OpSCSICommand:
		k.command(p)
	default:
		k.failed = errors.New("bad PDU")
	}
}

func (k *fakeConn) command(p *PDU) {
	if _, err := pdu.ParseAHS(p.AHS); err != nil {
		k.failed = err
		return
	}
	cdb := p.CDB()
	off := int(binary.BigEndian.Uint32(cdb[2:])) * 512
	n := int(binary.BigEndian.Uint16(cdb[7:])) * 512
	edtl := int(p.ExpectedDataTransferLength())
	var residual pdu.Residual
	count := 0
	switch want := map[byte]int{0x28: n, 0x2a: n}[cdb[0]]; {
	case want < edtl:
		residual, count = pdu.Underflow, edtl-want
	case want > edtl:
		residual, count = pdu.Overflow, want-edtl
	}
	n = min(n, edtl)
	switch cdb[0] {
	case 0x00, 0x28, 0x2a:
	default:
		r := k.reply(pdu.OpSCSIResponse, p)
		r.SetStatus(2)
		r.Data = append([]byte{0, 18}, 0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0)
		k.send(r, true)
		return
	}
	var sn uint32
	switch cdb[0] {
	case 0x28:
		k.mu.Lock()
		data := append([]byte(nil), k.disk[off:off+n]...)
		k.mu.Unlock()
		at := 0
		for at < n {
			m := min(n-at, int(k.p.MaxXmitDataSegmentLength))
			r := k.reply(pdu.OpDataIn, p)
			r.SetTTT(pdu.ReservedTag)
			r.SetDataSN(sn)
			r.SetBufferOffset(uint32(at))
			r.Data = data[at : at+m]
			sn++
			at += m
			if at == n {
				r.SetFinal(true)
				if residual == 0 {
					r.SetHasStatus(true)
				}
			}
			k.send(r, r.HasStatus())
			if r.HasStatus() {
				return
			}
		}
	case 0x2a:
		data, ok := k.dataOut(p, n)
		if !ok {
			k.failed = errors.New("bad data")
			return
		}
		k.mu.Lock()
		copy(k.disk[off:], data)
		k.mu.Unlock()
	}
	r := k.reply(pdu.OpSCSIResponse, p)
	r.SetExpDataSN(sn)
	r.SetResidual(residual, uint32(count))
	k.send(r, true)
}

// dataOut collects the data of a WRITE: immediate, unsolicited, and by R2T.
func (k *fakeConn) dataOut(p *PDU, n int) ([]byte, bool) {
	first := int(k.p.FirstBurstLength)
	if len(p.Data) > n || len(p.Data) > first || len(p.Data) > 0 && !k.p.ImmediateData {
		return nil, false
	}
	data := append([]byte(nil), p.Data...)
	sequence := func(ttt uint32, end int) bool {
		for sn := uint32(0); ; sn++ {
			d, err := k.c.Recv()
			if err != nil || d.Opcode() != pdu.OpDataOut || d.ITT() != p.ITT() || d.TTT() != ttt ||
				d.DataSN() != sn || int(d.BufferOffset()) != len(data) || len(data)+len(d.Data) > end {
				return false
			}
			data = append(data, d.Data...)
			if d.Final() {
				return ttt == pdu.ReservedTag || len(data) == end
			}
		}
	}
	if !p.Final() {
		if k.p.InitialR2T || !sequence(pdu.ReservedTag, min(n, first)) {
			return nil, false
		}
	}
	for sn := uint32(0); len(data) < n; sn++ {
		m := min(n-len(data), int(k.p.MaxBurstLength))
		r := k.reply(pdu.OpR2T, p)
		r.SetLUN(p.LUN())
		r.SetTTT(100 + sn)
		r.SetR2TSN(sn)
		r.SetBufferOffset(uint32(len(data)))
		r.SetDesiredDataTransferLength(uint32(m))
		k.send(r, false)
		if !sequence(100+sn, len(data)+m) {
			return nil, false
		}
	}
	return data, true
}

// start serves a fake target on the loopback and returns how to reach it.
func start(t *testing.T, spoil func(p *PDU)) *Target {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{t: t, disk: make([]byte, 4<<20), spoil: spoil}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []io.Closer
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, nc)
			mu.Unlock()
			wg.Go(func() { f.serve(nc) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for _, nc := range open {
			nc.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return &Target{
		Dial:  func() (*Conn, error) { return Dial(ln.Addr().String()) },
		Login: Login{InitiatorName: fakeHost, TargetName: fakeTarget},
	}
}
