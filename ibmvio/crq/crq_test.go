package crq

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/vtgt/vtgt/scsi"
)

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// TestEntryGolden holds entries as Linux 6.1 and SLOF send them.
func TestEntryGolden(t *testing.T) {
	for _, c := range []struct {
		hex string
		e   Entry
	}{
		{"c0010000000000000000000000000000", Message(InitMsg, Init)},
		{"c0020000000000000000000000000000", Message(InitMsg, InitComplete)},
		{"ff060000000000000000000000000000", Message(Transport, Migrated)},
		{"8001000000000040000000001e66dc88", Command(SRP, 64, 0x1e66dc88)},
		{"8002000000000010b0015603000000c0", Command(MAD, 16, 0xb0015603000000c0)},
	} {
		if got := hex.EncodeToString(c.e[:]); got != c.hex {
			t.Errorf("%s, want %s", got, c.hex)
		}
	}
	e := Entry(unhex(t, "80020000001e0100000000000c010100"))
	if e.Header() != Payload || e.Format() != MAD || e.Timeout() != 30 || e.Length() != 256 || e.Pointer() != 0xc010100 || e.Status() != OK {
		t.Errorf("%x is taken apart wrongly", e)
	}
	e.SetStatus(AdapterFail)
	e.SetTimeout(0x0102)
	if got := hex.EncodeToString(e[:]); got != "800200100102"+"0100000000000c010100" {
		t.Errorf("%s", got)
	}
}

func TestInfoGolden(t *testing.T) {
	var i Info
	i.SetVersion("16.a")
	i.SetPartition("vtgt")
	i.SetNumber(0xffffffff)
	i.SetMADVersion(1)
	i.SetOS(OSAIX)
	i.SetMaxTransfer(0x400000)
	want := unhex(t, "31362e6100000000"+"76746774")
	want = append(want, make([]byte, 104-len(want))...)
	want = append(want, unhex(t, "ffffffff"+"00000001"+"00000003"+"00400000")...)
	want = append(want, make([]byte, InfoLen-len(want))...)
	if !bytes.Equal(i[:], want) {
		t.Errorf("%x\nwant %x", i, want)
	}
	if i.Version() != "16.a" || i.Partition() != "vtgt" || i.Number() != 0xffffffff || i.MADVersion() != 1 || i.OS() != OSAIX || i.MaxTransfer() != 0x400000 {
		t.Error("read back wrongly")
	}
	copy(i[8:], "a\x1b[31m")
	if i.Partition() != "a?[31m" {
		t.Errorf("%q", i.Partition())
	}
}

// linuxCaps are Linux 6.1's capabilities.
const linuxCaps = "00000004" + "686f737430000000000000000000000000000000000000000000000000000000" +
	"3731303030303032000000000000000000000000000000000000000000000000" +
	"00000001000c000100000001" + "00000002000c000100000001"

func TestGrant(t *testing.T) {
	b := unhex(t, linuxCaps)
	if len(b) != 92 {
		t.Fatal(len(b))
	}
	reserve, err := Grant(b)
	if !reserve || err != nil {
		t.Errorf("%v %v", reserve, err)
	}
	want := unhex(t, linuxCaps)
	want[68+7] = 0 // no migration
	if !bytes.Equal(b, want) {
		t.Errorf("%x\nwant %x", b, want)
	}
	if _, err := Grant(b[:67]); err != ErrShort {
		t.Error(err)
	}
	b = unhex(t, linuxCaps)
	b[68+5] = 200
	if _, err := Grant(b); err != ErrShort {
		t.Error("a record longer than the list:", err)
	}
	b[68+5] = 0
	if _, err := Grant(b); err != ErrShort {
		t.Error("a record of no length:", err)
	}
	b = unhex(t, linuxCaps)
	b[3] = 3 // no list: none of it is supported
	if reserve, err := Grant(b); reserve || err != nil || Flags(b) != 0 {
		t.Errorf("%v %v %x", reserve, err, Flags(b))
	}
}

