package virtioscsi

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/scsi"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func z(n int) string { return strings.Repeat("00", n) }

// TestGolden holds the bytes of each header beside the call that makes it.
func TestGolden(t *testing.T) {
	lun := MakeLUN(3, 0x1234)
	for _, c := range []struct {
		name, want string
		make       func() []byte
	}{
		{"request", "0103 5234 00000000 0807060504030201 02 00 00 28 00 00000010 00 0008 00" + z(22), func() []byte {
			var r Req
			r.Set(lun, 0x0102030405060708, scsi.HeadOfQueue, []byte{0x28, 0, 0, 0, 0, 0x10, 0, 0, 8, 0})
			return r[:]
		}},
		{"request, ordered", "0100 0005 00000000 0100000000000000 01 00 00 00" + z(31), func() []byte {
			var r Req
			r.Set(MakeLUN(0, 5), 1, scsi.Ordered, make([]byte, 6))
			return r[:]
		}},
		{"request, ACA", "0100 00ff 00000000 0100000000000000 03 00 00 00" + z(31), func() []byte {
			var r Req
			r.Set(MakeLUN(0, 255), 1, scsi.ACA, nil)
			return r[:]
		}},
		{"response", "03000000 00020000 0000 02 00 700005" + z(93), func() []byte {
			var r Resp
			r.Set(OK, scsi.StatusCheckCondition, 512, []byte{0x70, 0, 5})
			return r[:]
		}},
		{"response of nothing", "00000000 00000000 0000 00 03" + z(96), func() []byte {
			var r Resp
			r.Set(BadTarget, scsi.StatusGood, 0, nil)
			return r[:]
		}},
		{"LOGICAL UNIT RESET", "00000000 05000000 0100 4100 00000000 0000000000000000", func() []byte {
			var r TMF
			r.Set(5, MakeLUN(0, 256), 0)
			return r[:]
		}},
		{"ABORT TASK", "00000000 00000000 0103 5234 00000000 efcdab8967452301", func() []byte {
			var r TMF
			r.Set(0, lun, 0x0123456789abcdef)
			return r[:]
		}},
		{"AN query", "01000000 0103 5234 00000000 10000000", func() []byte {
			var r AN
			r.Set(TypeANQuery, lun, 0x10)
			return r[:]
		}},
		{"AN answer", "10000000 0c", func() []byte {
			var r ANResp
			r.Set(0x10, IncorrectLUN)
			return r[:]
		}},
		{"event", "01000080 0103 5234 00000000 02000000", func() []byte {
			var r Event
			r.Set(TransportReset|EventsMissed, lun, ReasonRemoved)
			return r[:]
		}},
		{"resize", "03000000 0103 5234 00000000 2a090000", func() []byte {
			var r Event
			r.Set(ParamChange, lun, ReasonCapacity)
			return r[:]
		}},
	} {
		if got, want := c.make(), unhex(t, c.want); !bytes.Equal(got, want) {
			t.Errorf("%s:\n%x, want\n%x", c.name, got, want)
		}
	}
}

// TestFields reads what TestGolden has written.
func TestFields(t *testing.T) {
	r := (*Req)(unhex(t, "0103 5234 00000000 0807060504030201 02 07 09 28 00 00000010 00 0008 00"+z(22)))
	if a, ok := r.LUN().Address(); !ok || a.Target != 3 || a.LUN != scsi.EncodeLUN(0x1234) || a.WellKnown {
		t.Errorf("address %+v, %v", a, ok)
	}
	if r.Tag() != 0x0102030405060708 || r.Attr() != scsi.HeadOfQueue || r.CDB()[0] != 0x28 || r.CDB()[8] != 8 {
		t.Errorf("tag %#x, attribute %v, CDB %x", r.Tag(), r.Attr(), r.CDB())
	}
	for a, want := range map[byte]scsi.TaskAttr{0: scsi.Simple, 1: scsi.Ordered, 2: scsi.HeadOfQueue, 3: scsi.ACA, 4: scsi.Simple, 255: scsi.Simple} {
		if r[16] = a; r.Attr() != want {
			t.Errorf("attribute %d: %v", a, r.Attr())
		}
	}
	p := (*Resp)(unhex(t, "03000000 00020000 0000 02 01 700005"+z(93)))
	if p.Response() != Overrun || p.Status() != scsi.StatusCheckCondition || p.Residual() != 512 || !bytes.Equal(p.Sense(), []byte{0x70, 0, 5}) {
		t.Errorf("%v %v %d %x", p.Response(), p.Status(), p.Residual(), p.Sense())
	}
	if p[0], p[3] = 200, 0xff; len(p.Sense()) != SenseLen {
		t.Errorf("%d bytes of sense", len(p.Sense()))
	}
	m := (*TMF)(unhex(t, "00000000 05000000 0100 4100 00000000 0000000000000001"))
	if f, ok := Func(m.Subtype()); !ok || f != scsi.LUNReset || m.Tag() != 1<<56 || m.LUN() != MakeLUN(0, 256) || DecodeType(m[:]) != TypeTMF {
		t.Errorf("%v %v %#x %v", f, ok, m.Tag(), m.LUN())
	}
	a := (*AN)(unhex(t, "02000000 0103 5234 00000000 10000000"))
	if DecodeType(a[:]) != TypeANSubscribe || a.LUN() != MakeLUN(3, 0x1234) || a.Events() != 16 {
		t.Errorf("%x", a)
	}
	e := (*Event)(unhex(t, "01000080 0103 5234 00000000 02000000"))
	if e.Kind() != TransportReset|EventsMissed || e.LUN() != MakeLUN(3, 0x1234) || e.Reason() != ReasonRemoved {
		t.Errorf("%x", e)
	}
}

