package vscsiif

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/scsi"
)

func TestGolden(t *testing.T) {
	var q Request
	q.Set(0x0102, ActCDB, Address{1, 2, 0x0304}, []byte{0x28, 0, 0, 0, 0, 9, 0, 0, 8, 0}, FromDevice)
	q.SetRef(0x0506)
	q.SetSegments([]Segment{{0x0a0b0c0d, 0x100, 0x0e00}, {7, 0, 4096}}, false)
	want := "0201 01 0a 28000000000900000800000000000000 0000 0100 0200 0403 0605 02 02" +
		"0d0c0b0a 0001 000e 07000000 0000 0010"
	w, _ := hex.DecodeString(strings.ReplaceAll(want, " ", ""))
	if !bytes.Equal(q[:len(w)], w) {
		t.Errorf("request\n%x, want\n%x", q[:len(w)], w)
	}
	if q.ID() != 0x0102 || q.Action() != ActCDB || q.CDBLen() != 10 || q.CDB()[5] != 9 || q.Address() != (Address{1, 2, 0x0304}) ||
		q.Ref() != 0x0506 || q.Direction() != FromDevice || q.Segment(0) != (Segment{0x0a0b0c0d, 0x100, 0x0e00}) {
		t.Errorf("%x", q)
	}
	if n, ind := q.Segments(); n != 2 || ind {
		t.Error(n, ind)
	}
	q.SetSegments(nil, true)
	if n, ind := q.Segments(); n != 0 || !ind {
		t.Error(n, ind)
	}

	var p Response
	p.Set(0x0102, Result(HostAbort, scsi.StatusCheckCondition), 0x0a0b, []byte{0x70, 0, 5})
	w = make([]byte, SlotLen)
	copy(w, []byte{2, 1, 0, 3, 0x70, 0, 5})
	copy(w[100:], []byte{2, 0, 5, 0, 0x0b, 0x0a, 0, 0})
	if !bytes.Equal(p[:], w) {
		t.Errorf("response %x", p)
	}
	if p.ID() != 0x0102 || p.Result() != 5<<16|2 || p.Residual() != 0x0a0b || !bytes.Equal(p.Sense(), []byte{0x70, 0, 5}) {
		t.Errorf("%x", p)
	}
	p.Set(1, ResetFailed, 0, make([]byte, 252))
	if len(p.Sense()) != SenseLen || p.Result() != 0x2003 {
		t.Errorf("%d bytes of sense", len(p.Sense()))
	}
	for _, c := range []struct {
		s               Segment
		inPage, inTable bool
	}{
		{Segment{1, 0, 4096}, true, true}, {Segment{1, 4088, 8}, true, true}, {Segment{1, 4088, 9}, false, false},
		{Segment{1, 0, 12}, true, false}, {Segment{1, 0, 0}, true, false}, {Segment{1, 65535, 65535}, false, false},
	} {
		if c.s.InPage() != c.inPage || c.s.InTable() != c.inTable {
			t.Errorf("%+v", c)
		}
	}
	if offSlots+Entries*SlotLen > PageSize || offSlots+2*Entries*SlotLen <= PageSize {
		t.Error("entries")
	}
}

func page(t testing.TB) []byte {
	b, err := sys.MapAnonymous(PageSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sys.Unmap(b) })
	return b
}

func put32(b []byte, off int, v uint32) { binary.LittleEndian.PutUint32(b[off:], v) }
func get32(b []byte, off int) uint32    { return binary.LittleEndian.Uint32(b[off:]) }

