package xen

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/slab"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/scsi/scsitest"
	"github.com/vtgt/vtgt/srp/srptest"
	"github.com/vtgt/vtgt/xen/nodes"
	"github.com/vtgt/vtgt/xen/vscsiif"
	"github.com/vtgt/vtgt/xen/xentest"
)

// world is a machine with Xen, and a disk.
type world struct {
	testing.TB
	*xentest.Machine
	g     *loop.Group
	tg    *scsi.Target
	unit2 *scsi.Unit // in no target at first
	dir   string
	port  *scsi.Port

	h *Host
	e *Export
}

func newWorld(t *testing.T) *world {
	w := &world{TB: t, Machine: xentest.NewMachine(t), dir: t.TempDir()}
	var err error
	if w.g, err = loop.NewGroup(loop.Config{Loops: 2, Slabs: slab.New(0), Strict: true}); err != nil {
		t.Fatal(err)
	}
	st, err := backing.Open("mem:", backing.Options{Size: 8 << 20, Group: w.g})
	if err != nil {
		t.Fatal(err)
	}
	rig := scsitest.NewRig(t, w.g, st, scsi.UnitConfig{Name: "d1", Vendor: "vtgt", Product: "disk", Revision: "1", Serial: "1", NAA: 0x3000000000000001, BlockSize: 512, Shared: true})
	st2, err := backing.Open("mem:", backing.Options{Size: 1 << 20, Group: w.g})
	w.ok(err)
	w.unit2, err = scsi.NewUnit(scsi.UnitConfig{Name: "d2", Vendor: "vtgt", Product: "disk", Revision: "1", Serial: "2", NAA: 0x3000000000000002, BlockSize: 512, Shared: true}, st2)
	w.ok(err)
	w.tg = scsi.NewTarget(scsi.TargetConfig{Name: "t1"})
	w.ok(w.tg.Map(0, rig.Unit, scsi.MapOptions{}))
	w.port = w.tg.NewPort(scsi.PortConfig{RelID: 1, Protocol: 4, Name: "t1", DeviceName: "t1"})
	w.up()
	t.Cleanup(func() {
		w.down()
		rig.Wait("Target.Close", func(done func(int)) { w.tg.Close(srptest.Timeout, done) })
		rig.Wait("Unit.Close", func(done func(int)) { w.unit2.Close(srptest.Timeout, done) })
		rig.Close()
		_ = st.Close()
		_ = st2.Close()
		w.g.Close()
	})
	return w
}

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// up starts a back end, down ends it as SIGTERM does.
func (w *world) up() {
	w.Helper()
	var err error
	w.h, err = NewHost(HostConfig{Dial: w.Dial, Channels: &w.Hub, Grants: w.Grants(), Group: w.g, Dir: w.dir, Boot: [16]byte{7}})
	w.ok(err)
	w.e, err = w.h.Export(Config{Name: "t1", Domain: "guest", Port: w.port, Initiator: [16]byte{9}, Place: place})
	w.ok(err)
}

// place shows each LUN at its number.
func place(m *scsi.Mapping) (LUN, bool) {
	return LUN{Number: m.LUN, At: vscsiif.Address{LUN: m.LUN}}, true
}

func (w *world) down() {
	w.Helper()
	if n := w.e.Close(srptest.Timeout); n != 0 {
		w.Errorf("%d stuck", n)
	}
	w.h.Close()
	if n := w.Mapped(); n != 0 {
		w.Errorf("%d pages are mapped after Close", n)
	}
}

// guest is the domain's device.
var guest = nodes.Device{Type: "vtgt", Domain: 5}

const (
	bePath = "/local/domain/0/backend/vtgt/5/0"
	fePath = "/local/domain/5/device/vscsi/0"
)

// attach makes the domain and its device.
func (w *world) attach() {
	w.Helper()
	w.Create(5, "guest", "")
	w.Attach(guest)
}

// run boots the guest and waits until it has found its disk.
func (w *world) run() *xentest.Driver {
	w.Helper()
	d := w.Boot(guest)
	w.connected(d)
	return d
}

// connected waits until d serves its disk.
func (w *world) connected(d *xentest.Driver) {
	w.Helper()
	d.Wait("0:0:0:0")
	w.states("4", "4")
}

func (w *world) states(be, fe string) {
	w.Helper()
	w.States(guest, be, fe)
}