func TestMADGolden(t *testing.T) {
	b := unhex(t, "0000000300000094b0015603000000c00000000000010968")
	m, buffer, err := ParseMAD(b)
	if err != nil || m.Type() != AdapterInfo || m.Length() != InfoLen || m.Tag() != 0xb0015603000000c0 || buffer != 0x10968 {
		t.Errorf("%v %x %v", m, buffer, err)
	}
	if _, _, err := ParseMAD(b[:23]); err != ErrShort {
		t.Error(err)
	}
	if _, _, err := ParseMAD(b[:15]); err != ErrShort {
		t.Error(err)
	}
	var d Datagram
	d.Set(EnableFastFail, 16, 0x60035603000000c0)
	d.SetStatus(MADNotSupported)
	if got := hex.EncodeToString(d[:]); got != "0000000800f1001060035603000000c0" {
		t.Error(got)
	}
}

func TestLUN(t *testing.T) {
	for _, c := range []struct {
		hex string
		a   Address
	}{
		{"8000000000000000", Address{}},
		{"8100000000000000", Address{ID: 1}},
		{"8001000000000000", Address{LUN: 1}},
		{"8020000000000000", Address{Channel: 1}},
		{"bfff000000000000", Address{63, 7, 31}},
	} {
		l := scsi.LUN(unhex(t, c.hex))
		if a, ok := ParseLUN(l); !ok || a != c.a {
			t.Errorf("%s: %v %v", c.hex, a, ok)
		}
		if c.a.Encode() != l {
			t.Errorf("%v: %x", c.a, c.a.Encode())
		}
	}
	if a, ok := ParseLUN(scsi.EncodeLUN(5)); !ok || a != (Address{LUN: 5}) {
		t.Errorf("peripheral: %v %v", a, ok)
	}
	for _, s := range []string{"4000000000000000", "c101000000000000", "8000000100000000", "0020000000000000", "0100000000000000"} {
		if a, ok := ParseLUN(scsi.LUN(unhex(t, s))); ok {
			t.Errorf("%s: %v", s, a)
		}
	}
}

func TestStrings(t *testing.T) {
	for _, s := range []string{Header(0x12).String(), MADType(77).String(), OS(9).String(), Payload.String(), Capabilities.String(), OSAIX.String()} {
		if s == "" {
			t.Error("an empty name")
		}
	}
}

func FuzzMAD(f *testing.F) {
	f.Add(unhex(f, "0000000300000094b0015603000000c00000000000010968"), unhex(f, linuxCaps))
	f.Add(unhex(f, "000000080000001060035603000000c0"), []byte{})
	f.Fuzz(func(t *testing.T, unit, list []byte) {
		if m, _, err := ParseMAD(unit); err == nil {
			_ = m.Type().String()
			m.Set(m.Type(), m.Length(), m.Tag())
			if _, _, err := ParseMAD(unit); err != nil {
				t.Error(err)
			}
		}
		if len(list) >= InfoLen {
			i := (*Info)(list[:InfoLen])
			for _, c := range i.Partition() + i.Version() {
				if c < ' ' || c > '~' {
					t.Errorf("%q", i.Partition())
				}
			}
		}
		n := len(list)
		reserve, err := Grant(list)
		if len(list) != n || err == nil && len(list) >= CapsLen && Flags(list)&^CapListSupported != 0 {
			t.Error("flags that were not granted")
		}
		if again, _ := Grant(list); again != reserve && err == nil {
			t.Error("granting twice differs")
		}
	})
}

func FuzzEntry(f *testing.F) {
	f.Add(unhex(f, "80020000001e0100000000000c010100"), uint64(0x8101000000000000))
	f.Fuzz(func(t *testing.T, b []byte, lun uint64) {
		if len(b) >= EntryLen {
			e := Entry(b[:EntryLen])
			_ = e.Header().String()
			if e.Header() == Payload {
				r := Command(e.Format(), e.Length(), e.Pointer())
				r[2] = e[2]
				r.SetStatus(e.Status())
				r.SetTimeout(e.Timeout())
				if r != e {
					t.Errorf("%x becomes %x", e, r)
				}
			}
		}
		var l scsi.LUN
		for i := range l {
			l[i] = byte(lun >> (56 - 8*i))
		}
		if a, ok := ParseLUN(l); ok {
			if b, ok := ParseLUN(a.Encode()); !ok || b != a {
				t.Errorf("%x: %v becomes %v", l, a, b)
			}
		}
	})
}
