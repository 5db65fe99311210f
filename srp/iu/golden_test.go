package iu

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/scsi"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.NewReplacer(" ", "", "\n", "", "\t", "").Replace(s))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const goldenTag = 0x0102030405060708

var goldenID = PortID{0xa0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}

// TestGolden holds the bytes of each unit beside the calls that make it.
func TestGolden(t *testing.T) {
	z := func(n int) string { return strings.Repeat("00", n) }
	for _, c := range []struct {
		name, want string
		make       func() []byte
	}{
		{"LOGIN_REQ", "00" + z(7) + "0102030405060708 00000100 00000000 0006 70 00" + z(4) +
			"a00102030405060708090a0b0c0d0e0f" + z(16),
			func() []byte {
				var u LoginReq
				u.Reset()
				u.SetTag(goldenTag)
				u.SetMaxIULen(256)
				u.SetFormats(FormatsDirect | FormatsIndirect)
				u.SetFlags(LOSolNt | CRSolNt | AESolNt)
				u.SetInitiatorPort(goldenID)
				return u[:]
			}},
		{"LOGIN_RSP", "c0000000 00000080 0102030405060708 00000100 00000200 0006 02" + z(25),
			func() []byte {
				var u LoginRsp
				u.Reset()
				u.SetTag(goldenTag)
				u.SetDelta(128)
				u.SetMaxToTarget(256)
				u.SetMaxToInitiator(512)
				u.SetFormats(FormatsDirect | FormatsIndirect)
				u.SetFlags(2)
				return u[:]
			}},
		{"LOGIN_REJ", "c2000000 00010002 0102030405060708" + z(8) + "0006" + z(6),
			func() []byte {
				var u LoginRej
				u.Reset()
				u.SetTag(goldenTag)
				u.SetReason(RejIUTooLarge)
				u.SetFormats(FormatsDirect | FormatsIndirect)
				return u[:]
			}},
		{"TSK_MGMT", "0106" + z(6) + "0102030405060708" + z(4) + "8100000000000000 0000 08 00 0a0b0c0d0e0f1011" + z(8),
			func() []byte {
				var u TskMgmt
				u.Reset()
				u.SetSolNot(SCSolNt | UCSolNt)
				u.SetTag(goldenTag)
				u.SetLUN(scsi.LUN{0x81})
				u.SetFunc(TMLUNReset)
				u.SetTaskTag(0x0a0b0c0d0e0f1011)
				return u[:]
			}},
		{"CMD", "0202" + z(3) + "21 02 00 0102030405060708" + z(4) + "4101000000000000 00 02 00 04 2a" + z(15),
			func() []byte {
				var u Cmd
				u.Reset()
				u.SetSolNot(SCSolNt)
				u.SetFormats(Indirect, Direct)
				u.SetCounts(2, 0)
				u.SetTag(goldenTag)
				u.SetLUN(scsi.LUN{0x41, 1})
				u.SetAttr(scsi.Ordered)
				u.SetAddCDBLen(4)
				u.CDB()[0] = 0x2a
				return u[:]
			}},
		{"RSP with sense", "c1010000 00000002 0102030405060708 0000 26 02 00000200 00000400 00000004 00000000 70000500",
			func() []byte {
				b := make([]byte, MaxRspLen)
				u := AsRsp(b)
				u.Reset()
				u.SetSolNot(SolNt)
				u.SetDelta(2)
				u.SetTag(goldenTag)
				u.SetFlags(DOOver | DIUnder)
				u.SetStatus(scsi.StatusCheckCondition)
				u.SetOutResidual(512)
				u.SetInResidual(1024)
				return b[:PutSense(b, []byte{0x70, 0, 5, 0})]
			}},
		{"RSP with a code", "c1000000 00000001 0102030405060708 0000 01 00 00000000 00000000 00000000 00000004 00000005",
			func() []byte {
				b := make([]byte, MaxRspLen)
				u := AsRsp(b)
				u.Reset()
				u.SetDelta(1)
				u.SetTag(goldenTag)
				return b[:PutCode(b, CodeFailed)]
			}},
		{"AER_REQ", "82010000 ffffffff 0102030405060708" + z(4) + "0001000000000000 00000002 00000000 7000",
			func() []byte {
				b := make([]byte, 64)
				u := AsAERReq(b)
				u.Reset()
				u.SetSolNot(SolNt)
				u.SetDelta(-1)
				u.SetTag(goldenTag)
				u.SetLUN(scsi.LUN{0, 1})
				return b[:PutAERSense(b, []byte{0x70, 0})]
			}},
		{"CRED_REQ", "81010000 00000005 0102030405060708", short(TypeCredReq, func(u *Short) { u.SetSolNot(SolNt); u.SetDelta(5) })},
		{"CRED_RSP", "41" + z(7) + "0102030405060708", short(TypeCredRsp, nil)},
		{"AER_RSP", "42" + z(7) + "0102030405060708", short(TypeAERRsp, nil)},
		{"I_LOGOUT", "03" + z(7) + "0102030405060708", short(TypeILogout, nil)},
		{"T_LOGOUT", "80010000 00000001 0102030405060708", short(TypeTLogout, func(u *Short) { u.SetSolNot(SolNt); u.SetReason(1) })},
	} {
		got, want := c.make(), unhex(t, c.want)
		if !bytes.Equal(got, want) {
			t.Errorf("%s:\n got %x\nwant %x", c.name, got, want)
			continue
		}
		if _, err := Check(got); err != nil || Tag(got) != goldenTag {
			t.Errorf("%s: %v, tag %#x", c.name, err, Tag(got))
		}
		if _, err := Check(got[:Type(got[0]).MinLen()-1]); err != ErrShort {
			t.Errorf("%s, one byte short: %v", c.name, err)
		}
	}
}