// TestLife compares what both ends write with a recorded conversation: connecting, a LUN
// more, a LUN less, and the end.
func TestLife(t *testing.T) {
	w := newWorld(t)
	w.attach()
	d := w.run()
	tempotest.Wait(t, "dev-0 connected", func() bool { v, _ := w.Store.Get(bePath + "/vscsi-devs/dev-0/state"); return v == "4" })
	w.ok(w.tg.Map(3, w.unit2, scsi.MapOptions{}))
	d.Wait("0:0:0:0", "0:0:0:3")
	w.states("4", "4")
	tempotest.Wait(t, "dev-3 connected", func() bool { v, _ := w.Store.Get(bePath + "/vscsi-devs/dev-3/state"); return v == "4" })
	done := make(chan int, 1)
	w.ok(w.tg.Unmap(3, srptest.Timeout, func(n int) { done <- n }))
	tempotest.Recv(t, done, "the unmapping")
	d.Wait("0:0:0:0")
	tempotest.Wait(t, "dev-3 gone", func() bool { _, ok := w.Store.Get(bePath + "/vscsi-devs/dev-3/state"); return !ok })
	w.states("4", "4")
	if r := d.Ring().Do(xentest.CDB(3, vscsiif.NoData, 0, 0, 0, 0, 0, 0)).Result(); r != vscsiif.Result(vscsiif.HostNoConnect, 0) {
		t.Errorf("the LUN that went: %#x", r)
	}
	d.SetState(xentest.Closing)
	w.states("6", "6")
	if n := w.Mapped(); n != 0 {
		t.Errorf("%d pages are mapped after the end", n)
	}
	// What its driver writes with each step of ours depends on who is faster: the
	// order of each end alone is recorded.
	var be, fe []string
	for _, l := range w.Store.Trace() {
		if s, ok := strings.CutPrefix(strings.TrimPrefix(l, "-"), bePath); ok {
			if l[0] == '-' {
				s = "-" + s
			}
			be = append(be, s)
		} else if s, ok := strings.CutPrefix(l, fePath); ok && !strings.HasPrefix(s, "/ring-ref") && !strings.HasPrefix(s, "/event") {
			fe = append(fe, s)
		}
	}
	got := "back end\n" + strings.Join(be, "\n") + "\nfront end\n" + strings.Join(fe, "\n") + "\n"
	file := filepath.Join("testdata", "life.txt")
	if os.Getenv("VTGT_UPDATE") != "" {
		w.ok(os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	w.ok(err)
	if got != string(want) {
		t.Errorf("both ends wrote\n%s\ninstead of\n%s", got, want)
	}
	d.Off()
}

// TestRestart ends the back end in order and starts it again, with commands that come
// meanwhile: the states stay, no command is lost.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	w.attach()
	d := w.run()
	tempotest.Wait(t, "quiet", func() bool { v, _ := w.Store.Get(bePath + "/vscsi-devs/dev-0/state"); return v == "4" })
	for round := range rounds(6) {
		w.Store.Trace()
		w.down()
		for _, l := range w.Store.Trace() {
			t.Errorf("round %d: the end has written %s", round, l)
		}
		var l []*xentest.Sent
		for i := range 5 {
			s := rw(d.Ring(), 0x2a, uint32(8*i), 4096, make([]byte, 4096))
			s.Ch = make(chan struct{})
			d.Ring().Send(s)
			l = append(l, s)
		}
		w.up()
		for _, s := range l {
			tempotest.Recv(t, s.Ch, "an answer")
			if r := s.Rsp.Result(); r != 0 && r != int32(scsi.StatusCheckCondition) { // POWER ON, of the new nexus
				t.Fatalf("round %d: %#x", round, r)
			}
		}
		for _, l := range w.Store.Trace() {
			t.Errorf("round %d: the beginning has written %s", round, l)
		}
		tempotest.Wait(t, "the connection", func() bool { return w.e.Status().Connected })
		if st := w.e.Status(); st.Failed != nil || st.Lost != 0 {
			t.Errorf("round %d: %+v", round, st)
		}
	}
	// Two at once: the second cannot have the event channel, and waits.
	h, err := NewHost(HostConfig{Dial: w.Dial, Channels: &w.Hub, Grants: w.Grants(), Group: w.g, Dir: w.dir, Boot: [16]byte{7}})
	w.ok(err)
	p := w.tg.NewPort(scsi.PortConfig{RelID: 2, Protocol: 4, Name: "t1", DeviceName: "t1"})
	e, err := h.Export(Config{Name: "t1", Domain: "5", Port: p, Initiator: [16]byte{10}})
	w.ok(err)
	tempotest.Wait(t, "the refusal", func() bool { return e.Status().Failed != nil })
	if st := e.Status(); st.Connected {
		t.Error("two back ends at one ring")
	}
	e.Close(srptest.Timeout)
	h.Close()
	ready(t, d.Ring())
	d.Off()
}

// TestDestroy has the domain die with commands under way, and boot again.
func TestDestroy(t *testing.T) {
	w := newWorld(t)
	for round := range 3 {
		w.attach()
		d := w.run()
		for i := range 8 {
			d.Ring().Send(rw(d.Ring(), 0x2a, uint32(8*i), 4096, make([]byte, 4096)))
		}
		w.Store.Release(5)
		tempotest.Wait(t, "the nodes removed", func() bool { _, ok := w.Store.Get(bePath); return !ok })
		tempotest.Wait(t, "the pages given back", func() bool { return w.Mapped() == 0 })
		if _, ok := w.Store.Get("/local/domain/0/backend/vtgt/5"); ok {
			t.Errorf("round %d: an empty folder stays", round)
		}
		tempotest.Wait(t, "the device gone", func() bool { return !w.e.Status().Found })
		if l, _ := os.ReadDir(w.dir); len(l) != 0 {
			t.Errorf("round %d: a journal stays", round)
		}
		d.Off()
	}
}

// TestLiars: front ends whose nodes are nonsense are not served, and harm nobody.
func TestLiars(t *testing.T) {
	w := newWorld(t)
	w.attach()
	w.states("2", "1")
	c := w.Store.Dial(5)
	defer c.Close()
	for _, kv := range [][2]string{{"7777", "1"}, {"8", "99999"}, {"x", "y"}, {"-1", ""}, {"99999999999", "1"}} {
		w.ok(c.Write(fePath+"/ring-ref", kv[0]))
		w.ok(c.Write(fePath+"/event-channel", kv[1]))
		w.ok(c.Write(fePath+"/state", "3"))
		tempotest.Wait(t, "the refusal", func() bool { return w.e.Status().Failed != nil })
		w.states("2", "3")
		w.ok(c.Write(fePath+"/state", "1"))
		tempotest.Wait(t, "calm", func() bool { return w.e.Status().Failed == nil })
	}
	for _, s := range []string{"9", "-1", "x", "", "8", "7", "4", "5", "6"} {
		w.ok(c.Write(fePath+"/state", s))
	}
	w.ok(c.Write(fePath+"/state", "1"))
	d := w.run()
	d.Off()
}

func TestParse(t *testing.T) {
	for s, want := range map[string]vscsiif.Address{"0:0:0:3": {LUN: 3}, "9:1:2:254": {Channel: 1, Target: 2, LUN: 254}} {
		if a, err := parseVirtual(s); err != nil || a != want {
			t.Errorf("%q: %v %v", s, a, err)
		}
	}
	for _, s := range []string{"", "0:0:0", "0:0:0:0:0", "0:0:0:-1", "a:0:0:0", "0:0:0:65536"} {
		if _, err := parseVirtual(s); err == nil {
			t.Errorf("%q", s)
		}
	}
	if n, err := parsePhysical("t1:7", "t1"); err != nil || n != 7 {
		t.Error(n, err)
	}
	if n, err := parsePhysical("a:b:7", "a:b"); err != nil || n != 7 {
		t.Error(n, err)
	}
	for _, s := range []string{"", "t1", "t2:7", "t1:", "t1:x", "t1:16384", ":1"} {
		if _, err := parsePhysical(s, "t1"); err == nil {
			t.Errorf("%q", s)
		}
	}
}

// FuzzParse: what is taken is what was written.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"0:0:0:3", "t1:7", "a:b:7", ":::", "t1:", "65536:0:0:0", "+1:0:0:0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := parseVirtual(s); err == nil {
			if b, err := parseVirtual(fmt.Sprintf("0:%d:%d:%d", a.Channel, a.Target, a.LUN)); err != nil || a != b {
				t.Fatalf("%q: %v, %v %v", s, a, b, err)
			}
		}
		if n, err := parsePhysical(s, "t1"); err == nil && (n > scsi.MaxLUN || !strings.HasPrefix(s, "t1:")) {
			t.Fatalf("%q: %d", s, n)
		}
	})
}

// TestResume has a domain that was suspended build a new ring under the same number.
func TestResume(t *testing.T) {
	w := newWorld(t)
	w.attach()
	d := w.run()
	old := d.Ring()
	d.NewRing()
	w.connected(d)
	f := d.Ring()
	if old.Port.Bound() || !f.Port.Bound() {
		t.Error("the old ring is served still, or the new one is not")
	}
	if n := w.Mapped(); n != 1 {
		t.Errorf("%d pages are mapped", n)
	}
	ready(t, f)
	old.Close()
	d.Off()
}

// TestResumeUnseen is that while no back end is there.
func TestResumeUnseen(t *testing.T) {
	w := newWorld(t)
	w.attach()
	d := w.run()
	old := d.Ring()
	w.down()
	d.NewRing()
	old.Close()
	w.up()
	w.connected(d)
	ready(t, d.Ring())
	d.Off()
}
