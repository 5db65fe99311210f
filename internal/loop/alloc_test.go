package loop

import (
	"runtime/metrics"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/internal/uring"
)

func heapObjects() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// noAllocs runs f twice, to warm up and to be measured; f does n operations.
func noAllocs(t *testing.T, what string, n int, f func()) {
	t.Helper()
	f()
	// Some objects of the runtime and of the test's own waiting are allowed: on a machine
	// that is busy it makes threads for those that it takes to be blocked (236 objects
	// were seen in 5000 jobs of the workers). What allocates does so each time, or each
	// second time, in every run.
	got, most := uint64(0), uint64(n/10+100)
	for range 4 {
		before := heapObjects()
		f()
		if got = heapObjects() - before; got <= most {
			return
		}
	}
	t.Errorf("%s: %d objects allocated by %d operations", what, got, n)
}

func TestNoAllocations(t *testing.T) {
	const n = 20000
	g := group(t, Config{Loops: 2})
	l := g.Loops()[0]

	noAllocs(t, "Post between loops", n, func() {
		p := &pinger{loops: [2]*Loop(g.Loops()), left: n, done: make(chan struct{})}
		p.Init(p)
		l.Post(&p.Node)
		within(t, p.done, "ping-pong")
	})

	var nd Node
	var left int
	var done chan struct{}
	nd.Init(nodeFunc(func(nd *Node) {
		if left--; left == 0 {
			close(done)
		} else {
			l.Defer(nd)
		}
	}))
	noAllocs(t, "Defer", n, func() {
		left, done = n, make(chan struct{})
		l.Do(func() { l.Defer(&nd) })
		within(t, done, "Defer")
	})

	var tm, far Timer
	far.Init(timerFunc(func(*Timer) {}))
	tm.Init(timerFunc(func(x *Timer) {
		l.After(&far, time.Minute)
		l.Stop(&far)
		if left--; left == 0 {
			close(done)
		} else {
			l.After(x, 0)
		}
	}))
	noAllocs(t, "After and Stop", n/10, func() {
		left, done = n/10, make(chan struct{})
		l.Do(func() { l.After(&tm, 0) })
		within(t, done, "After")
	})

	s := &signalJob{l: l, q: g.Workers().NewJobQueue(0)}
	s.Job.Init(s)
	s.Node.Init(s)
	noAllocs(t, "Submit to workers", n/4, func() {
		s.left, s.done = n/4, make(chan struct{})
		l.Do(func() { s.q.Submit(&s.Job) })
		within(t, s.done, "workers")
	})

	fd := benchFile(t)
	f := &fileReq{l: l}
	f.Op, f.FD, f.Owner = uring.Readv, fd, f
	noAllocs(t, "Submit to io_uring", n/4, func() {
		f.left, f.done = n/4, make(chan struct{})
		l.Do(func() {
			if l.Ring() == nil {
				close(f.done)
				return
			}
			b := l.Slabs().Get(4096)
			f.Iov = sys.AppendIovecs(f.iov[:0], [][]byte{b.B})
			l.Ring().Submit(&f.Req)
			b.Free() // only read into
		})
		within(t, f.done, "io_uring")
	})

	noAllocs(t, "Get and Free", n, func() {
		l.Do(func() {
			for i := range n {
				a, b := l.Slabs().Get(512<<(i%12)), l.Slabs().Get(4096)
				a.Free()
				b.Free()
			}
		})
	})
}
