package srp

import (
	"sync"

	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/prefetch"
	"github.com/vtgt/vtgt/scsi"
)

// dataPhase is how a command ends whose data a mover could not move.
var dataPhase = scsi.Sense{Key: scsi.AbortedCommand, ASC: 0x4b00} // DATA PHASE ERROR

// shard is what the queues of a port on one loop share: the lane and the pool. Its
// loop alone touches it, except for stats.
type shard struct {
	port *Port
	loop *loop.Loop
	lane *scsi.Lane

	free   *Request
	all    []*Request // every one that was made
	seq    uint64     // of the last Submit
	memory int64
	waits  []wait // functions that wait for requests to end

	now   Stats
	dirty bool
	kick  bool // the lane has gathered something that nobody kicks
	flush loop.Node

	statsMu sync.Mutex
	stats   Stats // now, as of the last round
}

// Queue is one ring. Methods are called on its loop, except where they say otherwise.
type Queue struct {
	port    *Port
	sh      *shard
	carrier Carrier
	mover   Mover

	limit    int
	inflight int // from Get to Put
	owed     int32
	hold     *hold
	stopped  bool
	stops    []*stop

	events loop.Node
	// Guarded by port.evMu.
	pending []scsi.Event
	missed  bool
	posted  bool
	closed  bool
}

// hold is a queue's hold on one generation.
type hold struct {
	gen Generation
	n   int // requests
}

// Loop is the queue's loop. Any goroutine.
func (q *Queue) Loop() *loop.Loop { return q.sh.loop }

// Port is the queue's port. Any goroutine.
func (q *Queue) Port() *Port { return q.port }

// InFlight is the number of requests between Get and Put.
func (q *Queue) InFlight() int { return q.inflight }

// Get takes a request from the pool, for one ring entry. nil: no credit is left, or the
// queue is stopped; the entry stays in the ring until a request is put back.
func (q *Queue) Get() *Request {
	sh := q.sh
	if q.stopped || q.inflight >= q.limit {
		sh.count().Refused++
		return nil
	}
	r := sh.free
	if r == nil {
		r = &Request{}
		r.Ref = r
		sh.all = append(sh.all, r)
		if f := q.port.conf.New; f != nil {
			r.Own = f(r)
		}
	} else {
		sh.free, r.next = r.next, nil
	}
	q.inflight++
	sh.now.InFlight++
	r.q, r.state = q, stHeld
	r.over = q.inflight > q.port.conf.Requests
	if r.hold = q.hold; r.hold != nil {
		r.hold.n++
	}
	return r
}

// Put ends r's life. A carrier calls it for a request that it got and did not submit,
// or that was responded to: inside Respond, or later, when the response has gone out.
func (q *Queue) Put(r *Request) {
	if r.state != stHeld || r.q != q {
		// The carrier's bug; a request that is in use must not be used twice.
		q.sh.count().Misuse++
		return
	}
	sh := q.sh
	if h := r.hold; h != nil {
		r.hold = nil
		h.n--
		if h.n == 0 && h != q.hold {
			h.gen.Release()
		}
	}
	r.DataIn, r.DataOut, r.Offered = nil, nil, 0
	r.OutSize, r.InSize, r.TaskTag, r.Func, r.Response = 0, 0, 0, 0, 0
	r.cut, r.mute, r.over = false, false, false
	sh.count().InFlight--
	if r.stuck {
		r.stuck = false
		sh.now.Stuck--
	}
	r.state = stFree
	r.next, sh.free = sh.free, r
	q.inflight--
	if q.inflight == 0 && len(q.stops) > 0 {
		q.empty()
	}
}

// Hold makes g the memory that requests from now on use; nil: none. The queue holds it
// until the next call of Hold and until every request that uses it was put back; then
// g.Release is called.
func (q *Queue) Hold(g Generation) {
	old := q.hold
	q.hold = nil
	if g != nil {
		q.hold = &hold{gen: g}
	}
	if old != nil && old.n == 0 {
		old.gen.Release()
	}
}

// Credit takes what the initiator is to get back with the response that the carrier is
// about to send: one for each request that was responded to since, aborted ones, for
// which nothing was sent, included.
func (q *Queue) Credit() int32 {
	n := q.owed
	q.owed = 0
	return n
}

// Kick passes what Submit has gathered to the stores: the end of a batch.
func (q *Queue) Kick() { q.sh.lane.Kick() }

