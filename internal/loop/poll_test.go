package loop

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/sys"
)

// well is a Poller: work that a producer counts up, and wakes for if it was asked to.
type well struct {
	l     *Loop
	poll  PollNode
	serve Node // posted by Poll and Arm, and by the producer
	made  atomic.Int64
	asked atomic.Bool
	took  atomic.Int64

	// The loop's.
	polls, arms int
	deaf        bool // Arm asks and does not look
	direct      bool // Poll serves on the spot, and defers a note of it
	note        Node
	noted       int64 // what took was when the note came
}

// wellNote is a well as the handler of its note.
type wellNote well

func (n *wellNote) Handle(*Node) { n.noted = n.took.Load() }

func newWell(l *Loop) *well {
	w := &well{l: l}
	w.poll.Init(w)
	w.serve.Init(w)
	w.note.Init((*wellNote)(w))
	w.asked.Store(true)
	return w
}

// put makes one piece of work.
func (w *well) put() {
	w.made.Add(1)
	if w.asked.Swap(false) {
		w.l.PostOnce(&w.serve)
	}
}

func (w *well) Handle(*Node) {
	w.took.Store(w.made.Load())
	w.noted = w.took.Load()
	w.l.Hot(&w.poll)
}

func (w *well) Poll() Found {
	w.polls++
	if n := w.made.Load(); w.direct && n != w.took.Load() {
		w.took.Store(n)
		if !w.note.Queued() {
			w.l.Defer(&w.note)
		}
		return Served
	}
	if w.look() {
		return Posted
	}
	return Nothing
}

func (w *well) Arm() bool {
	w.arms++
	w.asked.Store(true)
	return !w.deaf && w.look()
}

func (w *well) look() bool {
	if w.made.Load() == w.took.Load() {
		return false
	}
	w.l.PostOnce(&w.serve)
	return true
}

// drive has n pieces of work made, each when the one before has been taken, with
// pauses of all lengths between them; false: one was not taken.
func (w *well) drive(n int) bool {
	for i := range n {
		for range i % 97 {
			runtime.Gosched()
		}
		if i%200 == 0 {
			time.Sleep(50 * time.Microsecond)
		}
		w.put()
		for k, end := 0, time.Now().Add(patience/4); w.took.Load() != w.made.Load(); k++ {
			if k > 1000 {
				time.Sleep(10 * time.Microsecond)
				if time.Now().After(end) {
					return false
				}
			}
			runtime.Gosched()
		}
	}
	return true
}

// TestPoll: nothing that comes before, while and after the loop falls asleep is lost,
// with and without spinning.
func TestPoll(t *testing.T) {
	for _, c := range []struct {
		name  string
		procs int
		spin  time.Duration
		n     int
	}{{"spinning", 4, 0, 10_000}, {"never", 4, -1, 10_000}, {"one processor", 1, 0, 500}} {
		t.Run(c.name, func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(c.procs))
			g := group(t, Config{Loops: 2, Spin: c.spin})
			ws := []*well{newWell(g.Loops()[0]), newWell(g.Loops()[0]), newWell(g.Loops()[1]), newWell(g.Loops()[1])}
			ws[1].direct, ws[2].direct = true, true
			done := make(chan bool, len(ws))
			for _, w := range ws {
				go func() { done <- w.drive(c.n) }()
			}
			for range ws {
				if !<-done {
					t.Fatal("work was not taken")
				}
			}
			for _, w := range ws {
				// Idle, it is armed and nobody looks at it.
				var polls int
				if !settles(func() bool {
					var cold bool
					w.l.Do(func() { cold, polls = !w.poll.hot, w.polls })
					return cold && w.asked.Load()
				}) {
					t.Fatal("hot for ever")
				}
				for range 10 {
					w.l.Do(func() {})
				}
				w.l.Do(func() {
					if w.polls != polls {
						t.Error("polled while it was armed")
					}
					if w.noted != w.took.Load() {
						t.Errorf("served %d, noted at the end of a round only %d", w.took.Load(), w.noted)
					}
				})
			}
		})
	}
}

