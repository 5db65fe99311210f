package scsitest

import (
	"testing"
	"time"

	"github.com/vtgt/vtgt/scsi"
)

var turCDB = make([]byte, 6)

// ua wants a unit attention at the next TEST UNIT READY.
func (i *Initiator) ua(asc scsi.ASC) {
	i.TB.Helper()
	t := i.Do(turCDB, nil, 0)
	if k, a := SenseOf(t); t.Status != scsi.StatusCheckCondition || k != scsi.UnitAttention || a != asc {
		i.TB.Fatalf("%v, sense key %x %v; want unit attention %v", t.Status, k, a, asc)
	}
}

// noUA wants none.
func (i *Initiator) noUA() {
	i.TB.Helper()
	if t := i.Do(turCDB, nil, 0); t.Status != scsi.StatusGood {
		k, a := SenseOf(t)
		i.TB.Fatalf("%v, sense key %x %v", t.Status, k, a)
	}
}

func (i *Initiator) wantAborted(n int) {
	i.TB.Helper()
	for range n {
		if t := i.Ended(); !t.Aborted {
			i.TB.Fatalf("task %d: %v, not aborted", t.Tag, t.Status)
		}
	}
}

// TestFirstContact: exactly one unit attention.
func TestFirstContact(t *testing.T) {
	h := newHeld(t)
	i := NewInitiator(t, h.a.Nexus.Port(), "new", h.Group.Loops()[1], 0)
	i.ua(scsi.ASCPowerOnOrReset)
	i.noUA()
}

// TestAbortTask: in the store, not enabled, and not there.
func TestAbortTask(t *testing.T) {
	h := newHeld(t)
	s := h.a.Start(scsi.Simple, read(1), nil, 512)
	h.st.Wait(t, 1)
	o := h.a.Start(scsi.Ordered, read(2), nil, 512)
	if r := h.a.Manage(scsi.QueryTask, o.Tag, 0); r != scsi.TMSucceeded {
		t.Fatalf("QUERY TASK: %v", r)
	}
	if r := h.b.Manage(scsi.AbortTask, o.Tag, 0); r != scsi.TMNoTask {
		t.Fatalf("another nexus's task: %v", r)
	}
	if r := h.a.Manage(scsi.AbortTask, o.Tag, 0); r != scsi.TMComplete {
		t.Fatal(r)
	}
	h.a.wantAborted(1)
	if r := h.a.Manage(scsi.AbortTask, s.Tag, 0); r != scsi.TMComplete {
		t.Fatal(r)
	}
	h.a.wantAborted(1)
	if r := h.a.Manage(scsi.AbortTask, s.Tag, 0); r != scsi.TMNoTask {
		t.Fatal(r)
	}
	if r := h.a.Manage(scsi.QueryTask, s.Tag, 0); r != scsi.TMComplete {
		t.Fatal(r)
	}
	h.a.noUA()
	h.a.LUN = scsi.EncodeLUN(7)
	if r := h.a.Manage(scsi.LUNReset, 0, 0); r != scsi.TMNoLUN {
		t.Fatal(r)
	}
}

// TestManageOrder: a function affects what was submitted before it and nothing
// that is submitted after it, even in the same turn of the loop.
func TestManageOrder(t *testing.T) {
	h := newHeld(t)
	before := h.a.Start(scsi.Simple, read(1), nil, 512)
	h.st.Wait(t, 1)
	after := &scsi.Task{LUN: h.a.LUN, Tag: 999, CDBLen: 16, DataIn: [][]byte{make([]byte, 512)}}
	copy(after.CDB[:], read(2))
	ch := make(chan struct{})
	m := &scsi.TMF{Func: scsi.AbortTaskSet, LUN: h.a.LUN, Lane: h.a.Lane, Done: func(*scsi.TMF) { close(ch) }}
	h.a.Lane.Loop().Do(func() {
		h.a.Nexus.Manage(m)
		h.a.Lane.Submit(after)
	})
	<-ch
	if e := h.a.Ended(); e != before || !e.Aborted {
		t.Fatalf("task %d: %v, aborted %v", e.Tag, e.Status, e.Aborted)
	}
	goAll(h.st.Wait(t, 1))
	h.a.want(after)
}

