package iscsi

import (
	"time"

	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/slab"
	"github.com/vtgt/vtgt/internal/sys"
)

// shard is what the connections of one server on one loop share: the pool of
// requests, the vectors of the system calls, and the list of those who wait for
// memory. Its loop alone touches it.
type shard struct {
	srv   *Server
	l     *loop.Loop
	slabs *slab.Cache

	free   *request
	nfree  int
	conns  int // connections of this loop
	rv, sv sys.SockVec
	// sink takes payload that nobody wants.
	sink [64 << 10]byte

	waiters *conn // connections that wait for memory, by conn.nextWait
	last    *conn
	wakeSet bool
	wake    loop.Node // deferred: memory came back on this loop
	retry   loop.Timer
	armed   bool
}

// retryEvery is how often those who wait for memory look whether another loop has
// given some back.
const retryEvery = 5 * time.Millisecond

// maxFree bounds the idle requests that a shard keeps, freePerConn those for each of
// its connections.
const maxFree, freePerConn = 4096, 160

func newShard(s *Server, l *loop.Loop) *shard {
	sh := &shard{srv: s, l: l, slabs: l.Slabs()}
	sh.wake.Init(sh)
	sh.retry.Init(sh)
	return sh
}

// get takes a request from the pool. It comes with no state but its tag-free task.
func (sh *shard) get(c *conn, k kind) *request {
	r := sh.free
	if r != nil {
		sh.free = r.next
		sh.nfree--
		r.next = nil
	} else {
		r = newRequest()
	}
	r.c, r.kind = c, k
	c.requests++
	return r
}

// put gives a request back.
func (sh *shard) put(r *request) {
	r.c.requests--
	if sh.nfree >= min(maxFree, sh.conns*freePerConn) {
		return
	}
	r.recycle()
	r.next = sh.free
	sh.free = r
	sh.nfree++
}

// joined and parted count connections; what the pool has too much of goes.
func (sh *shard) joined() { sh.conns++ }

func (sh *shard) parted() {
	sh.conns--
	for sh.nfree > sh.conns*freePerConn {
		r := sh.free
		sh.free, r.next = r.next, nil
		sh.nfree--
	}
}

// await puts c on the list of those who wait for memory.
func (sh *shard) await(c *conn) {
	if c.waiting {
		return
	}
	c.waiting, c.nextWait = true, nil
	if sh.last != nil {
		sh.last.nextWait = c
	} else {
		sh.waiters = c
	}
	sh.last = c
	if !sh.armed {
		sh.armed = true
		sh.l.After(&sh.retry, retryEvery)
	}
}

// forget takes c off the list.
func (sh *shard) forget(c *conn) {
	if !c.waiting {
		return
	}
	c.waiting = false
	var prev *conn
	for w := sh.waiters; w != nil; prev, w = w, w.nextWait {
		if w != c {
			continue
		}
		if prev == nil {
			sh.waiters = w.nextWait
		} else {
			prev.nextWait = w.nextWait
		}
		if sh.last == w {
			sh.last = prev
		}
		break
	}
	c.nextWait = nil
}

// freed hears that memory of this loop came back.
func (sh *shard) freed() {
	if sh.waiters != nil && !sh.wakeSet {
		sh.wakeSet = true
		sh.l.Defer(&sh.wake)
	}
}

// Handle lets those who wait try again.
func (sh *shard) Handle(*loop.Node) {
	sh.wakeSet = false
	sh.tryAgain()
}

// Expired does the same after some time.
func (sh *shard) Expired(*loop.Timer) {
	sh.armed = false
	sh.tryAgain()
	if sh.waiters != nil && !sh.armed {
		sh.armed = true
		sh.l.After(&sh.retry, retryEvery)
	}
}

func (sh *shard) tryAgain() {
	w := sh.waiters
	sh.waiters, sh.last = nil, nil
	for w != nil {
		next := w.nextWait
		w.waiting, w.nextWait = false, nil
		w.memoryBack()
		w = next
	}
}

// close lets go of the pool. On the loop, when the server has no sessions.
func (sh *shard) close() {
	sh.l.Stop(&sh.retry)
	sh.armed = false
	sh.free, sh.nfree = nil, 0
}
