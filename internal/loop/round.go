package loop

import (
	"github.com/vtgt/vtgt/internal/sys"
)

// The stages of a round.
const (
	stageWait = iota
	stageSources
	stageRing
	stageMail
	stageTimers
	stageDeferred
)

// round waits for work and does it: sources, completions of the ring, mailbox,
// timers, deferred nodes. It begins at l.stage, which is not stageWait when a
// panic ended the round before.
func (l *Loop) round() {
	switch l.stage {
	case stageWait:
		l.wait()
		l.lag.take(l)
		l.now = l.g.Now()
		l.stats.Rounds++
		l.stage = stageSources
		fallthrough
	case stageSources:
		for l.evNext < l.evCount {
			e := &l.evs[l.evNext]
			l.evNext++
			if s := l.srcs[e.Fd].s; s != nil && s.gen == e.Pad {
				l.stats.Events++
				s.h.Ready(s, Events(e.Events))
			}
		}
		l.stage = stageRing
		fallthrough
	case stageRing:
		if l.ring != nil {
			l.ring.Reap()
		}
		l.posted = l.mail.take()
		l.stage = stageMail
		fallthrough
	case stageMail:
		for n := l.posted; n != nil; n = l.posted {
			l.posted = n.next
			l.stats.Posted++
			handle(n)
		}
		if l.wheel.count != 0 {
			l.wheel.advance(l.now)
		}
		l.stage = stageTimers
		fallthrough
	case stageTimers:
		if l.wheel.count != 0 {
			for t := l.wheel.pop(); t != nil; t = l.wheel.pop() {
				l.stats.Expired++
				t.h.Expired(t)
			}
		}
		l.passes = 0
		l.stage = stageDeferred
		fallthrough
	case stageDeferred:
		for {
			for n := l.defRun; n != nil; n = l.defRun {
				l.defRun = n.next
				handle(n)
			}
			if l.defHead == nil || l.passes == deferPasses {
				break
			}
			l.passes++
			l.defRun, l.defHead, l.defTail = l.defHead, nil, nil
		}
		l.stage = stageWait
	}
}

// handle gives a node that was taken off its queue to its handler.
func handle(n *Node) {
	h := n.h
	n.next = nil
	n.queued.Store(0)
	h.Handle(n)
}

// lookEvery is the time (ns) for which a loop whose rings have work does not ask epoll
// about its other sources: that costs 200 ns, as much as a request of depth 1. A longer
// round puts it off once.
const lookEvery = 10_000

// dozeTime (ns) is more than an epoll_wait takes that finds something at once.
const dozeTime = 5_000

// wait fetches ready sources into evs; it sleeps while there is nothing at all
// to do.
func (l *Loop) wait() {
	l.evNext, l.evCount = 0, 0
	if l.ring != nil {
		// Deferred kicks have gathered requests: one enter submits them all.
		l.ring.Kick()
	}
	found := false
	if len(l.hot) > 0 {
		f := l.poll()
		if len(l.hot) > 0 && l.now-l.looked < lookEvery && l.linger(f) {
			return
		}
		found = f != Nothing
	}
	l.looked = l.now
	// Who has just slept will sleep again, and finds out then what there is.
	if dozes := l.slept != 0 && l.now-l.slept > dozeTime; found || !dozes {
		n, errno := sys.EpollPoll(l.epfd, l.evs[:])
		l.evCount = n
		if n == 0 && errno != 0 && errno != sys.EINTR {
			l.broken("epoll_wait", errno)
		}
	}
	l.slept = 0
	if found || l.evCount > 0 || l.pending() {
		return
	}
	start := l.g.Now()
	end := l.wheel.deadline()
	if end >= 0 && end <= start {
		return
	}
	l.g.spin.refresh(start)
	expected := l.expected
	l.expected = false
	// A worker that relieves the loop has enough to do: there is no hurry.
	if l.spin.now > 0 && (len(l.hot) > 0 || l.called && l.relieved == 0) {
		if found, _ := l.trySpin(start, end, l.spin.now); found {
			return
		}
	}
	if expected && l.asks.score > 0 {
		found, tried := l.trySpin(start, end, l.asks.max)
		switch {
		case found:
			l.asks.hit()
			return
		case tried:
			l.asks.miss()
		}
		expected = false
	}
	if len(l.hot) > 0 && l.arm() {
		return
	}
	if !l.trim.Armed() && l.slabs.Holds() {
		l.now = start
		l.After(&l.trim, trimEvery)
		end = l.wheel.deadline()
	}

	l.asleep.Store(1)
	if l.pending() {
		l.asleep.Store(0)
		return
	}
	limit := int64(-1)
	if end >= 0 {
		limit = max(end-l.g.Now(), 0)
	}
	l.stats.Sleeps++
	l.slept = start
	l.block(limit)
	l.called = l.asleep.Load() == 0
	l.asleep.Store(0)
	if l.spin.max > 0 {
		d := l.g.Now() - start
		l.spin.slept(d)
		if expected {
			l.asks.slept(d)
		}
	}
}

