package loop

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// procs runs f under several values of GOMAXPROCS.
func procs(t *testing.T, f func(t *testing.T)) {
	for _, n := range []int{1, 2, 4} {
		t.Run(fmt.Sprintf("procs=%d", n), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(n))
			f(t)
		})
	}
}

// producer posts the numbers 0..n-1, each in a node of its own.
type numbered struct {
	Node
	from, i int
	got     func(from, i int)
}

func (n *numbered) Handle(*Node) { n.got(n.from, n.i) }

func TestMailboxStress(t *testing.T) {
	procs(t, func(t *testing.T) {
		const producers, each = 8, 5000
		g := group(t, Config{Loops: 2})
		for _, l := range g.Loops() {
			var next [producers]int
			total := 0
			done := make(chan struct{})
			got := func(from, i int) {
				if next[from] != i {
					t.Errorf("producer %d: got %d, want %d", from, i, next[from])
				}
				next[from]++
				if total++; total == producers*each {
					close(done)
				}
			}
			for p := range producers {
				go func() {
					ns := make([]numbered, each)
					for i := range ns {
						ns[i] = numbered{from: p, i: i, got: got}
						ns[i].Init(&ns[i])
						l.Post(&ns[i].Node)
						if i%512 == 0 {
							time.Sleep(time.Microsecond) // let the loop fall asleep
						}
					}
				}()
			}
			within(t, done, "all nodes")
		}
	})
}

// pinger posts itself to and fro between two loops: each wake-up that is lost
// stops the game.
type pinger struct {
	Node
	loops [2]*Loop
	left  int
	delay func(left int)
	done  chan struct{}
}

func (p *pinger) Handle(*Node) {
	if p.left--; p.left == 0 {
		close(p.done)
		return
	}
	if p.delay != nil {
		p.delay(p.left)
	}
	p.loops[p.left&1].Post(&p.Node)
}

func TestNoLostWakeup(t *testing.T) {
	procs(t, func(t *testing.T) {
		n := 20000
		if runtime.GOMAXPROCS(0) <= 2 {
			n = 4000 // each hop waits for the scheduler
		}
		for _, spin := range []time.Duration{-1, 0} {
			g := group(t, Config{Loops: 2, Spin: spin})
			p := &pinger{loops: [2]*Loop(g.Loops()), left: n, done: make(chan struct{})}
			// Delays around the length of a spin meet the moment at which the
			// other loop falls asleep.
			begin := g.Now()
			p.delay = func(left int) {
				if left < n-1000 && g.Now()-begin > 2e9 {
					p.left = 1 // a slow machine: enough
				}
				for end := g.Now() + int64(left%64)*500; left%3 == 0 && g.Now() < end; {
				}
			}
			p.Init(p)
			g.Loops()[0].Post(&p.Node)
			within(t, p.done, "ping-pong")
		}
	})
}

// Wake-ups from outside at random moments.
func TestNoLostWakeupFromGoroutines(t *testing.T) {
	procs(t, func(t *testing.T) {
		g := group(t, Config{Loops: 1})
		l := g.Loops()[0]
		var wg sync.WaitGroup
		for p := range 4 {
			wg.Go(func() {
				ack := make(chan struct{}, 1)
				n := new(Node)
				n.Init(nodeFunc(func(*Node) { ack <- struct{}{} }))
				for i := range 2000 {
					l.Post(n)
					within(t, ack, "post")
					if (i+p)%5 == 0 {
						time.Sleep(time.Duration(i%40) * time.Microsecond)
					}
				}
			})
		}
		wg.Wait()
	})
}

func TestPostOnce(t *testing.T) {
	g := group(t, Config{Loops: 1})
	l := g.Loops()[0]
	// Every increment must be seen by a Handle that comes after it.
	var wanted, seen, handled atomic.Int64
	n := new(Node)
	n.Init(nodeFunc(func(*Node) {
		handled.Add(1)
		seen.Store(wanted.Load())
	}))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5000 {
				wanted.Add(1)
				l.PostOnce(n)
			}
		})
	}
	wg.Wait()
	l.Do(func() {})
	if seen.Load() != 20000 {
		t.Errorf("last Handle saw %d of 20000", seen.Load())
	}
	t.Logf("%d handled", handled.Load())
}

func TestDoublePostIsCaught(t *testing.T) {
	g := group(t, Config{Loops: 1})
	l := g.Loops()[0]
	l.Do(func() {
		var n Node
		n.Init(nodeFunc(func(*Node) {}))
		caught := func(f func()) (v any) {
			defer func() { v = recover() }()
			f()
			return nil
		}
		l.Post(&n)
		if caught(func() { l.Post(&n) }) == nil || caught(func() { l.Defer(&n) }) == nil {
			t.Error("second Post or Defer of a queued node did not panic")
		}
	})
	g.cfg.Strict = false
	l.Do(func() {
		ran := 0
		n := new(Node)
		n.Init(nodeFunc(func(*Node) { ran++ }))
		l.Defer(n)
		l.Defer(n)
		l.Post(n)
		end := new(Node)
		end.Init(nodeFunc(func(*Node) {
			if ran != 1 {
				t.Errorf("handled %d times, want 1", ran)
			}
		}))
		l.Defer(end)
	})
	l.Do(func() {})
	if g.Misuse() != 4 {
		t.Errorf("Misuse() = %d, want 4", g.Misuse())
	}
}

