package backing_test

import (
	"path/filepath"
	"testing"

	"github.com/vtgt/vtgt/backing"
)

// TestEncryptedDirect: encrypted and past the page cache, with what direct I/O wants of
// buffers and offsets.
func TestEncryptedDirect(t *testing.T) {
	g := newGroup(t)
	o := cryptOptions(t, g)
	o.Cache = backing.Direct
	st, err := backing.Open("encrypted:"+filepath.Join(t.TempDir(), "a.img"), o)
	if err != nil {
		t.Skip("no direct I/O here: ", err)
	}
	d := intentDriver(t, st, g)
	buf := make([]byte, 5*4096+512)
	for i := range buf {
		buf[i] = byte(i * 7)
	}
	for _, c := range []struct{ off, n int64 }{{0, 4096}, {512, 512}, {3 * 512, 4096 + 512}, {1<<20 - 512, 5*4096 + 512}, {8<<20 - 512, 512}} {
		if err := d.Write(c.off, buf[:c.n], 0); err != nil {
			t.Fatal(err)
		}
		is := make([]byte, c.n)
		if err := d.Read(c.off, is); err != nil || string(is) != string(buf[:c.n]) {
			t.Errorf("%d bytes at %d: %v", c.n, c.off, err)
		}
	}
	if err := d.Do(&backing.Op{Kind: backing.Rekey}); err != nil {
		t.Error(err)
	}
	endAll(t, d, st)
}
