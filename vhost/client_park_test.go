package vhost_test

import (
	"encoding/json"
	"errors"
	"os"
	"testing"

	"github.com/coreos/go-systemd/v22/activation"

	"github.com/vtgt/vtgt/internal/handover"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/vhost"
	"github.com/vtgt/vtgt/vhost/vhosttest"
)

// testParker is a Parker with its parent's store.
type testParker struct{ *handover.Place }

func (p testParker) Park(s *vhost.Saved, set *handover.Set) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return p.Place.Park(b, set)
}

func (p testParker) Unpark() { _ = p.Clear() }

// unpark has c go on with what is in the parent's store, if there is something.
func unpark(c *vhost.Config) error {
	store, err := handover.OpenStore(os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return err
	}
	found, rest := handover.Parked(activation.Files(true))
	if len(found) > 1 || len(rest) > 1 {
		return errors.New("the store has too much")
	}
	turn := -1
	for _, f := range found {
		c.Saved, c.Set, c.Crashed, turn = new(vhost.Saved), f.Set, true, f.Turn
		if err := json.Unmarshal(f.Block, c.Saved); err != nil {
			return err
		}
	}
	c.Parker = testParker{store.Place("vm", turn)}
	return nil
}

// TestParkLoad is TestClientCrashLoad with machines that cannot reconnect: their
// connections outlive the daemon in its parent.
func TestParkLoad(t *testing.T) {
	for _, c := range []struct {
		name string
		o    vhosttest.Options
	}{
		{"QEMU 7.2", vhosttest.Options{Style: vhosttest.QEMU72, Queues: 3}},
		{"QEMU 10, packed", vhosttest.Options{Style: vhosttest.QEMU10, Queues: 3, Features: packedFeatures}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newParkRig(t, c.o, true)
			crashLoad(t, r)
			// The connection works, and its end is the end of what is kept.
			r.ok(r.c.Stop())
			r.ok(r.c.Start())
			r.arm("nowhere", 1)
			r.ok(r.cmd.Process.Kill())
			r.died()
			r.again()
			r.attention(lun0)
			if names, _ := r.parent.Names(); len(names) != 1 {
				t.Errorf("the parent keeps %q", names)
			}
			r.ok(r.c.Close())
			r.c = nil
			if !tempotest.Settles(func() bool { names, _ := r.parent.Names(); return len(names) == 0 }) {
				t.Error("the parent keeps what nobody needs")
			}
		})
	}
}

// TestParkGone: a machine that has ended meanwhile is not gone on with.
func TestParkGone(t *testing.T) {
	r := newParkRig(t, vhosttest.Options{}, true)
	r.ok(r.cmd.Process.Kill())
	r.died()
	r.ok(r.c.Close())
	r.c = nil
	fs := r.parent.Copies()
	found, _ := handover.Parked(fs)
	if len(found) != 1 {
		t.Fatal(found)
	}
	defer found[0].Set.Close()
	x := newRig(t, rigOptions{})
	var s vhost.Saved
	r.ok(json.Unmarshal(found[0].Block, &s))
	_, err := vhost.NewExport(vhost.Config{Name: "vm", Group: x.group, Initiator: [16]byte{9}, Saved: &s, Set: found[0].Set, Crashed: true, Migratable: true})
	if err == nil {
		t.Error("it goes on with nobody")
	}
	r.conf.Parks = false
	r.start()
}

// attention takes what each restart brings.
func (r *crashRig) attention(lun [8]byte) {
	r.Helper()
	x, err := r.c.Request(0).Exec(lun, make([]byte, 6), nil, nil)
	r.ok(err)
	check(r, x, 6, 0x2900)
	good(r, r.c.Request(0), lun, make([]byte, 6), nil, nil)
}
