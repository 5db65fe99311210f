package scsitest

import (
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/scsi"
)

// blocked keeps the initiator's loop from its work until free is called.
func (i *Initiator) blocked() (free func()) {
	in, out := make(chan struct{}), make(chan struct{})
	go i.Lane.Loop().Do(func() {
		close(in)
		<-out
	})
	<-in
	return func() { close(out) }
}

// stuck waits until the unit counts n stuck tasks.
func (h *held) stuck(n int64) {
	h.TB.Helper()
	var got int64
	if !tempotest.Settles(func() bool { got = h.Unit.Stats().Stuck; return got == n }) {
		h.TB.Fatalf("%d tasks are stuck, want %d", got, n)
	}
}

// TestCloseUnseen: a nexus is closed while the loop of its WRITE does nothing. The
// deadline passes before anybody has looked: what nobody has looked for is not gone.
func TestCloseUnseen(t *testing.T) {
	h := newHeld(t)
	h.st.SetDeaf(true)
	h.b.Start(scsi.Simple, write(1), block(2), 0)
	hs := h.st.Wait(t, 1)
	free := h.b.blocked()
	stuck := make(chan int, 1)
	h.b.Nexus.Close(time.Millisecond, func(n int) { stuck <- n })
	n := <-stuck
	free()
	if n != 1 {
		t.Error(n, "tasks stuck")
	}
	h.stuck(1)
	hs[0].Go()
	h.b.wantAborted(1)
	h.stuck(0)
	h.st.SetDeaf(false)
}

// TestPreemptAbortUnseen: PREEMPT AND ABORT fails while the loop of the preempted
// nexus does nothing. Its task ends nevertheless, and it hears so.
func TestPreemptAbortUnseen(t *testing.T) {
	h := newHeldConf(t, scsi.UnitConfig{Deadline: 20 * time.Millisecond})
	register(h.a, h.b)
	h.b.Start(scsi.Simple, write(1), block(2), 0)
	h.st.Wait(t, 1)
	free := h.b.blocked()
	p := h.a.prout(proutPreemptAbort, 1, 1, 2)
	e := h.a.Ended()
	free()
	if e != p {
		t.Fatal("another task ended")
	}
	h.a.wantSense(p, scsi.AbortedCommand, 0x2e02)
	h.b.wantAborted(1)
	h.b.ua(scsi.ASCCommandsClearedByAnother)
	h.b.noUA()
	h.stuck(0)
}
