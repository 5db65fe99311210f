package iscsi

import (
	"bytes"
	"testing"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/backing/backingtest"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/iscsi/iscsitest"
	"github.com/vtgt/vtgt/iscsi/pdu"
)

// TestLull: while workers keep long writes to themselves, what else the initiator sends is
// still taken; and when they end, all is as before.
func TestLull(t *testing.T) {
	f := faulty(t)
	r := newRig(t, rigOptions{quiet: true, store: f})
	c := r.dial(r.login())
	for range 3 { // unit attentions
		if _, err := c.Run(read(0, 8)); err != nil {
			t.Fatal(err)
		}
	}
	s := r.srv.list(nil)[0]
	data := random(64 << 10)
	for round, relieved := range []int{lullWrites - 1, lullWrites} {
		s.sh.l.Do(func() { s.sh.l.Relieve(relieved) })
		f.Inject(backingtest.Rule{Kinds: backingtest.KindSet(backing.Write), Hold: true})
		var ks []*iscsitest.Task
		for i := range 20 {
			ks = append(ks, start(t, c, write(uint32(i)*128, data)))
		}
		if !f.WaitHeld(len(ks)) {
			t.Fatal("not held: what came in a pause was not taken")
		}
		over := func() (b bool) {
			s.sh.l.Do(func() { b = s.conns[0].lull.over && !s.conns[0].lull.on })
			return b
		}
		if relieved >= lullWrites {
			tempotest.Wait(t, "a pause, and its end", over)
		} else if over() {
			t.Error("a pause without need")
		}
		if got, err := c.TMF(pdu.QueryTask, 0, ks[0], true); err != nil || got != pdu.TMFSucceeded {
			t.Fatalf("round %d: %v, %v", round, got, err)
		}
		f.Clear()
		f.Release(len(ks))
		for _, k := range ks {
			wantGood(t, c, k)
		}
		s.sh.l.Do(func() { s.sh.l.Relieve(-relieved) })
	}
	k, err := c.Run(read(128, 128))
	if err != nil || !bytes.Equal(k.In, data) {
		t.Error("other data:", err)
	}
}
