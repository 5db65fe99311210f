package loop

import (
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/internal/slab"
)

// Group is a set of loops with their workers and memory: one per process, as a
// rule.
type Group struct {
	cfg     Config
	loops   []*Loop
	workers *Workers
	start   time.Time
	next    atomic.Uint32
	spin    spinToken
	misuse  atomic.Uint64

	closeOnce sync.Once
}

// NewGroup starts the loops.
func NewGroup(c Config) (*Group, error) {
	if c.Loops <= 0 {
		c.Loops = runtime.GOMAXPROCS(0)
	}
	if c.Spin == 0 {
		c.Spin = defaultSpin
	}
	if c.Workers <= 0 {
		c.Workers = defaultWorkers
	}
	if c.Slabs == nil {
		c.Slabs = slab.New(0)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	g := &Group{cfg: c, start: time.Now()}
	g.workers = newWorkers(g, c.Workers)
	for i := range c.Loops {
		l, err := newLoop(g, i)
		if err != nil {
			g.Close()
			return nil, fmt.Errorf("start loop %d of %d: %w", i+1, c.Loops, err)
		}
		g.loops = append(g.loops, l)
	}
	return g, nil
}

// Loops are the group's loops; the slice is not to be changed.
func (g *Group) Loops() []*Loop { return g.loops }

// Pick is the loop with the least load (AddLoad); among equals each in turn.
func (g *Group) Pick() *Loop {
	n := len(g.loops)
	at := int(g.next.Add(1)-1) % n
	best := g.loops[at]
	for i := 1; i < n; i++ {
		l := g.loops[(at+i)%n]
		if l.load.Load() < best.load.Load() {
			best = l
		}
	}
	return best
}

// Workers are the goroutines for blocking calls.
func (g *Group) Workers() *Workers { return g.workers }

// Slabs is the pool that the loops' caches draw on.
func (g *Group) Slabs() *slab.Pool { return g.cfg.Slabs }

// Now is the present time on the clock of Loop.Now: ns since the group was made,
// monotonic. Any goroutine.
func (g *Group) Now() int64 { return int64(time.Since(g.start)) }

// Misuse counts what Config.Strict would have made panics.
func (g *Group) Misuse() uint64 { return g.misuse.Load() }

// Close ends the loops' threads and waits for that; not to be called on a loop.
// Nodes posted before Close are still handled; timers and sources are dropped.
// Stores and front ends must have been closed: what still is in flight on an
// io_uring is canceled, and what cannot be canceled is named in the log. Workers
// end when their present jobs do. A second Close does nothing.
func (g *Group) Close() {
	g.closeOnce.Do(func() {
		for _, l := range g.loops {
			l.stop.Store(true)
			l.wake()
		}
		for _, l := range g.loops {
			<-l.ended
		}
		g.workers.close()
	})
}
