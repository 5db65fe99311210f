package xen

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/srp/srptest"
	"github.com/vtgt/vtgt/xen/xentest"
)

// TestCarrierHost is TestCarrier with all that lies between xenstore and the ring.
func TestCarrierHost(t *testing.T) {
	if testing.Short() {
		t.Skip("TestCarrier has the ring; all of it is in the whole run")
	}
	srptest.Run(t, srptest.Config{Carrier: newHostLink, New: NewSlot, Open: memory})
}

// hostLink is a link whose ring a Host serves.
type hostLink struct {
	*link
	m *xentest.Machine
	h *Host
	e *Export
	d *xentest.Driver
}

func newHostLink(tb testing.TB, p *srp.Port, l *loop.Loop) srptest.Link {
	m := xentest.OpenMachine(tb)
	h, err := NewHost(HostConfig{Dial: m.Dial, Channels: &m.Hub, Grants: m.Grants(), Group: l.Group(), Dir: tb.TempDir()})
	if err != nil {
		tb.Fatal(err)
	}
	m.Create(5, "guest", "")
	m.Attach(guest)
	// The disks that the suite asks for, of which one is not there.
	for _, n := range []string{"0", "5"} {
		for _, kv := range [][2]string{{"p-dev", "t1:" + n}, {"v-dev", "0:0:0:" + n}, {"state", "1"}} {
			if err := m.Tools.Write(bePath+"/vscsi-devs/dev-"+n+"/"+kv[0], kv[1]); err != nil {
				tb.Fatal(err)
			}
		}
	}
	e, err := h.export(Config{Name: "t1", Domain: "guest"}, p)
	if err != nil {
		tb.Fatal(err)
	}
	d := m.Boot(guest)
	d.Wait("0:0:0:0", "0:0:0:5")
	m.States(guest, "4", "4")
	b := &bed{tb: tb, dom: m.Domain(5), f: d.Ring(), l: l, p: p, closed: true}
	return &hostLink{&link{bed: b, tags: map[uint64]*xentest.Sent{}, hung: map[uint64]bool{}}, m, h, e, d}
}

func (k *hostLink) Close() {
	k.h.Close()
	k.e.Close(srptest.Timeout)
	k.d.Off()
	k.m.Close()
}

// TestStorm: a front end that writes whatever it likes into its nodes harms nobody, and
// is served as soon as it does as it should; what it causes in the log is bounded.
func TestStorm(t *testing.T) {
	w := newWorld(t)
	w.attach()
	w.states("2", "1")
	c := w.Store.Dial(5)
	defer c.Close()
	r := rand.New(rand.NewPCG(1, 2))
	values := []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "-1", "", "x", "4294967295", "4294967296", "12", strings.Repeat("9", 3000)}
	for range rounds(300) {
		k := []string{"state", "ring-ref", "event-channel", "vscsi-devs/dev-0/state", "backend", "backend-id"}[r.IntN(6)]
		w.ok(c.Write(fePath+"/"+k, values[r.IntN(len(values))]))
	}
	w.ok(c.Write(fePath+"/state", "6"))
	tempotest.Wait(t, "the end", func() bool { v, _ := w.Store.Get(bePath + "/state"); return v == "6" || v == "2" })
	st := w.e.Status()
	if st.Connected || w.Mapped() != 0 {
		t.Errorf("%+v, %d pages are mapped", st, w.Mapped())
	}
	w.ok(c.Write(fePath+"/state", "1"))
	d := w.run()
	ready(t, d.Ring())
	d.Off()
}

