package backing

import (
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/sys"
)

// watched drives a callWatch by a clock and a count of switches of its own.
type watched struct {
	c        callWatch
	now      time.Duration
	switches int64
}

func (w *watched) count() int64 { return w.switches }

// call makes a call that takes d and sleeps or not; it tells whether the loop was
// allowed to make it.
func (w *watched) call(d time.Duration, sleeps bool) bool {
	m := w.c.begin(int64(w.now), w.count)
	if !m.ok {
		return false
	}
	w.now += d
	if sleeps {
		w.switches++
	}
	w.c.end(m, int64(w.now), w.count)
	return true
}

// away is how long the loop makes no call from now on.
func (w *watched) away() time.Duration {
	return max(0, time.Duration(w.c.slowUntil.Load())-w.now)
}

// TestSlowCallsLeaveTheLoop: inline calls that slept send the next ones to the
// workers; one that was only preempted does not.
func TestSlowCallsLeaveTheLoop(t *testing.T) {
	const long = slowCall + 1
	var w watched
	want := func(what string, d time.Duration) {
		t.Helper()
		if got := w.away(); got != d {
			t.Errorf("%s: workers for %v, want %v", what, got, d)
		}
	}
	w.call(slowCall, true)
	w.call(slowCall, true)
	want("calls that slept, but not for long", 0)
	w.call(long, true)
	want("the first slow call makes suspect", 0)
	w.call(long, false)
	want("a call that only took long", 0)
	w.call(slowCall, true)
	want("a short one of a suspect", 0)
	w.call(long, true)
	want("a slow call of a suspect", slowMin)
	for d := slowMin; d < slowMax; d = min(2*d, slowMax) {
		w.now += d - 1
		if w.call(0, false) {
			t.Errorf("%v after a slow call the loop may make one", d-1)
		}
		if w.now++; !w.call(long, true) {
			t.Errorf("%v after a slow call the loop may make none", d)
		}
		want("again, at once", min(2*d, slowMax))
	}
	// All was well for as long as the workers had it: back to the least.
	w.now += 2 * slowMax
	w.call(long, true)
	want("after a good time", slowMin)
	// No longer a suspect: the first one is free again.
	w.now += 2 * suspectFor
	w.call(long, true)
	want("the first slow call after a long time", 0)
}

// TestSlowStoreUsesWorkers: the queue asks the watch, and a real sleep counts.
func TestSlowStoreUsesWorkers(t *testing.T) {
	_, s, q := testStore(t, t.TempDir(), Writeback)
	inline := func() bool {
		w := &Op{Kind: Write, Len: 512, Bufs: [][]byte{make([]byte, 512)}}
		end := make(endChan, 1)
		w.Owner = end
		done := false
		q.l.Do(func() { done = q.Submit(w) })
		if !done {
			<-end
		}
		return done
	}
	s.writeInline = inlinePlain // whatever the file system of the test's folder is
	s.watch.slowUntil.Store(s.now() + int64(24*time.Hour))
	if inline() {
		t.Error("a write ended inline while calls were slow")
	}
	s.watch.slowUntil.Store(0)
	if !inline() {
		t.Error("a write went to a worker though the time was over")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	n, ts := sys.VoluntarySwitches(), syscall.Timespec{Nsec: 1e6}
	for syscall.Nanosleep(&ts, nil) == syscall.EINTR {
	}
	if sys.VoluntarySwitches() == n {
		t.Error("a sleep was not counted")
	}
}
