package loop

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/internal/sys"
)

// Workers are the goroutines on which blocking system calls run. There is a
// bound for all of them and one for each JobQueue, so that a queue whose jobs
// hang holds its own share and no more. They start on demand and end after some
// seconds without work.
type Workers struct {
	g     *Group
	max   int
	every time.Duration // idleTime, shorter in tests
	// inbox takes jobs without a lock: a loop must not sleep on mu, which a
	// goroutine without a processor may hold.
	inbox atomic.Pointer[Job]

	mu      sync.Mutex
	ready   queueList // queues with a job to start and room to start it
	idle    *worker   // last come, first woken
	n       int       // workers
	running int
	queued  int
	closed  bool
}

// idleTime is how long a worker waits for a job before it ends.
const idleTime = 5 * time.Second

// DefaultQueueLimit is the limit of a JobQueue when none is given.
const DefaultQueueLimit = 8

// Job is a blocking call to be made, embedded in its owner. It must not be
// copied, and not be submitted again before its RunJob has begun.
type Job struct {
	next *Job
	q    *JobQueue
	r    JobRunner
}

// Init sets who does the job. It must not be queued.
func (j *Job) Init(r JobRunner) { j.r = r }

// JobQueue is a list of jobs, first in first out, of which at most limit run at
// the same time: one for each store.
type JobQueue struct {
	w          *Workers
	limit      int
	head, tail *Job
	running    int
	queued     int
	next       *JobQueue
	listed     bool // in w.ready
}

// worker is one goroutine. Without a job it spins shortly, as loops do, and then
// sleeps on state, in the kernel. Measured, one empty job to and fro: 1.0 us
// while both sides spin, 86 us where nobody may; through a channel 140 to 360 us,
// because the scheduler's own threads must wake up in between.
type worker struct {
	state sys.Futex
	spin  spinner
	next  *worker // in idle
}

// The states of a worker in the idle list.
const (
	workerIdle   = iota // looks at state without sleeping
	workerAsleep        // needs a Wake
	workerCalled        // is off the list: there may be a job
	workerEnd           // is off the list: to end
)

type queueList struct{ head, tail *JobQueue }

func newWorkers(g *Group, limit int) *Workers {
	return &Workers{g: g, max: limit, every: idleTime}
}

// NewJobQueue makes a queue that runs at most limit jobs at a time; limit <= 0
// means DefaultQueueLimit. Nothing has to be closed.
func (w *Workers) NewJobQueue(limit int) *JobQueue {
	if limit <= 0 {
		limit = DefaultQueueLimit
	}
	return &JobQueue{w: w, limit: limit}
}

// WorkersStats are numbers of one moment.
type WorkersStats struct {
	Workers int // goroutines
	Running int // jobs that are running
	Queued  int // jobs that wait for a worker or for their queue's limit
}

// Stats reads the numbers. Any goroutine.
func (w *Workers) Stats() WorkersStats {
	w.mu.Lock()
	defer w.unlock()
	return WorkersStats{Workers: w.n, Running: w.running, Queued: w.queued}
}

// Stats reads how many of the queue's jobs are running and waiting. Any
// goroutine.
func (q *JobQueue) Stats() (running, queued int) {
	q.w.mu.Lock()
	defer q.w.unlock()
	return q.running, q.queued
}

// Submit has j run soon. Any goroutine; does not wait for a lock.
func (q *JobQueue) Submit(j *Job) {
	w := q.w
	j.q = q
	for {
		h := w.inbox.Load()
		j.next = h
		if w.inbox.CompareAndSwap(h, j) {
			break
		}
	}
	w.serve()
}

// serve empties the inbox unless somebody holds the lock, who will then do it:
// whoever unlocks looks at the inbox afterwards.
func (w *Workers) serve() {
	for w.inbox.Load() != nil && w.mu.TryLock() {
		w.sort()
		w.mu.Unlock()
	}
}

func (w *Workers) unlock() {
	w.mu.Unlock()
	w.serve()
}

// sort moves the inbox's jobs to their queues and wakes workers for them.
// Called with mu.
func (w *Workers) sort() {
	var first *Job
	for j := w.inbox.Swap(nil); j != nil; {
		next := j.next
		j.next = first
		first = j
		j = next
	}
	for j := first; j != nil; {
		next := j.next
		j.next = nil
		q := j.q
		if q.tail == nil {
			q.head = j
		} else {
			q.tail.next = j
		}
		q.tail = j
		q.queued++
		w.queued++
		if q.running+q.starting() < q.limit {
			w.list(q)
			w.oneMore()
		}
		j = next
	}
}

