package scsitest

import (
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/backing/backingtest"
	"github.com/vtgt/vtgt/scsi"
)

const (
	proutRegister     = 0
	proutReserve      = 1
	proutPreempt      = 4
	proutPreemptAbort = 5
)

func (i *Initiator) prout(sa, typ byte, key, saKey uint64) *scsi.Task {
	i.TB.Helper()
	return i.Start(scsi.Simple, proutCDB(sa, typ), proutList(key, saKey), 0)
}

// register registers initiators under the keys 1, 2, …
func register(is ...*Initiator) {
	for k, i := range is {
		i.TB.Helper()
		i.want(i.prout(proutRegister, 0, 0, uint64(k+1)))
	}
}

func (i *Initiator) wantSense(t *scsi.Task, key scsi.SenseKey, asc scsi.ASC) {
	i.TB.Helper()
	if k, a := SenseOf(t); t.Status != scsi.StatusCheckCondition || k != key || a != asc {
		i.TB.Fatalf("task %d: %v, sense key %x %v", t.Tag, t.Status, k, a)
	}
}

func (i *Initiator) wantConflict(cdb []byte) {
	i.TB.Helper()
	if t := i.Do(cdb, block(1), 0); t.Status != scsi.StatusReservationConflict {
		i.TB.Fatalf("CDB % x: %v", cdb, t.Status)
	}
}

// TestPreemptAbort: the tasks of the preempted nexus end, whether in the store or not
// enabled; the answer comes when the last has left the store, and no task of another
// starts before.
func TestPreemptAbort(t *testing.T) {
	for _, tas := range []bool{false, true} {
		h := newHeld(t)
		if tas {
			list := controlMode(false, true)
			if e := h.a.Do([]byte{0x15, 0x10, 0, 0, byte(len(list)), 0}, list, 0); e.Status != scsi.StatusGood {
				t.Fatal(e.Status)
			}
			h.b.ua(scsi.ASCModeParametersChanged)
		}
		register(h.a, h.b)
		ended := func() {
			t.Helper()
			e := h.b.Ended()
			if e.Aborted == tas || tas && e.Status != scsi.StatusTaskAborted {
				t.Fatalf("task %d: %v, aborted %v", e.Tag, e.Status, e.Aborted)
			}
		}
		h.b.Start(scsi.Simple, write(1), block(2), 0)
		h.b.Start(scsi.Simple, write(2), block(2), 0)
		own := h.a.Start(scsi.Simple, read(3), nil, 512)
		hs := h.st.Wait(t, 3)
		h.st.SetDeaf(true)
		h.b.Start(scsi.Ordered, write(4), block(2), 0)
		p := h.a.prout(proutPreemptAbort, 1, 1, 2)
		ended() // the one that was not enabled
		late := h.a.Start(scsi.Simple, read(5), nil, 512)
		h.a.None(5 * time.Millisecond)
		h.st.Stay(t, 3)
		// Its own task is neither aborted nor waited for.
		for _, x := range hs {
			if x.Op.Kind == backing.Write {
				h.a.None(5 * time.Millisecond)
				x.Go()
				ended()
			}
		}
		h.a.want(p)
		goAll(h.st.Wait(t, 2))
		h.a.want(own, late)
		h.st.SetDeaf(false)
		h.b.ua(scsi.ASCRegistrationsPreempted)
		h.b.noUA()
		h.a.noUA()
	}
}

// TestPreemptAbortAnnounced: data that were announced before do not land after it.
func TestPreemptAbortAnnounced(t *testing.T) {
	h := newHeld(t)
	register(h.a, h.b)
	h.a.want(h.a.prout(proutReserve, 5, 1, 0))
	w := &scsi.Task{LUN: h.b.LUN, Tag: 77, CDBLen: 16, DataOut: [][]byte{block(9)}}
	copy(w.CDB[:], write(1))
	h.b.count(w, 1)
	h.b.Lane.Loop().Do(func() { h.b.Lane.Announce(w) })
	h.a.want(h.a.prout(proutPreemptAbort, 5, 1, 2))
	h.b.Lane.Loop().Do(func() { h.b.Lane.Submit(w) })
	h.b.wantAborted(1)
	h.st.Stay(t, 0)
	h.b.ua(scsi.ASCRegistrationsPreempted)
	h.b.wantConflict(write(1))
}