// TestLUNReset: everybody's tasks go, everybody has a unit attention, a
// reservation ends, and new tasks wait for the end of the reset.
func TestLUNReset(t *testing.T) {
	h := newHeld(t)
	if e := h.a.Do([]byte{0x16, 0, 0, 0, 0, 0}, nil, 0); e.Status != scsi.StatusGood {
		t.Fatal(e.Status)
	}
	h.a.Start(scsi.Simple, read(1), nil, 512)
	h.a.Start(scsi.Ordered, read(2), nil, 512)
	hs := h.st.Wait(t, 1)
	h.st.SetDeaf(true)
	_, ch := h.b.StartManage(scsi.LUNReset, 0, 0)
	late := h.b.Start(scsi.Simple, read(3), nil, 512)
	h.a.wantAborted(1) // the one that was not enabled
	select {
	case <-ch:
		t.Fatal("answered while a task was in the store")
	case <-time.After(20 * time.Millisecond):
	}
	h.st.Stay(t, 1)
	hs[0].Go()
	h.a.wantAborted(1)
	<-ch
	if e := h.b.Ended(); e != late || e.Aborted {
		t.Fatal("a task behind the reset was aborted")
	} else if k, a := SenseOf(e); k != scsi.UnitAttention || a != scsi.ASCBusDeviceReset {
		t.Fatalf("%v %x %v", e.Status, k, a)
	}
	h.a.ua(scsi.ASCBusDeviceReset)
	h.a.noUA()
	h.b.noUA()
	h.st.SetDeaf(false)
}

// TestDeadline: a task that stays in the store makes the function fail, is counted
// as stuck, and still ends once.
func TestDeadline(t *testing.T) {
	h := newHeld(t)
	h.st.SetDeaf(true)
	s := h.a.Start(scsi.Simple, read(1), nil, 512)
	hs := h.st.Wait(t, 1)
	if r := h.a.Manage(scsi.LUNReset, 0, 30*time.Millisecond); r != scsi.TMFailed {
		t.Fatal(r)
	}
	if r := h.a.Manage(scsi.AbortTask, s.Tag, 30*time.Millisecond); r != scsi.TMFailed {
		t.Fatal(r)
	}
	h.published()
	if st := h.Unit.Stats(); st.Stuck != 1 {
		t.Fatalf("%d stuck", st.Stuck)
	}
	// The unit goes on.
	h.b.ClearUA()
	b := h.b.Start(scsi.Simple, read(5), nil, 512)
	h.st.Wait(t, 2)[1].Go()
	h.b.want(b)
	h.a.None(10 * time.Millisecond)
	hs[0].Go()
	h.a.wantAborted(1)
	h.a.ClearUA()
	h.published()
	if st := h.Unit.Stats(); st.Stuck != 0 || st.InFlight != 0 {
		t.Fatalf("%d stuck, %d in flight", st.Stuck, st.InFlight)
	}
}

// TestClearTaskSet: without TAS the other nexus's tasks vanish and it has a unit
// attention.
func TestClearTaskSet(t *testing.T) {
	h := newHeld(t)
	h.a.Start(scsi.Simple, read(1), nil, 512)
	h.b.Start(scsi.Simple, read(2), nil, 512)
	h.st.Wait(t, 2)
	if r := h.a.Manage(scsi.ClearTaskSet, 0, 0); r != scsi.TMComplete {
		t.Fatal(r)
	}
	h.a.wantAborted(1)
	h.b.wantAborted(1)
	h.a.noUA()
	h.b.ua(scsi.ASCCommandsClearedByAnother)
	h.b.noUA()
}

