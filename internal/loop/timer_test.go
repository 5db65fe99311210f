package loop

import (
	"math/rand/v2"
	"sort"
	"testing"
	"time"
)

const tick = int64(1) << tickShift

// fakeRun advances w step by step to now, as a loop would, and returns what
// expired in order, with the time of its expiry.
func fakeRun(t *testing.T, w *wheel, now *int64, until int64, expired func(*Timer)) {
	for {
		d := w.deadline()
		if d < 0 || d > until {
			break
		}
		if d < *now {
			t.Fatalf("deadline %d is before now %d", d, *now)
		}
		*now = d
		w.advance(d)
		for x := w.pop(); x != nil; x = w.pop() {
			expired(x)
		}
	}
	*now = until
	w.advance(until)
	for x := w.pop(); x != nil; x = w.pop() {
		expired(x)
	}
}

// The wheel against a sorted list: random times over all levels, random stops.
func TestWheelModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		var w wheel
		now := rnd.Int64N(1 << 50)
		w.init(now)
		type entry struct {
			Timer
			at      int64
			stopped bool
			fired   bool
		}
		es := make([]*entry, 500)
		byTimer := map[*Timer]*entry{}
		check := func(x *Timer) {
			e := byTimer[x]
			if e.stopped || e.fired {
				t.Fatal("a stopped or ended timer expired")
			}
			e.fired = true
			if now < e.at || now-e.at >= tick && now-e.at > 0 && now/tick != (e.at+tick-1)/tick {
				t.Fatalf("expired %d ns late", now-e.at)
			}
		}
		for i := range es {
			e := &entry{at: now + rnd.Int64N(int64(1)<<(10+rnd.IntN(39)))}
			es[i] = e
			byTimer[&e.Timer] = e
			w.add(&e.Timer, e.at)
			if i%10 == 9 { // time goes on while timers are armed
				fakeRun(t, &w, &now, now+rnd.Int64N(int64(1)<<(10+rnd.IntN(30))), func(x *Timer) {
					if now < byTimer[x].at {
						t.Fatal("early")
					}
					byTimer[x].fired = true
				})
			}
			if v := es[rnd.IntN(i+1)]; i%7 == 0 && v.Armed() {
				w.remove(&v.Timer)
				v.stopped = true
			}
		}
		sort.Slice(es, func(i, j int) bool { return es[i].at < es[j].at })
		last := int64(0)
		fakeRun(t, &w, &now, 1<<51, func(x *Timer) {
			check(x)
			if x.when < last {
				t.Fatal("out of order")
			}
			last = x.when
		})
		for _, e := range es {
			if e.fired == e.stopped {
				t.Fatalf("fired %t, stopped %t", e.fired, e.stopped)
			}
		}
		if w.count != 0 || w.deadline() != -1 {
			t.Fatalf("count %d, deadline %d at the end", w.count, w.deadline())
		}
		for i, o := range w.occupied {
			if o != 0 {
				t.Fatalf("level %d still occupied: %x", i, o)
			}
		}
	}
}

func TestWheelFarFuture(t *testing.T) {
	var w wheel
	w.init(12345)
	var x Timer
	w.add(&x, 1<<62) // centuries: clamped
	now := int64(12345)
	fired := false
	fakeRun(t, &w, &now, (maxTicks+2)*tick, func(*Timer) { fired = true })
	if !fired {
		t.Error("a clamped timer did not expire")
	}
}

func TestTimers(t *testing.T) {
	g := group(t, Config{Loops: 1})
	l := g.Loops()[0]
	const n = 2000
	var ts [n]Timer
	var when [n]int64
	left := n
	last := -1
	done := make(chan struct{})
	l.Do(func() {
		base := l.Now()
		for i := range ts {
			d := time.Duration(i%100) * 200 * time.Microsecond
			when[i] = base + int64(d)
			ts[i].Init(timerFunc(func(x *Timer) {
				if x.Armed() {
					t.Error("armed inside Expired")
				}
				if l.Now() < when[i] {
					t.Errorf("timer %d expired %d ns early", i, when[i]-l.Now())
				}
				if i%100 < last {
					t.Errorf("timer of %d after one of %d", i%100, last)
				}
				last = i % 100
				if left--; left == 0 {
					close(done)
				}
			}))
			l.After(&ts[i], d)
		}
	})
	within(t, done, "all timers")
}

func TestTimerStopAndRearm(t *testing.T) {
	g := group(t, Config{Loops: 1})
	l := g.Loops()[0]
	var a, b, c Timer
	ran := ""
	done := make(chan struct{})
	b.Init(timerFunc(func(*Timer) { ran += "b" }))
	var armed, ended int64
	c.Init(timerFunc(func(*Timer) { ran, ended = ran+"c", l.Now(); close(done) }))
	// a ends first and stops b, which has expired in the same round.
	a.Init(timerFunc(func(*Timer) {
		ran += "a"
		if !l.Stop(&b) || l.Stop(&b) || b.Armed() {
			t.Error("Stop of an expired timer whose turn has not come")
		}
		if l.Stop(&a) {
			t.Error("Stop of the timer that just expired")
		}
	}))
	l.Do(func() {
		armed = l.Now()
		l.After(&a, 5*time.Millisecond)
		l.After(&b, 5*time.Millisecond)
		l.After(&c, time.Hour)
		l.After(&c, 20*time.Millisecond) // armed anew
	})
	within(t, done, "timers")
	l.Do(func() {
		if d := time.Duration(ended - armed); d < 20*time.Millisecond {
			t.Errorf("re-armed timer after %v", d)
		}
		if ran != "ac" {
			t.Errorf("ran %q, want ac", ran)
		}
	})
}

// A timer that is armed in a loop that sleeps without limit.
func TestTimerWhileIdle(t *testing.T) {
	procs(t, func(t *testing.T) {
		g := group(t, Config{Loops: 1})
		l := g.Loops()[0]
		time.Sleep(20 * time.Millisecond)
		for range 20 {
			fired := make(chan int64, 1)
			var x Timer
			x.Init(timerFunc(func(*Timer) { fired <- l.Now() }))
			var armed int64
			l.Do(func() { armed = l.Now(); l.After(&x, 3*time.Millisecond) })
			if d := time.Duration(within(t, fired, "timer") - armed); d < 3*time.Millisecond {
				t.Errorf("after %v, want 3ms", d)
			}
		}
	})
}