// TestPreemptAbortLost: a nexus that was lost has a WRITE in the store that does not
// come back. Whoever preempts it hears so, and then that it did.
func TestPreemptAbortLost(t *testing.T) {
	h := newHeldConf(t, scsi.UnitConfig{Deadline: 20 * time.Millisecond})
	register(h.a, h.b)
	h.st.SetDeaf(true)
	h.b.Start(scsi.Simple, write(1), block(2), 0)
	hs := h.st.Wait(t, 1)
	stuck := make(chan int, 1)
	h.b.Nexus.Close(time.Millisecond, func(n int) { stuck <- n })
	if n := <-stuck; n != 1 {
		t.Fatal(n, "tasks stuck")
	}
	p := h.a.prout(proutPreemptAbort, 1, 1, 2)
	if e := h.a.Ended(); e != p {
		t.Fatal("another task ended")
	}
	h.a.wantSense(p, scsi.AbortedCommand, 0x2e02) // COMMAND TIMEOUT DURING PROCESSING
	if r := h.Unit.Reservations(); len(r.Registrations) != 2 {
		t.Fatalf("%+v", r)
	}
	hs[0].Go()
	h.b.wantAborted(1)
	h.a.want(h.a.prout(proutPreemptAbort, 1, 1, 2))
	if r := h.Unit.Reservations(); len(r.Registrations) != 1 {
		t.Fatalf("%+v", r)
	}
	h.st.SetDeaf(false)
}

// TestPreemptAbortDeadline: it fails, and nothing has changed but that tasks ended.
func TestPreemptAbortDeadline(t *testing.T) {
	h := newHeldConf(t, scsi.UnitConfig{Deadline: 20 * time.Millisecond})
	register(h.a, h.b)
	h.b.want(h.b.prout(proutReserve, 1, 2, 0))
	h.st.SetDeaf(true)
	h.b.Start(scsi.Simple, write(1), block(2), 0)
	hs := h.st.Wait(t, 1)
	p := h.a.prout(proutPreemptAbort, 3, 1, 2)
	if e := h.a.Ended(); e != p {
		t.Fatal("another task ended")
	}
	h.a.wantSense(p, scsi.AbortedCommand, 0x2e02)
	r := h.Unit.Reservations()
	if r.Type != scsi.WriteExclusive || len(r.Registrations) != 2 || !r.Registrations[1].Holder || r.Generation != 2 {
		t.Fatalf("%+v", r)
	}
	h.a.wantConflict(write(1))
	goAll(hs)
	h.b.wantAborted(1)
	h.st.SetDeaf(false)
	h.b.ua(scsi.ASCCommandsClearedByAnother)
	w := h.b.Start(scsi.Simple, write(1), block(2), 0)
	goAll(h.st.Wait(t, 1))
	h.b.want(w)
}

// TestPreemptAbortEachOther: one of the two preempts; the other, which comes while it
// waits, finds itself preempted.
func TestPreemptAbortEachOther(t *testing.T) {
	h := newHeld(t)
	register(h.a, h.b)
	h.st.SetDeaf(true)
	h.b.Start(scsi.Simple, write(1), block(2), 0)
	hs := h.st.Wait(t, 1)
	p := h.a.prout(proutPreemptAbort, 1, 1, 2)
	h.a.None(5 * time.Millisecond)
	h.b.prout(proutPreemptAbort, 1, 2, 1) // behind it
	h.b.None(5 * time.Millisecond)
	goAll(hs)
	h.st.SetDeaf(false)
	h.a.want(p)
	h.b.wantAborted(1)
	h.b.wantSense(h.b.Ended(), scsi.UnitAttention, scsi.ASCRegistrationsPreempted)
	if r := h.Unit.Reservations(); len(r.Registrations) != 1 || r.Registrations[0].Key != 1 {
		t.Fatalf("%+v", r)
	}
}

// TestPreemptAbortReset: what resets the unit meanwhile ends it.
func TestPreemptAbortReset(t *testing.T) {
	h := newHeld(t)
	register(h.a, h.b)
	h.st.SetDeaf(true)
	h.b.Start(scsi.Simple, write(1), block(2), 0)
	hs := h.st.Wait(t, 1)
	h.a.prout(proutPreemptAbort, 1, 1, 2)
	h.a.None(5 * time.Millisecond)
	_, ch := h.b.StartManage(scsi.LUNReset, 0, 0)
	select {
	case <-ch:
		t.Fatal("answered while a task was in the store")
	case <-time.After(5 * time.Millisecond):
	}
	goAll(hs)
	h.b.wantAborted(1)
	h.a.wantAborted(1)
	<-ch
	h.st.SetDeaf(false)
	h.a.ClearUA()
	h.b.ClearUA()
	w := h.a.Start(scsi.Simple, write(1), block(1), 0)
	goAll(h.st.Wait(t, 1))
	h.a.want(w)
}

