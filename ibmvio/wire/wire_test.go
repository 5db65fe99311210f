package wire

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var (
	entry = [EntryLen]byte{0xc0, 1}
	hello = Hello{Major: 1, Unit: 0x71000002, Liobn: 0x71000002, MaxData: 1 << 20, Window: 1 << 28, State: Registered | Served,
		Queue: 0xc000000, QueueSize: 65536, UUID: [16]byte{0: 0xab, 15: 0xcd}, Name: "lpar1", Epoch: 7}
)

// golden has every frame as it is on the wire.
func golden(t testing.TB) []struct {
	name string
	side Side
	made []byte
	want []byte
} {
	return []struct {
		name string
		side Side
		made []byte
		want []byte
	}{
		{"HELLO", Device, hello.Append(nil), unhex(t, `00000045 0001 0000 00000007 00000000 0000000000000000
			0001 0000 71000002 71000002 00100000 0000000010000000 00000005 00000005
			000000000c000000 00010000 00000000 ab0000000000000000000000000000cd 6c70617231`)},
		{"welcome", Server, AppendWelcome(nil), unhex(t, `00000004 8001 0000 00000000 00000000 0000000000000000 0001 0000`)},
		{"refusal", Server, AppendRefusal(nil), unhex(t, `00000004 8001 0004 00000000 00000000 0000000000000000 0001 0000`)},
		{"CRQ", Device, AppendCRQ(nil, 8, &entry), unhex(t, `00000010 0002 0000 00000008 00000000 0000000000000000 c0010000000000000000000000000000`)},
		{"EVENT", Device, (&Event{Kind: EventRegistered, Epoch: 9, Queue: 0xc000000, QueueSize: 4096}).Append(nil),
			unhex(t, `00000010 0003 0001 00000009 00000000 0000000000000000 000000000c000000 00001000 00000000`)},
		{"READ", Server, AppendRead(nil, Link, 9, 0x1122334455667788, 0xc010100, 256),
			unhex(t, `0000000c 0010 0002 00000009 00000000 1122334455667788 000000000c010100 00000100`)},
		{"WRITE", Server, append(AppendWrite(nil, Quiet|Link, 9, 2, 0x10968, 3), 1, 2, 3),
			unhex(t, `0000000b 0011 0003 00000009 00000000 0000000000000002 0000000000010968 010203`)},
		{"SEND", Server, AppendSend(nil, Quiet, 9, 3, &entry), unhex(t, `00000010 0012 0001 00000009 00000000 0000000000000003 c0010000000000000000000000000000`)},
		{"READ answer", Device, AppendReply(nil, TypeRead, OK, 9, 4, []byte{5, 6}), unhex(t, `00000002 8010 0000 00000009 00000000 0000000000000004 0506`)},
		{"SEND answer", Device, AppendReply(nil, TypeSend, Full, 9, 4, nil), unhex(t, `00000000 8012 0002 00000009 00000000 0000000000000004`)},
	}
}

func TestGolden(t *testing.T) {
	var all [2][]byte
	var count [2]int
	for _, g := range golden(t) {
		if !bytes.Equal(g.made, g.want) {
			t.Errorf("%s:\n%x, want\n%x", g.name, g.made, g.want)
		}
		i := 0
		if g.side == Server {
			i = 1
		}
		all[i] = append(all[i], g.want...)
		count[i]++
		for cut := range g.want {
			if _, n, err := Split(g.want[:cut], g.side); n != 0 || err != nil {
				t.Errorf("%s: %d of %d bytes: %d, %v", g.name, cut, len(g.want), n, err)
			}
		}
		if _, _, err := Split(g.want, !g.side); err == nil {
			t.Errorf("%s is taken from the other side", g.name)
		}
	}
	for i, side := range []Side{Device, Server} {
		b, frames := all[i], 0
		for len(b) > 0 {
			_, n, err := Split(b, side)
			if err != nil || n == 0 {
				t.Fatalf("frame %d: %d, %v", frames, n, err)
			}
			b = b[n:]
			frames++
		}
		if frames != count[i] {
			t.Errorf("%d frames, want %d", frames, count[i])
		}
	}
}

func TestParse(t *testing.T) {
	split := func(b []byte, side Side) Frame {
		t.Helper()
		f, n, err := Split(b, side)
		if err != nil || n != len(b) {
			t.Fatal(n, err)
		}
		return f
	}
	if h, err := ParseHello(split(hello.Append(nil), Device)); err != nil || !reflect.DeepEqual(h, hello) {
		t.Errorf("%+v, %v", h, err)
	}
	e := Event{Kind: EventFreed, Epoch: 3}
	if got, err := ParseEvent(split(e.Append(nil), Device)); err != nil || got != e {
		t.Errorf("%+v, %v", got, err)
	}
	f := split(AppendCRQ(nil, 4, &entry), Device)
	if got, err := ParseCRQ(f); err != nil || got != entry || f.Epoch != 4 {
		t.Errorf("%x, %v", got, err)
	}
	f = split(AppendRead(nil, 0, 4, 5, 6, 7), Server)
	if x, err := ParseTransfer(f); err != nil || x.Address != 6 || x.Len != 7 || x.Data != nil || f.ID != 5 {
		t.Errorf("%+v, %v", x, err)
	}
	if x, err := ParseTransfer(split(append(AppendWrite(nil, 0, 4, 5, 6, 2), 8, 9), Server)); err != nil || x.Address != 6 || !bytes.Equal(x.Data, []byte{8, 9}) {
		t.Errorf("%+v, %v", x, err)
	}
	long := Hello{Major: 1, MaxData: 1, Name: strings.Repeat("x", 100)}
	if h, err := ParseHello(split(long.Append(nil), Device)); err != nil || len(h.Name) != MaxName {
		t.Errorf("%+v, %v", h, err)
	}
}

