package vhost

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/vhost/virtioscsi"
	"github.com/vtgt/vtgt/vhost/vring"
)

// batch bounds what one ring takes in one round: with cached reads of 1.4 us that is
// 90 us in which nobody else on the loop is served.
const batch = 64

// ring is a virtqueue from its start to its stop. It belongs to its loop, which alone
// calls its methods and touches its fields; requests that a stop has left behind keep
// it.
//
// What the guest may take away at any moment, memory, is touched by the steps that
// gmem.Guard calls, and by nothing else: the core's calls (Respond, Event) only queue.
type ring struct {
	d     *device
	index int
	loop  *loop.Loop
	// take serves the chain in scratch: the request and the control queue. The
	// event queue has none.
	take func(*ring)

	vr      *vring.Ring
	mem     *gmem.Map
	parts   [3]uint64 // front-end addresses
	pin     *gmem.Pin
	olds    []*gmem.Pin // of earlier generations, with requests
	limit   int
	flight  int // slots
	scratch *vring.Chain
	req     virtioscsi.Req
	resp    virtioscsi.Resp
	more    bool // there is something to take: the answer of serveStep and armStep
	replay  bool // the chain in scratch was found in flight
	reHead  uint16
	held    bool         // the core did not take the chain in scratch: it is next
	serving bool         // in serveStep, which publishes by itself
	staged  *srp.Request // taken, to be submitted: see ahead.go
	full    bool         // it had as many as it may: look again when some have ended

	log     *dirtyLog // nil: writes are not noted
	logUsed bool      // the used ring's are, too
	usedAt  uint64    // its guest physical address

	kick, call, errfd int
	source            loop.Source
	features          uint64

	goesOn   bool // it ran before, and its driver knows of no stop
	keep     bool // stop leaves the eventfds open
	virgin   bool // its driver had given nothing when it started
	found    bool // the record says that the driver has been served before
	enabled  bool
	stopping bool  // Pop no more
	closed   bool  // stop has answered
	dead     bool  // touch memory no more
	failure  error // the ring has failed

	done, last *slot // responded to, not yet in the used ring
	sent       *slot // in the used ring, to be released
	flush      loop.Node
	again      loop.Node
	polling    loop.PollNode
	queues     []*srp.Queue // by target, made when first used
	kicks      []*srp.Queue // that got requests in this round
	batchFor   *target      // the target that the last one was for, nil: none since pass
	batchTo    *srp.Queue   // and its queue

	retry   loop.Timer
	timer   loop.Timer
	stopped chan<- ringStop

	now   ringCounts
	shown [nCounts]atomic.Uint64 // now, as of the last round
	state atomic.Pointer[ringState]
}

// ringCounts are counters of a ring.
type ringCounts [nCounts]uint64

// The counters.
const (
	cKicks = iota
	cCalls
	cRequests
	cRounds
	cBadTarget
	cFlight
	nCounts
)

// ringState is what changes seldom, for info.
type ringState struct {
	err     error
	enabled bool
}

// ringStop is how a stop ended.
type ringStop struct {
	base  uint32
	stuck int
	maps  []*gmem.Map // that stuck requests use
}

var (
	errRunning = errors.New("the ring runs already")
	// 2^64-2 notifications that nobody has read: nobody's but the front end's doing, so
	// that whoever signals waits for it.
	errCallFull = errors.New("its call eventfd is full")
	errEnded    = errors.New("its loop has ended")
)

// open starts the ring. The descriptors are its own if it succeeds.
func (r *ring) open(s *ringStart) error {
	r.kick, r.call, r.errfd = -1, -1, -1
	r.features = s.Features
	r.goesOn = s.GoesOn
	r.mem = s.Mem
	r.parts = [3]uint64{s.Desc, s.Avail, s.Used}
	r.scratch = &vring.Chain{}
	r.flush.Init((*ringFlush)(r))
	r.again.Init((*ringAgain)(r))
	r.polling.Init((*ringPoll)(r))
	r.timer.Init((*ringTimer)(r))
	r.retry.Init((*ringRetry)(r))
	s.Config.EventIdx = virtioscsi.Has(s.Features, virtioscsi.FeatureEventIdx)
	s.Config.Packed = virtioscsi.Has(s.Features, virtioscsi.FeatureRingPacked)
	s.Config.Indirect = virtioscsi.Has(s.Features, virtioscsi.FeatureIndirectDesc)
	if r.pin = s.Mem.Pin(); r.pin == nil {
		return errors.New("its generation of memory was retired")
	}
	var err error
	fault := gmem.Guard(r.d.space, func(r *ring) {
		var p vring.Parts
		if p, err = userParts(s.Mem, s.Packed, s.Size, r.parts); err == nil {
			r.vr, err = vring.New(s.Config, s.Mem, p)
		}
		r.virgin = err == nil && r.vr.Fresh() && !r.vr.More()
	}, r)
	if err = errors.Join(fault, err); err != nil {
		r.pin.Leave()
		return err
	}
	r.limit = min(maxFlight, r.vr.Size())
	r.setLog(s.Log, s.LogUsed, s.UsedAt)
	if s.Kick >= 0 {
		if err := r.loop.Add(&r.source, s.Kick, loop.In|loop.Edge, (*ringKick)(r)); err != nil {
			r.pin.Leave()
			return err
		}
	}
	r.kick, r.call, r.errfd = s.Kick, s.Call, s.Err
	r.publishState()
	if s.Inflight != nil {
		r.found = s.Inflight.Found()
		r.reload(s.Inflight.Heads())
	}
	if r.index == eventQueue {
		r.d.events.start(r)
	}
	return nil
}