// A round serves the mailbox, then timers, then deferred nodes.
func TestRoundOrder(t *testing.T) {
	g := group(t, Config{Loops: 1})
	l := g.Loops()[0]
	var order []string
	note := func(s string) nodeFunc { return func(*Node) { order = append(order, s) } }
	var posted, posted2, deferred, nested Node
	posted.Init(note("posted"))
	nested.Init(note("deferred by deferred"))
	posted2.Init(note("posted by deferred"))
	deferred.Init(nodeFunc(func(*Node) {
		order = append(order, "deferred")
		l.Post(&posted2)
		l.Defer(&nested)
	}))
	var tm Timer
	expired := make(chan struct{})
	tm.Init(timerFunc(func(*Timer) { order = append(order, "timer"); close(expired) }))
	l.Do(func() {
		l.Defer(&deferred)
		l.After(&tm, 0)
		for end := g.Now() + 1e6; g.Now() < end; {
		}
		order = append(order, "do")
	})
	within(t, expired, "timer")
	l.Do(func() {
		got := fmt.Sprint(order)
		// The timer was armed after the round read its clock: next round.
		want := "[do deferred deferred by deferred posted by deferred timer]"
		if got != want {
			t.Errorf("order %s, want %s", got, want)
		}
	})
}

// A node that defers itself for ever does not keep others from being served.
func TestDeferIsBounded(t *testing.T) {
	g := group(t, Config{Loops: 1})
	l := g.Loops()[0]
	stop := false
	var n Node
	count := 0
	n.Init(nodeFunc(func(*Node) {
		count++
		if !stop {
			l.Defer(&n)
		}
	}))
	l.Do(func() { l.Defer(&n) })
	done := make(chan struct{})
	go func() {
		l.Do(func() { stop = true })
		close(done)
	}()
	within(t, done, "Do beside a node that defers itself")
	l.Do(func() { t.Logf("%d runs", count) })
}

func TestLater(t *testing.T) {
	l := group(t, Config{Loops: 1}).Loops()[0]
	done := make(chan int, 1)
	n := 0
	l.Later(func() {
		l.Later(func() {
			if !l.OnLoop() {
				t.Error("not on the loop")
			}
			done <- n
		})
		n = 1 // before what it has posted runs
	})
	if within(t, done, "Later") != 1 {
		t.Error("f ran inside Later")
	}
}

func TestDo(t *testing.T) {
	g := group(t, Config{Loops: 2})
	l, o := g.Loops()[0], g.Loops()[1]
	if l.OnLoop() {
		t.Error("OnLoop on the test's thread")
	}
	n := 0
	if !l.Do(func() {
		n++
		if !l.OnLoop() || o.OnLoop() {
			t.Error("OnLoop is wrong")
		}
		l.Do(func() { n++ })
		o.Do(func() { n++ })
	}) || n != 3 {
		t.Errorf("n = %d, want 3", n)
	}
	g.Close()
	done := make(chan bool, 1)
	go func() { done <- l.Do(func() { n++ }) }()
	if within(t, done, "Do after Close") || n != 3 {
		t.Error("Do after Close ran f")
	}
}

func TestPickSpreads(t *testing.T) {
	g := group(t, Config{Loops: 3})
	var n [3]int
	for range 300 {
		l := g.Pick()
		l.AddLoad(1)
		n[l.ID()]++
	}
	if n != [3]int{100, 100, 100} {
		t.Errorf("load %v, want 100 each", n)
	}
	g.Loops()[1].AddLoad(-10)
	for range 10 {
		l := g.Pick()
		if l.ID() != 1 {
			t.Errorf("picked loop %d, not the least loaded", l.ID())
		}
		l.AddLoad(1)
	}
}

func TestRecover(t *testing.T) {
	var got []any
	g := group(t, Config{Loops: 1, Recover: func(l *Loop, v any) bool {
		got = append(got, v)
		return true
	}})
	l := g.Loops()[0]
	var ns [4]Node
	ran := 0
	for i := range ns {
		ns[i].Init(nodeFunc(func(*Node) {
			if ran++; i == 1 {
				panic("one")
			}
			if i == 2 {
				var d Node
				d.Init(nodeFunc(func(*Node) { ran++; panic("two") }))
				l.Defer(&d)
			}
		}))
	}
	l.Do(func() {
		for i := range ns {
			l.Post(&ns[i])
		}
	})
	l.Do(func() {})
	l.Do(func() {
		if ran != 5 || fmt.Sprint(got) != "[one two]" {
			t.Errorf("ran %d of 5, recovered %v", ran, got)
		}
	})
}

func TestIdleCPU(t *testing.T) {
	g := group(t, Config{Loops: 4})
	for _, l := range g.Loops() {
		l.Do(func() { l.Ring() })
	}
	// Work first, so that spinning is at its height.
	p := &pinger{loops: [2]*Loop(g.Loops()[:2]), left: 5000, done: make(chan struct{})}
	p.Init(p)
	g.Loops()[0].Post(&p.Node)
	within(t, p.done, "ping-pong")
	runtime.GC()
	// The runtime's own work may fall into a second, but not into each.
	var used time.Duration
	if !settles(func() bool {
		used = cpuTime(t)
		time.Sleep(time.Second)
		used = cpuTime(t) - used
		t.Logf("%v of CPU in 1 s", used)
		return used <= 10*time.Millisecond
	}) {
		t.Errorf("an idle group used %v of CPU in 1 s, want < 10ms", used)
	}
}