// TestTAS: with TAS they end with TASK ABORTED instead.
func TestTAS(t *testing.T) {
	h := newHeld(t)
	// MODE SELECT(6), Control mode page with TAS (SPC-4 §7.5.8).
	list := controlMode(false, true)
	if e := h.a.Do([]byte{0x15, 0x10, 0, 0, byte(len(list)), 0}, list, 0); e.Status != scsi.StatusGood {
		k, a := SenseOf(e)
		t.Fatalf("MODE SELECT of TAS: %v %x %v", e.Status, k, a)
	}
	h.b.ClearUA()
	h.a.Start(scsi.Simple, read(1), nil, 512)
	h.b.Start(scsi.Simple, read(2), nil, 512)
	h.st.Wait(t, 2)
	if r := h.a.Manage(scsi.ClearTaskSet, 0, 0); r != scsi.TMComplete {
		t.Fatal(r)
	}
	h.a.wantAborted(1)
	if e := h.b.Ended(); e.Aborted || e.Status != scsi.StatusTaskAborted {
		t.Fatalf("%v, aborted %v", e.Status, e.Aborted)
	}
	h.b.noUA()
}

// TestFunctions: every function, as to whose tasks it ends, who hears of it and
// what it answers. a issues it; a has one task in the store and one that waits for
// its turn, b, which is another nexus of another target, has one of each as well.
func TestFunctions(t *testing.T) {
	const none = scsi.ASC(0)
	for _, c := range []struct {
		f          scsi.TMFunc
		ends       [2]int // tasks of a, of b
		ua         [2]scsi.ASC
		want, idle scsi.TMResponse // with tasks, without
	}{
		{scsi.AbortTask, [2]int{1, 0}, [2]scsi.ASC{none, none}, scsi.TMComplete, scsi.TMNoTask},
		{scsi.AbortTaskSet, [2]int{2, 0}, [2]scsi.ASC{none, none}, scsi.TMComplete, scsi.TMComplete},
		{scsi.ClearTaskSet, [2]int{2, 2}, [2]scsi.ASC{none, scsi.ASCCommandsClearedByAnother}, scsi.TMComplete, scsi.TMComplete},
		{scsi.LUNReset, [2]int{2, 2}, [2]scsi.ASC{scsi.ASCBusDeviceReset, scsi.ASCBusDeviceReset}, scsi.TMComplete, scsi.TMComplete},
		{scsi.TargetWarmReset, [2]int{2, 2}, [2]scsi.ASC{scsi.ASCBusReset, scsi.ASCBusReset}, scsi.TMComplete, scsi.TMComplete},
		{scsi.TargetColdReset, [2]int{2, 2}, [2]scsi.ASC{scsi.ASCBusReset, scsi.ASCBusReset}, scsi.TMComplete, scsi.TMComplete},
		{scsi.NexusReset, [2]int{2, 0}, [2]scsi.ASC{scsi.ASCNexusLoss, none}, scsi.TMComplete, scsi.TMComplete},
		{scsi.QueryTask, [2]int{}, [2]scsi.ASC{}, scsi.TMSucceeded, scsi.TMComplete},
		{scsi.QueryTaskSet, [2]int{}, [2]scsi.ASC{}, scsi.TMSucceeded, scsi.TMComplete},
		{scsi.QueryAsyncEvent, [2]int{}, [2]scsi.ASC{}, scsi.TMComplete, scsi.TMComplete},
		{scsi.ClearACA, [2]int{}, [2]scsi.ASC{}, scsi.TMNotSupported, scsi.TMNotSupported},
		{scsi.TMFunc(99), [2]int{}, [2]scsi.ASC{}, scsi.TMNotSupported, scsi.TMNotSupported},
	} {
		t.Run(c.f.String(), func(t *testing.T) {
			h := newHeld(t)
			h.b.Start(scsi.Simple, read(2), nil, 512)
			first := h.a.Start(scsi.Simple, read(1), nil, 512)
			h.st.Wait(t, 2)
			h.a.Start(scsi.Ordered, read(3), nil, 512)
			h.b.Start(scsi.Simple, read(4), nil, 512)
			h.st.Stay(t, 2)
			if r := h.a.Manage(c.f, first.Tag, 0); r != c.want {
				t.Fatal(r)
			}
			for k, i := range []*Initiator{h.a, h.b} {
				i.wantAborted(c.ends[k])
			}
			// What is left goes on, one after the other.
			for left := 4 - c.ends[0] - c.ends[1]; left > 0; {
				hs := h.st.Some(t)
				goAll(hs)
				left -= len(hs)
			}
			for k, i := range []*Initiator{h.a, h.b} {
				for range 2 - c.ends[k] {
					if e := i.Ended(); e.Aborted || e.Status != scsi.StatusGood {
						t.Fatalf("task %d: %v, aborted %v", e.Tag, e.Status, e.Aborted)
					}
				}
				if c.ua[k] != none {
					if r := i.Manage(scsi.QueryAsyncEvent, 0, 0); r != scsi.TMSucceeded {
						t.Fatalf("with a unit attention pending: %v", r)
					}
					i.ua(c.ua[k])
				}
				i.noUA()
			}
			if r := h.a.Manage(c.f, first.Tag, 0); r != c.idle {
				t.Fatalf("without tasks: %v", r)
			}
		})
	}
}