func TestAddress(t *testing.T) {
	for s, want := range map[string]string{
		"0100000000000000": "0:0", "01fd00ff00000000": "253:255", "0100410000000000": "0:256", "01007fff00000000": "0:16383",
		"0100400000000000": "0:0", "c101000000000000": "REPORT LUNS", "0100c10100000000": "0:c101000000000000",
		"0000000000000000": "", "0200000000000000": "", "0100010000000000": "", "0100800000000000": "", "0100c10200000000": "",
		"0100000000000001": "", "0100000080000000": "", "c101000000000001": "", "c102000000000000": "",
	} {
		l := LUN(unhex(t, s))
		a, ok := l.Address()
		if want == "" {
			want = s
			if ok {
				t.Errorf("%s: %+v", s, a)
			}
		} else if !ok {
			t.Errorf("%s is not known", s)
		}
		if l.String() != want {
			t.Errorf("%s: %v, want %s", s, l, want)
		}
	}
	for n := range uint16(scsi.MaxLUN + 1) {
		if a, ok := MakeLUN(9, n).Address(); !ok || a.Target != 9 || a.LUN != scsi.EncodeLUN(n) {
			t.Fatalf("LUN %d: %+v, %v", n, a, ok)
		}
	}
}

func TestCodes(t *testing.T) {
	for i := range uint32(8) {
		f, ok := Func(i)
		if n, ok2 := Subtype(f); !ok || !ok2 || n != i {
			t.Errorf("subtype %d: %v, %d", i, f, n)
		}
	}
	if _, ok := Func(8); ok {
		t.Error("subtype 8")
	}
	if _, ok := Subtype(scsi.TargetWarmReset); ok {
		t.Error("TARGET WARM RESET has a subtype")
	}
	for r, want := range map[scsi.TMResponse]Response{scsi.TMComplete: OK, scsi.TMSucceeded: FunctionSucceeded, scsi.TMNoTask: OK,
		scsi.TMNoLUN: IncorrectLUN, scsi.TMIncorrectLUN: IncorrectLUN, scsi.TMNotSupported: FunctionRejected,
		scsi.TMRejected: FunctionRejected, scsi.TMFailed: Failure, 200: Failure} {
		if got := TMFResponse(r); got != want {
			t.Errorf("%v: %v, want %v", r, got, want)
		}
	}
	if Response(12).String() != "INCORRECT_LUN" || Response(13).String() != "Response(0xd)" || OK.String() != "OK" {
		t.Error("names of responses")
	}
	if !Has(1<<FeatureEventIdx, FeatureEventIdx) || Has(1<<FeatureEventIdx, FeatureVersion1) {
		t.Error("Has")
	}
}

// FuzzHeaders reads everything out of any bytes; what has an address is written as it
// was read.
func FuzzHeaders(f *testing.F) {
	f.Add(make([]byte, RespLen))
	f.Add([]byte("\x01\x03\x52\x34" + strings.Repeat("\x00", RespLen)))
	f.Add([]byte("\xc1\x01" + strings.Repeat("\x00", RespLen)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < RespLen {
			return
		}
		r := (*Req)(b)
		a, ok := r.LUN().Address()
		var again Req
		again.Set(r.LUN(), r.Tag(), r.Attr(), r.CDB()[:])
		if a2, ok2 := again.LUN().Address(); a2 != a || ok2 != ok || again.Tag() != r.Tag() || again.Attr() != r.Attr() || *again.CDB() != *r.CDB() {
			t.Fatalf("%x became %x", r, again)
		}
		if n, single := a.LUN.Number(); ok && single && !a.WellKnown {
			m, _ := MakeLUN(a.Target, n).Address()
			if m2, _ := m.LUN.Number(); m.Target != a.Target || m2 != n {
				t.Fatalf("%v became %v", a, m)
			}
		}
		_ = r.LUN().String()
		p := (*Resp)(b)
		_, _, _, _ = p.Response().String(), p.Status(), p.Residual(), p.Sense()
		m := (*TMF)(b)
		fn, known := Func(m.Subtype())
		if s, ok := Subtype(fn); known && (!ok || s != m.Subtype()) {
			t.Fatalf("subtype %d became %d", m.Subtype(), s)
		}
		_, _ = m.LUN().Address()
		q := (*AN)(b)
		_, _ = q.LUN().Address()
		_, _ = DecodeType(b), q.Events()
		e := (*Event)(b)
		_, _ = e.LUN().Address()
		_, _ = e.Kind(), e.Reason()
	})
}
