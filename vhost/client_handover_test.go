package vhost_test

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/handover"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/vhost"
	"github.com/vtgt/vtgt/vhost/vhosttest"
)

// successor has another Export, with units and ports of its own, take the place of e;
// what passes between them is encoded as it is between processes.
func (e *export) successor() {
	r := e.r
	r.Helper()
	var set handover.Set
	defer set.Close()
	st, err := e.e.Freeze(time.Now().Add(patience), &set)
	r.ok(err)
	st = recode(r, st)
	old := *e
	e.targets = map[uint8]*scsi.Target{}
	was := map[int]*scsi.Unit{}
	var ports []vhost.TargetPort
	for _, m := range r.o.maps {
		d := r.disk(m.disk)
		if was[m.disk] == nil {
			saved, err := d.unit.Save()
			r.ok(err)
			c := d.unit.Config()
			c.Saved = recode(r, saved)
			was[m.disk] = d.unit
			d.unit, err = scsi.NewUnit(c, d.fault)
			r.ok(err)
		}
		tg := e.targets[m.target]
		if tg == nil {
			tg = scsi.NewTarget(scsi.TargetConfig{Name: fmt.Sprintf("t0-%d", m.target)})
			e.targets[m.target] = tg
			ports = append(ports, vhost.TargetPort{ID: m.target, Port: tg.NewPort(scsi.PortConfig{
				RelID: uint16(m.target) + 1, Protocol: 4, Name: tg.Name(), DeviceName: tg.Name()})})
		}
		r.ok(tg.Map(m.lun, d.unit, scsi.MapOptions{}))
	}
	e.e, err = vhost.NewExport(vhost.Config{Migratable: true, Name: "vm0", Group: r.group, Targets: ports, Initiator: [16]byte{1, 2, 3},
		Deadline: r.o.deadline, Queues: r.o.queues, Saved: st, Set: &set})
	r.ok(err)
	for n, d := range r.disks {
		if s := d.unit.Carried(); s != "" {
			r.Errorf("disk %d: still to come: %s", n, s)
		}
	}
	// The process before is gone without a word.
	old.clients = nil
	old.close()
	for _, u := range was {
		r.await("Unit.Close", u.Close)
	}
	e.served = make(chan error, 1)
	e.l, err = net.ListenUnix("unix", &net.UnixAddr{Name: e.path, Net: "unix"})
	r.ok(err)
	e.serve()
}

func recode[T any](r *rig, v *T) *T {
	r.Helper()
	b, err := json.Marshal(v)
	r.ok(err)
	n := new(T)
	r.ok(json.Unmarshal(b, n))
	return n
}

// packedFeatures are what a driver with packed rings takes.
const packedFeatures = vhosttest.FeatureHotplug | vhosttest.FeatureChange | vhosttest.FeatureIndirect | vhosttest.FeatureEventIdx |
	vhosttest.FeatureVersion1 | vhosttest.FeatureRingPacked

// TestHandOver: a guest under a verifying load notices nothing of other processes that
// take over, and of one that freezes and goes on.
func TestHandOver(t *testing.T) {
	for _, c := range []struct {
		name string
		o    vhosttest.Options
	}{
		{"QEMU 7.2", vhosttest.Options{Style: vhosttest.QEMU72, Queues: 3, ProtocolFeatures: ^uint64(vhosttest.ProtocolInflight)}},
		{"QEMU 10", vhosttest.Options{Style: vhosttest.QEMU10, Queues: 2}},
		{"packed", vhosttest.Options{Style: vhosttest.QEMU10, Queues: 2, Features: packedFeatures}},
		{"packed, no record", vhosttest.Options{Style: vhosttest.QEMU72, Queues: 2, Features: packedFeatures, ProtocolFeatures: ^uint64(vhosttest.ProtocolInflight)}},
		{"no event index", vhosttest.Options{Features: ^uint64(vhosttest.FeatureEventIdx), StartIndex: 65530}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, rigOptions{file: true})
			e := r.exports[0]
			m := e.dial(c.o)
			lun := vhosttest.LUN(0, 0)
			r.attention(m, lun) // 29/00
			r.under(m, load(lun), func(progress func()) {
				for i := range times(6) {
					var set handover.Set
					_, err := e.e.Freeze(time.Now().Add(patience), &set)
					r.ok(err)
					if set.Len() == 0 {
						t.Error("nothing to hand over")
					}
					if i%2 == 0 {
						e.e.Thaw()
						progress()
					} else {
						e.e.Thaw()
					}
					set.Close()
					e.successor()
					progress()
				}
			})
			// The control and the event queue work, and so does the connection.
			if resp, err := m.TMF(vhosttest.LogicalUnitReset, lun, 0); err != nil || resp != vhosttest.RespFunctionSucceeded && resp != vhosttest.RespOK {
				t.Error(resp, err)
			}
			r.ok(m.Stop())
			r.ok(m.Start())
			e.successor()
			r.ok(m.Stop())
			e.successor()
			r.ok(m.Start())
			r.attention(m, lun) // 29/03, of the reset
		})
	}
}

