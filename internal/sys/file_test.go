package sys

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func tempFile(t *testing.T, size int64) (int, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	fd, err := OpenFile(path, O_RDWR|O_CREAT|O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { CloseFile(fd) })
	if err := Ftruncate(fd, size); err != nil {
		t.Fatal(err)
	}
	return fd, path
}

func TestVectored(t *testing.T) {
	fd, _ := tempFile(t, 8192)
	const off = 1<<32 + 5 // both halves of the offset count
	if n, e := Pwritev2(fd, AppendIovecs(nil, [][]byte{[]byte("ab"), nil, []byte("cde")}), off, RWF_DSYNC); n != 5 || e != 0 {
		t.Fatal(n, e)
	}
	a, b := make([]byte, 3), make([]byte, 9)
	if n, e := Preadv2(fd, AppendIovecs(nil, [][]byte{a, b}), off, 0); n != 5 || e != 0 || string(a)+string(b[:2]) != "abcde" {
		t.Fatal(n, e, a, b)
	}
	if _, e := Preadv2(-1, AppendIovecs(nil, [][]byte{a}), 0, 0); e != syscall.EBADF {
		t.Error(e)
	}
}

func TestAdvanceIovec(t *testing.T) {
	bufs := [][]byte{{1, 2, 3}, {4, 5}, {6}}
	for n := range 7 {
		left := AdvanceIovec(AppendIovecs(nil, bufs), n)
		total := 0
		for _, v := range left {
			total += int(v.Len)
		}
		if total != 6-n {
			t.Errorf("%d bytes left after %d of 6", total, n)
		}
		if n < 6 && *left[0].Base != byte(n+1) {
			t.Errorf("after %d: at %d", n, *left[0].Base)
		}
	}
}

func TestOFDLocks(t *testing.T) {
	fd, path := tempFile(t, 4096)
	other, err := OpenFile(path, O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := LockShared(other, 100, 1); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		fd   int
		off  int64
		want bool
	}{{fd, 100, true}, {fd, 101, false}, {other, 100, false}} {
		if got, err := Locked(c.fd, c.off); err != nil || got != c.want {
			t.Errorf("Locked(%d): %v %v, want %v", c.off, got, err, c.want)
		}
	}
	if err := LockShared(fd, 100, 1); err != nil {
		t.Errorf("shared locks do not share: %v", err)
	}
	CloseFile(other) // closing some other descriptor of the file drops only its own
	if got, _ := Locked(fd, 100); got {
		t.Error("the lock outlived its description")
	}
}

func TestUnnamedFile(t *testing.T) {
	dir := t.TempDir()
	fd, err := OpenUnnamed(dir, 0, 0o600)
	if IsNotSupported(err) {
		t.Skip("no O_TMPFILE here")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer CloseFile(fd)
	path := filepath.Join(dir, "name")
	if err := LinkFile(fd, path); err != nil {
		t.Fatal(err)
	}
	if err := LinkFile(fd, path); err != syscall.EEXIST {
		t.Errorf("over an existing name: %v, want EEXIST", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestSeekAndPunch(t *testing.T) {
	fd, _ := tempFile(t, 1<<20)
	data := make([]byte, 1<<16)
	if _, e := Pwritev2(fd, AppendIovecs(nil, [][]byte{data}), 1<<17, 0); e != 0 {
		t.Fatal(e)
	}
	if off, err := SeekData(fd, 0); err != nil || off != 1<<17 {
		t.Skipf("holes are not told here: %d %v", off, err)
	}
	if off, err := SeekHole(fd, 1<<17); err != nil || off != 1<<17+1<<16 {
		t.Errorf("SeekHole: %d %v", off, err)
	}
	if err := Fallocate(fd, FALLOC_FL_PUNCH_HOLE|FALLOC_FL_KEEP_SIZE, 1<<17, 1<<16); err != nil {
		t.Fatal(err)
	}
	if _, err := SeekData(fd, 0); err != syscall.ENXIO {
		t.Errorf("after the punch: %v, want ENXIO", err)
	}
}

func TestAligned(t *testing.T) {
	b, err := MapAnonymous(8192)
	if err != nil {
		t.Fatal(err)
	}
	defer Unmap(b)
	for _, c := range []struct {
		b    []byte
		want bool
	}{{b[:512], true}, {b[512:1536], true}, {b[4:516], false}, {b[:100], false}} {
		if got := Aligned(c.b, 512, 512); got != c.want {
			t.Errorf("%d bytes: %v", len(c.b), got)
		}
	}
}
