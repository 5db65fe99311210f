package scsitest

import (
	"slices"
	"testing"

	"github.com/vtgt/vtgt/scsi"
)

// TestPortView: each port shows its part of the target's LUN map under its own
// numbers, in REPORT LUNS, commands, task management and events alike.
func TestPortView(t *testing.T) {
	h := newHeld(t)
	r2 := NewRig(t, h.Group, h.st.Store, scsi.UnitConfig{Name: "second"})
	r3 := NewRig(t, h.Group, h.st.Store, scsi.UnitConfig{Name: "third"})
	for _, r := range []*Rig{r2, r3} {
		t.Cleanup(func() { h.Wait("Unit.Close", func(d func(int)) { r.Unit.Close(0, d) }) })
	}
	// Address 1 is at the second port, with its numbers turned round.
	p := h.tg.NewPort(scsi.PortConfig{RelID: 2, Protocol: 4, Name: "second", View: func(m *scsi.Mapping) (uint16, bool) {
		return 100 - m.LUN, m.Address == 1
	}})
	b := NewInitiator(t, p, "b", h.Group.Loops()[1], 0)
	h.a.Events()
	b.wantSees()

	type num struct {
		lun  uint16
		unit *scsi.Unit
	}
	for _, n := range []num{{5, r2.Unit}, {7, r3.Unit}} {
		if err := h.tg.Map(n.lun, n.unit, scsi.MapOptions{Address: 1}); err != nil {
			t.Fatal(err)
		}
	}
	want := func(i *Initiator, es ...scsi.Event) {
		t.Helper()
		if got := i.Events(); !slices.Equal(got, es) {
			t.Errorf("%s heard of %v, want %v", i.Nexus.ID(), got, es)
		}
	}
	want(b, scsi.Event{Kind: scsi.LUNAdded, LUN: 95}, scsi.Event{Kind: scsi.LUNAdded, LUN: 93})
	want(h.a, scsi.Event{Kind: scsi.LUNAdded, LUN: 5}, scsi.Event{Kind: scsi.LUNAdded, LUN: 7})
	b.wantSees(93, 95)
	h.a.wantSees(0, 5, 7)
	if b.pdt(0) != 0x7f || b.pdt(5) != 0x7f || b.pdt(95) != 0 {
		t.Error("INQUIRY")
	}
	b.LUN = scsi.EncodeLUN(5)
	if r := b.Manage(scsi.LUNReset, 0, 0); r != scsi.TMNoLUN {
		t.Errorf("LOGICAL UNIT RESET of the target's number: %v", r)
	}
	b.LUN = scsi.EncodeLUN(95)
	b.ClearUA()
	if r := b.Manage(scsi.LUNReset, 0, 0); r != scsi.TMComplete {
		t.Errorf("LOGICAL UNIT RESET: %v", r)
	}
	b.ua(scsi.ASCBusDeviceReset)

	// Who looks at the target finds its own numbers.
	for _, u := range h.tg.Users() {
		if u.Initiator == "b" && u.LUN != 5 && u.LUN != 7 {
			t.Errorf("Users has LUN %d", u.LUN)
		}
	}

	// A change of options keeps the address.
	h.Wait("Remap", func(d func(int)) {
		if err := h.tg.Remap(5, scsi.MapOptions{ReadOnly: true}, 0, d); err != nil {
			t.Fatal(err)
		}
	})
	b.wantSees(93, 95)
	want(b)

	h.Wait("Unmap", func(d func(int)) {
		if err := h.tg.Unmap(7, 0, d); err != nil {
			t.Fatal(err)
		}
	})
	want(b, scsi.Event{Kind: scsi.LUNRemoved, LUN: 93})
	b.wantSees(95)
	h.Wait("Unmap", func(d func(int)) {
		if err := h.tg.Unmap(0, 0, d); err != nil {
			t.Fatal(err)
		}
	})
	want(b) // it never saw that one
}

// TestPortViewShares: what a port does not show it does not lend.
func TestPortViewShares(t *testing.T) {
	h := newHeld(t) // initiator "a" may write LUN 0
	h.Wait("Nexus.Close", func(d func(int)) { h.b.Nexus.Close(0, d) })
	if err := h.Unit.SetShared(false); err != nil {
		t.Fatal(err)
	}
	nothing := h.tg.NewPort(scsi.PortConfig{RelID: 2, View: func(*scsi.Mapping) (uint16, bool) { return 0, false }})
	NewInitiator(t, nothing, "b", h.Group.Loops()[1], 0).wantSees()
	all := h.tg.NewPort(scsi.PortConfig{RelID: 3, View: func(*scsi.Mapping) (uint16, bool) { return 9, true }})
	if n, err := all.Attach("c", h.a); err == nil {
		n.Close(0, func(int) {})
		t.Error("two initiators may write")
	}
}
