package daemon

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/vhost/vhosttest"
)

// status runs a command on LUN 0 of target 0 and tells how it ended.
func (w *world) command(c *vhosttest.Client, cdb, out, in []byte) (status byte, key byte, asc uint16) {
	w.t.Helper()
	r, err := c.Request(0).Exec(vhosttest.LUN(0, 0), cdb, out, in)
	if err != nil {
		w.t.Fatal(err)
	}
	if r.Response != vhosttest.RespOK {
		w.t.Fatalf("CDB % x: response %d", cdb, r.Response)
	}
	key, asc = r.SenseCode()
	return r.Status, key, asc
}

// TestMigrate: a machine stops with one daemon and goes on with another, which serves the
// same disk: registrations, modes and the absence of unit attentions go along, and the
// daemon in which it does not run has nothing to say about the disk.
func TestMigrate(t *testing.T) {
	a, b := newWorld(t), &world{t, t.TempDir()}
	disk := a.file("disk", 1<<20)
	text := func(w *world) []byte {
		return w.config(fmt.Sprintf("disks: [{name: a, store: \"file:%s\", serial: s1, reservations: %q, migratable: true}]\n"+
			"targets:\n- {name: one, luns: [{lun: 0, disk: a}], vhost: {socket: %q, initiator: 6f1c0000-0000-4000-8000-000000000001}}\n",
			disk, disk+".pr", filepath.Join(w.dir, "sock")))
	}
	da, db := a.start(text(a)), b.start(text(b))
	tur := make([]byte, 6)
	first := true
	comes := func(w *world, d *Daemon) *vhosttest.Client {
		t.Helper()
		c := guest(t, filepath.Join(w.dir, "sock"))
		if c.Offered&vhosttest.FeatureLogAll == 0 {
			t.Error("the machine may not migrate")
		}
		st, key, asc := w.command(c, tur, nil, nil)
		if first && (st != 2 || key != 6 || asc != 0x2900) || !first && st != 0 {
			t.Fatalf("the first command: status %#x, sense %x/%04x", st, key, asc)
		}
		first = false
		return c
	}
	c := comes(a, da)
	register := []byte{0x5f, 6, 0, 0, 0, 0, 0, 0, 24, 0}
	keys := make([]byte, 24)
	copy(keys[8:], "\x00\x00\x00\x00\x00\x00\x0a\xbc")
	if st, key, asc := a.command(c, register, keys, nil); st != 0 {
		t.Fatalf("REGISTER: %#x %x/%04x", st, key, asc)
	}
	if st, _, _ := a.command(c, []byte{0x5f, 1, 5, 0, 0, 0, 0, 0, 24, 0}, append([]byte("\x00\x00\x00\x00\x00\x00\x0a\xbc"), make([]byte, 16)...), nil); st != 0 {
		t.Fatalf("RESERVE: %#x", st)
	}
	data := bytes.Repeat([]byte("moved..."), 64)
	worlds, daemons := []*world{a, b}, []*Daemon{da, db}
	for i := range 4 {
		data[0] = byte(i)
		w := worlds[i%2]
		if st, key, asc := w.command(c, []byte{0x2a, 0, 0, 0, 0, 1, 0, 0, 1, 0}, data, nil); st != 0 {
			t.Fatalf("round %d: WRITE: %#x %x/%04x", i, st, key, asc)
		}
		// The other one waits for as long as the machine runs here.
		other, err := vhosttest.Dial(filepath.Join(worlds[1-i%2].dir, "sock"), vhosttest.Options{Timeout: tempotest.Patience})
		if err != nil {
			t.Fatal(err)
		}
		starts := make(chan error, 1)
		go func() { starts <- other.Start() }()
		worlds[1-i%2].awaitState(daemons[1-i%2], "one", "connected")
		select {
		case err := <-starts:
			t.Fatalf("round %d: it runs in both: %v", i, err)
		default:
		}
		if err := c.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := <-starts; err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		if err := other.Close(); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		c = comes(worlds[1-i%2], daemons[1-i%2])
		in := make([]byte, 512)
		if st, _, _ := w.command(c, []byte{0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0}, nil, in); st != 0 || !bytes.Equal(in, data) {
			t.Fatalf("round %d: READ: %#x, %q", i, st, in[:16])
		}
		// Not APTPL: a restart would lose it.
		if st, _, _ := w.command(c, []byte{0x5e, 0, 0, 0, 0, 0, 0, 2, 0, 0}, nil, in); st != 0 || !bytes.Equal(in[8:16], []byte("\x00\x00\x00\x00\x00\x00\x0a\xbc")) {
			t.Fatalf("round %d: READ KEYS: %#x, % x", i, st, in[:16])
		}
		if st, _, _ := w.command(c, []byte{0x5e, 1, 0, 0, 0, 0, 0, 2, 0, 0}, nil, in); st != 0 || in[21]&0xf != 5 {
			t.Fatalf("round %d: READ RESERVATION: %#x, % x", i, st, in[:24])
		}
	}
}