// TestPreemptAbortSelf: a holder that preempts itself ends its own tasks, but not this
// one.
func TestPreemptAbortSelf(t *testing.T) {
	h := newHeld(t)
	register(h.a, h.b)
	h.a.want(h.a.prout(proutReserve, 5, 1, 0))
	mine := h.a.Start(scsi.Simple, read(1), nil, 512)
	other := h.b.Start(scsi.Simple, read(2), nil, 512)
	h.st.Wait(t, 2)
	p := h.a.prout(proutPreemptAbort, 3, 1, 1)
	for range 2 {
		switch e := h.a.Ended(); {
		case e == mine && e.Aborted, e == p && e.Status == scsi.StatusGood && !e.Aborted:
		default:
			t.Fatalf("task %d: %v, aborted %v", e.Tag, e.Status, e.Aborted)
		}
	}
	goAll(h.st.Wait(t, 1))
	h.b.want(other)
	h.b.ua(scsi.ASCReservationsReleased) // another type
	h.b.wantConflict(read(1))
}

// TestPreemptAbortStopped: a unit that has stopped at an error can be fenced: the
// preempted nexus's held WRITE is not repeated.
func TestPreemptAbortStopped(t *testing.T) {
	h := newStopped(t, scsi.OnErrorStop)
	register(h.a, h.b)
	h.f.Inject(backingtest.Rule{Kinds: backingtest.KindSet(backing.Write), Count: 1, Err: syscall.EIO})
	h.b.Start(scsi.Simple, write(1), block(0x66), 0)
	h.waitHeld(1)
	own := h.a.Start(scsi.Simple, read(1), nil, 512)
	h.b.Start(scsi.Simple, write(2), block(0x66), 0)
	h.waitHeld(3)
	// One that only changes the table waits, as all do that need order.
	h.a.want(h.a.prout(proutPreemptAbort, 1, 1, 2))
	h.b.wantAborted(2)
	h.waitHeld(1)
	h.resume()
	h.a.want(own)
	if own.DataIn[0][0] != 0 {
		t.Error("the fenced WRITE has landed")
	}
	h.b.ua(scsi.ASCRegistrationsPreempted)
}

// TestPreemptWaits: PREEMPT aborts nothing; it is answered when what was accepted
// before it has ended, so that what a fenced host writes cannot land afterwards.
func TestPreemptWaits(t *testing.T) {
	h := newHeld(t)
	register(h.a, h.b)
	h.b.want(h.b.prout(proutReserve, 1, 2, 0))
	w := h.b.Start(scsi.Simple, write(1), block(2), 0)
	hs := h.st.Wait(t, 1)
	p := h.a.prout(proutPreempt, 1, 1, 2)
	late := h.b.Start(scsi.Simple, write(2), block(2), 0)
	h.a.None(10 * time.Millisecond)
	h.st.Stay(t, 1)
	goAll(hs)
	h.b.want(w)
	h.a.want(p)
	if e := h.b.Ended(); e != late {
		t.Fatal("another task ended")
	}
	h.b.wantSense(late, scsi.UnitAttention, scsi.ASCRegistrationsPreempted)
	h.b.wantConflict(write(2))
}

// TestReservationsAcross: one table for all targets of a unit, and RESERVE of a nexus
// that goes.
func TestReservationsAcross(t *testing.T) {
	h := newHeld(t)
	register(h.a)
	h.a.want(h.a.prout(proutReserve, 3, 1, 0))
	h.b.wantConflict(read(1))
	h.b.wantConflict(write(1))
	c := NewInitiator(t, h.b.Nexus.Port(), "c", h.Group.Loops()[0], 0)
	c.ua(scsi.ASCPowerOnOrReset)
	c.wantConflict(read(1))
	// A LUN RESET and the loss of the holder's nexus leave it as it is.
	if r := h.b.Manage(scsi.LUNReset, 0, 0); r != scsi.TMComplete {
		t.Fatal(r)
	}
	h.Wait("nexus's close", func(done func(int)) { h.a.Nexus.Close(0, done) })
	h.b.ua(scsi.ASCBusDeviceReset)
	h.b.wantConflict(read(1))
	a := NewInitiator(t, h.a.Nexus.Port(), "a", h.Group.Loops()[1], 0)
	a.ua(scsi.ASCPowerOnOrReset)
	r := a.Start(scsi.Simple, read(1), nil, 512)
	goAll(h.st.Wait(t, 1))
	a.want(r)
}
