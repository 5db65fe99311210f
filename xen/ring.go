package xen

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/xen/evtchn"
	"github.com/vtgt/vtgt/xen/gnttab"
	"github.com/vtgt/vtgt/xen/journal"
	"github.com/vtgt/vtgt/xen/vscsiif"
)

// maxSegments is the most data segments of a request that a front end is told of
// (feature-sg-grant): 2 MiB of whole pages. Linux takes 128 of them.
const maxSegments = 512

// holdTime is the time between two attempts to get a request into the core.
const holdTime = time.Millisecond

// lunMap says which LUN of the target the front end's devices are. It never changes.
type lunMap map[vscsiif.Address]uint16

// ringConfig is what a ring is made of. It owns Channel and Page from then on.
type ringConfig struct {
	Loop    *loop.Loop
	Port    *srp.Port
	Domain  uint32
	Channel evtchn.Channel
	Grants  gnttab.Table
	Page    *gnttab.View
	Ring    *vscsiif.Ring
	Journal *journal.Journal
	Lost    []journal.Lost // taken by a process before us
	LUNs    *atomic.Pointer[lunMap]
	// MapFrom is from how many bytes on data are mapped instead of copied, 0: never.
	MapFrom int64
	Events  func(scsi.Event) // on the loop; only enqueues
	Failed  func(error)      // the same
	Bad     func(n uint64)   // the same: so many requests were bad; n is a power of two
}

// ring is a front end's ring from its connection to its end. It belongs to its loop,
// which alone calls its methods; requests that a stop has left behind keep it.
type ring struct {
	ringConfig
	copyq, mapq *srp.Queue
	vr          *vscsiif.Ring
	jr          *journal.Journal

	source loop.Source
	flush  loop.Node
	again  loop.Node
	poller loop.PollNode
	retry  loop.Timer
	timer  loop.Timer

	req   vscsiif.Request // the one that is being looked at
	rsp   vscsiif.Response
	held  bool // the core did not take req: it is next
	segs  []gnttab.Segment
	table []byte // descriptors
	refs  []uint32
	batch gnttab.Batch
	views []*gnttab.View // that map nothing
	open  []*slot        // requests in flight
	seq   uint64

	stopping bool
	dead     bool // touch the front end's memory no more
	ended    bool
	failure  error
	done     func(stuck int)

	now   counts
	shown [nCounts]atomic.Uint64
}

// counts are a ring's counters.
type counts [nCounts]uint64

const (
	cEvents   = iota // notifications taken
	cNotifies        // notifications given
	cRequests
	cBad     // requests that are not made as they must be
	cUnknown // for devices that are not there
	cCopies  // grant copies
	cCalls   // of the grant table
	cMapped  // pages
	cLost    // taken by a process before us
	cGone    // that will never be answered
	cFlight
	nCounts
)

// newRing begins to serve a ring. On its loop.
func newRing(c ringConfig) (*ring, error) {
	r := &ring{ringConfig: c, vr: c.Ring, jr: c.Journal, table: make([]byte, maxSegments*vscsiif.SegmentLen)}
	var err error
	if r.copyq, err = c.Port.Queue(c.Loop, r, r); err != nil {
		return nil, err
	}
	if r.mapq, err = c.Port.Queue(c.Loop, (*mapCarrier)(r), nil); err != nil {
		r.copyq.Close(time.Nanosecond, func(int) {})
		return nil, err
	}
	r.flush.Init((*ringFlush)(r))
	r.again.Init((*ringAgain)(r))
	r.poller.Init((*ringPoll)(r))
	r.retry.Init((*ringRetry)(r))
	r.timer.Init((*ringTimer)(r))
	if err := c.Loop.Add(&r.source, c.Channel.FD(), loop.In, (*ringEvent)(r)); err != nil {
		r.copyq.Close(time.Nanosecond, func(int) {})
		r.mapq.Close(time.Nanosecond, func(int) {})
		return nil, err
	}
	c.Loop.AddLoad(1)
	r.reload(c.Lost)
	// Whoever was here before may have died between an answer and its notification.
	r.notify()
	r.look()
	return r, nil
}

// ringEvent is a ring as the handler of its event channel.
type ringEvent ring

func (h *ringEvent) Ready(*loop.Source, loop.Events) {
	r := (*ring)(h)
	if r.Channel.Take() {
		r.now[cEvents]++
	}
	r.look()
}

type ringAgain ring

func (h *ringAgain) Handle(*loop.Node) { (*ring)(h).look() }

type ringRetry ring

func (h *ringRetry) Expired(*loop.Timer) { (*ring)(h).look() }

// ringPoll is a ring whose front end was told that it need not notify.
type ringPoll ring

func (h *ringPoll) Poll() loop.Found {
	if (*ring)(h).poll((*vscsiif.Ring).More) {
		return loop.Posted
	}
	return loop.Nothing
}

func (h *ringPoll) Arm() bool { return (*ring)(h).poll((*vscsiif.Ring).EnableNotify) }

