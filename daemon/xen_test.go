package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/scsi/scsitest"
	"github.com/vtgt/vtgt/xen/nodes"
	"github.com/vtgt/vtgt/xen/vscsiif"
	"github.com/vtgt/vtgt/xen/xenstore"
	"github.com/vtgt/vtgt/xen/xentest"
)

const xenUUID = "6f1c0000-0000-4000-8000-00000000000a"

// xenWorld is a world on a machine with Xen.
type xenWorld struct {
	*world
	m *xentest.Machine

	mu   sync.Mutex
	down bool // xenstored
}

func newXenWorld(t *testing.T) *xenWorld {
	w := &xenWorld{world: newWorld(t)}
	w.m = xentest.NewMachine(t)
	return w
}

func (w *xenWorld) dial() (*xenstore.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		return nil, errors.New("connection refused")
	}
	return w.m.Dial()
}

// options are of a daemon in dom0.
func (w *xenWorld) options() Options {
	return Options{Xen: func() (*XenParts, error) {
		return &XenParts{Dial: w.dial, Channels: &w.m.Hub, Grants: w.m.Grants()}, nil
	}}
}

// text is a configuration of targets that each are a list of LUNs and what xen: says.
func (w *xenWorld) text(targets ...[2]string) []byte {
	var b strings.Builder
	b.WriteString("disks:\n")
	for _, d := range []string{"a", "b", "c"} {
		fmt.Fprintf(&b, "- {name: %s, store: \"mem:\", size: 1MiB}\n", d)
	}
	b.WriteString("targets:\n")
	for i, t := range targets {
		fmt.Fprintf(&b, "- {name: t%d, luns: [%s], xen: {%s}}\n", i, t[0], t[1])
	}
	return w.config(b.String())
}

