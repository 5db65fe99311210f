package daemon

import (
	"testing"

	"github.com/vtgt/vtgt/iscsi/iscsitest"
)

// TestClosedFirst: a node that has closed its connection and logs in again, as another
// initiator port, does not find what its old session held. Nor does another node find the
// disk in use.
func TestClosedFirst(t *testing.T) {
	w := newWorld(t)
	w.file("a.img", 1<<20)
	d := w.start(w.config(w.one()))
	n := 200
	if testing.Short() {
		n = 50
	}
	login := func(i int, name string) *iscsitest.Conn {
		t.Helper()
		c, err := iscsitest.Dial(d.Status().Portals[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Login(iscsitest.Login{InitiatorName: name, TargetName: iqn1, ISID: [6]byte{0x80, 0, 0, 1, 0, byte(i)}}); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		return c
	}
	for i := range n {
		c := login(i, host)
		r := run(t, c, iscsitest.Command{CDB: []byte{0x16, 0, 0, 0, 0, 0}}) // RESERVE(6)
		c.Close()
		if r.Status != 0 {
			t.Fatalf("round %d: status %#x", i, r.Status)
		}
	}
	// The disk is not shared: the next node comes when the last one has gone.
	for i := range n {
		login(i, host+string(rune('a'+i%2))).Close()
	}
}