// userParts finds the areas of a ring of either kind at the front end's addresses.
func userParts(m *gmem.Map, packed bool, size int, at [3]uint64) (vring.Parts, error) {
	if packed {
		return vring.UserPacked(m, size, at[0], at[1], at[2])
	}
	return vring.UserParts(m, size, at[0], at[1], at[2])
}

// enable lets the ring take requests, or not.
func (r *ring) enable(on bool) {
	r.enabled = on
	r.publishState()
	r.look()
}

// ringKick is a ring as the handler of its kick eventfd. It is watched for edges, so
// that it need not be read: every write is one. Reading it could also sleep, since its
// description is shared with the front end, which sets its flags and may read it too.
type ringKick ring

func (h *ringKick) Ready(*loop.Source, loop.Events) {
	r := (*ring)(h)
	r.now[cKicks]++
	r.look()
}

// ringAgain is a ring that could not take all there was.
type ringAgain ring

func (h *ringAgain) Handle(*loop.Node) { (*ring)(h).look() }

// ringPoll is a ring whose driver was told that it need not kick.
type ringPoll ring

// Poll serves what there is on the spot: a driver that polls waits for the answers, and
// not for the end of the round.
func (h *ringPoll) Poll() loop.Found {
	r := (*ring)(h)
	if !r.takes() {
		return loop.Nothing
	}
	r.more = false
	r.guard(serveStep)
	if !r.more {
		return loop.Nothing
	}
	r.serving = false
	r.submitStaged() // where memory went away
	r.dirty()        // counters, and what ends a stop
	r.pass()
	r.released()
	return loop.Served
}

func (h *ringPoll) Arm() bool {
	r := (*ring)(h)
	if !r.takes() {
		return false
	}
	r.more = false
	r.guard(armStep)
	if !r.more || r.dead {
		return false
	}
	if !r.again.Queued() { // the loop is between two rounds: no message to itself
		r.loop.Defer(&r.again)
	}
	return true
}

// serveStep takes a batch, if there is one, and publishes what it was answered with.
func serveStep(r *ring) {
	if r.more = r.vr.More(); r.more {
		r.serving = true
		takeStep(r)
		flushStep(r)
	}
}

func armStep(r *ring) { r.more = r.vr.EnableKick() }

// takes tells whether a look into the ring may find something to take; what ends that
// it does not looks by itself.
func (r *ring) takes() bool { return r.ready() && !r.held && r.flight < r.limit }

// ready tells whether the ring takes requests.
func (r *ring) ready() bool {
	return r.enabled && !r.stopping && !r.dead && r.failure == nil
}

// look serves what is in the ring, in one batch.
func (r *ring) look() {
	if !r.ready() {
		return
	}
	if r.take == nil {
		r.d.events.deliver()
		return
	}
	r.serving = false // should a panic have ended Poll
	r.guard(takeStep)
	r.submitStaged() // where memory went away
	r.pass()
}

// pass hands what was submitted to the stores.
func (r *ring) pass() {
	for i, q := range r.kicks {
		q.Kick()
		r.kicks[i] = nil
	}
	r.kicks = r.kicks[:0]
	r.batchFor, r.batchTo = nil, nil
}

// guard runs a step that touches guest memory.
func (r *ring) guard(step func(*ring)) {
	err := gmem.Guard(r.d.space, step, r)
	if err == nil && r.logUsed {
		err = gmem.Guard(r.d.space, wroteUsed, r)
	}
	if err != nil {
		r.dead = true
		r.fail(err)
	}
}

// takeStep takes one batch out of the ring.
func takeStep(r *ring) {
	takeBatch(r)
	r.submitStaged()
}

