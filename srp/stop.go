package srp

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/internal/loop"
)

// stop waits until a queue has no requests left.
type stop struct {
	q     *Queue
	timer loop.Timer
	done  func(stuck int)
}

// Stop has Get say nil from now on and calls done on the queue's loop, maybe inside
// Stop, when every request was put back, or at the deadline (0: Config.Deadline) with
// the number of those that were not: they stay what they are. Nothing is aborted. Start
// undoes it.
func (q *Queue) Stop(deadline time.Duration, done func(stuck int)) {
	q.stopped = true
	if q.inflight == 0 {
		done(0)
		return
	}
	if deadline <= 0 {
		deadline = q.port.conf.Deadline
	}
	s := &stop{q: q, done: done}
	s.timer.Init(s)
	q.stops = append(q.stops, s)
	q.sh.loop.After(&s.timer, deadline)
}

// Start lets requests in again.
func (q *Queue) Start() { q.stopped = false }

// Expired is the deadline.
func (s *stop) Expired(*loop.Timer) {
	q := s.q
	q.stops = slices.DeleteFunc(q.stops, func(o *stop) bool { return o == s })
	for _, r := range q.sh.all {
		if r.q == q && r.state != stFree {
			r.setStuck()
		}
	}
	s.done(q.inflight)
}

// empty ends the stops: the last request was put back.
func (q *Queue) empty() {
	list := q.stops
	q.stops = nil
	for _, s := range list {
		q.sh.loop.Stop(&s.timer)
		s.done(0)
	}
}

func (r *Request) setStuck() {
	if !r.stuck {
		r.stuck = true
		r.q.sh.count().Stuck++
	}
}

// Close takes the queue out of its port once it is stopped (see Stop), with what is
// stuck: that ends on its loop still. done is called there.
func (q *Queue) Close(deadline time.Duration, done func(stuck int)) {
	q.Stop(deadline, func(stuck int) {
		p := q.port
		p.mu.Lock()
		p.evMu.Lock()
		q.closed = true
		p.queues = slices.DeleteFunc(p.queues, func(o *Queue) bool { return o == q })
		p.evMu.Unlock()
		p.mu.Unlock()
		q.Hold(nil)
		done(stuck)
	})
}

// list is what queues there are.
func (p *Port) list() []*Queue {
	p.evMu.Lock()
	defer p.evMu.Unlock()
	return slices.Clone(p.queues)
}

// Drain stops all queues (see Queue.Stop). done is called on a goroutine of its own.
// Resume undoes it.
func (p *Port) Drain(deadline time.Duration, done func(stuck int)) {
	p.each((*Queue).Stop, deadline, done)
}

// Resume starts all queues.
func (p *Port) Resume() {
	for _, q := range p.list() {
		q.sh.loop.Later(q.Start)
	}
}

// each calls f for all queues on their loops and done with the sum, on a goroutine of
// its own.
func (p *Port) each(f func(*Queue, time.Duration, func(int)), deadline time.Duration, done func(stuck int)) {
	var left, sum atomic.Int64
	left.Store(1)
	part := func(n int) {
		sum.Add(int64(n))
		if left.Add(-1) == 0 {
			go done(int(sum.Load()))
		}
	}
	for _, q := range p.list() {
		left.Add(1)
		q.sh.loop.Later(func() { f(q, deadline, part) })
	}
	part(0)
}

// Close ends the nexus: commands in the core are aborted, the queues closed. done, on a
// goroutine of its own, has the number of requests that were not put back at the
// deadline (0: Config.Deadline): of those in the store or with a mover, Respond is
// called when they end. A second Close does nothing and has done called with 0.
func (p *Port) Close(deadline time.Duration, done func(stuck int)) {
	if deadline <= 0 {
		deadline = p.conf.Deadline
	}
	p.mu.Lock()
	was := p.closed
	p.closed = true
	p.mu.Unlock()
	if was {
		go done(0)
		return
	}
	var left, sum atomic.Int64
	left.Store(2)
	part := func(n int) {
		sum.Add(int64(n))
		if left.Add(-1) == 0 {
			done(int(sum.Load()))
		}
	}
	p.each((*Queue).Close, deadline, part)
	// What is stuck in the core is one of the queues' requests.
	p.nexus.Close(deadline, func(int) { part(0) })
}
