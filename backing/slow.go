package backing

import (
	"sync/atomic"
	"time"
)

const (
	// slowCall is how long one inline call may take.
	slowCall = 200 * time.Microsecond
	// slowMin and slowMax bound how long workers do a store's calls after one
	// slept that long. It doubles when the first calls after it sleep again.
	slowMin = 50 * time.Millisecond
	slowMax = time.Second
	// suspectFor is how long calls are watched closely after a slow one.
	suspectFor = 10 * time.Second
)

// callWatch decides whether a loop may make a store's buffered calls itself. A
// call that took long has either slept in the kernel (write-back, throttling, a
// lock), and then the next ones would, too; or the machine was busy and the
// thread was preempted, which a worker's would be as well. The count of the
// thread's voluntary context switches tells, but costs 0.1 us a look: so the
// first slow call only makes the store suspect, and calls of a suspect are
// counted. Coming back to Go from a call can be such a switch, too, when all of
// the program's processors are taken, so one that slept costs little at first.
type callWatch struct {
	slowUntil    atomic.Int64 // ns since the store's t0
	suspectUntil atomic.Int64
	slowFor      atomic.Int64 // ns, the last time
}

type watchedCall struct {
	ok       bool
	t        int64
	switches int64
}

// begin says in ok whether the loop may make a call now, which is in ns since the
// store's t0. count gives the thread's voluntary switches.
func (c *callWatch) begin(now int64, count func() int64) watchedCall {
	w := watchedCall{t: now, switches: -1}
	if now < c.slowUntil.Load() {
		return w
	}
	w.ok = true
	if now < c.suspectUntil.Load() {
		w.switches = count()
	}
	return w
}

// end notes how the call went.
func (c *callWatch) end(w watchedCall, now int64, count func() int64) {
	if now-w.t <= int64(slowCall) {
		return
	}
	c.suspectUntil.Store(now + int64(suspectFor))
	if w.switches >= 0 && count() != w.switches {
		d := int64(slowMin)
		if last := c.slowFor.Load(); now < c.slowUntil.Load()+last {
			d = min(2*last, int64(slowMax))
		}
		c.slowFor.Store(d)
		c.slowUntil.Store(now + d)
	}
}
