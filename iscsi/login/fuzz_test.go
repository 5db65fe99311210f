package login

import (
	"net/netip"
	"testing"

	"github.com/vtgt/vtgt/iscsi/pdu"
)

// split reads PDUs from fuzz input: a header of 48 bytes whose DataSegmentLength is
// cut down to what is left, and that much data.
func split(b []byte, f func(h *pdu.BHS, data []byte) bool) {
	for len(b) >= pdu.BHSLen {
		h := pdu.BHS(b[:pdu.BHSLen])
		b = b[pdu.BHSLen:]
		n := min(h.DataSegmentLength(), len(b))
		if h[47] != 0xee { // else: a lie about the length
			h.SetDataSegmentLength(n)
		}
		if !f(&h, b[:n]) {
			return
		}
		b = b[n:]
	}
}

func record(csg, nsg pdu.Stage, text string) []byte {
	var h pdu.BHS
	h.Reset(pdu.OpLoginRequest)
	h.SetCSG(csg)
	if csg != nsg {
		h.SetTransit(true)
		h.SetNSG(nsg)
	}
	var data []byte
	start := 0
	for i := 0; i <= len(text); i++ {
		if i == len(text) || text[i] == ' ' {
			if i > start {
				data = append(append(data, text[start:i]...), 0)
			}
			start = i + 1
		}
	}
	h.SetDataSegmentLength(len(data))
	return append(h[:], data...)
}

func FuzzMachine(f *testing.F) {
	for _, c := range clients {
		var b []byte
		for _, r := range c.requests {
			b = append(b, record(r.csg, r.nsg, r.text)...)
		}
		f.Add(b, false)
		f.Add(b, true)
	}
	f.Fuzz(func(t *testing.T, b []byte, auth bool) {
		cfg := testConfig()
		cfg.Lookup = func(p *Params) (TargetInfo, pdu.LoginStatus) { return TargetInfo{TPGT: 1}, pdu.LoginSuccess }
		if auth {
			cfg.Auth = challenge{[]string{"CHAP", "None"}}
		}
		m := New(cfg)
		steps := 0
		split(b, func(h *pdu.BHS, data []byte) bool {
			steps++
			r, text, st := m.Step(h, data)
			if st == Drop {
				if r != nil || m.Err() == nil {
					t.Fatal("a word at the end")
				}
				return false
			}
			if r.Opcode() != pdu.OpLoginResponse || len(text) != r.DataSegmentLength() || len(text) > MaxLoginSegment {
				t.Fatalf("response %x with %d bytes", r[:], len(text))
			}
			if len(m.in) > pdu.MaxText || len(m.out) > pdu.MaxText || len(m.neg.seen) > pdu.MaxKeys {
				t.Fatalf("%d bytes in, %d out, %d keys", len(m.in), len(m.out), len(m.neg.seen))
			}
			ok := r.LoginStatus() == pdu.LoginSuccess
			if ok != (st == More || st == Done) || ok != (m.Err() == nil) {
				t.Fatalf("%v with %v and %v", st, r.LoginStatus(), m.Err())
			}
			if st != Done {
				return st == More
			}
			p := m.Params()
			if p.InitiatorName == "" || p.TSIH == 0 || !p.Discovery && p.TargetName == "" ||
				p.FirstBurstLength > p.MaxBurstLength || p.FirstBurstLength < 512 || p.MaxBurstLength > 1<<20 ||
				p.MaxXmitDataSegmentLength < 512 || p.MaxXmitDataSegmentLength > pdu.MaxDataSegmentLength ||
				p.MaxOutstandingR2T == 0 || p.MaxConnections != 1 || p.ErrorRecoveryLevel != 0 || !p.DataPDUInOrder {
				t.Fatalf("%+v", p)
			}
			return false
		})
	})
}

func FuzzTextMachine(f *testing.F) {
	var h pdu.BHS
	h.Reset(pdu.OpTextRequest)
	h.SetFinal(true)
	h.SetITT(1)
	h.SetTTT(pdu.ReservedTag)
	h.SetDataSegmentLength(16)
	f.Add(append(h[:], "SendTargets=All\x00"...), true)
	f.Add(append(h[:], "SendTargets=abc\x00"...), false)
	f.Fuzz(func(t *testing.T, b []byte, discovery bool) {
		p := defaults()
		p.Discovery = discovery
		x := NewText(TextConfig{Targets: func(p *Params, name string, yield func(TargetRecord) bool) {
			for range 300 { // longer than one PDU
				if !yield(TargetRecord{disk, []Portal{{netip.MustParseAddrPort("[::1]:3260"), 1}}}) {
					return
				}
			}
		}}, &p)
		split(b, func(h *pdu.BHS, data []byte) bool {
			limit := int(p.MaxXmitDataSegmentLength)
			r, text, reason := x.Step(h, data)
			if (reason != 0) != (x.Err() != nil) || (reason == 0) != (r != nil) {
				t.Fatalf("%v, %v", reason, x.Err())
			}
			if r != nil && (len(text) > limit || len(text) != r.DataSegmentLength() || r.Final() != (r.TTT() == pdu.ReservedTag) || r.Final() && r.Continue()) {
				t.Fatalf("response %x with %d bytes", r[:], len(text))
			}
			if len(x.in) > pdu.MaxText || len(x.neg.seen) > pdu.MaxKeys {
				t.Fatal("too much is kept")
			}
			if p.MaxXmitDataSegmentLength < 512 {
				t.Fatal(p.MaxXmitDataSegmentLength)
			}
			return true
		})
	})
}