func takeBatch(r *ring) {
	r.now[cRounds]++
	r.dirty()
	r.vr.DisableKick()
	if r.held {
		r.held = false
		r.take(r)
	}
	for n := 0; !r.held; n++ {
		if r.flight >= r.limit {
			return // goes on in release; kicks would not help
		}
		if n == batch {
			if !r.serving { // else the ring is hot, and looked at again
				r.loop.PostOnce(&r.again)
			}
			return
		}
		ok, err := r.vr.Pop(r.scratch)
		if err != nil {
			r.fail(err)
			return
		}
		if !ok {
			r.loop.Hot(&r.polling) // which asks for a kick before the loop sleeps
			return
		}
		r.now[cRequests]++
		r.take(r)
		if r.failure != nil {
			return
		}
	}
}

// dirty has the ring's answers published, and its counters, at the end of the round.
func (r *ring) dirty() {
	if !r.serving && !r.flush.Queued() {
		r.loop.Defer(&r.flush)
	}
}

// answer gives the chain in scratch back at once: n bytes of In, from b on.
func (r *ring) answer(b []byte) {
	gmem.Scatter(r.scratch.In, b)
	r.written(r.mem, r.scratch.In)
	r.vr.Push(r.scratch.Head, uint32(len(b)))
	r.dirty()
}

// adopt moves the chain in scratch to s, a request to t whose answer has head bytes
// before the data.
func (r *ring) adopt(s *slot, t *target, head int) {
	s.ring, s.target, s.pin = r, t, r.pin
	r.pin.Take()
	s.chain, r.scratch = r.scratch, s.chain
	s.head = cutHead(s.head[:0], s.chain.In, head)
	s.n = 0
	r.flight++
}

// respond queues s, whose outcome is set, for the used ring.
func (r *ring) respond(s *slot) {
	s.next = nil
	if r.done == nil {
		r.done = s
	} else {
		r.last.next = s
	}
	r.last = s
	r.dirty()
}

// ringFlush is a ring as the handler of its deferred node: the end of a round.
type ringFlush ring

func (h *ringFlush) Handle(*loop.Node) { (*ring)(h).flushNow() }

// flushNow publishes what was responded to.
func (r *ring) flushNow() {
	if !r.dead {
		r.guard(flushStep)
	}
	r.released()
	r.now[cFlight] = uint64(r.flight)
	for i, v := range r.now {
		if r.shown[i].Load() != v { // a store locks the bus, a load does not
			r.shown[i].Store(v)
		}
	}
	if r.stopping && !r.closed && r.flight == 0 {
		r.end()
	}
}

// released ends the requests that were published, and those that cannot be because
// memory went away. It comes behind the publication: the driver does not wait for it.
func (r *ring) released() {
	for s := r.sent; s != nil; s = r.sent {
		r.sent = s.next
		r.release(s)
	}
	if r.dead {
		for s := r.done; s != nil; s = r.done {
			r.done = s.next
			r.release(s)
		}
	}
	if r.full && r.flight < r.limit {
		r.full = false
		r.loop.PostOnce(&r.again)
	}
}

// lateReleases is how many requests of a batch are released behind its publication: of
// many the first would have left the nearest cache by then.
const lateReleases = 4

// flushStep writes the responses and shows them to the driver.
func flushStep(r *ring) {
	r.full = r.full || r.flight >= r.limit
	for s, n := r.done, 0; s != nil; s, n = r.done, n+1 {
		if r.index == controlQueue {
			r.resp[0] = byte(s.code)
			gmem.Scatter(s.head, r.resp[:virtioscsi.TMFRespLen])
			r.written(s.pin.Map(), s.head)
			r.vr.Push(s.chain.Head, virtioscsi.TMFRespLen)
		} else {
			r.putOutcome(s)
			r.written(s.pin.Map(), s.head)
			r.written(s.pin.Map(), s.chain.In)
			r.vr.Push(s.chain.Head, uint32(min(virtioscsi.RespLen+s.n, 1<<32-1)))
		}
		r.done = s.next
		if n >= lateReleases {
			r.release(s)
			continue
		}
		s.next, r.sent = r.sent, s
	}
	if r.vr.Publish() {
		r.notify()
	}
}

// putOutcome writes the response of s: in place where its room is in one piece, as that of
// all drivers is.
func (r *ring) putOutcome(s *slot) {
	if len(s.head) == 1 {
		s.outcome((*virtioscsi.Resp)(s.head[0]))
		return
	}
	s.outcome(&r.resp)
	gmem.Scatter(s.head, r.resp[:])
}

// notify signals the call eventfd.
func (r *ring) notify() {
	if r.call >= 0 {
		r.now[cCalls]++
		if full, _ := sys.EventfdNotify(r.call); full {
			r.fail(errCallFull)
		}
	}
}

