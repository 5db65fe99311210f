package scsi

import "testing"

// MULTIP says that there are several ports (SPC-4 §6.6.2), and whoever may have read
// that hears of a port that comes or goes (§6.6.1).
func TestSeveralPorts(t *testing.T) {
	r := newRig(t, goldenConf(), newRigStore(1<<20))
	n := r.nexus()
	multi := func(want byte) {
		t.Helper()
		if b := n.expect("good", "12 00 00 0024 00", nil, 36).in(); b[6] != want {
			t.Errorf("byte 6 is %02x, want %02x", b[6], want)
		}
	}
	const tur = "00 00 00 00 00 00"
	multi(0)
	hidden := r.tg.NewPort(PortConfig{RelID: 7, View: func(*Mapping) (uint16, bool) { return 0, false }})
	multi(0)
	n.expect("good", tur, nil, 0)
	done := make(chan int, 1)
	end := func(n int) { done <- n }
	hidden.Close(0, end)
	<-done
	n.expect("good", tur, nil, 0)

	p := r.tg.NewPort(PortConfig{RelID: 8})
	multi(0x10)
	n.expect("06 3f/03", tur, nil, 0)
	p.Close(0, end)
	<-done
	n.expect("06 3f/03", tur, nil, 0)
	multi(0)

	// Another target is a path as soon as it has a port.
	other := NewTarget(TargetConfig{Name: "other"})
	if err := other.Map(3, r.u, MapOptions{}); err != nil {
		t.Fatal(err)
	}
	multi(0)
	n.expect("good", tur, nil, 0)
	other.NewPort(PortConfig{RelID: 9})
	n.expect("06 3f/03", tur, nil, 0)
	multi(0x10)
	if err := other.Unmap(3, 0, end); err != nil {
		t.Fatal(err)
	}
	<-done
	n.expect("06 3f/03", tur, nil, 0)
	multi(0)
	other.Close(0, end)
	<-done
	n.expect("good", tur, nil, 0)
}
