package loop

import (
	"testing"

	"github.com/vtgt/vtgt/internal/sys"
)

// askRounds plays n expected requests that come after gap ns and returns how much of the
// time (ns) went into looks, and how many requests a look found.
func askRounds(a *asker, n int, gap func(i int) int64) (looked int64, hits int) {
	for i := range n {
		d := gap(i)
		switch {
		case a.score <= 0:
			a.slept(d)
		case d < a.max:
			looked += d
			hits++
			a.hit()
		default:
			looked += a.max
			a.miss()
		}
	}
	return looked, hits
}

func TestAsker(t *testing.T) {
	const us, n = 1000, 20_000
	for _, c := range []struct {
		name             string
		gap              func(i int) int64
		hits             int   // at least
		looked, lookedNo int64 // at most so much of the time: looked in lookedNo
	}{
		{"depth 1", func(int) int64 { return 40 * us }, n - 20, 1, 1},
		{"a request each millisecond", func(int) int64 { return 1000 * us }, 0, 0, 1},
		{"just too late", func(int) int64 { return 110 * us }, 0, 1, 500},
		{"every other one late", func(i int) int64 { return int64(40+i%2*960) * us }, 0, 0, 1},
		{"bursts of 12, then a pause", func(i int) int64 {
			if i%12 == 11 {
				return 5000 * us
			}
			return 30 * us
		}, 0, 1, 10},
		{"bursts of 1000, then a pause", func(i int) int64 {
			if i%1000 == 999 {
				return 5000 * us
			}
			return 30 * us
		}, n * 9 / 10, 1, 1},
	} {
		a := asker{max: 100 * us}
		looked, hits := askRounds(&a, n, c.gap)
		total := int64(0)
		for i := range n {
			total += c.gap(i)
		}
		if hits < c.hits || looked*c.lookedNo > total*c.looked {
			t.Errorf("%s: %d of %d found, %d us of %d us spent looking", c.name, hits, n, looked/us, total/us)
		}
	}
	off := asker{max: -1}
	if looked, _ := askRounds(&off, n, func(int) int64 { return us }); looked > 0 {
		t.Error("looks though that is off")
	}
}

// asking answers on one descriptor what comes on another, expecting more.
type asking struct {
	l        *Loop
	src      Source
	in, out  int
	left     int
	finished chan struct{}
}

func (e *asking) Ready(*Source, Events) {
	sys.EventfdDrain(e.in)
	if e.left--; e.left == 0 {
		close(e.finished)
	}
	if e.left >= 0 {
		sys.EventfdSignal(e.out)
	}
	e.l.Expect()
}

// TestExpect: two loops that expect each other's answers, and messages meanwhile, lose
// nothing, whether they look or not.
func TestExpect(t *testing.T) {
	procs(t, func(t *testing.T) {
		for _, loops := range []int{1, 2} {
			g := group(t, Config{Loops: loops})
			a, b := eventfd(t), eventfd(t)
			done := make(chan struct{})
			x := &asking{l: g.Loops()[0], in: a, out: b, left: 2000, finished: done}
			y := &asking{l: g.Loops()[loops-1], in: b, out: a, left: 1 << 30}
			add(t, x.l, &x.src, a, In, x)
			add(t, y.l, &y.src, b, In, y)
			sys.EventfdSignal(a)
			for range 100 {
				x.l.Do(func() {})
				y.l.Do(func() {})
			}
			within(t, done, "the exchange")
			x.l.Do(func() { x.l.Remove(&x.src) })
			y.l.Do(func() { y.l.Remove(&y.src) })
		}
	})
}