// pending reports work that does not come from epoll or timers.
func (l *Loop) pending() bool { return l.defHead != nil || l.wanted() }

// wanted reports work that comes from others.
func (l *Loop) wanted() bool {
	return !l.mail.empty() || l.stop.Load() && !l.stopping || l.ring != nil && l.ring.Ready()
}

// retryRing is the wait (ns) before a ring that takes no requests is tried again.
const retryRing = 1_000_000

// block sleeps until a source is ready, the loop is woken, a request of the ring
// ends, or ns have passed (ns < 0: no limit).
func (l *Loop) block(ns int64) {
	if l.ring != nil && l.ring.InFlight() > 0 {
		// The ring watches epfd meanwhile.
		readable, waited := l.ring.Wait(ns)
		switch {
		case readable:
			l.evCount, _ = sys.EpollPoll(l.epfd, l.evs[:])
			return
		case waited:
			return
		}
		// Short of memory, or the completion ring overflows: look again soon.
		if ns < 0 || ns > retryRing {
			ns = retryRing
		}
	}
	n, errno := sys.EpollWait(l.epfd, l.evs[:], ns, &l.ts)
	if errno != 0 {
		l.broken("epoll_wait", errno)
		return
	}
	l.evCount = n
}

// linger looks for a microsecond into what is hot: a driver that polls answers sooner
// than two system calls return. What it finds served it looks for again, so that between
// two requests of depth 1 there is nothing but the look; counters and the like, which
// they defer, wait until nothing comes, at most lookEvery. Only where loops spin at all.
// found is what the first look has found.
func (l *Loop) linger(found Found) bool {
	served := found == Served
	switch {
	case found == Posted:
		return true
	case l.spin.now == 0 || l.g.spin.limit.Load() == 0:
		return served
	case !served && l.defHead != nil:
		return true
	case served && l.ring != nil && l.ring.InFlight() > 0:
		return true
	}
	for looks := 0; looks < spinLooks; looks++ {
		switch l.glance() {
		case Posted:
			return true
		case Served:
			l.now = l.g.Now()
			if l.now-l.looked >= lookEvery || l.ring != nil && l.ring.InFlight() > 0 {
				return true
			}
			served, looks = true, 0
		}
		if l.wanted() {
			return true
		}
	}
	return served
}

// spinLooks is how often a spinning loop looks into memory between two system calls.
const spinLooks = 64

// trySpin looks for work for at most ns without sleeping. tried is false where too many
// others spin.
func (l *Loop) trySpin(start, end, ns int64) (found, tried bool) {
	k := &l.g.spin
	if !k.acquire() {
		return false, false
	}
	l.stats.Spins++
	until := start + ns
	if end >= 0 {
		until = min(until, end)
	}
	calls := k.calls.Load()
	looks := spinLooks
	if len(l.hot) == 0 {
		looks = 1
	}
	for !found && k.calls.Load() == calls {
		// A look into memory costs 10 to 20 ns, epoll and the clock 250: with rings
		// to look into, these are asked after a microsecond of that.
		for range looks {
			if l.pending() || len(l.hot) > 0 && l.glance() != Nothing {
				found = true
				break
			}
		}
		if found {
			break
		}
		if n, _ := sys.EpollPoll(l.epfd, l.evs[:]); n > 0 {
			l.evCount = n
			found = true
		}
		if l.g.Now() >= until {
			break
		}
	}
	k.release()
	if found {
		l.stats.SpinHits++
	}
	return found, true
}

// broken ends the process: a loop without its epoll serves nobody, and only a
// closed or foreign descriptor leads here.
func (l *Loop) broken(what string, errno sys.Errno) {
	panic("loop: " + what + ": " + errno.Error())
}

// end gives back what the loop holds. Its thread ends afterwards.
func (l *Loop) end() {
	if l.ring != nil {
		if err := l.ring.Close(); err != nil {
			l.g.cfg.Log.Error("io_uring of a loop not closed", "loop", l.id, "err", err)
		}
	}
	if err := l.slabs.Close(); err != nil {
		l.g.cfg.Log.Warn("buffers of a loop not freed", "loop", l.id, "err", err)
	}
	close(l.ended)
	// asleep is 0 for good; a thread that changed it may still be writing.
	for l.wakers.Load() != 0 {
		pause()
	}
	sys.Close(l.evfd)
	sys.Close(l.epfd)
}