// TestReportedFunctions: REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 §6.35) says
// what is so.
func TestReportedFunctions(t *testing.T) {
	h := newHeld(t)
	e := h.a.Do([]byte{0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0}, nil, 4)
	if e.Status != scsi.StatusGood || e.InLen != 4 {
		t.Fatal(e.Status, e.InLen)
	}
	said := e.DataIn[0]
	for _, c := range []struct {
		f        scsi.TMFunc
		at, mask byte
	}{
		{scsi.AbortTask, 0, 0x80}, {scsi.AbortTaskSet, 0, 0x40}, {scsi.ClearACA, 0, 0x20}, {scsi.ClearTaskSet, 0, 0x10},
		{scsi.LUNReset, 0, 0x08}, {scsi.QueryTask, 0, 0x04}, {scsi.TargetWarmReset, 0, 0x02},
		{scsi.QueryAsyncEvent, 1, 0x04}, {scsi.QueryTaskSet, 1, 0x02}, {scsi.NexusReset, 1, 0x01},
	} {
		if got, want := said[c.at]&c.mask != 0, h.a.Manage(c.f, 0, 0) != scsi.TMNotSupported; got != want {
			t.Errorf("%v: reported %v, is %v", c.f, got, want)
		}
	}
}

// TestNexusReset: it ends what the nexus holds: RESERVE and the prevention of
// medium removal.
func TestNexusReset(t *testing.T) {
	h := newHeldConf(t, scsi.UnitConfig{Removable: true})
	reserve, prevent, eject := []byte{0x16, 0, 0, 0, 0, 0}, []byte{0x1e, 0, 0, 0, 1, 0}, []byte{0x1b, 0, 0, 0, 2, 0}
	for _, cdb := range [][]byte{reserve, prevent} {
		if e := h.a.Do(cdb, nil, 0); e.Status != scsi.StatusGood {
			t.Fatal(e.Status)
		}
	}
	if e := h.b.Do(eject, nil, 0); e.Status != scsi.StatusReservationConflict {
		t.Fatal(e.Status)
	}
	if e := h.a.Do([]byte{0x17, 0, 0, 0, 0, 0}, nil, 0); e.Status != scsi.StatusGood {
		t.Fatal(e.Status)
	}
	if e := h.b.Do(eject, nil, 0); e.Status != scsi.StatusCheckCondition {
		t.Fatal(e.Status)
	}
	if e := h.a.Do(reserve, nil, 0); e.Status != scsi.StatusGood {
		t.Fatal(e.Status)
	}
	if r := h.a.Manage(scsi.NexusReset, 0, 0); r != scsi.TMComplete {
		t.Fatal(r)
	}
	if e := h.b.Do(eject, nil, 0); e.Status != scsi.StatusGood {
		t.Fatal(e.Status)
	}
}