// Everything that breaks a rule is refused when its header is there.
func TestRefused(t *testing.T) {
	frame := func(ty Type, code uint16, n uint32) []byte {
		return append(appendHeader(nil, ty, code, 0, 0, int(n)), make([]byte, min(n, 100))...)
	}
	for _, x := range []struct {
		name string
		side Side
		b    []byte
	}{
		{"unknown", Device, frame(77, 0, 0)},
		{"unknown of a server", Server, frame(77, 0, 0)},
		{"a request of the device", Device, frame(TypeRead, 0, 12)},
		{"a CRQ of the server", Server, frame(TypeCRQ, 0, 16)},
		{"short HELLO", Device, frame(TypeHello, 0, 63)},
		{"long HELLO", Device, frame(TypeHello, 0, 64+65)},
		{"short CRQ", Device, frame(TypeCRQ, 0, 15)},
		{"long EVENT", Device, frame(TypeEvent, 1, 17)},
		{"READ answer without data", Device, frame(TypeRead|Reply, 0, 0)},
		{"READ answer too long", Device, frame(TypeRead|Reply, 0, MaxData+1)},
		{"READ that failed, with data", Device, frame(TypeRead|Reply, 3, 1)},
		{"WRITE answer with data", Device, frame(TypeWrite|Reply, 0, 1)},
		{"WRITE of nothing", Server, frame(TypeWrite, 0, 8)},
		{"WRITE too long", Server, frame(TypeWrite, 0, MaxData+9)},
		{"unknown flag", Server, frame(TypeSend, 4, 16)},
		{"length of 4 GiB", Server, frame(TypeWrite, 0, 1<<32-1)},
	} {
		if _, n, err := Split(x.b[:HeaderLen], x.side); err == nil {
			t.Errorf("%s: taken, %d", x.name, n)
		}
	}
	for _, h := range []Hello{{Major: 1}, {Major: 1, MaxData: MaxData + 1}, {Major: 1, MaxData: 1, State: Registered}, {Major: 1, MaxData: 1, QueueSize: 4096}} {
		f, _, err := Split(h.Append(nil), Device)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseHello(f); err == nil {
			t.Errorf("%+v is taken", h)
		}
	}
	b := hello.Append(nil)
	b[HeaderLen+31]++ // the name's length
	f, _, _ := Split(b, Device)
	if _, err := ParseHello(f); err == nil {
		t.Error("a name of another length is taken")
	}
}

func TestStrings(t *testing.T) {
	for got, want := range map[string]string{
		TypeRead.String(): "READ", (TypeRead | Reply).String(): "READ answer", Type(0x77).String(): "frame type 0x0077",
		Stale.String(): "the client has begun anew", Status(99).String(): "status 0x63", EventReset.String(): "reset", EventKind(9).String(): "event 9",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// FuzzSplit: nothing that either side says panics, a frame lies within what was read,
// and what can be made again is the same.
func FuzzSplit(f *testing.F) {
	for _, g := range golden(f) {
		f.Add(g.want, bool(g.side))
	}
	f.Fuzz(func(t *testing.T, b []byte, side bool) {
		for {
			x, n, err := Split(b, Side(side))
			if err != nil || n == 0 {
				return
			}
			if n < HeaderLen || n > len(b) || n > MaxFrame || len(x.Payload) != n-HeaderLen {
				t.Fatalf("a frame of %d bytes with %d of payload in %d", n, len(x.Payload), len(b))
			}
			var again []byte
			if h, err := ParseHello(x); err == nil {
				again = h.Append(nil)
			} else if e, err := ParseEvent(x); err == nil {
				again = e.Append(nil)
			} else if q, err := ParseCRQ(x); err == nil && x.Type == TypeCRQ {
				again = AppendCRQ(nil, x.Epoch, &q)
			} else if err == nil {
				again = AppendSend(nil, Flags(x.Code), x.Epoch, x.ID, &q)
			} else if m, err := ParseTransfer(x); err == nil && m.Data == nil {
				again = AppendRead(nil, Flags(x.Code), x.Epoch, x.ID, m.Address, m.Len)
			} else if err == nil {
				again = append(AppendWrite(nil, Flags(x.Code), x.Epoch, x.ID, m.Address, m.Len), m.Data...)
			} else if x.Type&Reply != 0 && Side(side) == Device {
				again = AppendReply(nil, x.Type&^Reply, Status(x.Code), x.Epoch, x.ID, x.Payload)
			}
			if again != nil {
				y, m, err := Split(again, Side(side))
				if err != nil || m != len(again) || m != n || y.Type != x.Type || y.Code != x.Code || y.Epoch != x.Epoch {
					t.Fatalf("made again:\n%x\n%x\n%v", b[:n], again, err)
				}
			}
			b = b[n:]
		}
	})
}
