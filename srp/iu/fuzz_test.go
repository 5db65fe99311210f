package iu

import (
	"testing"

	"github.com/vtgt/vtgt/scsi"
)

func FuzzParseCmd(f *testing.F) {
	f.Add(unhex(f, goldenCmd), 8)
	f.Fuzz(func(t *testing.T, b []byte, max int) {
		c, err := ParseCmd(b, max)
		if err != nil {
			return
		}
		n := CmdLen + len(c.AddCDB)
		for _, d := range []*Data{&c.Out, &c.In} {
			n += len(d.List)
			if d.Format == Indirect {
				n += IndirectHeadLen
				if int64(d.Table.Len)/DescLen > int64(max) || len(d.List) > int(d.Table.Len) {
					t.Fatalf("%+v with %d", d, max)
				}
			}
			checkSegments(t, d.List, d.Len)
		}
		if n > len(b) {
			t.Fatalf("parts of %d bytes in %d", n, len(b))
		}
		var k scsi.Task
		c.Fill(&k)
		if k.CDBLen > scsi.MaxCDB {
			t.Fatal(k.CDBLen)
		}
	})
}

func checkSegments(t *testing.T, list []byte, total uint32) {
	segs, err := Segments(nil, list, total)
	var sum uint64
	for _, s := range segs {
		if s.Len == 0 || s.Addr+uint64(s.Len)-1 < s.Addr {
			t.Fatalf("%+v", s)
		}
		sum += uint64(s.Len)
	}
	if err == nil && sum != uint64(total) || sum > uint64(total) || len(segs) > len(list)/DescLen {
		t.Fatalf("%d bytes in %d segments, want %d: %v", sum, len(segs), total, err)
	}
}

func FuzzSegments(f *testing.F) {
	f.Add(unhex(f, goldenCmd)[CmdLen+4+IndirectHeadLen:], uint32(0x500))
	f.Fuzz(checkSegments)
}

func FuzzParseRsp(f *testing.F) {
	b := make([]byte, MaxRspLen)
	AsRsp(b).Reset()
	f.Add(append([]byte(nil), b[:PutSense(b, []byte{0x70, 0, 5})]...))
	AsRsp(b).Reset()
	f.Add(b[:PutCode(b, CodeFailed)])
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRsp(b)
		if err == nil && RspLen+len(r.Sense) > len(b) {
			t.Fatal("sense data beyond the end")
		}
	})
}

func FuzzParseAERReq(f *testing.F) {
	b := make([]byte, 64)
	AsAERReq(b).Reset()
	f.Add(b[:PutAERSense(b, []byte{0x70, 0})])
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, s, err := ParseAERReq(b); err == nil && AERReqLen+len(s) > len(b) {
			t.Fatal("sense data beyond the end")
		}
	})
}

// FuzzChannel sends a channel several units: each is a length byte and that many bytes.
func FuzzChannel(f *testing.F) {
	l := login(nil)
	cmd := unhex(f, goldenCmd)
	f.Add(append(append(append([]byte{64}, l...), byte(len(cmd))), cmd...))
	f.Add(append([]byte{16}, short(TypeILogout, nil)()...))
	f.Fuzz(func(t *testing.T, b []byte) {
		var ch Channel
		for len(b) > 0 {
			n := min(int(b[0]), len(b)-1)
			was := ch.State()
			v, err := ch.Receive(b[1 : 1+n])
			switch {
			case v == Reply:
				if _, err := Check(ch.Reply); err != nil {
					t.Fatal(err)
				}
			case v == Serve && was != LoggedIn, v == Violation && err == nil, v != Violation && err != nil:
				t.Fatalf("%v in state %v: %v", v, was, err)
			}
			b = b[1+n:]
		}
	})
}
