package hosttest

import (
	"os"
	"path/filepath"
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
		if !enters(base) {
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

// enters tells whether every user may enter dir.
func enters(dir string) bool {
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
