package loop

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestSpinnerAdapts(t *testing.T) {
	s := spinner{max: 20_000}
	for range 10 {
		s.slept(15_000)
	}
	if s.now != s.max {
		t.Errorf("%d ns after short sleeps, want %d", s.now, s.max)
	}
	for range 6 {
		s.slept(1e9)
	}
	if s.now != 0 {
		t.Errorf("%d ns after long sleeps, want 0", s.now)
	}
	off := spinner{max: -1}
	off.slept(1)
	if off.now != 0 {
		t.Error("spins though that is off")
	}
}

func TestSpinToken(t *testing.T) {
	for _, x := range []struct{ procs, limit int }{{1, 0}, {2, 0}, {3, 2}, {4, 3}} {
		func() {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(x.procs))
			var k spinToken
			k.refresh(1)
			n := 0
			for k.acquire() {
				n++
			}
			if n != x.limit {
				t.Errorf("GOMAXPROCS %d: %d may spin, want %d", x.procs, n, x.limit)
			}
			if n > 0 {
				k.release()
				if !k.acquire() {
					t.Error("a released token cannot be had")
				}
				c := k.calls.Load()
				k.call()
				if k.calls.Load() == c {
					t.Error("call is not heard")
				}
			}
		}()
	}
	// Never more than the limit, and none lost.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	var k spinToken
	k.refresh(1)
	var now, most atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20000 {
				if !k.acquire() {
					continue
				}
				for n, m := now.Add(1), most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				now.Add(-1)
				k.release()
			}
		})
	}
	wg.Wait()
	if most.Load() > 3 || k.spinning.Load() != 0 {
		t.Errorf("%d at once, %d at the end", most.Load(), k.spinning.Load())
	}
}

// Events that come far apart make no loop spin.
func TestNoSpinForRareEvents(t *testing.T) {
	g := group(t, Config{Loops: 1})
	l := g.Loops()[0]
	n := new(Node)
	series := func() (spins uint64) {
		var base uint64
		for i := range 60 {
			ack := make(chan Stats, 1)
			n.Init(nodeFunc(func(*Node) { ack <- l.Stats() }))
			l.Post(n)
			s := within(t, ack, "post")
			if i == 10 {
				base = s.Spins // the first ones may have been close together
			}
			spins = s.Spins - base
			time.Sleep(2 * time.Millisecond)
		}
		return spins
	}
	// A loop that a busy machine kept from falling asleep in time finds that the
	// event came soon after: one series without that is enough.
	var spins uint64
	if !settles(func() bool { spins = series(); return spins <= 5 }) {
		t.Errorf("%d spins for 50 rare events", spins)
	}
}
