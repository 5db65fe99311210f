package vhost

import (
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
}

// ringStart is what a ring is started with.
type ringStart struct {
	// Config is the ring's. Its Inflight is the virtqueue's until stop has returned
	// with nothing stuck; where something is, the region stays mapped for good.
	vring.Config
	Features          uint64    // as negotiated (SET_FEATURES)
	Desc, Avail, Used uint64    // front-end addresses (SET_VRING_ADDR)
	Mem               *gmem.Map // the present generation
	// Kick, Call and Err are eventfds, -1: none. They are the virtqueue's from now
	// on, also where start fails: it closes them and leaves their flags alone.
	Kick, Call, Err int
}

// newVirtqueue makes the virtqueue of that index, stopped and disabled.
func newVirtqueue(d *device, index int) *virtqueue { return &virtqueue{d: d, index: index} }

// start starts the ring. Requests found in flight in its Inflight are taken up again
// in the order in which they came; then, if it is enabled, the ring is looked at once
// without a kick. A ring that runs is an error.
func (v *virtqueue) start(s ringStart) error { return nil }

// started tells whether the ring has been started and not stopped; it may have failed
// since.
func (v *virtqueue) started() bool { return false }

// enable lets the ring take requests, or not (SET_VRING_ENABLE): an enabled ring is
// looked at once without a kick. It may be called before start.
func (v *virtqueue) enable(on bool) {}

// stop ends the ring (GET_VRING_BASE): it takes no more requests, waits until those
// that it has are answered and published, and forgets memory and eventfds. base is the
// available index to go on from. stuck requests were still in the store at the deadline
// (0: the device's): the memory that they use has been cut off, so they land nowhere;
// err says that this is not safe (the kernel has its pages pinned for direct I/O) and
// that the device has failed for it. A ring that does not run answers with the base
// that it was stopped at.
func (v *virtqueue) stop(deadline time.Duration) (base uint16, stuck int, err error) {
	return 0, 0, nil
}

// setKick, setCall and setErr replace an eventfd, which is the virtqueue's from now on;
// -1: none. The driver is told of what is published, and the ring looked at, once
// after the change, since what was signalled on the old one is lost.
func (v *virtqueue) setKick(fd int) {}
func (v *virtqueue) setCall(fd int) {}
func (v *virtqueue) setErr(fd int)  {}

// remap moves the ring to another generation while it runs (SET_MEM_TABLE,
// ADD_MEM_REG, REM_MEM_REG): requests from now on use that one. The old one, which the
// caller retires, is held until the last request that uses it has ended. On an error
// the ring has failed. A ring that does not run needs none.
func (v *virtqueue) remap(m *gmem.Map) error { return nil }

// setAddr moves the ring's three areas while it runs (SET_VRING_ADDR of a running
// ring), otherwise as remap.
func (v *virtqueue) setAddr(desc, avail, used uint64) error { return nil }

// base is the available index of the next entry, and for a stopped ring what stop said.
func (v *virtqueue) base() uint16 { return 0 }

// queueInfo is a virtqueue's state for people.
type queueInfo struct {
	Index            int
	Started, Enabled bool
	Size             int
	InFlight         int    // requests with the core or the store
	Stuck            int    // of earlier runs, that a deadline has passed by
	Err              error  // what the ring failed of
	Kicks, Calls     uint64 // notifications read and written
	Requests         uint64 // taken from the ring
	Rounds           uint64 // batches
	BadTarget        uint64 // requests for targets that are not there
}

// info reads the state. Any goroutine.
func (v *virtqueue) info() queueInfo { return queueInfo{Index: v.index} }

// close stops the ring without waiting longer than the deadline and lets go of
// everything; the virtqueue is not used again. It returns what is stuck, as stop does.
func (v *virtqueue) close(deadline time.Duration) (stuck int) { return 0 }
