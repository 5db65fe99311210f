package loop

import (
	"sync"
	"sync/atomic"
	"time"
)

// Workers are the goroutines on which blocking system calls run. There is a
// bound for all of them and one for each JobQueue, so that a queue whose jobs
// hang holds its own share and no more. They start on demand and end after some
// seconds without work.
type Workers struct {
	max   int
	token *spinToken
	// inbox takes jobs without a lock: a loop must not sleep on mu, which a
	// goroutine without a processor may hold.
	inbox atomic.Pointer[Job]

	mu      sync.Mutex
	ready   queueList // queues with a job to start and room to start it
	idle    *worker   // last come, first woken
	nidle   int
	low     int // the smallest nidle since the reaper came by
	n       int // workers
	running int
	queued  int
	reaper  *time.Timer
	reaping bool
	every   time.Duration
	closed  bool
}

// reapEvery is how long a worker idles, once to twice.
const reapEvery = 5 * time.Second

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

type worker struct {
	wake chan bool // false: end
	next *worker
}

type queueList struct{ head, tail *JobQueue }

func newWorkers(limit int, token *spinToken) *Workers {
	return &Workers{max: limit, token: token, every: reapEvery}
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
	if k := w.idle; k != nil {
		w.idle = k.next
		w.nidle--
		w.low = min(w.low, w.nidle)
		w.token.call()
		k.wake <- true
		return
	}
	if w.n < w.max {
		w.n++
		w.token.call()
		go w.work(&worker{wake: make(chan bool, 1)})
	}
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
			k.next = w.idle
			w.idle = k
			w.nidle++
			if !w.reaping {
				w.startReaper()
			}
			w.unlock()
			if !<-k.wake {
				return
			}
			w.mu.Lock()
			continue
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

// startReaper begins to look for workers that idle. Called with mu.
func (w *Workers) startReaper() {
	w.reaping = true
	w.low = 0 // the first look only takes the measure
	if w.reaper == nil {
		w.reaper = time.AfterFunc(w.every, w.reap)
	} else {
		w.reaper.Reset(w.every)
	}
}

// reap ends the workers that nobody needed since it came by last.
func (w *Workers) reap() {
	w.mu.Lock()
	defer w.unlock()
	for range w.low {
		w.endIdle()
	}
	w.low = w.nidle
	if w.n == 0 || w.closed {
		w.reaping = false
		return
	}
	w.reaper.Reset(w.every)
}

// endIdle ends one idle worker. Called with mu.
func (w *Workers) endIdle() {
	k := w.idle
	if k == nil {
		return
	}
	w.idle = k.next
	w.nidle--
	w.n--
	k.wake <- false
}

// close ends idle workers now and the others when they run out of jobs.
func (w *Workers) close() {
	w.mu.Lock()
	defer w.unlock()
	w.closed = true
	for w.idle != nil {
		w.endIdle()
	}
	if w.reaper != nil {
		w.reaper.Stop()
	}
}
