package scsitest

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/backing/backingtest"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/scsi"
)

// latchStore plays a volatile store that latches when it is told to.
type latchStore struct {
	backing.Store
	latched atomic.Bool
	info    backing.Info
}

func (s *latchStore) Info() *backing.Info {
	i := *s.Store.Info()
	i.Volatile = true
	return &i
}
func (s *latchStore) Stats() backing.Stats { return backing.Stats{Latched: s.latched.Load()} }
func (s *latchStore) Reopen() error        { s.latched.Store(false); return nil }

// stopped is a rig with faults, with two initiators on two loops that see the unit
// through one target.
type stopped struct {
	*Rig
	f     *backingtest.Fault
	latch *latchStore
	tg    *scsi.Target
	port  *scsi.Port
	a, b  *Initiator

	mu     sync.Mutex
	states []scsi.UnitState
}

func newStopped(t *testing.T, o scsi.OnError) *stopped {
	t.Helper()
	g, err := loop.NewGroup(loop.Config{Loops: 2, Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	mem, err := backing.Open("mem:", backing.Options{Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	h := &stopped{f: backingtest.NewFault(mem)}
	h.latch = &latchStore{Store: h.f}
	h.Rig = NewRig(t, g, h.latch, scsi.UnitConfig{OnError: o, OnState: func(s scsi.UnitState) {
		h.mu.Lock()
		h.states = append(h.states, s)
		h.mu.Unlock()
	}})
	h.tg, h.port = h.Target("one", 0)
	h.a = NewInitiator(t, h.port, "a", g.Loops()[0], 0)
	h.b = NewInitiator(t, h.port, "b", g.Loops()[1], 0)
	h.a.ClearUA()
	h.b.ClearUA()
	t.Cleanup(func() {
		h.Close()
		closeAll(t, h.f, g)
	})
	return h
}

// waitHeld waits until n tasks are held.
func (h *stopped) waitHeld(n int) scsi.UnitState {
	h.TB.Helper()
	var s scsi.UnitState
	if !tempotest.Settles(func() bool { s = h.Unit.State(); return s.Stopped == (n > 0) && s.Held == n }) {
		h.TB.Fatalf("state %+v, want %d tasks held; %+v in flight", s, n, h.Unit.Stats().InFlight)
	}
	return s
}

func (h *stopped) resume() {
	h.TB.Helper()
	if err := h.Unit.Resume(); err != nil {
		h.TB.Fatal(err)
	}
}

// sawStates waits until OnState has heard of n changes.
func (h *stopped) sawStates(n int) []scsi.UnitState {
	h.TB.Helper()
	var s []scsi.UnitState
	if !tempotest.Settles(func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		s = append(s[:0], h.states...)
		return len(s) >= n
	}) || len(s) > n {
		h.TB.Fatalf("OnState heard of %+v, want %d changes", s, n)
	}
	return s
}

func write(lba uint32) []byte { return CDB10(0x2a, lba, 1) }

func block(b byte) []byte { return bytes.Repeat([]byte{b}, 512) }

// TestStop: the task whose operation failed and all that come later are held, what
// needs no store runs, and Resume lets everything go on.
func TestStop(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Millisecond} {
		for name, r := range map[string]backingtest.Rule{
			"error": {Err: syscall.EIO},
			"torn":  {Err: syscall.EIO, Torn: 100},
			"short": {Short: 100},
		} {
			t.Run(fmt.Sprint(name, delay), func(t *testing.T) {
				h := newStopped(t, scsi.OnErrorStop)
				r.Kinds, r.Count, r.Delay = backingtest.KindSet(backing.Write), 2, delay
				h.f.Inject(r)
				w := h.a.Start(scsi.Simple, write(1), block(0x11), 0)
				s := h.waitHeld(1)
				if s.Err == nil || r.Err != nil && !errors.Is(s.Err, r.Err) || time.Since(s.Since) > time.Hour {
					t.Errorf("state %+v", s)
				}
				rd := h.b.Start(scsi.Simple, read(1), nil, 512)
				or := h.a.Start(scsi.Ordered, read(1), nil, 512)
				h.waitHeld(3)
				h.a.None(10 * time.Millisecond)
				h.b.None(0)
				h.a.noUA() // TEST UNIT READY runs
				if e := h.b.Do([]byte{0x12, 0, 0, 0, 96, 0}, nil, 96); e.Status != scsi.StatusGood {
					t.Fatalf("INQUIRY: %v", e.Status)
				}
				h.published()
				st := h.Unit.Stats()
				if st.Held != 3 || st.InFlight != 1 || st.Waiting != 2 {
					t.Errorf("%d held, %d in flight, %d waiting", st.Held, st.InFlight, st.Waiting)
				}
				if st := h.a.Nexus.Stats(); st.Held != 2 {
					t.Errorf("%d of one nexus held", st.Held)
				}
				h.resume()
				// It fails once more and stops the unit again. The other nexus's
				// READ was let go with it.
				if e := h.b.Ended(); e != rd || e.Status != scsi.StatusGood {
					t.Fatal(e.Status)
				}
				h.waitHeld(2)
				h.a.None(5 * time.Millisecond)
				h.resume()
				for range 2 {
					if e := h.a.Ended(); e != w && e != or || e.Status != scsi.StatusGood {
						t.Fatalf("task %d: %v", e.Tag, e.Status)
					}
				}
				// The ORDERED one was behind the WRITE.
				if !bytes.Equal(or.DataIn[0], block(0x11)) {
					t.Error("the held WRITE was not repeated as a whole")
				}
				h.waitHeld(0)
				if s := h.sawStates(4); !s[0].Stopped || s[1].Stopped || !s[2].Stopped || s[3].Stopped {
					t.Errorf("OnState heard of %+v", s)
				}
				h.published()
				if st := h.Unit.Stats(); st.Held != 0 || st.InFlight != 0 || st.Waiting != 0 || st.Errors != [16]uint64{scsi.UnitAttention: 2} {
					t.Errorf("%+v", st)
				}
			})
		}
	}
}

// TestStopPolicy: which errors stop a unit, and that the policy changes live.
func TestStopPolicy(t *testing.T) {
	h := newStopped(t, scsi.OnErrorReport)
	for _, c := range []struct {
		o   scsi.OnError
		err error
		key scsi.SenseKey
		asc scsi.ASC // 0: held
	}{
		{scsi.OnErrorReport, syscall.EIO, scsi.MediumError, scsi.ASCWriteError},
		{scsi.OnErrorReport, syscall.ENOSPC, scsi.DataProtect, scsi.ASCSpaceAllocationFailed},
		{scsi.OnErrorStopNoSpace, syscall.EIO, scsi.MediumError, scsi.ASCWriteError},
		{scsi.OnErrorStopNoSpace, syscall.ENOSPC, 0, 0},
		{scsi.OnErrorStopNoSpace, fmt.Errorf("write: %w", syscall.EDQUOT), 0, 0},
		{scsi.OnErrorStop, syscall.ENOSPC, 0, 0},
		{scsi.OnErrorStop, syscall.EROFS, 0, 0},
		{scsi.OnErrorStop, backing.ErrReadOnly, scsi.DataProtect, scsi.ASCWriteProtected},
		{scsi.OnErrorStop, backing.ErrRange, scsi.IllegalRequest, scsi.ASCLBAOutOfRange},
		{scsi.OnErrorStop, syscall.ENOMEM, scsi.AbortedCommand, scsi.ASCInsufficientResources},
	} {
		h.Unit.SetOnError(c.o)
		h.f.Clear()
		h.f.Inject(backingtest.Rule{Err: c.err, Count: 1})
		w := h.a.Start(scsi.Simple, write(1), block(1), 0)
		if c.asc == 0 {
			h.waitHeld(1)
			// Another policy is for errors to come.
			h.Unit.SetOnError(scsi.OnErrorReport)
			h.a.None(2 * time.Millisecond)
			h.resume()
		}
		e := h.a.Ended()
		k, a := SenseOf(e)
		if e != w || k != c.key || a != c.asc {
			t.Errorf("%v, %v: %v %x %v", c.o, c.err, e.Status, k, a)
		}
		h.waitHeld(0)
	}
	for _, s := range []string{"report", "stop", "enospc-stop", ""} {
		if o, err := scsi.ParseOnError(s); err != nil || s != "" && o.String() != s {
			t.Errorf("%q: %v, %v", s, o, err)
		}
	}
	if _, err := scsi.ParseOnError("ignore"); err == nil {
		t.Error("no error")
	}
}

// TestStopEnds: everything that ends tasks ends held ones.
func TestStopEnds(t *testing.T) {
	manage := func(f scsi.TMFunc) func(h *stopped) {
		return func(h *stopped) {
			if r := h.a.Manage(f, 0, 0); r != scsi.TMComplete {
				h.TB.Fatal(f, r)
			}
		}
	}
	for name, c := range map[string]struct {
		end  func(h *stopped)
		gone bool // ends with LOGICAL UNIT NOT SUPPORTED
		both bool // the other nexus's tasks too
	}{
		"ABORT TASK SET": {end: manage(scsi.AbortTaskSet)},
		"CLEAR TASK SET": {end: manage(scsi.ClearTaskSet), both: true},
		"LUN RESET":      {end: manage(scsi.LUNReset), both: true},
		"WARM RESET":     {end: manage(scsi.TargetWarmReset), both: true},
		"NEXUS RESET":    {end: manage(scsi.NexusReset)},
		"ABORT TASK": {end: func(h *stopped) {
			for tag := h.a.tag - 1; tag <= h.a.tag; tag++ {
				if r := h.a.Manage(scsi.AbortTask, tag, 0); r != scsi.TMComplete {
					h.TB.Fatal(r)
				}
			}
		}},
		"Nexus.Close": {end: func(h *stopped) { h.Wait("Nexus.Close", func(d func(int)) { h.a.Nexus.Close(0, d) }) }},
		"Lane.Close":  {end: func(h *stopped) { h.Wait("Lane.Close", h.a.Lane.Close) }},
		"Unmap": {gone: true, both: true, end: func(h *stopped) {
			h.Wait("Unmap", func(d func(int)) {
				if err := h.tg.Unmap(0, 0, d); err != nil {
					h.TB.Fatal(err)
				}
			})
		}},
		"Remap": {gone: true, end: func(h *stopped) {
			h.Wait("Remap", func(d func(int)) {
				if err := h.tg.Remap(0, scsi.MapOptions{Visible: only("b")}, 0, d); err != nil {
					h.TB.Fatal(err)
				}
			})
		}},
		"Unit.Close": {gone: true, both: true, end: func(h *stopped) {
			h.Wait("Unit.Close", func(d func(int)) { h.Unit.Close(0, d) })
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newStopped(t, scsi.OnErrorStop)
			h.f.Inject(backingtest.Rule{Err: syscall.EIO, Kinds: backingtest.KindSet(backing.Write)})
			h.a.Start(scsi.Simple, write(1), block(1), 0)
			h.waitHeld(1)
			h.a.Start(scsi.Simple, write(2), block(2), 0)
			h.b.Start(scsi.Simple, write(3), block(3), 0)
			h.waitHeld(3)
			c.end(h)
			ended := func(i *Initiator) {
				t.Helper()
				e := i.Ended()
				if _, a := SenseOf(e); c.gone && a != scsi.ASCLUNNotSupported || !c.gone && !e.Aborted {
					t.Fatalf("%v, sense %v, aborted %v", e.Status, a, e.Aborted)
				}
			}
			ended(h.a)
			ended(h.a)
			if c.both {
				ended(h.b)
				if s := h.Unit.State(); !s.Stopped || s.Held != 0 {
					t.Errorf("state %+v", s)
				}
				h.resume()
				return
			}
			h.waitHeld(1)
			h.f.Clear()
			h.resume()
			if e := h.b.Ended(); e.Status != scsi.StatusGood || e.Aborted {
				t.Fatal(e.Status, e.Aborted)
			}
		})
	}
}

// TestStopInFlight: what is in the store when the unit stops ends as it ends, and a
// command of several steps is held at the one that failed.
func TestStopInFlight(t *testing.T) {
	h := newStopped(t, scsi.OnErrorStop)
	h.f.Inject(backingtest.Rule{Kinds: backingtest.KindSet(backing.Read), Off: 9 * 512, Len: 512, Hold: true, Count: 1})
	rd := h.b.Start(scsi.Simple, read(9), nil, 512)
	if !h.f.WaitHeld(1) {
		t.Fatal("not in the store")
	}
	h.f.Inject(backingtest.Rule{Kinds: backingtest.KindSet(backing.Write), Err: syscall.EIO, Count: 1})
	cw := h.a.Start(scsi.Simple, CompareAndWrite(4, 1), append(block(0), block(7)...), 0)
	h.waitHeld(1)
	h.f.Release(-1)
	if e := h.b.Ended(); e != rd || e.Status != scsi.StatusGood {
		t.Fatal(e.Status)
	}
	over := h.b.Start(scsi.Simple, read(4), nil, 512)
	h.waitHeld(2)
	if n := h.f.Count(backing.Read); n != 2 {
		t.Errorf("%d reads", n)
	}
	h.resume()
	if e := h.a.Ended(); e != cw || e.Status != scsi.StatusGood {
		t.Fatal(e.Status)
	}
	if e := h.b.Ended(); e != over || !bytes.Equal(over.DataIn[0], block(7)) {
		t.Fatalf("%v, % x", e.Status, over.DataIn[0][:4])
	}
	if n := h.f.Count(backing.Read); n != 3 {
		t.Errorf("%d reads: the comparison was repeated", n)
	}
}

// TestStopLatch: Resume waits for the store's Reopen; a Sync, and an FUA write that
// latched, are not repeated, other writes are.
func TestStopLatch(t *testing.T) {
	h := newStopped(t, scsi.OnErrorStop)
	h.latch.latched.Store(true)
	h.f.Inject(backingtest.Rule{Kinds: backingtest.KindSet(backing.Sync), Err: syscall.EIO, Count: 1, Delay: 20 * time.Millisecond})
	h.f.Inject(backingtest.Rule{Kinds: backingtest.KindSet(backing.Write), Err: backing.ErrLatched, Count: 2, Delay: 20 * time.Millisecond})
	fua := write(2)
	fua[1] = 8
	sy := h.a.Start(scsi.Simple, CDB10(0x35, 0, 0), nil, 0)
	w1 := h.a.Start(scsi.Simple, write(1), block(1), 0)
	w2 := h.a.Start(scsi.Simple, fua, block(2), 0)
	h.waitHeld(3)
	err := h.Unit.Resume()
	if !errors.Is(err, backing.ErrLatched) {
		t.Fatalf("Resume of a latched store: %v", err)
	}
	t.Log(err)
	h.waitHeld(3)
	if err := h.Unit.Store().Reopen(); err != nil {
		t.Fatal(err)
	}
	h.resume()
	for range 3 {
		e := h.a.Ended()
		k, a := SenseOf(e)
		if e == w1 && e.Status != scsi.StatusGood || (e == sy || e == w2) && (k != scsi.MediumError || a != scsi.ASCWriteError) {
			t.Errorf("CDB % x: %v %x %v", e.CDB[:10], e.Status, k, a)
		}
	}
	if e := h.a.Do(CDB10(0x35, 0, 0), nil, 0); e.Status != scsi.StatusGood {
		t.Error(e.Status)
	}
	h.waitHeld(0)
}