// starting is how many of the queue's jobs a worker has already been woken for,
// at most.
func (q *JobQueue) starting() int { return q.queued - 1 }

// list puts q among the queues that have a job to start.
func (w *Workers) list(q *JobQueue) {
	if q.listed {
		return
	}
	q.listed = true
	q.next = nil
	if w.ready.tail == nil {
		w.ready.head = q
	} else {
		w.ready.tail.next = q
	}
	w.ready.tail = q
}

// oneMore wakes or starts a worker. Called with mu.
func (w *Workers) oneMore() {
	if w.callIdle(workerCalled) {
		return
	}
	if w.n < w.max {
		w.n++
		w.g.spin.call()
		k := new(worker)
		k.spin.max = int64(w.g.cfg.Spin)
		go w.work(k)
	}
}

// callIdle gives the worker that idles for the shortest time a new state. Called
// with mu.
func (w *Workers) callIdle(state uint32) bool {
	k := w.idle
	if k == nil {
		return false
	}
	w.idle = k.next
	k.next = nil
	if k.state.Swap(state) == workerAsleep {
		w.g.spin.call()
		k.state.Wake()
	}
	return true
}

// take removes the job that is to run next; nil when none may run. Queues have
// their turns one after the other. Called with mu.
func (w *Workers) take() *Job {
	q := w.ready.head
	if q == nil {
		return nil
	}
	w.ready.head = q.next
	if q.next == nil {
		w.ready.tail = nil
	}
	q.next = nil
	q.listed = false
	j := q.head
	q.head = j.next
	if j.next == nil {
		q.tail = nil
	}
	j.next = nil
	q.running++
	q.queued--
	w.running++
	w.queued--
	if q.head != nil && q.running < q.limit {
		w.list(q)
	}
	return j
}

// work is a worker's goroutine.
func (w *Workers) work(k *worker) {
	w.mu.Lock()
	for {
		if w.inbox.Load() != nil {
			w.sort()
		}
		j := w.take()
		if j == nil {
			if w.closed {
				break
			}
			k.state.Store(workerIdle)
			k.next = w.idle
			w.idle = k
			w.unlock()
			called := k.wait(w)
			w.mu.Lock()
			if called || !w.leave(k) {
				continue
			}
			break
		}
		q := j.q // j is its owner's again once it runs
		w.unlock()
		j.r.RunJob(j)
		w.mu.Lock()
		q.running--
		w.running--
		if q.head != nil && q.running < q.limit {
			w.list(q)
		}
	}
	w.n--
	w.unlock()
}

// wait waits until k is called; false: not within w.every, or it is to end.
func (k *worker) wait(w *Workers) bool {
	start := w.g.Now()
	if k.spin.now > 0 && w.g.spin.acquire() {
		calls := w.g.spin.calls.Load()
		for until := start + k.spin.now; w.g.spin.calls.Load() == calls; {
			for range 32 {
				if k.state.Load() != workerIdle {
					break
				}
			}
			if k.state.Load() != workerIdle || w.g.Now() >= until {
				break
			}
		}
		w.g.spin.release()
	}
	if k.state.CompareAndSwap(workerIdle, workerAsleep) {
		for left := int64(w.every); left > 0 && k.state.Load() == workerAsleep; {
			k.state.Wait(workerAsleep, left)
			left = int64(w.every) - (w.g.Now() - start)
		}
		k.spin.slept(w.g.Now() - start)
	}
	return k.state.Load() == workerCalled
}

// leave takes k off the idle list so that it can end; false: it was called in the
// meantime. Called with mu.
func (w *Workers) leave(k *worker) bool {
	if k.state.Load() == workerEnd {
		return true
	}
	for p := &w.idle; *p != nil; p = &(*p).next {
		if *p == k {
			*p = k.next
			return true
		}
	}
	return false
}

// close ends idle workers now and the others when they run out of jobs.
func (w *Workers) close() {
	w.mu.Lock()
	defer w.unlock()
	w.closed = true
	for w.callIdle(workerEnd) {
	}
}
