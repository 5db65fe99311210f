package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPrepare: tests are given a TMPDIR with a short, plain name, and it is the same
// folder.
func TestPrepare(t *testing.T) {
	for _, name := range []string{"", "a b,c'd%s\"ü", strings.Repeat("long", 30)} {
		base, err := os.MkdirTemp("/tmp", "v")
		if err != nil {
			t.Skip(err)
		}
		defer os.RemoveAll(base)
		dir := filepath.Join(base, name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		t.Setenv("TMPDIR", dir)
		done, err := prepare()
		if err != nil {
			t.Fatal(err)
		}
		got := os.Getenv("TMPDIR")
		if (got == dir) != (name == "") || !plain(got) {
			t.Errorf("%q became %q", dir, got)
		}
		if err := os.WriteFile(filepath.Join(got, "x"), nil, 0o600); err != nil {
			t.Error(err)
		}
		done()
		if _, err := os.Stat(filepath.Join(dir, "x")); err != nil {
			t.Error("another folder, or what was in it is gone:", err)
		}
		if _, err := os.Lstat(got); got != dir && err == nil {
			t.Error("left:", got)
		}
	}
	t.Setenv("TMPDIR", "/nonexistent")
	if _, err := prepare(); err == nil || !strings.Contains(err.Error(), "set TMPDIR") {
		t.Error(err)
	}
}