// release ends the life of s: its memory is not used any more.
func (r *ring) release(s *slot) {
	pin := s.pin
	s.chain.Forget()
	if len(s.head) == 1 {
		s.head[0] = nil // in the place of a call
	} else {
		clear(s.head)
	}
	s.ring, s.target, s.pin, s.next = nil, nil, nil, nil
	s.r.Queue().Put(s.r)
	r.flight--
	pin.Drop()
	if len(r.olds) > 0 && pin.Held() == 0 {
		r.olds = slices.DeleteFunc(r.olds, func(p *gmem.Pin) bool { return p == pin })
	}
}

// fail ends the ring's service: it takes nothing more. What it has taken goes on, and
// is answered if memory is still there.
func (r *ring) fail(err error) {
	if r.failure != nil || r.closed {
		return
	}
	r.failure = fmt.Errorf("virtqueue %d: %w", r.index, err)
	r.publishState()
	if r.errfd >= 0 {
		_, _ = sys.EventfdNotify(r.errfd)
	}
	r.d.warn(r.index, err)
	r.dirty()
}

func (r *ring) publishState() {
	r.state.Store(&ringState{err: r.failure, enabled: r.enabled})
}

// setKick, setCall and setErr replace descriptors.
func (r *ring) setKick(fd int) {
	r.loop.Remove(&r.source)
	closeFD(&r.kick)
	r.kick = fd
	if fd >= 0 {
		if err := r.loop.Add(&r.source, fd, loop.In|loop.Edge, (*ringKick)(r)); err != nil {
			r.fail(err)
		}
	}
	r.look()
}

func (r *ring) setCall(fd int) {
	closeFD(&r.call)
	r.call = fd
	r.vr.Force()
	r.flushNow()
}

func (r *ring) setErr(fd int) {
	closeFD(&r.errfd)
	r.errfd = fd
	if fd >= 0 && r.failure != nil {
		_, _ = sys.EventfdNotify(fd)
	}
}

func closeFD(fd *int) {
	if *fd >= 0 {
		sys.Close(*fd)
		*fd = -1
	}
}

// remap moves the ring to generation m, its areas to parts. A ring that has failed
// moves too, for what it has still to answer; one that cannot lets go of its memory:
// whoever takes that away waits for all that use it.
func (r *ring) remap(m *gmem.Map, parts [3]uint64) error {
	if r.dead {
		r.pin.Leave()
		return r.failure
	}
	p, err := userParts(m, virtioscsi.Has(r.features, virtioscsi.FeatureRingPacked), r.vr.Size(), parts)
	if err == nil {
		err = r.vr.Rebase(m, p)
	}
	var pin *gmem.Pin
	if err == nil && m != r.mem {
		if pin = m.Pin(); pin == nil {
			err = errors.New("its generation of memory was retired")
		}
	}
	if err != nil {
		r.fail(err)
		r.dead = true
		r.pin.Leave()
		return r.failure
	}
	r.parts = parts
	if pin != nil {
		if r.pin.Held() > 0 {
			r.olds = append(r.olds, r.pin)
		}
		r.pin.Leave()
		r.pin, r.mem = pin, m
	}
	// Nothing tells whether the driver has seen what was published at the old place.
	r.vr.Force()
	r.dirty()
	r.look()
	return r.failure
}

// stop takes no more requests and answers done when those that there are have ended,
// or at the deadline.
func (r *ring) stop(deadline time.Duration, done chan<- ringStop) {
	r.stopping, r.stopped = true, done
	r.loop.Remove(&r.source)
	r.loop.Cold(&r.polling)
	if r.index == eventQueue {
		r.d.events.stop(r)
	}
	r.loop.Stop(&r.retry)
	if r.held && !r.dead {
		r.guard(refuseHeld)
	}
	r.loop.After(&r.timer, deadline)
	r.flushNow()
}

// ringTimer is a ring whose stop has met its deadline.
type ringTimer ring

func (h *ringTimer) Expired(*loop.Timer) {
	r := (*ring)(h)
	if r.closed {
		return
	}
	r.flushNow()
	if !r.closed {
		r.end()
	}
}

// end answers the stop. What is in flight still is released when it ends.
func (r *ring) end() {
	r.closed, r.dead = true, true
	r.loop.Stop(&r.timer)
	res := ringStop{base: r.vr.Base(), stuck: r.flight}
	if r.flight > 0 {
		for _, p := range append(r.olds, r.pin) {
			if p.Held() > 0 {
				res.maps = append(res.maps, p.Map())
			}
		}
	}
	r.pin.Leave()
	if !r.keep {
		if r.kick >= 0 {
			// The front end takes the queue over and must not find our kicks.
			sys.EventfdTake(r.kick)
		}
		closeFD(&r.kick)
		closeFD(&r.call)
	}
	closeFD(&r.errfd)
	for i, q := range r.queues {
		if q != nil {
			r.queues[i] = nil
			q.Close(time.Nanosecond, func(int) {})
		}
	}
	r.loop.AddLoad(-1)
	r.stopped <- res
}
