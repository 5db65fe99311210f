package guest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeApt puts programs in front of apt's that know one package, whose file holds
// "deb" and whose index says sum.
func fakeApt(t *testing.T, sum string) *Cache {
	t.Helper()
	dir := t.TempDir()
	for name, script := range map[string]string{
		"apt-cache": "echo 'Package: p\nVersion: 1:2\nSHA256: " + sum + "'",
		"apt-get":   "case $1 in download) printf deb >p_2_amd64.deb ;; esac",
		"dpkg-deb":  `mkdir "$3" && cp "$2" "$3/file"`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return &Cache{Dir: t.TempDir()}
}

func TestPackage(t *testing.T) {
	h := sha256.Sum256([]byte("deb"))
	c := fakeApt(t, hex.EncodeToString(h[:]))
	for range 2 { // the second time from the cache
		root, err := c.Package("p")
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(root, "file")); err != nil || string(b) != "deb" || filepath.Base(root) != "p_1%3a2" {
			t.Errorf("%s: %q %v", root, b, err)
		}
	}
}

func TestPackageWrongSum(t *testing.T) {
	h := sha256.Sum256([]byte("other"))
	c := fakeApt(t, hex.EncodeToString(h[:]))
	if _, err := c.Package("p"); err == nil || !strings.Contains(err.Error(), "SHA-256") || !strings.Contains(err.Error(), "apt-get update") {
		t.Errorf("%v", err)
	}
	left, err := filepath.Glob(filepath.Join(c.Dir, "p*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

// TestConsole keeps the end, and goes on without its file.
func TestConsole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	c := console{log: f}
	line := strings.Repeat("x", 1023) + "\n"
	for range 3 * consoleMax / len(line) {
		c.Write([]byte(line))
	}
	c.close()
	c.Write([]byte("end"))
	if s := c.text(); len(s) > 2*consoleMax+len(line) || !strings.HasSuffix(s, "\nend") {
		t.Errorf("%d bytes", len(s))
	}
	if fi, err := os.Stat(path); err != nil || fi.Size() != int64(3*consoleMax/len(line)*len(line)) {
		t.Error(fi, err)
	}
}

func TestUnknownModule(t *testing.T) {
	k := &Kernel{Release: "6", builtin: map[string]bool{"there": true}, byName: map[string]string{}}
	if _, err := k.Modules("there"); err != nil {
		t.Error(err)
	}
	if _, err := k.Modules("nowhere"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
