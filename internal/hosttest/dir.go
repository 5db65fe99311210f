package hosttest

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Dir is a folder for the test that its owner alone may enter, whatever the umask:
// testing.T's is everybody's with umask 0, and then no place for secrets.
func Dir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Public is a folder for the test that every user may enter, in TMPDIR or, where that
// is private, in /tmp or /var/tmp. The test is skipped where there is none.
func Public(t testing.TB) string {
	t.Helper()
	for _, base := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		if !Enters(base) {
			continue
		}
		dir, err := os.MkdirTemp(base, "vtgt-p-") // short: a socket's path is bounded
		if err != nil {
			continue
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	t.Skip("needs a folder that every user may enter: set TMPDIR to one")
	return ""
}

// Enters tells whether every user may enter dir.
func Enters(dir string) bool {
	dir, err := filepath.EvalSymlinks(dir)
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	for ; err == nil; dir = filepath.Dir(dir) {
		fi, err := os.Stat(dir)
		if err != nil || fi.Mode()&0o001 == 0 {
			return false
		}
		if dir == "/" {
			return true
		}
	}
	return false
}

// Room is how many bytes can still be written to the file system of dir; 0 where there
// is none. /dev/shm of a container has 64 MiB in all, as a rule.
func Room(dir string) int64 {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0
	}
	return int64(st.Bavail) * st.Bsize
}

// Memory makes a folder on a file system in memory, /dev/shm, where that may be written
// to and has room for n bytes; err says why not.
func Memory(n int64) (dir string, remove func(), err error) {
	const shm = "/dev/shm"
	if have := Room(shm); have < n {
		return "", nil, fmt.Errorf("%s has %d MiB free, %d are needed", shm, have>>20, (n+1<<20-1)>>20)
	}
	if dir, err = os.MkdirTemp(shm, "vtgt-"); err != nil {
		return "", nil, err
	}
	return dir, func() { os.RemoveAll(dir) }, nil
}
