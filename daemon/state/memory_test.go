package state

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMemory(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	m := d.Memory("a.1")
	load := func(m *Memory, want string) {
		t.Helper()
		b, err := m.Load("mode")
		if err != nil || string(b) != want || (b == nil) != (want == "") {
			t.Errorf("%q, %v, want %q", b, err, want)
		}
	}
	load(m, "")
	if err := m.Save("mode", nil); err != nil {
		t.Errorf("removing what is not there: %v", err)
	}
	for _, s := range []string{"{}", `{"x":1}`} {
		b := []byte(s)
		if err := m.Save("mode", b); err != nil {
			t.Fatal(err)
		}
		load(m, s+"\n")
	}
	load(d.Memory("a"), "") // another disk
	// A daemon that was killed while it saved.
	left := filepath.Join(dir, unitFolder, "a.1", ".mode.json.new-17")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d.Close()
	d = open(t, dir)
	if _, err := os.Stat(left); err == nil {
		t.Error("what a killed daemon left is still there")
	}
	m = d.Memory("a.1")
	load(m, "{\"x\":1}\n")
	if err := m.Save("mode", nil); err != nil {
		t.Fatal(err)
	}
	load(m, "")

	// A folder that cannot be made is an error, and what cannot be read is no
	// empty record.
	if err := os.WriteFile(filepath.Join(dir, unitFolder, "b"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Memory("b").Save("mode", []byte("{}")); err == nil {
		t.Error("saved into a file")
	}
	if err := os.MkdirAll(filepath.Join(dir, unitFolder, "c", "mode.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Memory("c").Load("mode"); err == nil {
		t.Error("read a folder")
	}
}