// TestUnseen: what a domain that died while nobody was there has left goes.
func TestUnseen(t *testing.T) {
	w := newWorld(t)
	w.attach()
	d := w.run()
	w.down()
	if l, _ := os.ReadDir(w.dir); len(l) != 1 {
		t.Errorf("%d journals", len(l))
	}
	w.Destroy(5)
	d.Off()
	w.ok(os.WriteFile(filepath.Join(w.dir, "xen-vtgt-old-3-7"), nil, 0o600))
	w.ok(os.WriteFile(filepath.Join(w.dir, "xen-x"), nil, 0o600)) // nothing of ours
	// Its name is another one's now, which is not to lose its own.
	w.up()
	w.Create(6, "guest", "")
	n := guest
	n.Domain = 6
	w.Attach(n)
	w.States(n, "2", "1")
	d = w.Boot(n)
	d.Wait("0:0:0:0")
	tempotest.Wait(t, "what domain 5 had removed", func() bool { _, ok := w.Store.Get("/local/domain/0/backend/vtgt/5"); return !ok })
	if l, _ := os.ReadDir(w.dir); len(l) != 2 || l[0].Name() != "xen-vtgt-6-0" || l[1].Name() != "xen-x" {
		t.Errorf("journals %v", l)
	}
	w.Destroy(6)
	d.Off()
	tempotest.Wait(t, "the nodes removed", func() bool { _, ok := w.Store.Get(n.BackendPath()); return !ok })
}

// TestLeave: a driver that is unloaded and loaded again finds its disks again.
func TestLeave(t *testing.T) {
	w := newWorld(t)
	w.attach()
	for range 3 {
		d := w.run()
		d.SetState(xentest.Closing)
		w.states("6", "6")
		if n := w.Mapped(); n != 0 {
			t.Errorf("%d pages are mapped", n)
		}
		d.Off()
		w.ok(w.Tools.Write(fePath+"/state", strconv.Itoa(xentest.Initialising)))
		w.states("2", "1")
	}
	if st := w.e.Status(); st.Boots != 3 || st.Requests == 0 {
		t.Errorf("%+v", st)
	}
}

// TestWatches: an export that ends leaves no watch.
func TestWatches(t *testing.T) {
	w := newWorld(t)
	n := w.Store.Watches()
	for range 3 {
		e, err := w.h.Export(Config{Name: "t1", Domain: "other", Device: 9, Type: "vtgt-other", Port: w.port, Initiator: [16]byte{10}})
		w.ok(err)
		if got := w.Store.Watches(); got != n+1 {
			t.Errorf("%d watches, %d before", got, n)
		}
		e.Close(srptest.Timeout)
		if got := w.Store.Watches(); got != n {
			t.Errorf("%d watches, %d before", got, n)
		}
	}
}

// TestCloseStuck: the end of an export does not wait for a store any longer than it may,
// also where the device is being stopped already.
func TestCloseStuck(t *testing.T) {
	for _, leaving := range []bool{false, true} {
		g, hs, _, port := newDisk(t, true)
		m := xentest.NewMachine(t)
		h, err := NewHost(HostConfig{Dial: m.Dial, Channels: &m.Hub, Grants: m.Grants(), Group: g, Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		m.Create(5, "guest", "")
		m.Attach(guest)
		e, err := h.export(Config{Name: "t1", Domain: "guest", Place: place, Deadline: time.Hour}, port())
		if err != nil {
			t.Fatal(err)
		}
		d := m.Boot(guest)
		d.Wait("0:0:0:0")
		m.States(guest, "4", "4")
		ready(t, d.Ring())
		d.Ring().Send(rw(d.Ring(), 0x28, 0, 512, nil))
		hs.Wait(t, 1)
		if leaving {
			d.SetState(xentest.Closing) // its device waits for the store
			tempotest.Wait(t, "the stop", func() bool { return e.Status().Frontend == Closing })
		}
		ch := make(chan int, 1)
		go func() { ch <- e.Close(time.Millisecond) }()
		if n := tempotest.Recv(t, ch, "the end"); n != 1 {
			t.Errorf("leaving %v: %d stuck", leaving, n)
		}
		for _, x := range hs.Held() {
			x.Go()
		}
		h.Close()
		d.Off()
	}
}
