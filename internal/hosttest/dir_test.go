package hosttest

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestDir(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	fi, err := os.Stat(Dir(t))
	if err != nil || fi.Mode().Perm() != 0o700 {
		t.Error(fi, err)
	}
}

// TestPublic: a private TMPDIR is not used, one that is private further up neither.
func TestPublic(t *testing.T) {
	if dir := Public(t); !Enters(dir) {
		t.Errorf("not everybody may enter %s", dir)
	}
	for _, sub := range []string{"", "open"} {
		private := Dir(t)
		dir := filepath.Join(private, sub)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("TMPDIR", dir)
		if dir := Public(t); strings.HasPrefix(dir, private) || !Enters(dir) {
			t.Errorf("%s while TMPDIR is %s", dir, os.Getenv("TMPDIR"))
		}
	}
}
