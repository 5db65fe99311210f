package vhost

import (
	"fmt"
	"sync"
	"time"

	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/vhost/vring"
)

// The virtqueues of a virtio-scsi device (VIRTIO 1.2 §5.6.2).
const (
	controlQueue = 0
	eventQueue   = 1
	requestQueue = 2 // the first one
)

// virtqueue is one ring of the device as the session drives it. Its methods are
// called by the session's goroutine, one at a time, and sleep until the ring's loop
// has done what they say. Not started, it costs this struct and nothing else.
type virtqueue struct {
	d     *device
	index int
	on    bool // enabled
	last  uint32

	mu    sync.Mutex // for info: r is written by the session's goroutine only
	r     *ring
	stuck int
}

// ringStart is what a ring is started with.
type ringStart struct {
	// Config is the ring's; EventIdx and Indirect are taken from Features. Its
	// Inflight lies in memory of a Map of device.memory, and is the virtqueue's
	// until stop has returned.
	vring.Config
	Features          uint64    // as negotiated (SET_FEATURES)
	Desc, Avail, Used uint64    // front-end addresses (SET_VRING_ADDR)
	Mem               *gmem.Map // the present generation
	// GoesOn: the ring ran before and was halted, unseen by its driver.
	GoesOn bool
	// Log is where writes are noted, nil: they are not; with LogUsed those to the
	// used ring, too, which is at guest physical address UsedAt.
	Log     *dirtyLog
	LogUsed bool
	UsedAt  uint64
	// Kick, Call and Err are eventfds, -1: none. They are the virtqueue's from now
	// on, also where start fails: it closes them and leaves their flags alone.
	Kick, Call, Err int
}

// newVirtqueue makes the virtqueue of that index, stopped and disabled.
func newVirtqueue(d *device, index int) *virtqueue { return &virtqueue{d: d, index: index} }

// start starts the ring. Requests found in flight in its Inflight are taken up again
// in the order in which they came; then, if it is enabled, the ring is looked at once
// without a kick. A ring that runs is an error.
func (v *virtqueue) start(s ringStart) error {
	err := v.begin(&s)
	if err != nil {
		closeFD(&s.Kick)
		closeFD(&s.Call)
		closeFD(&s.Err)
		return fmt.Errorf("virtqueue %d: %w", v.index, err)
	}
	return nil
}

func (v *virtqueue) begin(s *ringStart) error {
	if v.r != nil {
		return errRunning
	}
	if f := v.d.conf.points; f != nil {
		s.Points = func(p vring.Point) { f(v.index, p) }
	}
	r := &ring{d: v.d, index: v.index, loop: v.d.home}
	switch {
	case v.index == controlQueue:
		r.take = takeControl
	case v.index >= requestQueue:
		r.take = takeRequest
		r.loop = v.d.conf.Group.Pick()
	}
	err := errEnded
	r.loop.Do(func() {
		if err = r.open(s); err != nil {
			return
		}
		r.loop.AddLoad(1)
		if err := v.d.enter(r); err != nil {
			r.fail(err)
		}
		r.enable(v.on)
	})
	if err == nil {
		v.set(r)
	}
	return err
}

func (v *virtqueue) set(r *ring) {
	v.mu.Lock()
	v.r = r
	v.mu.Unlock()
}

// do runs f on the ring's loop, if there is a ring.
func (v *virtqueue) do(f func()) {
	if v.r != nil {
		v.r.loop.Do(f)
	}
}

// started tells whether the ring has been started and not stopped; it may have failed
// since.
func (v *virtqueue) started() bool { return v.r != nil }

// enable lets the ring take requests, or not (SET_VRING_ENABLE): an enabled ring is
// looked at once without a kick. It may be called before start.
func (v *virtqueue) enable(on bool) {
	v.on = on
	v.do(func() { v.r.enable(on) })
}

// stop ends the ring (GET_VRING_BASE): it takes no more requests, waits until those
// that it has are answered and published, and forgets memory and eventfds. base is the
// available index to go on from. stuck requests were still in the store at the deadline
// (0: the device's): the memory that they use has been cut off, so they land nowhere;
// err says that this is not safe (the kernel has its pages pinned for direct I/O) and
// that the device has failed for it. A ring that does not run answers with the base
// that it was stopped at.
func (v *virtqueue) stop(deadline time.Duration) (base uint32, stuck int, err error) {
	r := v.r
	if r == nil {
		return v.last, 0, nil
	}
	if deadline <= 0 {
		deadline = v.d.conf.Deadline
	}
	done := make(chan ringStop, 1)
	if !r.loop.Do(func() { r.stop(deadline, done) }) {
		return v.last, 0, errEnded
	}
	res := <-done
	v.d.leave(r)
	v.mu.Lock()
	v.r = nil
	v.stuck += res.stuck
	v.mu.Unlock()
	v.last = res.base
	if res.stuck == 0 {
		return res.base, 0, nil
	}
	for _, m := range res.maps {
		m.Cut()
	}
	v.d.conf.Log.Error("virtqueue stopped with requests in the store: their memory was cut off",
		"export", v.d.conf.Name, "queue", v.index, "stuck", res.stuck)
	if v.d.direct() {
		err = errPinned
		v.d.fail(err)
	}
	return res.base, res.stuck, err
}