// Near is scsi.Lane.Near of the command in r; empty where a mover moves the data.
func (q *Queue) Near(r *Request) prefetch.Span {
	if q.mover != nil {
		return prefetch.Span{}
	}
	return q.sh.lane.Near(&r.Task)
}

// Submit starts the command in r.
func (q *Queue) Submit(r *Request) {
	sh := q.sh
	if r.state != stHeld || r.q != q {
		sh.count().Misuse++
		return
	}
	sh.count().Commands++
	sh.seq++
	r.seq, r.Func = sh.seq, 0
	if r.over {
		sh.now.Busy++
		r.bare(scsi.StatusBusy)
		r.respond()
		return
	}
	r.Offered = r.OutSize
	r.Mapped = q.mover == nil
	if q.mover == nil {
		r.state = stCore
		sh.lane.Submit(&r.Task)
		return
	}
	r.DataIn, r.DataOut = nil, nil
	out, in := sh.lane.Lengths(&r.Task)
	out, in = min(out, r.OutSize), min(in, r.InSize)
	switch n := out + in; { // one of them is 0
	case n > q.port.conf.MaxTransfer:
		r.check(scsi.Sense{Key: scsi.IllegalRequest, ASC: scsi.ASCInvalidFieldInCDB})
		r.respond()
		return
	case n > 0 && !r.alloc(n):
		sh.now.NoMemory++
		r.bare(scsi.StatusTaskSetFull)
		r.respond()
		return
	}
	if out > 0 {
		r.DataOut = r.vec
		r.state = stFetch
		r.announced = true
		sh.lane.Announce(&r.Task)
		q.mover.Fetch(r)
		return
	}
	if in > 0 {
		r.DataIn = r.vec
	}
	r.state = stCore
	sh.lane.Submit(&r.Task)
}

// Moved ends Mover.Fetch or Store of r. After an error of a fetch the command does not
// run; after one of a store it ends with CHECK CONDITION.
func (q *Queue) Moved(r *Request, err error) {
	sh := q.sh
	if err != nil {
		sh.count().MoveErrors++
	}
	switch r.state {
	case stFetch:
		r.announced = false
		switch {
		case r.cut || r.mute:
			sh.lane.Withdraw(&r.Task)
			r.bare(scsi.StatusGood)
			r.Aborted = true
			r.respond()
		case err != nil:
			sh.lane.Withdraw(&r.Task)
			r.check(dataPhase)
			r.respond()
		default:
			r.state = stCore
			sh.lane.Submit(&r.Task)
			// No batch of the ring's, so nobody else would kick.
			sh.count()
			sh.kick = true
		}
	case stStore:
		if err != nil {
			r.check(dataPhase)
		}
		r.respond()
	default:
		sh.count().Misuse++
	}
}

// done takes r back from the core.
func (r *Request) done() {
	q := r.q
	if q.mover != nil && r.InLen > 0 && !r.Aborted && !r.mute {
		r.state = stStore
		q.mover.Store(r)
		return
	}
	r.respond()
}

// respond gives r back to the carrier: its outcome is set.
func (r *Request) respond() {
	q := r.q
	sh := q.sh
	r.freeBufs()
	if r.mute {
		r.Aborted = true
	}
	c := sh.count()
	if r.Func == 0 && r.Aborted {
		c.Aborted++
	}
	q.owed++
	r.state = stHeld
	q.carrier.Respond(r)
	if len(sh.waits) > 0 {
		sh.recheck()
	}
}

// maxEvents bounds the events that wait for a queue.
const maxEvents = 64

// enqueue puts e on the queue's list. Port.evMu is held.
func (q *Queue) enqueue(e scsi.Event) {
	if q.closed {
		return
	}
	if len(q.pending) >= maxEvents {
		q.missed = true
	} else {
		q.pending = append(q.pending, e)
	}
	if !q.posted {
		q.posted = true
		q.sh.loop.Post(&q.events)
	}
}

// queueEvents is a Queue as the handler of its node.
type queueEvents Queue

func (h *queueEvents) Handle(*loop.Node) {
	q := (*Queue)(h)
	p := q.port
	p.evMu.Lock()
	list, missed, closed := q.pending, q.missed, q.closed
	q.pending, q.missed, q.posted = nil, false, false
	p.evMu.Unlock()
	if closed {
		return
	}
	c := q.sh.count()
	c.Events += uint64(len(list))
	for _, e := range list {
		q.carrier.Event(e)
	}
	if missed {
		c.Missed++
		q.carrier.Event(scsi.Event{Kind: EventsMissed})
	}
}
