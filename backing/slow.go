package backing

import (
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/internal/sys"
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

// begin says in ok whether the loop may make a call now.
func (c *callWatch) begin(s *fileStore) watchedCall {
	w := watchedCall{t: s.now(), switches: -1}
	if w.t < c.slowUntil.Load() {
		return w
	}
	w.ok = true
	if w.t < c.suspectUntil.Load() {
		w.switches = sys.VoluntarySwitches()
	}
	return w
}

// end notes how the call went.
func (c *callWatch) end(s *fileStore, w watchedCall) {
	now := s.now()
	if now-w.t <= int64(slowCall) {
		return
	}
	c.suspectUntil.Store(now + int64(suspectFor))
	if w.switches >= 0 && sys.VoluntarySwitches() != w.switches {
		d := int64(slowMin)
		if last := c.slowFor.Load(); now < c.slowUntil.Load()+last {
			d = min(2*last, int64(slowMax))
		}
		c.slowFor.Store(d)
		c.slowUntil.Store(now + d)
	}
}
