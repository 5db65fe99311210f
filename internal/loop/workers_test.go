package loop

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// One queue whose jobs hang holds no more than its share: others go on.
func TestHungQueueDoesNotStarveOthers(t *testing.T) {
	procs(t, func(t *testing.T) {
		g := group(t, Config{Loops: 1, Workers: 16})
		w := g.Workers()
		hang := make(chan struct{})
		hung := w.NewJobQueue(8)
		var running, ended atomic.Int32
		js := make([]Job, 100)
		for i := range js {
			js[i].Init(jobFunc(func(*Job) {
				running.Add(1)
				<-hang
				running.Add(-1)
				ended.Add(1)
			}))
			hung.Submit(&js[i])
		}
		// Other queues: all their jobs run meanwhile.
		for range 3 {
			q := w.NewJobQueue(0)
			var wg sync.WaitGroup
			os := make([]Job, 200)
			wg.Add(len(os))
			for i := range os {
				os[i].Init(jobFunc(func(*Job) { wg.Done() }))
				q.Submit(&os[i])
			}
			done := make(chan struct{})
			go func() { wg.Wait(); close(done) }()
			within(t, done, "jobs beside a hung queue")
		}
		// A worker is counted until it has come back from its job.
		if !settles(func() bool {
			r, q := hung.Stats()
			s := w.Stats()
			return running.Load() == 8 && r == 8 && q == 92 && s.Running == 8 && s.Queued == 92
		}) || w.Stats().Workers > 16 {
			r, q := hung.Stats()
			t.Errorf("hung queue: %d running (%d say so), %d waiting; want 8 and 92; all: %+v", r, running.Load(), q, w.Stats())
		}
		close(hang)
		checkLeft(t, "jobs not ended", 0, func() int { return len(js) - int(ended.Load()) })
	})
}

// The bound for all holds and every job of every queue runs, once, in its queue's
// order when the limit is 1.
func TestWorkersLimits(t *testing.T) {
	procs(t, func(t *testing.T) {
		g := group(t, Config{Loops: 1, Workers: 5})
		w := g.Workers()
		const queues, each = 10, 300
		var all, most atomic.Int32
		var wg sync.WaitGroup
		wg.Add(queues * each)
		for qi := range queues {
			limit := 1 + qi%3
			q := w.NewJobQueue(limit)
			var now atomic.Int32
			last := -1
			js := make([]Job, each)
			go func() {
				for i := range js {
					js[i].Init(jobFunc(func(*Job) {
						if n := now.Add(1); n > int32(limit) {
							t.Errorf("%d jobs of a queue with limit %d", n, limit)
						}
						n := all.Add(1)
						for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
						}
						if limit == 1 {
							if i != last+1 {
								t.Errorf("job %d after %d", i, last)
							}
							last = i
						}
						if i%50 == 0 {
							time.Sleep(100 * time.Microsecond)
						}
						all.Add(-1)
						now.Add(-1)
						wg.Done()
					}))
					q.Submit(&js[i])
				}
			}()
		}
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		within(t, done, "all jobs")
		if most.Load() > 5 {
			t.Errorf("%d workers at once, limit 5", most.Load())
		}
	})
}

// A job may be submitted again by its own RunJob's caller side (the loop), with
// the loop asleep or not.
func TestWorkerLoopRoundTrips(t *testing.T) {
	procs(t, func(t *testing.T) {
		g := group(t, Config{Loops: 1})
		l := g.Loops()[0]
		s := &signalJob{l: l, q: g.Workers().NewJobQueue(0), left: 1000, done: make(chan struct{})}
		s.Job.Init(s)
		s.Node.Init(s)
		l.Do(func() { s.q.Submit(&s.Job) })
		within(t, s.done, "round trips")
	})
}

func TestWorkersEndWhenIdle(t *testing.T) {
	g := group(t, Config{Loops: 1})
	w := g.Workers()
	w.every = 20 * time.Millisecond
	before := runtime.NumGoroutine()
	q := w.NewJobQueue(40)
	var wg sync.WaitGroup
	js := make([]Job, 40)
	wg.Add(len(js))
	for i := range js {
		js[i].Init(jobFunc(func(*Job) { wg.Done(); wg.Wait() }))
		q.Submit(&js[i])
	}
	wg.Wait()
	checkLeft(t, "workers", 0, func() int { return w.Stats().Workers })
	checkLeft(t, "goroutines", before, runtime.NumGoroutine)
	// and they come back.
	wg.Add(1)
	js[0].Init(jobFunc(func(*Job) { wg.Done() }))
	q.Submit(&js[0])
	wg.Wait()
}

// What was queued before Close runs.
func TestWorkersCloseRunsAll(t *testing.T) {
	g := group(t, Config{Loops: 1, Workers: 2})
	q := g.Workers().NewJobQueue(0)
	var n atomic.Int32
	js := make([]Job, 50)
	for i := range js {
		js[i].Init(jobFunc(func(*Job) { n.Add(1); time.Sleep(time.Millisecond) }))
		q.Submit(&js[i])
	}
	g.Close()
	checkLeft(t, "jobs not run", 0, func() int { return len(js) - int(n.Load()) })
}
