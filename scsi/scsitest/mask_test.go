package scsitest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/scsi"
)

// only is a mask by initiator name.
func only(names ...string) func(scsi.InitiatorID) bool {
	return func(id scsi.InitiatorID) bool { return slices.Contains(names, id.Name()) }
}

// sees is the LUN list by REPORT LUNS.
func (i *Initiator) sees() (luns []uint16) {
	i.TB.Helper()
	e := i.Do([]byte{0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, nil, 256)
	if e.Status != scsi.StatusGood {
		i.TB.Fatal(e.Status)
	}
	for b := e.DataIn[0][8:e.InLen]; len(b) > 0; b = b[8:] {
		n, _ := scsi.LUN(b[:8]).Number()
		luns = append(luns, n)
	}
	return luns
}

func (i *Initiator) wantSees(want ...uint16) {
	i.TB.Helper()
	if got := i.sees(); !slices.Equal(got, want) {
		i.TB.Fatalf("%s sees LUNs %v, want %v", i.Nexus.ID(), got, want)
	}
}

// pdt is the first byte of the INQUIRY data of LUN n.
func (i *Initiator) pdt(n uint16) byte {
	i.TB.Helper()
	was := i.LUN
	i.LUN = scsi.EncodeLUN(n)
	e := i.Do([]byte{0x12, 0, 0, 0, 96, 0}, nil, 96)
	i.LUN = was
	if e.Status != scsi.StatusGood {
		i.TB.Fatal(e.Status)
	}
	return e.DataIn[0][0]
}

func kinds(es []scsi.Event) (ks []scsi.EventKind) {
	for _, e := range es {
		ks = append(ks, e.Kind)
	}
	return ks
}

// masked is a target with two initiators and a second unit to be mapped.
func masked(t *testing.T) (h *held, b *Initiator, r2 *Rig) {
	h = newHeld(t)
	b = NewInitiator(t, h.a.Nexus.Port(), "c", h.Group.Loops()[1], 0)
	b.ClearUA()
	r2 = NewRig(t, h.Group, h.st.Store, scsi.UnitConfig{Name: "second"})
	t.Cleanup(func() { h.Wait("Unit.Close", func(d func(int)) { r2.Unit.Close(0, d) }) })
	h.a.Events()
	b.Events()
	return h, b, r2
}

// TestMask: a nexus sees its LUNs only, and hears only of changes of its own view.
func TestMask(t *testing.T) {
	h, c, r2 := masked(t)
	remap := func(o scsi.MapOptions) {
		t.Helper()
		h.Wait("Remap", func(d func(int)) {
			if err := h.tg.Remap(3, o, 0, d); err != nil {
				t.Fatal(err)
			}
		})
	}
	if err := h.tg.Map(3, r2.Unit, scsi.MapOptions{Visible: only("a")}); err != nil {
		t.Fatal(err)
	}
	h.a.ua(scsi.ASCReportedLUNsDataHasChanged)
	c.noUA()
	h.a.wantSees(0, 3)
	c.wantSees(0)
	if h.a.pdt(3) != 0 || c.pdt(3) != 0x7f {
		t.Error("INQUIRY")
	}
	c.LUN = scsi.EncodeLUN(3)
	if _, a := SenseOf(c.Do(turCDB, nil, 0)); a != scsi.ASCLUNNotSupported {
		t.Errorf("TEST UNIT READY: %v", a)
	}
	if r := c.Manage(scsi.LUNReset, 0, 0); r != scsi.TMNoLUN {
		t.Errorf("LOGICAL UNIT RESET: %v", r)
	}
	c.LUN = scsi.EncodeLUN(0)
	if r := c.Manage(scsi.TargetWarmReset, 0, 0); r != scsi.TMComplete {
		t.Error(r)
	}
	c.ua(scsi.ASCBusReset)
	h.a.ua(scsi.ASCBusReset)
	h.a.LUN = scsi.EncodeLUN(3)
	h.a.ua(scsi.ASCPowerOnOrReset) // the first contact only: it was not reset
	h.a.noUA()
	h.a.LUN = scsi.EncodeLUN(0)
	if k := kinds(h.a.Events()); !slices.Equal(k, []scsi.EventKind{scsi.LUNAdded}) {
		t.Errorf("a heard of %v", k)
	}

	// From a to c, while a has tasks there and on the other LUN.
	h.a.LUN = scsi.EncodeLUN(3)
	gone := h.a.Start(scsi.Simple, read(1), nil, 512) // no hold on the second unit's store: ended
	if e := h.a.Ended(); e != gone || e.Status != scsi.StatusGood {
		t.Fatal(e.Status)
	}
	h.a.LUN = scsi.EncodeLUN(0)
	stays := h.a.Start(scsi.Simple, read(2), nil, 512)
	h.st.Wait(t, 1)
	remap(scsi.MapOptions{Visible: only("c")})
	h.st.Stay(t, 1)
	h.a.ua(scsi.ASCReportedLUNsDataHasChanged)
	c.ua(scsi.ASCReportedLUNsDataHasChanged)
	h.a.wantSees(0)
	c.wantSees(0, 3)
	goAll(h.st.Wait(t, 1))
	h.a.want(stays)
	if k := kinds(h.a.Events()); !slices.Equal(k, []scsi.EventKind{scsi.LUNRemoved}) {
		t.Errorf("a heard of %v", k)
	}
	if k := kinds(c.Events()); !slices.Equal(k, []scsi.EventKind{scsi.LUNAdded}) {
		t.Errorf("c heard of %v", k)
	}
	// The same view for c: nothing.
	remap(scsi.MapOptions{Visible: only("c", "x")})
	c.noUA()
	h.a.noUA()
	// An event of the unit reaches who sees it.
	if err := r2.Unit.Resize(2<<20, false); err != nil {
		t.Fatal(err)
	}
	var heard []scsi.EventKind
	if !tempotest.Settles(func() bool {
		heard = append(heard, kinds(c.Events())...)
		return slices.Contains(heard, scsi.LUNResized)
	}) {
		t.Errorf("c heard of %v", heard)
	}
	d := NewInitiator(t, h.a.Nexus.Port(), "d", h.Group.Loops()[0], 0)
	d.ClearUA()
	d.wantSees(0)
	h.Wait("Unmap", func(f func(int)) {
		if err := h.tg.Unmap(3, 0, f); err != nil {
			t.Fatal(err)
		}
	})
	c.ClearUA()
	d.noUA()
}

// TestRemapTasks: who no longer sees a LUN loses its tasks there and its RESERVE;
// others do not notice.
func TestRemapTasks(t *testing.T) {
	h := newHeld(t)
	c := NewInitiator(t, h.a.Nexus.Port(), "c", h.Group.Loops()[1], 0)
	c.ClearUA()
	if e := h.a.Do([]byte{0x16, 0, 0, 0, 0, 0}, nil, 0); e.Status != scsi.StatusGood {
		t.Fatal(e.Status)
	}
	if e := c.Do(read(1), nil, 512); e.Status != scsi.StatusReservationConflict {
		t.Fatal(e.Status)
	}
	mine := h.a.Start(scsi.Simple, read(1), nil, 512)
	h.st.Wait(t, 1)
	var rm [2]error
	h.Wait("Remap", func(d func(int)) {
		h.st.SetDeaf(true)
		rm[0] = h.tg.Remap(0, scsi.MapOptions{Visible: only("c")}, 0, d)
		rm[1] = h.tg.Remap(0, scsi.MapOptions{}, 0, nil)
		h.st.Wait(t, 1)[0].Go()
		h.st.SetDeaf(false)
	})
	if rm[0] != nil || rm[1] == nil || !strings.Contains(rm[1].Error(), "still being removed") {
		t.Errorf("Remap: %v; again at once: %v", rm[0], rm[1])
	}
	e := h.a.Ended()
	if _, a := SenseOf(e); e != mine || a != scsi.ASCLUNNotSupported {
		t.Fatalf("%v %v", e.Status, a)
	}
	r := c.Start(scsi.Simple, read(1), nil, 512)
	goAll(h.st.Wait(t, 1))
	c.want(r)
	c.noUA()
	h.Wait("Remap", func(d func(int)) {
		if err := h.tg.Remap(0, scsi.MapOptions{}, 0, d); err != nil {
			t.Fatal(err)
		}
	})
	h.a.ua(scsi.ASCPowerOnOrReset)
	h.a.noUA()
}

// TestRemapReadOnly: WRITEs that have started end, later ones are refused, READs go
// on.
func TestRemapReadOnly(t *testing.T) {
	h := newHeld(t)
	w := h.a.Start(scsi.Simple, write(1), block(1), 0)
	h.st.Wait(t, 1)
	h.Wait("Remap", func(d func(int)) {
		if err := h.tg.Remap(0, scsi.MapOptions{ReadOnly: true}, 0, d); err != nil {
			t.Fatal(err)
		}
		h.a.ua(scsi.ASCModeParametersChanged)
		h.b.noUA() // comes by another target
		e := h.a.Do(write(2), block(2), 0)
		if k, _ := SenseOf(e); k != scsi.DataProtect {
			t.Errorf("WRITE: %v %x", e.Status, k)
		}
		h.st.Wait(t, 1)[0].Go()
	})
	h.a.want(w)
	wb := h.b.Start(scsi.Simple, write(1), block(1), 0)
	goAll(h.st.Wait(t, 1))
	h.b.want(wb)
	h.Wait("Remap", func(d func(int)) { _ = h.tg.Remap(0, scsi.MapOptions{}, 0, d) })
	h.a.ua(scsi.ASCModeParametersChanged)
	w = h.a.Start(scsi.Simple, write(1), block(1), 0)
	goAll(h.st.Wait(t, 1))
	h.a.want(w)
	if err := h.tg.Remap(9, scsi.MapOptions{}, 0, nil); err == nil {
		t.Error("no error")
	}
}

// TestUsers: who stands in the way.
func TestUsers(t *testing.T) {
	h, c, r2 := masked(t)
	if err := h.tg.Map(3, r2.Unit, scsi.MapOptions{Visible: only("c"), ReadOnly: true}); err != nil {
		t.Fatal(err)
	}
	s := c.Start(scsi.Simple, read(1), nil, 512)
	if _, a := SenseOf(c.Ended()); a != scsi.ASCReportedLUNsDataHasChanged {
		t.Fatal(a)
	}
	s = c.Start(scsi.Simple, read(1), nil, 512)
	o := c.Start(scsi.Ordered, read(1), nil, 512)
	hs := h.st.Wait(t, 1)
	want := []scsi.User{
		{Initiator: "a", Target: "one", LUN: 0, Disk: "disk"},
		{Initiator: "c", Target: "one", LUN: 0, Disk: "disk", InFlight: 2},
		{Initiator: "b", Target: "two", LUN: 0, Disk: "disk"},
	}
	if got := h.Unit.Users(); !reflect.DeepEqual(got, want) {
		t.Errorf("users of the unit: %+v", got)
	}
	third := scsi.User{Initiator: "c", Target: "one", LUN: 3, Disk: "second", ReadOnly: true}
	if got := h.tg.Users(); !reflect.DeepEqual(got, []scsi.User{want[0], want[1], third}) {
		t.Errorf("users of the target: %+v", got)
	}
	if got := r2.Unit.Users(); !reflect.DeepEqual(got, []scsi.User{third}) {
		t.Errorf("users of the second unit: %+v", got)
	}
	goAll(hs)
	c.want(s)
	goAll(h.st.Wait(t, 1))
	c.want(o)
	empty := scsi.NewTarget(scsi.TargetConfig{Name: "empty"})
	NewInitiator(t, empty.NewPort(scsi.PortConfig{RelID: 9}), "a", h.Group.Loops()[0], 0)
	if got := empty.Users(); !reflect.DeepEqual(got, []scsi.User{{Initiator: "a", Target: "empty", LUN: -1}}) {
		t.Errorf("users of a target without LUNs: %+v", got)
	}
	h.Wait("Target.Close", func(d func(int)) { empty.Close(0, d) })
}

// TestSharing: initiators of two names do not write a unit that is not shared.
func TestSharing(t *testing.T) {
	h := newHeld(t)
	var se *scsi.SharingError
	err := h.Unit.SetShared(false)
	if !errors.As(err, &se) || !errors.Is(err, scsi.ErrNotShared) {
		t.Fatalf("SetShared with two initiators there: %v", err)
	}
	closeNexus := func(i *Initiator) {
		t.Helper()
		h.Wait("Nexus.Close", func(d func(int)) { i.Nexus.Close(0, d) })
	}
	closeNexus(h.b)
	if err := h.Unit.SetShared(false); err != nil {
		t.Fatal(err)
	}
	closeNexus(h.a)
	attach := func(p *scsi.Port, id scsi.InitiatorID) (*Initiator, error) {
		t.Helper()
		i := &Initiator{TB: t, LUN: scsi.EncodeLUN(0), done: make(chan *scsi.Task, 16)}
		pre := p.Admits(id)
		var err error
		if i.Nexus, err = p.Attach(id, i); err == nil {
			i.Lane, err = i.Nexus.Lane(h.Group.Loops()[0])
			if len(i.Nexus.LUNs()) > 0 {
				i.ClearUA()
			}
		}
		if fmt.Sprint(pre) != fmt.Sprint(err) {
			t.Fatalf("Admits: %v, Attach: %v", pre, err)
		}
		return i, err
	}
	p1, p2 := h.a.Nexus.Port(), h.b.Nexus.Port()
	x, err := attach(p1, "iqn.x,i,0x1")
	if err != nil {
		t.Fatal(err)
	}
	path, err := attach(p2, "iqn.x,i,0x2")
	if err != nil {
		t.Fatal("another path of the same initiator:", err)
	}
	if _, err = attach(p2, "iqn.y,i,0x1"); !errors.As(err, &se) || se.Holder != "iqn.x" || se.Initiator != "iqn.y" || se.Disk != "disk" {
		t.Fatalf("another initiator: %v", err)
	}
	t.Log(err)
	closeNexus(path)
	// Read-only, or unseen, it may come.
	remap := func(o scsi.MapOptions) (err error) {
		h.Wait("Remap", func(d func(int)) {
			if err = h.tg.Remap(0, o, 0, d); err != nil {
				d(0)
			}
		})
		return err
	}
	if err := remap(scsi.MapOptions{ReadOnly: true}); err != nil {
		t.Fatal(err)
	}
	y, err := attach(p2, "iqn.y,i,0x1")
	if err != nil {
		t.Fatal("x only reads:", err)
	}
	if err := remap(scsi.MapOptions{}); !errors.Is(err, scsi.ErrNotShared) {
		t.Fatalf("x may write again: %v", err)
	}
	if err := remap(scsi.MapOptions{Visible: only("iqn.z")}); err != nil {
		t.Fatal("x does not see it:", err)
	}
	// A LUN that comes to a target with two initiators.
	if _, err := attach(p1, "iqn.y,i,0x1"); err != nil {
		t.Fatal(err)
	}
	if err := remap(scsi.MapOptions{}); !errors.Is(err, scsi.ErrNotShared) {
		t.Fatal(err)
	}
	h.Wait("Unmap", func(d func(int)) { _ = h.tg.Unmap(0, 0, d) })
	if err := h.tg.Map(0, h.Unit, scsi.MapOptions{}); !errors.Is(err, scsi.ErrNotShared) {
		t.Fatal(err)
	}
	if err := h.tg.Map(0, h.Unit, scsi.MapOptions{Visible: only("iqn.y")}); err != nil {
		t.Fatal(err)
	}
	// A nexus that closes holds the unit until its last write has left.
	y.ClearUA() // of a map that has come and gone
	w := y.Start(scsi.Simple, write(1), block(1), 0)
	h.st.Wait(t, 1)
	h.st.SetDeaf(true)
	ch := make(chan int, 1)
	y.Nexus.Close(10*time.Millisecond, func(n int) { ch <- n })
	if n := <-ch; n != 1 {
		t.Fatalf("%d stuck", n)
	}
	h.Wait("Unmap", func(d func(int)) { _ = h.tg.Unmap(0, 0, d) })
	if _, err := attach(p2, "iqn.z,i,0x1"); !errors.Is(err, scsi.ErrNotShared) {
		t.Fatalf("a write of y is still in the store: %v", err)
	}
	h.st.Wait(t, 1)[0].Go()
	if e := y.Ended(); e != w || !e.Aborted {
		t.Fatal(e.Status)
	}
	h.st.SetDeaf(false)
	if !tempotest.Settles(func() bool { _, err = attach(p2, "iqn.z,i,0x1"); return err == nil }) {
		t.Fatal(err)
	}
	_ = x
	if n := scsi.InitiatorID("iqn.a:b,i,0x0").Name(); n != "iqn.a:b" {
		t.Error(n)
	}
}

// TestUnitResize: growth is taken over at once, shrinking needs force.
func TestUnitResize(t *testing.T) {
	h := newHeld(t)
	for _, n := range []int64{0, -512, 1000} {
		if err := h.Unit.Resize(n, true); err == nil {
			t.Errorf("%d: no error", n)
		}
	}
	if err := h.Unit.Resize(2<<20, false); err != nil {
		t.Fatal(err)
	}
	h.a.ua(scsi.ASCCapacityDataHasChanged)
	h.a.noUA()
	h.b.ua(scsi.ASCCapacityDataHasChanged)
	err := h.Unit.Resize(1<<20, false)
	if err == nil || h.Unit.Capacity() != 2<<20 {
		t.Fatalf("shrunk: %v", err)
	}
	t.Log(err)
	h.a.noUA()
	if err := h.Unit.Resize(1<<20, true); err != nil {
		t.Fatal(err)
	}
	h.a.ua(scsi.ASCCapacityDataHasChanged)
	if n := h.Unit.Capacity(); n != 1<<20 {
		t.Fatal(n)
	}
}

// TestGrownOutside: a file that somebody else made longer.
func TestGrownOutside(t *testing.T) {
	g, err := loop.NewGroup(loop.Config{Loops: 2, Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	path := filepath.Join(t.TempDir(), "disk")
	st, err := backing.Open("file:"+path, backing.Options{Size: 1 << 20, Create: true, Group: g})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	r := NewRig(t, g, st, scsi.UnitConfig{})
	defer r.Close()
	_, p := r.Target("one", 4)
	var is []*Initiator
	for n, l := range g.Loops() {
		i := NewInitiator(t, p, scsi.InitiatorID(fmt.Sprint("i", n)), l, 4)
		i.ClearUA()
		is = append(is, i)
	}
	if err := os.Truncate(path, 3<<20); err != nil {
		t.Fatal(err)
	}
	tempotest.Wait(t, "the unit takes its store's size over", func() bool { return r.Unit.Capacity() == 3<<20 })
	for _, i := range is {
		i.ua(scsi.ASCCapacityDataHasChanged)
		i.noUA()
		if e := i.Do(CDB10(0x25, 0, 0), nil, 8); !slices.Equal(e.DataIn[0], []byte{0, 0, 0x17, 0xff, 0, 0, 2, 0}) {
			t.Errorf("READ CAPACITY(10): % x", e.DataIn[0])
		}
		var e []scsi.Event
		if !tempotest.Settles(func() bool { e = i.Events(); return len(e) != 0 }) || len(e) != 1 || e[0] != (scsi.Event{Kind: scsi.LUNResized, LUN: 4}) {
			t.Fatalf("events %v", e)
		}
	}
	if e := is[0].Do(read(3<<11-1), nil, 512); e.Status != scsi.StatusGood {
		t.Error(e.Status)
	}
}