func (r *ring) ready() bool { return !r.stopping && !r.dead && r.failure == nil }

func (r *ring) poll(step func(*vscsiif.Ring) (bool, error)) bool {
	if !r.ready() || r.held {
		return false
	}
	more, err := step(r.vr)
	if !more && err == nil {
		return false
	}
	r.Loop.PostOnce(&r.again) // which meets the error again
	return true
}

// look serves what is in the ring, in one batch.
func (r *ring) look() {
	if !r.ready() {
		return
	}
	r.dirty()
	for n := 0; ; n++ {
		if n == vscsiif.Entries {
			r.Loop.PostOnce(&r.again)
			break
		}
		if !r.held {
			ok, err := r.vr.Pop(&r.req)
			if err != nil {
				r.fail(err)
				break
			}
			if !ok {
				r.Loop.Hot(&r.poller) // which asks for an event before the loop sleeps
				break
			}
			r.now[cRequests]++
		}
		r.held = false
		if !r.take() {
			r.held = true
			r.Loop.After(&r.retry, holdTime)
			break
		}
		if r.failure != nil {
			break
		}
	}
	r.copyq.Kick()
	r.mapq.Kick()
}

// dirty has answers shown, and counters, at the end of the round.
func (r *ring) dirty() {
	if !r.flush.Queued() {
		r.Loop.Defer(&r.flush)
	}
}

// push answers the request of journal entry e.
func (r *ring) push(e int) {
	if r.dead {
		return
	}
	r.jr.Answer(e)
	r.vr.Push(&r.rsp)
	r.dirty()
}

// ringFlush is a ring as the handler of its deferred node: the end of a round.
type ringFlush ring

func (h *ringFlush) Handle(*loop.Node) { (*ring)(h).flushNow() }

func (r *ring) flushNow() {
	if !r.dead {
		if r.vr.Publish() {
			r.notify()
		}
		r.jr.Shown()
	}
	r.now[cFlight] = uint64(len(r.open))
	for i, v := range r.now {
		r.shown[i].Store(v)
	}
	if r.stopping && !r.ended && len(r.open) == 0 {
		r.end()
	}
}

func (r *ring) notify() {
	r.now[cNotifies]++
	if err := r.Channel.Notify(); err != nil {
		r.fail(fmt.Errorf("notifying the front end: %w", err))
	}
}

// fail ends the ring's service: it takes nothing more. What it has taken is answered.
func (r *ring) fail(err error) {
	if r.failure != nil || r.ended {
		return
	}
	r.failure = err
	r.Loop.Remove(&r.source) // a front end that lies may also ring without end
	r.Failed(err)
	r.dirty()
}

// stop takes no more requests and calls done, on the loop, when those that there are
// were answered, or at the deadline with their number.
func (r *ring) stop(deadline time.Duration, done func(stuck int)) {
	r.stopping, r.done = true, done
	r.Loop.Remove(&r.source)
	r.Loop.Cold(&r.poller)
	r.Loop.Stop(&r.retry)
	// A held request was never noted as taken: it stays the ring's.
	r.Loop.After(&r.timer, deadline)
	r.flushNow()
}

// hasten gives a stop that is under way another deadline.
func (r *ring) hasten(deadline time.Duration) {
	if !r.ended {
		r.Loop.After(&r.timer, deadline)
	}
}

type ringTimer ring

func (h *ringTimer) Expired(*loop.Timer) {
	r := (*ring)(h)
	r.flushNow()
	if !r.ended {
		r.end()
	}
}

// end gives the ring back. What is in flight still does not touch the front end's
// memory any more, but for pages that are mapped: those stay until the store lets go.
func (r *ring) end() {
	r.ended, r.dead = true, true
	r.Loop.Stop(&r.timer)
	_ = r.Channel.Close()
	_ = r.Grants.Unmap(r.Page)
	_ = r.Page.Free()
	for _, v := range r.views {
		_ = v.Free()
	}
	r.views = nil
	r.copyq.Close(time.Nanosecond, func(int) {})
	r.mapq.Close(time.Nanosecond, func(int) {})
	r.Loop.AddLoad(-1)
	r.done(len(r.open))
}

// release ends the life of s.
func (r *ring) release(s *slot) {
	i := slices.Index(r.open, s)
	last := len(r.open) - 1
	r.open[i] = r.open[last]
	r.open[last] = nil
	r.open = r.open[:last]
	clear(s.vec)
	s.ring, s.gone = nil, false
	s.r.Queue().Put(s.r)
	r.dirty()
}

// mapCarrier is a ring as the carrier of its queue for mapped data.
type mapCarrier ring

func (h *mapCarrier) Respond(r *srp.Request) { (*ring)(h).Respond(r) }

// Event: the other queue has told.
func (h *mapCarrier) Event(scsi.Event) {}

// Event is srp's.
func (r *ring) Event(e scsi.Event) { r.Events(e) }