// TestNexusLoss: closing a nexus ends its tasks and its RESERVE.
func TestNexusLoss(t *testing.T) {
	h := newHeld(t)
	if e := h.a.Do([]byte{0x16, 0, 0, 0, 0, 0}, nil, 0); e.Status != scsi.StatusGood {
		t.Fatal(e.Status)
	}
	h.a.Start(scsi.Simple, read(1), nil, 512)
	h.st.Wait(t, 1)
	if e := h.b.Do(read(1), nil, 512); e.Status != scsi.StatusReservationConflict {
		t.Fatal(e.Status)
	}
	h.Wait("Nexus.Close", func(done func(int)) { h.a.Nexus.Close(0, done) })
	h.a.wantAborted(1)
	s := h.b.Start(scsi.Simple, read(1), nil, 512)
	goAll(h.st.Wait(t, 1))
	h.b.want(s)
	// What slips through afterwards ends at once.
	if e := h.a.Do(read(1), nil, 512); !e.Aborted {
		t.Fatalf("%v", e.Status)
	}
	if _, err := h.a.Nexus.Lane(h.Group.Loops()[0]); err == nil {
		t.Fatal("a closed nexus gives lanes")
	}
	// The name is free.
	n := NewInitiator(t, h.tgPort(), "a", h.Group.Loops()[0], 0)
	n.ua(scsi.ASCPowerOnOrReset)
}

func (h *held) tgPort() *scsi.Port { return h.tg.NewPort(scsi.PortConfig{RelID: 7}) }

// TestUnmap: tasks end with LOGICAL UNIT NOT SUPPORTED, others hear of it, and the
// LUN can come back.
func TestUnmap(t *testing.T) {
	h := newHeld(t)
	h.a.Events()
	s := h.a.Start(scsi.Simple, read(1), nil, 512)
	o := h.a.Start(scsi.Ordered, read(2), nil, 512)
	h.b.Start(scsi.Simple, read(3), nil, 512)
	h.st.Wait(t, 1)
	h.Wait("Unmap", func(done func(int)) {
		if err := h.tg.Unmap(0, 0, done); err != nil {
			t.Fatal(err)
		}
	})
	for range 2 {
		e := h.a.Ended()
		if k, a := SenseOf(e); e != s && e != o || k != scsi.IllegalRequest || a != scsi.ASCLUNNotSupported {
			t.Fatalf("%v %x %v", e.Status, k, a)
		}
	}
	// There is a way less to the unit. What waits for its turn hears of it.
	if k, a := SenseOf(h.b.Ended()); k != scsi.UnitAttention || a != scsi.ASCInquiryDataHasChanged {
		t.Fatalf("%x %v", k, a)
	}
	b := h.b.Start(scsi.Simple, read(3), nil, 512)
	goAll(h.st.Wait(t, 1))
	h.b.want(b)
	if e := h.a.Do(read(1), nil, 512); e.Status != scsi.StatusCheckCondition {
		t.Fatal(e.Status)
	} else if _, a := SenseOf(e); a != scsi.ASCLUNNotSupported {
		t.Fatal(a)
	}
	if err := h.tg.Map(0, h.Unit, scsi.MapOptions{ReadOnly: true}); err != nil {
		t.Fatal(err)
	}
	h.a.ClearUA()
	e := h.a.Do(CDB10(0x2a, 1, 1), make([]byte, 512), 0)
	if k, a := SenseOf(e); k != scsi.DataProtect || a != scsi.ASCWriteProtected {
		t.Fatalf("WRITE of a read-only LUN: %v %x %v", e.Status, k, a)
	}
	if ev := h.a.Events(); len(ev) != 2 || ev[0].Kind != scsi.LUNRemoved || ev[1].Kind != scsi.LUNAdded {
		t.Fatalf("events %v", ev)
	}
}

