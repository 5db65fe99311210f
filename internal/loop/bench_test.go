package loop

import (
	"fmt"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/sys"
)

// BenchmarkPostRoundTrip is one node to and fro between two loops: two wake-ups
// per operation where they sleep.
func BenchmarkPostRoundTrip(b *testing.B) {
	for _, spin := range []time.Duration{-1, 0} {
		b.Run(fmt.Sprintf("spin=%t", spin == 0), func(b *testing.B) {
			g := group(b, Config{Loops: 2, Spin: spin})
			p := &pinger{loops: [2]*Loop(g.Loops()), left: 2*b.N + 1, done: make(chan struct{})}
			p.Init(p)
			b.ReportAllocs()
			b.ResetTimer()
			used := cpuTime(b)
			g.Loops()[0].Post(&p.Node)
			<-p.done
			b.StopTimer()
			b.ReportMetric(float64(cpuTime(b)-used)/float64(b.N), "cpu-ns/op")
		})
	}
}

// BenchmarkPostBatch is the cost of a node where the loop has always more.
func BenchmarkPostBatch(b *testing.B) {
	g := group(b, Config{Loops: 1})
	l := g.Loops()[0]
	var ns [64]Node
	left := b.N
	done := make(chan struct{})
	for i := range ns {
		ns[i].Init(nodeFunc(func(n *Node) {
			if left--; left == 0 {
				close(done)
			} else if left > 0 {
				l.Post(n)
			}
		}))
	}
	b.ReportAllocs()
	b.ResetTimer()
	l.Do(func() {
		for i := range ns {
			l.Post(&ns[i])
		}
	})
	<-done
}

// echo answers each signal of one eventfd by a signal of another.
type echo struct {
	Source
	in, out int
	left    int
	done    chan struct{}
}

func (e *echo) Ready(*Source, Events) {
	sys.EventfdDrain(e.in)
	if e.left--; e.left < 0 {
		return
	}
	sys.EventfdSignal(e.out)
	if e.left == 0 {
		close(e.done)
	}
}

// BenchmarkEpollPingPong is a signal to and fro between sources of two loops.
func BenchmarkEpollPingPong(b *testing.B) {
	for _, spin := range []time.Duration{-1, 0} {
		b.Run(fmt.Sprintf("spin=%t", spin == 0), func(b *testing.B) {
			g := group(b, Config{Loops: 2, Spin: spin})
			x, _ := sys.NewEventfd()
			y, _ := sys.NewEventfd()
			defer sys.Close(x)
			defer sys.Close(y)
			es := [2]*echo{
				{in: x, out: y, left: b.N, done: make(chan struct{})},
				{in: y, out: x, left: b.N, done: make(chan struct{})},
			}
			for i, l := range g.Loops() {
				l.Do(func() {
					if err := l.Add(&es[i].Source, es[i].in, In, es[i]); err != nil {
						b.Error(err)
					}
				})
			}
			b.ReportAllocs()
			b.ResetTimer()
			used := cpuTime(b)
			sys.EventfdSignal(x)
			<-es[0].done
			<-es[1].done
			b.StopTimer()
			b.ReportMetric(float64(cpuTime(b)-used)/float64(b.N), "cpu-ns/op")
			for i, l := range g.Loops() {
				l.Do(func() { l.Remove(&es[i].Source) })
			}
		})
	}
}

func BenchmarkDefer(b *testing.B) {
	g := group(b, Config{Loops: 1})
	l := g.Loops()[0]
	left := b.N
	done := make(chan struct{})
	var n Node
	n.Init(nodeFunc(func(n *Node) {
		if left--; left == 0 {
			close(done)
		} else {
			l.Defer(n)
		}
	}))
	b.ReportAllocs()
	b.ResetTimer()
	l.Do(func() { l.Defer(&n) })
	<-done
}

func BenchmarkTimerArmStop(b *testing.B) {
	g := group(b, Config{Loops: 1})
	l := g.Loops()[0]
	l.Do(func() {
		var ts [1000]Timer
		for i := range ts {
			ts[i].Init(timerFunc(func(*Timer) {}))
		}
		b.ReportAllocs()
		b.ResetTimer()
		for i := range b.N {
			t := &ts[i%1000]
			l.After(t, time.Duration(i%1000)*time.Millisecond)
			if i%1000 == 999 {
				for j := range ts {
					l.Stop(&ts[j])
				}
			}
		}
		for j := range ts {
			l.Stop(&ts[j])
		}
	})
}

// signalJob is a job whose end is posted.
type signalJob struct {
	Job
	Node
	l    *Loop
	q    *JobQueue
	left int
	done chan struct{}
}

func (s *signalJob) RunJob(*Job) { s.l.Post(&s.Node) }

func (s *signalJob) Handle(*Node) {
	if s.left--; s.left == 0 {
		close(s.done)
		return
	}
	s.q.Submit(&s.Job)
}

// BenchmarkWorkerRoundTrip is a job that does nothing, from loop to worker and
// back, one at a time.
func BenchmarkWorkerRoundTrip(b *testing.B) {
	g := group(b, Config{Loops: 1})
	l := g.Loops()[0]
	s := &signalJob{l: l, q: g.Workers().NewJobQueue(0), left: b.N, done: make(chan struct{})}
	s.Job.Init(s)
	s.Node.Init(s)
	b.ReportAllocs()
	b.ResetTimer()
	used := cpuTime(b)
	l.Do(func() { s.q.Submit(&s.Job) })
	<-s.done
	b.StopTimer()
	b.ReportMetric(float64(cpuTime(b)-used)/float64(b.N), "cpu-ns/op")
}
