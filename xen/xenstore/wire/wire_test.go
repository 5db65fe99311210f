package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestGolden(t *testing.T) {
	for _, c := range []struct {
		typ     Type
		req, tx uint32
		payload []byte
		hex     string
	}{
		{Read, 1, 0, Strings("/local"), "02000000 01000000 00000000 07000000 2f6c6f63616c00"},
		{Write, 0x01020304, 7, Pair("/a/state", "4"), "0b000000 04030201 07000000 0a000000 2f612f73746174650034"},
		{Watch, 3, 0, Strings("/b", "t"), "04000000 03000000 00000000 05000000 2f62007400"},
		{TransactionStart, 4, 0, Strings(""), "06000000 04000000 00000000 01000000 00"},
		{TransactionEnd, 5, 9, Strings("T"), "07000000 05000000 09000000 02000000 5400"},
		{SetPerms, 6, 0, Strings("/b", Perm{None, 0}.String(), Perm{ReadOnly, 3}.String()), "0e000000 06000000 00000000 09000000 2f62006e3000723300"},
	} {
		want, _ := hex.DecodeString(strings.ReplaceAll(c.hex, " ", ""))
		got, err := Message(c.typ, c.req, c.tx, c.payload)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%v: %x, want %x (%v)", c.typ, got, want, err)
		}
		h, err := ParseHeader(want)
		if err != nil || h != (Header{c.typ, c.req, c.tx, uint32(len(c.payload))}) {
			t.Errorf("%v: header %+v, %v", c.typ, h, err)
		}
	}
}

func TestLimits(t *testing.T) {
	if _, err := Message(Write, 1, 0, make([]byte, MaxPayload+1)); !errors.Is(err, ErrLength) {
		t.Error(err)
	}
	if _, err := Message(Write, 1, 0, make([]byte, MaxPayload)); err != nil {
		t.Error(err)
	}
	if _, err := ParseHeader(Header{Len: MaxPayload + 1}.Append(nil)); !errors.Is(err, ErrLength) {
		t.Error(err)
	}
	if _, err := ParseHeader(make([]byte, 15)); !errors.Is(err, ErrLength) {
		t.Error(err)
	}
}

func TestPayloads(t *testing.T) {
	if l, err := ParseStrings([]byte("a\x00\x00b\x00")); err != nil || !reflect.DeepEqual(l, []string{"a", "", "b"}) {
		t.Error(l, err)
	}
	if l, err := ParseStrings(nil); err != nil || l != nil {
		t.Error(l, err)
	}
	if _, err := ParseStrings([]byte("a")); err == nil {
		t.Error("no NUL at the end")
	}
	if p, tok, err := ParseEvent([]byte("/x\x00tok\x00more\x00")); err != nil || p != "/x" || tok != "tok" {
		t.Error(p, tok, err)
	}
	if _, _, err := ParseEvent([]byte("/x\x00")); err == nil {
		t.Error("an event without a token")
	}
	if gen, l, last, err := ParsePart([]byte("17\x00a\x00b\x00\x00")); err != nil || gen != "17" || !last || len(l) != 2 {
		t.Error(gen, l, last, err)
	}
	if _, l, last, err := ParsePart([]byte("17\x00a\x00")); err != nil || last || len(l) != 1 {
		t.Error(l, last, err)
	}
	if _, _, _, err := ParsePart([]byte("17\x00a\x00\x00b\x00")); err == nil {
		t.Error("an empty name in the middle")
	}
	for _, s := range []string{"", "r", "x1", "r-1", "r+1", "r1x", "r99999999999"} {
		if p, err := ParsePerm(s); err == nil {
			t.Errorf("%q: %v", s, p)
		}
	}
	for p, ok := range map[string]bool{
		"/": true, "/a/b-1_2": true, "@releaseDomain": true, "": false, "a": false, "/a/": false, "//a": false,
		"/a b": false, "/a\x00": false, "/" + strings.Repeat("x", MaxPath): false,
	} {
		if err := CheckPath(p); (err == nil) != ok {
			t.Errorf("%.20q: %v", p, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("/x\x00tok\x00"))
	f.Add([]byte("17\x00a\x00b\x00\x00"))
	f.Add([]byte("r3"))
	f.Add(Header{WatchEvent, 1, 2, 3}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := ParseHeader(b); err == nil && !bytes.Equal(h.Append(nil), b[:HeaderLen]) {
			t.Fatalf("header %x", b)
		}
		if l, err := ParseStrings(b); err == nil && !bytes.Equal(Strings(l...), b) {
			t.Fatalf("strings %q", b)
		}
		if p, v, err := ParsePair(b); err == nil && !bytes.Equal(Pair(p, v), b) {
			t.Fatalf("pair %q", b)
		}
		if p, err := ParsePerm(string(b)); err == nil {
			if q, err := ParsePerm(p.String()); err != nil || q != p {
				t.Fatalf("perm %q", b)
			}
		}
		_, _, _ = ParseEvent(b)
		if _, l, _, err := ParsePart(b); err == nil {
			for _, s := range l {
				if s == "" || strings.Contains(s, "\x00") {
					t.Fatalf("part %q", b)
				}
			}
		}
		_ = CheckPath(string(b))
	})
}
