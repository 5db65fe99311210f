package pdu

import (
	"bytes"
	"errors"
	"testing"
)

func TestAHS(t *testing.T) {
	cdb := make([]byte, 32)
	for i := range cdb {
		cdb[i] = byte(i)
	}
	// §11.2.2.3: AHSLength is CDBLength-15; §11.2.2.4: AHSLength is 5.
	ext := unhex(t, "00110100 10111213 14151617 18191a1b 1c1d1e1f")
	bidi := unhex(t, "00050200 00012345")
	if b := AppendExtendedCDB(nil, cdb); !bytes.Equal(b, ext) {
		t.Errorf("extended CDB %x", b)
	}
	if b := AppendExtendedCDB(nil, cdb[:16]); len(b) != 0 {
		t.Errorf("CDB of 16 bytes %x", b)
	}
	if b := AppendBidiReadLength(nil, 0x12345); !bytes.Equal(b, bidi) {
		t.Errorf("bidirectional %x", b)
	}
	// 17 to 19 bytes of CDB: padded to a word.
	for n, want := range map[int]string{17: "00020100 10000000", 18: "00030100 10110000", 19: "00040100 10111200", 20: "00050100 10111213"} {
		b := AppendExtendedCDB(nil, cdb[:n])
		if !bytes.Equal(b, unhex(t, want)) {
			t.Errorf("CDB of %d bytes: %x, want %s", n, b, want)
		}
		a, err := ParseAHS(b)
		if err != nil || !bytes.Equal(a.ExtendedCDB, cdb[16:n]) {
			t.Errorf("CDB of %d bytes: %v %x", n, err, a.ExtendedCDB)
		}
	}
	a, err := ParseAHS(append(bytes.Clone(ext), bidi...))
	if err != nil || !bytes.Equal(a.ExtendedCDB, cdb[16:]) || !a.HasBidi || a.BidiReadLength != 0x12345 {
		t.Errorf("both: %v %+v", err, a)
	}
	if a, err := ParseAHS(nil); err != nil || a.HasBidi || a.ExtendedCDB != nil {
		t.Errorf("none: %v %+v", err, a)
	}
	for _, tc := range []struct {
		in  string
		err error
	}{
		{"0001", ErrAHSShort},
		{"ffff0100", ErrAHSShort},
		{"00060200 00000000", ErrAHSShort},
		{"00000100", ErrAHSLength},
		{"00010100", ErrAHSLength},
		{"00040200 00000000", ErrAHSLength},
		{"00050200 00000001 00050200 00000001", ErrAHSTwice},
		{"00020100 10000000 00020100 10000000", ErrAHSTwice},
		{"00010300", ErrAHSUnknown},
		{"00010000", ErrAHSUnknown},
	} {
		if a, err := ParseAHS(unhex(t, tc.in)); !errors.Is(err, tc.err) || a.ExtendedCDB != nil || a.HasBidi {
			t.Errorf("%s: %v %+v, want %v", tc.in, err, a, tc.err)
		}
	}
}

func FuzzAHS(f *testing.F) {
	f.Add([]byte{0, 0x11, 1, 0, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31})
	f.Add([]byte{0, 5, 2, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseAHS(b)
		if err != nil {
			return
		}
		if len(a.ExtendedCDB) > len(b) {
			t.Fatalf("%d bytes of CDB in %d", len(a.ExtendedCDB), len(b))
		}
		// What was understood can be said again, and means the same.
		var c []byte
		if a.ExtendedCDB != nil {
			c = AppendExtendedCDB(c, append(make([]byte, 16), a.ExtendedCDB...))
		}
		if a.HasBidi {
			c = AppendBidiReadLength(c, a.BidiReadLength)
		}
		d, err := ParseAHS(c)
		if err != nil || !bytes.Equal(d.ExtendedCDB, a.ExtendedCDB) || d.HasBidi != a.HasBidi || d.BidiReadLength != a.BidiReadLength {
			t.Fatalf("%x: %+v became %+v, %v", b, a, d, err)
		}
	})
}
