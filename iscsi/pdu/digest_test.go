package pdu

import (
	"bytes"
	"testing"
)

// The examples of RFC 3720 annex B.4 (RFC 7143 annex A.4), bytes as they stand on
// the wire.
func TestDigest(t *testing.T) {
	up := make([]byte, 32)
	down := make([]byte, 32)
	for i := range up {
		up[i], down[31-i] = byte(i), byte(i)
	}
	read := unhex(t, `
		01c00000 00000000 00000000 00000000
		14000000 00000400 00000014 00000018
		28000000 00000000 02000000 00000000`)
	for _, tc := range []struct {
		name     string
		in, wire []byte
	}{
		{"32 bytes of zeros", make([]byte, 32), []byte{0xaa, 0x36, 0x91, 0x8a}},
		{"32 bytes of ones", bytes.Repeat([]byte{0xff}, 32), []byte{0x43, 0xab, 0xa8, 0x62}},
		{"32 bytes counting up", up, []byte{0x4e, 0x79, 0xdd, 0x46}},
		{"32 bytes counting down", down, []byte{0x5c, 0xdb, 0x3f, 0x11}},
		{"a READ (10) PDU", read, []byte{0x56, 0x3a, 0x96, 0xd9}},
	} {
		for cut := 0; cut <= len(tc.in); cut += 5 {
			d := Digest(Digest(0, tc.in[:cut]), tc.in[cut:])
			var b [4]byte
			PutDigest(b[:], d)
			if !bytes.Equal(b[:], tc.wire) {
				t.Errorf("%s, cut at %d: %x, want %x", tc.name, cut, b, tc.wire)
			}
			if ReadDigest(tc.wire) != d {
				t.Errorf("%s: ReadDigest", tc.name)
			}
		}
	}
	for n := range 9 {
		padded := make([]byte, PaddedLen(n))
		copy(padded, up[:n])
		if DigestPad(Digest(0, up[:n]), n) != Digest(0, padded) {
			t.Errorf("padding of %d bytes", n)
		}
	}
}

func BenchmarkDigest4K(b *testing.B) {
	p := make([]byte, 4096)
	b.SetBytes(4096)
	for b.Loop() {
		Digest(0, p)
	}
}