// TestWrap takes requests across the end of the indices, several at a time, in and out
// of order.
func TestWrap(t *testing.T) {
	b := page(t)
	base := ^uint32(0) - 40
	put32(b, offReqProd, base)
	put32(b, offRspProd, base)
	put32(b, offRspEvent, base+1)
	r, err := NewRing(b, base, base)
	if err != nil {
		t.Fatal(err)
	}
	var q Request
	var p Response
	sent, got := base, base
	for round := range 100 {
		n := round%Entries + 1
		for range n {
			q.Set(uint16(sent), ActCDB, Address{}, []byte{0}, NoData)
			copy(b[offSlots+int(sent%Entries)*SlotLen:], q[:])
			sent++
		}
		put32(b, offReqProd, sent)
		for i := range n {
			if ok, err := r.Pop(&q); !ok || err != nil || q.ID() != uint16(sent-uint32(n)+uint32(i)) {
				t.Fatalf("round %d: %v %v %d", round, ok, err, q.ID())
			}
		}
		if ok, err := r.Pop(&q); ok || err != nil {
			t.Fatal("more than there are", err)
		}
		for range n {
			p.Set(uint16(got), 0, 0, nil)
			r.Push(&p)
			got++
		}
		if get32(b, offRspProd) == got {
			t.Fatal("shown before Publish")
		}
		if !r.Publish() || get32(b, offRspProd) != got {
			t.Fatal("not notified, or not shown")
		}
		if r.Publish() {
			t.Fatal("notified of nothing")
		}
		put32(b, offRspEvent, got+1)
		if more, err := r.EnableNotify(); more || err != nil || get32(b, offReqEvent) != sent+1 {
			t.Fatal(more, err)
		}
	}
}

func TestHoldOff(t *testing.T) {
	b := page(t)
	r, _ := NewRing(b, 0, 0)
	put32(b, offReqProd, 3)
	var q Request
	var p Response
	for range 3 {
		_, _ = r.Pop(&q)
	}
	put32(b, offRspEvent, 3) // the front end asks for the third
	for i := range 3 {
		r.Push(&p)
		if n := r.Publish(); n != (i == 2) {
			t.Errorf("response %d: notify %v", i, n)
		}
	}
	put32(b, offReqProd, 4)
	if more, err := r.EnableNotify(); !more || err != nil {
		t.Error("a request in between was not seen", err)
	}
}

func TestLies(t *testing.T) {
	b := page(t)
	r, _ := NewRing(b, 0, 0)
	var q Request
	put32(b, offReqProd, Entries)
	for range Entries {
		if ok, err := r.Pop(&q); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	for _, n := range []uint32{Entries + 1, Entries - 1, 0, 1 << 31, ^uint32(0)} {
		put32(b, offReqProd, n)
		if ok, err := r.Pop(&q); ok || !errors.Is(err, ErrOverflow) {
			t.Errorf("%d requests announced: %v %v", n, ok, err)
		}
		if _, err := r.EnableNotify(); !errors.Is(err, ErrOverflow) {
			t.Error(err)
		}
	}
	if _, err := NewRing(b, 17, 0); !errors.Is(err, ErrOverflow) {
		t.Error(err)
	}
	if _, err := NewRing(b[:100], 0, 0); err == nil {
		t.Error("a short page")
	}
}

// FuzzRing has a front end write anything into the page between two steps: the ring
// never gives out more than it has, and every request once.
func FuzzRing(f *testing.F) {
	f.Add(uint32(0), []byte{1, 0, 0, 0, 1, 2, 16, 0, 0, 0, 3})
	f.Add(^uint32(0)-2, []byte{255, 255, 255, 255, 0, 0, 0, 0, 1, 1, 1, 1, 2, 3})
	f.Fuzz(func(t *testing.T, base uint32, ops []byte) {
		b := page(t)
		put32(b, offReqProd, base)
		r, err := NewRing(b, base, base)
		if err != nil {
			t.Fatal(err)
		}
		var q Request
		var p Response
		for len(ops) >= 5 {
			op := ops[0]
			put32(b, int(op%4)*4, binary.LittleEndian.Uint32(ops[1:]))
			ops = ops[5:]
			switch op >> 4 & 3 {
			case 0:
				was := r.Cons()
				ok, err := r.Pop(&q)
				if ok != (r.Cons() == was+1) || ok && err != nil {
					t.Fatal(ok, err)
				}
			case 1:
				if r.Cons() != r.Prod() {
					r.Push(&p)
				}
			case 2:
				r.Publish()
			case 3:
				_, _ = r.EnableNotify()
			}
			if r.Cons()-r.Prod() > Entries {
				t.Fatalf("%d in flight", r.Cons()-r.Prod())
			}
			n, _ := q.Segments()
			for i := range min(n, MaxDirect) {
				_ = q.Segment(i).InTable()
			}
			_, _, _, _ = q.CDB(), q.Address(), q.Action().String(), q.Ref()
		}
	})
}
