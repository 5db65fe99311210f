package scsitest

import (
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/scsi"
)

// held is a rig over a HoldStore, with two initiators on two loops that see the
// unit as LUN 0 through two targets.
type held struct {
	*Rig
	st   *HoldStore
	a, b *Initiator
	tg   *scsi.Target
}

func newHeld(t *testing.T) *held {
	t.Helper()
	return newHeldConf(t, scsi.UnitConfig{})
}

func newHeldConf(t *testing.T, c scsi.UnitConfig) *held {
	t.Helper()
	g, err := loop.NewGroup(loop.Config{Loops: 2, Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	mem, err := backing.Open("mem:", backing.Options{Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	h := &held{st: &HoldStore{Store: mem}}
	h.Rig = NewRig(t, g, h.st, c)
	tg, p1 := h.Target("one", 0)
	_, p2 := h.Target("two", 0)
	h.tg = tg
	h.a = NewInitiator(t, p1, "a", g.Loops()[0], 0)
	h.b = NewInitiator(t, p2, "b", g.Loops()[1], 0)
	h.a.ClearUA()
	h.b.ClearUA()
	t.Cleanup(func() {
		h.Close()
		closeAll(t, mem, g)
	})
	return h
}

func read(lba uint32) []byte { return CDB10(0x28, lba, 1) }

func goAll(hs []*Held) {
	for _, h := range hs {
		h.Go()
	}
}

// want waits for tasks to end, in any order, with GOOD.
func (i *Initiator) want(ts ...*scsi.Task) {
	i.TB.Helper()
	left := map[*scsi.Task]bool{}
	for _, t := range ts {
		left[t] = true
	}
	for range ts {
		t := i.Ended()
		if !left[t] {
			i.TB.Fatalf("task %d ended", t.Tag)
		}
		delete(left, t)
		if t.Status != scsi.StatusGood || t.Aborted {
			i.TB.Fatalf("task %d: %v, aborted %v", t.Tag, t.Status, t.Aborted)
		}
	}
}

// TestOrdered: an ORDERED task waits for what is in flight, on any lane; what
// comes after it waits for it; the end of a task that came through the open gate
// wakes it up.
func TestOrdered(t *testing.T) {
	h := newHeld(t)
	a1 := h.a.Start(scsi.Simple, read(1), nil, 512)
	b1 := h.b.Start(scsi.Simple, read(2), nil, 512)
	first := h.st.Wait(t, 2)
	o := h.a.Start(scsi.Ordered, read(3), nil, 512)
	b2 := h.b.Start(scsi.Simple, read(4), nil, 512)
	h.st.Stay(t, 2)
	first[0].Go()
	h.a.want(a1)
	h.st.Stay(t, 1)
	first[1].Go()
	h.b.want(b1)
	second := h.st.Stay(t, 1)
	if second[0].Op.Off != 3*512 {
		t.Fatalf("the ORDERED task is not the one that runs: offset %d", second[0].Op.Off)
	}
	second[0].Go()
	h.a.want(o)
	goAll(h.st.Wait(t, 1))
	h.b.want(b2)
}

// TestHeadOfQueue: it starts at once, even beside and before an ORDERED task, and
// holds back both.
func TestHeadOfQueue(t *testing.T) {
	h := newHeld(t)
	s := h.a.Start(scsi.Simple, read(1), nil, 512)
	h.st.Wait(t, 1)
	o := h.a.Start(scsi.Ordered, read(2), nil, 512)
	q := h.b.Start(scsi.HeadOfQueue, read(3), nil, 512)
	hs := h.st.Stay(t, 2)
	if hs[1].Op.Off != 3*512 {
		t.Fatal("HEAD OF QUEUE did not start")
	}
	hs[0].Go()
	h.a.want(s)
	h.st.Stay(t, 1)
	hs[1].Go()
	h.b.want(q)
	hs = h.st.Stay(t, 1)
	hs[0].Go()
	h.a.want(o)

	q = h.a.Start(scsi.HeadOfQueue, read(1), nil, 512)
	hs = h.st.Wait(t, 1)
	s = h.b.Start(scsi.Simple, read(2), nil, 512)
	h.st.Stay(t, 1)
	hs[0].Go()
	h.a.want(q)
	goAll(h.st.Wait(t, 1))
	h.b.want(s)
}

// TestExclusive: a command that runs alone waits for READs and keeps others out;
// immediate ones pass.
func TestExclusive(t *testing.T) {
	h := newHeld(t)
	s := h.b.Start(scsi.Simple, read(1), nil, 512)
	hs := h.st.Wait(t, 1)
	reserve := []byte{0x16, 0, 0, 0, 0, 0}
	x := h.a.Start(scsi.Simple, reserve, nil, 0)
	h.a.None(20 * time.Millisecond)
	s2 := h.b.Start(scsi.Simple, read(2), nil, 512)
	inq := []byte{0x12, 0, 0, 0, 36, 0}
	if i := h.b.Do(inq, nil, 36); i.Status != scsi.StatusGood || i.InLen != 36 {
		t.Fatalf("INQUIRY: %v, %d bytes", i.Status, i.InLen)
	}
	hs[0].Go()
	h.b.want(s)
	h.a.want(x)
	// The READ that came after RESERVE is judged by it.
	if e := h.b.Ended(); e != s2 || e.Status != scsi.StatusReservationConflict {
		t.Fatalf("READ behind RESERVE: %v", e.Status)
	}
	if e := h.a.Do([]byte{0x17, 0, 0, 0, 0, 0}, nil, 0); e.Status != scsi.StatusGood {
		t.Fatalf("RELEASE: %v", e.Status)
	}
	s3 := h.b.Start(scsi.Simple, read(2), nil, 512)
	goAll(h.st.Wait(t, 1))
	h.b.want(s3)
}

// TestRange: COMPARE AND WRITE waits for overlapping READs and WRITEs only, those
// that come later wait for it, and it does not drain the unit.
func TestRange(t *testing.T) {
	h := newHeld(t)
	over := h.b.Start(scsi.Simple, CDB10(0x28, 9, 2), nil, 1024)
	side := h.b.Start(scsi.Simple, read(20), nil, 512)
	hs := h.st.Wait(t, 2)
	c := h.a.Start(scsi.Simple, CompareAndWrite(10, 1), make([]byte, 1024), 0)
	c2 := h.b.Start(scsi.Simple, CompareAndWrite(10, 1), make([]byte, 1024), 0)
	late := h.a.Start(scsi.Simple, CDB10(0x2a, 10, 1), make([]byte, 512), 0)
	free := h.a.Start(scsi.Simple, read(30), nil, 512)
	hs = h.st.Stay(t, 3)
	if hs[2].Op.Off != 30*512 {
		t.Fatalf("beside the range runs offset %d", hs[2].Op.Off)
	}
	hs[2].Go()
	h.a.want(free)
	hs[0].Go()
	h.b.want(over)
	hs = h.st.Stay(t, 2) // side, c's read
	hs[1].Go()
	hs = h.st.Stay(t, 2) // side, c's write
	if hs[1].Op.Kind != backing.Write || hs[1].Op.Off != 10*512 {
		t.Fatalf("operation %v at %d", hs[1].Op.Kind, hs[1].Op.Off)
	}
	hs[1].Go()
	h.a.want(c)
	for range 2 { // c2's read and write, before or after late's
		hs = h.st.Stay(t, 2)
		hs[1].Go()
	}
	h.st.Wait(t, 2)[1].Go()
	h.a.want(late)
	h.b.want(c2)
	h.st.Wait(t, 1)[0].Go()
	h.b.want(side)
}

// TestRangeVerify: VERIFY sees a COMPARE AND WRITE as a whole, and WRITE SAME waits
// only where it overlaps one.
func TestRangeVerify(t *testing.T) {
	h := newHeld(t)
	c := h.a.Start(scsi.Simple, CompareAndWrite(10, 2), make([]byte, 2048), 0)
	h.st.Wait(t, 1)
	verify := h.b.Start(scsi.Simple, CDB10(0x2f, 11, 1), nil, 0)
	side := h.b.Start(scsi.Simple, CDB10(0x2f, 12, 1), nil, 0)
	same := h.b.Start(scsi.Simple, CDB10(0x41, 9, 1), make([]byte, 512), 0)
	h.b.want(same) // zeros: no WRITE of the store
	hs := h.st.Stay(t, 2)
	if hs[1].Op.Off != 12*512 {
		t.Fatalf("beside the range runs offset %d", hs[1].Op.Off)
	}
	hs[1].Go()
	h.b.want(side)
	hs[0].Go()
	hs = h.st.Stay(t, 1) // c's write
	hs[0].Go()
	h.a.want(c)
	h.st.Wait(t, 1)[0].Go()
	h.b.want(verify)
}

// TestYield: a command that takes for ever, of which the store answers every step
// inline, leaves its loop to others and can be aborted.
func TestYield(t *testing.T) {
	g, err := loop.NewGroup(loop.Config{Loops: 1, Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	st, err := backing.Open("null:", backing.Options{Size: 1 << 50})
	if err != nil {
		t.Fatal(err)
	}
	r := NewRig(t, g, st, scsi.UnitConfig{})
	_, p := r.Target("one", 0)
	i := NewInitiator(t, p, "a", g.Loops()[0], 0)
	i.ClearUA()
	verify := func() *scsi.Task { // 2 TiB
		return i.Start(scsi.Simple, []byte{0x8f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0}, nil, 0)
	}
	v := verify()
	for range 3 {
		s := i.Start(scsi.Simple, read(7), nil, 512)
		i.want(s)
	}
	if r := i.Manage(scsi.QueryTask, v.Tag, 0); r != scsi.TMSucceeded {
		t.Fatal(r)
	}
	if r := i.Manage(scsi.AbortTask, v.Tag, 0); r != scsi.TMComplete {
		t.Fatal(r)
	}
	i.wantAborted(1)
	o := verify()
	if r := i.Manage(scsi.LUNReset, 0, 0); r != scsi.TMComplete {
		t.Fatal(r)
	}
	if e := i.Ended(); e != o || !e.Aborted {
		t.Fatal(e.Status)
	}
	// The loss of the nexus, too.
	i.ClearUA()
	verify()
	r.Wait("Nexus.Close", func(done func(int)) { i.Nexus.Close(0, done) })
	i.wantAborted(1)
	r.Close()
	closeAll(t, st, g)
}

// TestACA: there never is an ACA condition.
func TestACA(t *testing.T) {
	h := newHeld(t)
	h.a.Start(scsi.ACA, read(1), nil, 512)
	e := h.a.Ended()
	if k, a := SenseOf(e); e.Status != scsi.StatusCheckCondition || k != scsi.IllegalRequest || a != scsi.ASCInvalidMessage {
		t.Fatalf("%v %x %v", e.Status, k, a)
	}
	if r := h.a.Manage(scsi.ClearACA, 0, 0); r != scsi.TMNotSupported {
		t.Fatal(r)
	}
}

// TestRangeAbort: an aborted COMPARE AND WRITE that waits lets go of those that
// wait for it.
func TestRangeAbort(t *testing.T) {
	h := newHeld(t)
	over := h.b.Start(scsi.Simple, read(10), nil, 512)
	hs := h.st.Wait(t, 1)
	c := h.a.Start(scsi.Simple, CompareAndWrite(10, 1), make([]byte, 1024), 0)
	late := h.b.Start(scsi.Simple, read(10), nil, 512)
	h.st.Stay(t, 1)
	if r := h.a.Manage(scsi.AbortTask, c.Tag, 0); r != scsi.TMComplete {
		t.Fatal(r)
	}
	if e := h.a.Ended(); e != c || !e.Aborted {
		t.Fatalf("%v", e.Status)
	}
	goAll(h.st.Wait(t, 2))
	h.b.want(over, late)
	_ = hs
}

// TestManyRanges: more range commands than the table has slots, all on one block.
func TestManyRanges(t *testing.T) {
	h := newHeld(t)
	over := h.b.Start(scsi.Simple, read(10), nil, 512)
	first := h.st.Wait(t, 1)
	const n = 150
	for i := range n {
		in := h.a
		if i%2 == 0 {
			in = h.b
		}
		in.Start(scsi.Simple, CompareAndWrite(10, 1), make([]byte, 1024), 0)
	}
	h.st.Stay(t, 1)
	if r := h.a.Manage(scsi.AbortTask, 40, 0); r != scsi.TMComplete {
		t.Fatal(r)
	}
	if e := h.a.Ended(); !e.Aborted {
		t.Fatal(e.Status)
	}
	first[0].Go()
	h.b.want(over)
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			h.st.mu.Lock()
			hs := append([]*Held(nil), h.st.held...)
			h.st.mu.Unlock()
			goAll(hs)
			time.Sleep(50 * time.Microsecond)
		}
	}()
	for range n/2 - 1 {
		if e := h.a.Ended(); e.Status != scsi.StatusGood {
			t.Error(e.Status)
		}
	}
	for range n / 2 {
		if e := h.b.Ended(); e.Status != scsi.StatusGood {
			t.Error(e.Status)
		}
	}
	close(stop)
}
