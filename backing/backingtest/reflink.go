package backingtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/internal/sys"
)

// Reflink is a folder on a file system of its own whose files can share blocks (xfs in
// an image that is mounted), of size bytes, and a function that gives the bytes that
// were moved from and to its device so far, what is dirty written first. The test is
// skipped, with the reason printed, where there can be none.
func Reflink(t testing.TB, size int64) (dir string, moved func() int64) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("no file system with shared blocks: it takes root to mount one")
	}
	mkfs, err := exec.LookPath("mkfs.xfs")
	if err != nil {
		if mkfs = "/usr/sbin/mkfs.xfs"; !exists(mkfs) {
			t.Skip("no file system with shared blocks: mkfs.xfs (package xfsprogs) is missing")
		}
	}
	base := t.TempDir()
	image := filepath.Join(base, "image")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	err = f.Truncate(size)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs, "-q", "-m", "reflink=1", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.xfs: %v: %s", err, out)
	}
	dir = filepath.Join(base, "xfs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "xfs", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Skipf("no file system with shared blocks: mount: %v: %s", err, strings.TrimSpace(string(out)))
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	dev, err := exec.Command("findmnt", "-n", "-o", "SOURCE", dir).Output()
	if err != nil {
		t.Fatalf("findmnt: %v", err)
	}
	stat := "/sys/block/" + filepath.Base(strings.TrimSpace(string(dev))) + "/stat"
	return dir, func() int64 {
		if out, err := exec.Command("sync", "-f", dir).CombinedOutput(); err != nil {
			t.Fatalf("sync: %v: %s", err, out)
		}
		b, err := os.ReadFile(stat)
		if err != nil {
			t.Fatal(err)
		}
		// Documentation/block/stat.rst: field 3 sectors read, field 7 written.
		fs := strings.Fields(string(b))
		if len(fs) < 7 {
			t.Fatalf("%s: %q", stat, b)
		}
		r, err1 := strconv.ParseInt(fs[2], 10, 64)
		w, err2 := strconv.ParseInt(fs[6], 10, 64)
		if err1 != nil || err2 != nil {
			t.Fatalf("%s: %q", stat, b)
		}
		return (r + w) * 512
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Shares tells whether files in dir can share blocks.
func Shares(t testing.TB, dir string) bool {
	t.Helper()
	const n = 64 << 10 // a whole number of any file system's blocks
	var fs [2]*os.File
	for i := range fs {
		f, err := os.CreateTemp(dir, "shares-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.Remove(f.Name())
		defer f.Close()
		if _, err := f.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		fs[i] = f
	}
	return sys.CloneRange(int(fs[0].Fd()), 0, int(fs[1].Fd()), 0, n) == nil
}
