package state

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

func TestFile(t *testing.T) {
	dir := t.TempDir()
	f := File(filepath.Join(dir, "r.json"))
	load := func(want string) {
		t.Helper()
		if b, err := f.Load(); err != nil || string(b) != want || (b == nil) != (want == "") {
			t.Errorf("%q, %v, want %q", b, err, want)
		}
	}
	load("")
	for _, s := range []string{"1\n", "22\n"} {
		if err := f.Save([]byte(s)); err != nil {
			t.Fatal(err)
		}
		load(s)
	}
	if err := f.Save(nil); err != nil {
		t.Fatal(err)
	}
	load("")
	// A folder that is not there may be on a file system that is not mounted.
	f = File(filepath.Join(dir, "x", "r.json"))
	if _, err := f.Load(); err == nil || !strings.Contains(err.Error(), "r.json") {
		t.Error(err)
	}
	if err := f.Save([]byte("1")); err == nil {
		t.Error("saved into a folder that is not there")
	}
}

// TestMemoryKilled: whenever a process that saves is killed, the record is one of
// those that it saved, whole.
func TestMemoryKilled(t *testing.T) {
	const env = "VTGT_STATE_SAVES_IN"
	record := func(n int) []byte {
		return []byte(fmt.Sprintf("%08d", n) + strings.Repeat(string(rune('a'+n%26)), 1+n*37%5000) + "\n")
	}
	if dir := os.Getenv(env); dir != "" {
		m := (&Dir{path: dir}).Memory("a")
		for n := 0; ; n++ {
			var b []byte // some remove it
			if n%7 != 6 {
				b = record(n)
			}
			if err := m.Save("x", b); err != nil {
				t.Fatal(err)
			}
			if n == 20 {
				fmt.Println("at it")
			}
		}
	}
	dir := t.TempDir()
	for i := range 15 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestMemoryKilled$")
		cmd.Env = append(os.Environ(), env+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if s, err := bufio.NewReader(out).ReadString('\n'); err != nil || s != "at it\n" {
			t.Fatalf("%q %v", s, err)
		}
		time.Sleep(time.Duration(i*317) * time.Microsecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		d := open(t, dir) // sweeps
		b, err := d.Memory("a").Load("x")
		if err != nil {
			t.Fatal(err)
		}
		var n int
		if b != nil {
			if _, err := fmt.Sscanf(string(b), "%08d", &n); err != nil || string(b) != string(record(n)) {
				t.Fatalf("a part of a record: %.40q… of %d bytes", b, len(b))
			}
		}
		d.Close()
		if files, _ := os.ReadDir(filepath.Join(dir, unitFolder, "a")); len(files) > 1 {
			t.Errorf("left behind: %v", files)
		}
	}
}