// TestLUNsChanged: units that stay report the new map once; REPORT LUNS ends it.
func TestLUNsChanged(t *testing.T) {
	h := newHeld(t)
	r2 := NewRig(t, h.Group, h.st.Store, scsi.UnitConfig{Name: "second"})
	if err := h.tg.Map(3, r2.Unit, scsi.MapOptions{}); err != nil {
		t.Fatal(err)
	}
	h.a.ua(scsi.ASCReportedLUNsDataHasChanged)
	h.a.noUA()
	h.b.noUA()
	for _, err := range []error{
		h.tg.Map(3, h.Unit, scsi.MapOptions{}),
		h.tg.Map(4, h.Unit, scsi.MapOptions{}),
		h.tg.Map(scsi.MaxLUN+1, h.Unit, scsi.MapOptions{}),
		h.tg.Unmap(9, 0, nil),
	} {
		if err == nil {
			t.Error("no error")
		} else {
			t.Log(err)
		}
	}
	h.Wait("Unmap", func(done func(int)) { _ = h.tg.Unmap(3, 0, done) })
	rl := h.a.Do([]byte{0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0}, nil, 64)
	if rl.Status != scsi.StatusGood || rl.InLen != 16 {
		t.Fatalf("REPORT LUNS: %v, %d bytes", rl.Status, rl.InLen)
	}
	h.a.noUA()
	h.Wait("Unit.Close", func(done func(int)) { r2.Unit.Close(0, done) })
}

// TestResize: larger at once, smaller when the tasks have ended; both with unit
// attention and event.
func TestResize(t *testing.T) {
	h := newHeld(t)
	if err := h.st.Resize(2 << 20); err != nil {
		t.Fatal(err)
	}
	if n := h.Unit.Capacity(); n != 2<<20 {
		t.Fatal(n)
	}
	h.a.ua(scsi.ASCCapacityDataHasChanged)
	h.b.ua(scsi.ASCCapacityDataHasChanged)
	s := h.a.Start(scsi.Simple, read(3000), nil, 512)
	hs := h.st.Wait(t, 1)
	if err := h.st.Resize(1 << 20); err != nil {
		t.Fatal(err)
	}
	b := h.b.Start(scsi.Simple, read(3000), nil, 512)
	if n := h.Unit.Capacity(); n != 2<<20 {
		t.Fatalf("%d: the unit shrank under a task", n)
	}
	hs[0].Go()
	if e := h.a.Ended(); e != s {
		t.Fatal("another task")
	}
	if e := h.b.Ended(); e != b {
		t.Fatal("another task")
	} else if _, a := SenseOf(e); a != scsi.ASCCapacityDataHasChanged {
		t.Fatal(a)
	}
	if n := h.Unit.Capacity(); n != 1<<20 {
		t.Fatal(n)
	}
	h.a.ua(scsi.ASCCapacityDataHasChanged)
	h.a.noUA()
	time.Sleep(5 * time.Millisecond)
	for _, i := range []*Initiator{h.a, h.b} {
		if ev := i.Events(); len(ev) != 2 || ev[0].Kind != scsi.LUNResized || ev[1].Kind != scsi.LUNResized {
			t.Fatalf("events %v", ev)
		}
	}
}

// TestLaneClose: a lane's tasks go, the nexus and its other lanes stay.
func TestLaneClose(t *testing.T) {
	h := newHeld(t)
	i := &Initiator{TB: t, Nexus: h.a.Nexus, LUN: h.a.LUN, done: h.a.done}
	var err error
	if i.Lane, err = h.a.Nexus.Lane(h.Group.Loops()[1]); err != nil {
		t.Fatal(err)
	}
	s := h.a.Start(scsi.Simple, read(1), nil, 512)
	i.tag = 1000
	i.Start(scsi.Simple, read(2), nil, 512)
	h.st.Wait(t, 2)
	h.Wait("Lane.Close", func(done func(int)) { i.Lane.Close(done) })
	i.wantAborted(1)
	goAll(h.st.Wait(t, 1))
	h.a.want(s)
}