func short(typ Type, f func(*Short)) func() []byte {
	return func() []byte {
		var u Short
		u.Reset(typ)
		u.SetTag(goldenTag)
		if f != nil {
			f(&u)
		}
		return u[:]
	}
}

// goldenCmd is a WRITE with four additional CDB bytes, an indirect data-out list of
// three, two of them inline, and a direct data-in buffer.
const goldenCmd = `02 06 000000 21 02 00 0102030405060708 00000000 0003000000000000 00 01 00 04
	7f000000000000000000000000000000 a1a2a3a4
	0000000000100000 00000007 00000030 00000a00
	0000000000200000 00000001 00000400
	0000000000300000 00000002 00000400
	0000000000400000 00000003 00000080`

func TestParseCmd(t *testing.T) {
	b := unhex(t, goldenCmd)
	c, err := ParseCmd(b, 3)
	if err != nil {
		t.Fatal(err)
	}
	if c.Tag() != goldenTag || c.LUN() != (scsi.LUN{0, 3}) || c.Attr() != scsi.HeadOfQueue || c.SolNot().Response(true) != SolNt {
		t.Errorf("header: %x", c.Cmd[:])
	}
	if !bytes.Equal(c.AddCDB, []byte{0xa1, 0xa2, 0xa3, 0xa4}) {
		t.Errorf("additional CDB %x", c.AddCDB)
	}
	if o := c.Out; o.Format != Indirect || o.Len != 0xa00 || !o.External() || len(o.List) != 32 ||
		o.Table != (Segment{0x100000, 7, 48}) {
		t.Errorf("data-out: %+v", o)
	}
	if i := c.In; i.Format != Direct || i.Len != 0x80 || i.External() || len(i.List) != 16 {
		t.Errorf("data-in: %+v", i)
	}
	var k scsi.Task
	if !c.Fill(&k) || k.CDBLen != 20 || k.CDB[16] != 0xa1 || k.Tag != goldenTag {
		t.Errorf("task: %x, %d", k.CDB, k.CDBLen)
	}
	segs, err := Segments(nil, c.Out.List, 0x500)
	if err != nil || len(segs) != 2 || segs[1] != (Segment{0x300000, 2, 0x100}) {
		t.Errorf("segments: %v %v", segs, err)
	}
	if _, err := Segments(nil, c.Out.List, 0x801); err != ErrLength {
		t.Errorf("too long: %v", err)
	}
	if _, err := ParseCmd(b, 2); err != ErrTooMany {
		t.Errorf("three descriptors where two may be: %v", err)
	}
	for n := range b {
		if _, err := ParseCmd(b[:n], 3); err != ErrShort {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	for _, x := range []struct {
		at   int
		v    byte
		want error
	}{{0, 1, ErrType}, {5, 0x31, ErrFormat}, {5, 0x23, ErrFormat}, {31, 5, ErrField}, {31, 0xfc, ErrShort},
		{52 + 15, 0x31, ErrDescriptor}, {52 + 15, 0x10, ErrDescriptor}, {6, 4, ErrShort}} {
		m := bytes.Clone(b)
		m[x.at] = x.v
		if _, err := ParseCmd(m, 3); err != x.want {
			t.Errorf("byte %d = %#x: %v, want %v", x.at, x.v, err, x.want)
		}
	}
}

func TestWraps(t *testing.T) {
	var b [32]byte
	Segment{Addr: ^uint64(0), Len: 1}.Encode(b[:])
	if s, err := Segments(nil, b[:16], 1); err != nil || len(s) != 1 {
		t.Errorf("the last byte: %v", err)
	}
	Segment{Addr: ^uint64(0), Len: 2}.Encode(b[:])
	if _, err := Segments(nil, b[:], 1); err != ErrDescriptor {
		t.Errorf("over the end: %v", err)
	}
}

func TestParseRsp(t *testing.T) {
	b := make([]byte, MaxRspLen)
	AsRsp(b).Reset()
	n := PutSense(b, []byte{1, 2, 3})
	r, err := ParseRsp(b[:n])
	if err != nil || !bytes.Equal(r.Sense, []byte{1, 2, 3}) || r.HasCode {
		t.Errorf("%+v %v", r, err)
	}
	if _, err := ParseRsp(b[:n-1]); err != ErrShort {
		t.Errorf("cut: %v", err)
	}
	b[28] = 0xff
	if _, err := ParseRsp(b[:n]); err != ErrShort {
		t.Errorf("huge sense length: %v", err)
	}
}

func TestCodeOf(t *testing.T) {
	for r, want := range map[scsi.TMResponse]RspCode{scsi.TMComplete: 0, scsi.TMNoTask: 0, scsi.TMNoLUN: 2,
		scsi.TMNotSupported: 4, scsi.TMFailed: 5, scsi.TMResponse(99): 5} {
		if got := CodeOf(r); got != want {
			t.Errorf("%v: %d, want %d", r, got, want)
		}
	}
}