// drain waits until t, after enable(false), for the end of the requests that the ring
// has; n are left.
func (v *virtqueue) drain(t time.Time) (n int) {
	for pause := 20 * time.Microsecond; ; pause = min(2*pause, time.Millisecond) {
		n = 0
		v.do(func() { n = v.r.flight })
		if n == 0 || time.Until(t) <= 0 {
			return n
		}
		time.Sleep(pause)
	}
}

// halt ends the ring after drain, and gives its eventfds back, so that it may start
// again where it was.
func (v *virtqueue) halt() (base uint32, kick, call int) {
	kick, call = -1, -1
	v.do(func() { v.r.keep = true })
	if r := v.r; r != nil {
		v.last, _, _ = v.stop(0)
		kick, call = r.kick, r.call
		r.kick, r.call = -1, -1
	}
	return v.last, kick, call
}

// eventfds are those of the ring, which keeps them.
func (v *virtqueue) eventfds() (kick, call int) {
	kick, call = -1, -1
	v.do(func() { kick, call = v.r.kick, v.r.call })
	return kick, call
}

// setKick, setCall and setErr replace an eventfd, which is the virtqueue's from now on;
// -1: none. The driver is told of what is published, and the ring looked at, once
// after the change, since what was signalled on the old one is lost. Without a ring
// that runs the descriptor is closed: start brings its own.
func (v *virtqueue) setKick(fd int) { v.setFD(fd, (*ring).setKick) }
func (v *virtqueue) setCall(fd int) { v.setFD(fd, (*ring).setCall) }
func (v *virtqueue) setErr(fd int)  { v.setFD(fd, (*ring).setErr) }

func (v *virtqueue) setFD(fd int, f func(*ring, int)) {
	r := v.r
	if r == nil || !r.loop.Do(func() { f(r, fd) }) {
		closeFD(&fd)
	}
}

// remap moves the ring to another generation while it runs (SET_MEM_TABLE,
// ADD_MEM_REG, REM_MEM_REG): requests from now on use that one. The old one, which the
// caller retires, is held until the last request that uses it has ended. On an error
// the ring has failed. A ring that does not run needs none.
func (v *virtqueue) remap(m *gmem.Map) (err error) {
	v.do(func() { err = v.r.remap(m, v.r.parts) })
	return err
}

// setAddr moves the ring's three areas while it runs (SET_VRING_ADDR of a running
// ring), otherwise as remap.
func (v *virtqueue) setAddr(desc, avail, used uint64) (err error) {
	v.do(func() { err = v.r.remap(v.r.mem, [3]uint64{desc, avail, used}) })
	return err
}

// base is the available index of the next entry, and for a stopped ring what stop said.
func (v *virtqueue) base() (n uint32) {
	n = v.last
	v.do(func() { n = v.r.vr.Base() })
	return n
}

// queueInfo is a virtqueue's state for people.
type queueInfo struct {
	Index            int
	Started, Enabled bool
	Size             int
	InFlight         int    // requests with the core or the store
	Stuck            int    // of earlier runs: what deadlines have passed by, in all
	Err              error  // what the ring failed of
	Kicks, Calls     uint64 // notifications taken and given, since the start
	Requests         uint64 // taken from the ring
	Rounds           uint64 // batches
	BadTarget        uint64 // requests for targets that are not there
}

// info reads the state. Any goroutine.
func (v *virtqueue) info() queueInfo {
	v.mu.Lock()
	defer v.mu.Unlock()
	i := queueInfo{Index: v.index, Stuck: v.stuck}
	r := v.r
	if r == nil {
		return i
	}
	st := r.state.Load()
	n := func(c int) uint64 { return r.shown[c].Load() }
	i.Started, i.Enabled, i.Err, i.Size = true, st.enabled, st.err, r.vr.Size()
	i.InFlight = int(n(cFlight))
	i.Kicks, i.Calls, i.Requests, i.Rounds, i.BadTarget = n(cKicks), n(cCalls), n(cRequests), n(cRounds), n(cBadTarget)
	return i
}

// close stops the ring without waiting longer than the deadline and lets go of
// everything; the virtqueue is not used again. It returns what is stuck, as stop does.
func (v *virtqueue) close(deadline time.Duration) (stuck int) {
	_, stuck, _ = v.stop(deadline)
	return stuck
}
