package loop

import (
	"runtime"
	"sync/atomic"
)

// spinToken limits how many loops of a group spin at the same time, because each
// spinner holds one of the scheduler's processors.
type spinToken struct {
	_        [64]byte
	spinning atomic.Int32
	// calls changes when some sleeper needs a processor: spinners leave.
	calls atomic.Uint32
	_     [56]byte
	limit atomic.Int32
	// checked is when limit was last computed (ns of the group's clock).
	checked atomic.Int64
}

// refresh brings limit up to date with GOMAXPROCS, which may change; once a second.
func (k *spinToken) refresh(now int64) {
	at := k.checked.Load()
	if at != 0 && now-at < 1e9 || !k.checked.CompareAndSwap(at, max(now, 1)) {
		return
	}
	n := runtime.GOMAXPROCS(0)
	if n <= 2 {
		n = 1
	}
	k.limit.Store(int32(n - 1))
}

func (k *spinToken) acquire() bool {
	limit := k.limit.Load()
	if limit == 0 || k.spinning.Load() >= limit {
		return false
	}
	if k.spinning.Add(1) > limit {
		k.spinning.Add(-1)
		return false
	}
	return true
}

func (k *spinToken) release() { k.spinning.Add(-1) }

// call sends the spinners away: somebody who slept is about to run.
func (k *spinToken) call() {
	if k.spinning.Load() != 0 {
		k.calls.Add(1)
	}
}

// spinner decides how long one loop spins. It grows when a sleep turned out so
// short that spinning would have caught its end, and shrinks to nothing when
// sleeps are long, so that an idle loop does not spin at all.
type spinner struct {
	max, now int64 // ns
}

// slept learns from a sleep of d ns.
func (s *spinner) slept(d int64) {
	if s.max <= 0 {
		return
	}
	// Waking a thread takes some microseconds, hence twice.
	if d <= 2*s.max {
		s.now = min(max(2*s.now, s.max/4), s.max)
		return
	}
	s.now /= 2
	if s.now < s.max/16 {
		s.now = 0
	}
}