// TestPollCold: one that was taken off is left alone.
func TestPollCold(t *testing.T) {
	g := group(t, Config{Loops: 1})
	l := g.Loops()[0]
	a, b, c := newWell(l), newWell(l), newWell(l)
	l.Do(func() {
		for _, w := range []*well{a, b, c, b} {
			l.Hot(&w.poll)
		}
		l.Cold(&a.poll)
		l.Cold(&a.poll)
		if len(l.hot) != 2 || a.poll.hot || !b.poll.hot || !c.poll.hot {
			t.Errorf("hot: %d", len(l.hot))
		}
	})
	for range 3 {
		l.Do(func() {})
	}
	if a.polls != 0 || a.arms != 0 || c.arms == 0 && !settles(func() (ok bool) { l.Do(func() { ok = c.arms > 0 }); return ok }) {
		t.Errorf("polls %d, arms %d, of another %d", a.polls, a.arms, c.arms)
	}
}

// TestPollBusy: on a loop that never sleeps an idle one is armed after a while, and
// one with work is served each round.
func TestPollBusy(t *testing.T) {
	g := group(t, Config{Loops: 1})
	l := g.Loops()[0]
	w := newWell(l)
	var stop atomic.Bool
	b := &busy{l: l, stop: &stop}
	b.n.Init(b)
	l.Do(func() {
		w.asked.Store(false)
		l.Hot(&w.poll)
		l.Post(&b.n)
	})
	ok := settles(func() bool { return w.asked.Load() })
	if ok {
		w.put()
		ok = settles(func() bool { return w.took.Load() == 1 })
	}
	stop.Store(true)
	if !ok {
		t.Error("an idle poller was not armed, or not served then")
	}
}

// busy posts itself.
type busy struct {
	l    *Loop
	n    Node
	stop *atomic.Bool
}

func (b *busy) Handle(*Node) {
	if !b.stop.Load() {
		b.l.Post(&b.n)
	}
}

// spring is a Poller that has work again soon, always, and serves it on the spot.
type spring struct {
	l     *Loop
	polls int
	poll  PollNode
	note  Node
	notes atomic.Int64
}

func (s *spring) Poll() Found {
	if s.polls++; s.polls%3 == 0 {
		return Nothing
	}
	if !s.note.Queued() {
		s.l.Defer(&s.note)
	}
	return Served
}

func (s *spring) Arm() bool { return true }

func (s *spring) Handle(*Node) { s.notes.Add(1) }

// TestPollServed: a poller that is served again and again holds up neither sources nor
// timers nor messages nor what it has deferred.
func TestPollServed(t *testing.T) {
	g := group(t, Config{Loops: 1})
	l := g.Loops()[0]
	s := &spring{l: l}
	s.poll.Init(s)
	s.note.Init(s)
	l.Do(func() {
		// Spinning, wherever this runs.
		l.spin.now = l.spin.max
		g.spin.checked.Store(1 << 62)
		g.spin.limit.Store(1)
		l.Hot(&s.poll)
	})
	var source Source
	fd, ready, expired := eventfd(t), make(chan bool, 1), make(chan bool, 1)
	add(t, l, &source, fd, In|Edge, readyFunc(func(*Source, Events) { ready <- true }))
	var timer Timer
	timer.Init(timerFunc(func(*Timer) { expired <- true }))
	for range 10 {
		n := s.notes.Load()
		sys.EventfdSignal(fd)
		within(t, ready, "a source")
		l.Do(func() { l.After(&timer, time.Millisecond) })
		within(t, expired, "a timer")
		if !settles(func() bool { return s.notes.Load() > n }) {
			t.Fatal("what it has deferred was not done")
		}
	}
	l.Do(func() {
		l.Remove(&source)
		l.Cold(&s.poll)
	})
}