// attention takes the unit attention that has to wait.
func (r *rig) attention(m *vhosttest.Client, lun [8]byte) {
	r.Helper()
	x, err := m.Request(0).Exec(lun, make([]byte, 6), nil, nil)
	r.ok(err)
	if x.Status != 2 || x.Sense[12] != 0x29 {
		r.Errorf("status %d, sense % x: no unit attention", x.Status, x.Sense)
	}
	x, err = m.Request(0).Exec(lun, make([]byte, 6), nil, nil)
	r.ok(err)
	if x.Status != 0 {
		r.Errorf("status %d, sense % x", x.Status, x.Sense)
	}
}

// TestHandOverRefused: requests that do not end in time are a reason to go on as before,
// and no harm comes to them.
func TestHandOverRefused(t *testing.T) {
	r := newRig(t, rigOptions{hold: true})
	e := r.exports[0]
	m := r.dial(vhosttest.Options{})
	lun := vhosttest.LUN(0, 0)
	r.attention(m, lun)
	q := m.Request(0)
	done := make(chan error, 1)
	go func() {
		x, err := q.Exec(lun, []byte{0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0}, nil, make([]byte, 512))
		if err == nil && x.Status != 0 {
			err = fmt.Errorf("status %d", x.Status)
		}
		done <- err
	}()
	r.eventually("a READ is with the store", func() bool { return len(r.disk(0).hold.Held()) == 1 })
	for range 3 {
		var set handover.Set
		_, err := e.e.Freeze(time.Now().Add(time.Millisecond), &set)
		if err == nil || !strings.Contains(err.Error(), "have not ended") {
			t.Fatal(err)
		}
		set.Close()
		if _, err := r.disk(0).unit.Save(); err == nil || !strings.Contains(err.Error(), "1 commands") {
			t.Error(err)
		}
	}
	for _, h := range r.disk(0).hold.Held() {
		h.Go()
	}
	r.ok(<-done)
}

// TestHandOverIdle: an export without a front end, and events that wait for one.
func TestHandOverIdle(t *testing.T) {
	r := newRig(t, rigOptions{})
	e := r.exports[0]
	e.successor()
	m := r.dial(vhosttest.Options{})
	r.attention(m, vhosttest.LUN(0, 0))
	r.ok(m.Enable(1, false))
	r.ok(e.targets[0].Map(3, r.disk(7).unit, scsi.MapOptions{}))
	r.o.maps = append(r.o.maps, mapping{0, 3, 7})
	e.successor()
	r.ok(m.Events().Post(8))
	r.ok(m.Enable(1, true))
	ev, err := m.Events().Wait(patience)
	if err != nil || ev.Event != vhosttest.EventTransportReset {
		t.Errorf("%+v, %v", ev, err)
	}
}

// TestHandOverUndone: who has taken a frozen export, and ends before it serves, leaves
// nothing behind and the machine alone.
func TestHandOverUndone(t *testing.T) {
	r := newRig(t, rigOptions{})
	e := r.exports[0]
	m := r.dial(vhosttest.Options{Queues: 2})
	lun := vhosttest.LUN(0, 0)
	r.attention(m, lun)
	r.under(m, load(lun), func(progress func()) {
		var set handover.Set
		st, err := e.e.Freeze(time.Now().Add(patience), &set)
		r.ok(err)
		saved, err := r.disk(0).unit.Save()
		r.ok(err)
		c := r.disk(0).unit.Config()
		c.Saved = saved
		u, err := scsi.NewUnit(c, r.disk(0).fault)
		r.ok(err)
		tg := scsi.NewTarget(scsi.TargetConfig{Name: "t"})
		r.ok(tg.Map(0, u, scsi.MapOptions{}))
		x, err := vhost.NewExport(vhost.Config{Migratable: true, Name: "vm", Group: r.group, Initiator: [16]byte{1, 2, 3}, Saved: recode(r, st), Set: &set,
			Targets: []vhost.TargetPort{{ID: 0, Port: tg.NewPort(scsi.PortConfig{RelID: 1, Protocol: 4})}}})
		r.ok(err)
		set.Close()
		if n := x.Close(patience); n != 0 {
			t.Errorf("%d stuck", n)
		}
		r.await("Target.Close", tg.Close)
		r.await("Unit.Close", u.Close)
		e.e.Thaw()
		progress()
	})
}
