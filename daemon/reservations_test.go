package daemon

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/daemon/state"
	"github.com/vtgt/vtgt/iscsi/iscsitest"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/vhost/vhosttest"
)

// The reservations of a disk lie where reservations: says, everything else does not.
func TestReservationsPath(t *testing.T) {
	dir := t.TempDir()
	st, err := state.Open(filepath.Join(dir, "state"), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	c := &core{memory: func(disk string) scsi.Memory { return st.Memory(disk) }}
	d := &config.Disk{Name: "a"}
	path := filepath.Join(dir, "a.res")
	for _, moved := range []bool{false, true} {
		if moved {
			d.Reservations = path
		}
		m := c.memoryOf(d)
		for _, record := range []string{scsi.ReservationsRecord, "mode"} {
			if b, err := m.Load(record); moved && record == scsi.ReservationsRecord && (b != nil || err != nil) {
				t.Errorf("%q %v", b, err)
			}
			want := record + map[bool]string{false: " here", true: " there"}[moved]
			if err := m.Save(record, []byte(want)); err != nil {
				t.Fatal(err)
			}
			if b, err := m.Load(record); err != nil || string(b) != want+"\n" {
				t.Errorf("%q %v", b, err)
			}
		}
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != scsi.ReservationsRecord+" there\n" {
		t.Errorf("%q %v", b, err)
	}
	if b, err := st.Memory("a").Load(scsi.ReservationsRecord); err != nil || string(b) != scsi.ReservationsRecord+" here\n" {
		t.Errorf("%q %v", b, err)
	}
}

// TestReservationsAcross: a host by iSCSI and a virtual machine share a disk. Each knows
// the other's registration; the one that is preempted writes no more, and that persists.
func TestReservationsAcross(t *testing.T) {
	w := newWorld(t)
	p := filepath.Join(w.dir, "sock")
	text := w.config(fmt.Sprintf("disks: [{name: a, store: \"mem:\", size: 1MiB, shared: true}]\ntargets:\n"+
		"- {name: vm, luns: [{lun: 0, disk: a}], vhost: {socket: %q, initiator: 6f1c0000-0000-4000-8000-000000000001}}\n"+
		"- {name: host, luns: [{lun: 3, disk: a}], iscsi: {iqn: %q}}\n", p, iqn1))
	const good, conflict = 0, 0x18
	list := func(key, saKey uint64) []byte {
		b := make([]byte, 24)
		binary.BigEndian.PutUint64(b, key)
		binary.BigEndian.PutUint64(b[8:], saKey)
		b[20] = 1 // APTPL
		return b
	}
	outCDB := func(sa, typ byte) []byte { return []byte{0x5f, sa, typ, 0, 0, 0, 0, 0, 24, 0} }
	var d *Daemon
	var vm *vhosttest.Client
	var h *iscsitest.Conn
	byVM := func(want byte, cdb, out []byte) {
		t.Helper()
		var status byte
		for range 4 { // unit attentions
			r, err := vm.Request(0).Exec(vhosttest.LUN(0, 0), cdb, out, nil)
			if err != nil || r.Response != vhosttest.RespOK {
				t.Fatalf("%+v %v", r, err)
			}
			if status = r.Status; status != 2 {
				break
			}
		}
		if status != want {
			t.Errorf("the machine's CDB % x: status %#x, want %#x", cdb, status, want)
		}
	}
	byHost := func(want byte, cdb, out []byte) {
		t.Helper()
		if r := run(t, h, iscsitest.Command{LUN: 3, CDB: cdb, Out: out}); r.Status != want {
			t.Errorf("the host's CDB % x: status %#x, want %#x", cdb, r.Status, want)
		}
	}
	begin := func() {
		d = w.start(text)
		vm = guest(t, p)
		h = dial(t, d, iqn1, host)
	}
	block := make([]byte, 512)
	begin()
	byVM(good, outCDB(0, 0), list(0, 0x11))
	byHost(good, outCDB(0, 0), list(0, 0x22))
	byVM(good, outCDB(1, 1), list(0x11, 0))
	byVM(good, rw(0x2a, 1), block)
	byHost(conflict, rw(0x2a, 1), block)
	rs := d.Reservations()
	if len(rs) != 1 || rs[0].Type != "Write Exclusive" || !rs[0].Persistent || len(rs[0].Registrations) != 2 {
		t.Fatalf("%+v", rs)
	}
	if g := rs[0].Registrations[0]; g.Initiator != "srp.6f1c0000000040008000000000000001" || g.Target != "vm" || g.Key != "0x11" || !g.Holder || !g.Attached {
		t.Errorf("%+v", g)
	}
	if g := rs[0].Registrations[1]; !strings.HasPrefix(g.Initiator, host+",i,0x80") || g.Target != "host" || g.Key != "0x22" || g.Holder || !g.Attached {
		t.Errorf("%+v", g)
	}
	byHost(good, outCDB(5, 3), list(0x22, 0x11)) // PREEMPT AND ABORT
	byHost(good, rw(0x2a, 1), block)
	byVM(conflict, rw(0x2a, 1), block)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}

	begin()
	byVM(conflict, rw(0x2a, 1), block)
	byHost(good, rw(0x2a, 1), block)
	if rs := d.Reservations(); len(rs) != 1 || len(rs[0].Registrations) != 1 || rs[0].Type != "Exclusive Access" {
		t.Errorf("%+v", rs)
	}
}
