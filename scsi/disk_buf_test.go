package scsi

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// split cuts b into random pieces, empty ones among them.
func split(r *rand.Rand, b []byte) (v [][]byte) {
	for len(b) > 0 {
		n := r.IntN(min(len(b), 9) + 1)
		v = append(v, b[:n:n])
		b = b[n:]
	}
	return append(v, nil)
}

func TestBufs(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var d diskTask
	for range 2000 {
		b := make([]byte, r.IntN(100))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		v := split(r, b)
		if n := bufsLen(v); n != int64(len(b)) {
			t.Fatalf("bufsLen %d of %d", n, len(b))
		}
		from := r.IntN(len(b) + 1)
		n := r.IntN(len(b) - from + 1)
		if got := bytes.Join(d.cut(v, int64(from), int64(n)), nil); !bytes.Equal(got, b[from:from+n]) {
			t.Fatalf("cut(%d, %d) of % x is % x", from, n, b, got)
		}
		var c cursor
		c.skip(v, int64(from))
		got := make([]byte, n)
		if m := c.copyOut(v, got); m != n || !bytes.Equal(got, b[from:from+n]) {
			t.Fatalf("copyOut %d of %d: % x", m, n, got)
		}
		c = cursor{}
		c.skip(v, int64(from))
		want := -1
		if n > 0 && r.IntN(2) == 0 {
			want = r.IntN(n)
			got[want] ^= 0x10
			for i := want + 1; i < n; i++ {
				got[i] = byte(r.Uint32())
			}
		}
		if i := c.compare(v, got); i != want {
			t.Fatalf("compare found %d, want %d", i, want)
		}
		c = cursor{}
		c.skip(v, int64(from))
		if m := c.copyIn(v, got); m != n || !bytes.Equal(b[from:from+n], got) {
			t.Fatalf("copyIn %d of %d", m, n)
		}
	}
}

func TestMismatch(t *testing.T) {
	a, b := make([]byte, 1000), make([]byte, 1000)
	if i := mismatch(a, b); i != -1 {
		t.Fatal(i)
	}
	for want := range a {
		b[want] = 1
		b[len(b)-1] = 1
		if i := mismatch(a, b); i != want {
			t.Fatalf("mismatch %d, want %d", i, want)
		}
		b[want], b[len(b)-1] = 0, 0
	}
}

func TestAllZero(t *testing.T) {
	for n := range 40 {
		b := make([]byte, n)
		if !allZero(b) {
			t.Fatal(n)
		}
		for i := range b {
			b[i] = 0x80
			if allZero(b) {
				t.Fatal(n, i)
			}
			b[i] = 0
		}
	}
}
