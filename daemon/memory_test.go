package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/iscsi/iscsitest"
)

// What an initiator saves is there after a restart, and a record that is damaged is
// not taken for none.
func TestSavedModes(t *testing.T) {
	w := newWorld(t)
	w.file("a.img", 1<<20)
	text := w.config(w.one())
	d := w.start(text)
	run := func(c *iscsitest.Conn, cmd iscsitest.Command) *iscsitest.Task {
		t.Helper()
		k, err := c.Run(&cmd)
		if err != nil {
			t.Fatal(err)
		}
		if k.Status != 0 {
			key, asc := iscsitest.Sense(k.Sense)
			t.Fatalf("% x: %v %x/%04x", cmd.CDB, k.Status, key, asc)
		}
		return k
	}
	ready := func(d *Daemon) *iscsitest.Conn {
		c := dial(t, d, iqn1, host)
		tur := iscsitest.Command{CDB: make([]byte, 6)}
		_, _ = c.Run(&tur)
		return c
	}
	c := ready(d)
	list := append(make([]byte, 4), 0x0a, 10, 0x02, 0x10, 0, 0x40, 0, 0, 0xff, 0xff, 0, 0) // TAS
	run(c, iscsitest.Command{CDB: []byte{0x15, 0x11, 0, 0, byte(len(list)), 0}, Out: list})
	c.Close()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}

	d = w.start(text)
	c = ready(d)
	k := run(c, iscsitest.Command{CDB: []byte{0x1a, 0x08, 0x0a, 0, 0xff, 0}, In: 255})
	if got := fmt.Sprintf("%x", k.In); got != "0f001000"+"8a0a021000400000ffff0000" {
		t.Errorf("control page after the restart: %s", got)
	}
	c.Close()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, "state", "units", "a", "mode.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	es := w.refused(text)
	if len(es) != 1 || !strings.Contains(es[0].Error(), "saved (mode) is damaged") {
		t.Errorf("%v", es)
	}
}