func (w *xenWorld) apply(d *Daemon, text []byte) {
	w.t.Helper()
	if _, err := d.Apply("f.yaml", text, ApplyOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// gone waits until there are no nodes of a device.
func (w *xenWorld) gone(n nodes.Device) {
	w.t.Helper()
	tempotest.Wait(w.t, "no nodes", func() bool {
		_, be := w.m.Store.Get(n.BackendPath())
		_, fe := w.m.Store.Get(n.FrontendPath())
		return !be && !fe
	})
}

// write has the domain write a byte to each of n blocks, and read checks it.
func (w *xenWorld) io(r *xentest.Driver, lun uint16, b byte) {
	w.t.Helper()
	data := make([]byte, 4096)
	for i := range data {
		data[i] = b
	}
	for try := 0; ; try++ { // the first commands of a nexus meet unit attentions
		s := xentest.CDB(lun, vscsiif.ToDevice, scsitest.CDB10(0x2a, 8, 8)...)
		r.Ring().Attach(s, len(data), 0, data, false)
		if got := r.Ring().Do(s).Result(); got == 0 {
			break
		} else if try == 4 {
			w.t.Fatalf("WRITE: %#x", got)
		}
	}
	w.read(r, lun, b)
}

func (w *xenWorld) read(r *xentest.Driver, lun uint16, b byte) {
	w.t.Helper()
	for try := 0; ; try++ {
		s := xentest.CDB(lun, vscsiif.FromDevice, scsitest.CDB10(0x28, 8, 8)...)
		r.Ring().Attach(s, 4096, 0, nil, false)
		got := r.Ring().Do(s).Result()
		if got == 0 {
			if s.Data[0] != b || s.Data[4095] != b {
				w.t.Fatalf("read %#x, want %#x", s.Data[0], b)
			}
			return
		} else if try == 4 {
			w.t.Fatalf("READ: %#x", got)
		}
	}
}

// TestXen: a domain gets its device when it comes up, LUNs come and go while it runs,
// what would take its disks away is refused, and by force it loses them in order.
func TestXen(t *testing.T) {
	w := newXenWorld(t)
	one := [2]string{"{lun: 0, disk: a}", "domain: vm1"}
	d := w.startWith(w.text(one), w.options())
	e := w.export(d, "t0", kindXen)
	if e.State != "listening" || !strings.Contains(e.Reason, "there is no domain vm1") || e.Addresses[0] != "domain vm1 device 0" || e.RelativePort == 0 || e.Xen.Initiator == "" || e.Xen.DomainID != nil {
		t.Errorf("%+v %+v", e, e.Xen)
	}
	w.m.Create(7, "vm1", xenUUID)
	n := nodes.Device{Type: "vtgt", Domain: 7}
	w.m.States(n, "2", "1")
	tempotest.Wait(t, "what holds it up", func() bool {
		e = w.export(d, "t0", kindXen)
		return strings.Contains(e.Reason, "domain 7 has not connected: its front end is in state Initialising")
	})
	r := w.m.Boot(n)
	r.Wait("0:0:0:0")
	w.m.States(n, "4", "4")
	w.io(r, 0, 0x5a)
	tempotest.Wait(t, "the counters", func() bool { return w.export(d, "t0", kindXen).Xen.Counters.GrantCopies > 0 })
	e = w.export(d, "t0", kindXen)
	if v := e.Xen; e.State != "connected" || e.Reason != "" || *v.DomainID != 7 || v.Backend != "Connected" || v.Frontend != "Connected" || v.Since == nil || e.Sessions != 1 || v.Counters.Connections != 1 || v.Counters.Requests == 0 {
		t.Errorf("%+v %+v", e, v)
	}
	if ss := d.Sessions(); len(ss) != 1 || ss[0].Kind != kindXen || ss[0].Connections[0].Remote != "domain 7" || ss[0].BytesIn == 0 {
		t.Errorf("%+v", ss)
	}
	if ts := d.Targets(); ts[0].Xen != "domain vm1 device 0" || ts[0].LUNs[0].Xen != "0:0:0:0" {
		t.Errorf("%+v", ts)
	}

	// LUNs come, at places of their own, move and go.
	two := [2]string{`{lun: 0, disk: a}, {lun: 300, disk: b, address: {xen: "0:0:2:9"}}`, "domain: vm1"}
	w.apply(d, w.text(two))
	r.Wait("0:0:0:0", "0:0:2:9")
	if a := r.Ring().Do(xentest.CDBAt(vscsiif.Address{Target: 2, LUN: 9}, vscsiif.NoData, 0, 0, 0, 0, 0, 0)).Result(); a>>16 != 0 {
		t.Errorf("%#x", a)
	}
	if _, err := d.Apply("f.yaml", w.text(one), ApplyOptions{}); err == nil || !strings.Contains(err.Error(), "is in use by the virtual machine at domain vm1 device 0 (domain 7)") {
		t.Error(err)
	}
	moved := [2]string{`{lun: 0, disk: a}, {lun: 300, disk: b, address: {xen: "0:0:3:0"}}`, "domain: vm1"}
	if _, err := d.Apply("f.yaml", w.text(moved), ApplyOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	r.Wait("0:0:0:0", "0:0:3:0")
	if rslt, ok := r.Flushed("0:0:2:9"); rslt != 0 || !ok {
		t.Errorf("the last SYNCHRONIZE CACHE: %#x %v", rslt, ok)
	}
	if _, err := d.Apply("f.yaml", w.text(one), ApplyOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	r.Wait("0:0:0:0")
	w.m.States(n, "4", "4")

	// Another type of back end: not while it is connected.
	other := [2]string{"{lun: 0, disk: a}", "domain: vm1, type: vscsi"}
	if _, err := d.Apply("f.yaml", w.text(other), ApplyOptions{}); err == nil || !strings.Contains(err.Error(), "vtgt detach xen") {
		t.Error(err)
	}
	if _, err := d.Apply("f.yaml", w.text(other), ApplyOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	r.Wait()
	r.Off()
	m := nodes.Device{Type: "vscsi", Domain: 7}
	w.m.States(m, "2", "1")
	if _, ok := w.m.Store.Get(n.BackendPath()); ok {
		t.Error("the old nodes are there")
	}
	r = w.m.Boot(m)
	r.Wait("0:0:0:0")
	w.read(r, 0, 0x5a)
	// A target that goes.
	if _, err := d.Apply("f.yaml", w.text(), ApplyOptions{}); err == nil {
		t.Error("no error")
	}
	if _, err := d.Apply("f.yaml", w.text(), ApplyOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	r.Wait()
	w.gone(m)
	r.Off()
	if n := w.m.Mapped(); n != 0 {
		t.Errorf("%d pages are mapped", n)
	}
}

// TestXenRestart: vtgt's end and beginning write nothing, and the domain's commands
// wait for it.
func TestXenRestart(t *testing.T) {
	w := newXenWorld(t)
	text := w.text([2]string{"{lun: 0, disk: a}", "domain: " + xenUUID})
	text = []byte(strings.Replace(string(text), `store: "mem:"`, fmt.Sprintf("store: \"file:%s\", create: true", filepath.Join(w.dir, "disk")), 1))
	d := w.startWith(text, w.options())
	w.m.Create(3, "vm1", xenUUID)
	n := nodes.Device{Type: "vtgt", Domain: 3}
	w.m.States(n, "2", "1")
	r := w.m.Boot(n)
	r.Wait("0:0:0:0")
	w.m.States(n, "4", "4")
	tempotest.Wait(t, "dev-0 connected", func() bool { v, _ := w.m.Store.Get(n.BackendPath() + "/vscsi-devs/dev-0/state"); return v == "4" })
	for round := range byte(3) {
		w.io(r, 0, round)
		w.m.Store.Trace()
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		s := xentest.CDB(0, vscsiif.FromDevice, scsitest.CDB10(0x28, 8, 8)...)
		r.Ring().Attach(s, 4096, 0, nil, false)
		s.Ch = make(chan struct{})
		r.Ring().Send(s)
		d = w.startWith(text, w.options())
		tempotest.Recv(t, s.Ch, "an answer")
		w.read(r, 0, round)
		for _, l := range w.m.Store.Trace() {
			t.Errorf("round %d: %s was written", round, l)
		}
	}
	tempotest.Wait(t, "the connection", func() bool { return w.export(d, "t0", kindXen).State == "connected" })
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	r.Off()
}

// TestXenReboot: a domain that is known by its name gets its device again after a crash,
// a reboot, and when it is restored from a file, in which its driver believes to be
// connected; what the dead ones had goes.
func TestXenReboot(t *testing.T) {
	w := newXenWorld(t)
	d := w.startWith(w.text([2]string{"{lun: 0, disk: a}", "domain: vm1, device: 4"}), w.options())
	for id := uint32(3); id < 6; id++ {
		w.m.Create(id, "vm1", xenUUID)
		n := nodes.Device{Type: "vtgt", Domain: id, Number: 4}
		w.m.States(n, "2", "1")
		var r *xentest.Driver
		if id == 5 { // xl restore -p; the nodes are there before xl unpause
			r = w.m.Resume(n)
		} else {
			r = w.m.Boot(n)
		}
		r.Wait("0:0:0:0")
		if id > 3 {
			w.read(r, 0, byte(id-1))
		}
		w.io(r, 0, byte(id))
		for i := range 8 { // it dies with commands under way
			s := xentest.CDB(0, vscsiif.ToDevice, scsitest.CDB10(0x2a, uint32(64+i), 1)...)
			r.Ring().Attach(s, 512, 0, make([]byte, 512), false)
			r.Ring().Send(s)
		}
		w.m.Destroy(id)
		w.gone(n)
		tempotest.Wait(t, "the pages given back", func() bool { return w.m.Mapped() == 0 })
		r.Off()
		tempotest.Wait(t, "the session's end", func() bool { return len(d.Sessions()) == 0 })
	}
	tempotest.Wait(t, "the device gone", func() bool { return w.export(d, "t0", kindXen).Xen.DomainID == nil })
	if e := w.export(d, "t0", kindXen); e.State != "listening" || e.Xen.Counters.Connections != 3 {
		t.Errorf("%+v %+v", e, e.Xen)
	}
	if l, _ := os.ReadDir(filepath.Join(w.dir, "state", "xen")); len(l) != 0 {
		t.Errorf("journals stay: %v", l)
	}
}

// TestXenMany: several domains with several devices each, beside one that never answers.
func TestXenMany(t *testing.T) {
	w := newXenWorld(t)
	text := w.text(
		[2]string{"{lun: 0, disk: a}", "domain: vm1"},
		[2]string{"{lun: 1, disk: b}", "domain: vm1, device: 1, type: vtgt-two"},
		[2]string{"{lun: 0, disk: c}", "domain: 9"},
		[2]string{"", "domain: silent"})
	d := w.startWith(text, w.options())
	w.m.Create(2, "vm1", xenUUID)
	w.m.Create(9, "vm2", "")
	w.m.Create(4, "silent", "")
	devices := []nodes.Device{{Type: "vtgt", Domain: 2}, {Type: "vtgt-two", Domain: 2, Number: 1}, {Type: "vtgt", Domain: 9}, {Type: "vtgt", Domain: 4}}
	var rs []*xentest.Driver
	for i, n := range devices {
		w.m.States(n, "2", "1")
		if i < 3 {
			rs = append(rs, w.m.Boot(n))
		}
	}
	for i, v := range []string{"0:0:0:0", "0:0:0:1", "0:0:0:0"} {
		rs[i].Wait(v)
		w.io(rs[i], uint16(i)%2, byte(0x10+i))
	}
	for i := range rs {
		w.read(rs[i], uint16(i)%2, byte(0x10+i))
	}
	if e := w.export(d, "t3", kindXen); e.State != "listening" || !strings.Contains(e.Reason, "has not connected") {
		t.Errorf("%+v", e)
	}
	// One device by two names of its domain is one target's.
	twice := bytes.Replace(text, []byte("domain: silent"), []byte("domain: "+xenUUID), 1)
	w.apply(d, twice)
	tempotest.Wait(t, "the reason", func() bool {
		e := w.export(d, "t3", kindXen)
		return e.State == "failed" && strings.Contains(e.Reason, "device 0 of domain 2 is target t0's already")
	})
	for id := range uint32(10) {
		w.m.Destroy(id)
	}
	for _, n := range devices {
		w.gone(n)
	}
	for _, r := range rs {
		r.Off()
	}
}

// TestXenstoreLoss: domains' disks go on while xenstored is away; what happened meanwhile
// is found out afterwards.
func TestXenstoreLoss(t *testing.T) {
	w := newXenWorld(t)
	d := w.startWith(w.text([2]string{"{lun: 0, disk: a}", "domain: vm1"}, [2]string{"{lun: 0, disk: b}", "domain: vm2"}), w.options())
	w.m.Create(2, "vm1", "")
	n1, n2 := nodes.Device{Type: "vtgt", Domain: 2}, nodes.Device{Type: "vtgt", Domain: 3}
	w.m.States(n1, "2", "1")
	r := w.m.Boot(n1)
	r.Wait("0:0:0:0")
	w.m.States(n1, "4", "4")
	w.mu.Lock()
	w.down = true
	w.mu.Unlock()
	w.m.Store.Disconnect()
	tempotest.Wait(t, "the loss", func() bool { return w.export(d, "t0", kindXen).Xen.Xenstore != "" })
	w.io(r, 0, 1)
	if e := w.export(d, "t0", kindXen); e.State != "connected" || e.Xen.Counters.XenstoreLosses != 1 {
		t.Errorf("%+v %+v", e, e.Xen)
	}
	if e := w.export(d, "t1", kindXen); !strings.Contains(e.Reason, "xenstored does not answer") {
		t.Errorf("%+v", e)
	}
	w.m.Redial()
	w.m.Create(3, "vm2", "")
	w.mu.Lock()
	w.down = false
	w.mu.Unlock()
	w.m.States(n2, "2", "1")
	if e := w.export(d, "t1", kindXen); e.Xen.Xenstore != "" {
		t.Errorf("%+v", e)
	}
	w.io(r, 0, 2)
	// A domain that ended while xenstored was away.
	w.mu.Lock()
	w.down = true
	w.mu.Unlock()
	w.m.Store.Disconnect()
	tempotest.Wait(t, "the loss", func() bool { return w.export(d, "t0", kindXen).Xen.Xenstore != "" })
	w.m.Destroy(2)
	w.mu.Lock()
	w.down = false
	w.mu.Unlock()
	w.gone(n1)
	r.Off()
	w.m.Redial()
}

// TestXenBlocked: a domain that hangs does not keep its device for ever.
func TestXenBlocked(t *testing.T) {
	w := newXenWorld(t)
	o := w.options()
	text := w.text([2]string{"{lun: 0, disk: a}", "domain: vm1"})
	d := w.startWith(text, o)
	d.opt.DrainTime = 1 // ns: nobody is so fast
	w.m.Create(2, "vm1", "")
	n := nodes.Device{Type: "vtgt", Domain: 2}
	w.m.States(n, "2", "1")
	r := w.m.Boot(n)
	r.Wait("0:0:0:0")
	w.m.States(n, "4", "4")
	r.Deafen(true)
	res, err := d.Apply("f.yaml", w.text(), ApplyOptions{Force: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(res.Warnings, "\n"); !strings.Contains(got, "domain 2 has not let go of its disks") || !strings.Contains(got, "Connected") {
		t.Errorf("%q", got)
	}
	w.gone(n)
	if w.m.Mapped() != 0 {
		t.Error("pages are mapped")
	}
	r.Off()
}

// TestXenLUNBlocked: nor does it keep a LUN.
func TestXenLUNBlocked(t *testing.T) {
	w := newXenWorld(t)
	d := w.startWith(w.text([2]string{"{lun: 0, disk: a}, {lun: 1, disk: b}", "domain: vm1"}), w.options())
	d.opt.DrainTime = 1
	w.m.Create(2, "vm1", "")
	n := nodes.Device{Type: "vtgt", Domain: 2}
	w.m.States(n, "2", "1")
	// One that is not connected is not waited for.
	if _, err := d.Apply("f.yaml", w.text([2]string{"{lun: 0, disk: a}, {lun: 2, disk: b}", "domain: vm1"}), ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	r := w.m.Boot(n)
	r.Wait("0:0:0:0", "0:0:0:2")
	w.m.States(n, "4", "4")
	r.Deafen(true)
	res, err := d.Apply("f.yaml", w.text([2]string{"{lun: 0, disk: a}", "domain: vm1"}), ApplyOptions{Force: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(res.Warnings, "\n"); !strings.Contains(got, "domain 2 has not let go of the disk at LUN 2") {
		t.Errorf("%q", got)
	}
	r.Deafen(false)
	r.Wait("0:0:0:0")
	w.m.States(n, "4", "4")
	r.Off()
}

// TestXenAbsent: where there is no Xen, vtgt says what to do, and serves nothing.
func TestXenAbsent(t *testing.T) {
	w := newXenWorld(t)
	text := w.text([2]string{"{lun: 0, disk: a}", "domain: vm1"})
	for _, why := range []error{fs.ErrNotExist, fs.ErrPermission} {
		_, err := New("f.yaml", text, Options{LockWait: -1, Xen: func() (*XenParts, error) { return nil, why }})
		if err == nil || !strings.Contains(err.Error(), "target t0: Xen cannot be reached") || !strings.Contains(err.Error(), "f.yaml:") {
			t.Error(err)
		}
	}
	if _, err := os.Stat("/dev/xen/evtchn"); err != nil {
		cfg, err := config.Parse("f.yaml", text)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckHost(cfg); err == nil || !strings.Contains(err.Error(), "target t0: Xen cannot be reached") || !strings.Contains(err.Error(), "f.yaml:") {
			t.Error(err)
		}
	}
	w.down = true
	o := w.options()
	o.LockWait = -1
	if _, err := New("f.yaml", text, o); err == nil || !strings.Contains(err.Error(), "modprobe") {
		t.Error(err)
	}
}

// TestXenToolstack: with toolstack: true vtgt serves the nodes that there are, and
// writes none.
func TestXenToolstack(t *testing.T) {
	w := newXenWorld(t)
	d := w.startWith(w.text([2]string{"{lun: 0, disk: a}", "domain: vm1, toolstack: true"}), w.options())
	w.m.Create(2, "vm1", "")
	n := nodes.Device{Type: "vtgt", Domain: 2}
	tempotest.Wait(t, "the reason", func() bool {
		return strings.Contains(w.export(d, "t0", kindXen).Reason, "the toolstack has not written")
	})
	if _, ok := w.m.Store.Get(n.BackendPath()); ok {
		t.Error("nodes were written")
	}
	if err := w.m.Tools.Update(func(tx *xenstore.Tx) error {
		if _, err := nodes.Write(tx, n); err != nil {
			return err
		}
		for _, kv := range [][2]string{{"p-dev", "t0:0"}, {"v-dev", "1:0:5:6"}, {"state", "1"}} {
			if err := tx.Write(n.BackendPath()+"/vscsi-devs/dev-9/"+kv[0], kv[1]); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	r := w.m.Boot(n)
	r.Wait("1:0:5:6")
	w.m.States(n, "4", "4")
	if _, err := d.Apply("f.yaml", w.text(), ApplyOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	r.Wait()
	w.m.States(n, "6", "6")
	r.Off()
}
