package state

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func open(t *testing.T, dir string) *Dir {
	t.Helper()
	d, err := Open(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestIdentitiesStay(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "state")
	d := open(t, dir)
	p := d.Identities().Prepare()
	a, b := p.Disk("a"), p.Disk("b")
	if a == b || a.NAA64()>>60 != 3 || len(a.Serial) != 16 {
		t.Errorf("%+v %+v", a, b)
	}
	if p.Disk("a") != a {
		t.Error("not the same before Commit")
	}
	p1, _ := p.Port("iscsi:x")
	p2, _ := p.Port("iscsi:y")
	if p1 != 1 || p2 != 2 {
		t.Errorf("ports %d %d", p1, p2)
	}
	guest := p.Initiator("vhost:x")
	if guest == p.Initiator("vhost:y") || guest != p.Initiator("vhost:x") || guest[6]>>4 != 4 || guest[8]>>6 != 2 {
		t.Errorf("%x", guest)
	}
	for range 2 {
		if g, err := p.Group("x"); g != 1 || err != nil {
			t.Errorf("group %d, %v", g, err)
		}
		if g, err := p.Group("y"); g != 2 || err != nil {
			t.Errorf("group %d, %v", g, err)
		}
	}
	if err := p.Commit(); err != nil {
		t.Fatal(err)
	}
	d.Close()

	d = open(t, dir)
	p = d.Identities().Prepare()
	if g, _ := p.Group("y"); g != 2 {
		t.Errorf("group %d", g)
	}
	if g, _ := p.Group("z"); g != 3 {
		t.Errorf("new group %d", g)
	}
	if p.Initiator("vhost:x") != guest || p.Initiator("vhost:z") == guest {
		t.Error("an initiator changed over a restart")
	}
	if p.Disk("a") != a || p.Disk("b") != b {
		t.Error("identities changed over a restart")
	}
	if id, _ := p.Port("iscsi:y"); id != 2 {
		t.Errorf("port %d", id)
	}
	if id, _ := p.Port("iscsi:z"); id != 3 {
		t.Errorf("new port %d", id)
	}
	// Not committed: forgotten.
	c := p.Disk("c")
	if d.Identities().Prepare().Disk("c") == c {
		t.Error("an identity was kept without Commit")
	}
}

func TestNoRubbishLeft(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	for _, n := range []string{"a", "b", "c"} {
		p := d.Identities().Prepare()
		p.Disk(n)
		if err := p.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	es, _ := os.ReadDir(dir)
	for _, e := range es {
		names = append(names, e.Name())
		if fi, _ := e.Info(); fi.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", e.Name(), fi.Mode())
		}
	}
	if want := []string{"format.json", "identities.json", "lock"}; !reflect.DeepEqual(names, want) {
		t.Errorf("%v", names)
	}
}

// A daemon that was killed while it wrote leaves a file that nobody will rename.
func TestSweep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "odd [name]")
	d := open(t, dir)
	if err := d.Keep(1, false, []byte("x")); err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, p := range []string{identityFile, filepath.Join(versionFolder, "v.yaml")} {
		p = filepath.Join(dir, p)
		f, err := os.CreateTemp(filepath.Dir(p), tempPattern(p))
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		left = append(left, f.Name())
	}
	d.Close()
	d = open(t, dir)
	for _, p := range left {
		if _, err := os.Stat(p); err == nil {
			t.Error(p, "is still there")
		}
	}
	if ks, err := d.Kept(); err != nil || len(ks) != 1 {
		t.Error("the kept configuration went too:", ks, err)
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	_, err := Open(dir, 0)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "another vtgt (process ") {
		t.Fatalf("%v", err)
	}
	// An owner that ends meanwhile is waited for.
	done := make(chan struct{})
	go func() {
		defer close(done)
		time.Sleep(50 * time.Millisecond)
		d.Close()
	}()
	d2, err := Open(dir, time.Minute)
	<-done
	if err != nil {
		t.Fatal(err)
	}
	d2.Close()
}

func TestDamage(t *testing.T) {
	for name, c := range map[string]struct{ file, content, want string }{
		"newer":     {formatFile, `{"format":2}`, "was written by a newer vtgt (format 2"},
		"format":    {formatFile, `x`, "format.json: is damaged; restore"},
		"json":      {identityFile, `{`, "identities.json: is damaged"},
		"unknown":   {identityFile, `{"version":1,"x":1}`, "is damaged"},
		"identity":  {identityFile, `{"version":1,"disks":{"a":{"serial":"x","naa":"5000000000000000"}}}`, `disk "a" has no proper identity`},
		"initiator": {identityFile, `{"version":1,"initiators":{"vhost:a":"x"}}`, `the initiator of "vhost:a" is not a UUID`},
		"same port": {identityFile, `{"version":1,"ports":{"a":1,"b":1}}`, "has the identifier 1"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p := filepath.Join(dir, c.file)
			if err := os.WriteFile(p, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(dir, 0); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
			if b, _ := os.ReadFile(p); string(b) != c.content {
				t.Error("the damaged file was changed")
			}
			// The lock is free again.
			if err := os.Remove(p); err != nil {
				t.Fatal(err)
			}
			open(t, dir)
		})
	}
}

func TestInTheWay(t *testing.T) {
	p := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(p, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(p, 0); err == nil || !strings.Contains(err.Error(), "a file is in the way") {
		t.Errorf("%v", err)
	}
}

func FuzzIdentities(f *testing.F) {
	f.Add([]byte(`{"version":1,"disks":{"a":{"serial":"x","naa":"3000000000000000"}},"ports":{"iscsi:a":1}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parseIdentities(b)
		if err != nil {
			return
		}
		for n, x := range d.Disks {
			if x.NAA64()>>60 != 3 {
				t.Fatalf("%q: %+v", n, x)
			}
		}
	})
}
